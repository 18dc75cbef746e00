"""Entries that go into the database at once, past the journal.

``session=`` puts an entry into the table ``adroll_inbox`` in the transaction of the shop's own
SQLAlchemy session. ``ADROLL_OUTBOX_COMMIT="database"`` commits it there before the call returns. No
driver's own time-outs bound what a half-open connection or a held lock takes. So another thread
commits, and the call waits for it for a quarter of a second; after that the entry goes into the
journal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from adroll_flask.logs import Logger, get_logger

from . import location, schema
from .model import OutboxFailed

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.orm import Session, SessionTransaction

logger: Logger = get_logger("adroll_flask.outbox")

#: Seconds that a call waits in all: connection, lock and statement.
PATIENCE: Final = 0.25
_INSERT: Final = schema.insert_into("adroll_inbox", ("id", "line"))
_OTHER: Final = (
    "session= takes a session bound to the outbox's database; this one is bound to another. Let"
    " ADROLL_OUTBOX_URL name the session's database, or report without session="
)


@dataclass(slots=True)
class Inbox:
    """Puts entries into the table, in a transaction of their own or in somebody's.

    :param place: of the outbox: a SQLite file, or a server's URL.
    """

    database: schema.Database
    place: Path | URL
    #: Engines of sessions whose database is the outbox's.
    _engines: WeakSet[Engine] = field(default_factory=WeakSet)
    #: By the id of the outbox in each session's database: whether it is this one; ``None``: nobody
    #: has looked yet.
    _is_this: dict[str, bool | None] = field(default_factory=dict)
    #: A commit that took too long: while it is under way, the next calls need not wait for it.
    _stuck: threading.Thread | None = None

    def commit(self, id: str, line: bytes) -> None:
        """Commit an entry in a transaction of its own.

        :param id: the entry's own; one that comes twice is kept once.
        :raises OutboxFailed: it failed, or took longer than :data:`PATIENCE` seconds. It may still
            be committed after that. If the caller puts the event into the journal as well, it is in
            the outbox once, by its id.
        """
        if self._stuck is not None and self._stuck.is_alive():
            raise OutboxFailed("unavailable", "an earlier commit is still under way")
        until = time.monotonic() + PATIENCE
        failures = [OutboxFailed("error", "the commit was ended")]

        def write() -> None:
            try:
                self.database.write(lambda tx: tx.execute(_INSERT, id=id, line=line))
                failures.clear()
            except OutboxFailed as failure:
                failures[0] = failure
            except Exception as failure:
                failures[0] = OutboxFailed("error", type(failure).__name__)

        thread = threading.Thread(target=write, name="adroll-commit", daemon=True)
        try:
            thread.start()
        except RuntimeError as failure:  # the system gives no more threads, or Python ends
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
            raise location.wrong_url(
                "session= takes a synchronous SQLAlchemy session of the outbox's database; of an"
                " AsyncSession: await session.run_sync(lambda sync: report_conversion(...,"
                " session=sync))"
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
        """Look whether *session* is of the outbox's database, by its own connection alone.

        Where that cannot be told yet the entry goes with the session all the same:
        :meth:`compare` tells later.

        :raises ConfigurationError: it is another's, or has no table.
        """
        engine = session.get_bind().engine
        if engine in self._engines:
            return
        if engine.name.replace("mariadb", "mysql") != self.database.dialect:
            raise location.wrong_url(_OTHER)
        connection = session.connection()
        if isinstance(self.place, Path):
            is_ours: bool | None = _is_of_file(connection, self.place)
            _id_in(connection)  # which raises where the table is missing
        else:
            theirs = _id_in_savepoint(connection)
            is_ours = self._is_this.setdefault(theirs, None) if theirs else None
        if is_ours is False:
            raise location.wrong_url(_OTHER)
        if is_ours:
            self._engines.add(engine)

    def compare(self, now: float) -> None:
        """Look which outbox this is, and tell of entries that went to another one's database.

        The thread beside the requests calls it.

        :raises OutboxFailed: the database cannot be worked with.
        """
        new = [id for id, is_this in self._is_this.copy().items() if is_this is None]
        ours = self.database.read(lambda tx: schema.meta(tx, "outbox_id")) if new else None
        if ours is None:
            return
        if new != [ours]:
            logger.error(
                "AdRoll: session= was of another outbox's database than ADROLL_OUTBOX_URL names; "
                "what was reported with it is there [session-elsewhere]"
            )
            self.database.write(lambda tx: schema.set_meta(tx, schema.ELSEWHERE, repr(now)))
        self._is_this |= {id: id == ours for id in new}


def _is_of_file(connection: Connection, path: Path) -> bool:
    """Whether SQLite's *connection* has the file at *path* open."""
    names = connection.exec_driver_sql("PRAGMA database_list").all()
    opened = next((row[2] for row in names if row[1] == "main"), "")
    return bool(opened) and path.exists() and path.samefile(opened)


