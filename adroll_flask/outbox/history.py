"""What happened, by the hour, without a visitor's data.

Written in the transaction that takes events in or settles them; a few hundred rows a day whatever
the traffic. Everything that shows numbers reads this and never counts the outbox. An event counts
in the hour in which it happened, however much later it was delivered or lost.

A dead letter that is sent again is no loss any more: the history of its hour is corrected. Who asks
what became of events since some time counts each of them once then, as delivered or as lost. That
it had been lost is kept beside it, so that monitoring's sums only grow.

It also tells which events have stopped coming: a page that no longer reports makes no error
anywhere. Silence is total. An event that came at least 20 times in four weeks is watched; it is
silent once it has stayed away for longer than one and a half times its longest pause in them, three
hours at least. It ends with an event, or after thirteen weeks. A shop that sells by day is not
silent at night, since each of its nights is a pause; one that rests for a week has no alarm in the
next such week.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Final

from adroll_flask.forks import each
from adroll_flask.plurals import span

from . import model, schema
from .model import Counted, HistoryColumn, HistorySum, Row, State
from .schema import Tx

#: Values are kept as whole ten-thousandths of the currency's major unit, so that sums are exact.
UNITS: Final = 10_000
#: Seconds that history is kept: 13 months.
KEPT: Final = 400 * model.DAY
#: Rows for the same on servers: workers that settle at once would wait for each other on one.
_SLOTS: Final = 8
_LARGEST: Final = 1 << 53
#: What dead letters count as; behind :data:`AGAIN` how many of them were sent again.
_LOST: Final = "'dead', 'expired', 'invalid'"
AGAIN: Final = "_again"
_SENT_AGAIN: Final = "'dead_again', 'expired_again', 'invalid_again'"
#: The hour of what is older than is kept.
_OLD: Final = 0
_KEY: Final = ("hour", "slot", "event_name", "outcome", "reason", "identifiers", "currency")
_SUMS: Final = ("events", "value", *schema.DELAY_COLUMNS)
_ADDED: Final = ", ".join(f"{{sum}}({name})" for name in _SUMS)
#: By what sums over many hours are told apart.
_TOTAL_KEY: Final = "event_name, outcome, reason, currency"


def of(event: Row | model.NewEvent, outcome: str, reason: str, now: float = 0.0) -> Counted:
    """What became of *event*.

    :param now: of one that was delivered: when.
    """
    delay, at = None, event.occurred_at
    if outcome == "delivered":
        reason = ""
        if not event.dry_run:
            delay = max(0.0, now - at)
    if reason == "too_old":
        outcome = "expired"
    became = model.outcome_of(outcome, reason[:40], event.dry_run)
    value, currency = amount_of(event.digest)
    return Counted(at, event.name, *became, 1, None, event.identifiers, value, currency, delay)


def amount_of(digest: str | None) -> tuple[int, str]:
    """Value and currency of :func:`~adroll_flask.events.event.value_digest`."""
    if not digest:  # most events: only a purchase has a value
        return 0, ""
    amount, _, currency = digest.partition(" ")
    try:
        value = int(Decimal(amount) * UNITS)
    except (InvalidOperation, ValueError, OverflowError):
        return 0, ""
    return (value, currency[:3]) if abs(value) < _LARGEST else (0, currency[:3])


def as_decimal(value: int) -> Decimal:
    """A sum of the history in the currency's major unit."""
    return Decimal(value) / UNITS


