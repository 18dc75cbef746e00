"""``flask adroll import`` of a long file: its memory, Ctrl-C, and a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import PATIENCE, ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and /proc")

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
#: What the kernel says of a process that has ended: how much memory it had at most.
PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


def lines(count: int) -> str:
    return HEAD + "".join(f"{number},59.90,EUR,u{number}\n" for number in range(count))


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    (folder / "shop.py").write_text(APP.format(instance=str(folder / "instance")))
    run = f"from flask.cli import main\ntry: main()\nfinally: {PEAK}"
    return subprocess.Popen(
        [sys.executable, "-c", run, "--app", "shop", "adroll", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said(process: subprocess.Popen[str], text: str | None = None) -> str:
    return process.communicate(text, timeout=PATIENCE)[0]


def wait_for(process: subprocess.Popen[str], state: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not state():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.001)


def keys(folder: Path) -> list[int]:
    rows = said(started(folder, "outbox", "export")).splitlines()[:-1]
    return sorted(int(json.loads(row)["deduplication_key"]) for row in rows)


def journal(folder: Path) -> list[Path]:
    return [*(folder / "instance" / "adroll-journal").glob("*.journal")]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for count in (10_000, 60_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        output = said(started(folder, "import", "-", *SET), lines(count))
        assert f"{count:,} queued" in output
        peaks.append(int(output.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 40 * 1024  # KiB: 50,000 events are more


def test_an_import_that_is_killed_while_it_keeps_goes_on_where_it_was(tmp_path: Path) -> None:
    count = 4000
    (tmp_path / "orders.csv").write_text(lines(count))
    process = started(tmp_path, "import", "orders.csv", *SET)
    wait_for(process, lambda: journal(tmp_path))
    process.kill()
    process.communicate()
    output = said(started(tmp_path, "import", "orders.csv", *SET))
    found = (re.search(rf"([\d,]+) {what}", output) for what in ("queued", "duplicate"))
    assert sum(int(one[1].replace(",", "")) for one in found if one) == count
    assert keys(tmp_path) == [*range(count)]
    # What was good lay in a file without a name: nobody has to find and remove it.
    assert {path.name.split(".")[0] for path in (tmp_path / "instance").iterdir()} <= {
        "adroll-journal",
        "adroll-outbox",
    }


def test_ctrl_c_while_lines_are_checked_keeps_nothing(tmp_path: Path) -> None:
    process = started(tmp_path, "import", "-", *SET)
    assert process.stdin is not None
    process.stdin.write(lines(500))
    process.stdin.flush()
    # What is good waits beside the journal, in a folder that the first pass makes.
    wait_for(process, (tmp_path / "instance").exists)
    process.send_signal(signal.SIGINT)
    output = said(process)
    assert "nothing was kept" in output
    assert "Traceback" not in output
    assert process.returncode == 130
    assert journal(tmp_path) == []
