"""Cleaning in small steps, beside the work."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import delete, literal_column, select

from .sqlite import SqliteFile
from .states import DAY, DEAD, DELIVERED
from .store import Store, Tx
from .tally import remove_old_tally

_STEP: Final = 500
#: Seconds between two looks at tallies and held intervals.
_RECORDS_EVERY: Final = 600.0
#: Bytes of SQLite's log beyond which it is written back into the file.
_LOG_BYTES: Final = 2 << 20
#: Pages that one step gives back to the file system.
_PAGES: Final = 256
#: Free pages that a file may keep for what comes next.
_SPARE_PAGES: Final = 1024


@dataclass(slots=True)
class Housekeeping:
    """Removes rows whose time has come; keeps SQLite's file and log small."""

    store: Store
    _records_at: float = float("-inf")

    def housekeep(self) -> int:
        """See :meth:`Outbox.housekeep`."""
        removed = self._remove(DELIVERED) + self._remove(DEAD)
        if time.monotonic() >= self._records_at:
            self.store.write(self._remove_records)
            self._records_at = time.monotonic() + _RECORDS_EVERY
        if self.store.file is not None:
            self._write_back(self.store.file)
            removed += self._give_back(self.store.file)
        return removed

    def _remove(self, state: int) -> int:
        event = self.store.event.c
        place = self.store.place
        gone = (
            select(place)
            .where(event.state == literal_column(str(state)))
            .order_by(event.due_at)
            .limit(_STEP)
        )

        def look(tx: Tx) -> bool:
            return (
                tx.connection.execute(gone.where(event.due_at <= tx.now).limit(1)).first()
                is not None
            )

        def remove(tx: Tx) -> int:
            found = gone.where(event.due_at <= tx.now).with_for_update(skip_locked=True)
            places = tx.connection.scalars(found).all()
            if not places:
                return 0
            these = delete(self.store.event).where(place.in_(places))
            return int(tx.connection.execute(these).rowcount)

        return self.store.write(remove) if self.store.read(look) else 0

    def _remove_records(self, tx: Tx) -> None:
        remove_old_tally(self.store, tx)
        hold = self.store.tables.hold
        tx.connection.execute(delete(hold).where(hold.c.ended_at < tx.now - 400 * DAY))

    def _write_back(self, file: SqliteFile) -> None:
        """Checkpoint here, so that no request does; others read and write meanwhile."""
        log = Path(f"{file.path}-wal")
        try:
            if log.stat().st_size < _LOG_BYTES:
                return
        except FileNotFoundError:
            return
        with file.beside(), closing(self.store.engine().raw_connection()) as connection:
            _pragma(connection.cursor(), "wal_checkpoint(PASSIVE)")

    def _give_back(self, file: SqliteFile) -> int:
        """Give free pages back to the file system; returns how many pages beyond the spare."""
        with file.beside(), closing(self.store.engine().raw_connection()) as connection:
            cursor = connection.cursor()
            if _pragma(cursor, "auto_vacuum") != 2:  # incremental, as we make it
                return 0
            free = _pragma(cursor, "freelist_count")
            if free <= max(_SPARE_PAGES, _pragma(cursor, "page_count") // 4):
                return 0
            with file.exclusively():
                # A plain execute() takes one step of this pragma, which is one page.
                raw: Any = connection.driver_connection
                raw.executescript(f"PRAGMA incremental_vacuum({_PAGES})")
            return min(_PAGES, free)


def _pragma(cursor: Any, name: str) -> int:
    cursor.execute(f"PRAGMA {name}")
    rows = cursor.fetchall()
    return int(rows[0][0]) if rows else 0
