"""Reporters and workers killed at random: nothing lost, nothing doubled without a mark."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

CHAOS = Path(__file__).parents[1] / "chaos.py"


@pytest.fixture(scope="module")
def chaos() -> ModuleType:
    spec = spec_from_file_location("chaos", CHAOS)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Row:
    state: str = "delivered"
    unsure: bool = False
    attempts: int = 1


def test_the_verdict_sees_a_lost_order_and_a_doubled_one(chaos):
    assert chaos.verdict(["a", "b"], {"a": 1, "b": 1}, {"a": Row(), "b": Row()}) == []
    marked = {"a": Row(unsure=True, attempts=2)}
    assert chaos.verdict(["a"], {"a": 2}, marked) == []
    assert chaos.verdict(["a", "b"], {"a": 1}, {"a": Row()}) == ["b: acknowledged and lost"]
    assert chaos.verdict([], {"a": 2}, {"a": Row(attempts=2)}) == [
        "a: arrived 2 times without a mark"
    ]
    assert chaos.verdict([], {"a": 3}, marked) == ["a: arrived 3 times in 2 requests"]
    assert chaos.verdict([], {"a": 1}, {"a": Row(state="dead")}) == ["a: is dead"]
    assert chaos.verdict([], {"a": 1}, {}) == ["a: arrived and is not in the outbox"]


@pytest.mark.slow
def test_fifty_kills_lose_nothing_and_double_only_what_was_unsure():
    done = subprocess.run(
        [sys.executable, str(CHAOS), "--kills", "50", "--hangs", "10"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    summary = json.loads(done.stdout)
    assert summary["wrong"] == [], summary
    assert summary["left"] == 0, summary
    assert done.returncode == 0
    assert summary["kills"] >= 50
    assert summary["kills_while_hanging"] >= 10
    assert summary["acknowledged"] >= 200, "the shop was alive between the kills"
    assert summary["arrived"] >= summary["acknowledged"]
    # Kills did meet requests, else nothing was tried.
    assert summary["marked_unsure"] > 0
