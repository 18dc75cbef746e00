"""The outbox on a database server: PostgreSQL, MariaDB, MySQL, over SQLAlchemy's pool.

Every connection has bounds, so that no worker, command or exit hangs on a half-open database:
connecting takes 5 s, a statement 30 s, and a peer that is gone is found within 15 s.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from adroll_flask.forks import PerProcess, never_collect
from adroll_flask.redaction import database_words

from . import schema
from .model import OutboxFailed
from .schema import Database, T, Tx, Values, filled, one

CONNECT: Final = 5
STATEMENT: Final = 30
#: By libpq's names and the system's: a peer that is gone is found within 15 seconds.
_KEEPALIVE: Final = {
    "keepalives_idle": ("TCP_KEEPIDLE", 5),
    "keepalives_interval": ("TCP_KEEPINTVL", 5),
    "keepalives_count": ("TCP_KEEPCNT", 2),
    "tcp_user_timeout": ("TCP_USER_TIMEOUT", 15_000),
}
#: Seconds that a statement waits for a lock.
_LOCK_WAIT: Final = 10
_TRIES: Final = 4
_MYSQL_COLLISIONS: Final = frozenset({1020, 1205, 1213})
#: What MariaDB's and MySQL's error numbers mean, and SQLSTATEs or their classes; the first counts.
_REASONS: Final = {
    "locked": (_MYSQL_COLLISIONS, ("55P03", "40001", "40P01", "57014")),
    "disk_full": ({1021, 1114, 28}, ("53100",)),
    "data": ({1264, 1366, 1406, 1048, 1300}, ("22", "23")),
    "read_only": ({1290, 1836}, ("25006",)),
    # From 2000 on: of the driver itself, which has lost the server.
    "unavailable": ({1040, 1045, 1053, 1203, *range(2000, 2100)}, ("08", "53", "57")),
}


#: The first statement of a transaction of ours: the server's clock in seconds since the epoch,
#: whatever its or the host's time zone. (UNIX_TIMESTAMP(NOW()) goes through the session's time
#: zone and repeats an hour each autumn.) An outbox is empty most of the time, and PostgreSQL's
#: statistics say so amid a backlog: it would read all that waits, and sort it, for each claim of
#: the first hundred. Without bitmap scans it follows the index.
_BEGIN: Final = {
    "postgresql": (
        "SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision),"
        " set_config('enable_bitmapscan', 'off', true)"
    ),
    "mysql": "SELECT (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6)",
}


@cache
def _clause(dialect: str, statement: str) -> sa.TextClause:
    statement = filled(dialect, statement)
    clause = sa.text(statement)
    if ":ids" not in statement:
        return clause
    if dialect == "postgresql":
        return clause.bindparams(sa.bindparam("ids", type_=sa.ARRAY(sa.String())))
    return clause.bindparams(sa.bindparam("ids", expanding=True, type_=sa.String()))


class _ServerTx(Tx):
    def __init__(self, connection: sa.Connection, dialect: str, kept: float) -> None:
        self.connection = connection
        self.dialect = dialect
        self.now = float(one(self.run(_BEGIN[dialect], {}).all()))
        self.kept = self.now + kept

    def run(self, statement: str, values: dict[str, Any], /) -> Any:
        return self.connection.execute(_clause(self.dialect, statement), values)

    def many(self, statement: str, values: Sequence[Values], /) -> int:
        clause = _clause(self.dialect, statement).execution_options(preserve_rowcount=True)
        return int(self.connection.execute(clause, values).rowcount)


class ServerDatabase(Database):
    """Over SQLAlchemy.

    :param url: SQLAlchemy's; nothing is opened before the first use.
    :param kept: seconds for which the row of an event that is over is kept.
    """

    def __init__(self, url: sa.URL, *, kept: float) -> None:
        self.url = url
        self._kept = kept
        self.dialect = "postgresql" if url.get_backend_name() == "postgresql" else "mysql"
        # A parent's connections are the parent's, down to saying good-bye on them.
        self._engines = PerProcess(lambda: make_engine(url), left=never_collect)
        self._engines.close_with(self, _close)
        self._is_ready = False

    def engine(self) -> sa.Engine:
        """This process's engine."""
        return self._engines.own()

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
                with self.engine().connect() as connection, connection.begin():
                    return function(_ServerTx(connection, self.dialect, self._kept))
            except (sa.exc.SQLAlchemyError, OSError) as exc:
                self._again(exc, tries)
            except (UnicodeError, OverflowError) as exc:
                # A value that the driver cannot send, as a lone surrogate.
                raise OutboxFailed("data", type(exc).__name__) from None

    def _again(self, exc: Exception, tries: int) -> None:
        """Return where another try may fare better, else raise."""
        original = getattr(exc, "orig", None) or exc
        number, state = _codes(original)
        # The database gave up this transaction in favour of another.
        collided = number in _MYSQL_COLLISIONS or (not number and state in ("40001", "40P01"))
        if tries < _TRIES and collided:
            time.sleep(random.uniform(0, 0.02) * tries)  # noqa: S311
        elif tries == 1 and _lost(exc):
            self.close()
        elif tries == 1 and (number in (1146, 1054) or state in ("42P01", "42703")):  # no table
            self.create_tables()
        else:
            reason, detail = reason_of(exc), type(original).__name__
            if reason != "data":
                detail = database_words(original, self.url.username, str(self.url.password or ""))
            raise OutboxFailed(reason, detail) from None

    def create_tables(self) -> None:
        def make(tx: Any) -> None:
            if schema.version_in(tx.rows, self.dialect) is None:
                schema.create_tables(tx.connection)

        self._run(make)
        self._is_ready = True

    def has_tables(self) -> bool:
        return self._run(lambda tx: schema.version_in(tx.rows, self.dialect) is not None)

    def close(self) -> None:
        _close(self.engine())


