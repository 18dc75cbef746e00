"""Counts of what happened, and for which reasons; each app has its own."""

from __future__ import annotations

from collections import deque
from itertools import count, islice
from typing import TypeAlias

#: A count's name, its reason, and the account where accounts are counted apart.
CounterKey: TypeAlias = tuple[str, str, str]


class Counters:
    """Counts by name and reason, in this process only; cheap, and for any number of threads.

    Each count is an ``itertools.count``, whose step is one call of C. So there is no lock, which a
    signal's handler or a time limit that raises could leave taken for ever.

    >>> counters = Counters()
    >>> counters.add("record_ignored", "forged"), counters.add("record_ignored", "forged", 2)
    (True, False)
    >>> counters.snapshot()
    {'record_ignored:forged': 3}
    """

    def __init__(self) -> None:
        self._counts: dict[CounterKey, count[int]] = {}

    def add(self, name: str, reason: str = "", amount: int = 1, account: str = "") -> bool:
        """Count *amount* more of *name*. True the first time, for what is logged only once.

        :param reason: one of a fixed set, never anything that a visitor sent.
        """
        key = (name, reason, account)
        number = self._counts.get(key)
        is_first = False
        if number is None:
            new = count()
            number = self._counts.setdefault(key, new)  # another thread may have been first
            is_first = number is new
        if amount == 1:
            next(number)
        else:
            deque(islice(number, amount), maxlen=0)
        return is_first

    def get(self, name: str, reason: str = "") -> int:
        """The present count of *name* with *reason*."""
        return self.snapshot().get(f"{name}:{reason}" if reason else name, 0)

    def items(self) -> list[tuple[CounterKey, int]]:
        """All counts, sorted by name, reason and account."""
        # Only ``repr`` shows a count without a step of it. It is the expression that makes the same
        # count, as Python's documentation of ``repr`` asks: ``count(3)`` after three steps.
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
