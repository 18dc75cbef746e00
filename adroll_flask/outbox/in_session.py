"""An event in the transaction of the shop's own SQLAlchemy session (``session=``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakSet

from sqlalchemy import Engine, text
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session, scoped_session

from adroll_flask.errors import ConfigurationError

from . import schema
from .database import Database, Tx, Values, one
from .dialect import FRAGMENTS, TIME
from .duplicates import NONE, put_of, same
from .protocol import Put
from .record_format import NewEvent, Verdict
from .rows import RowWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

_T = TypeVar("_T")

_SETTING: Final = "ADROLL_OUTBOX_URL"
_OTHER: Final = (
    "session= takes a session bound to the outbox's database; this one is bound to another. Let"
    " ADROLL_OUTBOX_URL name the session's database, with the same host and database name, or"
    " report without session="
)
_LOCAL: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})
_IDENTITY: Final = "SELECT value FROM adroll_meta WHERE name = 'outbox_id'"


class _SessionTx:
    """A transaction that is somebody's; see :class:`~.database.Tx`."""

    def __init__(self, session: Any, dialect: str, clock: Callable[[], float]) -> None:
        self._session = session
        self.dialect = dialect
        if dialect == "sqlite":
            self.now = clock()
        else:
            self.now = float(one(session.execute(text(TIME[dialect])).all()))

    def execute(self, statement: str, /, **values: Any) -> int:
        return int(self._session.execute(self._clause(statement), values).rowcount)

    def many(self, statement: str, values: Sequence[Values], /) -> int:
        return sum(self.execute(statement, **dict(one)) for one in values)

    def rows(self, statement: str, /, **values: Any) -> list[Any]:
        return [tuple(row) for row in self._session.execute(self._clause(statement), values)]

    def _clause(self, statement: str) -> Any:
        return text(statement.format_map(FRAGMENTS[self.dialect]))


@dataclass(slots=True)
class SessionPut:
    """Puts events into somebody's transaction.

    :param where: the outbox's address, with which a session's is compared.
    """

    database: Database
    rows: RowWriter
    where: URL | Path
    clock: Callable[[], float]
    _known: WeakSet[Engine] = field(default_factory=WeakSet)

    def put(self, session: Any, event: NewEvent) -> Put:
        """Put *event* into the transaction of *session*.

        :raises ConfigurationError: *session* is bound to another database, or the table is missing.
        """
        return self._run(session, lambda tx: self._put(tx, event))

    def decide(self, session: Any, verdict: Verdict) -> None:
        """Put *verdict* into the transaction of *session*, for the next claim to apply.

        The event's own row stays untouched: under MariaDB's snapshots a row that was changed since
        the shop's transaction began would end it (error 1020).

        :raises ConfigurationError: as :meth:`put`.
        """
        self._run(session, lambda tx: self.rows.holds.keep(tx, verdict))

    def _run(self, session: Any, function: Callable[[Tx], _T]) -> _T:
        if not isinstance(session, Session | scoped_session):
            raise ConfigurationError(
                _SETTING, "session= takes a synchronous SQLAlchemy session of the outbox's database"
            )
        self._check_bind(session)
        try:
            return function(_SessionTx(session, self.database.dialect, self.clock))
        except StatementError as exc:
            # The caller may log what it catches; the visitor's values stay out of it.
            exc.params = None
            exc.hide_parameters = True
            raise

    def _put(self, tx: Tx, event: NewEvent) -> Put:
        kept = self.rows.insert_one(tx, event, shared=True)
        if kept is None:
            return Put("queued", event.id)
        # The INSERT may have met a row that the caller's snapshot does not show, since it was
        # committed after the transaction began (MariaDB under REPEATABLE READ; there a locking
        # read would end the transaction: error 1020). Ours shows it.
        if kept is NONE:
            found = self.database.read(lambda ours: same(ours, event))
            kept = self.rows.release_by(tx, event, found or NONE, shared=True)
        return put_of(event, kept)

    def _check_bind(self, session: Session | scoped_session[Any]) -> None:
        engine = session.get_bind().engine
        if engine in self._known:
            return
        if not self._is_ours(engine.url):
            raise ConfigurationError(_SETTING, _OTHER)
        connection = session.connection()
        if schema.schema_version(connection) is None:
            raise ConfigurationError(
                _SETTING,
                "the table adroll_event is missing in the session's database: run"
                " `flask adroll outbox create-table`, or add it to the migrations",
            )
        ours = self.database.read(lambda tx: one(tx.rows(_IDENTITY)))
        if connection.scalar(text(_IDENTITY)) != ours:
            # The same names by another port forwarding, or another schema.
            raise ConfigurationError(_SETTING, _OTHER)
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
