"""The outbox in a SQLite file: opening, making, replacing it, and what one process holds of it."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from adroll_flask.errors import help_url
from adroll_flask.forks import at_fork, never_collect
from adroll_flask.logs import Logger, get_logger
from adroll_flask.plurals import counted
from adroll_flask.redaction import database_words

from . import journal_locks as locks
from . import restored, schema
from .database import Tx
from .ownership import make_file, make_folder, open_file
from .protocol import OutboxFailed
from .sqlite_connection import NO_INODE, Process, SqliteTx, reason_of, runner, tidy
from .states import VERSION

logger: Logger = get_logger("adroll_flask.outbox")

T = TypeVar("T")

#: Seconds that a transaction waits for other processes to leave the file, or a process for another
#: that makes it.
PATIENCE: Final = 5.0
#: Milliseconds of it that SQLite itself waits each time, and seconds between two tries. Its own
#: wait is a sleep of the thread: under gevent and eventlet all requests of the process would wait.
_OWN_WAIT: Final = 20
_BETWEEN: Final = 0.01
#: Seconds that a fork waits for what is under way in the file.
_FORK_PATIENCE: Final = 1.0


class SqliteDatabase:
    """See :class:`~.database.Database`.

    One connection with a lock serves all threads: SQLite takes one writer at a time anyway.
    Requests do not come here: they write to the journal.

    :param path: of the file; its folder is made where it is missing.
    :param dedupe_days: days that dead letters are kept.
    """

    dialect = "sqlite"

    def __init__(
        self, path: Path, *, sync: str, clock: Callable[[], float], dedupe_days: int = 90
    ) -> None:
        self.path = path
        self._dedupe_days = dedupe_days
        self._clock = clock
        self._sync = "FULL" if sync == "full" else "NORMAL"
        self._process = Process()
        self._known: dict[str, str] = {}
        self._hooked = False
        self._orphan = False

    # -- transactions -----------------------------------------------------------------------

    def read(self, function: Callable[[Tx], T], /) -> T:
        return self._transaction(function, "BEGIN")

    def write(self, function: Callable[[Tx], T], /) -> T:
        return self._transaction(function, "BEGIN IMMEDIATE")

    def _transaction(self, function: Callable[[Tx], T], begin: str) -> T:
        return self._work(lambda connection: self._in_transaction(connection, function, begin))

    def _in_transaction(
        self, connection: sqlite3.Connection, function: Callable[[Tx], T], begin: str
    ) -> T:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._in_transaction_once(connection, function, begin)
            except sqlite3.OperationalError as exc:
                if reason_of(exc) != "locked" or time.monotonic() > until:
                    raise
                time.sleep(_BETWEEN)

    def _in_transaction_once(
        self, connection: sqlite3.Connection, function: Callable[[Tx], T], begin: str
    ) -> T:
        connection.execute(begin)
        try:
            result = function(SqliteTx(connection, self._clock(), self._known))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        return result

    def _work(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run *function* on the kept connection, again where the file was replaced meanwhile."""
        reopened = False
        while True:
            with self._alone_in_process() as process:
                try:
                    connection = process.connection
                    if connection is None or self._inode() != process.inode:
                        connection = self._reopen(process)
                    return function(connection)
                except sqlite3.Error as exc:
                    if reopened or not self._recover(exc):
                        raise OutboxFailed(reason_of(exc), database_words(exc)) from exc
                    reopened = True
                    process.hang_up()
                except (UnicodeError, OverflowError) as exc:
                    # A value that no statement can hold, as a lone surrogate.
                    raise OutboxFailed("data") from exc
                except OSError as exc:
                    denied = isinstance(exc, PermissionError)
                    raise OutboxFailed("read_only" if denied else "unavailable") from exc

    @contextmanager
    def _alone_in_process(self) -> Iterator[Process]:
        process = self._process
        if process.pid != os.getpid():
            # SQLite allows no inherited connection, not even to close it
            # (https://sqlite.org/howtocorrupt.html, 2.6). Told by the pid: uWSGI forks past Python.
            never_collect(process)
            process = self._process = Process()
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

    def exists(self) -> bool:
        return self.path.exists()

    def _inode(self) -> tuple[int, int]:
        try:
            stat = os.stat(self.path)
        except OSError:
            return NO_INODE
        return stat.st_ino, stat.st_dev

    def _reopen(self, process: Process) -> sqlite3.Connection:
        if self._orphan:
            raise OutboxFailed("unavailable", "forked while its database was in use")
        process.hang_up()
        self._hook()
        until = time.monotonic() + PATIENCE
        recovered = False
        while True:
            try:
                connection = self._connect()
                break
            except sqlite3.Error as exc:
                if reason_of(exc) == "locked" and time.monotonic() < until:
                    # SQLite itself does not wait where a file is to keep a log from now on.
                    time.sleep(_BETWEEN)
                    continue
                if recovered or not self._recover(exc):
                    raise
                recovered = True
        process.hold(connection, self._inode())
        return connection

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            self._make()
        connection = sqlite3.connect(
            self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA synchronous = {self._sync}")
            connection.execute("PRAGMA journal_size_limit = 16777216")
            # Checkpoints belong to housekeeping; this is for where nothing keeps house.
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
            self._prepare(connection)
            connection.execute(f"PRAGMA busy_timeout = {_OWN_WAIT}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self) -> None:
        """Create an empty file that only its owner may read, once among many processes."""
        make_folder(self.path.parent)
        with self._alone():
            if self.path.exists():
                return
            # A log left behind by a deleted database belongs to nobody, but processes that still
            # have the old one open would share its index with us.
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            os.close(make_file(self.path, os.O_RDWR | locks.BINARY))

    def _prepare(self, connection: sqlite3.Connection) -> None:
        names = {
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if all(name.startswith(("adroll_", "sqlite_")) for name in names):
            # In the shop's own file the journal mode is the shop's.
            if not names:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
        if (schema.version_in(runner(connection), "sqlite") or 0) < VERSION:
            self._make_tables(connection)
        if restored.is_marked(SqliteTx(connection, 0.0, self._known)):
            count = self._in_transaction(connection, self._lay_to_rest, "BEGIN IMMEDIATE")
            logger.critical(
                "the outbox's database is a copy that was made by outbox backup: %s, which may"
                " have been sent since, wait as dead letters (restored) until somebody retries"
                " them (%s)",
                counted(count, "event"),
                help_url("outbox-copy"),
            )

    def _lay_to_rest(self, tx: Tx) -> int:
        # Another process may have been faster.
        return restored.lay_to_rest(tx, self._dedupe_days) if restored.is_marked(tx) else 0

    def create_tables(self) -> None:
        self._work(self._make_tables)

    @staticmethod
    def _make_tables(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            schema.make(runner(connection), "sqlite")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time makes or replaces the file."""
        flags = os.O_RDWR | locks.BINARY | locks.NO_FOLLOW
        lock = open_file(Path(f"{self.path}.lock"), flags)
        try:
            until = time.monotonic() + PATIENCE
            while not locks.hold(lock):
                if time.monotonic() > until:
                    raise OutboxFailed("locked")
                time.sleep(0.002)
            yield
        finally:
            os.close(lock)

    # -- faults -----------------------------------------------------------------------------

    def _recover(self, exc: BaseException) -> bool:
        """True where opening the file again is worth a try after *exc*.

        A corrupt file is moved aside, so that a new one takes its place.
        """
        code = getattr(exc, "sqlite_errorcode", None)
        primary = None if code is None else code & 0xFF
        if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._set_aside()
        if code == sqlite3.SQLITE_READONLY_DBMOVED:
            return True
        if primary == sqlite3.SQLITE_READONLY:
            # A connection that was opened while the file was read-only stays so.
            return os.access(self.path, os.W_OK)
        if isinstance(exc, sqlite3.ProgrammingError):
            return "closed database" in str(exc)
        return isinstance(exc, sqlite3.OperationalError) and "no such table" in str(exc)

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
        except (OSError, OutboxFailed):
            return False
        logger.critical(
            "the outbox's database was corrupt and has been moved to %s; a new one is made. Events"
            " that waited in it are not sent unless they are saved from there. (%s)",
            moved,
            help_url("outbox-corrupt"),
        )
        return True

    def _is_corrupt(self) -> bool:
        """Look again, under the lock: another process may have replaced the file meanwhile."""
        try:
            probe = sqlite3.connect(self.path, timeout=PATIENCE)
            try:
                return bool(probe.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
            finally:
                probe.close()
        except sqlite3.DatabaseError as exc:
            primary = getattr(exc, "sqlite_errorcode", 0) & 0xFF
            return primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

    # -- keeping it small -------------------------------------------------------------------

    def tidy(self) -> int:
        return self._work(lambda connection: tidy(connection, self.path)) if self.exists() else 0

    def backup(self, target: Path) -> None:
        """Copy the file as it is now into *target*, by SQLite's own backup, beside the work.

        The copy is marked as one, and is there whole or not at all.

        :raises FileExistsError: there is something at *target*.
        :raises OSError: it cannot be made.
        """
        part = target.with_name(f"{target.name}.part")
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | locks.BINARY, 0o600))

        def copy(connection: sqlite3.Connection) -> None:
            made = sqlite3.connect(part, isolation_level=None)
            try:
                connection.backup(made, pages=1000)
                made.execute("PRAGMA journal_mode = DELETE")  # one file, to be carried about
                self._in_transaction(made, restored.mark, "BEGIN IMMEDIATE")
            finally:
                made.close()

        try:
            self._work(copy)
            if target.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    # -- processes --------------------------------------------------------------------------

    def close(self) -> None:
        process = self._process
        if process.pid == os.getpid() and process.lock.acquire(timeout=PATIENCE):
            try:
                process.hang_up()
            finally:
                process.lock.release()

    def _hook(self) -> None:
        if not self._hooked and hasattr(os, "register_at_fork"):
            self._hooked = True
            at_fork(before=self._hold_still, in_parent=self._go_on, in_child=self._begin_anew)

    def _hold_still(self) -> None:
        """Close the connection and let nobody open one until the fork is over.

        SQLite keeps its locks by process and file: a child that opened the file beside an
        inherited connection would believe itself locked and hold nothing. Seen: another process
        then removes the log under it, and what it commits is lost.
        """
        process = self._process
        if process.pid == os.getpid() and process.lock.acquire(timeout=_FORK_PATIENCE):
            process.hang_up()
            process.still = True

    def _go_on(self) -> None:
        process = self._process
        if process.still:
            process.still = False
            process.lock.release()

    def _begin_anew(self) -> None:
        # A child of a process that had the file open can never open it safely; its events stay in
        # the journal, which another process reads.
        if self._process.connection is not None and not self._process.still:
            self._orphan = True
        if self._orphan:  # a child of an orphan is one too
            logger.error(
                "forked while the outbox's database was in use; others deliver for it (%s)",
                help_url("forked-in-use"),
            )
        else:
            self._process = Process()
