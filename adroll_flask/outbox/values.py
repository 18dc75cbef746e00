"""What goes into an outbox and comes out of it: plain values, and the numbers that its parts share.

Light, so that anybody may import it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from adroll_flask.errors import AdRollError

from .silence import Silence

#: The states that people see, in the order of the numbers below.
State: TypeAlias = Literal[
    "waiting", "claimed", "sending", "delivered", "dead", "held", "cancelled"
]
HistoryColumn: TypeAlias = Literal[
    "at", "event_name", "outcome", "reason", "identifiers", "currency"
]
OutcomeKind: TypeAlias = Literal["delivered", "retry", "dead", "return", "claimed"]

WAITING: Final = 0
CLAIMED: Final = 1
SENDING: Final = 2
DELIVERED: Final = 3
DEAD: Final = 4
#: Reported, and not to be sent before it is released.
HELD: Final = 5
#: Held, and cancelled or never released: the key alone is kept.
CANCELLED: Final = 6
#: No event yet: a release or a cancellation that came before its order, under the order's key.
DECIDED: Final = 7

NAME: Final[Mapping[int, State]] = dict(enumerate(get_args(State)))
NUMBER: Final[Mapping[State, int]] = {name: number for number, name in NAME.items()}

#: Entries that one transaction takes in, unless asked otherwise.
BATCH: Final = 500
#: Bytes of one event; AdRoll's are about one thousand.
PAYLOAD_BYTES: Final = 1 << 20
#: What a row takes beside its payload, roughly.
ROW_BYTES: Final = 256
#: Characters of a deduplication key; MariaDB's index takes 3072 bytes in all.
KEY_LENGTH: Final = 255
#: Characters of AdRoll's words that are kept with an event.
ERROR_LENGTH: Final = 1000
#: The reason of an interval in which AdRoll did not answer, among those of stops.
AWAY: Final = "away"
#: Seconds that a retry may be put off; more comes from a clock that was wrong.
LONGEST_DELAY: Final = 900.0
#: Seconds that a lease may last; more comes from a clock that was wrong.
LONGEST_LEASE: Final = 120.0
#: Seconds that a pause of the destination may last; more comes from a clock that was wrong.
LONGEST_PAUSE: Final = 3600.0
#: Seconds by which a clock may be corrected without a lease or a pause ending early.
SKEW: Final = 1.0
#: Seconds without a sign of life after which a worker is missed: more than a request takes.
MISSED_AFTER: Final = 60.0
#: Seconds that a delivered event without a key is kept, for those who look at what was sent.
KEYLESS_KEPT: Final = 600.0

DAY: Final = 86_400.0


def clean_key(key: str) -> str:
    """*key* as it is stored: one that is too long or not printable is stored as its hash.

    PostgreSQL takes no NUL in a text, and no engine takes half a surrogate pair.
    """
    if len(key) <= KEY_LENGTH and key.isprintable():
        return key
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class OutboxFailed(AdRollError):
    """The outbox did not take an event, or could not be worked with.

    :param reason: one of ``full`` (the size bound), ``disk_full`` (also a quota), ``too_large``
        (one event), ``locked``, ``read_only``, ``corrupt``, ``no_folder`` (the journal's cannot be
        made), ``unavailable`` (no connection, no file), ``data`` (a value that the database cannot
        keep), ``error``.
    """

    slug = "outbox-unavailable"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"outbox {reason}" + (f": {detail}" if detail else ""))
        self.reason = reason


class OrderKey(NamedTuple):
    """By what two events are one: the columns of the unique index.

    :param key: the deduplication key, clean (:func:`clean_key`).
    """

    advertisable_eid: str
    dry_run: bool
    name: str
    key: str


# Not frozen, like others that a report makes: see :class:`.entries.NewEvent`.
@dataclass(slots=True)
class Put:
    """What became of a :meth:`.Outbox.put`.

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


# Not frozen, as what a report makes, since there is one for each event that is sent.
@dataclass(slots=True)
class Claimed:
    """One event under a claim.

    :param created_at: its report; for one retried by hand, the retry; seconds since the epoch by
        the outbox's clock.
    :param attempts: requests that it was blamed for so far.
    :param unsure: an earlier request with it may have reached AdRoll.
    :param digest: see :class:`.NewEvent`, as *identifiers*.
    :param refused_at: when AdRoll first answered a request with it and did not take it, by the
        outbox's clock: its age counts from then on. ``None``: never.
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


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease over some events of one account, oldest first; false where there are none.

    :param claimed_at: by the outbox's clock, seconds since the epoch.
    :param begun: the events are ``sending`` already; see :meth:`.Queue.claim`.
    :param more: events of this account, or entries of the journal, are left.
    """

    token: str
    events: tuple[Claimed, ...] = ()
    claimed_at: float = 0.0
    begun: bool = False
    more: bool = False

    def __bool__(self) -> bool:
        return bool(self.events)


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


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one claimed event.

    :param kind: ``delivered``; ``dead``; ``retry`` (to waiting, after *delay*); ``return`` (to
        waiting, at its old place in the queue); ``claimed`` (not sent after all, still ours: for
        the other half of a halved batch).
    :param error: AdRoll's words, bounded and redacted by the caller; kept with the event.
    :param reason: a short name from a fixed set.
    :param unsure: its request may have reached AdRoll; the mark stays for good.
    :param delay: seconds from now for ``retry``, at most 15 minutes.
    :param blameless: the attempt is not counted. ``return`` and ``claimed`` never count one.
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
    """AdRoll as all workers of one account see it.

    :param paused_for: seconds until the next request may go out; 0: now.
    :param stopped: why nothing is sent, or ``None``.
    :param fingerprint: keyed fingerprint of the configuration under which it was stopped.
    :param stopped_since: seconds since the epoch by the outbox's clock.
    :param failures: requests that failed since the last that succeeded; more than 0 means down.
    :param unseen_for: seconds since a worker that stays with the account last gave a sign of life;
        ``None``: none stays with it.
    """

    paused_for: float = 0.0
    stopped: str | None = None
    fingerprint: str | None = None
    stopped_since: float | None = None
    failures: int = 0
    last_error: str | None = None
    last_error_at: float | None = None
    unseen_for: float | None = None


