"""``flask adroll import`` of a long file: several processes check its lines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adroll_flask.cli.import_checks import ALONE
from tests.support import PATIENCE, ROOT

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2,
    reason="one process checks all lines where it cannot fork, and on one processor",
)

APP = """
from flask import Flask
from adroll_flask import AdRoll

app = Flask("shop", instance_path={instance!r})
app.config.update(
    SECRET_KEY="x",
    ADROLL_ADVERTISABLE_EID="ADVERTISABLE0000000001",
    ADROLL_PIXEL_EID="PIXEL00000000000000001",
    ADROLL_ACCESS_TOKEN="a-token",
    ADROLL_DELIVERY="worker",
)
AdRoll(app)
"""
SET = ("--set", "page_location=https://shop.test/", "--set", "ip=203.0.113.7")
HEAD = "order_id,value,currency,user_id\n"
COUNT = ALONE + 2600


def line(number: int) -> str:
    # Every thousandth is wrong, and one has a cell too few.
    if number == ALONE + 700:
        return f"{number},1.00\n"
    value = "much" if number % 1000 == 999 else "59.90"
    return f"{number},{value},EUR,u{number}\n"


WRONG = [n for n in range(COUNT) if n % 1000 == 999 or n == ALONE + 700]


class Command:
    """One import in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, processors: set[int] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "shop.py").write_text(APP.format(instance=str(folder / "instance")))
        command = [sys.executable, "-m", "flask", "--app", "shop", "adroll"]

        def limit() -> None:
            if processors:
                os.sched_setaffinity(0, processors)

        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=limit,
        )

    def said(self, text: str | None = None) -> str:
        return self.process.communicate(text, timeout=PATIENCE)[0]

    @property
    def members(self) -> list[int]:
        """The processes that it has started."""
        number = self.process.pid
        return [
            int(one) for one in Path(f"/proc/{number}/task/{number}/children").read_text().split()
        ]


@pytest.fixture
def under_way(tmp_path: Path) -> Iterator[Command]:
    """An import whose processes are there, and that waits for more lines."""
    command = Command(tmp_path / "shop", "import", "-", *SET)
    assert command.process.stdin is not None
    command.process.stdin.write(HEAD + "".join(map(line, range(COUNT))))
    command.process.stdin.flush()
    end = time.monotonic() + PATIENCE
    while len(command.members) < 2:
        assert command.process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    yield command
    if command.process.poll() is None:
        command.process.kill()
        command.process.communicate()


def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    text = HEAD + "".join(map(line, range(COUNT)))
    said, rejected, kept = [], [], []
    for name, processors in (("one", {min(os.sched_getaffinity(0))}), ("many", None)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "orders.csv").write_text(text)
        output = Command(folder, "import", "orders.csv", *SET, processors=processors).said()
        # What took over a second says its rate, too.
        said.append(re.sub(r" \([0-9,]+ lines/s\)", "", output).splitlines())
        assert f"{COUNT - len(WRONG):,} queued" in output
        rejected.append((folder / "orders.csv.rejected.csv").read_text())
        exported = Command(folder, "outbox", "export").said().splitlines()
        keys = [row.partition('"deduplication_key"')[2].split('"')[1] for row in exported]
        kept.append(sorted(map(int, keys)))
    assert said[0] == said[1]
    assert rejected[0] == rejected[1]
    assert [int(row.split(",")[0]) for row in rejected[0].splitlines()[1:]] == [
        n + 2 for n in WRONG
    ]
    assert kept[0] == kept[1] == [n for n in range(COUNT) if n not in WRONG]


def test_of_two_lines_with_one_order_the_first_is_kept(tmp_path: Path) -> None:
    """Whichever process checks them."""
    lines = [*map(line, range(COUNT))]
    lines[ALONE + 900] = lines[ALONE + 1100] = "twice,2.00,EUR,u1\n"
    lines[ALONE + 100] = "twice,1.00,EUR,u1\n"
    assert "2 duplicate" in Command(tmp_path, "import", "-", *SET).said(HEAD + "".join(lines))
    exported = Command(tmp_path, "outbox", "export", "--full").said().splitlines()
    [event] = [one["event"] for one in map(json.loads, exported) if '"twice"' in json.dumps(one)]
    assert float(event["conversion_value"]) == 1.0


def test_an_import_that_is_killed_while_it_keeps_goes_on_where_it_was(tmp_path: Path) -> None:
    text = HEAD + "".join(map(line, range(COUNT)))
    (tmp_path / "orders.csv").write_text(text)
    command = Command(tmp_path, "import", "orders.csv", *SET)
    journal = tmp_path / "instance" / "adroll-journal"
    end = time.monotonic() + PATIENCE
    while not [*journal.glob("*.journal")]:
        assert command.process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.001)
    command.process.kill()
    command.process.communicate()

    said = Command(tmp_path, "import", "orders.csv", *SET).said()
    queued, duplicate = (
        int((re.search(rf"([\d,]+) {what}", said) or ["", "0"])[1].replace(",", ""))
        for what in ("queued", "duplicate")
    )
    assert queued + duplicate == COUNT - len(WRONG)
    assert duplicate >= ALONE - len(WRONG)
    exported = Command(tmp_path, "outbox", "export").said().splitlines()
    keys = [int(json.loads(row)["deduplication_key"]) for row in exported]
    assert sorted(keys) == [n for n in range(COUNT) if n not in WRONG]
    # What was good lay in files without a name: nobody has to find and remove them.
    assert {path.name for path in (tmp_path / "instance").iterdir()} <= {
        "adroll-journal",
        *(f"adroll-outbox.sqlite{suffix}" for suffix in ("", "-wal", "-shm", ".lock")),
    }


def test_ctrl_c_ends_all_of_them_and_keeps_nothing(under_way: Command) -> None:
    members = under_way.members
    os.killpg(under_way.process.pid, signal.SIGINT)
    said = under_way.said()
    assert under_way.process.returncode == 130
    assert "nothing was kept" in said
    assert "Traceback" not in said
    assert not [number for number in members if Path(f"/proc/{number}").exists()]


def test_one_that_is_killed_is_told_and_nothing_is_kept(under_way: Command) -> None:
    """As by a system that is short of memory."""
    for number in under_way.members:
        os.kill(number, signal.SIGKILL)
    said = under_way.said("".join(map(line, range(COUNT, 2 * COUNT))))
    assert under_way.process.returncode == 1
    assert "a process that checked lines was ended; nothing was kept" in said
    assert "Traceback" not in said


def test_an_import_that_is_killed_leaves_nobody_behind(under_way: Command) -> None:
    members = under_way.members
    under_way.process.kill()
    under_way.process.communicate()
    end = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{number}").exists() for number in members):
        assert time.monotonic() < end
        time.sleep(0.02)
