"""The three engines that the outbox is tested on, each test on a database of its own.

The contract's tests take the outbox and what it is given from here: one place knows its modules.
"""

import contextlib
import functools
import itertools
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from adroll_flask import errors, settings
from adroll_flask.counters import Counters
from adroll_flask.outbox import holds, model
from adroll_flask.outbox.model import Attempt as Attempt
from adroll_flask.outbox.model import Claim, Row, new_id
from adroll_flask.outbox.model import Counted as Counted
from adroll_flask.outbox.model import NewEvent as NewEvent
from adroll_flask.outbox.model import OrderKey as OrderKey
from adroll_flask.outbox.model import OutboxFailed as OutboxFailed
from adroll_flask.outbox.model import Outcome as Outcome
from adroll_flask.outbox.model import OutcomeKind as OutcomeKind
from adroll_flask.outbox.model import Verdict as Verdict
from adroll_flask.outbox.model import Withdrawal as Withdrawal
from adroll_flask.outbox.outbox import Outbox as Outbox
from tests.support import eventually, lacking
from tests.support.sites import Clock as Clock

EID = "ADVERTISABLE0000000001"
#: Of a visitor's request.
ENVIRON = {"REMOTE_ADDR": "203.0.113.9"}
ENGINES = ("sqlite", "postgresql", "mariadb")
SERVERS = {
    "postgresql": os.environ.get(
        "ADROLL_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/test"
    ),
    "mariadb": os.environ.get("ADROLL_TEST_MARIADB", "mysql+pymysql://root@127.0.0.1:3306/test"),
}
_NUMBERS = itertools.count()
_TABLES = "event account inbox journal mark history"
#: What lies in a database and ages.
_TIMES = {
    "event": "queued_at due_at refused_at released_at learnt_at",
    "account": "paused_until probe_until stopped_since last_error_at",
    "mark": "marked_at forget_at",
}


def amend_wire(payload: bytes, changes: Mapping[str, Any]) -> tuple[bytes, str, float]:
    """A release's changes, as an outbox that knows nothing of events takes them."""
    wire = json.loads(payload) | changes
    if wire.get("value") == "no money":
        raise errors.EventError("value", "takes an amount")
    return json.dumps(wire).encode(), f"{wire.get('value')} EUR", wire.get("timestamp", 1.0)


