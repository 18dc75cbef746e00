"""The one statement of the hot path: a report on SQLite pays for one ``INSERT``.

Nothing here imports SQLAlchemy.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from .bound import Bound
from .process import Process
from .protocol import NewEvent, OutboxFailed, Put
from .sqlite import PATIENCE, Naps, SqliteFile, reason_of
from .states import DEAD, PAYLOAD_BYTES, PLACES, ROW_BYTES, WAITING, clean_key, next_id, seq_of

#: What may lie in the log and not yet in the file.
_LOG_BYTES: Final = 32 << 20

_INSERT: Final = (
    "INSERT INTO adroll_event (seq, id, state, event_name, advertisable_eid, dry_run, dedupe_key,"
    " digest, payload, occurred_at, queued_at, due_at) VALUES (?,?,0,?,?,?,?,?,?,?,?,?)"
    " ON CONFLICT DO NOTHING"
)
_INSERT_DEAD: Final = (
    "INSERT INTO adroll_event (seq, id, state, event_name, advertisable_eid, dry_run, payload,"
    " occurred_at, queued_at, due_at, error, reason, settled_at) VALUES (?,?,4,?,?,?,?,?,?,?,?,?,?)"
    " ON CONFLICT DO NOTHING"
)
_SAME_KEY: Final = (
    "SELECT id, digest FROM adroll_event WHERE advertisable_eid = ? AND dry_run = ?"
    " AND event_name = ? AND dedupe_key = ?"
)


class _Changed(Exception):
    """The file is not the one that was opened, or not a whole one; open it again."""


class Intake(SqliteFile):
    """A SQLite file that takes events.

    One connection with a lock serves all threads: SQLite takes one writer at a time anyway, and a
    lock wakes the next thread at once where SQLite's own waiting sleeps for whole milliseconds.

    :param path: of the file; its folder is made where it is missing.
    :param sync: ``"normal"`` or ``"full"``.
    :param max_bytes: of events that wait; 0: no bound.
    """

    def __init__(self, path: Path, *, sync: str, max_bytes: int) -> None:
        super().__init__(path, sync=sync)
        self._bound = Bound()
        self._max_bytes = max_bytes or 1 << 62

    def put(self, event: NewEvent, now: float) -> Put:
        """Commit one event.

        :raises OutboxFailed: the file did not take it within :data:`PATIENCE` seconds.
        """
        key = event.key
        if key is not None:
            key = clean_key(key)
        return self._do(
            _INSERT,
            event,
            key,
            (
                event.name,
                event.advertisable_eid,
                event.dry_run,
                key,
                event.digest,
                event.payload,
                event.occurred_at,
                now,
                now,
            ),
            self._max_bytes,
        )

    def put_dead(self, event: NewEvent, reason: str, error: str, now: float, due: float) -> Put:
        """Commit one dead letter without a key."""
        return self._do(
            _INSERT_DEAD,
            event,
            None,
            (
                event.name,
                event.advertisable_eid,
                event.dry_run,
                event.payload,
                event.occurred_at,
                now,
                due,
                error,
                reason,
                now,
            ),
            # A flood of bad events must not shut good ones out.
            self._max_bytes // 2,
        )

    def _do(
        self,
        statement: str,
        event: NewEvent,
        key: str | None,
        values: tuple[object, ...],
        most: int,
    ) -> Put:
        """Insert on the kept connection under the lock, into a new file if need be."""
        if len(event.payload) > PAYLOAD_BYTES:
            raise OutboxFailed("too_large")
        process = self._process
        if process.pid != os.getpid():
            process = self.renew()
        naps = None
        if not process.lock.acquire(blocking=False):
            naps = Naps(PATIENCE)  # what is spent on one thing is not spent again on another
            if not process.lock.acquire(timeout=PATIENCE):
                raise OutboxFailed("locked")
        try:
            return self._do_locked(process, statement, event, key, values, most, naps)
        finally:
            process.lock.release()

    def _do_locked(
        self,
        process: Process,
        statement: str,
        event: NewEvent,
        key: str | None,
        values: tuple[object, ...],
        most: int,
        naps: Naps | None,
    ) -> Put:
        last = False
        while True:
            try:
                stat = os.stat(self._name)
                cursor = process.cursor
                if cursor is None or (stat.st_ino, stat.st_dev) != process.inode:
                    raise _Changed
                if stat.st_size + _LOG_BYTES > most:
                    self._check_bound(cursor, len(event.payload), most)
                id = event.id
                cursor.execute(statement, (seq_of(id), id, *values))
                if cursor.rowcount:
                    return Put("queued", id)
                return self._conflict(cursor, statement, event, key, values)
            except (FileNotFoundError, _Changed):
                if last:
                    raise OutboxFailed("unavailable", "the file is being replaced") from None
                naps = naps or Naps(PATIENCE)
                self.reopen(process, naps.left)
                last = True
            except sqlite3.Error as exc:
                naps = naps or Naps(PATIENCE)
                if reason_of(exc) == "locked" and naps.nap():
                    continue
                if last or not self.recover(exc):
                    raise OutboxFailed(reason_of(exc)) from exc
                self.reopen(process, naps.left)
                last = True
            except OSError as exc:
                raise OutboxFailed("unavailable") from exc

    def _conflict(
        self,
        cursor: sqlite3.Cursor,
        statement: str,
        event: NewEvent,
        key: str | None,
        values: tuple[object, ...],
    ) -> Put:
        """The same event, the same key, or another event in this one's place."""
        if key is not None:
            found = cursor.execute(
                _SAME_KEY, (event.advertisable_eid, event.dry_run, event.name, key)
            ).fetchone()
            if found is not None:
                if found[0] == event.id:
                    return Put("queued", event.id)
                return Put("duplicate", found[0], same=found[1] == event.digest)
        id = event.id
        for _ in range(PLACES):
            found = cursor.execute(
                "SELECT id FROM adroll_event WHERE seq = ?", (seq_of(id),)
            ).fetchone()
            if found is not None and found[0] == id:
                return Put("queued", id)
            id = next_id(id)
            if cursor.execute(statement, (seq_of(id), id, *values)).rowcount:
                return Put("queued", id)
        raise OutboxFailed("error", "no place for the event")

    def _check_bound(self, cursor: sqlite3.Cursor, size: int, most: int) -> None:
        # Only now is it worth counting: a file below the bound cannot hold more than it.
        if not self._bound.allows(size + ROW_BYTES, lambda: _measure(cursor), most):
            raise OutboxFailed("full")


def _measure(connection: sqlite3.Cursor) -> int:
    """Bytes of the events that wait or are dead, from their number and the newest hundred."""
    total = 0.0
    for state in (WAITING, DEAD):
        count = connection.execute(
            "SELECT count(*) FROM adroll_event WHERE state = ?", (state,)
        ).fetchone()[0]
        if count:
            mean = connection.execute(
                "SELECT avg(length(payload)) FROM (SELECT payload FROM adroll_event"
                " WHERE state = ? ORDER BY due_at DESC LIMIT 100)",
                (state,),
            ).fetchone()[0]
            total += count * ((mean or 0) + ROW_BYTES)
    return int(total)
