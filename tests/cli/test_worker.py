"""``flask adroll worker`` says that it started, and a line a minute of what it did."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adroll_flask.cli.worker import Report
from adroll_flask.sandbox import running
from tests.conftest import AppMaker
from tests.support import ROOT
from tests.support.visits import at, report


def test_a_line_says_what_was_done_since_the_last_one(make_app: AppMaker) -> None:
    with running() as sandbox:
        app = make_app(**at(sandbox))
        runtime = app.extensions["adroll"]
        said: list[tuple[str, str]] = []
        told = Report(runtime, lambda event, text: said.append((event, text)))
        told.started()
        for order in ("1001", "1002", "1003"):
            report(app, order)
        runtime.deliverer.drain()
        told.minute()
        told.minute()
        sandbox.fault(status=503, times=1)
        report(app, "1004")
        runtime.deliverer.drain()
        told.minute()
        told.stopped()
    assert [event for event, _ in said] == [
        "worker-started",
        *["worker-minute"] * 3,
        "worker-stopped",
    ]
    texts = [text for _, text in said]
    assert texts[0] == f"Delivers to {sandbox.api_url} until Ctrl-C or SIGTERM."
    assert texts[1:3] == ["3 delivered; nothing due", "0 delivered; nothing due"]
    assert texts[3].startswith("0 delivered, 1 to be sent again; ")
    assert texts[4] == "Ended: 3 events delivered, 1 waiting."


def test_a_line_says_what_keeps_events_from_adroll(make_app: AppMaker) -> None:
    app = make_app()
    runtime = app.extensions["adroll"]
    report(app, "1001")
    assert runtime.thread.stop(60)  # which may be taking it in
    runtime.outbox.queue.take_in()
    runtime.outbox.destination(runtime.settings.advertisable_eid).stop(
        "unauthorized", "fingerprint", "http_401"
    )
    said: list[str] = []
    Report(runtime, lambda _, text: said.append(text)).minute()
    assert said[0].startswith("0 delivered; 1 due (AdRoll has refused everything for ")
    assert said[0].endswith(" (unauthorized): flask adroll send-test)")


PROGRAM = """
import json, logging, sys
from flask import Flask
from adroll_flask import AdRoll
if sys.argv[0] and "LOGGED" in __import__("os").environ:
    class AsJson(logging.Formatter):
        def format(self, record):
            return json.dumps([record.levelname, record.adroll_event, record.getMessage()])
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(AsJson())
    logging.getLogger("adroll_flask").addHandler(handler)
    logging.getLogger("adroll_flask").setLevel(logging.INFO)
app = Flask("shop", instance_path=FOLDER)
app.config.update(SECRET_KEY="k" * 32, ADROLL_DELIVERY="worker")
AdRoll(app)
"""


def begun_and_ended(folder: Path, program: str, **env: str) -> list[str]:
    """What a worker of *program* says from its start to a SIGTERM, which ends it in order."""
    (folder / "shop.py").write_text(f"FOLDER = {str(folder)!r}\n{program}")
    child = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "shop", "adroll", "worker"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdout is not None
    with child, child.stdout as said:
        lines = [said.readline()]
        while "Delivers to" not in lines[-1]:
            assert lines[-1], "it ended by itself"
            lines.append(said.readline())
        child.send_signal(signal.SIGTERM)
        lines += said.readlines()
    assert child.returncode == 0, lines
    return lines


@pytest.mark.skipif(os.name == "nt", reason="sends SIGTERM")
@pytest.mark.parametrize("logged", [False, True])
def test_the_command_says_that_it_started_and_that_it_stopped(tmp_path: Path, logged: bool) -> None:
    lines = begun_and_ended(tmp_path, PROGRAM, **({"LOGGED": "1"} if logged else {}))
    if logged:
        records = [json.loads(line) for line in lines]
        names = [name for _, name, _ in records]
        assert (names[0], names[-1]) == ("account-missing", "worker-stopped")
        assert "worker-started" in names
        assert all(name for name in names)
    else:
        (started,) = [line for line in lines if line.startswith("Delivers to ")]
        assert "not set" in started
        assert lines[-1] == "Ended: 0 events delivered, 0 waiting.\n"


#: Sends the worker a signal while it imports what makes its outbox, if it takes signals by then.
INTERRUPTED = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        takes = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        if name == "adroll_flask.events.fix" and takes:
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Interrupts())
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGTERM")
def test_a_signal_while_the_worker_begins_ends_it_in_order(tmp_path: Path) -> None:
    lines = begun_and_ended(tmp_path, INTERRUPTED + PROGRAM)
    assert lines[-1] == "Ended: 0 events delivered, 0 waiting.\n"


def test_every_record_has_a_name_that_stays(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(ADROLL_STRICT=False)
    report(app, "1001", value="free of charge")
    records = [record for record in caplog.records if record.name.startswith("adroll_flask")]
    assert [record.adroll_event for record in records] == ["event-invalid"]  # type: ignore[attr-defined]
    assert logging.getLogger("adroll_flask").handlers == []
