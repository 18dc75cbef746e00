"""What root makes in the app user's folder is the app user's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from flask import Flask

from adroll_flask import AdRoll, report_conversion
from adroll_flask.cli.commands import commands
from adroll_flask.outbox.files import make_file, make_folder, open_file
from tests.support import PATIENCE, others_may_enter

NOBODY = 65534
WEB_PROCESS = """
import os, sys
from flask import Flask
from adroll_flask import AdRoll, report_conversion

def serve(instance):
    app = Flask("shop", instance_path=instance)
    app.config.update(SECRET_KEY="a key for tests", ADROLL_DELIVERY="worker",
                      ADROLL_ADVERTISABLE_EID="ADVERTISABLE0000000001")
    AdRoll(app)
    with app.test_request_context("/?adct=c", environ_base={"REMOTE_ADDR": "203.0.113.7"}):
        status = report_conversion(order_id="web", value=1, currency="EUR").status
    outbox = app.extensions["adroll"].outbox
    claim = outbox.queue.claim("ADVERTISABLE0000000001")
    orders = " ".join(sorted(event.key for event in claim.events))
    print(status, orders, len(outbox.queue.begin_sending(claim)), sep="; ")
    outbox.close()

serve(sys.argv[2])  # as root, since Python itself may be where only root may read
os.setgroups([])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[3]))
serve(sys.argv[1])
"""

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root, who gives files away"
)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of another user's, where that user may come; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # a thread may still write there


def make_app(instance: Path) -> Flask:
    app = Flask("shop", instance_path=str(instance))
    app.config.update(
        SECRET_KEY="a key for tests",
        ADROLL_ADVERTISABLE_EID="ADVERTISABLE0000000001",
        ADROLL_DELIVERY="worker",
    )
    AdRoll(app)
    return app


def owned_by_root(folder: Path) -> list[Path]:
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # gone since it was listed
            if path.stat().st_uid != NOBODY:
                found.append(path)
    return found


@pytest.mark.skipif(
    not others_may_enter(), reason="the app's user may not enter the folder of this clone"
)
@pytest.mark.patient
@pytest.mark.parametrize("command", ["import", "create-table", "report"])
def test_the_app_goes_on_after_a_command_of_root_s(
    home: Path, tmp_path: Path, command: str
) -> None:
    app = make_app(home / "instance")
    run = app.test_cli_runner().invoke
    expected = ["web"]
    if command == "import":
        line = {"order_id": "imported", "value": "1", "currency": "EUR", "adct": "c"}
        line |= {"ip": "203.0.113.9", "page_location": "https://shop.example/"}
        done = run(commands, ["import", "-"], input=json.dumps(line))
        expected = ["imported", "web"]
    elif command == "create-table":
        done = run(commands, ["outbox", "create-table"])
    else:  # of a script, whose journal nobody has read yet
        with app.test_request_context("/?adct=c", environ_base={"REMOTE_ADDR": "203.0.113.7"}):
            assert report_conversion(order_id="script", value=1, currency="EUR")
        done = run(commands, ["outbox", "--help"])
        expected = ["script", "web"]
    assert done.exit_code == 0, done.output
    # The thread that takes in may be about to give away what it has made this moment.
    until = time.monotonic() + PATIENCE
    while left := owned_by_root(home):
        assert time.monotonic() < until, left
        time.sleep(0.02)
    assert len(list(home.rglob("*"))) > 1
    app.extensions["adroll"].outbox.close()

    web = subprocess.run(
        [sys.executable, "-c", WEB_PROCESS, home / "instance", tmp_path, str(NOBODY)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert web.returncode == 0, web.stderr
    told = web.stdout.splitlines()
    assert told == ["queued; web; 1", f"queued; {' '.join(expected)}; {len(expected)}"]


def test_root_s_own_folder_stays_root_s(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    os.close(make_file(tmp_path / "a" / "b" / "c", os.O_RDWR))
    assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {0}


def test_root_gives_nothing_away_that_was_there_before(home: Path) -> None:
    """The folder's owner could have put a link to any file of root's there."""
    secret = home.with_name(home.name + "-secret")
    secret.touch(mode=0o600)
    try:
        os.link(secret, home / "lock")
        os.close(open_file(home / "lock", os.O_RDWR))
        assert secret.stat().st_uid == 0
        with pytest.raises(FileExistsError):
            make_file(home / "lock", os.O_RDWR)
        assert secret.stat().st_uid == 0
    finally:
        secret.unlink()
