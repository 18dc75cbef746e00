"""One process's connection to a SQLite file, and one transaction on it."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from adroll_flask.forks import never_collect

from .database import Values
from .dialect import FRAGMENTS
from .giving_way import each
from .record_format import BATCH
from .schema import Run

#: Of a file that is not there.
NO_INODE: Final = (0, 0)
#: Bytes of SQLite's log beyond which it is written back into the file.
_LOG_BYTES: Final = 2 << 20
#: Pages that one step gives back to the file system.
_PAGES: Final = 256
#: Free pages that a file may keep for what comes next.
_SPARE_PAGES: Final = 1024
_FRAGMENTS: Final = FRAGMENTS["sqlite"]
_NAMED: Final = re.compile(r":(\w+)")
#: Of a connection that imports. New rows go anywhere into the indexes, whose pages would else be
#: read again, and written into the file again, with each transaction.
_FOR_MANY: Final = ("PRAGMA cache_size = -32768", "PRAGMA wal_autocheckpoint = 16000")


class SqliteTx:
    """See :class:`~.database.Tx`."""

    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection, now: float, known: dict[str, str]) -> None:
        self.connection = connection
        self.now = now
        self._known = known

    def _run(self, statement: str, values: dict[str, Any]) -> sqlite3.Cursor:
        filled = self._filled(statement)
        if "ids" in values:
            values["ids"] = json.dumps(values["ids"])
        return self.connection.execute(filled, values)

    def _filled(self, statement: str) -> str:
        filled = self._known.get(statement)
        if filled is None:
            filled = self._known[statement] = statement.format_map(_FRAGMENTS)
        return filled

    def execute(self, statement: str, /, **values: Any) -> int:
        return self._run(statement, values).rowcount

    def many(self, statement: str, values: Sequence[Values], /) -> int:
        if len(values) > BATCH:
            for pragma in _FOR_MANY:
                self.connection.execute(pragma)
        filled = self._filled(statement)
        # By position: the driver looks for each name anew for each row.
        names = _NAMED.findall(filled)
        rows = map(itemgetter(*names), each(values))
        return self.connection.executemany(_NAMED.sub("?", filled), rows).rowcount

    def rows(self, statement: str, /, **values: Any) -> list[Any]:
        return self._run(statement, values).fetchall()


class Process:
    """What one process holds of the file. After a fork, the child has one of its own."""

    def __init__(self) -> None:
        self.pid: int = os.getpid()
        self.lock: threading.RLock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.inode: tuple[int, int] = NO_INODE
        #: Nothing is open, for as long as a fork takes.
        self.still: bool = False
        #: Closes the connection when an app is dropped: Python 3.13 warns of one collected open.
        self._closer: weakref.finalize[..., Process] | None = None

    def hold(self, connection: sqlite3.Connection, inode: tuple[int, int]) -> None:
        self.connection, self.inode = connection, inode
        self._closer = weakref.finalize(self, _close, connection, self.pid)
        self._closer.atexit = False

    def hang_up(self) -> None:
        old, self.connection = self.connection, None
        if self._closer is not None:
            self._closer.detach()
        if old is not None:
            old.close()


def _close(connection: sqlite3.Connection, pid: int) -> None:
    if pid == os.getpid():
        connection.close()
    else:
        never_collect(connection)


def runner(connection: sqlite3.Connection) -> Run:
    """What :mod:`.schema` runs statements with."""
    return lambda statement, values: connection.execute(statement, values).fetchall()


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    """The value of one of SQLite's pragmas, a number."""
    rows = connection.execute(f"PRAGMA {name}").fetchall()
    return int(rows[0][0]) if rows else 0


def tidy(connection: sqlite3.Connection, path: Path) -> int:
    """Write the log back where it has grown, give free pages to the file system; how many."""
    with suppress(FileNotFoundError):
        if Path(f"{path}-wal").stat().st_size > _LOG_BYTES:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    if _pragma(connection, "auto_vacuum") != 2:  # incremental, as we make it
        return 0
    free = _pragma(connection, "freelist_count")
    if free <= max(_SPARE_PAGES, _pragma(connection, "page_count") // 4):
        return 0
    # A plain execute() takes one step of this pragma, which is one page.
    connection.executescript(f"PRAGMA incremental_vacuum({_PAGES})")
    return min(_PAGES, free)


def reason_of(exc: BaseException) -> str:
    """The name of what SQLite complains of."""
    code = getattr(exc, "sqlite_errorcode", None)
    primary = 0 if code is None else code & 0xFF
    return {
        sqlite3.SQLITE_BUSY: "locked",
        sqlite3.SQLITE_LOCKED: "locked",
        sqlite3.SQLITE_FULL: "disk_full",
        sqlite3.SQLITE_READONLY: "read_only",
        sqlite3.SQLITE_PERM: "read_only",
        sqlite3.SQLITE_CANTOPEN: "unavailable",
        sqlite3.SQLITE_IOERR: "unavailable",
        sqlite3.SQLITE_CORRUPT: "corrupt",
        sqlite3.SQLITE_NOTADB: "corrupt",
        sqlite3.SQLITE_MISMATCH: "data",
        sqlite3.SQLITE_TOOBIG: "data",
        sqlite3.SQLITE_CONSTRAINT: "data",
    }.get(primary, "error")
