"""Waiting for work: woken by this process, or by PostgreSQL's NOTIFY."""

from __future__ import annotations

import os
import select
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from adroll_flask.forks import never_collect
from adroll_flask.logs import Logger, get_logger

if TYPE_CHECKING:
    from sqlalchemy import URL

    from .database import Tx

logger: Logger = get_logger("adroll_flask.outbox")

#: Of PostgreSQL's NOTIFY.
CHANNEL: Final = "adroll_outbox"


class Bell:
    """Ends a wait in this process.

    :param url: of a PostgreSQL database whose NOTIFY rings as well; needs psycopg 3.
    """

    def __init__(self, url: URL | None = None) -> None:
        self._url = url
        self._pid = os.getpid()
        self._rung = threading.Event()
        self._listening = threading.Lock()
        self._listener: _Listener | None = None
        self.waiters: int = 0

    def ring(self) -> None:
        """End the wait that is under way, or the next one at once."""
        self._mine()
        self._rung.set()
        listener = self._listener
        if listener is not None:
            listener.interrupt()

    def wait(self, timeout: float) -> None:
        """Return after *timeout* seconds or at the next ring."""
        self._mine()
        self.waiters += 1
        try:
            if self._url is not None and self._listening.acquire(blocking=False):
                try:
                    if self._listen(timeout):
                        return
                finally:
                    self._listening.release()
            self._rung.wait(timeout)
        finally:
            self.waiters -= 1
            self._rung.clear()

    def _listen(self, timeout: float) -> bool:
        """Wait on the server; False where it cannot be listened to."""
        try:
            if self._listener is None:
                self._listener = _Listener(self._url)
            # A ring from before the listener was there set the event alone.
            if not self._rung.is_set():
                self._listener.wait(timeout)
        except Exception as exc:
            logger.debug("the outbox cannot listen: %s", type(exc).__name__)
            self._close()
            return False
        return True

    def _mine(self) -> None:
        if self._pid != os.getpid():
            never_collect(self._listener)
            self._listener = None
            self._rung = threading.Event()
            self._listening = threading.Lock()
            self.waiters = 0
            self._pid = os.getpid()

    def _close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def close(self) -> None:
        """Hang up."""
        self._mine()
        self._close()


class _Listener:
    """One connection that listens, and a socket by which a wait on it is interrupted."""

    def __init__(self, url: Any) -> None:
        import psycopg
        from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

        dialect: Any = PGDialect_psycopg()  # type: ignore[no-untyped-call]
        arguments, keywords = dialect.create_connect_args(url)
        keywords.pop("prepare_threshold", None)
        self._connection: psycopg.Connection[Any] = psycopg.connect(
            *arguments, **keywords, autocommit=True, connect_timeout=2
        )
        self._connection.execute(f"LISTEN {CHANNEL}")
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)

    def wait(self, timeout: float) -> None:
        sources: list[Any] = [self._connection.fileno(), self._ear]
        ready, _, _ = select.select(sources, [], [], timeout)
        if self._ear in ready:
            self._ear.recv(4096)
        if ready:
            for _ in self._connection.notifies(timeout=0):
                pass

    def interrupt(self) -> None:
        try:
            self._mouth.send(b"x")
        except (BlockingIOError, OSError):
            return  # it is full of rings already, or hung up

    def close(self) -> None:
        self._connection.close()
        self._ear.close()
        self._mouth.close()


def announce(tx: Tx) -> None:
    """Tell workers of all hosts that there is work, where the database can."""
    if tx.dialect == "postgresql":
        tx.rows(f"SELECT pg_notify('{CHANNEL}', '')")
