"""What happened, by the hour, without a visitor's data.

Written in the transaction that takes events in or settles them; a few hundred rows a day whatever
the traffic. What shows numbers of the past reads this, and counts no events. An event counts in the
hour in which it happened, however much later it was delivered or lost.

A dead letter that is sent again is no loss any more: the history of its hour is corrected. So each
event counts once, as delivered or as lost. Beside that the history keeps that it had been lost, so
that monitoring's sums only grow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cache
from operator import add as add_two
from operator import attrgetter
from typing import Any, Final, TypeAlias

from adroll_flask.amounts import EXACT
from adroll_flask.forks import each

from . import model, schema
from .model import BriefRow, Counted, HistoryColumn, HistorySum, State
from .retention import HISTORY_KEPT
from .schema import Tx

#: Values are kept as whole ten-thousandths of the currency's major unit, so that sums are exact.
UNITS: Final = 10_000
#: On servers, rows for one sum: workers that settle at once would wait for each other at one row.
_SLOTS: Final = 8
#: A value of so many units or more counts as none: SQLite adds up in floats, exact up to here.
_LARGEST: Final = 1 << 53
#: The end of an outcome under which dead letters are counted that were sent again.
AGAIN: Final = "_again"
_SENT_AGAIN: Final = "'dead_again', 'expired_again', 'invalid_again'"
#: The condition for the other outcomes, which say what became of events.
PRESENT: Final = f"outcome NOT IN ({_SENT_AGAIN})"
#: The hour of what is older than is kept.
_OLD: Final = 0
_SUMS: Final = ("events", "value", *schema.DELAY_COLUMNS)
_ADDED: Final = ", ".join(f"{{sum}}({name})" for name in _SUMS)
#: The columns of sums over all hours.
TOTALS: Final[Sequence[HistoryColumn]] = (
    "advertisable_eid",
    "event_name",
    "outcome",
    "reason",
    "currency",
)
_KEY: Final = ("hour", "slot", *TOTALS[:4], "identifiers", "currency")
_kind_of = attrgetter("advertisable_eid", "name", "outcome", "reason", "identifiers", "currency")


def of(event: BriefRow | model.NewEvent, outcome: str, reason: str, now: float = 0.0) -> Counted:
    """What became of *event*.

    :param now: of one that was delivered: when.
    """
    delay = None
    if outcome == "delivered" and not event.dry_run:
        delay = max(0.0, now - event.occurred_at)
    elif reason == "too_old":
        outcome = "expired"
    outcome, reason = model.outcome_of(outcome, reason[:40], event.dry_run)
    value, currency = amount_of(event.digest)
    return Counted(
        event.occurred_at,
        event.name,
        outcome,
        reason,
        identifiers=event.identifiers,
        value=value,
        currency=currency,
        delay=delay,
        advertisable_eid=event.advertisable_eid,
    )


def amount_of(digest: str | None) -> tuple[int, str]:
    """Value and currency of :meth:`~adroll_flask.events.build.Built.value_digest`."""
    if not digest:  # most events: only a purchase has a value
        return 0, ""
    amount, _, currency = digest.partition(" ")
    whole, _, part = amount.partition(".")
    try:
        value = int(whole + part[:4].ljust(4, "0"))  # as so many UNITS
    except ValueError:
        return 0, ""
    return (value, currency[:3]) if abs(value) < _LARGEST else (0, currency[:3])


def as_decimal(value: int) -> Decimal:
    """A sum of the history in the currency's major unit."""
    return EXACT.divide(value, UNITS)