def _id_in(connection: Connection) -> str | None:
    """The id of the outbox whose tables *connection* sees.

    :raises ConfigurationError: it sees none.
    """
    run = schema.runner(connection)
    # Not the addresses: a pooler, a forwarded port and an alias lead to the same database, and the
    # same address may lead to another schema.
    if not schema.is_made(run, connection.dialect.name):
        raise location.wrong_url(
            "the session's database has no table adroll_inbox. If it is another than the"
            " outbox's, let ADROLL_OUTBOX_URL name it; then run"
            " `flask adroll outbox create-table`, or add the table to the migrations"
        )
    id = schema.first_value(run("SELECT value FROM adroll_meta WHERE name = 'outbox_id'"))
    return None if id is None else str(id)


def _id_in_savepoint(connection: Connection) -> str | None:
    """The same; ``None`` where the session may not look. Its transaction goes on as if nobody had
    looked."""
    from sqlalchemy.exc import DBAPIError

    try:
        with connection.begin_nested():
            return _id_in(connection)
    except DBAPIError as problem:
        if problem.connection_invalidated:
            raise
        return None


# -- after the shop's commit -----------------------------------------------------------------------

#: Where a session's own dictionary (``Session.info``) has what waits for its commit.
_INFO: Final = "adroll_flask.after_commit"


def after_commit(session: Any, action: Callable[..., None], *arguments: object) -> None:
    """Call *action* with *arguments* once after the outermost transaction of *session* commits.

    Never if that transaction, or the savepoint in which this was called, rolls back.

    :param session: a ``Session`` or ``scoped_session``; ``None``: it is called now.
    """
    if session is None:
        action(*arguments)
        return
    target: Session = session() if callable(session) else session
    waiting: _AfterCommit | None = target.info.get(_INFO)
    if waiting is None:
        waiting = target.info[_INFO] = _AfterCommit(target)
    waiting.add(target, partial(action, *arguments))


class _AfterCommit:
    """The actions of one session; they go with the transaction in which each was added.

    The session has two listeners for all its reports. With listeners of its own each report would
    leave them behind: SQLAlchemy keeps even those that run once for as long as the session lives.
    """

    def __init__(self, session: Session) -> None:
        from sqlalchemy import event

        self._actions: dict[SessionTransaction | None, list[Callable[[], None]]] = {}
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_transaction_end", self._ended)

    def add(self, session: Session, action: Callable[[], None]) -> None:
        innermost = session.get_nested_transaction() or session.get_transaction()
        self._actions.setdefault(innermost, []).append(action)

    def _committed(self, session: Session) -> None:
        """SQLAlchemy calls this for a released savepoint as well, which is no commit yet."""
        savepoint = session.get_nested_transaction()
        if savepoint is not None:
            released = self._actions.pop(savepoint, [])
            self._actions.setdefault(savepoint.parent, []).extend(released)
            return
        actions = self._actions
        self._actions = {}
        for action in chain(*actions.values()):
            action()

    def _ended(self, _session: Session, transaction: SessionTransaction) -> None:
        # What is still here was not committed: it was rolled back, or the session was closed.
        self._actions.pop(transaction, None)


def is_database_error(problem: BaseException) -> bool:
    """True where SQLAlchemy raised *problem*; asked only where a session is in use."""
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(problem, SQLAlchemyError)
