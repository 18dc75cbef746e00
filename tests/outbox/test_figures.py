"""The history by several columns at once, and what is not over: on every engine."""

from collections import Counter

import pytest

from adroll_flask.outbox import Outcome
from adroll_flask.outbox.history import bucket_start
from adroll_flask.outbox.model import Counted
from tests.support.outbox_engines import Bench, claimed


@pytest.mark.parametrize("hours", [1, 6, 24, 168])
def test_sums_stand_at_the_beginning_of_their_step(bench: Bench, hours: int) -> None:
    outbox = bench.open()
    outbox.record(Counted(bench.now(), "purchase", "suppressed", "consent_gpc"))
    [row] = outbox.lookups.history(bench.now() - 3600, ("at",), hours=hours)
    # The server's clock tells the hour; a test that runs over its end has the next one.
    now = bench.now()
    assert row.at in (bucket_start(now, hours), bucket_start(now - 60, hours))


def test_what_is_not_over_is_told_by_event_and_currency_up_to_a_bound(bench: Bench) -> None:
    outbox = bench.open()
    for order in range(5):
        outbox.put(bench.event(str(order), digest="2.50 EUR"))
    outbox.put(bench.event("held", digest="9 CHF", held_for=3600.0))
    outbox.put(bench.event("sent", digest="1 EUR"))
    claim = claimed(outbox, 1)
    outbox.queue.settle(claim, [Outcome(id=claim.events[0].id, kind="delivered")])
    found = {row.outcome: row for row in outbox.lookups.unsettled(100)}
    assert (found["waiting"].events, found["held"].events) == (5, 1)
    assert found["held"].currency == "CHF"
    assert found["waiting"].event_name == "purchase"
    assert sum(row.events for row in outbox.lookups.unsettled(3) if row.outcome == "waiting") == 3


def test_steps_of_a_week_begin_on_monday() -> None:
    import time

    starts = Counter(
        time.gmtime(bucket_start(1_700_000_000 + day * 86_400, 168))[6] for day in range(30)
    )
    assert set(starts) == {0}
