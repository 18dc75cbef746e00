"""Counts of what happened and of each reason of loss, one set per app."""

from __future__ import annotations

from collections import deque
from itertools import count, islice
from typing import TypeAlias

#: What is counted: its name, the reason, and the account where that is told apart.
Counted: TypeAlias = tuple[str, str, str]


class Counters:
    """Named counts with a reason each; cheap, for any number of threads, in this process only.

    Each count is an ``itertools.count``, whose step is one call of C. So there is no lock, which a
    signal's handler or a time limit that raises could leave taken for ever.

    >>> counters = Counters()
    >>> counters.add("record_ignored", "forged"), counters.add("record_ignored", "forged", 2)
    (True, False)
    >>> counters.snapshot()
    {'record_ignored:forged': 3}
    """

    def __init__(self) -> None:
        self._counts: dict[Counted, count[int]] = {}

    def add(self, name: str, reason: str = "", amount: int = 1, account: str = "") -> bool:
        """Count *amount* more of *name*; whether it is the first time, for what is told once.

        *reason* comes from a fixed set, never from a visitor.
        """
        key = (name, reason, account)
        number = self._counts.get(key)
        is_first = False
        if number is None:
            new = count()
            number = self._counts.setdefault(key, new)  # of two threads one is the first
            is_first = number is new
        if amount == 1:
            next(number)
        else:
            deque(islice(number, amount), maxlen=0)
        return is_first

    def get(self, name: str, reason: str = "") -> int:
        """The present count of *name* with *reason*."""
        return self.snapshot().get(f"{name}:{reason}" if reason else name, 0)

    def items(self) -> list[tuple[Counted, int]]:
        """All counts, sorted by name, reason and account."""
        # What comes next is how many steps were made. ``count(3)`` is what Python's documentation
        # of ``repr`` asks of it: the expression that makes the same; no other way to look takes no
        # step.
        return [
            (key, int(repr(number).removeprefix("count(").removesuffix(")")))
            for key, number in sorted(self._counts.copy().items())
        ]

    def snapshot(self) -> dict[str, int]:
        """All counts, as ``name`` or ``name:reason``, sorted by name."""
        return {
            f"{name}:{reason}" if reason else name: value
            for (name, reason, _account), value in self.items()
        }
