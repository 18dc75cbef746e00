"""The destination: pauses, holds and probes, shared by all workers."""

import threading

import pytest

from adroll_flask.outbox import Outbox, Outcome
from tests.support.outbox_engines import EID, Bench, claimed, settle, wait_until


def refuse(outbox: Outbox) -> None:
    settle(outbox, claimed(outbox), "retry", refused=True)


def test_a_pause_holds_for_every_worker_until_it_ends(bench: Bench, outbox: Outbox) -> None:
    outbox.destination(EID).pause(300, "429")
    outbox.destination(EID).pause(5)  # the longer one stays
    bench.pass_time(-0.5)  # a clock is corrected by little

    seen = bench.open().destination(EID).state()
    assert 200 < seen.paused_for <= 301
    assert seen.last_error == "429"
    bench.pass_time(302)
    assert outbox.destination(EID).state().paused_for == 0


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), 1e12])
def test_a_pause_without_sense_ends_as_well(bench: Bench, outbox: Outbox, seconds: float) -> None:
    outbox.destination(EID).pause(seconds)

    bench.pass_time(86_401)

    assert outbox.destination(EID).state().paused_for == 0


@pytest.mark.parametrize("back", [30, 3600])
def test_a_clock_set_back_ends_a_pause(bench: Bench, outbox: Outbox, back: int) -> None:
    outbox.destination(EID).failed("http_503")
    outbox.destination(EID).pause(20, "http_503")
    assert outbox.destination(EID).try_probe() is False
    bench.pass_time(-back)

    assert outbox.destination(EID).state().paused_for == 0
    assert outbox.destination(EID).try_probe(lease=40)
    bench.pass_time(-back)
    assert bench.open().destination(EID).try_probe(lease=40)

    outbox.destination(EID).failed("http_503")
    outbox.destination(EID).pause(20, "http_503")
    assert 15 < outbox.destination(EID).state().paused_for <= 20, "by the present clock"
    assert outbox.destination(EID).try_probe() is False


def test_one_probe_goes_out_at_a_time(bench: Bench, outbox: Outbox) -> None:
    other = bench.open()
    outbox.destination(EID).failed("refused")

    assert outbox.destination(EID).try_probe(lease=60)
    assert not other.destination(EID).try_probe(lease=60)
    assert not outbox.destination(EID).try_probe(lease=60)

    outbox.destination(EID).failed("refused")
    outbox.destination(EID).pause(30)
    assert not other.destination(EID).try_probe(), "paused"
    bench.pass_time(31)
    assert other.destination(EID).try_probe()
    other.destination(EID).succeeded()
    assert outbox.destination(EID).try_probe()


def test_a_stop_says_why_by_which_configuration_since_when(bench: Bench, outbox: Outbox) -> None:
    assert outbox.destination(EID).stop("401", "fingerprint-1", "unknown token")

    seen = bench.open().destination(EID).state()
    assert (seen.stopped, seen.fingerprint, seen.last_error) == (
        "401",
        "fingerprint-1",
        "unknown token",
    )
    assert seen.stopped_since == pytest.approx(bench.now(), abs=30)
    assert not bench.open().destination(EID).stop("401", "fingerprint-1"), (
        "one loud line, not one a worker"
    )
    assert bench.open().destination(EID).stop("403", "fingerprint-1"), "another trouble is news"
    assert outbox.destination(EID).resume()
    assert not outbox.destination(EID).resume()
    assert outbox.destination(EID).state().stopped is None


def test_a_new_hold_ends_a_probe(outbox: Outbox) -> None:
    outbox.destination(EID).stop("401", "f")
    assert outbox.destination(EID).try_probe()
    outbox.destination(EID).stop("401", "f")

    assert outbox.destination(EID).try_probe()


def test_age_counts_only_while_nothing_was_held(bench: Bench, outbox: Outbox) -> None:
    outbox.put(bench.event())
    refuse(outbox)
    bench.pass_time(100)
    outbox.destination(EID).stop("401", "f")
    bench.pass_time(1000)
    outbox.destination(EID).resume()
    bench.pass_time(10)
    outbox.destination(EID).stop("403", "f")
    bench.pass_time(5000)

    claim = outbox.queue.claim(EID)

    assert claim
    assert bench.open().destination(EID).unstopped_age(claim.events[0]) == pytest.approx(
        110, abs=20
    )


def test_age_leaves_holds_from_before_the_first_refusal_alone(bench: Bench, outbox: Outbox) -> None:
    outbox.put(bench.event())
    outbox.destination(EID).stop("401", "f")
    bench.pass_time(1000)
    refuse(outbox)
    bench.pass_time(500)
    outbox.destination(EID).resume()
    bench.pass_time(70)

    claim = outbox.queue.claim(EID)

    assert claim
    assert outbox.destination(EID).unstopped_age(claim.events[0]) == pytest.approx(70, abs=20)


def test_age_counts_from_the_first_refusal_if_there_was_one(bench: Bench, outbox: Outbox) -> None:
    outbox.put(bench.event())
    bench.pass_time(8 * 86_400)
    claim = claimed(outbox)
    assert outbox.destination(EID).unstopped_age(claim.events[0]) == 0
    outbox.queue.settle(claim, [Outcome(id=claim.events[0].id, kind="retry")])

    refuse(outbox)
    bench.pass_time(200)
    refuse(outbox)
    bench.pass_time(100)

    claim = claimed(outbox)
    assert outbox.destination(EID).unstopped_age(claim.events[0]) == pytest.approx(300, abs=20)


def test_a_report_wakes_who_waits_in_this_process(bench: Bench, outbox: Outbox) -> None:
    outbox.put(bench.event())
    done = threading.Event()

    def wait() -> None:
        outbox.bell.wait(30)
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert wait_until(lambda: outbox.bell.waiters == 1)

    outbox.put(bench.event())

    assert done.wait(5)
    thread.join()


def test_adroll_is_not_away_for_ever_where_nobody_asks(bench: Bench, outbox: Outbox) -> None:
    outbox.destination(EID).failed("http_503")
    bench.pass_time(1200)
    outbox.destination(EID).failed("http_503")
    bench.pass_time(8_000)

    outbox.keep_house()

    [(account, began, ended, reason)] = outbox.lookups.stops(86_400)
    assert (account, reason) == (EID, "away")
    assert ended is not None
    # On a server time goes by as well while the rows are moved back.
    assert 1199 < ended - began < 2000, "until the last failure"
    outbox.destination(EID).failed("http_503")
    assert [end for *_, end, _ in outbox.lookups.stops(86_400)] == [ended, None]


def test_adroll_is_still_away_while_somebody_asks(bench: Bench, outbox: Outbox) -> None:
    outbox.destination(EID).failed("http_503")
    bench.pass_time(8_000)
    outbox.destination(EID).failed("http_503")

    outbox.keep_house()

    assert [end for *_, end, _ in outbox.lookups.stops(86_400)] == [None]
