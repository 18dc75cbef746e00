"""The outbox's size bound, without counting at each report."""

from __future__ import annotations

import time
from collections.abc import Callable


class Bound:
    """Says whether one more event fits.

    Counting a million rows takes tens of milliseconds, so it is done at most for a hundredth of
    the time; between two counts this process adds up what it put itself.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known = 0
        self._next = float("-inf")

    def allows(self, size: int, measure: Callable[[], int], most: int) -> bool:
        """True where *size* more bytes stay within *most*.

        :param measure: counts the bytes that are there.
        """
        began = self._clock()
        if began >= self._next:
            self._known = measure()
            ended = self._clock()
            self._next = ended + min(60.0, max(1.0, 100 * (ended - began)))
        if self._known + size > most:
            return False
        self._known += size
        return True
