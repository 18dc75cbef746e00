"""What happened, by the hour, without a visitor's data.

Written in the transaction that takes events in or settles them; a few hundred rows a day whatever
the traffic. Everything that shows numbers reads this and never counts the outbox.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple

from .database import Tx
from .dialect import add_up
from .giving_way import each
from .protocol import Claimed, HistoryBy, HistoryColumn, HistoryRow, HistorySum
from .record_format import Counted, NewEvent, counted_as
from .schema import DELAY_COLUMNS, DELAYS
from .states import DAY

#: Values are kept as whole ten-thousandths of the currency's major unit, so that sums are exact.
UNITS: Final = 10_000
#: Seconds that history is kept: 13 months.
KEPT: Final = 400 * DAY
#: Rows for the same on servers: workers that settle at once would wait for each other on one.
_SLOTS: Final = 8
_LARGEST: Final = 1 << 53
#: What dead letters count as; behind :data:`AGAIN` how many of them were sent again.
LOST: Final = ("dead", "expired", "invalid")
AGAIN: Final = "_again"
#: What people are shown.
SHOWN: Final = f"outcome NOT IN ({', '.join(repr(outcome + AGAIN) for outcome in LOST)})"
#: The hour of what is older than is kept.
_OLD: Final = 0
_KEY: Final = ("hour", "slot", "event_name", "outcome", "reason", "identifiers", "currency")
_SUMS: Final = ("events", "value", *DELAY_COLUMNS)


class Entry(NamedTuple):
    """One thing that happened."""

    name: str
    outcome: str
    reason: str
    identifiers: int
    currency: str
    value: int
    #: Seconds from the event to its delivery, or ``None``.
    delay: float | None
    amount: int = 1
    #: Since the epoch; ``None``: the present one.
    hour: int | None = None


def of(
    event: Claimed | NewEvent, outcome: str, reason: str = "", *, now: float | None = None
) -> Entry:
    """What became of *event*.

    :param now: when it was delivered.
    """
    value, currency = amount_of(event.digest)
    delay = None if now is None or outcome != "delivered" else max(0.0, now - event.occurred_at)
    reason = "" if outcome == "delivered" else reason[:40]
    if reason == "too_old":
        outcome = "expired"
    if event.dry_run:
        delay = None
    became = counted_as(outcome, reason, event.dry_run)
    return Entry(event.name, *became, event.identifiers, currency, value, delay)


def counted(record: Counted) -> Entry:
    """What a record says that is only there for this."""
    value, currency = amount_of(record.digest)
    name, outcome, reason = record.name[:40], record.outcome[:16], record.reason[:40]
    mask = record.identifiers
    return Entry(name, outcome, reason, mask, currency, value, None, record.amount)


def ended_early(tx: Tx, ids: Sequence[str], outcome: str, reason: str) -> None:
    """Count those of *ids* that wait as ended by us, just before they are removed."""
    rows = tx.rows(
        "SELECT event_name, identifiers, digest, dry_run FROM adroll_event"
        " WHERE id {in_ids} AND state IN (0, 1)",
        ids=list(ids),
    )
    add(
        tx,
        [
            Entry(name, *counted_as(outcome, reason, bool(dry_run)), mask, currency, value, None)
            for name, mask, digest, dry_run in rows
            for value, currency in [amount_of(digest)]
        ],
    )


def amount_of(digest: str | None) -> tuple[int, str]:
    """Value and currency of :func:`~adroll_flask.events.money.value_digest`."""
    amount, _, currency = (digest or "").partition(" ")
    try:
        value = int(Decimal(amount) * UNITS)
    except (InvalidOperation, ValueError, OverflowError):
        return 0, ""
    return (value, currency[:3]) if abs(value) < _LARGEST else (0, currency[:3])


def as_decimal(value: int) -> Decimal:
    """A sum of the history in the currency's major unit."""
    return Decimal(value) / UNITS


