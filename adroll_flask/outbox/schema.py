"""The outbox's database: its tables and how they come to be, transactions, statements.

All tables are named ``adroll_…``. One index, ``(state, advertisable_eid, due_at)``, serves every
question that is asked often: what of an account is due, which lease lapsed, which row may go.
``due_at`` therefore means, by state: when it may be sent; when the lease ends; when the hold
expires; when the row may be removed.

The rest of the package gives a :class:`Database` functions that run in transactions, with one kind
of statement: it is written once, with ``:name`` parameters and the ``{fragments}`` at the end of
this module, where SQLite, PostgreSQL and MariaDB/MySQL differ. A list is passed as the parameter
``ids`` and asked for with ``id {in_ids}``. Each statement has the time as ``:now``, and a parameter
that it does not name is ignored. :mod:`.sqlite` and :mod:`.server` are the two back ends.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from .model import Attempt, BriefRow, OrderKey, OutboxFailed, Row, State

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: Of the tables that this release makes.
VERSION: Final = 1
#: Rows that one statement meets, at most.
STEP: Final = 500
#: In the shared notes: when a session was last of another outbox's database.
ELSEWHERE: Final = "session_elsewhere"
#: PostgreSQL's advisory lock under which tables are made: without it processes that start at once
#: would fail on each other's CREATE TABLE.
_LOCK: Final = 0x41645265

#: Upper ends of the histogram of event to delivery, seconds; the last column takes the rest.
DELAYS: Final = (1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400)
DELAY_COLUMNS: Final = tuple(f"delay_{number}" for number in range(len(DELAYS) + 1))
#: Each table's columns, and what follows them.
TABLES: Final = {
    "adroll_event": """{first_column},
    state SMALLINT DEFAULT 0 NOT NULL,
    event_name VARCHAR(40) NOT NULL,
    advertisable_eid VARCHAR(40) NOT NULL,
    dry_run SMALLINT NOT NULL,
    dedupe_key VARCHAR(255),
    digest VARCHAR(64),
    payload {payload},
    occurred_at DOUBLE PRECISION NOT NULL,
    queued_at DOUBLE PRECISION NOT NULL,
    due_at DOUBLE PRECISION NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    unsure SMALLINT DEFAULT 0 NOT NULL,
    claim VARCHAR(32),
    error TEXT,
    reason VARCHAR(40),
    settled_at DOUBLE PRECISION,
    record_hash VARCHAR(32),
    identifiers SMALLINT DEFAULT 0 NOT NULL,
    refused_at DOUBLE PRECISION,
    attempt_log TEXT,
    released_at DOUBLE PRECISION,
    learnt_at DOUBLE PRECISION,
    refunded_at DOUBLE PRECISION,
    refund VARCHAR(64),
    sender VARCHAR(20){indexes}){event_options}""",
    "adroll_account": """advertisable_eid VARCHAR(40) NOT NULL PRIMARY KEY,
    paused_until DOUBLE PRECISION DEFAULT 0 NOT NULL,
    stopped VARCHAR(64),
    fingerprint VARCHAR(64),
    stopped_since DOUBLE PRECISION,
    failures INTEGER DEFAULT 0 NOT NULL,
    last_error TEXT,
    last_error_at DOUBLE PRECISION,
    probe_until DOUBLE PRECISION DEFAULT 0 NOT NULL,
    seen_at DOUBLE PRECISION){options}""",
    "adroll_meta": """name VARCHAR(60) NOT NULL PRIMARY KEY,
    value VARCHAR(64) NOT NULL){options}""",
    "adroll_inbox": """id VARCHAR(32) NOT NULL PRIMARY KEY,
    line {payload} NOT NULL){options}""",
    "adroll_journal": """file VARCHAR(120) NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL,
    read_at DOUBLE PRECISION NOT NULL){options}""",
    "adroll_mark": """hash VARCHAR(32) NOT NULL PRIMARY KEY,
    reason VARCHAR(40) NOT NULL,
    marked_at DOUBLE PRECISION NOT NULL,
    forget_at DOUBLE PRECISION NOT NULL){options}""",
    "adroll_history": """hour INTEGER NOT NULL,
    slot SMALLINT NOT NULL,
    advertisable_eid VARCHAR(40) NOT NULL,
    event_name VARCHAR(40) NOT NULL,
    outcome VARCHAR(16) NOT NULL,
    reason VARCHAR(40) NOT NULL,
    identifiers SMALLINT NOT NULL,
    currency VARCHAR(3) NOT NULL,
    events BIGINT NOT NULL,
    value NUMERIC(38) NOT NULL,
    {delays},
    PRIMARY KEY (hour, slot, advertisable_eid, event_name, outcome, reason, identifiers, \
currency)){options}""",
}
#: Of each index of events its columns, and the column that may be NULL: a row without it is not in
#: the index. (On MariaDB and MySQL all rows are, and the table is made with its indexes.)
_INDEXES: Final = {
    "UNIQUE INDEX adroll_event_key": (
        "advertisable_eid, dry_run, event_name, dedupe_key",
        "dedupe_key",
    ),
    "INDEX adroll_event_due": ("state, advertisable_eid, due_at", ""),
    "INDEX adroll_event_record": ("record_hash", "record_hash"),
}

#: Runs a statement with its parameters; gives the rows of a query.
Run = Callable[..., list[Any]]


def columns_of(table: str) -> tuple[str, ...]:
    """The names of a table's columns, but for a number that is the database's own key."""
    first_words = [line.split()[0] for line in TABLES[table].splitlines()]
    others = {"{first_column},": ("id",), "{delays},": DELAY_COLUMNS, "PRIMARY": ()}
    return tuple(name for word in first_words for name in others.get(word, (word,)))


def make(run: Run, dialect: str, now: float | None = None) -> None:
    """Make what is missing in *run*'s database; idempotent.

    MariaDB and MySQL commit each statement, and may have been stopped between any two.

    :param now: by the outbox's clock, where that is not this host's.
    """
    for name, columns in TABLES.items():
        run(filled(dialect, f"CREATE TABLE IF NOT EXISTS {name} ({columns}"))
    for index, (columns, needed) in _INDEXES.items():
        if dialect in ("sqlite", "postgresql"):
            missing = index.replace("INDEX", "INDEX IF NOT EXISTS")
            where = f"WHERE {needed} IS NOT NULL" if needed else ""
            run(f"CREATE {missing} ON adroll_event ({columns}) {where}")
    # Since when it knows of orders (knowledge.py). The outbox's own id is the key of the visitors'
    # hashes, and tells a session's database from another that looks the same. The version comes
    # last: with it all is there.
    began = repr(time.time() if now is None else now)
    notes = {"began": began, "outbox_id": secrets.token_hex(16), "schema_version": str(VERSION)}
    for name, value in notes.items():
        run(filled(dialect, insert_into("adroll_meta", ("name", "value"))), name=name, value=value)


def is_made(run: Run, dialect: str) -> bool:
    """Whether all tables are there in *run*'s database."""
    version = "SELECT 1 FROM adroll_meta WHERE name = 'schema_version'"
    return bool(run(FRAGMENTS[dialect]["meta_exists"])) and bool(run(version))


