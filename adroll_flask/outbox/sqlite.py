"""The SQLite file: opening, making, replacing it, and what one process holds of it; light."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from .ddl import DDL, TABLES
from .fork import at_fork, immortalise
from .process import Process
from .protocol import OutboxFailed
from .states import (
    VERSION,
)

logger = logging.getLogger("adroll_flask.outbox")

T = TypeVar("T")

#: Seconds that a request waits, in all, for others to leave the database.
PATIENCE: Final = 0.1
#: Seconds that a worker's statement waits.
WORKER_PATIENCE: Final = 5.0
_NO_INODE: Final = (0, 0)


class Naps:
    """Short sleeps while somebody else writes; SQLite's own are of whole milliseconds.

    :param patience: seconds that they may take together.
    """

    def __init__(self, patience: float) -> None:
        self._until = time.monotonic() + patience
        self._next = 0.000_05

    @property
    def left(self) -> float:
        """Seconds of patience that are left."""
        return max(0.0, self._until - time.monotonic())

    def nap(self) -> bool:
        """Sleep a little; False where patience has run out."""
        left = self.left
        if not left:
            return False
        time.sleep(min(self._next, left))
        self._next = min(2 * self._next, 0.002)
        return True


class SqliteFile:
    """One outbox's SQLite file in this process.

    One connection with a lock serves all threads: SQLite takes one writer at a time anyway, a
    lock wakes the next thread at once where SQLite's own waiting sleeps for whole milliseconds.

    :param path: of the file; its folder is made where it is missing.
    :param sync: ``"normal"`` or ``"full"``.
    """

    def __init__(self, path: Path, *, sync: str) -> None:
        self.path = path
        self._name = os.fsencode(path)
        self._sync = "FULL" if sync == "full" else "NORMAL"
        self._process = Process(os.getpid())
        self._on_renew: list[Callable[[], None]] = []
        self._hooked = False
        self._orphan = False

    # -- the file ---------------------------------------------------------------------------

    @contextmanager
    def exclusively(self, patience: float = WORKER_PATIENCE) -> Iterator[None]:
        """No other thread of this process writes meanwhile."""
        process = self._process
        if process.pid != os.getpid():
            process = self.renew()
        if not process.lock.acquire(timeout=patience):
            raise OutboxFailed("locked")
        try:
            yield
        finally:
            process.lock.release()

    def beside(self) -> AbstractContextManager[None]:
        """A connection beside the kept one is in use: a fork waits for its end."""
        return self.renew().beside()

    def inode(self) -> tuple[int, int]:
        """Device and inode of the file that is there now."""
        try:
            stat = os.stat(self._name)
        except OSError:
            return _NO_INODE
        return stat.st_ino, stat.st_dev

    def connect(self, patience: float) -> sqlite3.Connection:
        """A new connection to the file, which is made where it is missing.

        :raises sqlite3.Error: it cannot be opened.
        :raises OutboxFailed: not by this process.
        """
        if self._orphan:
            raise OutboxFailed("unavailable", "forked while its database was in use")
        self._hook()
        for last in (False, True):
            try:
                return self._connect(patience)
            except sqlite3.Error as exc:
                if last or not self.recover(exc):
                    raise
        raise AssertionError("unreachable")

    def _connect(self, patience: float) -> sqlite3.Connection:
        if not self.path.exists():
            self._make()
        connection = sqlite3.connect(
            self.path, timeout=patience, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA synchronous = {self._sync}")
            connection.execute("PRAGMA journal_size_limit = 16777216")
            # Checkpoints belong to housekeeping; this is for where nothing keeps house.
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self) -> None:
        """Create an empty file that only its owner may read, once among many processes."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._alone():
            if self.path.exists():
                return
            # A log left behind by a deleted database belongs to nobody, but processes that still
            # have the old one open would share its index with us.
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _prepare(self, connection: sqlite3.Connection) -> None:
        names = {
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        ours = all(name.startswith(("adroll_", "sqlite_")) for name in names)
        if ours:
            # In the shop's own file the journal mode is the shop's.
            if not names:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
        if "adroll_meta" in names and 0 < self._version(connection) < VERSION:
            from .schema import upgrade_sqlite

            upgrade_sqlite(connection)
        elif not names.issuperset(TABLES):
            self._create(connection)

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in DDL:
                connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    @staticmethod
    def _version(connection: sqlite3.Connection) -> int:
        row = connection.execute(
            "SELECT value FROM adroll_meta WHERE name = 'schema_version'"
        ).fetchone()
        return int(row[0]) if row else 0

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time makes or replaces the file."""
        lock = os.open(
            f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise OutboxFailed("locked") from None
                    time.sleep(0.002)
            yield
        finally:
            os.close(lock)

    def recover(self, exc: BaseException) -> bool:
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
            return os.access(self._name, os.W_OK)
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
            " that waited in it are not sent unless they are saved from there.",
            moved,
        )
        return True

    def _is_corrupt(self) -> bool:
        """Look again, under the lock: another process may have replaced the file meanwhile.

        A new file is small; one that takes longer to check than a request may wait is the old one.
        """
        deadline = time.monotonic() + PATIENCE
        try:
            probe = sqlite3.connect(self.path, timeout=PATIENCE)
            probe.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            try:
                return bool(probe.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
            finally:
                probe.close()
        except sqlite3.DatabaseError as exc:
            primary = getattr(exc, "sqlite_errorcode", 0) & 0xFF
            return primary in (
                sqlite3.SQLITE_CORRUPT,
                sqlite3.SQLITE_NOTADB,
                sqlite3.SQLITE_INTERRUPT,
            )

    # -- a worker's statements --------------------------------------------------------------

    def work(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a worker's statements on the kept connection; its cache serves requests as well.

        *function* runs again where the file was replaced or somebody else held it for long. Each
        of its statements commits by itself, unless it begins a transaction.

        :raises OutboxFailed: the file cannot be worked with, or was locked for
            :data:`WORKER_PATIENCE` seconds.
        """
        naps = Naps(WORKER_PATIENCE)
        reopened = False
        while True:
            with self.exclusively():
                process = self._process
                try:
                    connection = process.connection
                    if connection is None or self.inode() != process.inode:
                        connection = self.reopen(process)
                    return _run(function, connection)
                except sqlite3.Error as exc:
                    failure = exc
                    if not reopened and self.recover(exc):
                        reopened = True
                        process.hang_up()
                        continue
            # Requests of this process have their turn meanwhile.
            if reason_of(failure) != "locked" or not naps.nap():
                raise OutboxFailed(reason_of(failure)) from failure

    # -- processes --------------------------------------------------------------------------

    def reopen(self, process: Process, patience: float = PATIENCE) -> sqlite3.Connection:
        """Open the file that is there now in place of what *process* has open.

        :param patience: seconds to wait for others to leave it.
        """
        process.hang_up()
        for renew in self._on_renew:
            renew()
        try:
            connection = self.connect(patience)
            connection.execute("PRAGMA busy_timeout = 0")  # who uses it takes naps
        except sqlite3.Error as exc:
            raise OutboxFailed(reason_of(exc)) from exc
        except OSError as exc:
            raise OutboxFailed("unavailable") from exc
        process.hold(connection)
        process.inode = self.inode()
        return connection

    def renew(self) -> Process:
        """Start afresh in a forked child: SQLite allows no inherited connection, not even to
        close it (https://sqlite.org/howtocorrupt.html, 2.6)."""
        old = self._process
        if old.pid != os.getpid():
            immortalise(old)
            self._process = Process(os.getpid())
        return self._process

    def close(self) -> None:
        """Close this process's connection; the next call opens it again."""
        process = self._process
        if process.pid == os.getpid() and process.lock.acquire(timeout=WORKER_PATIENCE):
            try:
                process.hang_up()
            finally:
                process.lock.release()

    def on_renew(self, function: Callable[[], None]) -> None:
        """Call *function* where all connections of this process have to be opened again."""
        self._on_renew.append(function)

    def _hook(self) -> None:
        if self._hooked:
            return
        self._hooked = True
        at_fork(before=self._hold_still, in_parent=self._go_on, in_child=self._begin_anew)

    def _hold_still(self) -> None:
        self.renew().hold_still(self._on_renew)

    def _go_on(self) -> None:
        self._process.go_on()

    def _begin_anew(self) -> None:
        if not self._process.still:
            # This child can never open the file safely; its events go to the spill file.
            self._orphan = True
            logger.error("forked while the outbox's database was in use; events are spilled")


def _run(function: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    try:
        return function(connection)
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


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
    }.get(primary, "error")
