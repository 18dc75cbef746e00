"""What monitoring asks for: sums since the first event, and how the outbox does at present.

Sums only grow, over all processes and for ever: what is too old for the history is added up in one
hour of its own. Whole hours do not change any more and are read once an hour; between that a look
reads the last two hours and some indexes, and counts no events.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from . import silence_alarms
from .database import Database, Tx
from .destination import read_destination
from .history import AGAIN, UNITS
from .ingest import Ingest
from .queue import oldest_due
from .schema import DELAY_COLUMNS
from .silence import Silence
from .values import HistorySum, Totals

#: Seconds between two looks for silence.
_SILENCE_EVERY: Final = 300.0
#: Events that are counted as due, at most.
MOST_DUE: Final = 10_000
_SUMS: Final = ", ".join(f"sum({name})" for name in ("events", "value", *DELAY_COLUMNS))
_KEY: Final = "event_name, outcome, reason, currency"

_Sums = Mapping[tuple[str, ...], tuple[int, ...]]


class _Base(NamedTuple):
    """Sums of all hours before *hour*."""

    hour: int
    sums: _Sums


@dataclass(slots=True)
class TotalsReader:
    """Reads :class:`.values.Totals`; keeps in memory what does not change."""

    database: Database
    ingest: Ingest
    _base: _Base | None = None
    _silence_at: float = float("-inf")
    _silences: tuple[Silence, ...] = ()

    def read(self) -> Totals:
        """The sums, and the present state.

        :raises OutboxFailed: the database cannot be worked with.
        """
        look_for_silence = time.monotonic() >= self._silence_at
        base, totals = self.database.read(lambda tx: self._read(tx, look_for_silence))
        if look_for_silence:
            self._silence_at = time.monotonic() + _SILENCE_EVERY
        self._base, self._silences = base, totals.silences
        return totals

    def _read(self, tx: Tx, look_for_silence: bool) -> tuple[_Base, Totals]:
        # The hour before may still be written to: by a transaction that began in it.
        hour = int(tx.now // 3600) - 1
        base = self._base
        if base is None or base.hour != hour:
            base = _Base(hour, _sums(tx, "hour < :hour", hour))
        sums = dict(base.sums)
        for key, numbers in _sums(tx, "hour >= :hour", hour).items():
            before = sums.get(key, (0,) * len(numbers))
            sums[key] = tuple(map(sum, zip(before, numbers, strict=True)))
        due = tx.rows(
            "SELECT count(*) FROM (SELECT id FROM adroll_event WHERE state = 0 AND due_at <= :now"
            f" LIMIT {MOST_DUE}) AS due",
            now=tx.now,
        )
        return base, Totals(
            sums=tuple(_sum(key, numbers) for key, numbers in sorted(sums.items())),
            due=int(due[0][0]),
            oldest_due=oldest_due(tx),
            destination=read_destination(tx),
            silences=silence_alarms.look(tx) if look_for_silence else self._silences,
            journal_bytes=self.ingest.bytes_waiting(),
        )


def _sums(tx: Tx, where: str, hour: int) -> _Sums:
    rows = tx.rows(
        f"SELECT {_KEY}, {_SUMS} FROM adroll_history WHERE {where} GROUP BY {_KEY}", hour=hour
    )
    found: dict[tuple[str, ...], tuple[int, ...]] = {}
    for name, outcome, *more in rows:
        # What was lost and sent again was lost once: a sum that becomes less is a new one.
        key = (name, outcome.removesuffix(AGAIN), *more[:2])
        before = found.get(key, (0,) * len(more[2:]))
        found[key] = tuple(map(int.__add__, before, map(int, more[2:])))
    return found


def _sum(key: tuple[str, ...], numbers: tuple[int, ...]) -> HistorySum:
    name, outcome, reason, currency = key
    return HistorySum(
        event_name=name,
        outcome=outcome,
        reason=reason,
        currency=currency,
        events=numbers[0],
        value=Decimal(numbers[1]) / UNITS,
        delays=numbers[2:],
    )
