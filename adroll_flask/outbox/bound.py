"""The outbox's size bound, without counting at each report."""

from __future__ import annotations

import time
from collections.abc import Callable


class Bound:
    """Says whether one more event fits.

    Counting a million rows takes tens of milliseconds, so it is done at most for a hundredth of
    the time; between two counts this process adds up what it put itself.

    :param max_bytes: 0: no bound.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max = max_bytes
        self._clock = clock
        self._known = 0
        self._next = float("-inf")

    def allows(self, size: int, measure: Callable[[], int], share: float = 1.0) -> bool:
        """True where *size* more bytes fit.

        :param measure: counts the bytes that are there.
        :param share: of the bound, that may be used.
        """
        if not self._max:
            return True
        began = self._clock()
        if began >= self._next:
            self._known = measure()
            ended = self._clock()
            self._next = ended + min(60.0, max(1.0, 100 * (ended - began)))
        if self._known + size > self._max * share:
            return False
        self._known += size
        return True
