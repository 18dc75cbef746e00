"""The destination: pauses, holds and probes, shared by all workers."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support import PATIENCE, eventually
from tests.support.outbox_engines import EID, Bench, Outbox, claimed, settle


@pytest.fixture
def adroll(outbox: Outbox) -> Any:
    """The destination, as one worker has it."""
    return outbox.destination(EID)


def test_a_pause_holds_for_every_worker_until_it_ends(bench: Bench, adroll: Any) -> None:
    adroll.failed("429")
    adroll.pause(300)
    adroll.pause(5)  # the longer one stays
    bench.pass_time(-0.5)  # a clock is corrected by little

    seen = bench.open().destination(EID).state()
    assert 200 < seen.paused_for <= 301
    assert seen.last_error == "429"
    bench.pass_time(302)
    assert adroll.state().paused_for == 0


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), 1e12])
def test_a_pause_without_sense_ends_as_well(bench: Bench, adroll: Any, seconds: float) -> None:
    adroll.pause(seconds)

    bench.pass_time(86_401)

    assert adroll.state().paused_for == 0


@pytest.mark.parametrize("back", [60, 3540, 3700, 86_400])
def test_a_clock_set_back_ends_a_pause(bench: Bench, adroll: Any, back: int) -> None:
    adroll.failed("http_503")
    adroll.pause(20)
    assert adroll.try_probe() is False
    bench.pass_time(-back)

    assert adroll.state().paused_for == 0
    assert adroll.try_probe(lease=40)
    bench.pass_time(-back)
    assert bench.open().destination(EID).try_probe(lease=40)

    adroll.failed("http_503")
    adroll.pause(20)
    assert 15 < adroll.state().paused_for <= 20, "by the present clock"
    assert adroll.try_probe() is False


#: What happens to an event, and how many seconds go by; then its age.
AGES: dict[str, tuple[list[str | int], int]] = {
    "of stops nothing": (["refuse", 100, "stop", 1000, "resume", 10, "stop", 5000, "resume"], 110),
    "nothing before the first refusal": (["stop", 1000, "refuse", 500, "resume", 70], 70),
    "all since the first refusal": (["retry", 86_400, "refuse", 200, "refuse", 100], 300),
    "nothing without a refusal": (["retry", 8 * 86_400], 0),
}


@pytest.mark.parametrize(("steps", "age"), AGES.values(), ids=AGES)
def test_the_age_of_an_event_counts(
    bench: Bench, outbox: Outbox, adroll: Any, steps: list[str | int], age: int
) -> None:
    outbox.put(bench.event())
    for step in steps:
        if isinstance(step, int):
            bench.pass_time(step)
        elif step == "stop":
            adroll.stop("401", "f")
        elif step == "resume":
            adroll.resume()
        else:
            settle(outbox, claimed(outbox), "retry", refused=step == "refuse")

    (event,) = claimed(outbox).events
    since = event.refused_at or bench.now()
    assert bench.now() - since == pytest.approx(age, abs=20)


def test_a_report_wakes_who_waits_in_this_process(sqlite: Bench, outbox: Outbox) -> None:
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(outbox.wake_up.wait, PATIENCE)
        eventually(lambda: outbox.wake_up.waiters == 1)
        outbox.put(sqlite.event())
        assert waits.result(PATIENCE), "by the report, and not by the end of its patience"
