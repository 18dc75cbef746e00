"""The outbox on a database server: PostgreSQL, MariaDB, MySQL, over SQLAlchemy's pool.

Every connection has bounds, so that no worker, command or exit hangs on a half-open database:
connecting takes 5 s, a statement 30 s (15 on MariaDB and MySQL), and a peer that is gone is found
within 15 s.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from adroll_flask.forks import PerProcess
from adroll_flask.redaction import database_words

from . import schema
from .model import OutboxFailed
from .schema import Database, T, Tx, Values, filled, first_value

CONNECT: Final = 5
STATEMENT: Final = 30
#: Seconds within which a peer that is gone is found: by libpq's keep-alive. PyMySQL has none, and
#: waits so long for any statement.
GONE: Final = 15
_OF_PSYCOPG: Final[dict[str, Any]] = {
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": GONE * 1000,
    # Else it is the database's, or that of PGCLIENTENCODING; with SQL_ASCII texts are bytes.
    "client_encoding": "UTF8",
    # A plan made for an empty table would be kept for one with a million rows; poolers in front of
    # the server do not like prepared statements either.
    "prepare_threshold": None,
}
#: Seconds that a statement waits for a lock.
_LOCK_WAIT: Final = 10
#: What our statements on MariaDB and MySQL are written for, whatever the server's defaults are. A
#: comment that begins with M! is none for MariaDB; MySQL has no such variable.
_SESSION: Final = (
    f"SET SESSION innodb_lock_wait_timeout = {_LOCK_WAIT}, lock_wait_timeout = {_LOCK_WAIT},"
    " sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', sql_safe_updates = 0,"
    " sql_select_limit = 18446744073709551615, unique_checks = 1, completion_type = 0"
    f" /*M! , max_statement_time = {GONE} */"
)
_TRIES: Final = 4
_MYSQL_COLLISIONS: Final = frozenset({1020, 1205, 1213})
#: What a node of a Galera cluster answers that has lost the others.
_LEFT_CLUSTER: Final = 1047
#: What MariaDB's and MySQL's error numbers mean, and SQLSTATEs or their classes; the first counts.
_REASONS: Final = {
    # Also what took too long: 1969, 3024 and 57014.
    "locked": (_MYSQL_COLLISIONS | {1969, 3024}, ("55P03", "40001", "40P01", "57014")),
    "disk_full": ({1021, 1114, 28}, ("53100",)),
    "data": ({1264, 1366, 1406, 1048, 1300}, ("22", "23")),
    # Also what this user may not do: 1044, 1142, 1143 and 42501.
    "read_only": ({1044, 1142, 1143, 1290, 1792, 1836}, ("25006", "42501")),
    # From 2000 on: of the driver itself, which has lost the server.
    "unavailable": (
        {1040, 1045, 1053, 1203, 1226, _LEFT_CLUSTER, *range(2000, 2100)},
        ("08", "53", "57"),
    ),
}


#: On PostgreSQL, what holds for a transaction of ours and ends with it: behind a pooler the next
#: transaction on the same connection may be the shop's. An outbox is empty most of the time, and
#: PostgreSQL's statistics say so amid a backlog: it would read all that waits, and sort it, for
#: each claim of the first hundred. Without bitmap scans it follows the index.
_FOR_TRANSACTION: Final = {
    "enable_bitmapscan": "off",
    "lock_timeout": f"{_LOCK_WAIT}s",
    "statement_timeout": f"{STATEMENT}s",
    # Of a process that was stopped amid a transaction others would wait for the rows.
    "idle_in_transaction_session_timeout": f"{STATEMENT}s",
}
_SET: Final = ", ".join(f"set_config('{n}', '{it}', true)" for n, it in _FOR_TRANSACTION.items())
#: The first statement of a transaction of ours: the server's clock in seconds since the epoch,
#: whatever its or the host's time zone. (UNIX_TIMESTAMP(NOW()) goes through the session's time
#: zone and repeats an hour each autumn.)
_BEGIN: Final = {
    "postgresql": f"SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8), {_SET}",
    "mysql": "SELECT (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6)",
}


@cache
def _clause(dialect: str, statement: str) -> sa.TextClause:
    clause = sa.text(filled(dialect, statement))
    if ":ids" not in clause.text:
        return clause
    if dialect == "postgresql":
        return clause.bindparams(sa.bindparam("ids", type_=sa.ARRAY(sa.String())))
    return clause.bindparams(sa.bindparam("ids", expanding=True, type_=sa.String()))


class _ServerTx(Tx):
    def __init__(self, connection: sa.Connection, dialect: str, kept: float) -> None:
        self.connection = connection
        self.dialect = dialect
        self.now = float(first_value(self.run(_BEGIN[dialect], {}).all()))
        self.kept_until = self.now + kept

    def run(self, statement: str, values: dict[str, Any], /) -> Any:
        return self.connection.execute(_clause(self.dialect, statement), values)

    def many(self, statement: str, values: Sequence[Values], /) -> int:
        clause = _clause(self.dialect, statement).execution_options(preserve_rowcount=True)
        return int(self.connection.execute(clause, values).rowcount)


class ServerDatabase(Database):
    """The outbox's database on a server.

    :param url: SQLAlchemy's; nothing is opened before the first use.
    :param kept: seconds for which the row of an event that is over is kept.
    """

    def __init__(self, url: sa.URL, *, kept: float) -> None:
        self.url = url
        self._kept = kept
        self.dialect = "postgresql" if url.get_backend_name() == "postgresql" else "mysql"
        # A child must not say good-bye on its parent's connections: the server would end them. What
        # it inherited it never closes; should Python collect them, neither driver says it.
        self._engines = PerProcess(lambda: make_engine(url))
        self._engines.close_with(self, _close_connections)
        self._is_ready = False

    def write(self, function: Callable[[Tx], T], /) -> T:
        if not self._is_ready:
            self.create_tables()
        return self._run(function)

    read = write

    def _run(self, function: Callable[[Tx], T]) -> T:
        tries = 0
        while True:
            tries += 1
            try:
                with self._connect() as connection, connection.begin():
                    return function(_ServerTx(connection, self.dialect, self._kept))
            except (sa.exc.SQLAlchemyError, OSError) as exc:
                self._again(exc, tries)
            except (UnicodeError, OverflowError) as exc:
                # A value that the driver cannot send, as a lone surrogate.
                raise OutboxFailed("data", type(exc).__name__) from None

    def _connect(self) -> sa.Connection:
        try:
            return self._engines.own().connect()
        except (TypeError, RuntimeError) as exc:
            # The driver does not know an option of the URL, or lacks a package for a way to log in.
            raise OutboxFailed("unavailable", self._words(exc)) from None

    def _words(self, problem: BaseException) -> str:
        return database_words(problem, self.url.username, str(self.url.password or ""))

    def _again(self, exc: Exception, tries: int) -> None:
        """Return where another try may fare better, else raise."""
        original = getattr(exc, "orig", None) or exc
        number, state = _codes(original)
        reason = reason_of_server(exc)
        # The database gave up this transaction in favour of another.
        collided = number in _MYSQL_COLLISIONS or (not number and state in ("40001", "40P01"))
        # After a failover a connection to the former primary may go on, and only read. A new one
        # may lead to another node.
        is_of_former_primary = reason == "read_only" or number == _LEFT_CLUSTER
        needs_a_new_connection = _has_lost_its_connection(exc) or is_of_former_primary
        if tries < _TRIES and collided:
            time.sleep(random.uniform(0, 0.02) * tries)  # noqa: S311
        elif tries == 1 and (number == 1146 or state == "42P01"):  # there is no such table
            self.create_tables()
        elif tries == 1 and needs_a_new_connection:
            self.close()
        else:
            words = type(original).__name__ if reason == "data" else self._words(original)
            raise OutboxFailed(reason, words) from None

    def create_tables(self) -> None:
        def make(tx: Any) -> None:
            if not schema.is_made(tx.rows, self.dialect):
                schema.create_tables(tx.connection)

        self._run(make)
        self._is_ready = True

    def is_ready(self) -> bool:
        is_made = self._run(lambda tx: schema.is_made(tx.rows, self.dialect))
        if is_made:
            with suppress(schema.TakenBack):
                self._run(schema.try_rights)
        return is_made

    def close(self) -> None:
        _close_connections(self._engines.own())


def _close_connections(engine: sa.Engine) -> None:
    """Close all connections: those that are in use as soon as they are given back."""
    old = engine.pool
    engine.dispose()  # first: the new pool takes over the listeners that the old one has by now
    sa.event.listen(old, "checkin", lambda _connection, record: record.close())


def make_engine(url: sa.URL) -> sa.Engine:
    """An engine whose connections have the bounds of this module."""
    arguments: dict[str, Any] = {"connect_timeout": CONNECT}
    if url.get_backend_name() == "postgresql":
        begin = _begin_on_postgresql
        arguments |= _OF_PSYCOPG
        arguments["application_name"] = url.query.get("application_name", "adroll_outbox")
    else:
        begin = _begin_on_mysql
        # Whatever charset a shop's URL has: an order's id may hold any character.
        arguments |= {"read_timeout": GONE, "write_timeout": GONE, "charset": "utf8mb4"}
    pool = {"pool_size": 5, "max_overflow": 20, "pool_timeout": CONNECT, "pool_recycle": 1800}
    # A role or database may have another isolation as its default. Claims beside others would fail,
    # or lock the gaps between rows as well, so that others wait.
    engine = sa.create_engine(
        url, hide_parameters=True, connect_args=arguments, isolation_level="READ COMMITTED", **pool
    )
    # Before SQLAlchemy's own, which ask the server as well.
    sa.event.listen(engine, "connect", lambda connection, _: begin(connection), insert=True)
    return engine


def _begin_on_mysql(connection: Any) -> None:
    """Give MariaDB's or MySQL's *connection* what our statements are written for."""
    with connection.cursor() as cursor:
        cursor.execute(_SESSION)
        cursor.execute("SELECT @@max_allowed_packet")
        most = min(1_024_000, cursor.fetchone()[0] // 2)
    # PyMySQL puts up to 1,024,000 bytes of rows into one statement. To one that is longer than it
    # takes, the server closes the connection, at each try anew.
    connection.cursorclass = type("Cursor", (connection.cursorclass,), {"max_stmt_length": most})


def _begin_on_postgresql(connection: Any) -> None:
    """Refuse a database that cannot hold every text: an order's id, AdRoll's words.

    What is refused in a statement only would be put aside, or never be settled.
    """
    # SQL_ASCII keeps the bytes that it gets.
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in ("UTF8", "SQL_ASCII", None):
        connection.close()
        raise OutboxFailed("error", f"its encoding is {encoding}; an outbox takes ENCODING 'UTF8'")
    _limit_waits(connection)


def _limit_waits(connection: Any) -> None:
    """Let psycopg give up a server that takes bytes and does not answer.

    No time-out of libpq ends such a wait: the kernel acknowledges what a stopped server does not
    read. ``statement_timeout`` is measured by the server itself, so that it ends the wait only
    while the server runs. (From 3.3.6 on psycopg's ``wait`` has a time-out. It leaves the
    connection open, and the next statement would wait as long again.)
    """
    import psycopg

    wait = getattr(connection, "wait", None)
    if wait is None:
        return

    def limited(gen: Any) -> Any:
        deadline = time.monotonic() + STATEMENT + 0.5
        try:
            wanted = next(gen)
            while True:
                # psycopg sends 0 at intervals, so that a program can be interrupted.
                while not (ready := (yield wanted)):
                    if time.monotonic() > deadline:
                        connection.pgconn.finish()
                        raise psycopg.OperationalError("the server does not answer")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value

    connection.wait = lambda gen, **how: wait(limited(gen), **how)


# -- faults ----------------------------------------------------------------------------------


def _has_lost_its_connection(exc: BaseException) -> bool:
    """True where the connection is gone, so that a new one may fare better."""
    return isinstance(exc, sa.exc.DBAPIError) and bool(exc.connection_invalidated)


def reason_of_server(exc: BaseException) -> str:
    """The name of what went wrong, from a fixed set."""
    original = getattr(exc, "orig", None) or exc
    is_away = isinstance(original, OSError) or _has_lost_its_connection(exc)
    if is_away or isinstance(exc, sa.exc.TimeoutError):
        return "unavailable"
    number, state = _codes(original)
    for reason, (numbers, states) in _REASONS.items():
        is_this = number in numbers if number else state.startswith(states)
        if is_this:
            return reason
    if number or state:
        return "error"
    # A value that the driver cannot send, or no server to speak with at all.
    data = isinstance(original, UnicodeError | ValueError) or isinstance(exc, sa.exc.DataError)
    return "data" if data else "unavailable"


def _codes(original: BaseException | None) -> tuple[int, str]:
    """MariaDB's error number, or the SQLSTATE. PyMySQL 1.2 gives a SQLSTATE too, mostly HY000."""
    first = original.args[0] if original is not None and original.args else None
    state = getattr(original, "sqlstate", None)
    number = first if isinstance(first, int) else 0
    return number, state if isinstance(state, str) else ""
