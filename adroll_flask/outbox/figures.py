"""What pages and commands show in numbers: the history, and what is not over yet.

Nothing here counts a backlog: what is not over is looked at up to a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from . import history, silence_alarms
from .database import Database, Tx
from .history import amount_of, as_decimal
from .ingest import Ingest
from .protocol import HistoryBy, HistoryColumn, HistoryRow, HistorySum
from .silence import Silence
from .states import CLAIMED, HELD, SENDING, WAITING
from .totals import TotalsReader
from .values import Totals

_OUTCOMES = {WAITING: "waiting", CLAIMED: "waiting", SENDING: "waiting", HELD: "held"}


@dataclass(frozen=True, slots=True)
class Figures:
    """See :class:`.protocol.Figures` for its methods."""

    database: Database
    ingest: Ingest
    totals_reader: TotalsReader

    def history(self, since: float, by: HistoryBy) -> tuple[HistoryRow, ...]:
        self.ingest.take_in_all()
        return self.database.read(lambda tx: history.query(tx, since, by))

    def history_sums(
        self,
        since: float,
        columns: Sequence[HistoryColumn],
        *,
        hours: int = 1,
        delays: bool = False,
    ) -> tuple[HistorySum, ...]:
        self.ingest.take_in_all()
        return self.database.read(
            lambda tx: history.sums(tx, since, columns, hours=hours, delays=delays)
        )

    def unsettled(self, most: int) -> tuple[HistorySum, ...]:
        self.ingest.take_in_all()
        return self.database.read(lambda tx: _unsettled(tx, most))

    def totals(self) -> Totals:
        return self.totals_reader.read()

    def silences(self) -> tuple[Silence, ...]:
        self.ingest.take_in_all()
        return self.database.read(silence_alarms.look)

    def note_silences(self) -> tuple[Silence, ...]:
        found, marks = self.database.read(
            lambda tx: (silence_alarms.look(tx), silence_alarms.marks(tx))
        )
        return (
            self.database.write(lambda tx: silence_alarms.note(tx, found)) if found or marks else ()
        )


def _unsettled(tx: Tx, most: int) -> tuple[HistorySum, ...]:
    """Events that wait or are held, those of each state counted up to *most*."""
    events: Counter[tuple[str, str, str]] = Counter()
    values: Counter[tuple[str, str, str]] = Counter()
    for state, outcome in _OUTCOMES.items():
        rows = tx.rows(
            "SELECT event_name, digest, count(*) FROM (SELECT event_name, digest FROM adroll_event"
            " WHERE state = :state LIMIT :most) AS found GROUP BY event_name, digest",
            state=state,
            most=most,
        )
        for name, digest, number in rows:
            value, currency = amount_of(digest)
            key = (name, outcome, currency)
            events[key] += int(number)
            values[key] += value * int(number)
    return tuple(
        HistorySum(
            event_name=name,
            outcome=outcome,
            currency=currency,
            events=number,
            value=as_decimal(values[name, outcome, currency]),
        )
        for (name, outcome, currency), number in sorted(events.items())
    )
