"""What stands beside a span's figures: the span before it, the same weekdays, and what is usual.

A span that is under way is compared until its last full hour, since the history has no parts of
hours. It is compared with the same part of the other span by local time, which summer time moves.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Any, Final, NamedTuple

from adroll_flask.amounts import EXACT
from adroll_flask.findings.sums import worth_of
from adroll_flask.outbox.model import HistorySum
from adroll_flask.plurals import counted
from adroll_flask.times import HOUR, written

from .periods import STEPS, Period

#: What is usual is the median of so many weeks.
_WEEKS: Final = 4
#: So many of them have to be known.
_FEWEST: Final = 3
_DAY: Final = timedelta(days=1)
_WEEK: Final = timedelta(weeks=1)
#: What came to the shop, however it ended.
CAME: Final = ("delivered", "dead", "invalid", "expired", "suppressed", "failed")
#: What a page calls the span before the one that it shows.
_CALLED: Final = {
    "today": "yesterday",
    "yesterday": "the day before",
    "day": "the day before",
    "days": "the 7 days before",
    "week": "last week",
    "last-week": "the week before",
    "month": "last month",
    "last-month": "the month before",
}


class Span(NamedTuple):
    """A span that a page's own is compared with; its times are seconds since the epoch."""

    label: str
    begin: float
    end: float


def spans(period: Period) -> list[Span]:
    """What *period* is compared with.

    Thirteen months are compared with nothing, since nothing older is kept. Nor is a day in its
    first hour.
    """
    length = _full_hours(period)
    if period.name == "year" or not length:
        return []
    begin = period.local_begin
    days = math.ceil((period.local_end - begin) / _DAY)
    before = _begin_before(period, days)
    label = _CALLED.get(period.name, f"the {counted(days, 'day')} before")
    end = min(before + length, begin) if period.is_present else begin
    compared = [_span(period, label, before, end)]
    weeks = math.ceil(days / 7)
    weeks_before = begin - weeks * _WEEK
    if weeks_before != before:
        weekdays = "the same weekday" if days == 1 else "the same weekdays"
        label = f"{weekdays} {counted(weeks, 'week')} before"
        compared.append(_span(period, label, weeks_before, weeks_before + length))
    return compared


def _full_hours(period: Period) -> timedelta:
    """How long *period* is, in local time, until its last full hour; 0: it has none."""
    if not period.is_present:
        return period.local_end - period.local_begin
    last = datetime.fromtimestamp(period.end // HOUR * HOUR, period.zone)
    return max(last - period.local_begin, timedelta())


def _begin_before(period: Period, days: int) -> datetime:
    """When the span before *period* began.

    :param days: the length of *period*.
    """
    if period.name in ("month", "last-month"):
        return (period.local_begin - _DAY).replace(day=1)
    if period.name in ("days", "week", "last-week"):
        return period.local_begin - _WEEK
    return period.local_begin - days * _DAY


def _span(period: Period, label: str, begin: datetime, end: datetime) -> Span:
    """The span between two times; if *period* goes on until now, its label says until when."""
    if period.is_present:
        form = "%H:%M" if period.step == "hour" else "%-d %b, %H:%M"
        label = f"{label} until {written(form, end.timestamp(), period.zone)}"
    return Span(label, begin.timestamp(), end.timestamp())


def since(period: Period) -> float:
    """From when on the history is needed for what is compared and for what is usual.

    It begins a week earlier than that: what it has of that week shows that the shop reported then.
    """
    usual = (period.local_begin - _WEEKS * _WEEK).timestamp()
    first = min([usual, *(span.begin for span in spans(period))])
    return first - _WEEK.total_seconds()


def compared(
    period: Period, delivered: Sequence[HistorySum], events: int, money: Iterable[tuple[str, Any]]
) -> list[dict[str, Any]]:
    """How *events* and *money* of *period* compare with each span that the history reaches back to.

    :param delivered: sums by the hour and currency since :func:`since`.
    """
    first_known = min((row.at for row in delivered), default=math.inf)
    others = [span for span in spans(period) if first_known <= span.begin]
    begin = period.local_begin
    part = _span(period, "of these", begin, begin + _full_hours(period))
    events_now, money_now = _summed(delivered, part)
    result = []
    if others and (events_now, money_now) != (events, dict(money)):
        # What came in the hour that is under way is not compared.
        worth = [[currency, value, None] for currency, value in money_now.items()]
        result.append(part._asdict() | {"events": events_now, "change": None, "values": worth})
    for span in others:
        events_then, money_then = _summed(delivered, span)
        currencies = [*money_now, *(money_then.keys() - money_now.keys())]
        values: list[list[Any]] = []
        for currency in currencies:
            value = money_then.get(currency)
            if value:
                values.append([currency, value, _change(money_now.get(currency, 0), value)])
        change = _change(events_now, events_then)
        result.append(span._asdict() | {"events": events_then, "change": change, "values": values})
    return result


def _summed(rows: Iterable[HistorySum], span: Span) -> tuple[int, dict[str, Decimal]]:
    """How many events there are in the hours of *span*, and their money by currency."""
    those = [row for row in rows if span.begin <= row.at < span.end]
    return sum(row.events for row in those), dict(worth_of(those))


def _change(now: Any, before: Any) -> float | None:
    """By what share *now* is more than *before*."""
    return float(EXACT.divide(EXACT.subtract(now, before), before)) if before else None


# -- what is usual ---------------------------------------------------------------------------------


def by_hour(rows: Iterable[HistorySum]) -> Mapping[int, int]:
    """The orders that came, by the hour, however they ended."""
    came: dict[int, int] = defaultdict(int)
    for row in rows:
        if row.event_name == "purchase" and row.outcome in CAME:
            came[row.at] += row.events
    return came


def usual(came: Mapping[int, int], period: Period) -> dict[int, float]:
    """By step: the orders that are usual in it, the median of this time in the last four weeks."""
    if not came or period.step == "week":
        return {}
    begins = {at: datetime.fromtimestamp(at, period.zone) for at in period.begins}
    counts = {at: _before(came, begin, STEPS[period.step]) for at, begin in begins.items()}
    return {at: median(numbers) for at, numbers in counts.items() if len(numbers) >= _FEWEST}


def _before(came: Mapping[int, int], begin: datetime, length: timedelta) -> list[int]:
    """How many came at the same time of each of the last four weeks, as far back as *came* goes."""
    thens = (begin - week * _WEEK for week in range(1, _WEEKS + 1))
    times = [(then.timestamp(), (then + length).timestamp()) for then in thens]
    return [_between(came, *time) for time in times if time[0] >= min(came)]


def _between(came: Mapping[int, int], begin: float, end: float) -> int:
    """How many came in the hours that begin between two times."""
    first = math.ceil(begin / HOUR) * HOUR
    return sum(came.get(at, 0) for at in range(first, math.ceil(end), HOUR))
