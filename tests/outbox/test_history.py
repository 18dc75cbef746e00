"""The history's sums are exact, whatever happens to processes, clocks and AdRoll."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier
from typing import Literal

import pytest

from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.outbox import Outbox, OutboxFailed, Outcome
from adroll_flask.outbox.model import Counted, HistoryColumn
from tests.support import PATIENCE
from tests.support.outbox_engines import Bench, bury, claimed, counted, retry, settle, told


def test_a_dead_letter_that_comes_in_twice_is_counted_once(bench: Bench) -> None:
    """Its commit came late, so that it was kept in the journal as well."""
    event = bench.event("1001")
    bench.open().put(event, dead=("invalid:value", "value: takes an amount"))
    bench.open().put(event, dead=("invalid:value", "value: takes an amount"))
    assert told(bench.open(), "outcome") == {"invalid": 1}
    bench.open().put(event, dead=("invalid:value", "value: takes an amount"))
    assert told(bench.open(), "outcome") == {"invalid": 1}
    # Another process had not seen the key.
    bench.open().put(bench.event("1001"), dead=("invalid:value", "value: takes an amount"))
    assert told(bench.open(), "outcome") == {"invalid": 1, "duplicate": 1}


def test_a_failure_is_told_once_by_two_threads(bench: Bench, outbox: Outbox) -> None:
    for number in range(300):
        outbox.note_failure(EVENT_NAMES[number % len(EVENT_NAMES)], f"reason-{number}")
    both = Barrier(2)

    def tell(_: int) -> None:
        both.wait(PATIENCE)
        outbox.tell_failures()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(tell, range(2)))
    assert told(outbox, "outcome") == {"failed": 300}


def test_every_outcome_is_counted_once_by_any_question(bench: Bench, outbox: Outbox) -> None:
    first = bench.event("1001", digest="59.90 EUR", identifiers=3)
    outbox.put(first)
    outbox.put(bench.event("1001", digest="69.90 EUR"))  # noticed at once
    other = bench.open()
    bench.clock.now += 1.0  # its file may be read first
    other.put(bench.event("1001", digest="59.90 EUR"))  # noticed by the index
    outbox.put(bench.event("1002"))
    outbox.put(bench.event(None), dead=("invalid:value", "value: takes an amount"))
    outbox.record(Counted(bench.now(), "purchase", "suppressed", "consent_gpc"))
    outbox.note_failure("purchase", "full")
    outbox.put(bench.event("1003"))
    outbox.measure()
    claim = claimed(outbox)
    by_key = {event.key: event.id for event in claim.events}
    ends = [Outcome(id=by_key["1002"], kind="dead", reason="too_old")]
    ends.append(Outcome(id=by_key["1001"], kind="delivered"))
    ends.append(Outcome(id=by_key["1003"], kind="return"))
    outbox.queue.settle(claim, ends)
    outbox.admin.drop([by_key["1003"]])
    once = ("delivered", "expired", "invalid", "suppressed", "failed", "cancelled")
    expected = dict.fromkeys(once, 1) | {"duplicate": 2}
    since = bench.now() - 3600
    columns: tuple[HistoryColumn, ...] = ("at", "event_name", "reason", "identifiers", "currency")
    for column in columns:
        found = outbox.lookups.history(since, ("outcome", column))
        assert counted(found, "outcome") == expected, column
    rows = outbox.lookups.history(since, ("outcome", *columns))
    (delivered,) = [row for row in rows if row.outcome == "delivered"]
    assert (delivered.identifiers, delivered.value) == (3, Decimal("59.9"))
    assert sum(delivered.delays) == 1
    reasons = {row.outcome: row.reason for row in rows if row.outcome in once[2:]}
    assert [*map(reasons.get, once[2:])] == ["invalid:value", "consent_gpc", "full", "dropped"]


def test_a_lost_report_is_written_down_while_the_database_cannot_be_worked_with(
    sqlite: Bench,
) -> None:
    outbox = sqlite.open()
    outbox.put(sqlite.event("1"))
    sqlite.path.mkdir()
    outbox.note_failure("purchase", "disk_full")

    outbox.measure()

    written = b"".join(file.read_bytes() for file in sqlite.journal.glob("*.journal"))
    assert b'"disk_full"' in written


@pytest.mark.parametrize("kind", ["delivered", "dead"])
def test_an_event_counts_in_its_own_hour(bench: Bench, kind: Literal["delivered", "dead"]) -> None:
    outbox, earlier = bench.open(), bench.now() - 5 * 3600
    assert outbox.lookups.totals() == ()
    outbox.put(bench.event("1001", occurred_at=earlier))
    claim = claimed(outbox)
    settle(outbox, claim, kind, reason="refused")
    (row,) = outbox.lookups.history(0.0, ("at", "outcome"))
    assert (row.at, row.outcome) == (int(earlier // 3600) * 3600, kind)
    told = [(one.outcome, one.events) for one in outbox.lookups.totals()]
    assert told == [(kind, 1)], "whole hours are read again where they become more"
    if kind == "dead":
        assert retry(outbox) == 1
        assert outbox.lookups.history(0.0, ("at", "outcome")) == ()


def test_a_letter_that_is_sent_again_was_lost_in_its_own_hour(bench: Bench) -> None:
    """Of two that died alike, with the first one's money left alone."""
    outbox, now = bench.open(), bench.now()
    for key, ago, digest in (("1001", 7200, "100 EUR"), ("1002", 0, "50 EUR")):
        outbox.put(bench.event(key, occurred_at=now - ago, digest=digest))
    bury(outbox)
    (again,) = (row.id for row in outbox.lookups.list("dead") if row.key == "1002")
    retry(outbox, again)
    (row,) = outbox.lookups.history(0.0, ("at", "outcome"))
    told = (row.at, row.outcome, row.events, row.value)
    assert told == (int((now - 7200) // 3600) * 3600, "dead", 1, Decimal(100))


def test_what_failed_is_told_once_the_journal_takes_something_again(sqlite: Bench) -> None:
    outbox = sqlite.open()
    with pytest.raises(OutboxFailed):
        outbox.put(sqlite.event("1001", payload=b"x" * (2 << 20)))
    assert outbox.lookups.history(0, ["outcome"]) == ()
    outbox.measure()  # as the thread beside the requests does
    assert told(outbox, "outcome", "reason") == {("failed", "too_large"): 1}


def test_what_failed_is_told_at_the_latest_when_the_outbox_is_closed(sqlite: Bench) -> None:
    outbox = sqlite.open()
    outbox.note_failure("purchase", "internal")
    outbox.note_failure("purchase", "internal")
    outbox.close()
    assert told(sqlite.open(), "outcome") == {"failed": 2}
