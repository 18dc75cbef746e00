"""Which events are silent, as the history says, and who has been told of it.

A look reads sums by the hour of a month, and counts no events. Any number of processes look; one
of them is told of each silence that begins.
"""

from __future__ import annotations

from typing import Final

from . import history
from .database import Tx
from .queue import oldest_due
from .silence import LAG, LOOKS_BACK, Silence, find_silence

_MARK: Final = "silent:"
#: Seconds that a silence has to be over before it may begin again: one on the edge is told once.
_OVER: Final = 3 * 3600


def look(tx: Tx) -> tuple[Silence, ...]:
    """The events of which too few reach AdRoll now.

    What waits is not missing: up to the time since which something waits, all is delivered.
    """
    until = tx.now - (oldest_due(tx) or 0.0) - LAG
    found = history.delivered(tx, until - LOOKS_BACK)
    silences = (find_silence(name, by_hour, until) for name, by_hour in sorted(found.items()))
    return tuple(silence for silence in silences if silence is not None)


def note(tx: Tx, silences: tuple[Silence, ...]) -> tuple[Silence, ...]:
    """Keep in mind what is silent; those of *silences* that began, for one caller alone."""
    begun = []
    for silence in silences:
        mark = {"name": f"{_MARK}{silence.name}"[:40], "value": str(int(tx.now))}
        if tx.execute(
            "{insert} adroll_meta (name, value) VALUES (:name, :value) {or_ignore}", **mark
        ):
            begun.append(silence)
        else:
            tx.execute("UPDATE adroll_meta SET value = :value WHERE name = :name", **mark)
    for name, seen in marks(tx):
        if int(seen) < tx.now - _OVER:
            tx.execute("DELETE FROM adroll_meta WHERE name = :name", name=name)
    return tuple(begun)


def marks(tx: Tx) -> list[tuple[str, str]]:
    """What was silent lately: its mark, and when it was seen."""
    return [
        (name, value)
        for name, value in tx.rows(
            "SELECT name, value FROM adroll_meta WHERE name LIKE :mark", mark=f"{_MARK}%"
        )
    ]
