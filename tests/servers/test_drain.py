"""Four workers on a server's outbox, all of them and the server killed: nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.servers import ENGINES, missing
from tests.support import ROOT, lacking


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_kills_of_workers_and_of_the_database_lose_nothing(engine: str) -> None:
    if why := missing(engine):
        lacking(why)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.drain",
            "--engine",
            engine,
            "--events",
            "4000",
            "--lease",
            "4",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.stdout, done.stderr
    summary = json.loads(done.stdout)
    assert summary["wrong"] == [], summary
    assert summary["arrived"] == summary["acknowledged"] == 4500
    assert summary["kills"] == 6
    # Four requests of up to a hundred events hung, and had been taken, when their workers died.
    assert 4 <= summary["arrived_twice"] <= summary["marked_unsure"]
    assert summary["exit_codes"] == [0] * 4
