"""When clocks are changed somewhere: the history has hours of UTC, and shops live by local time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Final

#: Weekday (Monday is 0) and hour at which clocks may have been changed less than a day ago, UTC.
_CHANGE: Final = frozenset(
    (day, hour) for day in (5, 6) for hour in range(24) if day * 24 + hour > 132
)
#: The days of a month that such a Sunday may be (Time Zone Database 2025b): North America, Europe,
#: Chile, Australia and New Zealand. Egypt, Israel and Lebanon change on other days or nights.
_SUNDAYS: Final[Mapping[int, tuple[range, ...]]] = {
    3: (range(8, 15), range(25, 32)),
    4: (range(1, 9),),
    9: (range(2, 9), range(24, 31)),
    10: (range(1, 8), range(25, 32)),
    11: (range(1, 8),),
}


def clocks_may_change(begin: float, end: float) -> bool:
    """Whether a night in which clocks are changed somewhere lies between two times.

    :param begin: hours since the epoch, as *end*.

    >>> hour = 1_792_800_000 // 3600  # 24 October 2026, a Saturday: Europe changes the next night
    >>> clocks_may_change(hour, hour + 24), clocks_may_change(hour + 14 * 24, hour + 21 * 24)
    (True, False)
    """
    # Every sixth hour will do: they may be in one of 35.
    for hour in (*range(math.floor(begin), math.ceil(end), 6), math.ceil(end)):
        at = time.gmtime(hour * 3600)
        if (at.tm_wday, at.tm_hour) in _CHANGE:
            sunday = time.gmtime((hour + 24 * (6 - at.tm_wday)) * 3600)
            if any(sunday.tm_mday in days for days in _SUNDAYS.get(sunday.tm_mon, ())):
                return True
    return False
