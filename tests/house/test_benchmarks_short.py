"""The benchmark's short form: it runs, and loses nothing. How fast is no test's matter."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT, ran

pytestmark = pytest.mark.slow

OURS = "adroll_flask"
PEERS = {"PostHog": "posthog", "Segment": "segment", "Snowplow": "snowplow_tracker"}


def measure(tmp_path: Path, *parts: str) -> dict[str, Any]:
    there = [name for name, module in PEERS.items() if find_spec(module)]
    told = tmp_path / "figures.json"
    command = (sys.executable, "-m", "benchmarks.side_by_side", "--short", f"--json={told}")
    ran(*command, f"--only={','.join(parts)}", f"--peers={','.join(there)}", cwd=ROOT)
    found: dict[str, Any] = json.loads(told.read_text())
    return found


def test_calls_are_measured_beside_bare_inserts(tmp_path: Path) -> None:
    for found in measure(tmp_path, "calls")["calls"].values():
        for kind in (OURS, "bare insert"):
            assert 0 < found[kind]["fastest"] <= found[kind]["median"]


def test_a_burst_arrives_and_an_outage_and_a_kill_lose_nothing(tmp_path: Path) -> None:
    found = measure(tmp_path, "burst", "outage", "kill")
    assert found["burst"][OURS]["lost"] == 0
    # 20,000 events take no longer in memory than 2,000: they wait on disk.
    assert found["burst"][OURS]["more_memory"] < 50
    for part in ("outage", "kill"):
        assert found[part][OURS]["arrived"] == found[part][OURS]["of"]


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_a_checkout_route_serves_while_events_are_delivered(tmp_path: Path) -> None:
    found = measure(tmp_path, "checkout")["checkout"]
    assert found[OURS]["lost"] == 0
    assert found[OURS]["of_bare"] >= 0
