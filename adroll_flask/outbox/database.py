"""A database as the outbox sees it: functions that run in transactions, with one kind of statement.

A statement is written once, with ``:name`` parameters and the ``{fragments}`` of this module, where
SQLite, PostgreSQL and MariaDB/MySQL differ. A list is passed as the parameter ``ids`` and asked for
with ``id {in_ids}``. :mod:`.sqlite` and :mod:`.server` are the two back ends there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, Protocol, TypeVar

from .values import KEY_LENGTH

T = TypeVar("T")

#: Parameters of a statement.
Values = Mapping[str, Any]


class Tx(Protocol):
    """A transaction, and the outbox's time in it (seconds since the epoch)."""

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql``."""

    @property
    def now(self) -> float:
        """The database's clock, where it has one."""

    def execute(self, statement: str, /, **values: Any) -> int:
        """Run a statement that changes rows; how many it met."""

    def many(self, statement: str, values: Sequence[Values], /) -> int:
        """Run a statement once for each of *values*; how many rows it met in all."""

    def rows(self, statement: str, /, **values: Any) -> list[Any]:
        """The rows of a query, as tuples."""


class Database(Protocol):
    """Runs functions in transactions, again where the connection was lost or rows collided.

    A function may therefore run twice; one whose commit was lost on its way is run after it had
    taken effect. The functions of this package are written so that this does no harm. What cannot
    be done raises :class:`.values.OutboxFailed`.
    """

    dialect: str

    def read(self, function: Callable[[Tx], T], /) -> T:
        """Run *function* in a transaction that only reads."""

    def write(self, function: Callable[[Tx], T], /) -> T:
        """Run *function* in a transaction and commit it."""

    def create_tables(self) -> None:
        """Make the tables that are missing, whatever was done before."""

    def exists(self) -> bool:
        """False where there is no database yet, so that nothing can be in it. Never raises."""

    def has_tables(self) -> bool:
        """Whether there are tables in a database that is there; looking makes none."""

    def tidy(self) -> int:
        """One small step of keeping files small; how much was done."""

    def close(self) -> None:
        """Close this process's connections; the next call opens them again."""


def one(rows: Sequence[Any]) -> Any:
    """The first row's first value, or ``None``."""
    return rows[0][0] if rows else None


def insert_into(table: str, names: Iterable[str]) -> str:
    """The statement for a new row; it does nothing where there is one with the same key."""
    columns, marks = ", ".join(names), ", ".join(f":{name}" for name in names)
    if table == "adroll_event":
        columns, marks = "{seq_name}" + columns, "{seq}" + marks
    return f"{{insert}} {table} ({columns}) VALUES ({marks}) {{or_ignore}}"


def insert(tx: Tx, table: str, **values: Any) -> int:
    """Make a row; 0: there is one with the same key."""
    return tx.execute(insert_into(table, values), **values)


def meta(tx: Tx, name: str) -> str | None:
    """A text that all processes share, or ``None``."""
    found = one(tx.rows("SELECT value FROM adroll_meta WHERE name = :name", name=name))
    return None if found is None else str(found)


def metas(tx: Tx, prefix: str) -> dict[str, str]:
    """Those whose names begin with *prefix*."""
    rows = tx.rows(
        "SELECT name, value FROM adroll_meta WHERE name LIKE :pattern ORDER BY name",
        pattern=f"{prefix}%",
    )
    return dict(rows)


def key_in(dialect: str, key: str | None) -> str | bytes | None:
    """A deduplication key as a parameter: MariaDB and MySQL keep it as bytes."""
    return key.encode() if key is not None and dialect == "mysql" else key


def key_out(value: Any) -> str | None:
    """A deduplication key as it comes out of a row."""
    return value if value is None or isinstance(value, str) else bytes(value).decode()


# -- where they differ -----------------------------------------------------------------------------

_ASCII: Final = "CHARACTER SET ascii COLLATE ascii_bin"
_INNODB: Final = " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
_TABLES: Final = "information_schema.tables"

_SQLITE: Final = {
    "in_ids": "IN (SELECT value FROM json_each(:ids))",
    "skip_locked": "",
    "lock": "",
    "insert": "INSERT INTO",
    "or_ignore": "ON CONFLICT DO NOTHING",
    "table_exists": "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name",
    "index_exists": "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = :name",
    # An UPDATE that shrinks a row leaves its page as empty as that, for as long as the key is
    # kept. Rows that move away leave pages that are used again.
    "moves_away": "seq = -seq, ",
    "moves": "UPDATE OR IGNORE",
    # SQLite would give a number again whose rows have all moved away, and -seq would be taken.
    "seq_name": "seq, ",
    "seq": (
        "1 + max(coalesce((SELECT max(seq) FROM adroll_event), 0),"
        " -coalesce((SELECT min(seq) FROM adroll_event), 0)), "
    ),
    # Whole numbers beyond 64 bits become approximate ones; sum() would refuse them.
    "sum": "total",
    # -- types
    "first_column": "seq INTEGER NOT NULL PRIMARY KEY, id VARCHAR(32) NOT NULL UNIQUE",
    "number_key": "INTEGER NOT NULL PRIMARY KEY",
    "code": "VARCHAR",
    "binary": "",
    "key": f"VARCHAR({KEY_LENGTH})",
    "payload": "BLOB",
    "double": "DOUBLE",
    "money": "NUMERIC",
    "with_key": "WHERE dedupe_key IS NOT NULL",
    "with_cookie": "WHERE cookie_hash IS NOT NULL",
    "with_click": "WHERE click_hash IS NOT NULL",
    "event_options": "",
    "options": "",
}

_POSTGRESQL: Final = _SQLITE | {
    # One parameter: with a hundred, parsing and planning took half of the statement.
    "in_ids": "= ANY(:ids)",
    "skip_locked": "FOR UPDATE SKIP LOCKED",
    "lock": "FOR UPDATE",
    "table_exists": (
        f"SELECT 1 FROM {_TABLES} WHERE table_schema = current_schema() AND table_name = :name"
    ),
    "index_exists": (
        "SELECT 1 FROM pg_indexes WHERE schemaname = current_schema() AND indexname = :name"
    ),
    "moves_away": "",
    "moves": "UPDATE",
    "seq_name": "",
    "seq": "",
    "sum": "sum",
    "first_column": "id VARCHAR(32) NOT NULL PRIMARY KEY",
    "number_key": "INTEGER GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
    "payload": "BYTEA",
    "double": "DOUBLE PRECISION",
    "money": "NUMERIC(38)",
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
    "table_exists": (
        f"SELECT 1 FROM {_TABLES} WHERE table_schema = DATABASE() AND table_name = :name"
    ),
    "index_exists": (
        "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE()"
        " AND index_name = :name"
    ),
    "first_column": f"id VARCHAR(32) {_ASCII} NOT NULL PRIMARY KEY",
    "number_key": "INTEGER NOT NULL AUTO_INCREMENT PRIMARY KEY",
    "binary": f" {_ASCII}",
    # Text as bytes, where a collation would call different keys equal ('a' and 'a ').
    "key": f"VARBINARY({KEY_LENGTH * 4})",
    "payload": "MEDIUMBLOB",
    "double": "DOUBLE",
    "money": "DECIMAL(38)",
    "with_key": "",
    "with_cookie": "",
    "with_click": "",
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
