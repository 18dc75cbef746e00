"""What happened, by the hour: in the transaction of what it tells, exact, of no visitor."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from adroll_flask.outbox import Claim, Outbox, Outcome
from adroll_flask.outbox.model import OutcomeKind
from adroll_flask.outbox.schema import DELAY_COLUMNS, DELAYS
from tests.conftest import Patch
from tests.support.outbox_engines import EID, Bench, claimed

COLUMNS = ("event_name", "outcome", "reason", "identifiers", "currency")


def history(bench: Bench) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Count and value by event, outcome, reason, identifiers and currency."""
    rows = bench.execute(
        f"SELECT {', '.join(COLUMNS)}, sum(events), sum(value) FROM adroll_history"
        f" GROUP BY {', '.join(COLUMNS)}"
    )
    return {tuple(row[:5]): (int(row[5]), int(row[6])) for row in rows}


def take(outbox: Outbox) -> Claim:
    claim = claimed(outbox)
    outbox.queue.begin_sending(claim)
    return claim


def end(outbox: Outbox, kind: OutcomeKind = "delivered", reason: str = "") -> None:
    claim = take(outbox)
    outcomes = [Outcome(id=event.id, kind=kind, reason=reason) for event in claim.events]
    assert outbox.queue.settle(claim, outcomes) == len(outcomes)


def test_it_is_counted_by_outcome_currency_and_identifiers(bench: Bench, outbox: Outbox) -> None:
    for digest, mask in (("59.9 EUR", 3), ("0.1 EUR", 3), ("59.9 EUR", 1), ("7 USD", 3)):
        outbox.put(bench.event(digest=digest, identifiers=mask))
    outbox.put(bench.event(name="addToCart"))
    end(outbox)
    outbox.put(bench.event(digest="1 EUR"))
    end(outbox, "dead", "refused")

    assert history(bench) == {
        ("purchase", "delivered", "", 3, "EUR"): (2, 600_000),
        ("purchase", "delivered", "", 1, "EUR"): (1, 599_000),
        ("purchase", "delivered", "", 3, "USD"): (1, 70_000),
        ("addToCart", "delivered", "", 0, ""): (1, 0),
        ("purchase", "dead", "refused", 0, "EUR"): (1, 10_000),
    }


@pytest.mark.parametrize(
    "kinds", [("delivered",), ("delivered", "dead"), ("dead", "retry", "delivered", "return")]
)
def test_what_is_lost_is_uncounted(
    bench: Bench, outbox: Outbox, kinds: Sequence[OutcomeKind]
) -> None:
    for _ in range(len(kinds) * 2):
        outbox.put(bench.event(digest="1 EUR"))
    late = take(outbox)
    bench.execute(
        "UPDATE adroll_event SET claim = NULL, state = 0 WHERE id = :id", id=late.events[0].id
    )
    outcomes = [
        Outcome(id=event.id, kind=kinds[number % len(kinds)])
        for number, event in enumerate(late.events)
    ]

    outbox.queue.settle(late, outcomes)
    bench.pass_time(1)
    outbox.queue.settle(late, outcomes)

    ended = [one for one in outcomes[1:] if one.kind in ("delivered", "dead")]
    assert sum(count for count, _ in history(bench).values()) == len(ended)


def test_sums_are_exact_and_go_beyond_what_a_column_holds(bench: Bench, outbox: Outbox) -> None:
    for _ in range(1000):
        outbox.put(bench.event(digest="0.1 EUR"))
    outbox.put(bench.event(digest="90071992547.0001 EUR"))
    while outbox.queue.waiting():
        end(outbox)
    (row,) = outbox.lookups.history(0, ["outcome"])
    assert row.value == 100 + Decimal("90071992547.0001")
    # In a currency of small units that is no joke.
    for _ in range(1100):
        outbox.put(bench.event(digest="900000000000 EUR"))
    while outbox.queue.waiting():
        end(outbox)
    (row,) = outbox.lookups.history(0, ["outcome"])
    assert row.events == 2101
    assert float(row.value) == pytest.approx(9.9e14, rel=0.001)


@pytest.mark.parametrize(
    "digest", [None, "", "EUR", "nan EUR", "1e400 EUR", "9" * 30 + " EUR", "x EUR", "Infinity EUR"]
)
def test_no_value_is_counted_as_none(bench: Bench, outbox: Outbox, digest: str | None) -> None:
    outbox.put(bench.event(digest=digest))
    end(outbox)

    assert list(history(bench).values()) == [(1, 0)]


def test_how_long_an_event_took_is_a_histogram(bench: Bench, outbox: Outbox) -> None:
    for delay in (0.5, 4.0, 50.0, 3_000.0, 200_000.0, -30.0):
        outbox.put(bench.event(occurred_at=bench.now() - delay))
    outbox.put(bench.event(occurred_at=bench.now() - 50))
    claim = take(outbox)
    outbox.queue.settle(
        claim,
        [
            Outcome(id=event.id, kind="delivered" if number < 6 else "dead")
            for number, event in enumerate(claim.events)
        ],
    )

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


def test_rates_are_of_this_hour_and_of_the_last_day(bench: Bench, outbox: Outbox) -> None:
    for _ in range(3):
        outbox.put(bench.event())
    end(outbox)
    outbox.put(bench.event())
    end(outbox, "dead")
    assert outbox.lookups.overview().rates == {
        "hour": {"delivered": 3, "dead": 1},
        "day": {"delivered": 3, "dead": 1},
    }

    bench.execute("UPDATE adroll_history SET hour = hour - 5")
    assert outbox.lookups.overview().rates == {
        "hour": {"delivered": 0, "dead": 0},
        "day": {"delivered": 3, "dead": 1},
    }
    bench.execute("UPDATE adroll_history SET hour = hour - 20")
    assert outbox.lookups.overview().rates["day"] == {"delivered": 0, "dead": 0}


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
    claim = take(outbox)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("adroll_flask.outbox.history.add", die)
        with pytest.raises(Killed):
            outbox.queue.settle(claim, [Outcome(id=claim.events[0].id, kind="delivered")])

    assert history(bench) == {}
    assert outbox.lookups.counts()["sending"] == 1


def test_many_who_settle_at_once_lose_no_count(bench: Bench) -> None:
    shop = bench.open()
    for number in range(400):
        shop.put(bench.event(str(number), digest="1 EUR"))
    assert shop.queue.waiting() == 400

    def work(worker: Outbox) -> None:
        while claim := worker.queue.claim(EID, limit=10, begin=True):
            outcomes = [
                Outcome(id=event.id, kind="delivered" if int(event.key or 0) % 2 else "dead")
                for event in claim.events
            ]
            assert worker.queue.settle(claim, outcomes) == len(outcomes)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [bench.open() for _ in range(4)]))

    assert shop.queue.waiting() == 0
    assert history(bench) == {
        ("purchase", "delivered", "", 0, "EUR"): (200, 2_000_000),
        ("purchase", "dead", "", 0, "EUR"): (200, 2_000_000),
    }
