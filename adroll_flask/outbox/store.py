"""One outbox's database: its engine, its transactions, its clock."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    and_,
    func,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

from . import engines, schema
from .fork import immortalise
from .protocol import OutboxFailed
from .sqlite import WORKER_PATIENCE, SqliteFile
from .states import VERSION, seq_of

if TYPE_CHECKING:
    from sqlalchemy import URL

T = TypeVar("T")

_TRIES: Final = 4
#: Seconds after which a request tries no more.
_HASTE: Final = 0.5


@dataclass(slots=True)
class Tx:
    """A transaction and the outbox's time in it, seconds since the epoch."""

    connection: Connection
    now: float


class Store:
    """Runs functions in transactions, again where the connection was lost or rows collided.

    A function may therefore run twice; one whose commit was lost on its way is run after it had
    taken effect. The functions of this package are written so that this does no harm.

    :param where: the SQLite file, or the URL of a server's database.
    :param clock: tells the time on SQLite; servers have their own.
    """

    def __init__(self, where: SqliteFile | URL, *, clock: Callable[[], float]) -> None:
        self._where = where
        self.clock = clock
        self._pid = os.getpid()
        self._engines = self._no_engines()
        self._ready = False
        self._inode = (0, 0)
        self.file: SqliteFile | None = None
        if isinstance(where, SqliteFile):
            self.dialect = "sqlite"
            self.file = where
            # Weakly: the engines below hold the file, and must not hold this through it.
            close = weakref.WeakMethod(self.close)
            self.file.on_renew(lambda: (found := close()) and found())
        else:
            self.dialect = "postgresql" if where.get_backend_name() == "postgresql" else "mysql"
        self.tables = schema.Tables(self.dialect)

    @property
    def event(self) -> Table:
        """The table of events."""
        return self.tables.event

    def engine(self, *, hasty: bool = False) -> Engine:
        """This process's engine; *hasty*: one that waits no longer than a request may."""
        if self._pid != os.getpid():
            # The parent's connections are the parent's, down to saying good-bye on them.
            immortalise(self._engines)
            self._engines = self._no_engines()
            self._pid = os.getpid()
        engine = self._engines.get(hasty)
        if engine is None:
            if isinstance(self._where, SqliteFile):
                made = engines.sqlite_engine(self._where)
            else:
                made = engines.server_engine(self._where, hasty=hasty)
            engine = self._engines.setdefault(hasty, made)
        return engine

    def _no_engines(self) -> dict[bool, Engine]:
        """A place for this process's engines, whose connections are closed when an app is dropped:
        Python 3.13 warns of one that is collected open."""
        made: dict[bool, Engine] = {}
        weakref.finalize(self, _dispose, made, os.getpid()).atexit = False
        return made

    def close(self) -> None:
        """Close this process's idle connections; the next call opens them again."""
        if self._pid == os.getpid():
            for engine in list(self._engines.values()):
                engine.dispose()

    def read(self, function: Callable[[Tx], T]) -> T:
        """Run *function* in a transaction that only reads."""
        return self._run(function, reads=True)

    def write(self, function: Callable[[Tx], T], *, hasty: bool = False) -> T:
        """Run *function* in a transaction and commit it.

        :raises OutboxFailed: the database cannot be worked with.
        """
        return self._run(function, reads=False, hasty=hasty)

    def _run(self, function: Callable[[Tx], T], *, reads: bool, hasty: bool = False) -> T:
        tries = 0
        began = time.monotonic()
        while True:
            tries += 1
            try:
                self.prepare()
                with self._alone(reads=reads):
                    return self._once(function, reads=reads, hasty=hasty)
            except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
                if hasty and time.monotonic() - began > _HASTE:
                    tries = _TRIES  # whoever waited once need not wait twice
                self._again(exc, tries, hasty=hasty)

    def _once(self, function: Callable[[Tx], T], *, reads: bool, hasty: bool) -> T:
        engine = self.engine(hasty=hasty)
        with engine.connect() as connection:
            if reads:
                connection = connection.execution_options(**{engines.READS: True})
            with connection.begin():
                return function(Tx(connection, self.now(connection)))

    def _alone(self, *, reads: bool) -> AbstractContextManager[None]:
        if self.file is None:
            return nullcontext()
        return self.file.beside() if reads else self.file.exclusively()

    def _again(self, exc: Exception, tries: int, *, hasty: bool) -> None:
        """Return where another try may fare better, else raise."""
        original = getattr(exc, "orig", None) or exc
        if tries < _TRIES:
            if self.file is not None and self.file.recover(original):
                self.close()
                return
            if engines.collided(exc) and not hasty:
                time.sleep(random.uniform(0, 0.02) * tries)  # noqa: S311
                return
            if tries == 1 and engines.lost(exc):
                self.close()
                return
            if tries == 1 and engines.table_missing(original):
                self._ready = False
                return
        raise OutboxFailed(engines.reason_of(exc), type(original).__name__) from None

    def prepare(self) -> None:
        """Make the tables where they are missing; once per process and file."""
        if self.file is not None:
            inode = self.file.inode()
            if inode != self._inode:
                # The file that our connections have open is not there any more.
                self.close()
                with self.file.exclusively():
                    self.file.connect(WORKER_PATIENCE).close()
                self._inode = self.file.inode()
            return
        if not self._ready:
            self.create_tables()
            self._ready = True

    def create_tables(self) -> None:
        """Make or upgrade the tables, whatever was done before."""
        if self.file is not None:
            with self.file.exclusively():
                self.file.connect(WORKER_PATIENCE).close()
            return
        engine = self.engine()
        with engine.connect() as connection, connection.begin():
            version = schema.schema_version(connection)
        if version is None or version < VERSION:
            with engine.connect() as connection, connection.begin():
                schema.create_tables(connection)

    def now(self, connection: Connection) -> float:
        """The outbox's time: the database's own clock where it has one."""
        if self.file is not None:
            return self.clock()
        return float(connection.scalar(select(engines.database_time(self.dialect))) or 0.0)

    def time(self) -> ColumnElement[float] | float:
        """The outbox's time for use within a statement."""
        if self.file is not None:
            return self.clock()
        return engines.database_time(self.dialect)

    @property
    def place(self) -> Column[Any]:
        """The primary key: of rows that a query has just found, the cheapest name."""
        return self.event.c.id if self.file is None else self.event.c.seq

    def these(self, ids: Sequence[str]) -> ColumnElement[bool]:
        """The condition that a row is one of *ids*."""
        column = self.event.c
        if self.file is None:
            return and_(column.id.in_(ids))
        numbers = [seq_of(id) for id in ids]
        places = [place for number in numbers for place in (number, -number)]
        # One parameter each: a list of 200 costs SQLAlchemy more than SQLite takes for all of it.
        return and_(column.seq.in_(_elements(places)), column.id.in_(_elements(ids)))


def _dispose(made: dict[bool, Engine], pid: int) -> None:
    if pid == os.getpid():
        for engine in made.values():
            engine.dispose()
    else:
        immortalise(made)


def _elements(values: Sequence[int] | Sequence[str]) -> Select[tuple[Any]]:
    """*values* as a subquery of SQLite's."""
    return select(func.json_each(json.dumps(list(values))).table_valued("value").c.value)
