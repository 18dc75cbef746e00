"""The history by several columns at once, and what is not over: on every engine."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from adroll_flask.outbox import Outcome
from adroll_flask.outbox.history import bucket_start
from adroll_flask.outbox.values import Counted, HistoryColumn
from tests.support.outbox_engines import EID, Bench

COLUMNS: tuple[HistoryColumn, ...] = (
    *("at", "event_name", "outcome"),
    *("reason", "identifiers", "currency"),
)


def fill(bench: Bench) -> None:
    outbox = bench.open()
    for order, digest, mask in (("1", "10.50 EUR", 3), ("2", "4 EUR", 3), ("3", "7 CHF", 1)):
        outbox.put(bench.event(order, digest=digest, identifiers=mask))
    outbox.record(Counted(bench.now(), "purchase", "suppressed", "consent_gpc"))
    claim = outbox.queue.claim(EID)
    assert claim
    outbox.queue.settle(claim, [Outcome(id=event.id, kind="delivered") for event in claim.events])


def test_sums_by_any_columns_are_of_the_same_events(bench: Bench) -> None:
    fill(bench)
    outbox = bench.open()
    since = bench.now() - 3600
    whole = outbox.lookups.history(since, COLUMNS, delays=True)
    found = {(row.outcome, row.currency, row.identifiers): row for row in whole}
    assert found["delivered", "EUR", 3].events == 2
    assert found["delivered", "EUR", 3].value == Decimal("14.5")
    assert found["delivered", "CHF", 1].value == 7
    assert found["suppressed", "", 0].reason == "consent_gpc"
    assert sum(found["delivered", "EUR", 3].delays) == 2
    for count in range(len(COLUMNS) + 1):
        part = outbox.lookups.history(since, COLUMNS[:count])
        assert sum(row.events for row in part) == 4
        assert sum(row.value for row in part) == Decimal("21.5")
        assert all(row.delays == () for row in part)


@pytest.mark.parametrize("hours", [1, 6, 24, 168])
def test_sums_stand_at_the_beginning_of_their_step(bench: Bench, hours: int) -> None:
    fill(bench)
    [row] = bench.open().lookups.history(bench.now() - 3600, ("at",), hours=hours)
    # The server's clock tells the hour; a test that runs over its end has the next one.
    now = bench.now()
    assert row.at in (bucket_start(now, hours), bucket_start(now - 60, hours))


def test_what_is_not_over_is_told_by_event_and_currency_up_to_a_bound(bench: Bench) -> None:
    outbox = bench.open()
    for order in range(5):
        outbox.put(bench.event(str(order), digest="2.50 EUR"))
    outbox.put(bench.event("held", digest="9 CHF", held_for=3600.0))
    outbox.put(bench.event("sent", digest="1 EUR"))
    claim = outbox.queue.claim(EID, 1)
    assert claim
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
