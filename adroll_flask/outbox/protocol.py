"""What an outbox takes, gives and promises; light, so that anybody may import it.

An event passes these states::

    waiting -> claimed -> sending -> delivered
       ^          |          |
       |          |          +-> dead      refused for good, too old, or dropped
       +----------+----------+             a lease lapsed, or AdRoll took nothing

``sending`` is committed before the first byte leaves, so that after a kill the outbox knows which
events may have reached AdRoll: those and no others are *unsure*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from .lookups import DeadLetterLookup, Figures, OrderLookup, TrialLookup
from .record_format import BATCH, NewEvent, Record, Verdict
from .values import (
    Asked,
    Attempt,
    Claim,
    Claimed,
    DeadLetter,
    Decided,
    Destination,
    Ended,
    HistoryBy,
    HistoryColumn,
    HistoryRow,
    HistorySum,
    KnownOrder,
    OutboxFailed,
    Outcome,
    OutcomeKind,
    Overview,
    Put,
    Row,
    State,
    SuppressedOrder,
    Totals,
)
from .wake import Bell

__all__ = [
    "Admin",
    "Asked",
    "Attempt",
    "Claim",
    "Claimed",
    "DeadLetter",
    "DeadLetterLookup",
    "Decided",
    "Destination",
    "DestinationState",
    "Ended",
    "Figures",
    "HistoryBy",
    "HistoryColumn",
    "HistoryRow",
    "HistorySum",
    "Housekeeping",
    "Intake",
    "KnownOrder",
    "OrderLookup",
    "OutboxFailed",
    "Outcome",
    "OutcomeKind",
    "Overview",
    "Put",
    "Queue",
    "Row",
    "State",
    "SuppressedOrder",
    "Totals",
]


class Intake(Protocol):
    """What a report needs of an outbox. Opens no database, save with *session*."""

    def put(self, event: NewEvent, *, session: Any = None) -> Put:
        """Keep *event*; when this returns no kill loses it (with *session*: once that commits).

        ``duplicate`` is said where this process has seen the key lately. What only the database
        can know is said there, counted and shown.

        :param session: an SQLAlchemy session bound to the outbox's database; its owner commits.
        :raises OutboxFailed: the journal did not take it, or the bound is reached.
        :raises ConfigurationError: *session* is bound to another database, or the table is
            missing there.
        """
        ...

    def put_dead(self, event: NewEvent, reason: str, error: str) -> Put:
        """Keep an event that cannot be sent as a dead letter. Its key is taken, as :meth:`put`'s.

        :raises OutboxFailed: as :meth:`put`.
        """
        ...

    def note_failure(self, name: str, reason: str) -> None:
        """Count a report that failed; kept in memory until the journal takes something again."""
        ...

    def decide(self, verdict: Verdict, *, session: Any = None) -> Decided:
        """Keep that a held event is to be sent, or forgotten; what this process knows of it.

        :param session: as for :meth:`put`.
        :raises OutboxFailed: as for :meth:`put`, as does :class:`ConfigurationError`.
        """
        ...

    def record(self, record: Record) -> None:
        """Keep something else that the outbox has to know: a withdrawal, a suppressed report.

        :raises OutboxFailed: the journal did not take it.
        """
        ...

    def record_file(self, token: str, frames: Iterable[bytes], length: int) -> None:
        """Keep many records, as :meth:`.JournalWriter.append_file` does: an import's.

        :raises OutboxFailed: none of them is kept.
        """
        ...


class Queue(Protocol):
    """What delivery needs of an outbox: events, under leases."""

    def claim(self, limit: int = 100, lease: float = 60.0, *, begin: bool = False) -> Claim | None:
        """Take the oldest due events for *lease* seconds; ``None`` where nothing is due.

        Also takes in what this host's journal holds, and takes back what lapsed.

        :param begin: the events are ``sending`` with this very commit, as :meth:`begin_sending`
            would make them: for a request that leaves at once.
        """
        ...

    def take_in(self, most: int = BATCH, *, patience: float = 0.0) -> int:
        """Take in what this host's journal holds, at most *most*; how many records there were.

        :param patience: seconds to wait where another process is at it.
        """
        ...

    def begin_sending(self, claim: Claim, ids: Sequence[str] | None = None) -> tuple[str, ...]:
        """Commit that a request with these events may leave now; returns the ids still ours.

        An event whose lease is over is not, even where nobody else has claimed it yet: it would be
        taken back and sent by another worker while our request is under way.

        :param ids: a part of the claim; default: all of it.
        """
        ...

    def extend(self, claim: Claim, lease: float = 60.0) -> int:
        """Let the lease end *lease* seconds from now; returns how many events are still ours.

        None where it has ended.
        """
        ...

    def settle(self, claim: Claim, outcomes: Sequence[Outcome]) -> int:
        """Record outcomes in one transaction; only events still of this claim. Returns how many."""
        ...

    def due(self, most: int) -> int:
        """How many events a claim could take now, counted up to *most*."""
        ...

    def waiting(self) -> int:
        """How many events are waiting, claimed, sending, or held and released since."""
        ...

    def oldest_due(self) -> float | None:
        """Seconds since the oldest waiting event became due; ``None`` where none is due."""
        ...

    def announce(self) -> None:
        """Tell idle workers, those of other hosts where the database can, that there is work."""
        ...

    def adopt(self, advertisable_eid: str) -> int:
        """Give events with a key that were reported without an advertisable EID this one."""
        ...


class DestinationState(Protocol):
    """AdRoll as all workers of an outbox see it."""

    def state(self) -> Destination:
        """The destination's present state."""
        ...

    def pause(self, seconds: float, error: str = "") -> None:
        """Let no worker send for *seconds*; a longer pause stays. Ends a probe."""
        ...

    def hold(self, reason: str, fingerprint: str, error: str = "") -> bool:
        """Stop sending until :meth:`end_hold`; ``True`` where this began it. Ends a probe."""
        ...

    def end_hold(self) -> bool:
        """Send again; ``True`` where this ended a hold. Ends a probe."""
        ...

    def failed(self, error: str) -> int:
        """Count a failed request; returns how many in a row. Call :meth:`pause` after it."""
        ...

    def succeeded(self) -> None:
        """The destination answers: forget failures, end a probe. Cheap where there were none."""
        ...

    def try_probe(self, fingerprint: str, lease: float = 60.0) -> bool:
        """Claim the one probe that may be under way while the destination is down or held.

        False while paused. It ends with :meth:`succeeded`, :meth:`pause`, :meth:`hold`,
        :meth:`end_hold` or after *lease* seconds.
        """
        ...

    def take_slot(self, per_second: float) -> float:
        """Take the next request's place; 0: send now, else ask again in so many seconds."""
        ...

    def unheld_age(self, event: Claimed) -> float:
        """Seconds since AdRoll first did not take *event*, without those of holds; else 0."""
        ...


