"""Sums of the history and of events: by what they have in common, and their money by currency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Any, TypeAlias, TypeVar

from adroll_flask.amounts import EXACT
from adroll_flask.events.fields import DECIMALS
from adroll_flask.outbox.history import amount_of, as_decimal
from adroll_flask.outbox.model import HistorySum, Row
from adroll_flask.outbox.schema import DELAYS

T = TypeVar("T")
K = TypeVar("K")
Values: TypeAlias = tuple[tuple[str, Decimal], ...]


def by(key: Callable[[T], K], rows: Iterable[T]) -> dict[K, list[T]]:
    """*rows* by what *key* gives, in the order in which that came first."""
    groups: dict[K, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def worth_of(rows: Iterable[HistorySum]) -> Values:
    """The values of *rows* by currency, that of most events first. (1,500 JPY are less than 200
    EUR.)"""
    sums: dict[str, Decimal] = {}
    events: Counter[str] = Counter()
    for row in rows:
        sums[row.currency] = EXACT.add(sums.get(row.currency, Decimal()), row.value)
        events[row.currency] += row.events
    currencies = sorted(sums, key=lambda code: (-events[code], sums[code].copy_negate()))
    return tuple((currency, sums[currency]) for currency in currencies if sums[currency])


def amount_text(value: Decimal, currency: str) -> str:
    """An amount with its currency's decimals.

    >>> amount_text(Decimal("1234.5"), "EUR"), amount_text(Decimal(9), "KWD")
    ('1,234.50 EUR', '9.000 KWD')
    """
    return f"{value:,.{DECIMALS.get(currency, 2)}f} {currency}".rstrip()


def total(rows: Iterable[HistorySum]) -> dict[str, Any]:
    """Since when *rows* are (seconds since the epoch), of how many events, and their money."""
    rows = list(rows)
    since = min((row.at for row in rows if row.at), default=None)
    return {"since": since, "events": sum(row.events for row in rows), "values": worth_of(rows)}


def of_events(events: Iterable[Row]) -> Iterator[HistorySum]:
    """*events* as sums of the history, each at the time at which it was settled, or else queued."""
    for row in events:
        value, currency = amount_of(row.digest)
        at = int(row.settled_at or row.queued_at)
        yield HistorySum(at=at, currency=currency, events=1, value=as_decimal(value))


def delays_of(rows: Iterable[HistorySum]) -> list[int]:
    """The histogram of *rows*: how many took how long from the event to its delivery."""
    return [sum(column) for column in zip(*(row.delays for row in rows), strict=True)]


def within(delays: Sequence[int], share: float) -> int | None:
    """The seconds that *share* of the events stay within: the upper end of a bucket.

    ``None``: there are none, or it is the last bucket, which has no end.

    >>> within([2, 1, 1] + [0] * 7, 0.5)
    1
    """
    passed = zip(DELAYS, accumulate(delays), strict=False)
    return next((end for end, number in passed if number and number >= share * sum(delays)), None)