# -- for migrations: an SQLAlchemy connection ------------------------------------------------------


def create_tables(connection: Connection) -> None:
    """Make the outbox's tables; idempotent.

    Runs in the connection's transaction (MariaDB and MySQL commit at each statement), so that it
    fits a migration::

        def upgrade():
            create_tables(op.get_bind())

    :param connection: to the outbox's database.
    """
    dialect = connection.dialect.name
    run = runner(connection)
    if dialect == "postgresql":  # where two at once collide; the lock goes with the transaction
        run(f"SELECT pg_advisory_xact_lock({_LOCK})")
    make(run, dialect)


class TakenBack(Exception):
    """Ends a transaction that was a trial."""


def try_rights(tx: Tx) -> None:
    """Change the tables as the outbox does, and take it back.

    No row has to be there: rights are asked for all the same, and a server that only reads refuses
    the statement.

    :raises TakenBack: all went well.
    """
    for table in TABLES:
        column = columns_of(table)[0]
        tx.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE 1 = 0")
        tx.execute(f"UPDATE {table} SET {column} = {column} WHERE 1 = 0")
        tx.execute(f"DELETE FROM {table} WHERE 1 = 0")
    raise TakenBack


def drop_tables(connection: Connection) -> None:
    """Remove the outbox's tables with everything in them: the other half of a migration.

    :param connection: to the outbox's database.
    """
    run = runner(connection)
    for name in TABLES:
        run(f"DROP TABLE IF EXISTS {name}")


def runner(connection: Connection) -> Run:
    """Runs statements on SQLAlchemy's *connection*."""
    from sqlalchemy import text

    def run(statement: str, **values: Any) -> list[Any]:
        result = connection.execute(text(statement), values)
        return list(result) if result.returns_rows else []

    return run