def add(tx: Tx, entries: Iterable[Counted]) -> None:
    """Count *entries* in their hours."""
    sums: dict[tuple[object, ...], list[int]] = {}
    present = int(tx.now // 3600)
    # One for all that a transaction counts: two that count twice do not wait in a circle.
    slot = 0 if tx.dialect == "sqlite" else int(tx.now * 1_000_000) % _SLOTS
    for entry in each(entries):
        hour = int(entry.at // 3600)
        key = (min(hour, present), slot, *_kind_of(entry))
        row = sums.get(key)
        if row is None:
            row = sums[key] = [0 for _ in _SUMS]
        row[0] += entry.amount
        row[1] += entry.value * entry.amount
        if entry.delay is not None:
            row[2 + bisect_left(schema.DELAYS, entry.delay)] += 1
    if sums:
        _add_up(tx, sums)


@cache
def _upsert(dialect: str) -> str:
    names = (*_KEY, *_SUMS)
    return (
        f"INSERT INTO adroll_history ({', '.join(names)})"
        f" VALUES ({', '.join(':' + name for name in names)}) "
        + schema.add_up(dialect, "adroll_history", ", ".join(_KEY), _SUMS)
    )


def _add_up(tx: Tx, sums: Mapping[tuple[object, ...], Sequence[float]]) -> None:
    names = (*_KEY, *_SUMS)
    # In one order everywhere, so that two workers do not wait for each other in a circle.
    ordered = sorted(sums.items(), key=lambda item: str(item[0]))
    tx.many(
        _upsert(tx.dialect), [dict(zip(names, (*key, *row), strict=True)) for key, row in ordered]
    )


#: Hours from a Monday's first to the epoch, a Thursday's: with it weeks begin on Mondays.
_MONDAY: Final = 72


#: The name of the side on which an account's events are told apart, of :data:`.model.APART`; empty:
#: they are told with all others.
OtherSide: TypeAlias = Callable[[str], str]


def sums(
    tx: Tx,
    columns: Sequence[HistoryColumn],
    *,
    other_side: OtherSide,
    account: str | None = None,
    since: float = _OLD,
    hours: int = 1,
    outcomes: str = "1 = 1",
) -> tuple[HistorySum, ...]:
    """Sums since the hour of *since*, one a combination of *columns*.

    :param hours: what ``at`` stands for.
    :param outcomes: a condition on them.
    """
    expressions = [
        f"hour - (hour + {_MONDAY}) % {int(hours)}" if name == "at" else name for name in columns
    ]
    if "advertisable_eid" not in columns:
        expressions.append("advertisable_eid")  # which says on whose side a row is
    eid_at = expressions.index("advertisable_eid")
    mine = "" if account is None else "AND advertisable_eid = :account"
    rows = tx.rows(
        f"SELECT {', '.join([*expressions, _ADDED])} FROM adroll_history"
        f" WHERE hour >= :since AND {outcomes} {mine}"
        f" GROUP BY {', '.join(expressions)} HAVING sum(events) <> 0",
        since=int(since // 3600),
        account=account,
    )
    added: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        group = dict(zip(columns, row, strict=False))
        if "at" in group:
            group["at"] = int(group["at"]) * 3600
        if "outcome" in group:
            group["outcome"] = group["outcome"].removesuffix(AGAIN)
        side = other_side(row[eid_at])
        if side:
            if "outcome" not in group:
                continue  # nothing would tell it from the rest
            _tell_apart(group, side)
        key = tuple(group.values())
        before = added.get(key, [0 for _ in _SUMS])
        numbers = (int(number or 0) for number in row[len(expressions) :])
        added[key] = [*map(add_two, before, numbers)]
    return tuple(
        sorted(
            HistorySum(
                **dict(zip(columns, key, strict=True)),
                events=events,
                value=as_decimal(value),
                delays=tuple(delays),
            )
            for key, (events, value, *delays) in added.items()
        )
    )


def _tell_apart(group: dict[Any, Any], side: str) -> None:
    """Let *group*, a sum's columns, say what became of events on the other *side*."""
    if group["outcome"] == model.DRY_RUN:
        return
    group["outcome"], reason = model.told_apart(side, group["outcome"], group.get("reason", ""))
    if "reason" in group:
        group["reason"] = reason


def remove_old(tx: Tx, now: float) -> None:
    """Forget what is older than 13 months, but for sums over all of it: monitoring's only grow."""
    old = f"FROM adroll_history WHERE hour < :hour AND hour > {_OLD}"
    hour = int((now - HISTORY_KEPT) // 3600)
    key = ", ".join(TOTALS)
    rows = tx.rows(f"SELECT {key}, {_ADDED} {old} GROUP BY {key}", hour=hour)
    sums: dict[tuple[object, ...], list[float]] = {
        (_OLD, 0, account, name, outcome, reason, 0, currency): [*map(int, numbers)]
        for account, name, outcome, reason, currency, *numbers in rows
    }
    if sums:
        tx.execute(f"DELETE {old}", hour=hour)
        _add_up(tx, sums)


def adopt(tx: Tx, account: str) -> None:
    """Count what happened before an advertisable EID was set as of *account*."""
    rows = tx.rows(
        f"SELECT {', '.join((*_KEY, *_SUMS))} FROM adroll_history"
        " WHERE advertisable_eid = '' AND events <> 0 {lock}"
    )
    place = _KEY.index("advertisable_eid")
    sums: dict[tuple[object, ...], list[int]] = {}
    for row in rows:
        key = row[: len(_KEY)]
        numbers = [int(number) for number in row[len(_KEY) :]]
        sums[*key[:place], account, *key[place + 1 :]] = numbers
        # Taken away, not removed: others may count in the same row at this moment.
        sums[key] = [-number for number in numbers]
    if sums:
        _add_up(tx, sums)


# -- what is sent again ----------------------------------------------------------------------------


def correct(tx: Tx, ids: Sequence[str]) -> None:
    """Count the dead letters among *ids* as lost no more. Called before they wait again."""
    dead = f"id {{in_ids}} AND +state = {State.dead} AND dry_run = 0 AND payload IS NOT NULL"
    taken_back: list[Counted] = []
    for row in schema.rows(tx, dead, ids=list(ids)):
        # The hour in which it was counted: of a time in the future, add() took the present.
        at = min(row.occurred_at, row.settled_at or row.occurred_at)
        outcome = "invalid" if row.reason.startswith("invalid") else "dead"
        lost = replace(of(row, outcome, row.reason), at=at)
        taken_back.append(replace(lost, amount=-1))
        taken_back.append(replace(lost, outcome=lost.outcome + AGAIN))
    add(tx, taken_back)
