"""The destination: pauses, holds, probes and the rate, shared by all workers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest
from outbox_engines import Bench, wait_until

from adroll_flask.outbox import Claimed, Destination, Outbox
from adroll_flask.outbox.store import Tx


def test_a_new_destination_is_open(outbox: Outbox) -> None:
    assert outbox.destination() == Destination()


def test_a_pause_holds_for_every_worker_until_it_ends(bench: Bench, outbox: Outbox) -> None:
    outbox.pause(30, "429")

    seen = bench.open().destination()
    assert 25 < seen.paused_for <= 30
    assert seen.last_error == "429"
    bench.pass_time(31)
    assert outbox.destination().paused_for == 0


def test_a_longer_pause_stays_under_a_shorter_one(bench: Bench, outbox: Outbox) -> None:
    outbox.pause(60)
    outbox.pause(5)

    assert outbox.destination().paused_for > 50


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), 1e12])
def test_a_pause_without_sense_ends_all_the_same(
    bench: Bench, outbox: Outbox, seconds: float
) -> None:
    outbox.pause(seconds)

    bench.pass_time(86_401)

    assert outbox.destination().paused_for == 0


def test_failures_are_counted_until_one_request_succeeds(bench: Bench, outbox: Outbox) -> None:
    assert [outbox.failed("refused"), bench.open().failed("refused")] == [1, 2]
    assert outbox.destination().failures == 2
    assert outbox.destination().last_error == "refused"

    outbox.succeeded()

    assert outbox.destination().failures == 0
    assert outbox.failed("again") == 1


def test_one_probe_goes_out_at_a_time(bench: Bench, outbox: Outbox) -> None:
    other = bench.open()
    outbox.failed("refused")

    assert outbox.try_probe("mine", lease=60)
    assert not other.try_probe("theirs", lease=60)
    assert not outbox.try_probe("mine", lease=60)

    outbox.failed("refused")
    outbox.pause(30)
    assert not other.try_probe("theirs"), "paused"
    bench.pass_time(31)
    assert other.try_probe("theirs")
    other.succeeded()
    assert outbox.try_probe("mine")


def test_the_probe_of_a_worker_that_died_is_over_with_its_lease(
    bench: Bench, outbox: Outbox
) -> None:
    assert outbox.try_probe("mine", lease=60)
    bench.pass_time(61)

    assert bench.open().try_probe("theirs", lease=60)


def test_a_hold_says_why_under_which_configuration_and_since_when(
    bench: Bench, outbox: Outbox
) -> None:
    assert outbox.hold("401", "fingerprint-1", "unknown token")

    seen = bench.open().destination()
    assert (seen.held, seen.fingerprint, seen.last_error) == (
        "401",
        "fingerprint-1",
        "unknown token",
    )
    assert seen.held_since == pytest.approx(bench.now(), abs=30)
    assert not bench.open().hold("401", "fingerprint-1"), "one loud line, not one a worker"
    assert bench.open().hold("403", "fingerprint-1"), "another trouble is news"
    assert outbox.end_hold()
    assert not outbox.end_hold()
    assert outbox.destination().held is None


def test_a_new_hold_ends_a_probe(outbox: Outbox) -> None:
    outbox.hold("401", "f")
    assert outbox.try_probe("f")
    outbox.hold("401", "f")

    assert outbox.try_probe("f")


def test_age_counts_only_while_nothing_was_held(bench: Bench, outbox: Outbox) -> None:
    outbox.put(bench.event())
    bench.pass_time(100)
    outbox.hold("401", "f")
    bench.pass_time(1000)
    outbox.end_hold()
    bench.pass_time(10)
    outbox.hold("403", "f")
    bench.pass_time(5000)

    claim = outbox.claim()

    assert claim is not None
    assert bench.open().unheld_age(claim.events[0]) == pytest.approx(110, abs=20)


def test_age_leaves_holds_from_before_the_event_alone(bench: Bench, outbox: Outbox) -> None:
    outbox.hold("401", "f")
    bench.pass_time(1000)
    outbox.put(bench.event())
    bench.pass_time(500)
    outbox.end_hold()
    bench.pass_time(70)

    claim = outbox.claim()

    assert claim is not None
    assert outbox.unheld_age(claim.events[0]) == pytest.approx(70, abs=20)


def test_age_is_never_negative(bench: Bench, outbox: Outbox) -> None:
    event = Claimed("0" * 32, "purchase", b"{}", 0.0, bench.now() + 1000, 0, False, None)

    assert outbox.unheld_age(event) == 0


def test_a_child_does_not_wait_for_a_thread_that_it_did_not_inherit(
    bench: Bench, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.put(bench.event())
    claim = outbox.claim()
    assert claim is not None
    asking, answer = threading.Event(), threading.Event()
    shared = outbox._parts.shared  # type: ignore[attr-defined]

    def read(function: Callable[[Tx], object]) -> object:
        asking.set()
        answer.wait()
        return really(function)

    really = shared.store.read
    with monkeypatch.context() as patch:
        patch.setattr(shared.store, "read", read)
        thread = threading.Thread(target=outbox.unheld_age, args=(claim.events[0],))
        thread.start()
        asking.wait()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(5)
            outbox.unheld_age(claim.events[0])
            status = 0
        finally:
            os._exit(status)
    answer.set()
    thread.join()

    assert os.waitpid(child, 0)[1] == 0


def test_the_rate_holds_over_all_workers(bench: Bench, outbox: Outbox) -> None:
    other = bench.open()

    assert outbox.take_slot(0.1) == 0
    wait = other.take_slot(0.1)

    assert 5 < wait <= 10
    bench.pass_time(10)
    assert other.take_slot(0.1) == 0
    assert outbox.take_slot(0.1) > 0


def test_a_slot_far_off_comes_from_a_wrong_clock(bench: Bench, outbox: Outbox) -> None:
    outbox.take_slot(1.0)
    bench.pass_time(-86_400)

    assert outbox.take_slot(1.0) == 0


def test_many_workers_share_few_slots(bench: Bench) -> None:
    workers = [bench.open() for _ in range(4)]
    workers[0].take_slot(0.01)
    bench.pass_time(200)
    start = threading.Barrier(4)
    taken: list[float] = []

    def take(outbox: Outbox) -> None:
        start.wait()
        taken.append(outbox.take_slot(0.01))

    threads = [threading.Thread(target=take, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(wait == 0 for wait in taken) == [False, False, False, True]


def test_waiting_for_work_ends_with_its_time(outbox: Outbox) -> None:
    outbox.wait_for_work(0.01)


def test_a_ring_ends_the_wait_of_any_thread(outbox: Outbox) -> None:
    done = threading.Event()

    def wait() -> None:
        outbox.wait_for_work(30)
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert wait_until(lambda: outbox._bell.waiters == 1)  # type: ignore[attr-defined]
    outbox.wake()
    assert done.wait(5)
    thread.join()


def test_a_ring_before_the_wait_is_not_lost(outbox: Outbox) -> None:
    outbox.wake()

    outbox.wait_for_work(30)


def test_a_report_wakes_who_waits_in_this_process(bench: Bench, outbox: Outbox) -> None:
    outbox.put(bench.event())
    done = threading.Event()
    thread = threading.Thread(target=lambda: (outbox.wait_for_work(30), done.set()))
    thread.start()
    assert wait_until(lambda: outbox._bell.waiters == 1)  # type: ignore[attr-defined]

    outbox.put(bench.event())

    assert done.wait(5)
    thread.join()