# -- transactions and statements -------------------------------------------------------------------

T = TypeVar("T")
BriefRowT = TypeVar("BriefRowT", bound=BriefRow)

#: Parameters of a statement.
Values = Mapping[str, Any]


class Tx(Protocol):
    """A transaction, and the outbox's time in it, which is each statement's parameter ``now``."""

    #: ``sqlite``, ``postgresql`` or ``mysql``.
    dialect: str
    #: Seconds since the epoch by the database's clock, where it has one.
    now: float
    #: Until when the row of an event that ends now is kept, with its key. From now and not from
    #: when it occurred: orders of last year may be imported twice.
    kept_until: float

    def run(self, statement: str, values: dict[str, Any], /) -> Any:
        """Run a statement; the cursor, with the rows of a query."""

    def execute(self, statement: str, /, **values: Any) -> int:
        """Run a statement that changes rows; how many it met."""
        return int(self.run(statement, {"now": self.now} | values).rowcount)

    def many(self, statement: str, values: Sequence[Values], /) -> int:
        """Run a statement once for each of *values*; how many rows it met in all."""

    def rows(self, statement: str, /, **values: Any) -> list[Any]:
        """The rows of a query, as tuples."""
        return [*map(tuple, self.run(statement, {"now": self.now} | values))]


class Database(Protocol):
    """Runs functions in transactions, again where the connection was lost or rows collided.

    A function may therefore run twice; one whose commit was lost on its way is run after it had
    taken effect. The functions of this package are written so that this does no harm. What cannot
    be done raises :class:`.model.OutboxFailed`.
    """

    dialect: str

    def read(self, function: Callable[[Tx], T], /) -> T:
        """Run *function* in a transaction that only reads.

        Where there is no SQLite file it finds empty tables, and makes no file. In a file or on a
        server that is there, missing tables are made.
        """

    def write(self, function: Callable[[Tx], T], /) -> T:
        """Run *function* in a transaction and commit it."""

    def repeat(self, step: Callable[[Tx], int], /) -> int:
        """Write *step* again and again until it does nothing more; how much it did in all."""
        done = 0
        while number := self.write(step):
            done += number
        return done

    def create_tables(self) -> None:
        """Make the tables that are missing, whatever was done before."""

    def is_ready(self) -> bool:
        """Whether there are tables in a database that is there; looking makes none.

        :raises OutboxFailed: they may not be written.
        """
        raise NotImplementedError

    def empty_log(self, *, at_once: bool = False) -> None:
        """Leave nothing of what was removed in a log of the database's, where nobody reads it.

        Cheap: to be called again and again. Where somebody reads, the next call does it.

        :param at_once: even if the last call was a moment ago.
        :raises OutboxFailed: the database cannot be worked with.
        """
        return

    def close(self) -> None:
        """Close this process's connections; the next call opens them again."""


def first_value(rows: Sequence[Any]) -> Any:
    """The first row's first value, or ``None``."""
    return rows[0][0] if rows else None


def insert_into(table: str, names: Collection[str]) -> str:
    """The statement for a new row; it does nothing where there is one with the same key."""
    values = ", :".join(names)
    return f"{{insert}} {table} ({', '.join(names)}) VALUES (:{values}) {{or_ignore}}"


def insert_all(tx: Tx, table: str, rows: Iterable[Values]) -> int:
    """Make rows in their order; how many were made. One that has another's key is not made."""
    alike = groupby(rows, key=tuple)  # neighbours with values for the same columns
    return sum(tx.many(insert_into(table, names), list(group)) for names, group in alike)


def insert(tx: Tx, table: str, **values: Any) -> int:
    """Make a row; 0: there is one with the same key."""
    return tx.execute(insert_into(table, values), **values)


def meta(tx: Tx, name: str) -> str | None:
    """A text that all processes share, or ``None``."""
    value = first_value(tx.rows("SELECT value FROM adroll_meta WHERE name = :name", name=name))
    return None if value is None else str(value)


def number(text: object, otherwise: float) -> float:
    """The number that a shared text says; *otherwise* where a disk has damaged it."""
    try:
        return float(str(text))
    except ValueError:
        return otherwise


def set_meta(tx: Tx, name: str, value: str) -> None:
    """Let all processes share a text, whatever there was before."""
    values = {"name": name, "value": value}
    if not tx.execute("UPDATE adroll_meta SET value = :value WHERE name = :name", **values):
        insert(tx, "adroll_meta", **values)