def add(tx: Tx, entries: Iterable[Counted]) -> None:
    """Count *entries* in their hours."""
    sums: dict[tuple[object, ...], list[int]] = {}
    present = int(tx.now // 3600)
    # One for all that a transaction counts: two that count twice do not wait in a circle.
    slot = 0 if tx.dialect == "sqlite" else int(tx.now * 1_000_000) % _SLOTS
    for one in each(entries):
        hour = min(int(one.at // 3600), present)
        key = (hour, slot, one.name, one.outcome, one.reason, one.identifiers, one.currency)
        row = sums.setdefault(key, [0] * len(_SUMS))
        row[0] += one.amount
        row[1] += one.value * one.amount
        if one.delay is not None:
            row[2 + bisect_left(schema.DELAYS, one.delay)] += 1
    if sums:
        _add_up(tx, sums)


def _add_up(tx: Tx, sums: Mapping[tuple[object, ...], Sequence[float]]) -> None:
    names = (*_KEY, *_SUMS)
    statement = (
        f"INSERT INTO adroll_history ({', '.join(names)})"
        f" VALUES ({', '.join(':' + name for name in names)}) "
        + schema.add_up(tx.dialect, "adroll_history", ", ".join(_KEY), _SUMS)
    )
    if tx.dialect == "sqlite":  # which has whole numbers of 64 bits
        sums = {
            key: [number if abs(number) < 1 << 63 else float(number) for number in row]
            for key, row in sums.items()
        }
    # In one order everywhere, so that two workers do not wait for each other in a circle.
    ordered = sorted(sums.items(), key=lambda item: str(item[0]))
    tx.many(statement, [dict(zip(names, (*key, *row), strict=True)) for key, row in ordered])


#: Hours from a Monday's first to the epoch, a Thursday's: with it weeks begin on Mondays.
_MONDAY: Final = 72


def sums(
    since: float, columns: Sequence[HistoryColumn], hours: int, lost: bool, tx: Tx
) -> tuple[HistorySum, ...]:
    """Sums since the hour of *since*, one a combination of *columns*; :meth:`.Lookups.history`."""
    wanted = f"IN ({_LOST}, {_SENT_AGAIN})" if lost else f"NOT IN ({_SENT_AGAIN})"
    expressions = [
        f"hour - (hour + {_MONDAY}) % {int(hours)}" if name == "at" else name for name in columns
    ]
    asked = ", ".join([*expressions, _ADDED])
    rows = tx.rows(
        f"SELECT {asked} FROM adroll_history WHERE hour >= :since AND outcome {wanted}"
        + (f" GROUP BY {', '.join(expressions)} HAVING sum(events) <> 0" if expressions else ""),
        since=max(_OLD + 1, int(since // 3600)),
    )
    found = []
    for row in rows:
        group = dict(zip(columns, row, strict=False))
        if "at" in group:
            group["at"] = int(group["at"]) * 3600
        found.append(sum_of(row[len(columns) :], **group))
    return tuple(sorted(found))


def sum_of(numbers: Sequence[Any], **group: Any) -> HistorySum:
    """The sum of *group* as it is told; *numbers* are those of :data:`_SUMS`."""
    events, value, *delays = (int(number or 0) for number in numbers)
    return HistorySum(**group, events=events, value=as_decimal(value), delays=tuple(delays))


def remove_old(tx: Tx, now: float) -> None:
    """Forget what is older than 13 months, but for sums over all of it: monitoring's only grow."""
    old, hour = f"hour < :hour AND hour > {_OLD}", int((now - KEPT) // 3600)
    sums: dict[tuple[object, ...], list[float]] = {
        (_OLD, 0, name, outcome, reason, 0, currency): [*map(int, numbers)]
        for name, outcome, reason, currency, *numbers in _totals(tx, old, hour)
    }
    if sums:
        tx.execute(f"DELETE FROM adroll_history WHERE {old}", hour=hour)
        _add_up(tx, sums)


# -- sums for monitoring ---------------------------------------------------------------------------

Sums = Mapping[tuple[str, ...], tuple[int, ...]]


def _totals(tx: Tx, where: str, hour: int) -> list[Any]:
    return tx.rows(
        f"SELECT {_TOTAL_KEY}, {_ADDED} FROM adroll_history WHERE {where} GROUP BY {_TOTAL_KEY}",
        hour=hour,
    )


def totals(tx: Tx, where: str, hour: int, before: Sums | None = None) -> Sums:
    """Sums over the hours before or since *hour*, by event, outcome, reason and currency.

    :param where: a condition with ``:hour``.
    :param before: sums to which they are added.
    """
    found = dict(before or {})
    for name, outcome, *more in _totals(tx, where, hour):
        # What was lost and sent again was lost once: a sum that becomes less is a new one.
        key = (name, outcome.removesuffix(AGAIN), *more[:2])
        known = found.get(key, (0,) * len(_SUMS))
        found[key] = tuple(old + int(new) for old, new in zip(known, more[2:], strict=True))
    return found


def number_before(tx: Tx, hour: int) -> int:
    """How many things happened before *hour*: more where something old was settled."""
    rows = tx.rows("SELECT sum(events) FROM adroll_history WHERE hour < :hour", hour=hour)
    return int(rows[0][0] or 0)


def total(key: tuple[str, ...], numbers: tuple[int, ...]) -> HistorySum:
    """One of :func:`totals`."""
    return sum_of(numbers, **dict(zip(_TOTAL_KEY.split(", "), key, strict=True)))


# -- what is sent again ----------------------------------------------------------------------------


def correct(tx: Tx, ids: Sequence[str]) -> None:
    """Take back that those of *ids* that are dead letters are lost, before they wait again."""
    dead = f"id {{in_ids}} AND +state = {State.dead} AND dry_run = 0 AND payload IS NOT NULL"
    taken_back: list[Counted] = []
    for row in schema.rows(tx, dead, ids=list(ids)):
        at = min(row.occurred_at, row.settled_at or row.occurred_at)
        outcome = "invalid" if row.reason.startswith("invalid") else "dead"
        lost = replace(of(row, outcome, row.reason), at=at)
        taken_back.append(replace(lost, amount=-1))
        taken_back.append(replace(lost, outcome=lost.outcome + AGAIN))
    add(tx, taken_back)


# -- what has stopped coming -----------------------------------------------------------------------

#: Hours of four weeks, and of the week of which something has to be known.
_WEEKS: Final = 28 * 24
_KNOWN: Final = 7 * 24
#: Events in four weeks below which an event is too rare to be missed.
_FEWEST: Final = 20
_TIMES: Final = 1.5
_SHORTEST: Final = 3 * 3600.0
#: Seconds of history that are looked at. What was taken out of a shop is forgotten after that.
LOOKS_BACK: Final = 91 * 86_400


def watch(name: str, by_hour: Mapping[int, int], now: float) -> model.Silence | None:
    """The event *name*, where it comes often enough to be missed; else ``None``.

    :param by_hour: how often it came, by hours since the epoch.

    >>> daily = {day * 24 + 12: 1 for day in range(28)}
    >>> watch("purchase", daily, now=(27 * 24 + 37) * 3600).is_silent
    False
    >>> watch("purchase", daily, now=(27 * 24 + 50) * 3600).is_silent
    True
    """
    last = max(by_hour, default=0)
    hours = sorted(hour for hour in by_hour if hour > last - _WEEKS)
    events = sum(by_hour[hour] for hour in hours)
    if events < _FEWEST or last - hours[0] < _KNOWN - 24:
        return None
    longest = max(after - before for before, after in pairwise(hours)) * 3600.0
    ended = min((last + 1) * 3600.0, now)
    alarm_after = max(_SHORTEST, _TIMES * longest)
    return model.Silence(name, ended, events, now - ended, longest, alarm_after)


def told(silence: model.Silence, zone: tzinfo = UTC) -> str:
    """*silence* as a sentence.

    >>> told(model.Silence("purchase", 1_800_000_000, 310, 5 * 3600, 2 * 3600, 3 * 3600))
    'no purchase event since 2027-01-15 08:00 UTC; the longest pause in four weeks was 2 hours'
    """
    since = f"{datetime.fromtimestamp(silence.last, zone):%Y-%m-%d %H:%M %Z}"
    pause = span(silence.longest_pause)
    return f"no {silence.name} event since {since}; the longest pause in four weeks was {pause}"
