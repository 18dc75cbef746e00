"""Hosts whose clock differs from AdRoll's or from the database server's, as they tell themselves.

A host that sends compares its clock with AdRoll's answers, one that takes in with the database
server's. What differs is a note in the outbox, so that whoever looks sees it, on any host.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from adroll_flask.times import DAY

from . import schema
from .schema import Tx

#: Seconds by which a clock may differ before that is a warning, and before it is an error. Orders
#: leave with the host's time, and AdRoll matches them with clicks by it.
WARNS_FROM: Final = 60.0
WRONG_FROM: Final = 300.0
#: Seconds by which two answers agree: each tells whole seconds, and took a while.
AGREES: Final = 10.0
#: Seconds between two notes about the same clock, and for how long one counts.
_EVERY: Final = 60.0
_COUNTS_FOR: Final = DAY
_PREFIX: Final = "clock:"

Other: TypeAlias = Literal["adroll", "database"]


class WrongClock(NamedTuple):
    """One host's clock.

    :param other: what it was compared with.
    :param ahead: seconds by which it is ahead; behind: below 0.
    """

    other: Other
    host: str
    ahead: float


def this_host() -> str:
    """The name of this host, as notes have it."""
    return socket.gethostname()[:40]


@dataclass(slots=True)
class Clocks:
    """Notes of this host's clock."""

    database: schema.Database
    #: By what it was compared with: when it was last noted, by ``time.monotonic()``; ``None``:
    #: there is no note. Of what is missing this process does not know.
    _noted_at: dict[Other, float | None] = field(default_factory=dict)

    def tell(self, other: Other, ahead: float) -> None:
        """Note that this host's clock differs; or take the note back.

        :param ahead: seconds by which it is ahead of *other*'s; behind: below 0.
        :raises OutboxFailed: the outbox cannot be worked with.
        """
        name = f"{_PREFIX}{other}:{this_host()}"
        noted_at = self._noted_at.get(other, 0.0)
        if abs(ahead) < WARNS_FROM:
            if noted_at is not None:
                forget = "DELETE FROM adroll_meta WHERE name = :name"
                self.database.write(lambda tx: tx.execute(forget, name=name))
                self._noted_at[other] = None
        elif not noted_at or time.monotonic() - noted_at >= _EVERY:
            self.database.write(lambda tx: schema.set_meta(tx, name, f"{ahead:.0f} {tx.now:.0f}"))
            self._noted_at[other] = time.monotonic()

    def compare(self, clock: Callable[[], float]) -> None:
        """Compare the clock of this host with the database server's, where that has one.

        :raises OutboxFailed: the outbox cannot be worked with.
        """
        if self.database.dialect != "sqlite":
            self.tell("database", ahead_of_database(self.database, clock))


def ahead_of_database(database: schema.Database, clock: Callable[[], float]) -> float:
    """Seconds by which *clock* is ahead of the outbox's; behind: below 0."""
    before = clock()
    there = database.read(lambda tx: tx.now)
    return difference(there, there, before, clock())


def difference(first: float, last: float, before: float, after: float) -> float:
    """Seconds by which a clock is ahead of another's, at least; behind: below 0.

    :param first: and *last*: between which of its times the other clock was read.
    :param before: and *after*: when it was asked and had answered, by the clock here.

    >>> difference(100.0, 101.0, before=99.5, after=100.5)
    0.0
    >>> difference(100.0, 101.0, before=161.0, after=162.0)
    60.0
    """
    if before > last:
        return before - last
    if after < first:
        return after - first
    return 0.0


def wrong_clocks(tx: Tx) -> tuple[WrongClock, ...]:
    """Those of which hosts have told within a day."""
    wrong = []
    for name, value in schema.metas(tx, _PREFIX).items():
        _, other, host = name.split(":", 2)
        ahead, noted_at = (schema.number(text, 0.0) for text in value.partition(" ")[::2])
        if abs(tx.now - noted_at) < _COUNTS_FOR:
            kind: Other = "adroll" if other == "adroll" else "database"
            wrong.append(WrongClock(kind, host, ahead))
    return tuple(wrong)
