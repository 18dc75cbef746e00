"""What happened, by the hour: in the transaction of what it tells, exact, of no visitor."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from adroll_flask import report_event
from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.outbox import model
from adroll_flask.outbox.model import HistoryColumn
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.outbox.schema import DELAY_COLUMNS, DELAYS
from tests.conftest import AppMaker, Patch
from tests.support import PATIENCE
from tests.support.outbox_engines import (
    EID,
    ENVIRON,
    Bench,
    claimed,
    counted,
    retry,
    settle,
    told,
)
from tests.support.visits import begin_long_ago

COLUMNS: Any = ("event_name", "outcome", "reason", "identifiers", "currency")


def history(outbox: Outbox) -> dict[tuple[Any, ...], tuple[int, Decimal]]:
    """Count and value by event, outcome, reason, identifiers and currency."""
    rows = outbox.lookups.history(0, COLUMNS)
    return {attrgetter(*COLUMNS)(row): (row.events, row.value) for row in rows}


def end(outbox: Outbox, *kinds: model.OutcomeKind) -> None:
    """End all that is due by *kinds* in turn, else as delivered."""
    claim = claimed(outbox, begin=True)
    assert settle(outbox, claim, *kinds, reason="refused") == len(claim.events)


def sums(outbox: Outbox) -> Counter[tuple[str, str]]:
    """What monitoring is told."""
    return counted(outbox.lookups.totals(), "outcome", "reason")


def test_sums_are_exact_and_go_beyond_what_a_column_holds(bench: Bench, outbox: Outbox) -> None:
    bench.report(outbox, *[None] * 1000, digest="0.1 EUR")
    outbox.put(bench.event(digest="90071992547.0001 EUR"))
    while outbox.queue.waiting():
        end(outbox)
    (row,) = outbox.lookups.history(0, ["outcome"])
    assert row.value == 100 + Decimal("90071992547.0001")
    # In a currency of small units that is no joke.
    bench.report(outbox, *[None] * 1100, digest="900000000000 EUR")
    while outbox.queue.waiting():
        end(outbox)
    (row,) = outbox.lookups.history(0, ["outcome"])
    assert row.events == 2101
    assert float(row.value) == pytest.approx(9.9e14, rel=0.001)


@pytest.mark.parametrize(
    "digest", [None, "", "EUR", "nan EUR", "1e400 EUR", "9" * 30 + " EUR", "x EUR", "Infinity EUR"]
)
def test_what_is_no_value_counts_as_none(bench: Bench, outbox: Outbox, digest: str | None) -> None:
    outbox.put(bench.event(digest=digest))
    end(outbox)

    assert list(history(outbox).values()) == [(1, Decimal(0))]


def test_how_long_an_event_took_is_a_histogram(bench: Bench, outbox: Outbox) -> None:
    for delay in (0.5, 4.0, 50.0, 3_000.0, 200_000.0, -30.0):
        outbox.put(bench.event(occurred_at=bench.now() - delay))
    outbox.put(bench.event(occurred_at=bench.now() - 50))
    settle(outbox, claimed(outbox), *["delivered"] * 6, "dead")  # type: ignore[arg-type]

    sums = ", ".join(f"sum({column})" for column in DELAY_COLUMNS)
    (found,) = bench.execute(f"SELECT {sums} FROM adroll_history")
    counts = [int(count) for count in found]
    assert (len(counts), *DELAYS) == (10, 1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400)
    assert sum(counts) == 6, "only what was delivered"
    # A machine under load may be slower than the first seconds: they count together.
    assert sum(counts[:3]) == 3
    assert counts[3:] == [1, 0, 0, 1, 0, 0, 1]


def test_history_is_kept_for_thirteen_months(bench: Bench, outbox: Outbox) -> None:
    """Of what is older the sums alone are kept, which monitoring counts on."""
    for days, left in ((390, 1), (21, 1), (411, 0)):
        outbox.put(bench.event(digest="2.5 EUR"))
        end(outbox)
        before = outbox.lookups.totals()
        bench.execute("UPDATE adroll_history SET hour = hour - :h WHERE hour > 0", h=days * 24)
        tidy = bench.open()
        tidy.admin.keep_house()
        assert told(outbox, "outcome").total() == left
        assert outbox.lookups.totals() == tidy.lookups.totals() == before


def test_history_and_outcome_are_together(bench: Bench, outbox: Outbox, monkeypatch: Patch) -> None:
    outbox.put(bench.event())
    claim = claimed(outbox, begin=True)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("adroll_flask.outbox.history.add", die)
        with pytest.raises(Killed):
            settle(outbox, claim)

    assert history(outbox) == {}
    assert outbox.lookups.counts()["sending"] == 1


def test_many_who_settle_at_once_lose_no_count(bench: Bench) -> None:
    shop = bench.open()
    bench.report(shop, *map(str, range(400)), digest="1 EUR")
    assert shop.queue.waiting() == 400

    def work(worker: Outbox) -> None:
        while claim := worker.queue.claim(EID, limit=10, begin=True):
            assert settle(worker, claim, "delivered", "dead") == len(claim.events)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [bench.open() for _ in range(4)]))

    assert shop.queue.waiting() == 0
    assert history(shop) == {
        ("purchase", end, "", 0, "EUR"): (200, Decimal(200)) for end in ("delivered", "dead")
    }


# -- what monitoring asks for: sums that only grow, over all processes -----------------------------


# -- by several columns, and what is not over ------------------------------------------------------


def test_an_event_ahead_of_the_clock_counts_in_the_present_hour(
    bench: Bench, outbox: Outbox
) -> None:
    outbox.put(bench.event(occurred_at=bench.now() + 7200))
    end(outbox)
    [row] = outbox.lookups.history(0, ("at",))
    assert row.at <= bench.now()


@pytest.mark.parametrize("hours", [1, 6, 24, 168])
def test_sums_stand_at_their_step_s_beginning(bench: Bench, outbox: Outbox, hours: int) -> None:
    outbox.record(model.Counted(bench.now(), "purchase", "suppressed", "consent_gpc"))
    [row] = outbox.lookups.history(bench.now() - 3600, ("at",), hours=hours)
    assert 0 <= bench.now() - row.at < hours * 3600 + 60
    assert time.gmtime(row.at).tm_wday == 0 if hours == 168 else row.at % (hours * 3600) == 0


def test_what_is_not_over_is_told_and_not_counted_beyond_a_bound(
    bench: Bench, outbox: Outbox, monkeypatch: Patch
) -> None:
    bench.report(outbox, *map(str, range(5)), digest="2.50 EUR")
    outbox.put(bench.event("held", digest="9 CHF", held_for=3600.0))
    outbox.put(bench.event("sent", digest="1 EUR"))
    settle(outbox, claimed(outbox, 1))
    found = {row.outcome: row for row in outbox.lookups.unsettled(100)}
    assert (found["waiting"].events, found["held"].events) == (5, 1)
    assert found["held"].currency == "CHF"
    assert found["waiting"].event_name == "purchase"
    assert sum(row.events for row in outbox.lookups.unsettled(3) if row.outcome == "waiting") == 3
    monkeypatch.setattr("adroll_flask.outbox.lookups.MOST_DUE", 2)
    assert outbox.lookups.due() == 2


def test_what_is_held_for_one_account_is_told_beside_what_waits_for_another(
    bench: Bench, outbox: Outbox
) -> None:
    other = "OTHERACCOUNT0000000001"
    outbox.put(bench.event("held", held_for=3600.0))
    outbox.put(bench.event("waits", advertisable_eid=other))
    found = {(row.outcome, row.advertisable_eid) for row in outbox.lookups.unsettled(100)}
    assert found == {("held", EID), ("waiting", other)}


@pytest.mark.parametrize("end", ["invalid", "suppressed", "failed"])
def test_names_made_up_stay_bounded_in_the_history(end: str, make_app: AppMaker) -> None:
    """Of a view that passes on what a browser says."""
    app = make_app(ADROLL_STRICT=False)
    journal, outbox = Path(app.instance_path) / "adroll-journal", app.extensions["adroll"].outbox
    if end == "failed":
        journal.parent.mkdir()
        journal.write_text("in the way")
    environ = {"HTTP_SEC_GPC": "1"} if end == "suppressed" else {}
    for number in range(300):
        with app.test_request_context("/?adct=click-1", environ_base=ENVIRON | environ):
            assert report_event(f"made-up-{number}").status == end  # type: ignore[arg-type]
    if end == "failed":
        journal.unlink()
        outbox.measure()

    assert told(outbox, "event_name") == {"unknown": 300}


# -- exact, whatever happens to processes and clocks ----------------------------------------------


def test_a_dead_letter_that_comes_in_twice_is_counted_once(bench: Bench) -> None:
    """Its commit came late, so that it was kept in the journal as well."""
    event = bench.event("1001", dead=("invalid:value", "value: takes an amount"))
    bench.open().put(event)
    bench.open().put(event)
    assert told(bench.open(), "outcome") == {"invalid": 1}
    bench.open().put(event)
    assert told(bench.open(), "outcome") == {"invalid": 1}
    # Another process had not seen the key.
    bench.open().put(bench.event("1001", dead=("invalid:value", "value: takes an amount")))
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
    outbox.put(bench.event(None, dead=("invalid:value", "value: takes an amount")))
    outbox.record(model.Counted(bench.now(), "purchase", "suppressed", "consent_gpc"))
    outbox.note_failure("purchase", "full")
    outbox.put(bench.event("1003"))
    outbox.measure()
    claim = claimed(outbox)
    by_key = {event.key: event.id for event in claim.events}
    ends = [model.Outcome(ids=[by_key["1002"]], kind="dead", reason="too_old")]
    ends.append(model.Outcome(ids=[by_key["1001"]], kind="delivered"))
    ends.append(model.Outcome(ids=[by_key["1003"]], kind="return"))
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


def test_what_failed_is_told_once_the_journal_takes_something_again(sqlite: Bench) -> None:
    outbox = sqlite.open()
    with pytest.raises(model.OutboxFailed):
        outbox.put(sqlite.event("1001", payload=b"x" * (2 << 20)))
    assert outbox.lookups.history(0, ["outcome"]) == ()
    sqlite.path.mkdir()  # the database cannot be worked with, which hinders nothing
    outbox.measure()  # as the thread beside the requests does
    sqlite.path.rmdir()
    failed = told(outbox, "outcome", "reason", "advertisable_eid")
    assert failed == {("failed", "too_large", EID): 1}


# -- what is sent again counts once, and a dry run apart ------------------------------------------


def ended(outbox: Outbox, by: HistoryColumn = "at") -> dict[str, tuple[int, Decimal]]:
    found: dict[str, tuple[int, Decimal]] = {}
    for row in outbox.lookups.history(0, ("outcome", by)):
        events, value = found.get(row.outcome, (0, Decimal()))
        found[row.outcome] = events + row.events, value + row.value
    return found


def test_a_dead_letter_sent_again_is_lost_no_more_in_its_own_hour(
    bench: Bench, outbox: Outbox
) -> None:
    now, hours_ago = bench.now(), {"1": 2, "2": 0, "3": 5}
    assert outbox.lookups.totals() == ()
    begin_long_ago(outbox)
    for key, digest in (("1", "10 EUR"), ("2", "10 EUR"), ("3", "2 CHF")):
        at = now - hours_ago[key] * 3600
        outbox.put(bench.event(key, occurred_at=at, digest=digest, identifiers=3))
    end(outbox, "dead", "dead", "delivered")
    assert ended(outbox) == {"dead": (2, Decimal(20)), "delivered": (1, Decimal(2))}
    # Whole hours are read again where they become more.
    assert sums(outbox) == {("dead", "refused"): 2, ("delivered", ""): 1}

    (again,) = (row.id for row in outbox.lookups.list("dead") if row.key == "2")
    retry(outbox, again)
    own = [int(now // 3600 - hours) * 3600 for hours in (5, 2)]
    assert told(outbox, "at", "outcome") == {(own[0], "delivered"): 1, (own[1], "dead"): 1}
    assert retry(outbox) == 1
    assert ended(outbox) == {"delivered": (1, Decimal(2))}
    assert sums(outbox)["dead", "refused"] == 2, "for monitoring, whose sums only grow"
    end(outbox, "delivered", "dead")

    expected = {"dead": (1, Decimal(10)), "delivered": (2, Decimal(12))}
    columns: tuple[HistoryColumn, ...] = ("at", "event_name", "reason", "identifiers")
    for by in columns:
        assert ended(outbox, by) == expected, by
    assert told(outbox, "outcome") == {"dead": 1, "delivered": 2}
    lost = [one.value for one in outbox.lookups.totals() if one.outcome == "dead"]
    assert (sums(outbox)["dead", "refused"], lost) == (3, [Decimal(30)])


def test_what_was_invalid_is_no_loss_once_it_is_fixed(bench: Bench, outbox: Outbox) -> None:
    """It was counted in its own hour, which may be over when it is taken in."""
    said: Any = {"name": "pageView", "digest": "10 EURO", "occurred_at": bench.now() - 4000}
    outbox.put(bench.event("1001", dead=("invalid:currency", "takes three letters"), **said))
    assert list(ended(outbox)) == ["invalid"]
    (id,) = (row.id for row in outbox.lookups.list("dead"))
    assert outbox.admin.fix(id, bench.event("1001", digest="10 EUR", occurred_at=1.7e9))
    assert ended(outbox) == {}
    assert [(row.name, row.occurred_at) for row in outbox.lookups.list()] == [("purchase", 1.7e9)]
    end(outbox)
    assert ended(outbox) == {"delivered": (1, Decimal(10))}


# -- dry runs ------------------------------------------------------------------------------------


def test_a_dry_run_is_counted_apart_whatever_becomes_of_it(bench: Bench, outbox: Outbox) -> None:
    bench.report(outbox, "1001", "1001", dry_run=True, digest="10 EUR")  # a reload
    dropped, _ = bench.insert(outbox, "1002", "1003", dry_run=True)
    bench.insert(outbox, "1004", dry_run=True, held_for=60.0)
    outbox.put(bench.event("1001", digest="5 EUR"))
    outbox.admin.drop([dropped])
    end(outbox, "dead", "delivered", "dead")
    bench.pass_time(61)
    outbox.admin.keep_house()
    # Sent again, it takes no real loss away.
    assert retry(outbox, *(row.id for row in outbox.lookups.list("dead") if row.dry_run)) == 1

    ends = ("dead:refused", "delivered", "duplicate", "cancelled:dropped", "expired:hold_expired")
    expected = {("dry_run", reason): 1 for reason in ends} | {("dead", "refused"): 1}
    assert told(outbox, "outcome", "reason") == expected
    assert {row.outcome for row in outbox.lookups.totals()} == {"dry_run", "dead"}