@dataclass
class Bench:
    """One engine with an empty database, and the outboxes that a test opens on it."""

    engine: str
    url: str | None
    folder: Path
    clock: Clock = field(default_factory=Clock)
    counters: Counters = field(default_factory=Counters)
    opened: list[Outbox] = field(default_factory=list)
    plain: sa.Engine | None = None

    def open(self, amend: holds.Amend = amend_wire, **config: Any) -> Outbox:
        """Another outbox object on the same database: another process's, as far as it goes."""
        values = {f"ADROLL_{name.upper()}": value for name, value in config.items()}
        if self.url is not None:
            values.setdefault("ADROLL_OUTBOX_URL", self.url)
        outbox = Outbox(
            settings.Settings.from_mapping(values),
            folder=self.folder,
            clock=self.now,
            counters=self.counters,
            amend=amend,
        )
        self.opened.append(outbox)
        return outbox

    @property
    def path(self) -> Path:
        return self.folder / "adroll-outbox.sqlite"

    @property
    def journal(self) -> Path:
        return self.folder / "adroll-journal"

    def sql(self) -> sa.Engine:
        """The database as anybody else sees it."""
        if self.plain is None:
            self.plain = sa.create_engine(
                self.url or f"sqlite:///{self.path}", poolclass=sa.pool.NullPool
            )
        return self.plain

    def execute(self, statement: str, **values: Any) -> list[Any]:
        with self.sql().begin() as connection:
            result = connection.execute(sa.text(statement), values)
            return list(result) if result.returns_rows else []

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Meanwhile somebody holds the table of events, as a migration does."""
        how = {
            "postgresql": "LOCK TABLE adroll_event, adroll_inbox IN ACCESS EXCLUSIVE MODE",
            "mariadb": "LOCK TABLES adroll_event WRITE, adroll_inbox WRITE",
            "sqlite": "BEGIN EXCLUSIVE",
        }
        with self.sql().connect() as connection:
            connection.execute(sa.text(how[self.engine]))
            try:
                yield
            finally:
                if self.engine == "mariadb":
                    connection.execute(sa.text("UNLOCK TABLES"))
                connection.rollback()

    def pass_time(self, seconds: float) -> None:
        """Let *seconds* go by: where the clock is the database's, move what lies in it back."""
        if self.engine == "sqlite":
            self.clock.now += seconds
            if self.path.exists() and sa.inspect(self.sql()).has_table("adroll_meta"):
                self._housekeeping_went_along()
            return
        for outbox in self.opened[:1]:  # what lies in the journal ages as well
            outbox.queue.waiting()
        for table, columns in _TIMES.items():
            earlier = ", ".join(f"{column} = {column} - :s" for column in columns.split())
            self.execute(f"UPDATE adroll_{table} SET {earlier}", s=seconds)
        self._housekeeping_went_along()

    def _housekeeping_went_along(self) -> None:
        """Of one leap it would take an hour."""
        self.execute("DELETE FROM adroll_meta WHERE name = 'housekeeping_at'")
        self.execute(
            "INSERT INTO adroll_meta (name, value) VALUES ('housekeeping_at', :now)",
            now=repr(self.now()),
        )

    def now(self) -> float:
        return self.clock.now if self.engine == "sqlite" else time.time()

    def event(self, key: str | None = None, **changes: Any) -> NewEvent:
        now = changes.pop("at", None) or self.now()
        fields: dict[str, Any] = {
            "id": new_id(now),
            "name": "purchase",
            "advertisable_eid": EID,
            "dry_run": False,
            "key": key,
            "payload": b'{"event_name":"purchase","identifiers":{"adct":"click-1"}}',
            "occurred_at": now,
            "at": now,
        }
        return NewEvent(**(fields | changes))

    def report(self, outbox: Outbox, *keys: str | None, **changes: Any) -> list[str]:
        """Report a purchase for each of *keys*; the events' ids."""
        return [outbox.put(self.event(key, **changes)) for key in keys]

    def insert(self, outbox: Outbox, *keys: str | None, **changes: Any) -> list[str]:
        """The same, and take what was reported into the database."""
        ids = self.report(outbox, *keys, **changes)
        outbox.queue.waiting()
        return ids

    def empty(self) -> None:
        """Leave the tables as if new, for the next test."""
        if not sa.inspect(self.sql()).has_table("adroll_event"):
            return
        for table in _TABLES.split():
            self.execute(f"DELETE FROM adroll_{table}")
        made = "'began', 'outbox_id', 'schema_version'"
        self.execute(f"DELETE FROM adroll_meta WHERE name NOT IN ({made})")
        self.execute(
            "UPDATE adroll_meta SET value = :now WHERE name = 'began'", now=repr(self.now())
        )

    def close(self) -> None:
        for outbox in self.opened:
            outbox.close()
        if self.plain is not None:
            self.plain.dispose()


@functools.cache
def missing(engine: str) -> str | None:
    """Why there is no server of *engine* here, or ``None``."""
    admin = sa.create_engine(SERVERS[engine], poolclass=sa.pool.NullPool)
    try:
        with admin.connect():
            return None
    except sa.exc.SQLAlchemyError as exc:
        return f"no {engine} at {admin.url.host}:{admin.url.port} ({type(exc).__name__})"


@contextlib.contextmanager
def database(engine: str, *, whole: bool = False, how: str = "") -> Iterator[str]:
    """An empty database, or schema, of its own on a server; removed afterwards.

    :param whole: a database also where a schema would do: for tools that know nothing of schemas.
    :param how: the end of the statement that makes it.
    """
    if why := missing(engine):
        lacking(why)
    name = f"adroll_test_{os.getpid()}_{next(_NUMBERS)}"
    url = sa.make_url(SERVERS[engine])
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    is_schema = engine == "postgresql" and not whole
    kind = "SCHEMA" if is_schema else "DATABASE"
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE {kind} {name} {how}"))
    if is_schema:
        own = url.update_query_dict({"options": f"-csearch_path={name}", "application_name": name})
    else:
        own = url.set(database=name)
    try:
        yield own.render_as_string(hide_password=False)
    finally:
        also = " CASCADE" if is_schema else " WITH (FORCE)" if engine == "postgresql" else ""

        def is_gone() -> bool:
            # An app's thread may still be at it: PostgreSQL ends one of the two.
            with contextlib.suppress(sa.exc.OperationalError), admin.connect() as connection:
                connection.execute(sa.text(f"DROP {kind} {name}{also}"))
                return True
            return False

        eventually(is_gone)


