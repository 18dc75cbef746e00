"""Numbers with their nouns, times and lengths of time, as people and lists write them."""

from __future__ import annotations

import re
import time


def counted(number: int, noun: str) -> str:
    """*number* and *noun*, the noun in the plural (with an "s") unless it is one.

    >>> counted(1, "event"), counted(0, "event"), counted(2500, "event")
    ('1 event', '0 events', '2,500 events')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def agreeing(text: str, number: int) -> str:
    """*text* with one of each ``{one|more}``, by *number*.

    >>> agreeing("order{|s} {waits|wait}", 1), agreeing("order{|s} {waits|wait}", 2)
    ('order waits', 'orders wait')
    """
    return re.sub(r"\{([^{}|]*)\|([^{}|]*)\}", r"\1" if number == 1 else r"\2", text)


def iso(at: float | None) -> str:
    """A time as ISO 8601 in UTC: ``2026-11-24T14:05:09Z``."""
    return "" if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def span(seconds: float) -> str:
    """How long, in one unit: below ten of it to a tenth, halves up.

    >>> span(5), span(7200), span(6.5 * 3600), span(10.5 * 3600), span(86_400)
    ('5 seconds', '2 hours', '6.5 hours', '11 hours', '1 day')
    """
    units = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    # What is rounded up to the next unit is told in that: no 60 minutes.
    size, unit = next((one for one in units if seconds >= 0.99 * one[0]), units[-1])
    parts = 10 if size > 1 and seconds < 10 * size else 1
    number = max(1, int(seconds / size * parts + 0.5)) / parts
    return f"{number:g} {unit}{'' if number == 1 else 's'}"
