"""Numbers with their nouns, as people write them."""

from __future__ import annotations

import re


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
