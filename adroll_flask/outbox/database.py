"""A database as the outbox sees it: functions that run in transactions, with one kind of statement.

:mod:`.sqlite` and :mod:`.server` are the two there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

#: Parameters of a statement.
Values = Mapping[str, Any]


class Tx(Protocol):
    """A transaction, and the outbox's time in it (seconds since the epoch).

    Statements are templates of :mod:`.dialect`.
    """

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql``."""
        ...

    @property
    def now(self) -> float:
        """The database's clock, where it has one."""
        ...

    def execute(self, statement: str, /, **values: Any) -> int:
        """Run a statement that changes rows; how many it met."""
        ...

    def many(self, statement: str, values: Sequence[Values], /) -> int:
        """Run a statement once for each of *values*; how many rows it met in all."""
        ...

    def rows(self, statement: str, /, **values: Any) -> list[Any]:
        """The rows of a query, as tuples."""
        ...


class Database(Protocol):
    """Runs functions in transactions, again where the connection was lost or rows collided.

    A function may therefore run twice; one whose commit was lost on its way is run after it had
    taken effect. The functions of this package are written so that this does no harm.
    """

    dialect: str

    def read(self, function: Callable[[Tx], T], /) -> T:
        """Run *function* in a transaction that only reads.

        :raises OutboxFailed: the database cannot be worked with.
        """
        ...

    def write(self, function: Callable[[Tx], T], /) -> T:
        """Run *function* in a transaction and commit it.

        :raises OutboxFailed: the database cannot be worked with.
        """
        ...

    def create_tables(self) -> None:
        """Make or upgrade the tables, whatever was done before."""
        ...

    def exists(self) -> bool:
        """False where there is no database yet, so that nothing can be in it. Never raises."""
        ...

    def tidy(self) -> int:
        """One small step of keeping files small; how much was done."""
        ...

    def close(self) -> None:
        """Close this process's connections; the next call opens them again."""
        ...


def one(rows: Sequence[Any]) -> Any:
    """The first row's first value, or ``None``."""
    return rows[0][0] if rows else None


def key_in(dialect: str, key: str | None) -> str | bytes | None:
    """A deduplication key as a parameter: MariaDB and MySQL keep it as bytes."""
    return key.encode() if key is not None and dialect == "mysql" else key


def key_out(value: Any) -> str | None:
    """A deduplication key as it comes out of a row."""
    return bytes(value).decode() if isinstance(value, bytes | bytearray | memoryview) else value