class Admin(Protocol):
    """What people and commands do with an outbox."""

    def counts(self) -> dict[str, int]:
        """Events by state."""
        ...

    def overview(self) -> Overview:
        """Counts, rates, holds and the last error."""
        ...

    def list(
        self,
        state: State | None = None,
        limit: int = 100,
        name: str | None = None,
        since: float | None = None,
        *,
        newest: bool = False,
    ) -> tuple[Row, ...]:
        """The first *limit* events of *state*, without their payload; those to be sent next first.

        :param since: only those reported since then, seconds since the epoch.
        :param newest: the newest first.
        """
        ...

    def show(self, id: str) -> Row | None:
        """One event with its payload."""
        ...

    def find(self, verdict: Verdict) -> Row | None:
        """The event that *verdict* is about, without its payload."""
        ...

    def retry(self, ids: Sequence[str] | None = None) -> int:
        """Let dead letters be sent again (``None``: all that have a payload); returns how many."""
        ...

    def drop(self, ids: Sequence[str]) -> int:
        """Remove waiting, delivered or dead events and free their keys; returns how many."""
        ...

    def fix(
        self,
        id: str,
        payload: bytes,
        key: str | None = None,
        *,
        digest: str | None = None,
        identifiers: int = 0,
    ) -> bool:
        """Give a dead letter another payload and let it be sent; False: no such, or a duplicate.

        :param key: the new deduplication key; ``None``: the one that it has.
        :param digest: see :class:`NewEvent`, as *identifiers*.
        """
        ...

    def export(self, state: State | None = None, *, full: bool = False) -> Iterator[str]:
        """One JSON text per event; without *full* the visitor's values are replaced."""
        ...

    def forget(self, match: Callable[[dict[str, Any]], bool]) -> int:
        """Remove the data of all events not yet delivered whose payload *match* accepts.

        Their keys stay, so that a reload does not report the visitor again. Returns how many.
        """
        ...


class Housekeeping(Protocol):
    """What keeps an outbox's database small, whole and up to date."""

    def step(self) -> int:
        """Do one small step of cleaning; returns how many rows went (0: nothing left to do)."""
        ...

    def backup(self, target: Path) -> None:
        """Copy a SQLite outbox into the file *target*, with a mark that says so.

        What waits in the copy becomes dead letters when it is opened as an outbox.

        :raises NotImplementedError: the outbox is on a server.
        :raises OSError: the file is there already, or cannot be made.
        """
        ...

    def lay_to_rest(self) -> int:
        """Make dead letters, ``restored``, of all that could be sent; returns how many.

        For an outbox that was restored from a copy without a mark: the original may have sent them.
        """
        ...

    def create_tables(self) -> None:
        """Make or upgrade the tables; safe to run from many processes at once."""
        ...


class Outbox(Intake, Protocol):
    """Where events wait. Safe for threads, processes, hosts and forks.

    Its parts know the database: their methods raise :class:`OutboxFailed` where it cannot be worked
    with; the caller waits and calls again.
    """

    @property
    def bell(self) -> Bell:
        """Ends a wait for work in this process."""
        ...

    @property
    def queue(self) -> Queue:
        """The way of events to AdRoll."""
        ...

    @property
    def destination(self) -> DestinationState:
        """AdRoll as all workers see it."""
        ...

    @property
    def admin(self) -> Admin:
        """What people and commands do."""
        ...

    @property
    def figures(self) -> Figures:
        """The history in sums, and what is not over yet."""
        ...

    @property
    def housekeeping(self) -> Housekeeping:
        """Cleaning, tables, copies."""
        ...

    @property
    def orders(self) -> OrderLookup:
        """Looks up orders by their keys."""

    @property
    def dead_letters(self) -> DeadLetterLookup:
        """Looks up what could not be sent."""

    @property
    def trials(self) -> TrialLookup:
        """The last test events."""

    def load(self) -> None:
        """Import all that is needed later; opens nothing."""

    def exists(self) -> bool:
        """False where nothing can be waiting: no journal, no SQLite file. Never raises."""

    def close(self) -> None:
        """Close this process's connections; the next call opens them again."""