@contextlib.contextmanager
def a_user(server: Bench, rights: str, *, most: int = 0, is_reader: bool = False) -> Iterator[str]:
    """*server*'s URL for a user of its own, who has *rights* on all tables that are there.

    :param most: connections at a time; 0: any number.
    :param is_reader: all of the user's transactions only read, as on a replica.
    """
    url, user = sa.make_url(server.url or ""), f"adroll_{os.getpid()}_{next(_NUMBERS)}"
    if server.engine == "postgresql":
        schema = url.query["application_name"]
        begin = [
            f"CREATE ROLE {user} LOGIN CONNECTION LIMIT {most or -1}",
            f"GRANT USAGE ON SCHEMA {schema} TO {user}",
            f"GRANT {rights} ON ALL TABLES IN SCHEMA {schema} TO {user}",
            f"ALTER ROLE {user} SET default_transaction_read_only = {'on' if is_reader else 'off'}",
        ]
        end = [f"DROP OWNED BY {user}", f"DROP ROLE {user}"]
    else:
        begin = [
            f"CREATE USER {user}@'%' WITH MAX_USER_CONNECTIONS {most}",
            f"GRANT {rights} ON {url.database}.* TO {user}@'%'",
        ]
        end = [f"DROP USER {user}@'%'"]
        if is_reader:
            url = url.update_query_dict({"init_command": "SET SESSION TRANSACTION READ ONLY"})
    for statement in begin:
        server.execute(statement)
    try:
        yield url.set(username=user).render_as_string(hide_password=False)
    finally:
        for statement in end:
            server.execute(statement)


def damage(path: Path, table: str) -> None:
    """Overwrite the page at which *table* of a SQLite file begins."""
    where = f"SELECT rootpage FROM sqlite_master WHERE name = '{table}'"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute(where).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def status(outbox: Outbox, event: NewEvent, **how: Any) -> str:
    """What is said to the report of *event*."""
    return "queued" if outbox.put(event, **how) == event.id else "duplicate"


def claimed(outbox: Outbox, limit: int = 100, lease: float = 60.0, *, begin: bool = False) -> Claim:
    """What a worker gets, which is something."""
    claim = outbox.queue.claim(EID, limit, lease, begin=begin)
    assert claim
    return claim


def settle(outbox: Outbox, claim: Claim, *kinds: model.OutcomeKind, **more: Any) -> int:
    """End the events of *claim* by *kinds* in turn, else as delivered; how many there were.

    :param more: of those that are not delivered.
    """
    ends = zip(claim.events, itertools.cycle(kinds or ("delivered",)), strict=False)
    outcomes = [
        Outcome(ids=[event.id], kind=kind, **({} if kind == "delivered" else more))
        for event, kind in ends
    ]
    return outbox.queue.settle(claim, outcomes)


def deliver(outbox: Outbox) -> list[str]:
    """Let AdRoll take all that is due; its orders, sorted."""
    orders: list[str] = []
    while claim := outbox.queue.claim(EID, begin=True):
        settle(outbox, claim)
        orders += [event.key or "" for event in claim.events]
    return sorted(orders)


def bury(outbox: Outbox, reason: str = "refused", **more: Any) -> list[str]:
    """Let AdRoll refuse all that is due; the dead letters' ids."""
    claim = claimed(outbox)
    settle(outbox, claim, "dead", reason=reason, **more)
    return [event.id for event in claim.events]


def told(outbox: Outbox, *columns: model.HistoryColumn) -> Counter[Any]:
    """How many events the history has, by *columns*."""
    return counted(outbox.lookups.history(0, columns), *columns)


def counted(sums: Iterable[model.HistorySum], *columns: model.HistoryColumn) -> Counter[Any]:
    """How many events *sums* are of, by *columns*."""
    found: Counter[Any] = Counter()
    for one in sums:
        found[attrgetter(*columns)(one)] += one.events
    return found


def shown(outbox: Outbox, id: str) -> Row:
    """An event with its payload, which is there."""
    row = outbox.lookups.show(id)
    assert row is not None
    return row


def retry(outbox: Outbox, *ids: str) -> int:
    """Send dead letters again, without *ids* all that have their content; how many."""
    admin, dead = outbox.admin, ids or [row.id for row in outbox.lookups.list("dead")]
    return sum(
        admin.fix(row.id, reported(row)) for row in outbox.lookups.those(dead) if row.payload
    )


def reported(row: Row) -> NewEvent:
    """The event of *row* as it was reported."""
    its = row.id, row.name, row.advertisable_eid, row.dry_run, row.key, row.payload
    return NewEvent(*its, row.occurred_at, row.digest or None, row.identifiers)
