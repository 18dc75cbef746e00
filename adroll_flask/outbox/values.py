"""What goes into an outbox and comes out of it: plain values, light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias

from adroll_flask.errors import AdRollError

from .silence import Silence

State: TypeAlias = Literal[
    "waiting", "claimed", "sending", "delivered", "dead", "held", "cancelled"
]
HistoryBy: TypeAlias = Literal["hour", "day", "event", "reason", "identifier"]
HistoryColumn: TypeAlias = Literal[
    "at", "event_name", "outcome", "reason", "identifiers", "currency"
]
OutcomeKind: TypeAlias = Literal["delivered", "retry", "dead", "release", "claimed"]


class OutboxFailed(AdRollError):
    """The outbox did not take an event, or could not be worked with.

    :param reason: one of ``full`` (the size bound), ``disk_full``, ``too_large`` (one event),
        ``locked``, ``read_only``, ``corrupt``, ``no_folder`` (the journal's cannot be made),
        ``unavailable`` (no connection, no file), ``data`` (a value that the database cannot keep),
        ``error``.
    """

    slug = "outbox-unavailable"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"outbox {reason}" + (f": {detail}" if detail else ""))
        self.reason = reason


# Not frozen, like others that a report makes: see :class:`.NewEvent`.
@dataclass(slots=True)
class Put:
    """What became of a :meth:`Outbox.put`.

    :param status: ``queued`` or ``duplicate``.
    :param id: the id of the event that is kept.
    :param same: ``False``: this key was reported before with another value, which stays.
    """

    status: Literal["queued", "duplicate"]
    id: str
    same: bool = True


@dataclass(frozen=True, slots=True)
class Decided:
    """What a process knows of an order that it releases or cancels.

    :param id: of its event, where this process held it lately.
    :param before: what this process decided on it before.
    """

    id: str | None = None
    before: Literal["", "release", "cancel"] = ""


@dataclass(frozen=True, slots=True)
class Claimed:
    """One event under a claim.

    :param created_at: its report; for one retried by hand, the retry; seconds since the epoch by
        the outbox's clock.
    :param attempts: requests that it was blamed for so far.
    :param unsure: an earlier request with it may have reached AdRoll.
    :param digest: see :class:`NewEvent`, as *identifiers*.
    :param refused_at: when AdRoll first answered a request with it and did not take it, by the
        outbox's clock: its age counts from then on. ``None``: never.
    :param trace: see :class:`NewEvent`.
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
    digest: str | None = None
    identifiers: int = 0
    refused_at: float | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease over some events, oldest first.

    :param claimed_at: by the outbox's clock, seconds since the epoch.
    :param begun: the events are in ``sending`` already; see :meth:`.Queue.claim`.
    """

    token: str
    events: tuple[Claimed, ...]
    claimed_at: float
    begun: bool = False


class Asked(NamedTuple):
    """What AdRoll said to a request.

    :param answer: the kind of the answer: ``throttled``, ``unsure``, ``lapsed`` …
    :param status: the HTTP status, where one came.
    :param words: AdRoll's, bounded and redacted by the caller.
    """

    answer: str
    status: int | None = None
    words: str = ""


class Attempt(NamedTuple):
    """One request that an event was answered for; see :class:`Asked`.

    :param at: seconds since the epoch by the outbox's clock.
    :param unsure: it may have reached AdRoll.
    """

    at: float
    answer: str
    status: int | None
    words: str
    unsure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one claimed event.

    :param kind: ``delivered``; ``dead``; ``retry`` (to waiting, after *delay*); ``release`` (to
        waiting, at its old place in the queue); ``claimed`` (not sent after all, still ours: for
        the other half of a halved batch).
    :param error: AdRoll's words, bounded and redacted by the caller; kept with the event.
    :param reason: a short name from a fixed set.
    :param unsure: its request may have reached AdRoll; the mark stays for good.
    :param delay: seconds from now for ``retry``, at most 15 minutes.
    :param blameless: the attempt is not counted. ``release`` and ``claimed`` never count one.
    :param refused: of a ``retry``: AdRoll was asked and did not take it; the first time is kept
        (:attr:`Claimed.refused_at`).
    :param asked: AdRoll's answer, which is kept with the event unless it is delivered.
    """

    id: str
    kind: OutcomeKind
    error: str = ""
    reason: str = ""
    unsure: bool = False
    delay: float = 0.0
    blameless: bool = False
    refused: bool = False
    asked: Asked | None = None


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

    :param payload: only from :meth:`.Admin.show`, and only while the event has it.
    :param due_at: of a waiting event: when it may be sent; of a claimed one: when the lease ends;
        of a held one: when the hold expires; of another: when the row may go.
    :param attempt_log: the last requests that AdRoll did not take, oldest first.
    :param digest: value and currency as a text, as they were reported.
    :param released_at: when its hold ended by a release; ``None``: it was not held, or is still.
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
    attempt_log: tuple[Attempt, ...] = ()
    released_at: float | None = None
    digest: str = ""
    payload: bytes | None = field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON takes it, without its payload."""
        fields = asdict(self)
        fields.pop("payload")
        fields["attempt_log"] = [attempt._asdict() for attempt in self.attempt_log]
        return fields


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One sum of the history.

    :param group: what it was asked by: the beginning of an hour or a day in seconds since the
        epoch, an event's name, a reason, or a mask of identifiers.
    :param outcome: ``delivered``, ``dead``, ``expired`` (AdRoll was asked for too long),
        ``suppressed``, ``duplicate``, ``cancelled`` (dropped or forgotten while it waited),
        ``invalid``, ``failed``.
    :param value: the sum of the events' values in *currency*.
    :param delays: of delivered events, how many took up to so many seconds from event to delivery
        (:data:`.schema.DELAYS`); the last number is of those that took longer.
    """

    group: int | str
    outcome: str
    currency: str
    events: int
    value: Decimal
    delays: tuple[int, ...]


class HistorySum(NamedTuple):
    """One sum of the history by several columns; a column that was not asked for is empty.

    :param at: the beginning of the hours summed up, seconds since the epoch.
    :param delays: as of :class:`HistoryRow`; empty where not asked for.
    """

    at: int = 0
    event_name: str = ""
    outcome: str = ""
    reason: str = ""
    identifiers: int = 0
    currency: str = ""
    events: int = 0
    value: Decimal = Decimal()
    delays: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Totals:
    """What monitoring asks for.

    :param sums: since the first event, by event, outcome, reason and currency; they only grow.
    :param due: events that could be sent now, counted up to 10,000.
    :param oldest_due: seconds since the oldest of them became due, or ``None``.
    :param silences: events of which too few reach AdRoll, as of the last five minutes.
    :param journal_bytes: what this host's journal holds that is not in the outbox yet.
    """

    sums: tuple[HistorySum, ...]
    due: int
    oldest_due: float | None
    destination: Destination
    silences: tuple[Silence, ...]
    journal_bytes: int


class KnownOrder(NamedTuple):
    """What the outbox knows of an order.

    :param digest: value and currency as a text, as they were reported.
    """

    id: str
    key: str | None
    state: State
    digest: str
    reason: str
    error: str
    occurred_at: float


class SuppressedOrder(NamedTuple):
    """Why an order was not reported, and when."""

    reason: str
    at: float


class DeadLetter(NamedTuple):
    """A dead letter as problems are made of it.

    :param whole: it has its content still; a forgotten visitor's has not.
    """

    id: str
    name: str
    reason: str
    error: str
    settled_at: float
    whole: bool


class Ended(NamedTuple):
    """Events of one day that could not be sent, for one reason; times in seconds since the epoch.

    :param first: the hour of the first one, as *last*.
    """

    name: str
    reason: str
    day: int
    events: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The outbox at a glance.

    :param counts: events by state; forgotten and removed ones are not among them.
    :param oldest_due: seconds since the oldest waiting event became due, or ``None``.
    :param rates: what was settled in the present ``hour`` and in the last 24 hours (``day``), each
        a mapping of ``delivered`` and ``dead`` to a count.
    :param holds: held intervals of the last day: begin, end or ``None``, reason.
    :param journal_bytes: what this host's journal holds that could not be taken in yet.
    :param verdicts: releases and cancellations whose hold has not come in.
    """

    counts: Mapping[str, int]
    oldest_due: float | None
    rates: Mapping[str, Mapping[str, int]]
    destination: Destination
    holds: tuple[tuple[float, float | None, str], ...]
    journal_bytes: int
    engine: str
    schema_version: int
    verdicts: int = 0
