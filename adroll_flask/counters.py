"""Counts of what happened and of each reason of loss, one set per app."""

from __future__ import annotations

from collections import deque
from itertools import count, islice
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=tuple[str, ...])


class Tally(Generic[_Key]):
    """Counts by a key, for any number of threads.

    Each count is an ``itertools.count``, whose step is one call of C. So there is no lock, which a
    signal's handler or a time limit that raises could leave taken for ever.

    >>> tally = Tally()
    >>> tally.add(("purchase", "disk_full")), tally.add(("purchase", "disk_full"), 2)
    (True, False)
    >>> tally.items()
    [(('purchase', 'disk_full'), 3)]
    """

    def __init__(self) -> None:
        self._counts: dict[_Key, count[int]] = {}

    def add(self, key: _Key, amount: int = 1) -> bool:
        """Count *amount* more of *key*; whether it is the first time."""
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

    def get(self, key: _Key) -> int:
        """The present count of *key*."""
        number = self._counts.get(key)
        return 0 if number is None else _value(number)

    def items(self) -> list[tuple[_Key, int]]:
        """All counts, sorted by their keys."""
        return [(key, _value(number)) for key, number in sorted(self._counts.copy().items())]


class Counters:
    """Named counts with a reason each; cheap, thread-safe, in this process only.

    >>> counters = Counters()
    >>> counters.add("record_ignored", "forged"), counters.add("record_ignored", "forged")
    (True, False)
    >>> counters.snapshot()
    {'record_ignored:forged': 2}
    """

    def __init__(self) -> None:
        self._tally: Tally[tuple[str, str]] = Tally()

    def add(self, name: str, reason: str = "", amount: int = 1) -> bool:
        """Count *amount* more of *name*; whether it is the first time, for what is told once.

        *reason* comes from a fixed set, never from a visitor.
        """
        return self._tally.add((name, reason), amount)

    def get(self, name: str, reason: str = "") -> int:
        """The present count of *name* with *reason*."""
        return self._tally.get((name, reason))

    def snapshot(self) -> dict[str, int]:
        """All counts, as ``name`` or ``name:reason``, sorted by name."""
        return {
            f"{name}:{reason}" if reason else name: value
            for (name, reason), value in self._tally.items()
        }


def _value(number: count[int]) -> int:
    # What comes next is how many steps were made. ``count(3)`` is what Python's documentation of
    # ``repr`` asks of it: the expression that makes the same; no other way to look takes a step.
    return int(repr(number).removeprefix("count(").removesuffix(")"))
