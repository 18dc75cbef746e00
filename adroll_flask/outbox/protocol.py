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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from adroll_flask.errors import AdRollError

State: TypeAlias = Literal["waiting", "claimed", "sending", "delivered", "dead"]
OutcomeKind: TypeAlias = Literal["delivered", "retry", "dead", "release", "claimed"]


class OutboxFailed(AdRollError):
    """The outbox did not take an event, or could not be worked with.

    :param reason: one of ``full`` (the size bound), ``disk_full``, ``too_large`` (one event),
        ``locked``, ``read_only``, ``corrupt``, ``unavailable`` (no connection, no file), ``data``
        (a value that the database cannot keep), ``error``.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"outbox {reason}" + (f": {detail}" if detail else ""))
        self.reason = reason


# Not frozen, like others that a report makes: an assignment by object.__setattr__ takes thrice
# the time.
@dataclass(slots=True)
class NewEvent:
    """One event on its way into the outbox.

    :param id: from :func:`.ids.new_id`.
    :param name: one of AdRoll's event names.
    :param advertisable_eid: ``""`` where it is not configured yet (see :meth:`Outbox.adopt`).
    :param key: deduplication key; ``None``: no deduplication.
    :param payload: the event's JSON object.
    :param occurred_at: seconds since the epoch.
    :param digest: a digest of value and currency, by which a second report of the same key with
        another value is noticed.
    """

    id: str
    name: str
    advertisable_eid: str
    dry_run: bool
    key: str | None
    payload: bytes = field(repr=False)
    occurred_at: float
    digest: str | None = None


@dataclass(slots=True)
class Put:
    """What became of a :meth:`Outbox.put`.

    :param status: ``queued`` or ``duplicate``.
    :param id: the id of the event that is kept.
    :param same: ``False``: this key was reported before with another value, which stays.
    :param spilled: why the spill file took it instead of the database, or ``None``.
    """

    status: Literal["queued", "duplicate"]
    id: str
    same: bool = True
    spilled: str | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """One event under a claim.

    :param created_at: when its age began to count (its report; for one retried by hand, the
        retry), seconds since the epoch by the outbox's clock.
    :param attempts: requests that it was blamed for so far.
    :param unsure: an earlier request with it may have reached AdRoll.
    """

    id: str
    name: str
    payload: bytes = field(repr=False)
    occurred_at: float
    created_at: float
    attempts: int
    unsure: bool
    key: str | None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease over some events, oldest first.

    :param claimed_at: by the outbox's clock, seconds since the epoch.
    """

    token: str
    events: tuple[Claimed, ...]
    claimed_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one claimed event.

    :param kind: ``delivered``; ``dead``; ``retry`` (to waiting, after *delay*); ``release`` (to
        waiting, at its old place in the queue); ``claimed`` (not sent after all, still ours: for
        the other half of a halved batch).
    :param error: AdRoll's words, bounded and redacted by the caller; kept with the event.
    :param reason: a short name from a fixed set.
    :param unsure: its request may have reached AdRoll; the mark stays for good.
    :param delay: seconds from now for ``retry``, at most an hour.
    :param blameless: the attempt is not counted. ``release`` and ``claimed`` never count one.
    """

    id: str
    kind: OutcomeKind
    error: str = ""
    reason: str = ""
    unsure: bool = False
    delay: float = 0.0
    blameless: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """AdRoll as all workers of this outbox see it.

    :param paused_for: seconds until the next request may go out; 0: now.
    :param held: why nothing is sent, or ``None``.
    :param fingerprint: keyed fingerprint of the configuration under which it was held.
    :param held_since: seconds since the epoch by the outbox's clock.
    :param failures: requests that failed since the last that succeeded; more than 0 means down.
    """

    paused_for: float = 0.0
    held: str | None = None
    fingerprint: str | None = None
    held_since: float | None = None
    failures: int = 0
    last_error: str | None = None
    last_error_at: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One event as the commands show it.

    :param payload: only from :meth:`Outbox.show`, and only while the event has it.
    :param due_at: of a waiting event: when it may be sent; of a claimed one: when the lease ends;
        of another: when the row may go.
    """

    id: str
    name: str
    state: State
    key: str | None
    advertisable_eid: str
    dry_run: bool
    occurred_at: float
    queued_at: float
    due_at: float
    attempts: int
    unsure: bool
    error: str
    reason: str
    settled_at: float | None
    payload: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Overview:
    """The outbox at a glance.

    :param counts: events by state; forgotten and removed ones are not among them.
    :param oldest_due: seconds since the oldest waiting event became due, or ``None``.
    :param rates: what was settled in the last ``minute``, ``hour`` and ``day``, each a mapping of
        ``delivered``, ``dead``, ``retried``, ``unsure`` to a count.
    :param holds: held intervals of the last day: begin, end or ``None``, reason.
    :param spilled_bytes: size of this host's spill file.
    """

    counts: Mapping[str, int]
    oldest_due: float | None
    rates: Mapping[str, Mapping[str, int]]
    destination: Destination
    holds: tuple[tuple[float, float | None, str], ...]
    spilled_bytes: int
    engine: str
    schema_version: int


