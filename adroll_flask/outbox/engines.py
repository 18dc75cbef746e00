"""What differs between SQLite, PostgreSQL and MariaDB/MySQL: connecting, time, failure texts."""

from __future__ import annotations

import errno
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Double,
    Engine,
    Insert,
    Table,
    create_engine,
    event,
    literal_column,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from . import sqlite as sqlite_file

if TYPE_CHECKING:
    from .sqlite import SqliteFile

_MYSQL_COLLISIONS: Final = frozenset({1020, 1205, 1213})
#: Execution option of a connection that only reads.
READS: Final = "adroll_reads"

_POSTGRESQL_TIME: Final = "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"
# UNIX_TIMESTAMP(NOW()) goes through the session's time zone and repeats an hour each autumn.
_MYSQL_TIME: Final = "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6)"


def database_time(dialect: str) -> ColumnElement[float]:
    """The database's clock in seconds since the epoch, whatever its or the host's time zone."""
    expression = _POSTGRESQL_TIME if dialect == "postgresql" else _MYSQL_TIME
    return literal_column(expression, Double)


def insert_unless_there(dialect: str, table: Table) -> Insert:
    """An ``INSERT`` that leaves an existing row alone, without an error in the transaction.

    Its result's ``rowcount`` is 1 where there was none.
    """
    statement: Insert
    if dialect == "postgresql":
        statement = postgresql.insert(table).on_conflict_do_nothing()
    elif dialect == "sqlite":
        statement = sqlite.insert(table).on_conflict_do_nothing()
    else:
        # IGNORE would also bend values that do not fit; ours are checked before.
        statement = mysql.insert(table).prefix_with("IGNORE")
    return statement.execution_options(preserve_rowcount=True)


def sqlite_engine(file: SqliteFile) -> Engine:
    """An engine over *file* for all that is not hot; its transactions begin by writing."""
    engine = create_engine(
        "sqlite+pysqlite://",
        creator=lambda: file.connect(sqlite_file.WORKER_PATIENCE),
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=4,
        hide_parameters=True,
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(READS)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def server_engine(url: URL, *, hasty: bool) -> Engine:
    """An engine to a database server.

    :param hasty: for requests: a statement waits 100 ms for a lock (MariaDB and MySQL count in
        whole seconds: 1 s) and 2 s for the server; else 10 s and 30 s.
    """
    wait, patience = (100, 2) if hasty else (10_000, 30)
    options: dict[str, Any] = {
        "hide_parameters": True,
        "pool_size": 5,
        "max_overflow": 20,
        "pool_timeout": patience,
        "pool_recycle": 1800,
    }
    if url.get_backend_name() == "postgresql":
        engine = create_engine(url, **options, connect_args=_postgresql_arguments(url, patience))
        settings = [f"SET lock_timeout = {wait}", f"SET statement_timeout = {patience * 1000}"]
    else:
        engine = create_engine(url, **options, connect_args=_mysql_arguments(url, patience))
        seconds = max(1, wait // 1000)
        settings = [
            f"SET SESSION innodb_lock_wait_timeout = {seconds}, lock_wait_timeout = {seconds}",
            # Under REPEATABLE READ a claim would lock the gaps between rows as well, and reports
            # would wait for it.
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        ]

    if url.get_driver_name() == "psycopg":
        from .postgresql import PatientConnection

        @event.listens_for(engine, "do_connect")
        def do_connect(dialect: Any, record: Any, arguments: Any, keywords: Any) -> Any:
            made = PatientConnection.connect(*arguments, **keywords)
            made.patience = patience + 0.5  # statement_timeout comes first where it works
            return made

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        for statement in settings:
            cursor.execute(statement)
        cursor.close()
        connection.commit()

    return engine


def _postgresql_arguments(url: URL, patience: int) -> dict[str, Any]:
    if url.get_driver_name() != "psycopg":
        return {}
    name = url.query.get("application_name", "adroll_outbox")
    return {
        "connect_timeout": patience,
        "tcp_user_timeout": patience * 1000,
        "keepalives_idle": 30,
        "application_name": name,
        # A plan made for an empty table would be kept for one with a million rows; poolers in
        # front of the server do not like prepared statements either.
        "prepare_threshold": None,
    }


def _mysql_arguments(url: URL, patience: int) -> dict[str, Any]:
    if url.get_driver_name() != "pymysql":
        return {}
    return {"connect_timeout": patience, "read_timeout": patience, "write_timeout": patience}


def lost(exc: BaseException) -> bool:
    """True where the connection is gone, so that a new one may fare better."""
    return isinstance(exc, DBAPIError) and bool(exc.connection_invalidated)


def collided(exc: BaseException) -> bool:
    """True where the database gave up this transaction in favour of another."""
    if not isinstance(exc, DBAPIError):
        return False
    number, state = _codes(exc.orig)
    return number in _MYSQL_COLLISIONS if number else state in ("40001", "40P01")


def table_missing(original: BaseException) -> bool:
    """True where a server says that there is no such table."""
    number, state = _codes(original)
    return number == 1146 or state == "42P01"


def reason_of(exc: BaseException) -> str:
    """The name of what went wrong, from a fixed set."""
    original = getattr(exc, "orig", None) or exc
    if isinstance(original, OSError):
        return "read_only" if original.errno in (errno.EACCES, errno.EROFS) else "unavailable"
    if isinstance(original, sqlite3.Error):
        return sqlite_file.reason_of(original)
    if isinstance(exc, PoolTimeout) or lost(exc):
        return "unavailable"
    number, state = _codes(original)
    if number:
        return _mysql_reason(number)
    if state:
        if state in ("55P03", "40001", "40P01", "57014"):
            return "locked"
        if state.startswith("53"):
            return "disk_full" if state == "53100" else "unavailable"
        if state.startswith("22"):
            return "data"
        if state == "25006":
            return "read_only"
        return "unavailable" if state[:2] in ("08", "57") else "error"
    # No code: it did not come to speak with a server at all.
    return "unavailable"


def _mysql_reason(number: int) -> str:
    if number in _MYSQL_COLLISIONS:
        return "locked"
    if number in (1021, 1114, 28):
        return "disk_full"
    if number in (1264, 1366, 1406):
        return "data"
    if number in (1290, 1836):
        return "read_only"
    away = number in (1040, 1045, 1053, 1203) or 2000 <= number < 2100
    return "unavailable" if away else "error"


def _codes(original: BaseException | None) -> tuple[int, str]:
    """MariaDB's error number, or the SQLSTATE. PyMySQL 1.2 gives a SQLSTATE too, mostly HY000."""
    first = original.args[0] if original is not None and original.args else None
    state = getattr(original, "sqlstate", None)
    return first if isinstance(first, int) else 0, state if isinstance(state, str) else ""