def events(tx: Tx, columns: str, where: str, **values: Any) -> list[Any]:
    """What events with the condition *where* have in *columns*."""
    return tx.rows(f"SELECT {columns} FROM adroll_event WHERE {where}", **values)


#: What makes a :class:`.BriefRow`, in the order of its fields, but for the payload.
_BRIEF: Final = (
    "{place}, id, event_name, dedupe_key, advertisable_eid, dry_run, occurred_at, queued_at,"
    " attempts, unsure, coalesce(digest, ''), identifiers, refused_at"
)
#: What a :class:`.Row` has behind that.
_MORE: Final = (
    "state, due_at, coalesce(error, ''), coalesce(reason, ''), settled_at, attempt_log,"
    " released_at, payload IS NOT NULL, coalesce(sender, ''), refunded_at, coalesce(refund, ''),"
    " record_hash, learnt_at"
)
_NAMES: Final = tuple(state.name for state in State)


def brief_rows(tx: Tx, where: str, **values: Any) -> list[BriefRow]:
    """What sending needs of the events with the condition *where*."""
    return [_typed(BriefRow(*row)) for row in events(tx, f"{_BRIEF}, payload", where, **values)]


def rows(tx: Tx, where: str, *, full: bool = False, **values: Any) -> list[Row]:
    """The events with the condition *where*.

    :param full: with their payload.
    """
    columns = f"{_BRIEF}, {'payload' if full else 'NULL'}, {_MORE}"
    return [_whole_row(_typed(Row(*row))) for row in events(tx, columns, where, **values)]


def _typed(row: BriefRowT) -> BriefRowT:
    """*row* with Python's types for what the database has as numbers or ``NULL``."""
    row.dry_run = row.dry_run > 0
    row.unsure = row.unsure > 0
    row.payload = row.payload or b""
    return row


def _whole_row(row: Any) -> Row:
    """*row* with Python's types for what only a :class:`.Row` has."""
    row.state = _NAMES[row.state]
    row.whole = row.whole > 0
    row.attempt_log = _attempts(row.attempt_log) if row.attempt_log else ()
    return cast(Row, row)


def _attempts(log: str) -> tuple[Attempt, ...]:
    """The attempts of a row's log; none of one that is damaged."""
    with suppress(ValueError, TypeError, RecursionError):
        return tuple(map(Attempt._make, json.loads(log)))
    return ()


_TAKEN_FOR_ONE: Final = (
    "adroll_event takes 'a' and 'A' for the same letter;"
    " ALTER TABLE adroll_event CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
)


def of_orders(
    tx: Tx, orders: Sequence[OrderKey], lock: str = "", *, full: bool = False
) -> dict[OrderKey, Row]:
    """The rows of those of *orders* that have one; a query for each account and name.

    :raises OutboxFailed: the table takes two keys for one.
    """
    by_order = {}
    where = (
        "advertisable_eid = :account AND dry_run = :dry_run AND event_name = :name"
        f" AND dedupe_key {{in_ids}} {lock}"
    )
    for group in sorted({order[:3] for order in orders}):
        account, dry_run, name = group
        keys = {order.key for order in orders if order[:3] == group}
        values = {"account": account, "dry_run": int(dry_run), "name": name}
        for row in rows(tx, where, full=full, ids=[*keys], **values):
            # Scripts convert all tables of a MariaDB to one collation. One order would be taken for
            # another, and its release be the other's. Elsewhere a disk has damaged the row's key.
            if row.key not in keys and tx.dialect == "mysql":
                raise OutboxFailed("error", _TAKEN_FOR_ONE)
            by_order[OrderKey(account, dry_run, name, str(row.key))] = row
    return by_order


