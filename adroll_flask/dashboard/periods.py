"""What span of time a page shows, in how wide steps; all in UTC, as the history is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from adroll_flask.outbox.history import bucket_start

from .numbers import written


@dataclass(frozen=True, slots=True)
class Period:
    """A span that ends now.

    :param name: as the address has it.
    :param title: as the page has it.
    :param hours: of the span.
    :param step: hours that one mark of a plot stands for.
    """

    name: str
    title: str
    hours: int
    step: int

    def begin(self, now: float) -> int:
        """When it begins: a whole step's beginning, seconds since the epoch."""
        return bucket_start(now - (self.hours - self.step) * 3600, self.step)

    def steps(self, now: float) -> list[int]:
        """The beginning of each step up to now."""
        return list(range(self.begin(now), int(now) + 1, self.step * 3600))

    def label(self, at: int) -> str:
        """A step's beginning, short: ``14:00``, ``24 Nov``; a day's name at its beginning alone."""
        if self.step == 6 and at % 86_400:
            return ""
        form = {1: "%H:00", 6: "%a %-d"}.get(self.step, "%-d %b")
        return written(form, at)

    def full(self, at: int) -> str:
        """A step, as a table has it: ``24 Nov 2026, 14:00``, ``week of 24 Nov 2026``."""
        form = {24: "%a %-d %b %Y", 168: "week of %-d %b %Y"}.get(self.step, "%a %-d %b, %H:00")
        return written(form, at)


PERIODS: Final = (
    Period("day", "24 hours", 24, 1),
    Period("week", "7 days", 7 * 24, 6),
    Period("month", "30 days", 30 * 24, 24),
    Period("year", "13 months", 56 * 7 * 24, 168),
)
#: The name in the query.
PERIOD: Final = "period"


def named(name: str) -> Period:
    """The span of that name."""
    return next(period for period in PERIODS if period.name == name)


def chosen(name: str, default: str = "week") -> Period:
    """The span that the address asks for, else *default*."""
    found = {period.name: period for period in PERIODS}
    return found.get(name, found[default])
