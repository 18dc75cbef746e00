"""What happened, by the hour: in the transaction of what it tells, exact, of no visitor."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from adroll_flask import report_event
from adroll_flask.outbox import Outbox
from adroll_flask.outbox.history import KEPT
from adroll_flask.outbox.model import Counted, OutcomeKind
from adroll_flask.outbox.schema import DELAY_COLUMNS, DELAYS
from tests.conftest import AppMaker, Patch
from tests.support.outbox_engines import EID, ENVIRON, Bench, claimed, counted, settle, told

COLUMNS: Any = ("event_name", "outcome", "reason", "identifiers", "currency")


def history(outbox: Outbox) -> dict[tuple[Any, ...], tuple[int, Decimal]]:
    """Count and value by event, outcome, reason, identifiers and currency."""
    rows = outbox.lookups.history(0, COLUMNS)
    return {attrgetter(*COLUMNS)(row): (row.events, row.value) for row in rows}


def end(outbox: Outbox, kind: OutcomeKind = "delivered", reason: str = "") -> None:
    claim = claimed(outbox, begin=True)
    assert settle(outbox, claim, kind, reason=reason) == len(claim.events)


def sums(outbox: Outbox) -> Counter[tuple[str, str]]:
    """What monitoring is told."""
    return counted(outbox.lookups.totals(), "outcome", "reason")


def test_it_is_counted_by_outcome_currency_and_identifiers(bench: Bench, outbox: Outbox) -> None:
    for digest, mask in (("59.9 EUR", 3), ("0.1 EUR", 3), ("59.9 EUR", 1), ("7 USD", 3)):
        outbox.put(bench.event(digest=digest, identifiers=mask))
    outbox.put(bench.event(name="addToCart"))
    end(outbox)
    outbox.put(bench.event(digest="1 EUR"))
    end(outbox, "dead", "refused")

    assert history(outbox) == {
        ("purchase", "delivered", "", 3, "EUR"): (2, Decimal(60)),
        ("purchase", "delivered", "", 1, "EUR"): (1, Decimal("59.9")),
        ("purchase", "delivered", "", 3, "USD"): (1, Decimal(7)),
        ("addToCart", "delivered", "", 0, ""): (1, 0),
        ("purchase", "dead", "refused", 0, "EUR"): (1, Decimal(1)),
    }


@pytest.mark.parametrize(
    "kinds", [("delivered",), ("delivered", "dead"), ("dead", "retry", "delivered", "return")]
)
def test_what_a_claim_has_lost_is_not_counted(
    bench: Bench, outbox: Outbox, kinds: Sequence[OutcomeKind]
) -> None:
    bench.report(outbox, *[None] * (len(kinds) * 2), digest="1 EUR")
    late = claimed(outbox, begin=True)
    lost = "UPDATE adroll_event SET claim = NULL, state = 0 WHERE id = :id"
    bench.execute(lost, id=late.events[0].id)

    settle(outbox, late, *kinds)
    bench.pass_time(1)
    settle(outbox, late, *kinds)

    ended = [kind for kind in [*kinds, *kinds][1:] if kind in ("delivered", "dead")]
    assert sum(count for count, _ in history(outbox).values()) == len(ended)


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
    assert len(counts) == len(DELAYS) + 1
    assert sum(counts) == 6, "only what was delivered"
    # A machine under load may be slower than the first seconds: they count together.
    assert sum(counts[:3]) == 3
    assert counts[3:] == [1, 0, 0, 1, 0, 0, 1]


def test_history_holds_nothing_of_the_visitor(bench: Bench, outbox: Outbox) -> None:
    payload = json.dumps({"identifiers": {"adct": "click-ann", "email_sha256": "f" * 64}}).encode()
    outbox.put(bench.event("order-1001", payload=payload, digest="1 EUR"))
    end(outbox)

    rows = bench.execute("SELECT * FROM adroll_history")

    assert len(rows) == 1
    assert not any(word in str(rows) for word in ("click-ann", "ffff", "order-1001"))


def test_history_is_kept_for_thirteen_months(bench: Bench, outbox: Outbox) -> None:
    """Of what is older the sums alone are kept, which monitoring counts on."""
    outbox.put(bench.event())
    end(outbox)
    for days, kept in ((390, True), (411, False)):
        hour = int(bench.now() / 3600) - days * 24
        bench.execute("UPDATE adroll_history SET hour = :hour", hour=hour)
        bench.open().keep_house()
        (row,) = bench.execute("SELECT hour, identifiers, events FROM adroll_history")
        assert (int(row[0]) == hour) == kept
        assert int(row[2]) == 1
        assert bool(outbox.lookups.history(0.0, ["at"])) == kept


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
    assert outbox.lookups.overview().counts["sending"] == 1


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


def test_every_process_tells_the_same_of_all(bench: Bench, outbox: Outbox) -> None:
    other = bench.open()
    outbox.put(bench.event(digest="59.9 EUR"))
    outbox.put(bench.event(digest="0.1 EUR"))
    end(outbox)
    other.put(bench.event(digest="7 USD"))
    end(other, "dead", "refused")
    other.record(Counted(bench.now(), "purchase", "suppressed", "consent_gpc"))
    other.queue.take_in()

    for each in (outbox, other, bench.open()):
        assert sums(each) == {
            ("delivered", ""): 2,
            ("dead", "refused"): 1,
            ("suppressed", "consent_gpc"): 1,
        }
    (euros,) = [one for one in other.lookups.totals() if one.currency == "EUR"]
    assert (euros.value, sum(euros.delays)) == (Decimal(60), 2)


def test_sums_go_on_while_hours_pass(sqlite: Bench) -> None:
    outbox, other = sqlite.open(), sqlite.open()
    for number in range(1, 8):
        outbox.put(sqlite.event())
        end(outbox)
        for each in (outbox, other):
            assert sums(each)["delivered", ""] == number
        sqlite.clock.now += 1900.0


def test_what_is_too_old_for_the_history_is_not_lost_for_the_sums(sqlite: Bench) -> None:
    outbox = sqlite.open()
    sqlite.report(outbox, *[None] * 3, digest="2.5 EUR")
    end(outbox)
    sqlite.pass_time(KEPT / 2)
    outbox.put(sqlite.event(digest="1 EUR"))
    end(outbox)
    before = outbox.lookups.totals()
    outbox.close()  # a file of the journal does not live for a year
    sqlite.open().queue.take_in()
    for _ in range(2):
        sqlite.pass_time(KEPT / 2 + 7200)
        tidy = sqlite.open()
        while tidy.keep_house():
            pass
        for each in (outbox, tidy):
            assert each.lookups.totals() == before
    assert outbox.lookups.history(0, ["at"]) == ()
    assert outbox.lookups.watched() == ()


def test_what_waits_is_told_by_its_age_and_not_counted_beyond_a_bound(
    sqlite: Bench, monkeypatch: Patch
) -> None:
    outbox = sqlite.open()
    assert (outbox.lookups.due(), outbox.queue.oldest_due()) == (0, None)
    sqlite.report(outbox, *[None] * 3)
    outbox.queue.take_in()
    sqlite.clock.now += 300
    assert (outbox.lookups.due(), outbox.queue.oldest_due()) == (3, 300.0)
    monkeypatch.setattr("adroll_flask.outbox.lookups.MOST_DUE", 2)
    assert outbox.lookups.due() == 2


# -- by several columns, and what is not over ------------------------------------------------------


@pytest.mark.parametrize("hours", [1, 6, 24, 168])
def test_sums_stand_at_their_step_s_beginning(bench: Bench, outbox: Outbox, hours: int) -> None:
    outbox.record(Counted(bench.now(), "purchase", "suppressed", "consent_gpc"))
    [row] = outbox.lookups.history(bench.now() - 3600, ("at",), hours=hours)
    assert 0 <= bench.now() - row.at < hours * 3600 + 60
    assert time.gmtime(row.at).tm_wday == 0 if hours == 168 else row.at % (hours * 3600) == 0


def test_what_is_not_over_is_told_by_event_and_currency(bench: Bench, outbox: Outbox) -> None:
    bench.report(outbox, *map(str, range(5)), digest="2.50 EUR")
    outbox.put(bench.event("held", digest="9 CHF", held_for=3600.0))
    outbox.put(bench.event("sent", digest="1 EUR"))
    settle(outbox, claimed(outbox, 1))
    found = {row.outcome: row for row in outbox.lookups.unsettled(100)}
    assert (found["waiting"].events, found["held"].events) == (5, 1)
    assert found["held"].currency == "CHF"
    assert found["waiting"].event_name == "purchase"
    assert sum(row.events for row in outbox.lookups.unsettled(3) if row.outcome == "waiting") == 3


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
