"""What pages show: numbers, money and times as they and their CSV write them; spans of time, in
steps by the days of ``ADROLL_TIME_ZONE``; and axes of plots, which ``templates/plots.html``
draws."""

from __future__ import annotations

import csv
import io
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias

from adroll_flask.outbox.model import HistoryColumn, HistorySum
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.redaction import csv_safe


def count(number: int) -> str:
    """A whole number: ``12,345``."""
    return f"{number:,}"


def short(number: float) -> str:
    """A number for an axis: ``0``, ``250``, ``1.5k``, ``20k``, ``3M``."""
    for size, unit in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return decimal(number / size) + unit
    return decimal(number)


def decimal(number: float) -> str:
    """A number with one place at most: ``4.2``."""
    return f"{number:,.1f}".removesuffix(".0")


def percent(share: float | None) -> str:
    """A share from 0 to 1: ``85.3 %``. Only what is all is 100 %, only nothing is 0 %.

    >>> percent(0.9996), percent(1), percent(None)
    ('99.9 %', '100 %', '–')
    """
    if share is None:
        return "–"
    shown = min(max(share * 100, 0.1), 99.9) if 0 < share < 1 else share * 100
    return decimal(shown) + " %"


def money(value: Decimal, currency: str) -> str:
    """An amount: ``1,234.50 EUR``; large ones without the fraction."""
    return f"{value:,.{0 if abs(value) >= 100_000 else 2}f} {currency}".rstrip()


def values(amounts: Iterable[tuple[str, Decimal | str]]) -> str:
    """Amounts of several currencies: ``1,234.50 EUR + 99.00 USD``; nothing of what is none."""
    return " + ".join(money(Decimal(value), currency) for currency, value in amounts if value)


def written(form: str, at: float, zone: tzinfo) -> str:
    """*at* in *zone* by a form of ``strftime``; ``%-d``, a day without a zero, on every platform.

    >>> from datetime import UTC
    >>> written("%-d %b %Y", 1_730_764_800, UTC)
    '5 Nov 2024'
    """
    moment = datetime.fromtimestamp(at, zone)
    return moment.strftime(form.replace("%-d", str(moment.day)))


def csv_text(rows: Iterable[Mapping[str, object]], names: Sequence[str] = ()) -> str:
    """Rows as CSV; a text that a spreadsheet would run gets a quote before it.

    :param names: the columns, where there may be no rows.

    >>> csv_text([{"day": "2026-11-24", "order": "=1+1"}])
    "day,order\\n2026-11-24,'=1+1\\n"
    """
    rows = list(rows)
    names = names or list(rows[0] if rows else ())
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    if names:
        writer.writeheader()
    for row in rows:
        writer.writerow({name: csv_safe(value) for name, value in row.items()})
    return out.getvalue()


# -- spans of time ---------------------------------------------------------------------------------

Step: TypeAlias = Literal["hour", "day", "week"]

#: The spans that a page offers, by their names in the address.
PERIODS: Final = {
    "day": "24 hours",
    "days": "7 days",
    "week": "this week",
    "last-week": "last week",
    "month": "this month",
    "last-month": "last month",
    "year": "13 months",
}
STEPS: Final[dict[Step, timedelta]] = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}


@dataclass(frozen=True, slots=True)
class Period:
    """A span of time.

    :param name: as the address has it; empty where it has dates.
    :param begins: of its steps, seconds since the epoch.
    :param end: seconds since the epoch; its last step may be under way.
    :param is_present: whether it goes on until now.
    """

    name: str
    step: Step
    begins: tuple[int, ...]
    end: float
    is_present: bool
    zone: tzinfo

    @property
    def begin(self) -> int:
        return self.begins[0]

    @property
    def dates(self) -> str:
        """From when to when: ``23 Nov 2026 to 29 Nov 2026``."""
        begin = written("%-d %b %Y", self.begin, self.zone)
        last = "now" if self.is_present else written("%-d %b %Y", self.end - 1, self.zone)
        return begin if begin == last else f"{begin} to {last}"

    def by_weeks(self) -> Period:
        """The same in steps of seven days."""
        return replace(self, step="week", begins=self.begins[::7]) if self.step == "day" else self

    def sums(self, outbox: Outbox, columns: Sequence[HistoryColumn]) -> list[HistorySum]:
        """The history's sums by step (``at``) and *columns*."""
        # Weeks of a year are summed up by the database, as UTC has them; by their middle, they are
        # the same weeks in any zone.
        hours, middle = (168, 84 * 3600) if self.name == "year" else (1, 0)
        since = self.begin - (86_400 if middle else 0)
        rows = outbox.lookups.history(since, ("at", *columns), hours=hours)
        return self.placed(rows, middle)

    def placed(self, rows: Iterable[HistorySum], later: int) -> list[HistorySum]:
        """Those of *rows* that lie in it, each at the beginning of its step.

        :param later: seconds from a row's time to the one that tells its step.
        """
        return [
            row._replace(at=self.begins[bisect_right(self.begins, row.at + later) - 1])
            for row in rows
            if self.begin <= row.at + later and row.at < self.end
        ]


