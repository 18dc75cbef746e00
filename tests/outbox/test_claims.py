"""Claim, send, settle: who holds an event, and what is known about it after a kill."""

import pytest

from adroll_flask.outbox.model import OrderKey, Verdict, Withdrawal
from tests.support.outbox_engines import EID, Bench, Outbox, claimed, settle, shown


def test_who_counts_for_a_while_takes_no_backlog_in(bench: Bench, outbox: Outbox) -> None:
    bench.report(outbox, *map(str, range(600)))
    assert outbox.queue.waiting(until=0.0) == 500, "one batch"
    assert outbox.queue.waiting() == 600


def test_what_is_tried_again_at_once_keeps_its_place(bench: Bench, outbox: Outbox) -> None:
    first, _second = bench.insert(outbox, None, None)
    bench.clock.now += 1
    settle(outbox, claimed(outbox, limit=1), "retry")

    assert claimed(outbox, limit=1).events[0].id == first


def test_the_delivered_gives_up_its_payload_and_keeps_its_key(bench: Bench, outbox: Outbox) -> None:
    outbox.put(bench.event("1001"))
    claim = claimed(outbox, begin=True)

    assert settle(outbox, claim) == 1

    row = shown(outbox, claim.events[0].id)
    assert (row.state, row.payload, row.attempts) == ("delivered", b"", 1)
    bench.open().put(bench.event("1001"))
    assert outbox.queue.waiting() == 0
    assert bench.counters.get("event_duplicate") == 1


def test_a_lease_that_lapsed_before_sending_leaves_no_mark(bench: Bench, outbox: Outbox) -> None:
    outbox.put(bench.event())
    first = claimed(outbox, lease=60)
    assert not outbox.queue.claim(EID)
    bench.pass_time(60)
    assert (outbox.queue.begin_sending(first), outbox.queue.extend(first)) == ((), 0)
    assert outbox.lookups.counts()["claimed"] == 1

    second = claimed(outbox)

    assert (second.events[0].unsure, second.events[0].attempts) == (False, 0)
    assert outbox.queue.begin_sending(first) == ()
    assert settle(outbox, first) == 0
    assert len(outbox.queue.begin_sending(second)) == 1


def test_a_lease_that_lapsed_while_sending_leaves_a_mark(bench: Bench, outbox: Outbox) -> None:
    bench.report(outbox, None, None)
    claimed(outbox, begin=True)
    bench.pass_time(61)

    second = claimed(outbox)

    assert (second.events[0].unsure, second.events[0].attempts) == (True, 1)
    assert bench.counters.get("event_unsure", "lapsed") == 2
    (attempt,) = shown(outbox, second.events[0].id).attempt_log
    assert (attempt.answer, attempt.unsure) == ("lapsed", True)
    settle(outbox, second)
    assert shown(outbox, second.events[0].id).unsure


def test_after_an_extended_lease_who_sent_settles(bench: Bench, outbox: Outbox) -> None:
    outbox.put(bench.event())
    claim = claimed(outbox, lease=60, begin=True)
    assert outbox.queue.extend(claim, 600) == 1
    bench.pass_time(61)
    assert not outbox.queue.claim(EID)
    bench.pass_time(600)

    assert settle(outbox, claim) == 1, "nobody has taken it"

    assert not shown(outbox, claim.events[0].id).unsure
    assert outbox.lookups.counts()["delivered"] == 1


@pytest.mark.parametrize("delay", [7200.0, float("inf")])
def test_no_event_is_put_off_for_over_an_hour(bench: Bench, outbox: Outbox, delay: float) -> None:
    outbox.put(bench.event())
    settle(outbox, claimed(outbox), "retry", delay=delay)

    bench.pass_time(3601)

    assert outbox.queue.claim(EID)


def test_a_clock_set_back_keeps_nothing_waiting_for_long(bench: Bench, outbox: Outbox) -> None:
    bench.pass_time(86_400)
    bench.report(outbox, None, None, None, None)
    put_off, alive, *_of_the_dead = (
        claimed(outbox, 1, begin=begin) for begin in (False, True, False, True)
    )
    settle(outbox, put_off, "retry", delay=8.0)
    bench.pass_time(-86_400)
    ids = bench.report(outbox, None)

    other = bench.open()
    new = claimed(other)
    assert [event.id for event in new.events] == ids
    settle(other, new)
    other.admin.keep_house()
    assert not other.queue.claim(EID), "a worker may still be at it"
    assert settle(outbox, alive) == 1
    for _ in range(2):
        bench.pass_time(121)
        settle(other, other.queue.claim(EID))
        other.admin.keep_house()
    bench.pass_time(121)
    settle(other, other.queue.claim(EID))
    assert other.queue.waiting() == 0


@pytest.mark.parametrize("commit", ["journal", "database"])
@pytest.mark.parametrize("stop", ["cancelled", "withdrawn"])
def test_what_stops_an_event_counts_behind_a_backlog_too(
    bench: Bench, stop: str, commit: str
) -> None:
    """A claim takes no more in than it sends, and the cancellation may come after that."""
    outbox = bench.open(outbox_commit=commit)
    outbox.database.create_tables()
    visitors = [f"{number:024x}" for number in range(350)]
    for number, visitor in enumerate(visitors):
        outbox.put(bench.event(f"{number:03}", record_id=visitor))
    for number, visitor in enumerate(visitors[:-1]):
        if stop == "withdrawn":
            outbox.record(Withdrawal(bench.now(), visitor))
        else:
            order = OrderKey(EID, False, "purchase", f"{number:03}")
            outbox.decide(Verdict(bench.now(), "cancel", order))
    sent: list[str | None] = []
    is_more = True
    while is_more:
        claim = outbox.queue.claim(EID, begin=True)
        settle(outbox, claim)
        sent += [event.key for event in claim.events]
        is_more = claim.more
    assert sent == ["349"]
    counter = ("event_forgotten", "") if stop == "withdrawn" else ("hold_cancelled", "cancelled")
    assert bench.counters.get(*counter) == 349, "each is counted once, though it is read twice"
