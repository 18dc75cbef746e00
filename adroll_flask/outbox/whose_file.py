"""Whose a SQLite file is: which may be moved aside, cut or given a log of its own.

Only one whose head says that we made it, and that holds nothing but our tables. Every other file is
the shop's own database or, by a slip in ``ADROLL_OUTBOX_URL``, somebody else's: it stays as it is.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from . import schema

#: Seconds that a look waits for a lock of other processes.
_PATIENCE: Final = 5.0
#: In the head of a file that we made (https://sqlite.org/fileformat2.html#application_id): "AdRl".
APPLICATION_ID: Final = 0x4164526C


def is_made_by_us(path: Path) -> bool:
    """Whether the head of the file at *path* says that we made it, and all its tables are ours.

    To look changes nothing. Only SQLite opens the file: if we opened and closed it ourselves, a
    thread of this process that has it open would lose its locks
    (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    try:
        with closing(connect_to_read(path)) as connection:
            return is_ours_alone(connection)
    except sqlite3.Error:
        return False


def connect_to_read(path: Path) -> sqlite3.Connection:
    # Not "ro": such a connection makes files beside one that has a log, and leaves them behind.
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_PATIENCE)


def is_ours_alone(connection: sqlite3.Connection) -> bool:
    [made_by] = connection.execute("PRAGMA application_id").fetchone()
    names = (row[0] for row in connection.execute("SELECT name FROM sqlite_master"))
    return made_by == APPLICATION_ID and all(n.startswith(("adroll_", "sqlite_")) for n in names)


def is_new(connection: sqlite3.Connection) -> bool:
    """Whether the file is empty, and its head does not name a program that made it."""
    looks = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    return not any(connection.execute(look).fetchone()[0] for look in looks)


def look_over(connection: sqlite3.Connection) -> None:
    """Read our tables in somebody else's file before anything is written there.

    :raises sqlite3.DatabaseError: one of them is damaged.
    """
    for table in schema.TABLES:
        # SQLite checks a single table from 3.33 on. Before, it checks the whole file.
        for row in connection.execute(f"PRAGMA quick_check({table})"):
            if row[0] != "ok":
                damage = sqlite3.DatabaseError(f"{table} is damaged")
                damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damage
