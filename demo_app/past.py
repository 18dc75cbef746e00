"""A year of the shop's past, made up: what the dashboard shows of a shop that has been open.

The same hour gives the same figures each time. What happened, seen from *now*:

- trade follows the clock, the week and the season, and grows;
- 290 days ago: the pixel's host is blocked for two weeks by a policy, cookies get rare;
- 150 days ago: a consent banner; a quarter of the buyers says no, later a sixth;
- 95 days ago: the shop tells AdRoll who is logged in, user ids come in;
- 68 days ago: the token had run out for a weekend, events waited for two days;
- 33 days ago: a new checkout whose Content-Security-Policy keeps the pixel out for some;
- 19 days ago: AdRoll was away for five hours.

Orders of the last days are more than sums: the outbox has each, and the shop's own list of paid
orders does, so that the two can be compared.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, TypeVar

from adroll_flask.events.names import BITS
from adroll_flask.outbox.model import State, new_id
from adroll_flask.outbox.schema import DELAY_COLUMNS
from adroll_flask.sandbox import ADVERTISABLE_EID

from . import cart, catalogue
from .store import Order, Store

#: Days that the shop has been open.
OPEN: Final = 396
#: Days whose orders can be looked up; a comparison asks for fourteen.
_LISTED: Final = 15
#: The first number of those orders.
_FIRST_NUMBER: Final = 5000
_HOUR: Final = 3600
#: Seconds for which an order's key is kept: ``ADROLL_DEDUPE_DAYS``.
_KEPT: Final = 90 * 24 * _HOUR
#: Share of a day's trade in each hour, UTC, for a shop whose customers live in Europe.
_CLOCK: Final = (
    *(0.5, 0.3, 0.2, 0.2, 0.3, 0.7, 1.6, 3.0, 4.2, 5.0, 5.6, 5.8),
    *(5.4, 5.0, 5.1, 5.3, 5.6, 6.2, 7.3, 8.6, 9.0, 7.4, 4.4, 1.9),
)
_WEEK: Final = (1.05, 0.98, 0.96, 1.0, 1.02, 0.9, 1.2)
#: When AdRoll was away: from and until, in days ago.
_AWAY: Final = ((70.0, 68.0), (18.9 + 5 / 24, 18.9))
#: Events for one order, and whether they have a value.
PER_ORDER: Final = {"addToCart": 3.1, "productSearch": 1.6, "formFill": 0.12, "purchase": 1.0}
_PRICED: Final = ("purchase", "addToCart")
_CURRENCIES: Final = (("EUR", 0.93), ("CHF", 0.07))
#: Share of the visitors with a cookie whose click on an ad is known.
CLICKED: Final = 0.13
#: Positions of the histogram's columns that most deliveries fall into, with weights.
_SOON: Final = ((0, 0.28), (1, 0.61), (2, 0.08), (3, 0.025), (4, 0.005))

T = TypeVar("T")
Row = tuple[object, ...]


class _Sale(NamedTuple):
    """An order that AdRoll took, and the mask of what identified its visitor."""

    order: Order
    identifiers: int


def write(
    database: Path, store: Store, now: float, *, until: float = 0.0, orders_a_day: float = 110.0
) -> int:
    """Fill an outbox's empty history; returns how many rows it got.

    :param database: its SQLite file, with its tables.
    :param store: gets the orders of the last days.
    :param until: hours before *now* at which it ends.
    """
    columns = (
        *("hour", "slot", "advertisable_eid", "event_name"),
        *("outcome", "reason", "identifiers", "currency"),
        *("events", "value", *DELAY_COLUMNS),
    )
    statement = (
        f"INSERT OR IGNORE INTO adroll_history ({', '.join(columns)})"  # noqa: S608 - constants
        f" VALUES ({', '.join('?' * len(columns))})"
    )
    end = int(now // _HOUR - until)
    with sqlite3.connect(database) as connection:
        if connection.execute("SELECT 1 FROM adroll_history LIMIT 1").fetchone():
            return 0
        connection.execute(
            "UPDATE adroll_meta SET value = ? WHERE name = 'began'",
            (repr(float((end - OPEN * 24) * _HOUR)),),
        )
        sales: list[_Sale] = []
        written = connection.executemany(statement, _rows(end, orders_a_day, now, sales)).rowcount
        _list(sales, connection, store)
        return written


def _list(sales: Sequence[_Sale], connection: sqlite3.Connection, store: Store) -> None:
    """Keep each sale as the shop does, and as an outbox keeps what was delivered."""
    common = {"state": State.delivered, "event_name": "purchase", "dry_run": 0}
    for order, identifiers in sales:
        row = common | {
            "id": new_id(order.paid_at),
            "advertisable_eid": ADVERTISABLE_EID,
            "dedupe_key": order.id,
            "digest": f"{order.total} {order.currency}",
            "identifiers": identifiers,
            "occurred_at": order.paid_at,
            "queued_at": order.paid_at,
            "settled_at": order.paid_at + 4,
            "due_at": order.paid_at + _KEPT,
        }
        connection.execute(
            f"INSERT INTO adroll_event ({', '.join(row)})"  # noqa: S608 - constants
            f" VALUES ({', '.join(f':{name}' for name in row)})",
            row,
        )
    store.keep(sale.order for sale in sales)


def _rows(end: int, orders_a_day: float, now: float, sales: list[_Sale]) -> Iterator[Row]:
    begin = end - OPEN * 24
    #: Events that wait for AdRoll: their counts by what they are, and when they happened.
    waiting: list[tuple[int, tuple[str, int, str], int, int]] = []
    for hour in range(begin, end):
        days_ago = now / 86_400 - hour / 24
        random = Random(hour)  # noqa: S311 - figures for a demo
        counts: Counter[tuple[object, ...]] = Counter()
        values: Counter[tuple[object, ...]] = Counter()
        delays: dict[tuple[object, ...], list[int]] = {}

        def delivered(
            what: tuple[str, int, str], events: int, value: int, late: int, hour: int = hour
        ) -> None:
            key = (hour, 0, what[0], "delivered", "", what[1], what[2])
            counts[key] += events  # noqa: B023 - called in this round alone
            values[key] += value  # noqa: B023
            spread = delays.setdefault(key, [0] * len(DELAY_COLUMNS))  # noqa: B023
            if late:
                spread[7 if late <= 6 else 8 if late <= 24 else 9] += events
            else:
                spread[_pick(random, _SOON)] += events  # noqa: B023

        is_away = any(until < days_ago <= since for since, until in _AWAY)
        if not is_away:
            for since, what, events, value in waiting:
                delivered(what, events, value, hour - since)
            waiting.clear()
        for name, ratio in PER_ORDER.items():
            total = poisson(random, trade(hour, days_ago, orders_a_day) * ratio)
            for _ in range(total):
                said = _consent(random, days_ago)
                if said:
                    counts[hour, 0, name, "suppressed", said, 0, ""] += 1
                    continue
                mask = _identifiers(random, name, days_ago)
                currency = _pick(random, _CURRENCIES) if name in _PRICED else ""
                line = sale(random)
                value = round(10_000 * line.total) if currency else 0
                if name == "purchase" and random.random() < 0.018:
                    counts[hour, 0, name, "duplicate", "", mask, currency] += 1
                    values[hour, 0, name, "duplicate", "", mask, currency] += value
                elif is_away:
                    waiting.append((hour, (name, mask, currency), 1, value))
                else:
                    delivered((name, mask, currency), 1, value, 0)
                    if name == "purchase" and days_ago < _LISTED:
                        number = f"{_FIRST_NUMBER + len(sales)}"
                        at = hour * _HOUR + random.random() * _HOUR
                        email = f"buyer{number}@mail.example"
                        sales.append(_Sale(Order(number, email, (line,), at, currency), mask))
        for key, events in counts.items():
            place = (*key[:2], ADVERTISABLE_EID, *key[2:])
            yield (*place, events, values[key], *delays.get(key, [0] * len(DELAY_COLUMNS)))


def trade(hour: int, days_ago: float, orders_a_day: float = 110.0) -> float:
    """Orders in an hour, the mean."""
    day = hour // 24
    week = _WEEK[(day + 3) % 7]  # the epoch was a Thursday
    # Weeks before Christmas are the busiest, high summer the quietest.
    season = 1 + 0.28 * math.cos(2 * math.pi * (day % 365.25 - 345) / 365.25)
    growth = 1 - 0.35 * days_ago / OPEN
    return orders_a_day * _CLOCK[hour % 24] / sum(_CLOCK) * week * season * growth


def poisson(random: Random, mean: float) -> int:
    """A Poisson number."""
    end, product, number = math.exp(-mean), random.random(), 0
    while product > end:
        product *= random.random()
        number += 1
    return number


def _consent(random: Random, days_ago: float) -> str:
    """Why an event is not reported, or nothing."""
    refused = 0.0 if days_ago > 150 else 0.26 if days_ago > 42 else 0.16
    drawn = random.random()
    if drawn < 0.03:
        return "consent_gpc"
    if drawn < 0.03 + refused:
        return "consent_refused"
    if days_ago <= 150 and drawn < 0.03 + refused + 0.02:
        return "consent_unknown"
    return "before_report" if drawn > 0.994 else ""


def cookies(days_ago: float) -> float:
    """The share of visitors whose first-party cookie is known."""
    if 276 < days_ago <= 290:
        return 0.34
    return 0.93 if days_ago > 33 else 0.81


def _identifiers(random: Random, name: str, days_ago: float) -> int:
    """The mask of what an event carries."""
    has_cookie = random.random() < cookies(days_ago)
    is_customer = random.random() < 0.45
    mask = BITS["first_party_cookie"] if has_cookie else 0
    # An event that has neither is none: who comes without a cookie came from an ad.
    if random.random() < CLICKED or not has_cookie:
        mask |= BITS["adct"]
    if name in ("purchase", "formFill") or (is_customer and days_ago <= 95):
        mask |= BITS["email_sha256"] | BITS["email_md5"]
    if is_customer and days_ago <= 95:
        mask |= BITS["user_id"]
    return mask


def sale(random: Random) -> cart.Line:
    """What somebody buys."""
    return cart.Line(random.choice(catalogue.PRODUCTS), random.choice([1, 1, 1, 2, 2, 3]))


def _pick(random: Random, choices: Sequence[tuple[T, float]]) -> T:
    drawn = random.random()
    for choice, share in choices:
        drawn -= share
        if drawn < 0:
            return choice
    return choices[0][0]
