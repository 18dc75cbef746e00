"""``flask adroll worker`` says that it started, and at its end what it did."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import AppMaker, Caplog
from tests.support import ROOT
from tests.support.pages import SHOP
from tests.support.visits import report

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
@pytest.mark.parametrize("program", [SHOP, INTERRUPTED + SHOP], ids=["started", "beginning"])
def test_it_says_that_it_started_and_a_signal_ends_it_in_order(
    tmp_path: Path, program: str
) -> None:
    (tmp_path / "shop.py").write_text(program)
    child = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "shop", "adroll", "worker"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "FLASK_ADROLL_DELIVERY": "worker"},
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
    (started,) = [line for line in lines if line.startswith("Delivers to ")]
    assert "not set" in started
    assert lines[-1] == "Ended: 0 events delivered, 0 waiting.\n"


def test_every_record_has_a_name_that_stays(make_app: AppMaker, caplog: Caplog) -> None:
    report(make_app(ADROLL_STRICT=False), "1001", value="free of charge")
    records = [record for record in caplog.records if record.name.startswith("adroll_flask")]
    assert [record.adroll_event for record in records] == ["event-invalid"]  # type: ignore[attr-defined]
    assert logging.getLogger("adroll_flask").handlers == []
