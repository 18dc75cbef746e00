"""What one process holds of a SQLite file, and how it gets through a fork; light."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from .fork import immortalise

#: Seconds that a fork waits for those who work with the database.
_FORK_PATIENCE: Final = 1.0
_NO_INODE: Final = (0, 0)


@dataclass(slots=True, weakref_slot=True)
class Process:
    """What one process holds of the file; a fork makes a new one."""

    pid: int
    lock: threading.RLock = field(default_factory=threading.RLock)
    #: Who has a connection open without the lock, and what keeps others from opening one.
    users: set[object] = field(default_factory=set)
    turn: threading.RLock = field(default_factory=threading.RLock)
    #: Nothing is open, for as long as a fork takes.
    still: bool = False
    connection: sqlite3.Connection | None = None
    cursor: sqlite3.Cursor | None = None
    inode: tuple[int, int] = _NO_INODE
    #: Closes the connection when an app is dropped: Python 3.13 warns of one collected open. A
    #: ``__del__`` would come too late, where the connection is in the same garbage.
    closer: weakref.finalize[..., Process] | None = None

    def hold(self, connection: sqlite3.Connection) -> None:
        self.connection, self.cursor = connection, connection.cursor()
        self.closer = weakref.finalize(self, _close, connection, self.pid)
        self.closer.atexit = False

    def hang_up(self) -> None:
        old, self.connection, self.cursor = self.connection, None, None
        if self.closer is not None:
            self.closer.detach()
        if old is not None:
            old.close()

    # -- forks ------------------------------------------------------------------------------

    @contextmanager
    def beside(self) -> Iterator[None]:
        """A connection beside the kept one is in use: a fork waits for its end."""
        user = object()
        with self.turn:
            self.users.add(user)
        try:
            yield
        finally:
            self.users.discard(user)

    def hold_still(self, closers: Sequence[Callable[[], None]]) -> None:
        """Close what is open and let nobody open anything until :meth:`go_on`.

        SQLite keeps its locks by process and file: a child that opened the file beside an
        inherited connection would believe itself locked and hold nothing. Seen: another process
        then removes the log under it, and what it commits is lost.

        :param closers: close what lies idle beside the kept connection.
        """
        until = time.monotonic() + _FORK_PATIENCE
        if not self.turn.acquire(timeout=_FORK_PATIENCE):
            return
        while self.lock.acquire(timeout=max(0.0, until - time.monotonic())):
            if not self.users:
                for close in closers:
                    close()
                self.hang_up()
                self.still = True
                return
            self.lock.release()  # who is there may need it
            if time.monotonic() > until:
                return
            time.sleep(0.001)

    def go_on(self) -> None:
        """The fork is over, in the parent."""
        with suppress(RuntimeError):  # the wait for a turn was in vain
            self.turn.release()
            if self.still:
                self.still = False
                self.lock.release()


def _close(connection: sqlite3.Connection, pid: int) -> None:
    if pid == os.getpid():
        connection.close()
    else:
        immortalise(connection)
