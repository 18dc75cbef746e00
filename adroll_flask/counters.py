"""Counts of what happened and of each reason of loss, one set per app."""

from __future__ import annotations

import threading
from collections import Counter

from .forks import PerProcess


class Counters:
    """Named counts with a reason each; cheap, thread-safe, in this process only.

    >>> counters = Counters()
    >>> counters.add("record_ignored", "forged"), counters.add("record_ignored", "forged")
    (True, False)
    >>> counters.snapshot()
    {'record_ignored:forged': 2}
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._locks = PerProcess(threading.RLock)  # a signal's handler may report

    def add(self, name: str, reason: str = "", amount: int = 1) -> bool:
        """Count *amount* more of *name*; whether it is the first time, for what is told once.

        *reason* comes from a fixed set, never from a visitor.
        """
        with self._locks.own():
            before = self._counts[name, reason]
            self._counts[name, reason] = before + amount
        return not before

    def get(self, name: str, reason: str = "") -> int:
        """The present count of *name* with *reason*."""
        return self._counts[name, reason]

    def snapshot(self) -> dict[str, int]:
        """All counts, as ``name`` or ``name:reason``, sorted by name."""
        with self._locks.own():
            items = sorted(self._counts.items())
        return {f"{name}:{reason}" if reason else name: count for (name, reason), count in items}
