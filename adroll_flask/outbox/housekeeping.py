"""What is done with an outbox now and then: old rows go, holds that ended are settled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import history, restored
from .database import Database, Tx
from .holds import Holds
from .ingest import Ingest
from .states import CANCELLED, DAY, DEAD, DELIVERED, HELD

_STEP: Final = 500
#: Seconds between two looks at history and held intervals.
_RECORDS_EVERY: Final = 600.0


@dataclass(slots=True)
class Housekeeping:
    """Keeps an outbox small, in small steps; see :class:`.protocol.Housekeeping`.

    :param dedupe_days: days that the key of a delivered event is kept.
    :param finish_file: finishes this process's journal file where it is old enough.
    """

    database: Database
    ingest: Ingest
    holds: Holds
    dedupe_days: int
    finish_file: Callable[[], None]
    _records_at: float = float("-inf")

    def step(self) -> int:
        """Do one step; how many rows went (0: nothing left to do)."""
        removed = sum(map(self._remove, (DELIVERED, DEAD, CANCELLED)))
        self._look_after_holds()
        if time.monotonic() >= self._records_at:
            self.database.write(_remove_records)
            while self.database.write(self.holds.sweep) >= _STEP:
                pass
            self._records_at = time.monotonic() + _RECORDS_EVERY
        removed += self.database.tidy()
        self.ingest.note_usage()
        self.finish_file()
        return removed

    def backup(self, target: Path) -> None:
        """See :meth:`.protocol.Housekeeping.backup`."""
        from .sqlite import SqliteDatabase

        database = self.database
        if not isinstance(database, SqliteDatabase):
            raise NotImplementedError(f"{database.dialect}: a server has tools of its own for it")
        self.ingest.take_in_all()
        database.backup(target)

    def lay_to_rest(self) -> int:
        """See :meth:`.protocol.Housekeeping.lay_to_rest`."""
        return self.database.write(lambda tx: restored.lay_to_rest(tx, self.dedupe_days))

    def create_tables(self) -> None:
        """See :meth:`.protocol.Housekeeping.create_tables`."""
        self.database.create_tables()

    def _look_after_holds(self) -> None:
        def over(tx: Tx) -> bool:
            ended = f"SELECT 1 FROM adroll_event WHERE state = {HELD} AND due_at <= :now LIMIT 1"
            unused = "SELECT 1 FROM adroll_verdict WHERE kept_at <= :before LIMIT 1"
            return (
                bool(tx.rows(ended, now=tx.now))
                or bool(tx.rows(unused, before=tx.now - self.holds.longest))
                or self.holds.pending(tx)
            )

        def settle(tx: Tx) -> int:
            # What was decided first: a release that came in time counts.
            return self.holds.sweep(tx) + self.holds.expire(tx) + self.holds.forget(tx)

        while self.database.read(over):
            if not self.database.write(settle):
                return  # others are at it

    def _remove(self, state: int) -> int:
        gone = (
            f"SELECT id FROM adroll_event WHERE state = {state} AND due_at <= :now"
            " ORDER BY due_at LIMIT :most "
        )

        def remove(tx: Tx) -> int:
            rows = tx.rows(gone + "{skip_locked}", now=tx.now, most=_STEP)
            if not rows:
                return 0
            return tx.execute(
                "DELETE FROM adroll_event WHERE id {in_ids}", ids=[row[0] for row in rows]
            )

        there = self.database.read(lambda tx: tx.rows(gone, now=tx.now, most=1))
        return self.database.write(remove) if there else 0


def _remove_records(tx: Tx) -> None:
    history.remove_old(tx)
    for statement in (
        "DELETE FROM adroll_hold WHERE ended_at < :hold",
        "DELETE FROM adroll_withdrawal WHERE forget_at < :now",
        "DELETE FROM adroll_suppressed WHERE forget_at < :now",
        # Of files that are gone with their host; a file's last position is known for long enough.
        "DELETE FROM adroll_journal WHERE read_at < :hold",
    ):
        now = {"hold": tx.now - 400 * DAY} if ":hold" in statement else {"now": tx.now}
        tx.execute(statement, **now)
