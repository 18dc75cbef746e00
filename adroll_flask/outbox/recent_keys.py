"""What this process reported lately, for a receipt's ``duplicate``.

It decides nothing: a second report is dropped in :mod:`.rows`, whichever process took it.

:func:`adroll_flask.events.dedupe_key.kept_key` tells in which form a deduplication key is kept.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from . import model

#: How many keys are remembered, and for how many seconds.
_MOST_KEYS: Final = 10_000
_KEYS_LIVE: Final = 900.0


class RecentKeys:
    """Remembers what this process reported lately, so that a reload gets ``duplicate`` without a
    database: the newest ten thousand keys, for a quarter of an hour.

    It gives a receipt its word and decides nothing: the entry goes on to the outbox, whose index
    does. So it has no lock: its steps are calls that the interpreter does not divide.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Id, when, and whether it was held.
        self._events: OrderedDict[model.OrderKey | None, tuple[str, float, bool]] = OrderedDict()

    def find(self, order: model.OrderKey | None, *, is_held: bool) -> str | None:
        """The id of what an event of *order* is a duplicate of, where its key is known."""
        event = self._events.get(order)
        if event is None:
            return None
        id, at, was_held = event
        # A second report, without a hold, says that the held one is to be sent.
        is_other = was_held and not is_held
        return None if is_other or self._clock() - at > _KEYS_LIVE else id

    def held(self, order: model.OrderKey) -> str | None:
        """The id of the held event of *order*."""
        id, _, was_held = self._events.get(order, (None, 0.0, False))
        return id if was_held else None

    def add(self, order: model.OrderKey | None, id: str, is_held: bool) -> None:
        """Remember the event *id* of *order*, which was kept."""
        if order is None:
            return
        self._events[order] = id, self._clock(), is_held
        while len(self._events) > _MOST_KEYS:
            with suppress(KeyError):  # another thread was here
                self._events.popitem(last=False)
