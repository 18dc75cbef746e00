"""The outbox in a SQLite file, over the standard library's own driver.

The file may be the shop's own database, or somebody else's by a slip in the URL: :mod:`.whose_file`
tells. We use a file that is not ours alone as any other program would. If that fails, we leave the
file as it is.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from adroll_flask.forks import PerProcess, at_fork
from adroll_flask.logs import Logger, get_logger
from adroll_flask.redaction import database_words

from . import local_files, schema, whose_file
from .location import FILE
from .model import ForeignFile, OutboxFailed
from .schema import T, Tx

logger: Logger = get_logger("adroll_flask.outbox")

#: Seconds that a transaction waits for a lock of other processes. A process waits as long for
#: another one that makes the file.
PATIENCE: Final = 5.0
#: Milliseconds that SQLite itself waits in each try. It sleeps in the thread: under gevent and
#: eventlet all requests of the process wait with it.
_OWN_WAIT: Final = 20
#: Seconds between two tries.
_BETWEEN: Final = 0.01
#: Seconds that a fork waits for what is under way in the file.
_FORK_PATIENCE: Final = 1.0
#: Pages (4 KiB each) that SQLite's log has when it is written back into the database's file.
_CHECKPOINT: Final = 400
#: Bytes to which the log's file is then cut: our log must not fill a small disk.
_LOG_BYTES: Final = 2 << 20
#: Seconds between two attempts to empty the log. Until it is emptied, it holds events as they were
#: before they were erased or delivered.
_EMPTY_EVERY: Final = 3.0
_REASONS: Final = {
    "locked": (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
    "disk_full": (sqlite3.SQLITE_FULL,),
    "read_only": (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM),
    "unavailable": (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR),
    "corrupt": (sqlite3.SQLITE_CORRUPT,),
    "foreign": (sqlite3.SQLITE_NOTADB,),
    "data": (sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT),
}
#: What is wrong with a file that is not ours to change, by the variant of the finding.
_FOREIGN: Final = {
    "": "names a file that is damaged",
    "no-database": "names a file that is no SQLite database",
    "log": "names a file that is not there, while its log is",
}
_WRITE: Final = "BEGIN IMMEDIATE"
#: Bytes of the smallest database. SQLite believes that a shorter file is new, and writes over it.
_SMALLEST: Final = 512
#: The ends of the names of files that SQLite keeps beside a database. Where the database is missing
#: SQLite deletes them: a restore that is under way would then lack the last commits.
_BESIDE: Final = ("-wal", "-shm", "-journal")
_NAMED: Final = re.compile(r":(\w+)")


class _SqliteTx(Tx):
    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection, now: float, kept: float = 0.0) -> None:
        self.connection = connection
        self.now = now
        self.kept_until = now + kept

    def run(self, statement: str, values: dict[str, Any], /) -> sqlite3.Cursor:
        if "ids" in values:
            values["ids"] = json.dumps(values["ids"])
        return self.connection.execute(schema.filled("sqlite", statement), values)

    # SQLite counts itself. A cursor's rowcount is -1 for each INSERT in a Turkish locale: Python up
    # to 3.12 looks for the word by the locale's letters, where "I" is no capital of "i".

    def execute(self, statement: str, /, **values: Any) -> int:
        before = self.connection.total_changes
        self.run(statement, {"now": self.now} | values)
        return self.connection.total_changes - before

    def many(self, statement: str, values: Sequence[schema.Values], /) -> int:
        named = schema.filled("sqlite", statement)
        # Values go by position: with names, the driver would look up each name for each row.
        names = _NAMED.findall(named)
        rows = map(itemgetter(*names), values)
        before = self.connection.total_changes
        self.connection.executemany(_NAMED.sub("?", named), rows)
        return self.connection.total_changes - before


class _OfProcess:
    """What one process holds of the file. After a fork, the child has one of its own."""

    def __init__(self) -> None:
        self.lock: threading.RLock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        #: The inode of the file that is open; ``None``: no file is.
        self.inode: tuple[int, int] | None = None
        #: Whether the file that was open last was ours alone.
        self.was_ours = False
        #: Whether a text was met that is not UTF-8: a fault of the disk that SQLite overlooks.
        self.has_damaged_text = False

    def open_connection(self, path: Path) -> sqlite3.Connection:
        """A connection to the file at *path*, which Python never closes by itself.

        SQLite forbids a forked child to use its parent's connection, and even to close it
        (https://sqlite.org/howtocorrupt.html, 2.6), as Python does with what nobody refers to.
        Closed amid a write of the parent's, without WAL, it removes the parent's journal, and the
        parent's commit fails. Only CPython counts references; msgspec runs on no other.
        """
        self.connection = connection = sqlite3.connect(
            path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        return connection

    def close_connection(self) -> None:
        old = self.connection
        self.connection = None
        if old is not None:
            old.close()
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(old))


class SqliteDatabase(schema.Database):
    """The outbox's database in a SQLite file.

    One connection with a lock serves all threads: SQLite takes one writer at a time anyway.
    Requests do not come here: they write to the journal.

    :param path: the file's path. Its folder is made where it is missing.
    :param kept: seconds for which the row of a finished event is kept.
    """

    dialect = "sqlite"

    def __init__(self, path: Path, *, kept: float, sync: str, clock: Callable[[], float]) -> None:
        self.path = path
        self._kept = kept
        self._clock = clock
        self._sync = "FULL" if sync == "full" else "NORMAL"
        self._processes = PerProcess(_OfProcess)
        self._processes.close_with(self, _OfProcess.close_connection)
        #: The variant of the last error that was logged since the file was opened.
        self._logged: str | None = None
        self._empty_at = float("-inf")
        at_fork(before=self._be_still, in_parent=self._go_on)

    # -- transactions -----------------------------------------------------------------------

    def read(self, function: Callable[[Tx], T], /) -> T:
        try:
            is_missing = self._inode() is None
        except OSError:  # the file may be there; its opening below raises what is wrong
            is_missing = False
        if is_missing:
            return self._read_nothing(function)
        return self._work(lambda connection: self._in_transaction(connection, function, "BEGIN"))

    def _read_nothing(self, function: Callable[[Tx], T]) -> T:
        """What *function* reads of an empty database, which is in memory.

        This process's lock is needed all the same, since a fork waits for it. SQLite itself has
        locks for the whole process. If a thread of the parent had one of them during a fork, the
        child would wait for it for ever.
        """
        with (
            self._alone_in_process(),
            closing(sqlite3.connect(":memory:", isolation_level=None)) as nothing,
        ):
            schema.make(_SqliteTx(nothing, 0.0).rows, "sqlite")
            nothing.execute("DELETE FROM adroll_meta")  # it has no id and no version, either
            return self._in_transaction(nothing, function, "BEGIN")

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

    def _work(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run *function* on the kept connection, or on a new one if the file was replaced.

        While the file is locked, it tries again until :data:`PATIENCE` is over. After another error
        it tries once more, if :meth:`_recover` says that this may help.
        """
        until = time.monotonic() + PATIENCE
        may_recover = True
        while True:
            with self._alone_in_process() as process:
                try:
                    return function(self._current_connection(process))
                except sqlite3.Error as exc:
                    reason = reason_of_sqlite(exc)
                    # SQLite itself waits only shortly, and for journal_mode = WAL not at all.
                    if reason != "locked" or time.monotonic() > until:
                        self._tell_of_damaged_text(exc, process)
                        if not may_recover or not self._recover(reason, process):
                            raise self._failure(exc) from exc
                        may_recover = False
                        process.close_connection()
                except (UnicodeError, OverflowError) as exc:
                    # A value that no statement can hold, such as a lone surrogate.
                    raise OutboxFailed("data") from exc
                except OSError as exc:
                    denied = isinstance(exc, PermissionError)
                    raise OutboxFailed("read_only" if denied else "unavailable") from exc
            time.sleep(_BETWEEN)

    def _current_connection(self, process: _OfProcess) -> sqlite3.Connection:
        """The connection that is open, or a new one where the file was replaced or removed."""
        connection = process.connection
        inode = self._inode()
        if connection is not None and inode is not None and inode == process.inode:
            return connection
        process.close_connection()
        return self._open(process)

    def _tell_of_damaged_text(self, problem: sqlite3.Error, process: _OfProcess) -> None:
        """Log a text that is not UTF-8, and let the next connection read it as far as it can."""
        if str(problem).startswith("Could not decode to UTF-8"):
            process.has_damaged_text = True
            logger.critical(
                "AdRoll: a text in the outbox's database is damaged, as by a faulty disk: %s; it "
                "is read as far as it can be [outbox-text-damaged]",
                self.path,
            )

    @contextmanager
    def _alone_in_process(self) -> Iterator[_OfProcess]:
        process = self._processes.own()
        lock = process.lock
        try:
            if not lock.acquire(timeout=PATIENCE):
                raise OutboxFailed("locked")
            yield process
        finally:
            # A signal's handler may raise after any call, also just after the lock was taken. So
            # the first thing here is the one call that releases the lock. It raises if this thread
            # does not have it.
            try:  # noqa: SIM105 - suppress() would be one more call
                lock.release()
            except RuntimeError:
                pass

    # -- the file ---------------------------------------------------------------------------

    def is_ready(self) -> bool:
        try:
            self._refuse_too_short()
            with (
                self._alone_in_process(),
                closing(whose_file.connect_to_read(self.path)) as connection,
            ):
                if not _has_our_tables(connection):
                    return False
                if not whose_file.is_ours_alone(connection):
                    whose_file.look_over(connection)
        except sqlite3.Error as exc:
            raise self._failure(exc) from None
        with suppress(schema.TakenBack):
            self.write(schema.try_rights)
        return True

    def _inode(self) -> tuple[int, int] | None:
        try:
            stat = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):  # after another error it may be there
            return None
        return stat.st_ino, stat.st_dev

    def _open(self, process: _OfProcess) -> sqlite3.Connection:
        # The child of a process that had the file open at the fork can never open it safely, nor
        # can that one's children. Their events stay in the journal, which another process reads.
        if any(other.connection is not None for other in self._processes.inherited()):
            if self._logged != "forked":
                self._logged = "forked"
                logger.error(
                    "forked while the outbox's database was in use; others deliver for it "
                    "[forked-in-use]"
                )
            raise OutboxFailed("unavailable", "forked while its database was in use")
        if self.path.exists():
            self._refuse_too_short()
        else:
            self._make(process)
        connection = self._connect(process)
        process.inode = self._inode()
        self._logged = None
        return connection

    def _refuse_too_short(self) -> None:
        """Refuse a file that is too short for a database. SQLite itself would write over it.

        :raises ForeignFile: the file is too short, and not empty.
        """
        if 0 < self.path.stat().st_size < _SMALLEST:
            raise self._foreign("no-database")

    def _connect(self, process: _OfProcess) -> sqlite3.Connection:
        connection = process.open_connection(self.path)
        if process.has_damaged_text:
            # Otherwise one damaged text would keep all events from being sent.
            connection.text_factory = partial(str, encoding="utf-8", errors="replace")
        try:
            connection.execute(f"PRAGMA synchronous = {self._sync}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
            # What this connection deletes is overwritten with zeros.
            connection.execute("PRAGMA secure_delete = ON")
            if not _has_our_tables(connection):
                self._in_transaction(connection, _make_tables, _WRITE)
            process.was_ours = whose_file.is_ours_alone(connection)
            if process.was_ours:
                connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
                connection.execute("PRAGMA journal_mode = WAL")
            else:
                whose_file.look_over(connection)
            connection.execute(f"PRAGMA busy_timeout = {_OWN_WAIT}")
        except BaseException:
            process.close_connection()
            raise
        return connection

    def _make(self, process: _OfProcess) -> None:
        """Create an empty file that only its owner may read. Of many processes, one does it.

        :raises ForeignFile: the database is missing, while its log is there and is not ours.
        """
        local_files.make_folder(self.path.parent)
        beside = [Path(f"{self.path}{suffix}") for suffix in _BESIDE]
        with self._alone_on_host():
            if self.path.exists():
                return
            # The log of a database of ours that somebody deleted is of no use. If it stayed, we
            # would share its index with processes that still have the old database open.
            is_ours = process.was_ours or self.path.name == FILE
            if not is_ours and any(path.exists() for path in beside):
                raise self._foreign("log")
            for path in beside:
                path.unlink(missing_ok=True)
            os.close(local_files.make_file(self.path, os.O_RDWR | local_files.FLAGS))

    def create_tables(self) -> None:
        self.write(_make_tables)

    @contextmanager
    def _alone_on_host(self) -> Iterator[None]:
        """Keep other processes from making or replacing the file meanwhile."""
        flags = os.O_RDWR | local_files.FLAGS
        lock = local_files.open_file(Path(f"{self.path}-adroll.lock"), flags)
        try:
            until = time.monotonic() + PATIENCE
            while not local_files.hold(lock):
                if time.monotonic() > until:
                    raise OutboxFailed("locked")
                time.sleep(0.002)
            yield
        finally:
            os.close(lock)

    # -- faults -----------------------------------------------------------------------------

    def _recover(self, reason: str, process: _OfProcess) -> bool:
        """Prepare another try after *reason*; ``False``: another try does not help.

        The next try opens the file again: it may have been moved or emptied while it was open, and
        a connection that was opened while the file was read-only stays read-only. A corrupt file of
        ours is moved aside, so that a new one takes its place. Opening checks somebody else's file
        for damage.
        """
        if reason == "corrupt":
            process.close_connection()
            is_ours = whose_file.is_made_by_us(self.path)
            return self._set_aside() if is_ours else True
        if reason == "disk_full" and process.connection is not None:
            # To empty our log makes room on the disk.
            with suppress(sqlite3.Error):
                _write_log_back(process.connection, process.was_ours)
        return reason not in ("locked", "data")

    def _failure(self, exc: sqlite3.Error) -> OutboxFailed:
        reason = reason_of_sqlite(exc)
        if reason == "foreign":
            return self._foreign("no-database")
        words = database_words(exc)
        if reason == "corrupt" and not whose_file.is_made_by_us(self.path):
            return self._foreign("", f" ({words})")
        return OutboxFailed(reason, words)

    def _foreign(self, variant: str, why: str = "") -> ForeignFile:
        """The error for a file that we may not move or replace. It is logged once."""
        failure = ForeignFile(variant, f"{_FOREIGN[variant]}{why}: {self.path}")
        if self._logged != variant:
            self._logged = variant
            logger.critical("%s; it is left as it is [outbox-foreign]", failure)
        return failure

    def _set_aside(self) -> bool:
        try:
            with self._alone_on_host():
                if not self._is_corrupt():
                    return True
                moved = f"{self.path}.corrupt-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
                for suffix in ("", *_BESIDE):
                    old = Path(f"{self.path}{suffix}")
                    if old.exists():
                        old.rename(f"{moved}{suffix}")
                os.utime(moved)  # by this time findings tell when the damage was found
        except (OSError, OutboxFailed):
            return False
        logger.critical(
            "the outbox's database was corrupt and has been moved to %s; a new one is made. Events"
            " that waited in it are not sent unless they are saved from there. [outbox-corrupt]",
            moved,
        )
        return True

    def _is_corrupt(self) -> bool:
        """Whether the file is corrupt still. Another process may have replaced it meanwhile."""
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as probe:
                return bool(probe.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
        except sqlite3.DatabaseError as exc:
            return reason_of_sqlite(exc) == "corrupt"

    # -- its log ----------------------------------------------------------------------------

    def empty_log(self, *, at_once: bool = False) -> None:
        if not at_once and time.monotonic() < self._empty_at:
            return
        self._empty_at = time.monotonic() + _EMPTY_EVERY
        with suppress(OSError):  # there is none
            if Path(f"{self.path}-wal").stat().st_size:
                # This does not wait for connections that still read the log.
                self._work(self._empty)

    def _empty(self, connection: sqlite3.Connection) -> None:
        _write_log_back(connection, self._processes.own().was_ours)

    # -- processes --------------------------------------------------------------------------

    def close(self) -> None:
        with suppress(OutboxFailed), self._alone_in_process() as process:
            process.close_connection()

    def _be_still(self) -> None:
        """Close the connection, and let no thread open one until the fork is over.

        SQLite keeps its locks by process and file. If a child opened the file beside an inherited
        connection, SQLite would believe in the child that it has a lock, and it would have none.
        Another process could then remove the log while the child uses it, and the child's commits
        would be lost: this was seen.
        """
        process = self._processes.own()
        if process.lock.acquire(timeout=_FORK_PATIENCE):
            process.close_connection()

    def _go_on(self) -> None:
        with suppress(RuntimeError):  # before the fork, another thread did not give the lock back
            self._processes.own().lock.release()


# -- SQLite's own: log, tables, errors -----------------------------------------------------------


def _write_log_back(connection: sqlite3.Connection, is_ours: bool) -> None:
    """Write the log into the database's file. In somebody else's, as far as nobody waits for it."""
    how = "TRUNCATE" if is_ours else "PASSIVE"
    connection.execute(f"PRAGMA wal_checkpoint({how})").fetchall()


def _make_tables(tx: Tx) -> None:
    if isinstance(tx, _SqliteTx) and whose_file.is_new(tx.connection):
        tx.connection.execute(f"PRAGMA application_id = {whose_file.APPLICATION_ID}")
    schema.make(tx.rows, "sqlite", tx.now)


def _has_our_tables(connection: sqlite3.Connection) -> bool:
    return schema.is_made(_SqliteTx(connection, 0.0).rows, "sqlite")


def reason_of_sqlite(exc: BaseException) -> str:
    """The name that we have for an error of SQLite's."""
    code = (getattr(exc, "sqlite_errorcode", None) or 0) & 0xFF  # the primary code
    return next((reason for reason, codes in _REASONS.items() if code in codes), "error")
