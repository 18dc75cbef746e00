"""Putting events into a server's database, into a caller's transaction, and back from the spill."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from weakref import WeakSet

from sqlalchemy import (
    Connection,
    CursorResult,
    Engine,
    Insert,
    Row,
    Select,
    func,
    inspect,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError, StatementError
from sqlalchemy.orm import Session, scoped_session

from adroll_flask.counters import Counters
from adroll_flask.errors import ConfigurationError

from .bound import Bound
from .engines import insert_unless_there
from .protocol import NewEvent, OutboxFailed, Put
from .spill import Spilled, SpillFile, encode
from .states import DAY, DEAD, PAYLOAD_BYTES, PLACES, ROW_BYTES, WAITING, clean_key, next_id, seq_of
from .store import Store, Tx

if TYPE_CHECKING:
    from sqlalchemy import URL

CHANNEL: Final = "adroll_outbox"

_SETTING: Final = "ADROLL_OUTBOX_URL"
_Executes: TypeAlias = "Connection | Session | scoped_session[Any]"
_OTHER: Final = (
    "session= takes a session bound to the outbox's database; this one is bound to another. Let"
    " ADROLL_OUTBOX_URL name the session's database, with the same host and database name, or"
    " report without session="
)
#: Seconds between two announcements of one process; a worker that is awake needs none.
_ANNOUNCE_EVERY: Final = 0.1
#: Seconds for which requests leave a server alone that kept one of them waiting.
_SPARE: Final = 5.0
_LOCAL: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})


@dataclass(slots=True)
class Enqueue:
    """Ways into the outbox that go through SQLAlchemy.

    :param where: the outbox's address, with which a session's is compared.
    :param max_bytes: of events that wait; 0: no bound.
    :param dedupe_days: days after which a dead letter goes.
    """

    store: Store
    counters: Counters
    where: URL | Path
    max_bytes: int
    dedupe_days: int
    bound: Bound = field(default_factory=Bound)
    _announced: float = float("-inf")
    _spared_until: float = float("-inf")
    _known: WeakSet[Engine] = field(default_factory=WeakSet)

    # -- a server's database ----------------------------------------------------------------

    def put(self, event: NewEvent) -> Put:
        """Commit one event on a server.

        :raises OutboxFailed: the server did not take it in time.
        """
        _check_size(event)
        began = time.monotonic()
        if began < self._spared_until:
            raise OutboxFailed("unavailable", "left alone after a failure")
        if not self._fits(event):
            raise OutboxFailed("full")
        try:
            put = self.store.write(
                lambda tx: self._put(tx.connection, event, dead=None), hasty=True
            )
        except OutboxFailed as exc:
            # One request waited for a server that does not answer; the next ones need not.
            if exc.reason == "unavailable" and time.monotonic() - began > 0.5:
                self._spared_until = time.monotonic() + _SPARE
            raise
        self._announce_soon()
        return put

    def put_dead(self, event: NewEvent, reason: str, error: str) -> None:
        """Commit one dead letter."""
        _check_size(event)
        if not self._fits(event, share=2):
            raise OutboxFailed("full")
        self.store.write(
            lambda tx: self._put(tx.connection, event, dead=(reason, error)), hasty=True
        )

    def _put(
        self,
        connection: _Executes,
        event: NewEvent,
        *,
        dead: tuple[str, str] | None,
        waited: float = 0.0,
    ) -> Put:
        id = event.id
        for _ in range(PLACES):
            statement = self._insert(event, id, dead, waited)
            if cast("CursorResult[Any]", connection.execute(statement)).rowcount == 1:
                return Put("queued", id)
            kept = self._kept(connection, event) if dead is None and event.key else None
            if kept is not None:
                if kept.id == id:
                    return Put("queued", id)
                return Put("duplicate", kept.id, same=kept.digest == event.digest)
            ours = select(self.store.event.c.id).where(self.store.these([id]))
            if connection.execute(ours).first() is not None:
                return Put("queued", id)
            id = next_id(id)
        raise OutboxFailed("error", "no place for the event")

    def _insert(
        self, event: NewEvent, id: str, dead: tuple[str, str] | None, waited: float
    ) -> Insert:
        now = self.store.time()
        values: dict[str, Any] = {
            "id": id,
            "event_name": event.name,
            "advertisable_eid": event.advertisable_eid,
            "dry_run": int(event.dry_run),
            "dedupe_key": None if event.key is None else clean_key(event.key),
            "digest": event.digest,
            "payload": event.payload,
            "occurred_at": event.occurred_at,
            "queued_at": now - waited if waited else now,
            "due_at": now - waited if waited else now,
        }
        if self.store.file is not None:
            values["seq"] = seq_of(id)
        if dead is not None:
            values |= {
                "state": DEAD,
                "dedupe_key": None,
                "reason": dead[0][:40],
                "error": dead[1][:1000],
                "settled_at": now,
                "due_at": now + self.dedupe_days * DAY,
            }
        return insert_unless_there(self.store.dialect, self.store.event).values(values)

    def _kept(self, connection: _Executes, event: NewEvent) -> Row[tuple[str, str | None]] | None:
        """The event that has this one's key."""
        same = self._same(event)
        kept = connection.execute(same).first()
        if kept is None and isinstance(connection, Session | scoped_session):
            # The INSERT met a row that the caller's snapshot does not show, since it was committed
            # after the transaction began (MariaDB under REPEATABLE READ; there a locking read
            # would end the transaction: error 1020). Ours shows it.
            kept = self.store.read(lambda tx: tx.connection.execute(same).first())
        return kept

    def _same(self, event: NewEvent) -> Select[tuple[str, str | None]]:
        table = self.store.event.c
        return select(table.id, table.digest).where(
            table.advertisable_eid == event.advertisable_eid,
            table.dry_run == int(event.dry_run),
            table.event_name == event.name,
            table.dedupe_key == (None if event.key is None else clean_key(event.key)),
        )

    def _fits(self, event: NewEvent, share: int = 1) -> bool:
        if not self.max_bytes:
            return True
        size = len(event.payload) + ROW_BYTES
        return self.bound.allows(size, self._measure, self.max_bytes // share)

    def _measure(self) -> int:
        try:
            return self.store.read(self._bytes)
        except OutboxFailed:
            return 0  # the INSERT will say why

    def _bytes(self, tx: Tx) -> int:
        event = self.store.event.c
        total = 0.0
        for state in (WAITING, DEAD):
            same = event.state == literal_column(str(state))
            count = tx.connection.scalar(select(func.count()).where(same)) or 0
            if count:
                newest = select(func.length(event.payload).label("size")).where(same)
                sizes = newest.order_by(event.due_at.desc()).limit(100).subquery()
                mean = tx.connection.scalar(select(func.avg(sizes.c.size))) or 0
                total += count * (float(mean) + ROW_BYTES)
        return int(total)

    # -- somebody's transaction -------------------------------------------------------------

    def put_in(self, session: Any, event: NewEvent) -> Put:
        """Put one event into the transaction of *session*; see :meth:`Outbox.put`."""
        if not isinstance(session, Session | scoped_session):
            raise ConfigurationError(
                _SETTING, "session= takes a synchronous SQLAlchemy session of the outbox's database"
            )
        _check_size(event)
        self._check_bind(session)
        if not self._fits(event):
            raise OutboxFailed("full")
        try:
            return self._put(session, event, dead=None)
        except StatementError as exc:
            # The caller may log what it catches; the visitor's values stay out of it.
            exc.params = None
            exc.hide_parameters = True
            raise

    def _check_bind(self, session: Session | scoped_session[Any]) -> None:
        bind = session.get_bind(clause=self.store.event.insert())
        engine = bind.engine
        if engine in self._known:
            return
        if not self._is_ours(engine.url):
            raise ConfigurationError(_SETTING, _OTHER)
        connection = session.connection(bind_arguments={"clause": self.store.event.insert()})
        if not inspect(connection).has_table("adroll_event"):
            raise ConfigurationError(
                _SETTING,
                "the table adroll_event is missing in the session's database: run"
                " `flask adroll outbox create-table`, or add it to the migrations",
            )
        meta = self.store.tables.meta.c
        identity = select(meta.value).where(meta.name == "outbox_id")
        if connection.scalar(identity) != self.store.read(
            lambda tx: tx.connection.scalar(identity)
        ):
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

    # -- from the spill file ----------------------------------------------------------------

    def take_back(self, spill: SpillFile, *, batches: int | None = None) -> int:
        """Read the spill file into the outbox; returns how many events there were."""

        def take(batch: Sequence[Spilled]) -> None:
            try:
                self.store.write(lambda tx: self._take(tx, batch))
            except OutboxFailed as exc:
                if exc.reason != "data":
                    raise
                self._take_singly(batch, spill)

        return spill.drain(take, batches=batches)

    def _take(self, tx: Tx, batch: Sequence[Spilled]) -> None:
        event = self.store.event.c
        ids = [spilled.event.id for spilled in batch]
        known = set(tx.connection.scalars(select(event.id).where(self.store.these(ids))))
        duplicates = 0
        for spilled in batch:
            if spilled.event.id in known:
                continue
            put = self._put(
                tx.connection,
                spilled.event,
                dead=spilled.dead,
                waited=max(0.0, time.time() - spilled.at),
            )
            duplicates += put.status == "duplicate"
        if duplicates:
            self.counters.add("event_duplicate", "spilled", duplicates)

    def _take_singly(self, batch: Sequence[Spilled], spill: SpillFile) -> None:
        for spilled in batch:
            try:
                self.store.write(partial(self._take, batch=[spilled]))
            except OutboxFailed as exc:
                if exc.reason != "data":
                    raise
                spill.keep_bad(encode(spilled))

    # -- waking others ----------------------------------------------------------------------

    def _announce_soon(self) -> None:
        if time.monotonic() - self._announced >= _ANNOUNCE_EVERY:
            self.announce()

    def announce(self) -> None:
        """Tell workers of all hosts that there is work, where the database can."""
        self._announced = time.monotonic()
        if self.store.dialect != "postgresql":
            return
        try:
            with self.store.engine(hasty=True).connect() as connection, connection.begin():
                connection.execute(text(f"SELECT pg_notify('{CHANNEL}', '')"))
        except SQLAlchemyError:
            return  # they ask by themselves, only later


def _check_size(event: NewEvent) -> None:
    if len(event.payload) > PAYLOAD_BYTES:
        raise OutboxFailed("too_large")


def _address(url: URL) -> tuple[str, str, int, str]:
    backend = url.get_backend_name()
    backend = "mysql" if backend == "mariadb" else backend
    host = (url.host or str(url.query.get("host", "")) or "").lower()
    port = url.port or {"postgresql": 5432, "mysql": 3306}.get(backend, 0)
    is_local = host in _LOCAL or host.startswith("/")
    return backend, "localhost" if is_local else host, port, url.database or url.username or ""
