"""Dead letters as problems are made of them: the newest ones, and what history says of the rest.

Nothing here counts the outbox's rows: each question ends at a number of rows that the caller gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from . import sent_again
from .database import Database, Tx, one
from .history import AGAIN, LOST
from .orders import order_id_of
from .protocol import DeadLetter, Ended, Row, State
from .row_reading import ROW_COLUMNS, row_of
from .states import DEAD, NUMBER

#: Newest events that are looked at for those of one name.
_LOOKED_AT: Final = 2000
#: Lost, whether or not it was sent again later.
_LOST: Final = ", ".join(repr(lost + more) for lost in LOST for more in ("", AGAIN))
#: States in which an event is not over.
_OPEN: Final[tuple[State, ...]] = ("waiting", "claimed", "sending", "held", "dead")


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """See :class:`.protocol.DeadLetterLookup`."""

    database: Database

    def newest(self, most: int) -> tuple[DeadLetter, ...]:
        """The newest *most* dead letters, newest first."""
        query = (
            "SELECT id, event_name, reason, error, settled_at, payload IS NOT NULL"
            f" FROM adroll_event WHERE state = {DEAD} AND dry_run = 0"
            " ORDER BY due_at DESC LIMIT :most"
        )
        rows = self.database.read(lambda tx: tx.rows(query, most=most))
        return tuple(
            DeadLetter(id, name, reason or "", error or "", settled or 0.0, bool(whole))
            for id, name, reason, error, settled, whole in rows
        )

    def of_order(self, order: str, most: int) -> tuple[Row, ...]:
        """Invalid events, which have no key, that have *order* as their order id; newest first.

        :param most: dead letters that are looked through, the newest.
        """
        query = f"SELECT {ROW_COLUMNS}, payload FROM adroll_event WHERE state = {DEAD}"
        query = (
            f"SELECT * FROM ({query} ORDER BY due_at DESC LIMIT :most) AS newest"
            " WHERE dedupe_key IS NULL AND payload IS NOT NULL"
        )
        plain = order.encode() if order.isascii() and order.isalnum() else b""
        rows = self.database.read(
            lambda tx: [row for row in tx.rows(query, most=most) if plain in bytes(row[-1])]
        )
        found = map(row_of, rows)
        return tuple(row for row in found if order_id_of(row.payload or b"") == order)

    def ended(self, since: float) -> tuple[Ended, ...]:
        """What could not be sent since the hour of *since*, by event, reason and day."""
        query = (
            "SELECT event_name, reason, hour - hour % 24, sum(events), min(hour), max(hour)"
            " FROM adroll_history WHERE hour >= :since"
            f" AND outcome IN ({_LOST})"
            " GROUP BY event_name, reason, hour - hour % 24"
        )
        rows = self.database.read(lambda tx: tx.rows(query, since=int(since // 3600)))
        return tuple(
            Ended(name, reason, day * 3600, int(events), first * 3600, last * 3600)
            for name, reason, day, events, first, last in rows
        )

    def corrections(self) -> str:
        """A text that changes whenever hours of the history that are over were corrected."""
        return self.database.read(sent_again.mark)

    def open_counts(self, most: int) -> dict[State, int]:
        """Events that are not over, by state, each counted up to *most*."""
        query = (
            "SELECT count(*) FROM (SELECT 1 AS x FROM adroll_event WHERE state = :state"
            " LIMIT :most) AS found"
        )

        def count(tx: Tx) -> dict[State, int]:
            return {
                state: int(one(tx.rows(query, state=NUMBER[state], most=most))) for state in _OPEN
            }

        return self.database.read(count)

    def newest_events(
        self,
        most: int,
        name: str | None = None,
        before: str | None = None,
        *,
        dry_runs: bool = False,
    ) -> tuple[Row, ...]:
        """The newest *most* events, newest first, without their payload.

        :param name: only events of this name, of those that were reported lately.
        :param before: only events that were reported before the one with this id.
        :param dry_runs: only dry runs, likewise.
        """
        older = "" if before is None else " WHERE id < :before"
        values: dict[str, Any] = {"most": most} | ({} if before is None else {"before": before})
        query = f"SELECT {ROW_COLUMNS}, NULL AS payload FROM adroll_event{older} ORDER BY id DESC"
        wanted = ["event_name = :name"] if name is not None else []
        wanted += ["dry_run = 1"] if dry_runs else []
        if wanted:
            values |= {"looked": max(_LOOKED_AT, most)} | ({"name": name} if name else {})
            query = (
                f"SELECT * FROM ({query} LIMIT :looked) AS lately"
                f" WHERE {' AND '.join(wanted)} ORDER BY id DESC"
            )
        query += " LIMIT :most"
        return self.database.read(lambda tx: tuple(map(row_of, tx.rows(query, **values))))
