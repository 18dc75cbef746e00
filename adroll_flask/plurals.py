"""Numbers with their nouns, and lengths of time, as people read them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """*number* and *noun*, the noun in the plural (with an "s") unless it is one.

    >>> counted(1, "event"), counted(0, "event")
    ('1 event', '0 events')
    """
    return counted_as(str(number), number, noun)


def counted_as(written: str, number: int, noun: str) -> str:
    """As :func:`counted`, with the number as it is *written* where it is shown.

    >>> counted_as("1,000", 1000, "event")
    '1,000 events'
    """
    return f"{written} {noun}" if number == 1 else f"{written} {noun}s"


def span(seconds: float) -> str:
    """How long, in one unit.

    >>> span(5), span(7200), span(86_400)
    ('5 seconds', '2 hours', '1 day')
    """
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return counted(round(seconds / size), unit)
    return counted(max(1, int(seconds)), "second")
