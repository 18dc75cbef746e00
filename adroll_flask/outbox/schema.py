"""The outbox's tables, how they come to be, and how an older version of them is brought up.

All tables are named ``adroll_…``. One index, ``(state, due_at)``, serves every question that is
asked often: what is due, which lease lapsed, which row may go. ``due_at`` therefore means, by
state: when it may be sent; when the lease ends; when the row may be removed.

Upgrades only ever add: during a rolling deployment an older process works on a newer schema.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    create_engine,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.pool import StaticPool
from sqlalchemy.types import TypeDecorator

from .states import KEY_LENGTH, VERSION

#: Ten processes that start at once queue here instead of failing on each other's CREATE TABLE.
_LOCK: Final = 0x41645265

_ASCII = {"charset": "ascii", "collation": "ascii_bin"}


class _Utf8Bytes(TypeDecorator[str]):
    """Text as bytes, where a collation would call different keys equal ('a' and 'a ')."""

    impl = mysql.VARBINARY
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> Any:
        return None if value is None else value.encode()

    def process_result_value(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else bytes(value).decode()


def _code(length: int) -> Any:
    """An ASCII text that is compared byte by byte on every engine."""
    return String(length).with_variant(mysql.VARCHAR(length, **_ASCII), "mysql", "mariadb")


def _key() -> Any:
    return String(KEY_LENGTH).with_variant(_Utf8Bytes(KEY_LENGTH * 4), "mysql", "mariadb")


def _payload() -> Any:
    return LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")


_TABLE: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
_TABLE |= {name.replace("mysql", "mariadb"): value for name, value in _TABLE.items()}


class Tables:
    """The tables as SQLAlchemy sees them, for one dialect.

    On SQLite ``adroll_event`` has an integer primary key that :func:`states.seq_of` derives from
    the event's id, instead of an index over the ids: one B-tree less to write in a request.

    :param dialect: SQLAlchemy's name of it.
    """

    def __init__(self, dialect: str) -> None:
        self.metadata = MetaData()
        sqlite = dialect == "sqlite"
        identity: list[Any] = (
            [Column("seq", Integer, primary_key=True), Column("id", String(32), nullable=False)]
            if sqlite
            else [Column("id", _code(32), primary_key=True)]
        )
        self.event = Table(
            "adroll_event",
            self.metadata,
            *identity,
            Column("state", SmallInteger, nullable=False, server_default=text("0")),
            Column("event_name", _code(40), nullable=False),
            Column("advertisable_eid", _code(40), nullable=False),
            Column("dry_run", SmallInteger, nullable=False),
            Column("dedupe_key", _key()),
            Column("digest", _code(64)),
            Column("payload", _payload()),
            Column("occurred_at", Double, nullable=False),
            Column("queued_at", Double, nullable=False),
            Column("due_at", Double, nullable=False),
            Column("attempts", Integer, nullable=False, server_default=text("0")),
            Column("unsure", SmallInteger, nullable=False, server_default=text("0")),
            Column("claim", _code(32)),
            Column("error", Text),
            Column("reason", _code(40)),
            Column("settled_at", Double),
            Index(
                "adroll_event_key",
                "advertisable_eid",
                "dry_run",
                "event_name",
                "dedupe_key",
                unique=True,
                sqlite_where=text("dedupe_key IS NOT NULL"),
                postgresql_where=text("dedupe_key IS NOT NULL"),
            ),
            Index("adroll_event_due", "state", "due_at"),
            # Rows change state three times and leave; PostgreSQL's defaults wait for a fifth of
            # the table to die before they clean, and claims would wade through it.
            postgresql_with={
                "autovacuum_vacuum_scale_factor": "0.02",
                "autovacuum_analyze_scale_factor": "0.05",
            },
            **_TABLE,
        )
        self.destination = Table(
            "adroll_destination",
            self.metadata,
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("paused_until", Double, nullable=False, server_default=text("0")),
            Column("held", _code(64)),
            Column("fingerprint", _code(64)),
            Column("held_since", Double),
            Column("failures", Integer, nullable=False, server_default=text("0")),
            Column("last_error", Text),
            Column("last_error_at", Double),
            Column("probe_until", Double, nullable=False, server_default=text("0")),
            Column("next_slot_at", Double, nullable=False, server_default=text("0")),
            **_TABLE,
        )
        self.hold = Table(
            "adroll_hold",
            self.metadata,
            Column("id", Integer, primary_key=True, autoincrement=True),
            Column("began_at", Double, nullable=False),
            Column("ended_at", Double),
            Column("reason", _code(64), nullable=False),
            **_TABLE,
        )
        self.tally = Table(
            "adroll_tally",
            self.metadata,
            Column("minute", Integer, primary_key=True, autoincrement=False),
            Column("slot", Integer, primary_key=True, autoincrement=False),
            *(
                Column(name, Integer, nullable=False, server_default=text("0"))
                for name in ("delivered", "dead", "retried", "unsure")
            ),
            **_TABLE,
        )
        self.meta = Table(
            "adroll_meta",
            self.metadata,
            Column("name", _code(40), primary_key=True),
            Column("value", _code(64), nullable=False),
            **_TABLE,
        )


#: What brings version N to N + 1, at index N - 1. Version 1 is the first.
UPGRADES: Sequence[Callable[[Connection, Tables], None]] = ()


def create_tables(connection: Connection) -> None:
    """Make the outbox's tables, or bring older ones to this version; idempotent.

    Runs in the connection's transaction (MariaDB and MySQL commit at each statement), so that it
    fits a migration::

        def upgrade():
            create_tables(op.get_bind())

    :param connection: to the outbox's database.
    """
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        _create(connection)
    elif dialect in ("mysql", "mariadb"):
        # The lock is the server's, so its name holds the database's.
        lock = "CONCAT('adroll_outbox_', MD5(DATABASE()))"
        connection.execute(text(f"SELECT GET_LOCK({lock}, 60)"))
        try:
            _create(connection)
        finally:
            connection.execute(text(f"SELECT RELEASE_LOCK({lock})"))
    else:
        _create(connection)


def drop_tables(connection: Connection) -> None:
    """Remove the outbox's tables with everything in them: the other half of a migration.

    :param connection: to the outbox's database.
    """
    Tables(connection.dialect.name).metadata.drop_all(connection)


def upgrade_sqlite(connection: sqlite3.Connection) -> None:
    """Bring an older SQLite file to this version, in one transaction, over its own connection."""
    engine = create_engine(
        "sqlite+pysqlite://",
        creator=lambda: connection,
        poolclass=StaticPool,
        pool_reset_on_return=None,
    )
    with engine.connect() as upgrading, upgrading.begin():
        upgrading.exec_driver_sql("BEGIN IMMEDIATE")
        create_tables(upgrading)


def schema_version(connection: Connection) -> int | None:
    """The version of the tables in this database; ``None`` where there are none."""
    if not inspect(connection).has_table("adroll_meta"):
        return None
    meta = Tables(connection.dialect.name).meta
    value = connection.scalar(select(meta.c.value).where(meta.c.name == "schema_version"))
    return None if value is None else int(value)


def _create(connection: Connection) -> None:
    tables = Tables(connection.dialect.name)
    version = schema_version(connection)
    if version is not None and version >= VERSION:
        return
    for number in range(version or VERSION, VERSION):
        UPGRADES[number - 1](connection, tables)
    tables.metadata.create_all(connection)
    if not connection.scalar(select(tables.destination.c.id)):
        connection.execute(tables.destination.insert().values(id=1))
    if version is None:
        connection.execute(
            tables.meta.insert(),
            [
                {"name": "schema_version", "value": str(VERSION)},
                # By this a session's database is told from another that looks the same.
                {"name": "outbox_id", "value": secrets.token_hex(16)},
            ],
        )
    else:
        connection.execute(
            tables.meta.update()
            .where(tables.meta.c.name == "schema_version")
            .values(value=str(VERSION))
        )
