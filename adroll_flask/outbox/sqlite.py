"""The outbox in a SQLite file, over the standard library's own driver."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from adroll_flask import files
from adroll_flask.forks import PerProcess, at_fork, each, never_collect
from adroll_flask.logs import Logger, get_logger
from adroll_flask.redaction import database_words

from . import schema
from .model import BATCH, OutboxFailed
from .schema import T, Tx

logger: Logger = get_logger("adroll_flask.outbox")

#: Seconds that a transaction waits for other processes to leave the file, or a process for another
#: that makes it.
PATIENCE: Final = 5.0
#: Milliseconds of it that SQLite itself waits each time, and seconds between two tries. Its own
#: wait is a sleep of the thread: under gevent and eventlet all requests of the process would wait.
_OWN_WAIT: Final = 20
_BETWEEN: Final = 0.01
#: Seconds that a fork waits for what is under way in the file.
_FORK_PATIENCE: Final = 1.0
#: Pages of SQLite's log (4 KiB each) after which it is written back into the file, and bytes that
#: the log's file keeps: our own log must not fill a small disk.
_CHECKPOINT: Final = 400
_LOG_BYTES: Final = 2 << 20
#: Pages that one step gives back to the file system, and free ones that a file may keep.
_PAGES: Final = 256
_SPARE_PAGES: Final = 1024
_REASONS: Final = {
    "locked": (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
    "disk_full": (sqlite3.SQLITE_FULL,),
    "read_only": (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM),
    "unavailable": (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR),
    "corrupt": (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB),
    "data": (sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT),
}
_WRITE: Final = "BEGIN IMMEDIATE"
_NAMED: Final = re.compile(r":(\w+)")
#: Of a connection that imports. New rows go anywhere into the indexes, whose pages would else be
#: read again, and written into the file again, with each transaction.
_FOR_MANY: Final = ("PRAGMA cache_size = -32768", "PRAGMA wal_autocheckpoint = 16000")


class _SqliteTx(Tx):
    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection, now: float, kept: float = 0.0) -> None:
        self.connection = connection
        self.now, self.kept = now, now + kept

    def run(self, statement: str, values: dict[str, Any], /) -> sqlite3.Cursor:
        if "ids" in values:
            values["ids"] = json.dumps(values["ids"])
        return self.connection.execute(schema.filled("sqlite", statement), values)

    def many(self, statement: str, values: Sequence[schema.Values], /) -> int:
        if len(values) > BATCH:
            for pragma in _FOR_MANY:
                self.connection.execute(pragma)
        named = schema.filled("sqlite", statement)
        # By position: the driver looks for each name anew for each row.
        names = _NAMED.findall(named)
        rows = map(itemgetter(*names), each(values))
        return self.connection.executemany(_NAMED.sub("?", named), rows).rowcount


class _Process:
    """What one process holds of the file. After a fork, the child has one of its own."""

    def __init__(self) -> None:
        self.lock: threading.RLock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        #: Of the file that is open; ``None``: of none.
        self.inode: tuple[int, int] | None = None

    def hang_up(self) -> None:
        old, self.connection = self.connection, None
        if old is not None:
            old.close()


class SqliteDatabase(schema.Database):
    """In a file.

    One connection with a lock serves all threads: SQLite takes one writer at a time anyway.
    Requests do not come here: they write to the journal.

    :param path: of the file; its folder is made where it is missing.
    :param kept: seconds for which the row of an event that is over is kept.
    """

    dialect = "sqlite"

    def __init__(self, path: Path, *, kept: float, sync: str, clock: Callable[[], float]) -> None:
        self.path = path
        self._kept = kept
        self._clock = clock
        self._sync = "FULL" if sync == "full" else "NORMAL"
        # SQLite allows no inherited connection, not even to close it
        # (https://sqlite.org/howtocorrupt.html, 2.6).
        self._processes = PerProcess(_Process, left=never_collect)
        self._processes.close_with(self, _Process.hang_up)
        self._is_orphan = False
        at_fork(before=self._be_still, in_parent=self._go_on, in_child=self._begin_anew)

    # -- transactions -----------------------------------------------------------------------

    def read(self, function: Callable[[Tx], T], /) -> T:
        return self._work(
            lambda connection: self._in_transaction(connection, function, "BEGIN"), makes=False
        )

    def write(self, function: Callable[[Tx], T], /) -> T:
        return self._work(lambda connection: self._in_transaction(connection, function, _WRITE))

    def _in_transaction(
        self, connection: sqlite3.Connection, function: Callable[[Tx], T], begin: str
    ) -> T:
        connection.execute(begin)
        try:
            result = function(_SqliteTx(connection, self._clock(), self._kept))
            connection.execute("COMMIT")
            return result
        except BaseException:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    def _work(self, function: Callable[[sqlite3.Connection], T], *, makes: bool = True) -> T:
        """Run *function* on the kept connection, again where the file was locked or replaced.

        :param makes: whether to make the file where it is missing; else nothing is in it.
        """
        until, is_again = time.monotonic() + PATIENCE, False
        while True:
            with self._alone_in_process() as process:
                try:
                    connection = process.connection
                    inode = self._inode()
                    is_ours = inode == process.inode and not (makes and inode is None)
                    if connection is None or not is_ours:
                        process.hang_up()
                        connection = self._open(process, makes)
                    return function(connection)
                except sqlite3.Error as exc:
                    reason = reason_of(exc)
                    # SQLite itself does not wait where a file is to keep a log from now on.
                    if reason != "locked" or time.monotonic() > until:
                        if is_again or not self._recover(reason, process):
                            raise OutboxFailed(reason, database_words(exc)) from exc
                        is_again = True
                        process.hang_up()
                except (UnicodeError, OverflowError) as exc:
                    # A value that no statement can hold, as a lone surrogate.
                    raise OutboxFailed("data") from exc
                except OSError as exc:
                    denied = isinstance(exc, PermissionError)
                    raise OutboxFailed("read_only" if denied else "unavailable") from exc
            time.sleep(_BETWEEN)

    @contextmanager
    def _alone_in_process(self) -> Iterator[_Process]:
        process = self._processes.own()
        lock = process.lock
        try:
            if not lock.acquire(timeout=PATIENCE):
                raise OutboxFailed("locked")
            yield process
        finally:
            # A signal's handler may raise just after the lock was taken, and after any other call
            # before this one: so it is given back first and asked whether it was ours.
            try:  # noqa: SIM105 - suppress() would be such a call
                lock.release()
            except RuntimeError:  # another thread has it
                pass

    # -- the file ---------------------------------------------------------------------------

    def has_tables(self) -> bool:
        try:
            with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as connection:
                return _version_in(connection) is not None
        except sqlite3.Error as exc:
            raise OutboxFailed(reason_of(exc), database_words(exc)) from None

    def _inode(self) -> tuple[int, int] | None:
        try:
            stat = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):  # of what may not be looked at, who knows
            return None
        return stat.st_ino, stat.st_dev

    def _open(self, process: _Process, makes: bool) -> sqlite3.Connection:
        if self._is_orphan:
            raise OutboxFailed("unavailable", "forked while its database was in use")
        is_there = self.path.exists()
        if makes and not is_there:
            self._make()
            is_there = True
        process.connection = connection = self._connect(self.path if is_there else ":memory:")
        process.inode = self._inode() if is_there else None
        if not is_there:  # nor has it a version
            connection.execute("DELETE FROM adroll_meta WHERE name = 'schema_version'")
        return connection

    def _connect(self, place: Path | str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            place, timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA synchronous = {self._sync}")
            connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            names = {row[0] for row in found}
            if all(name.startswith(("adroll_", "sqlite_")) for name in names):
                # In the shop's own file the journal mode is the shop's.
                if not names:
                    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("PRAGMA journal_mode = WAL")
            if _version_in(connection) is None:
                self._in_transaction(connection, _make_tables, _WRITE)
            connection.execute(f"PRAGMA busy_timeout = {_OWN_WAIT}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self) -> None:
        """Create an empty file that only its owner may read, once among many processes."""
        files.make_folder(self.path.parent)
        with self._alone():
            if self.path.exists():
                return
            # A log left behind by a deleted database belongs to nobody, but processes that still
            # have the old one open would share its index with us.
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            os.close(files.make_file(self.path, os.O_RDWR | files.BINARY))

    def create_tables(self) -> None:
        self.write(_make_tables)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time makes or replaces the file."""
        flags = os.O_RDWR | files.BINARY | files.NO_FOLLOW
        lock = files.open_file(Path(f"{self.path}.lock"), flags)
        try:
            until = time.monotonic() + PATIENCE
            while not files.hold(lock):
                if time.monotonic() > until:
                    raise OutboxFailed("locked")
                time.sleep(0.002)
            yield
        finally:
            os.close(lock)

    # -- faults -----------------------------------------------------------------------------

    def _recover(self, reason: str, process: _Process) -> bool:
        """True where another try is worth it after *reason*, with the file opened again.

        It may have been moved or emptied under us; a connection that was opened while it was
        read-only stays so. A corrupt file is moved aside, so that a new one takes its place.
        """
        if reason == "corrupt":
            return self._set_aside()
        if reason == "disk_full" and process.connection is not None:
            # What our own log holds of the disk is given back.
            with suppress(sqlite3.Error):
                process.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return reason not in ("locked", "data")

    def _set_aside(self) -> bool:
        try:
            with self._alone():
                if not self._is_corrupt():
                    return True
                moved = f"{self.path}.corrupt-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
                for suffix in ("", "-wal", "-shm"):
                    old = Path(f"{self.path}{suffix}")
                    if old.exists():
                        old.rename(f"{moved}{suffix}")
                os.utime(moved)  # when it was found to be damaged, which findings tell
        except (OSError, OutboxFailed):
            return False
        logger.critical(
            "the outbox's database was corrupt and has been moved to %s; a new one is made. Events"
            " that waited in it are not sent unless they are saved from there. [outbox-corrupt]",
            moved,
        )
        return True

    def _is_corrupt(self) -> bool:
        """Look again, under the lock: another process may have replaced the file meanwhile."""
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as probe:
                return bool(probe.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
        except sqlite3.DatabaseError as exc:
            return reason_of(exc) == "corrupt"

    # -- keeping it small -------------------------------------------------------------------

    def tidy(self) -> int:
        """Write the log back where it has grown, give free pages to the file system; how many."""
        return self._work(self._tidy, makes=False)

    def _tidy(self, connection: sqlite3.Connection) -> int:
        with suppress(FileNotFoundError):
            if Path(f"{self.path}-wal").stat().st_size > _LOG_BYTES:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        def free() -> int:
            return int(connection.execute("PRAGMA freelist_count").fetchone()[0])

        if (before := free()) <= _SPARE_PAGES:
            return 0
        # A plain execute() takes one step of this pragma, which is one page. In the shop's own file
        # it does nothing.
        connection.executescript(f"PRAGMA incremental_vacuum({_PAGES})")
        return before - free()

    # -- processes --------------------------------------------------------------------------

    def close(self) -> None:
        with suppress(OutboxFailed), self._alone_in_process() as process:
            process.hang_up()

    def _be_still(self) -> None:
        """Close the connection and let nobody open one until the fork is over.

        SQLite keeps its locks by process and file: a child that opened the file beside an
        inherited connection would believe itself locked and hold nothing. Seen: another process
        then removes the log under it, and what it commits is lost.
        """
        process = self._processes.own()
        if process.lock.acquire(timeout=_FORK_PATIENCE):
            process.hang_up()

    def _go_on(self) -> None:
        with suppress(RuntimeError):  # another thread has it, which was waited for in vain
            self._processes.own().lock.release()

    def _begin_anew(self) -> None:
        # A child of a process that had the file open can never open it safely; its events stay in
        # the journal, which another process reads.
        inherited = self._processes.made()
        if any(other.connection is not None for other in inherited):
            self._is_orphan = True
        if self._is_orphan:  # a child of an orphan is one too
            logger.error(
                "forked while the outbox's database was in use; others deliver for it "
                "[forked-in-use]"
            )
        self._processes.own()


def _make_tables(tx: Tx) -> None:
    schema.make(tx.rows, "sqlite")


def _version_in(connection: sqlite3.Connection) -> int | None:
    return schema.version_in(_SqliteTx(connection, 0.0).rows, "sqlite")


def reason_of(exc: BaseException) -> str:
    """The name of what SQLite complains of."""
    code = (getattr(exc, "sqlite_errorcode", None) or 0) & 0xFF  # the primary one
    return next((reason for reason, codes in _REASONS.items() if code in codes), "error")