def add(tx: Tx, entries: Iterable[Entry]) -> None:
    """Count *entries* in their hours; the last thing that a transaction does."""
    sums: dict[tuple[object, ...], list[int]] = {}
    present = int(tx.now // 3600)
    slot = 0 if tx.dialect == "sqlite" else random.randrange(_SLOTS)  # noqa: S311
    for entry in each(entries):
        key = (
            *(present if entry.hour is None else entry.hour, slot, entry.name, entry.outcome),
            *(entry.reason, entry.identifiers, entry.currency),
        )
        row = sums.setdefault(key, [0] * len(_SUMS))
        row[0] += entry.amount
        row[1] += entry.value * entry.amount
        if entry.delay is not None:
            row[2 + bisect_left(DELAYS, entry.delay)] += 1
    if sums:
        _add_up(tx, sums)


def _add_up(tx: Tx, sums: Mapping[tuple[object, ...], Sequence[int]]) -> None:
    names = (*_KEY, *_SUMS)
    statement = (
        f"INSERT INTO adroll_history ({', '.join(names)})"
        f" VALUES ({', '.join(':' + name for name in names)}) "
        + add_up(tx.dialect, "adroll_history", ", ".join(_KEY), _SUMS)
    )
    # In one order everywhere, so that two workers do not wait for each other in a circle.
    tx.many(
        statement,
        [
            dict(zip(names, (*key, *row), strict=True))
            for key, row in sorted(sums.items(), key=lambda item: str(item[0]))
        ],
    )


def rates(tx: Tx) -> dict[str, dict[str, int]]:
    """What was settled in the present hour and in the last 24."""
    hour = int(tx.now // 3600)
    found = {}
    for name, hours in (("hour", 1), ("day", 24)):
        rows = tx.rows(
            "SELECT outcome, sum(events) FROM adroll_history WHERE hour > :since"
            " AND outcome IN ('delivered', 'dead', 'expired') GROUP BY outcome",
            since=hour - hours,
        )
        sums = {outcome: int(count) for outcome, count in rows}
        found[name] = {
            "delivered": sums.get("delivered", 0),
            "dead": sums.get("dead", 0) + sums.get("expired", 0),
        }
    return found


#: What a question is grouped by, and the columns that tell its groups apart.
_BY: Final[Mapping[HistoryBy, str]] = {
    "hour": "hour",
    "day": "hour - hour % 24",
    "event": "event_name",
    "reason": "reason",
    "identifier": "identifiers",
}


def query(tx: Tx, since: float, by: HistoryBy) -> tuple[HistoryRow, ...]:
    """Sums since the hour of *since*, by one thing, outcome and currency."""
    sums = ", ".join(f"sum({name})" for name in _SUMS)
    rows = tx.rows(
        f"SELECT {_BY[by]}, outcome, currency, {sums} FROM adroll_history"
        f" WHERE hour >= :since AND {SHOWN} GROUP BY {_BY[by]}, outcome, currency"
        " HAVING sum(events) <> 0",
        since=max(_OLD + 1, int(since // 3600)),
    )
    found = []
    for group, outcome, currency, *numbers in rows:
        events, value, *delays = map(int, numbers)
        group = group * 3600 if by in ("hour", "day") else group
        amount = as_decimal(value)
        found.append(HistoryRow(group, outcome, currency, events, amount, tuple(delays)))
    return tuple(sorted(found, key=lambda row: (row.group, row.outcome, row.currency)))


#: Hours from a Monday's first to the epoch, a Thursday's: with it weeks begin on Mondays.
_MONDAY: Final = 72


def bucket_start(at: float, hours: int) -> int:
    """The beginning of the *hours* (a divisor or multiple of a day's) that *at* is in, UTC.

    >>> bucket_start(1_700_000_000, 168)  # a Tuesday in November 2023
    1699833600
    """
    hour = int(at // 3600)
    return (hour - (hour + _MONDAY) % hours) * 3600


def sums(
    tx: Tx, since: float, columns: Sequence[HistoryColumn], *, hours: int = 1, delays: bool = False
) -> tuple[HistorySum, ...]:
    """Sums since the hour of *since*, one a combination of *columns*.

    :param hours: what ``at`` stands for: 1, 6, 24 or 168 hours, see :func:`bucket_start`.
    :param delays: with the histogram.
    """
    what = ("events", "value", *(DELAY_COLUMNS if delays else ()))
    expressions = [
        f"hour - (hour + {_MONDAY}) % {int(hours)}" if name == "at" else name for name in columns
    ]
    asked = ", ".join([*expressions, *(f"sum({name})" for name in what)])
    rows = tx.rows(
        f"SELECT {asked} FROM adroll_history WHERE hour >= :since AND {SHOWN}"
        + (f" GROUP BY {', '.join(expressions)} HAVING sum(events) <> 0" if expressions else ""),
        since=max(_OLD + 1, int(since // 3600)),
    )
    found = []
    for row in rows:
        group = dict(zip(columns, row, strict=False))
        numbers = [int(number or 0) for number in row[len(columns) :]]
        if "at" in group:
            group["at"] = int(group["at"]) * 3600
        value = as_decimal(numbers[1])
        found.append(HistorySum(**group, events=numbers[0], value=value, delays=tuple(numbers[2:])))
    return tuple(sorted(found))


def delivered(tx: Tx, since: float) -> dict[str, dict[int, int]]:
    """Deliveries by event and hour since *since*."""
    found: dict[str, dict[int, int]] = {}
    for name, hour, number in tx.rows(
        "SELECT event_name, hour, sum(events) FROM adroll_history"
        " WHERE hour >= :since AND outcome = 'delivered' GROUP BY event_name, hour",
        since=max(_OLD + 1, int(since // 3600)),
    ):
        found.setdefault(name, {})[hour] = int(number)
    return found


def remove_old(tx: Tx) -> int:
    """Forget what is older than 13 months, but for sums over all of it: monitoring's only grow."""
    old = "FROM adroll_history WHERE hour < :hour AND hour > :old"
    hours = {"hour": int((tx.now - KEPT) // 3600), "old": _OLD}
    key = "event_name, outcome, reason, currency"
    rows = tx.rows(
        f"SELECT {key}, {', '.join(f'sum({name})' for name in _SUMS)} {old} GROUP BY {key}", **hours
    )
    if not rows:
        return 0
    removed = tx.execute(f"DELETE {old}", **hours)
    _add_up(
        tx,
        {
            (_OLD, 0, name, outcome, reason, 0, currency): list(map(int, sums))
            for name, outcome, reason, currency, *sums in rows
        },
    )
    return removed
