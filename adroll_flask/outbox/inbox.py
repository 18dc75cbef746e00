"""The journal's own entries in the database: in a shop's transaction, or in one of their own.

``session=`` puts an entry into the table ``adroll_inbox`` in the transaction of the shop's own
SQLAlchemy session; ``ADROLL_OUTBOX_COMMIT="database"`` commits it before the call returns, or in
time: no driver's own time-outs bound what a half-open connection or a held lock takes. So another
thread commits, and the call waits for it for a quarter of a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from adroll_flask.forks import PerProcess

from . import schema
from .location import wrong_url
from .model import OutboxFailed

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine
    from sqlalchemy.orm import Session, SessionTransaction

#: Seconds that a call waits in all: connection, lock and statement.
PATIENCE: Final = 0.25
_AT_ONCE: Final = 2
_INSERT: Final = schema.insert_into("adroll_inbox", ("id", "line"))
_IDENTITY: Final = "SELECT value FROM adroll_meta WHERE name = 'outbox_id'"
_OTHER: Final = (
    "session= takes a session bound to the outbox's database; this one is bound to another. Let"
    " ADROLL_OUTBOX_URL name the session's database, with the same host and database name, or"
    " report without session="
)
_LOCAL: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})


@dataclass(slots=True)
class Inbox:
    """Puts entries into the table, in a transaction of their own or in somebody's.

    :param where: the outbox's address, with which a session's is compared.
    """

    database: schema.Database
    where: URL | Path
    _known: WeakSet[Engine] = field(default_factory=WeakSet)
    #: Commits at a time: the connections that they take may be the shop's database's.
    _slots: PerProcess[threading.BoundedSemaphore] = field(
        default_factory=lambda: PerProcess(lambda: threading.BoundedSemaphore(_AT_ONCE))
    )
    #: A commit that took too long: while it is under way, the next calls need not wait for it.
    _stuck: threading.Thread | None = None

    def commit(self, id: str, line: bytes) -> None:
        """Commit an entry in a transaction of its own.

        :param id: the entry's own; one that comes twice is kept once.
        :raises OutboxFailed: not within :data:`PATIENCE` seconds. It may be committed later: then
            what else the caller does with the event is in the outbox once, by its id.
        """
        if self._stuck is not None and self._stuck.is_alive():
            raise OutboxFailed("unavailable", "an earlier commit is still under way")
        until, slots = time.monotonic() + PATIENCE, self._slots.own()
        if not slots.acquire(timeout=PATIENCE):
            raise OutboxFailed("locked", "others commit")
        failures = [OutboxFailed("error", "the commit was ended")]

        def write() -> None:
            try:
                self.database.write(lambda tx: tx.execute(_INSERT, id=id, line=line))
                failures.clear()
            except OutboxFailed as failure:
                failures[0] = failure
            except Exception as failure:
                failures[0] = OutboxFailed("error", type(failure).__name__)
            finally:
                slots.release()

        thread = threading.Thread(target=write, name="adroll-commit", daemon=True)
        try:
            thread.start()
        except RuntimeError as failure:  # the system gives no more threads, or Python ends
            slots.release()
            raise OutboxFailed("unavailable", str(failure)) from None
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            self._stuck = thread
            raise OutboxFailed("locked", "the database took too long")
        if failures:
            raise failures[0]

    def put(self, session: Any, id: str, line: bytes) -> None:
        """Put an entry into the transaction of *session*.

        :raises ConfigurationError: *session* is bound to another database, or the table is missing.
        """
        from sqlalchemy import text
        from sqlalchemy.exc import StatementError
        from sqlalchemy.orm import Session, scoped_session

        if not isinstance(session, Session | scoped_session):
            raise wrong_url(
                "session= takes a synchronous SQLAlchemy session of the outbox's database"
            )
        self._check_bind(session)
        statement = text(schema.filled(self.database.dialect, _INSERT))
        try:
            session.execute(statement, {"id": id, "line": line})
        except StatementError as exc:
            # The caller may log what it catches; the visitor's values stay out of it.
            exc.params = None
            exc.hide_parameters = True
            raise

    def _check_bind(self, session: Any) -> None:
        from sqlalchemy import text

        engine = session.get_bind().engine
        if engine in self._known:
            return
        if not self._is_ours(engine.url):
            raise wrong_url(_OTHER)
        connection = session.connection()
        if schema.schema_version(connection) is None:
            raise wrong_url(
                "the table adroll_inbox is missing in the session's database: run"
                " `flask adroll outbox create-table`, or add it to the migrations",
            )
        ours = self.database.read(lambda tx: schema.meta(tx, "outbox_id"))
        if connection.scalar(text(_IDENTITY)) != ours:
            # The same names by another port forwarding, or another schema.
            raise wrong_url(_OTHER)
        self._known.add(engine)

    def _is_ours(self, url: URL) -> bool:
        if isinstance(self.where, Path):
            if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
                return False
            theirs = Path(str(url.database).removeprefix("file:"))
            return theirs.resolve() == self.where.resolve()
        return _address(url) == _address(self.where)


def _address(url: URL) -> tuple[str, str, int, str]:
    backend = url.get_backend_name()
    backend = "mysql" if backend == "mariadb" else backend
    host = (url.host or str(url.query.get("host", "")) or "").lower()
    port = url.port or {"postgresql": 5432, "mysql": 3306}.get(backend, 0)
    is_local = host in _LOCAL or host.startswith("/")
    return backend, "localhost" if is_local else host, port, url.database or url.username or ""


# -- after the shop's commit -----------------------------------------------------------------------

#: Where a session's own dictionary (``Session.info``) has what waits for its commit.
_INFO: Final = "adroll_flask.after_commit"


def after_commit(session: Any, action: Callable[..., None], *its: object) -> None:
    """Call *action* with *its* once after the outermost transaction of *session* commits.

    Never if that transaction, or the savepoint in which this was called, rolls back.

    :param session: a ``Session`` or ``scoped_session``; ``None``: it is called now.
    """
    if session is None:
        action(*its)
        return
    target: Session = session() if callable(session) else session
    waiting: _AfterCommit | None = target.info.get(_INFO)
    if waiting is None:
        waiting = target.info[_INFO] = _AfterCommit(target)
    waiting.add(target, partial(action, *its))


class _AfterCommit:
    """The actions of one session; they go with the transaction in which each was added.

    A long session has a listener an event and not one a report: SQLAlchemy keeps those that ran
    once for as long as the session lives.
    """

    def __init__(self, session: Session) -> None:
        from sqlalchemy import event

        self._actions: list[tuple[SessionTransaction | None, Callable[[], None]]] = []
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_transaction_end", self._ended)

    def add(self, session: Session, action: Callable[[], None]) -> None:
        innermost = session.get_nested_transaction() or session.get_transaction()
        self._actions.append((innermost, action))

    def _committed(self, session: Session) -> None:
        """SQLAlchemy calls this for a released savepoint as well, which is no commit yet."""
        savepoint = session.get_nested_transaction()
        if savepoint is not None:
            around = savepoint.parent
            self._actions = [
                (around if transaction is savepoint else transaction, action)
                for transaction, action in self._actions
            ]
            return
        actions, self._actions = self._actions, []
        for _, action in actions:
            action()

    def _ended(self, _session: Session, transaction: SessionTransaction) -> None:
        # What is still here was not committed: it was rolled back, or the session was closed.
        if self._actions:
            self._actions = [entry for entry in self._actions if entry[0] is not transaction]


def is_database_error(problem: BaseException) -> bool:
    """True where SQLAlchemy raised *problem*; asked only where a session is in use."""
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(problem, SQLAlchemyError)