def steps(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """*rows* in parts of :data:`STEP`, one for each statement."""
    return (rows[start : start + STEP] for start in range(0, len(rows), STEP))


def ids_of(tx: Tx, where: str, **values: Any) -> list[str]:
    """The ids of events with the condition *where*."""
    return [row[0] for row in events(tx, "id", where, **values)]


def metas(tx: Tx, prefix: str) -> dict[str, str]:
    """The texts that all processes share, by their names, which begin with *prefix*."""
    query = "SELECT name, value FROM adroll_meta WHERE name LIKE :pattern ORDER BY name"
    return dict(tx.rows(query, pattern=f"{prefix}%"))


def mark(tx: Tx, hash: str, reason: str, at: float, kept: float) -> None:
    """Remember of an order or a visitor, for *kept* seconds, why it is not to be sent."""
    # Files are read in any order: a later withdrawal, which stops more, stays.
    tx.execute("DELETE FROM adroll_mark WHERE hash = :hash AND marked_at <= :at", hash=hash, at=at)
    values = {"hash": hash, "reason": reason, "marked_at": at, "forget_at": tx.now + kept}
    insert(tx, "adroll_mark", **values)


def in_states(*states: State) -> str:
    """The condition that an event is in one of *states*."""
    return f"state IN ({', '.join(map(str, states))})"


def of_account(state: State) -> str:
    """The condition on events of one state and account: the columns that the index begins with."""
    return f"state = {state} AND advertisable_eid = :account"


# -- where databases differ ------------------------------------------------------------------------

#: With this collation MariaDB and MySQL compare texts to the letter, but for spaces at the end: no
#: key has any (kept_key). Rows of other formats, which may be a server's default, take no index as
#: wide as that of keys.
_INNODB: Final = " ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARSET=utf8mb4 COLLATE=utf8mb4_bin"

_SQLITE: Final = {
    "in_ids": "IN (SELECT value FROM json_each(:ids))",
    # To find a row by its number is cheaper than by a text of 32 characters.
    "place": "seq",
    "skip_locked": "",
    "lock": "",
    "insert": "INSERT INTO",
    "or_ignore": "ON CONFLICT DO NOTHING",
    "meta_exists": "SELECT 1 FROM sqlite_master WHERE name = 'adroll_meta'",
    # A row that is delivered loses its content. At its old number it would keep a page that is
    # nearly empty, for as long as its key is kept. With another number it leaves that page, which
    # is used again.
    "moves_away": "seq = -seq, ",
    # A sum beyond 64 bits: total() gives an approximate number, sum() fails.
    "sum": "total",
    # -- types
    # With AUTOINCREMENT no number is given twice: the second row could not move to -seq.
    "first_column": "seq INTEGER PRIMARY KEY AUTOINCREMENT, id VARCHAR(32) NOT NULL UNIQUE",
    "delays": ",\n    ".join(f"{name} BIGINT NOT NULL" for name in DELAY_COLUMNS),
    "indexes": "",
    "payload": "BLOB",
    "event_options": "",
    "options": "",
}

_POSTGRESQL: Final = _SQLITE | {
    # One parameter: with a hundred, parsing and planning took half of the statement.
    "in_ids": "= ANY(:ids)",
    "place": "id",
    "skip_locked": "FOR UPDATE SKIP LOCKED",
    "lock": "FOR UPDATE",
    # In any schema of the search path, as statements find it. The path's first schema may be made
    # after the tables ("$user", public): in it alone nothing would be found, and a second outbox
    # would be made that hides the first.
    "meta_exists": "SELECT 1 WHERE to_regclass('adroll_meta') IS NOT NULL",
    "moves_away": "",
    "sum": "sum",
    "first_column": "id VARCHAR(32) NOT NULL PRIMARY KEY",
    "payload": "BYTEA",
    # Rows change state and leave; PostgreSQL's defaults wait for a fifth of the table to die
    # before they clean, and claims would wade through it.
    "event_options": (
        " WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05)"
    ),
}

_MYSQL: Final = _POSTGRESQL | {
    "in_ids": "IN :ids",
    # IGNORE would also bend values that do not fit; ours are checked before.
    "insert": "INSERT IGNORE INTO",
    "or_ignore": "",
    "meta_exists": "SHOW TABLES LIKE 'adroll_meta'",
    "indexes": "".join(f", {index} ({columns})" for index, (columns, _) in _INDEXES.items()),
    "payload": "MEDIUMBLOB",
    "event_options": _INNODB,
    "options": _INNODB,
}

#: Fragments by SQLAlchemy's name of the dialect.
FRAGMENTS: Final[Mapping[str, Mapping[str, str]]] = {
    "sqlite": _SQLITE,
    "postgresql": _POSTGRESQL,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
}


@cache
def filled(dialect: str, statement: str) -> str:
    """*statement* with the fragments of *dialect*."""
    return statement.format_map(FRAGMENTS[dialect])


def add_up(dialect: str, table: str, unique: str, columns: tuple[str, ...]) -> str:
    """The end of an ``INSERT`` that adds *columns* to the row that is there already."""
    if dialect == "mysql":
        sums = ", ".join(f"{name} = {table}.{name} + VALUES({name})" for name in columns)
        return f"ON DUPLICATE KEY UPDATE {sums}"
    sums = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in columns)
    return f"ON CONFLICT ({unique}) DO UPDATE SET {sums}"