def worst(destinations: Iterable[Destination]) -> Destination:
    """Of several, the one that is stopped; else the one that fails or pauses the most."""
    return max(
        destinations,
        key=lambda one: (one.stopped is not None, one.failures, one.paused_for),
        default=Destination(),
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One event as the commands show it.

    :param payload: only from :meth:`.Lookups.show`, and only while the event has it.
    :param due_at: of a waiting event: when it may be sent; of a claimed one: when the lease ends;
        of a held one: when the hold expires; of another: when the row may go.
    :param attempt_log: the last requests that AdRoll did not take, oldest first.
    :param digest: value and currency as a text, as they were reported.
    :param released_at: when its hold ended by a release; ``None``: it was not held, or is still.
    :param identifiers: mask of those that it carries (:attr:`.Coverage.mask`).
    :param whole: it has its content still; a forgotten visitor's has not.
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
    identifiers: int = 0
    whole: bool = True
    payload: bytes | None = field(default=None, repr=False)

    @property
    def why(self) -> str:
        """Why it is dead or was cancelled: the reason, and AdRoll's words or ours."""
        return ": ".join(part for part in (self.reason, self.error) if part)

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON takes it, without its payload."""
        fields = {**asdict(self)}
        del fields["payload"], fields["whole"]
        fields["attempt_log"] = [attempt._asdict() for attempt in self.attempt_log]
        return fields


class HistorySum(NamedTuple):
    """One sum of the history by several columns; a column that was not asked for is empty.

    :param at: the beginning of the hours summed up, seconds since the epoch.
    :param outcome: ``delivered``, ``dead``, ``expired`` (AdRoll was asked for too long),
        ``suppressed``, ``duplicate``, ``cancelled`` (dropped or forgotten while it waited),
        ``invalid``, ``failed``.
    :param identifiers: mask of those that the events carry (:attr:`.Coverage.mask`).
    :param value: the sum of the events' values in *currency*.
    :param delays: of delivered events, how many took up to so many seconds from event to delivery
        (:data:`.schema.DELAYS`); the last number is of those that took longer. Empty where not
        asked for.
    :param dry_run: of what is not over: that AdRoll will only check it; in the history that is an
        outcome.
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
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """What monitoring asks for.

    :param sums: since the first event, by event, outcome, reason and currency; they only grow.
    :param due: events that could be sent now, counted up to 10,000.
    :param oldest_due: seconds since the oldest of them became due, or ``None``.
    :param destinations: AdRoll as the workers of each account see it.
    :param silences: events that have stayed away, as of the last five minutes.
    :param journal_bytes: what this host's journal holds that is not in the outbox yet.
    """

    sums: tuple[HistorySum, ...]
    due: int
    oldest_due: float | None
    destinations: Mapping[str, Destination]
    silences: tuple[Silence, ...]
    journal_bytes: int

    @property
    def destination(self) -> Destination:
        """The worst of the destinations."""
        return worst(self.destinations.values())


class SuppressedOrder(NamedTuple):
    """Why an order was not reported, and when."""

    reason: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The outbox at a glance.

    :param counts: events by state; forgotten and removed ones are not among them.
    :param accounts: events that wait, by account.
    :param oldest_due: seconds since the oldest waiting event became due, or ``None``.
    :param rates: of what happened in the present ``hour`` and the last 24 hours (``day``), each
        a mapping of ``delivered`` and ``dead`` to a count.
    :param destinations: AdRoll as the workers of each account see it.
    :param stops: intervals of the last day in which an account was stopped, or AdRoll was away:
        account, begin, end or ``None``, reason.
    :param journal_bytes: what this host's journal holds that could not be taken in yet.
    :param verdicts: releases and cancellations whose hold has not come in.
    """

    counts: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(NUMBER, 0))
    accounts: Mapping[str, int] = field(default_factory=dict)
    oldest_due: float | None = None
    rates: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    destinations: Mapping[str, Destination] = field(default_factory=dict)
    stops: tuple[tuple[str, float, float | None, str], ...] = ()
    journal_bytes: int = 0
    engine: str
    schema_version: int
    verdicts: int = 0