def _close(engine: sa.Engine) -> None:
    """Close all connections: those that are in use as soon as they are given back."""
    old = engine.pool
    engine.dispose()  # whose new pool would have the old one's listeners
    sa.event.listen(old, "checkin", lambda _connection, record: record.close())


def make_engine(url: sa.URL) -> sa.Engine:
    """An engine whose connections have the bounds of this module."""
    arguments: dict[str, Any] = {"connect_timeout": CONNECT}
    if url.get_backend_name() == "postgresql":
        arguments |= {name: value for name, (_, value) in _KEEPALIVE.items()}
        arguments["application_name"] = url.query.get("application_name", "adroll_outbox")
        # A plan made for an empty table would be kept for one with a million rows; poolers in
        # front of the server do not like prepared statements either.
        arguments["prepare_threshold"] = None
        settings = [
            f"SET lock_timeout = {_LOCK_WAIT * 1000}",
            f"SET statement_timeout = {STATEMENT * 1000}",
            # Of a process that was stopped amid a transaction others would wait for the rows.
            f"SET idle_in_transaction_session_timeout = {STATEMENT * 1000}",
            # A role or database may have another default, under which claims beside others fail.
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
        ]
    else:
        arguments |= {"read_timeout": STATEMENT, "write_timeout": STATEMENT}
        # Whatever charset a shop's URL has: an order's id may hold any character.
        arguments["charset"] = "utf8mb4"
        settings = [
            f"SET SESSION innodb_lock_wait_timeout = {_LOCK_WAIT}",
            f"SET SESSION lock_wait_timeout = {_LOCK_WAIT}",
            # Under REPEATABLE READ a claim would lock the gaps between rows as well, and others
            # would wait for it.
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        ]
    pool = {"pool_size": 5, "max_overflow": 20, "pool_timeout": CONNECT, "pool_recycle": 1800}
    engine = sa.create_engine(url, hide_parameters=True, connect_args=arguments, **pool)

    # Before SQLAlchemy's own, which ask the server as well.
    @sa.event.listens_for(engine, "connect", insert=True)
    def connect(connection: Any, record: Any) -> None:
        if engine.name == "postgresql":
            _limit_waits(connection)
        _keep_alive(connection)
        cursor = connection.cursor()
        for statement in settings:
            cursor.execute(statement)
        cursor.close()
        connection.commit()

    return engine


def _limit_waits(connection: Any) -> None:
    """Let psycopg give a server up that takes bytes and does not answer.

    Neither of libpq's time-outs ends such a wait: the kernel acknowledges what a stopped server
    does not read, and ``statement_timeout``, which comes first where it works, is the server's own.
    (From 3.3.6 on ``wait`` has a time-out; it leaves the connection open, on which the next
    statement would wait as long again.)
    """
    import psycopg

    wait = connection.wait

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


def _keep_alive(connection: Any) -> None:
    """PyMySQL sets no keep-alive by itself; libpq was told above."""
    found = getattr(connection, "_sock", None)
    if not isinstance(found, socket.socket) or found.family == getattr(socket, "AF_UNIX", None):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.values():
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


# -- faults ----------------------------------------------------------------------------------


def _lost(exc: BaseException) -> bool:
    """True where the connection is gone, so that a new one may fare better."""
    return isinstance(exc, sa.exc.DBAPIError) and bool(exc.connection_invalidated)


def reason_of(exc: BaseException) -> str:
    """The name of what went wrong, from a fixed set."""
    original = getattr(exc, "orig", None) or exc
    if isinstance(original, OSError) or isinstance(exc, sa.exc.TimeoutError) or _lost(exc):
        return "unavailable"
    number, state = _codes(original)
    for reason, (numbers, states) in _REASONS.items():
        if number in numbers or (not number and state.startswith(states)):
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
    return first if isinstance(first, int) else 0, state if isinstance(state, str) else ""
