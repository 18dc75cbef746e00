"""Times and lengths of time, as people and lists write them."""

from __future__ import annotations

import time
from datetime import datetime, tzinfo
from typing import Final

#: Seconds.
HOUR: Final = 3600
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY


def iso(at: float | None) -> str:
    """A time as ISO 8601 in UTC: ``2026-11-24T14:05:09Z``."""
    return "" if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def span(seconds: float) -> str:
    """A length of time in one unit. Fewer than ten minutes, hours or days have a decimal.

    >>> span(5), span(7200), span(6.5 * 3600), span(10.5 * 3600), span(86_400)
    ('5 seconds', '2 hours', '6.5 hours', '11 hours', '1 day')
    """
    units = ((DAY, "day"), (HOUR, "hour"), (60, "minute"), (1, "second"))
    # What would be rounded up to 60 minutes is 1 hour.
    size, unit = next((pair for pair in units if seconds >= 0.99 * pair[0]), units[-1])
    parts = 10 if size > 1 and seconds < 10 * size else 1
    number = max(1, int(seconds / size * parts + 0.5)) / parts
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


def written(form: str, at: float, zone: tzinfo) -> str:
    """The time *at* in *zone*, as ``strftime`` writes *form*; with ``%-d``, the day without a zero,
    on every platform.

    >>> from datetime import UTC
    >>> written("%-d %b %Y", 1_730_764_800, UTC)
    '5 Nov 2024'
    """
    moment = datetime.fromtimestamp(at, zone)
    return moment.strftime(form.replace("%-d", str(moment.day)))
