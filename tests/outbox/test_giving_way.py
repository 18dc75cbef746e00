"""A thread beside requests leaves them the interpreter after each half millisecond of work."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from adroll_flask.delivery.deliverer import Step
from adroll_flask.outbox import giving_way as module
from adroll_flask.outbox.giving_way import each, give_way, giving_way
from tests.support.delivery_kit import Shop


class Clock:
    """Time that passes only while work is done; what is slept is noted."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(self.now)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def work(clock: Clock, steps: int, seconds: float) -> None:
    for _ in each(range(steps)):
        clock.now += seconds


def test_a_moment_after_each_half_millisecond(clock: Clock) -> None:
    with giving_way():
        work(clock, 100, 0.0001)
    pauses = [later - sooner for sooner, later in zip(clock.slept, clock.slept[1:], strict=False)]
    assert len(clock.slept) >= 15
    assert max(pauses) <= 0.0007


def test_a_request_that_takes_events_in_itself_gives_way_to_nobody(clock: Clock) -> None:
    work(clock, 100, 0.01)
    with giving_way():
        other = threading.Thread(target=work, args=(clock, 100, 0.01))
        other.start()
        other.join()
    give_way()
    assert clock.slept == []


def test_the_thread_gives_way_within_a_step_and_not_while_somebody_flushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliverer = Shop(tmp_path).deliverer
    stop = threading.Event()
    found: list[bool] = []

    def step(stop: threading.Event) -> Step:
        found.append(module._this.since is not None)
        deliverer._flushing += 1
        if len(found) == 2:
            stop.set()
        return Step()

    monkeypatch.setattr(deliverer, "step", step)
    deliverer.run(stop, in_burst=lambda: False)
    assert found == [True, False]
    assert module._this.since is None
