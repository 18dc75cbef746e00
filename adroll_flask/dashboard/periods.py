"""Spans of time that pages show, in steps by the days of ``ADROLL_TIME_ZONE``."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Literal, TypeAlias

from adroll_flask.outbox.lookups import Lookups
from adroll_flask.outbox.model import HistoryColumn, HistorySum
from adroll_flask.times import DAY, WEEK, written

Step: TypeAlias = Literal["hour", "day", "week"]

#: The spans that a page offers, by their names in the address.
PERIODS: Final = {
    "today": "today",
    "yesterday": "yesterday",
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

    :param name: as the address has it; empty where that has dates.
    :param begins: when its steps begin, seconds since the epoch.
    :param end: seconds since the epoch; its last step may be under way.
    :param is_present: whether it goes on until now.
    :param zone: of its days.
    """

    name: str
    step: Step
    begins: tuple[int, ...]
    end: float
    is_present: bool
    zone: tzinfo

    @property
    def begin(self) -> int:
        """Seconds since the epoch."""
        return self.begins[0]

    @property
    def local_begin(self) -> datetime:
        """Its beginning, in its zone."""
        return datetime.fromtimestamp(self.begin, self.zone)

    @property
    def local_end(self) -> datetime:
        """Its end, in its zone."""
        return datetime.fromtimestamp(self.end, self.zone)

    @property
    def dates(self) -> str:
        """From when to when: ``23 Nov 2026 to 29 Nov 2026``."""
        begin = written("%-d %b %Y", self.begin, self.zone)
        last = "now" if self.is_present else written("%-d %b %Y", self.end - 1, self.zone)
        return begin if begin == last else f"{begin} to {last}"

    def by_weeks(self) -> Period:
        """The same in steps of seven days."""
        return replace(self, step="week", begins=self.begins[::7]) if self.step == "day" else self

    def sums(self, lookups: Lookups, columns: Sequence[HistoryColumn]) -> list[HistorySum]:
        """The history's sums by step (``at``) and *columns*."""
        if self.name != "year":
            return self.placed(lookups.history(self.begin, ("at", *columns)), 0)
        # The database sums up the weeks of a year, as UTC has them. A zone's own weeks begin less
        # than a day before or after: by the middle of a week they are the same.
        weeks = lookups.history(self.begin - DAY, ("at", *columns), hours=168)
        return self.placed(weeks, WEEK // 2)

    def placed(self, rows: Iterable[HistorySum], later: int) -> list[HistorySum]:
        """Those of *rows* that lie in it, each at the beginning of its step.

        :param later: a row belongs to the step that has the time so many seconds after the row's.
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
    monday = today - timedelta(days=today.weekday())
    first = today.replace(day=1)
    steps: dict[str, Step] = {"today": "hour", "yesterday": "hour", "day": "hour", "year": "week"}
    yesterday = today - timedelta(days=1)
    begins = {
        "today": today.astimezone(UTC),
        "yesterday": yesterday.astimezone(UTC),
        # 24 hours that went by. In local time one may come twice, or not at all.
        "day": present.replace(minute=0, second=0).astimezone(UTC) - timedelta(hours=23),
        "days": today - timedelta(days=6),
        "week": monday,
        "last-week": monday - timedelta(weeks=1),
        "month": first,
        "last-month": (first - timedelta(days=1)).replace(day=1),
        "year": monday - timedelta(weeks=55),
    }
    ends = {"yesterday": today, "last-week": monday, "last-month": first}
    end = ends.get(name, present)
    return _made(name, steps.get(name, "day"), begins[name], end, present)


def between(since: str, until: str, now: float, zone: tzinfo) -> Period:
    """The span of two days and those between them: ``2026-11-01``, ``2026-11-07``.

    :param since: empty: *until* alone.
    :param until: empty: now.
    :raises ValueError: one is no day, or there is no such span in the last thirteen months.
    """
    present = datetime.fromtimestamp(now, zone)
    begin = midnight(datetime.fromisoformat(since or until).replace(tzinfo=zone))
    last = midnight(datetime.fromisoformat(until).replace(tzinfo=zone)) if until else present
    end = present if last >= midnight(present) else last + timedelta(days=1)
    if begin >= end or present - begin > timedelta(days=401):
        raise ValueError("not a span of the last thirteen months")
    step: Step = "week" if end - begin > timedelta(days=62) else "day"
    if end - begin <= timedelta(days=2):
        step = "hour"
        begin = begin.astimezone(UTC)
    return _made("", step, begin, end, present)


def _made(name: str, step: Step, begin: datetime, end: datetime, present: datetime) -> Period:
    zone = present.tzinfo
    assert zone is not None  # noqa: S101 - for mypy
    begins: list[int] = []
    at = begin
    while at < end or not begins:
        begins.append(int(at.timestamp()))
        # In local time: a day of 23 or 25 hours is one step.
        at = at + STEPS[step]
    return Period(name, step, tuple(begins), end.timestamp(), end >= present, zone)
