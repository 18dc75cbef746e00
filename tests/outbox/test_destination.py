"""The destination: pauses, holds and probes, shared by all workers."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from adroll_flask.outbox.destination import DestinationState as State
from adroll_flask.outbox.outbox import Outbox
from tests.support import PATIENCE, eventually
from tests.support.outbox_engines import EID, Bench, claimed, settle


@pytest.fixture
def adroll(outbox: Outbox) -> State:
    """The destination, as one worker has it."""
    return outbox.destination(EID)


def test_a_pause_holds_for_every_worker_until_it_ends(bench: Bench, adroll: State) -> None:
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
def test_a_pause_without_sense_ends_as_well(bench: Bench, adroll: State, seconds: float) -> None:
    adroll.pause(seconds)

    bench.pass_time(86_401)

    assert adroll.state().paused_for == 0


@pytest.mark.parametrize("back", [3700, 86_400])
def test_a_clock_set_back_ends_a_pause(bench: Bench, adroll: State, back: int) -> None:
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


def test_one_probe_goes_out_at_a_time(bench: Bench, adroll: State) -> None:
    other = bench.open()
    adroll.failed("refused")

    assert adroll.try_probe(lease=60)
    assert not other.destination(EID).try_probe(lease=60)
    assert not adroll.try_probe(lease=60)

    adroll.failed("refused")
    adroll.pause(30)
    assert not other.destination(EID).try_probe(), "paused"
    bench.pass_time(31)
    assert other.destination(EID).try_probe()
    other.destination(EID).succeeded()
    assert adroll.try_probe()
    adroll.stop("401", "f")  # which ends a probe
    assert adroll.try_probe()


def test_a_stop_says_why_by_which_configuration_since_when(bench: Bench, adroll: State) -> None:
    assert adroll.stop("401", "fingerprint-1")
    adroll.failed("unknown token")

    other = bench.open().destination(EID)
    seen = other.state()
    assert (seen.stopped, seen.fingerprint) == ("401", "fingerprint-1")
    assert seen.last_error == "unknown token"
    assert seen.stopped_since == pytest.approx(bench.now(), abs=30)
    assert not other.stop("401", "fingerprint-1"), "one loud line, not one a worker"
    assert other.stop("403", "fingerprint-1"), "another trouble is news"
    assert adroll.resume()
    assert not adroll.resume()
    assert adroll.state().stopped is None


#: What happens to an event, and how many seconds go by; then its age.
AGES: dict[str, tuple[list[str | int], int]] = {
    "of stops nothing": (["refuse", 100, "stop", 1000, "resume", 10, "stop", 5000, "resume"], 110),
    "nothing before the first refusal": (["stop", 1000, "refuse", 500, "resume", 70], 70),
    "all since the first refusal": (["retry", 86_400, "refuse", 200, "refuse", 100], 300),
    "nothing without a refusal": (["retry", 8 * 86_400], 0),
}


@pytest.mark.parametrize(("steps", "age"), AGES.values(), ids=AGES)
def test_the_age_of_an_event_counts(
    bench: Bench, outbox: Outbox, adroll: State, steps: list[str | int], age: int
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