def midnight(moment: datetime) -> datetime:
    """The beginning of its day."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def named(name: str, now: float, zone: tzinfo) -> Period:
    """The span of that name, one of :data:`PERIODS`."""
    present = datetime.fromtimestamp(now, zone)
    today = midnight(present)
    monday, first = today - timedelta(days=today.weekday()), today.replace(day=1)
    steps: dict[str, Step] = {"day": "hour", "year": "week"}
    begins = {
        # Hours that went by: the clock on the wall has one twice, or leaves one out.
        "day": present.replace(minute=0, second=0).astimezone(UTC) - timedelta(hours=23),
        "days": today - timedelta(days=6),
        "week": monday,
        "last-week": monday - timedelta(weeks=1),
        "month": first,
        "last-month": (first - timedelta(days=1)).replace(day=1),
        "year": monday - timedelta(weeks=55),
    }
    end = {"last-week": monday, "last-month": first}.get(name, present)
    return _made(name, steps.get(name, "day"), begins[name], end, present)


def between(since: str, until: str, now: float, zone: tzinfo) -> Period:
    """From one day to another, both of them in it: ``2026-11-01``, ``2026-11-07``; one of
    them may be empty.

    :raises ValueError: one is no day, or there is none between them.
    """
    present = datetime.fromtimestamp(now, zone)
    begin = midnight(datetime.fromisoformat(since or until).replace(tzinfo=zone))
    last = midnight(datetime.fromisoformat(until).replace(tzinfo=zone)) if until else present
    end = present if last >= midnight(present) else last + timedelta(days=1)
    if begin >= end or present - begin > timedelta(days=401):
        raise ValueError("not a span of the last thirteen months")
    step: Step = "week" if end - begin > timedelta(days=62) else "day"
    if end - begin <= timedelta(days=2):
        step, begin = "hour", begin.astimezone(UTC)
    return _made("", step, begin, end, present)


def _made(name: str, step: Step, begin: datetime, end: datetime, present: datetime) -> Period:
    zone = present.tzinfo
    assert zone is not None  # noqa: S101 - for mypy
    begins, at = [], begin
    while at < end:
        begins.append(int(at.timestamp()))
        # In local time: a day of 23 or 25 hours is a day.
        at = at + STEPS[step]
    return Period(name, step, tuple(begins), end.timestamp(), end >= present, zone)


# -- plots -----------------------------------------------------------------------------------------

#: Labels on the axis: so many at most on a wide page, and on a narrow one.
_WIDE, _NARROW = 12, 5
#: Ends of an axis, as parts of a power of ten; four equal steps below each are round.
_ROUND: Final = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)


def axis_end(plot: Mapping[str, Any]) -> float:
    """The end of a plot's axis: a round number with four equal steps below it; of lines, which are
    of shares, 1. 0: there is nothing to draw.

    >>> steps = [{"sent": 3, "lost": 2}, {"sent": 9, "lost": 8}]
    >>> axis_end({"steps": steps, "series": [{"name": "sent"}, {"name": "lost"}], "usual": []})
    20.0
    """
    bars = [[step[one["name"]] or 0 for one in plot["series"]] for step in plot["steps"]]
    if plot.get("are_lines") or not any(map(any, bars)):
        return float(any(map(any, bars)))
    largest = max((*map(sum, bars), *filter(None, plot["usual"])))
    if largest <= 4:
        return 4.0
    size = 10.0 ** math.floor(math.log10(largest))
    ends = (step * size for step in _ROUND if step * size >= largest)
    return next((end for end in ends if end % 4 == 0), 4.0 * math.ceil(largest / 4))


def with_room(labels: Sequence[str]) -> list[tuple[float, str, bool]]:
    """Of an axis' labels those that there is room for: the place in per cent, the text, and whether
    a narrow page has room for it, too."""
    every = max(1, math.ceil(len(labels) / _WIDE))
    often = every * max(1, math.ceil(len(labels) / every / _NARROW))
    return [
        (round((n + 0.5) * 100 / len(labels), 2), label, n % often == 0)
        for n, label in enumerate(labels)
        if n % every == 0
    ]
