"""The simulation of docs/how-to/scaling.md, checked against what can be reckoned by hand."""

import math
from typing import Any

import pytest

from benchmarks.simulate import Plan, simulate


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {"rate": 100, "partitions": 1, "capacity": 300, "skew": 1, "swing": 0}
    return Plan(**(values | {"longest_pause": 0} | changes))


def test_an_outage_s_backlog_is_gone_after_what_arithmetic_says() -> None:
    summary = simulate(plan(outages=[(0.5, 1)]), 3)
    # 100 a second for an hour, and 200 a second to spare afterwards.
    assert summary.peak == pytest.approx(360_000, rel=0.001)
    assert summary.drained[0] == pytest.approx(0.5, rel=0.01)
    assert summary.oldest == pytest.approx(3600, abs=2)
    assert summary.lost == pytest.approx(0, abs=1e-3)


def test_a_limit_without_room_never_drains() -> None:
    assert simulate(plan(outages=[(0.1, 0.1)], limit=1), 1).drained == (math.inf,)