class Outbox(Protocol):
    """Where events wait. Safe for threads, processes, hosts and forks.

    Every method but :meth:`load`, :meth:`put`, :meth:`wake` and :meth:`wait_for_work` raises
    :class:`OutboxFailed` where the database cannot be worked with; the caller waits and calls
    again.
    """

    def load(self) -> None:
        """Import all that is needed later; opens nothing."""
        ...

    def put(self, event: NewEvent, *, session: Any = None) -> Put:
        """Keep *event*; when this returns it is committed (with *session*: in its transaction).

        Waits 100 ms at most for a locked database, then the spill file takes the event.

        :param session: an SQLAlchemy session bound to the outbox's database; its owner commits.
        :raises OutboxFailed: neither database nor spill file took it, or the bound is reached.
        :raises ConfigurationError: *session* is bound to another database, or the table is
            missing there.
        """
        ...

    def put_dead(self, event: NewEvent, reason: str, error: str) -> str:
        """Keep an event that cannot be sent as a dead letter; it takes no key. Returns its id."""
        ...

    def claim(self, limit: int = 100, lease: float = 60.0) -> Claim | None:
        """Take the oldest due events for *lease* seconds; ``None`` where nothing is due.

        Also takes back what lapsed and reads this host's spill file.
        """
        ...

    def begin_sending(self, claim: Claim, ids: Sequence[str] | None = None) -> tuple[str, ...]:
        """Commit that a request with these events may leave now; returns the ids still ours.

        :param ids: a part of the claim; default: all of it.
        """
        ...

    def extend(self, claim: Claim, lease: float = 60.0) -> int:
        """Let the lease end *lease* seconds from now; returns how many events are still ours."""
        ...

    def settle(self, claim: Claim, outcomes: Sequence[Outcome]) -> int:
        """Record outcomes in one transaction; only events still of this claim. Returns how many."""
        ...

    def due(self, most: int) -> int:
        """How many events a claim could take now, counted up to *most*."""
        ...

    def waiting(self) -> int:
        """How many events are waiting, claimed or sending."""
        ...

    def oldest_due(self) -> float | None:
        """Seconds since the oldest waiting event became due; ``None`` where none is due."""
        ...

    def unheld_age(self, event: Claimed) -> float:
        """Seconds that *event* has waited, without those in which the destination was held."""
        ...

    def wait_for_work(self, timeout: float) -> None:
        """Return at *timeout* seconds, or sooner where work may have come or :meth:`wake` ran."""
        ...

    def wake(self) -> None:
        """End a :meth:`wait_for_work` in this process (any thread), or the next one at once."""
        ...

    def announce(self) -> None:
        """Tell idle workers, those of other hosts where the database can, that there is work."""
        ...

    def destination(self) -> Destination:
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

    def adopt(self, advertisable_eid: str) -> int:
        """Give events with a key that were reported without an advertisable EID this one."""
        ...

    def counts(self) -> dict[str, int]:
        """Events by state."""
        ...

    def overview(self) -> Overview:
        """Counts, rates, holds and the last error."""
        ...

    def list(self, state: State | None = None, limit: int = 100) -> tuple[Row, ...]:
        """The first *limit* events of *state*, without their payload."""
        ...

    def show(self, id: str) -> Row | None:
        """One event with its payload."""
        ...

    def retry(self, ids: Sequence[str] | None = None) -> int:
        """Let dead letters be sent again (``None``: all that have a payload); returns how many."""
        ...

    def drop(self, ids: Sequence[str]) -> int:
        """Remove waiting, delivered or dead events and free their keys; returns how many."""
        ...

    def mend(self, id: str, payload: bytes, key: str | None = None) -> bool:
        """Give a dead letter another payload and let it be sent; False: no such, or a duplicate."""
        ...

    def export(self, state: State | None = None, *, full: bool = False) -> Iterator[str]:
        """One JSON text per event; without *full* the visitor's values are replaced."""
        ...

    def forget(self, match: Callable[[dict[str, Any]], bool]) -> int:
        """Remove the data of all events not yet delivered whose payload *match* accepts.

        Their keys stay, so that a reload does not report the visitor again. Returns how many.
        """
        ...

    def housekeep(self) -> int:
        """Do one small step of cleaning; returns how many rows went (0: nothing left to do)."""
        ...

    def exists(self) -> bool:
        """False where nothing can be waiting: no SQLite file, no spill file. Never raises."""
        ...

    def create_tables(self) -> None:
        """Make or upgrade the tables; safe to run from many processes at once."""
        ...

    def close(self) -> None:
        """Close this process's connections; the next call opens them again."""
        ...
