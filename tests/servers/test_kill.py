"""Reporters and workers killed at random: nothing lost, nothing doubled without a mark."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import ROOT, chaos


@dataclass
class Row:
    state: str = "delivered"
    unsure: bool = False
    attempts: int = 1


def test_the_verdict_sees_a_lost_order_and_a_doubled_one() -> None:
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


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.chaos", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=800,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def survived(kills: int, hangs: int) -> dict[str, Any]:
    code, summary = run("--kills", str(kills), "--hangs", str(hangs))
    assert summary["wrong"] == [], summary
    assert summary["left"] == 0, summary
    assert code == 0
    assert summary["kills"] >= kills
    assert summary["kills_while_hanging"] >= hangs
    assert summary["acknowledged"] > 0
    return summary


def test_a_few_kills_lose_nothing_and_double_only_what_was_unsure() -> None:
    survived(kills=6, hangs=2)


@pytest.mark.slow
def test_fifty_kills_lose_nothing_and_double_only_what_was_unsure() -> None:
    summary = survived(kills=50, hangs=10)
    assert summary["acknowledged"] >= 200, "the shop was alive between the kills"
    assert summary["arrived"] >= summary["acknowledged"]
    # Kills did meet requests, those of a shop's own thread among them: else nothing was tried.
    assert sum(summary["kills_while_sending"].values()) >= 10
    assert summary["kills_while_sending"]["shop"] > 0
    assert summary["marked_unsure"] > 0


@pytest.mark.slow
def test_without_the_commit_of_sending_the_check_fails() -> None:
    code, summary = run("--kills", "3", "--hangs", "1", "--careless")
    assert code == 1
    assert any(line.endswith("arrived 2 times without a mark") for line in summary["wrong"])
