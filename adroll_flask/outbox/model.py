"""What goes into an outbox and comes out of it: plain values, and what its parts share.

Light, so that anybody may import it.

What a report makes is an entry, one line of the journal or of the inbox: a checksum, JSON, the end
of the line. A line is ``<CRC-32 of what follows, 8 hex digits> <header>\\n``. The header is a JSON
array of the entry's own fields; behind an event's follows, after a tab, the event's JSON as it was
made, which nobody reads before it is sent. JSON as we write it has no tab and no line break: a
reader that met damage finds the next entry at the next line.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from decimal import Decimal
from enum import IntEnum
from functools import cache
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from adroll_flask.errors import AdRollError, ConfigurationError
from adroll_flask.forks import PerProcess

HistoryColumn: TypeAlias = Literal[
    "at", "advertisable_eid", "event_name", "outcome", "reason", "identifiers", "currency"
]
Level: TypeAlias = Literal["", "low", "silent"]
OutcomeKind: TypeAlias = Literal["delivered", "retry", "dead", "return", "claimed"]


class State(IntEnum):
    """Where an event stands: the number in its row, and the name that people see."""

    waiting = 0
    claimed = 1
    sending = 2
    delivered = 3
    dead = 4
    #: Reported, and not to be sent before it is released.
    held = 5
    #: Cancelled before it was delivered, or held and never released: the key alone is kept.
    cancelled = 6
    #: No event yet: a release or a cancellation that came before its order, under the order's key.
    decided = 7


#: States of events that are not sent yet, or perhaps not.
UNSENT: Final = (State.waiting, State.claimed, State.sending)
#: States of events that somebody has claimed.
LEASED: Final = (State.claimed, State.sending)
#: Names of the states of events.
STATES: Final = tuple(state.name for state in State if state is not State.decided)

#: Entries that one transaction takes in, unless asked otherwise.
BATCH: Final = 500
#: Characters of a deduplication key, as its column has; MariaDB's index takes 3072 bytes in all.
KEY_LENGTH: Final = 255
#: Characters of AdRoll's words that are kept with an event.
ERROR_LENGTH: Final = 1000
#: Seconds by which a clock may be corrected without a lease or a pause ending early.
SKEW: Final = 1.0

#: Reasons of dead letters that AdRoll may have. They are sent again only where somebody names the
#: reason or their ids.
RISKY: Final = ("restored", "moved", "unsure", "before_outbox")
#: The reason of delivered events where AdRoll's answer was a success and named errors.
ERRORS_NAMED: Final = "errors_named"
#: Reasons of dead letters that nobody decided on in time: AdRoll never had them, or may have them.
GIVEN_UP: Final = ("given_up", "given_up_unsure")


class OutboxFailed(AdRollError):
    """The outbox did not take an event, or could not be worked with.

    :param reason: one of ``full`` (the size bound), ``disk_full`` (also a quota), ``too_large``
        (one event), ``locked``, ``read_only``, ``corrupt``, ``no_folder`` (the journal's cannot be
        made), ``foreign`` (a :class:`ForeignFile`), ``unavailable`` (no connection, no file),
        ``data`` (a value that the database cannot keep), ``error``.
    """

    slug = "outbox-unavailable"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"outbox {reason}" + (f": {detail}" if detail else ""))
        self.reason = reason


class ForeignFile(OutboxFailed, ConfigurationError):
    """The SQLite file of the outbox is not one that we may move, empty or make anew.

    :param variant: of the finding ``outbox-foreign``: ``"no-database"``; ``"log"``, where only
        the log of a database is there; empty: a damaged one that is not ours alone.
    :param problem: what is wrong, with the file's path.
    """

    slug = "outbox-foreign"

    def __init__(self, variant: str, problem: str) -> None:
        ConfigurationError.__init__(self, "ADROLL_OUTBOX_URL", problem, slug=self.slug)
        self.reason = "foreign"
        self.variant = variant


class OrderKey(NamedTuple):
    """By what two events are one: the columns of the unique index.

    :param key: the deduplication key in the form of
        :func:`adroll_flask.events.dedupe_key.kept_key`: printable, and at most
        :data:`KEY_LENGTH` characters.
    """

    advertisable_eid: str
    dry_run: bool
    name: str
    key: str


class Attempt(NamedTuple):
    """One request that an event was answered for.

    :param at: seconds since the epoch. The outbox sets it, by its own clock.
    :param answer: the kind of the answer: ``throttled``, ``unsure``, ``lapsed`` …
    :param status: the HTTP status, where one came.
    :param words: AdRoll's, bounded and redacted by the caller.
    :param unsure: it may have reached AdRoll.
    """

    at: float
    answer: str
    status: int | None
    words: str
    unsure: bool


#: Seconds by which the times in an event's id (by the host's clock) and in its row (by the
#: outbox's) may differ, where both are the report's.
_SAME_REPORT: Final = 60.0


# Not frozen: there is one for each event that is sent, and a frozen one takes longer to make.
@dataclass(slots=True)
class BriefRow:
    """One event of the outbox: what its request needs, and what the history counts of it.

    It has no more than that: each column that is read takes time.

    :param place: by what the database finds the row at once: its number on SQLite, else its id.
    :param queued_at: when it was reported, or last retried by hand; seconds since the epoch by the
        outbox's clock.
    :param attempts: requests that it was blamed for so far.
    :param unsure: an earlier request with it may have reached AdRoll.
    :param digest: value and currency as a text; empty: it has none, or they were erased.
    :param identifiers: mask of those that it carries (:attr:`.Coverage.mask`), and
        :data:`IMPORTED`.
    :param refused_at: when AdRoll first answered a request with it and did not take it, by the
        outbox's clock: its age counts from then on. ``None``: never.
    :param payload: its JSON, where that was asked for; empty: it has none any more.
    """

    place: int | str
    id: str
    name: str
    key: str | None
    advertisable_eid: str
    dry_run: bool
    occurred_at: float
    queued_at: float
    attempts: int
    unsure: bool
    digest: str
    identifiers: int
    refused_at: float | None
    payload: bytes = field(repr=False)


@dataclass(slots=True)
class Row(BriefRow):
    """One event of the outbox with all that is known of it, as :func:`.schema.rows` finds it.

    :param due_at: of a waiting event: when it may be sent; of a claimed one: when the lease ends;
        of a held one: when the hold expires; of another: when the row may go.
    :param attempt_log: the last requests that AdRoll did not take, oldest first.
    :param released_at: when its hold ended by a release; ``None``: it was not held, or is still.
    :param whole: it still has its content.
    :param sender: that its address may be a proxy's (``TrackedRequest.sender_note``); or empty.
    :param refunded_at: when the shop took it back, or a part of it, after its delivery; ``None``:
        it did not.
    :param refund: how much of it was taken back: ``19.90 EUR``.
    :param record_hash: keyed hash of the id of the visitor's record; ``None``: there was none.
    :param learnt_at: when what it tells of the visitor was learnt, where that was before
        *queued_at*: a token's time, or the report's of an event that was retried by hand since.
    """

    state: str
    due_at: float
    error: str
    reason: str
    settled_at: float | None
    attempt_log: tuple[Attempt, ...]
    released_at: float | None
    whole: bool
    sender: str
    refunded_at: float | None
    refund: str
    record_hash: str | None = field(repr=False)
    learnt_at: float | None

    @property
    def reported_at(self) -> float:
        """When it was reported, also where it was retried by hand since."""
        # The id has the report's time, but by its host's clock, which may differ from the
        # database's. So it counts only where the row has the retry's time instead.
        first = (int(self.id, 16) >> 72) / 256_000
        is_retry = self.learnt_at is not None and self.queued_at - first > _SAME_REPORT
        return first if is_retry else self.queued_at

    @property
    def has_died(self) -> bool:
        """Whether it is a dead letter; one whose visitor said no since is nobody's problem."""
        return self.state == "dead" and (self.whole or self.reason == "damaged")

    @property
    def why(self) -> str:
        """Why it is dead or was cancelled: the reason, and AdRoll's words or ours."""
        return ": ".join(part for part in (self.reason, self.error) if part)

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON takes it, without its payload."""
        hidden = ("place", "payload", "whole", "refused_at", "sender", "learnt_at")
        values = {name: value for name, value in asdict(self).items() if name not in hidden}
        return values | {"attempt_log": [attempt._asdict() for attempt in self.attempt_log]}


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease over some events of one account, oldest first; false where there are none.

    :param is_sending: a request with them may leave: they are ``sending``, and not ``claimed``.
    :param claimed_at: by the outbox's clock, seconds since the epoch.
    :param more: events of this account, or entries of the journal, may be left.
    """

    token: str
    events: tuple[BriefRow, ...] = ()
    is_sending: bool = False
    claimed_at: float = 0.0
    more: bool = False

    def __bool__(self) -> bool:
        return bool(self.events)


@dataclass(slots=True)
class Outcome:
    """What became of some claimed events: the same of each.

    :param ids: the events' ids.
    :param kind: ``delivered``; ``dead``; ``retry`` (to waiting, after *delay*); ``return`` (to
        waiting, at its old place in the queue); ``claimed`` (not sent after all, still ours: for
        the other half of a halved batch).
    :param error: AdRoll's words, bounded and redacted by the caller; kept with the event.
    :param reason: a short name from a fixed set.
    :param unsure: its request may have reached AdRoll; the mark stays for good.
    :param delay: seconds from now for ``retry``, at most 15 minutes.
    :param refused: of a ``retry``: AdRoll was asked and did not take it; the first time is kept
        (:attr:`Row.refused_at`).
    :param asked: AdRoll's answer, which is kept with the event unless it is delivered. Not each
        counts in :attr:`BriefRow.attempts`: only one after which AdRoll may have the event, and one
        that the event died of.
    """

    ids: Sequence[str]
    kind: OutcomeKind
    error: str = ""
    reason: str = ""
    unsure: bool = False
    delay: float = 0.0
    refused: bool = False
    asked: Attempt | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """AdRoll as all workers of one account see it.

    :param paused_for: seconds until the next request may go out; 0: now.
    :param stopped: why nothing is sent, or ``None``.
    :param fingerprint: keyed fingerprint of the configuration under which it was stopped; after
        the stop, of the one that ended it.
    :param stopped_since: seconds since the epoch by the outbox's clock.
    :param failures: requests that failed since the last that succeeded; more than 0 means down.
    :param unseen_for: seconds since a worker that stays with the account last gave a sign of life;
        ``None``: none stays with it.
    :param free_for: seconds since the last pause ended.
    """

    paused_for: float = 0.0
    stopped: str | None = None
    fingerprint: str | None = None
    stopped_since: float | None = None
    failures: int = 0
    last_error: str | None = None
    last_error_at: float | None = None
    unseen_for: float | None = None
    free_for: float = float("inf")


def worst(destinations: Iterable[Destination]) -> Destination:
    """Of several, the one that is stopped; else the one that fails or pauses the most."""
    return max(
        destinations,
        key=lambda state: (state.stopped is not None, state.failures, state.paused_for),
        default=Destination(),
    )


class HistorySum(NamedTuple):
    """One sum of the history by several columns; a column that was not asked for is empty.

    :param at: the beginning of the hours summed up, seconds since the epoch.
    :param outcome: of events: ``delivered``, ``dead``, ``expired`` (its hold, its time as a dead
        letter, or the time for which AdRoll is asked was over), ``cancelled`` (by the shop, or it
        was dropped or forgotten). Of reports: ``suppressed``, ``duplicate``, ``invalid``,
        ``failed``. Of verdicts: ``unused``, ``too_late``. Of what is counted apart: :data:`APART`.
        Of what is not over: ``waiting``, ``held``.
    :param identifiers: mask of those that the events carry (:attr:`.Coverage.mask`).
    :param value: the sum of the events' values in *currency*.
    :param delays: of delivered events, how many took up to so many seconds from event to delivery
        (:data:`.schema.DELAYS`); the last number is of those that took longer.
    :param dry_run: AdRoll will only check it. Told of what is not over: in the history a dry run
        is an outcome.
    :param advertisable_eid: its account; empty: none was set when it was reported.
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
    advertisable_eid: str = ""


class Watched(NamedTuple):
    """An event that comes often enough to be missed, and whether it comes as it usually does.

    :param name: the event's name.
    :param account: its advertisable EID.
    :param level: empty: as usual; ``low``: fewer than chance explains; ``silent``: none at all, for
        longer than any pause of thirteen weeks.
    :param last: the end of the hour in which it came last, or now; seconds since the epoch.
    :param away: seconds since then.
    :param longest_pause: the longest of thirteen weeks, in seconds.
    :param has_stopped: the numbers are of the time since the last one; else of today so far.
    :param number: how often it came in that time.
    :param usual: the median of the same hours of the four weeks before.
    :param low: the least that it came in one of these weeks.
    :param high: the most.
    """

    name: str
    account: str
    level: Level = ""
    last: float = 0.0
    away: float = 0.0
    longest_pause: float = 0.0
    has_stopped: bool = False
    number: int = 0
    usual: float = 0.0
    low: int = 0
    high: int = 0


class SuppressedOrder(NamedTuple):
    """Why an order was not reported, and when."""

    reason: str
    at: float


# -- entries ---------------------------------------------------------------------------------------

#: The outcome of what AdRoll only checks and forgets; the reason says what became of it.
DRY_RUN: Final = "dry_run"
#: Outcomes of what is counted apart: dry runs; what the sandbox had, where this process works with
#: AdRoll; and what AdRoll had, where it works with the sandbox (:meth:`.Settings.other_side`).
APART: Final = (DRY_RUN, "sandbox", "adroll")
#: Where the header of a line begins.
_START: Final = 9
#: Between a header and the event's JSON.
_BETWEEN: Final = b"\t"


def outcome_of(outcome: str, reason: str, dry_run: bool) -> tuple[str, str]:
    """The outcome and reason that the history counts; dry runs apart from what is sent.

    >>> outcome_of("dead", "refused", False)
    ('dead', 'refused')
    >>> outcome_of("dead", "refused", True), outcome_of("delivered", "", True)
    (('dry_run', 'dead:refused'), ('dry_run', 'delivered'))
    """
    return told_apart(DRY_RUN, outcome, reason) if dry_run else (outcome, reason)


def told_apart(side: str, outcome: str, reason: str) -> tuple[str, str]:
    """The outcome *side*, of :data:`APART`, and as its reason what became of the event.

    >>> told_apart("sandbox", "dead", "refused")
    ('sandbox', 'dead:refused')
    """
    if reason and not reason.startswith(f"{outcome}:"):
        reason = f"{outcome}:{reason}"
    return side, (reason or outcome)[:40]


#: First characters of hashes that are kept as marks: of an order that was paid at a time of which
#: nothing is known, and of a visitor's record. The hash of a suppressed order is hex digits alone.
#: So each kind is a range of the primary key, and a look whether there is any reads no other.
ORDER_HASH: Final = "u"
VISITOR_HASH: Final = "w"


def keyed_hash(kind: str, text: str, outbox_id: str) -> str:
    """A hash of *text*, 32 characters long, that nobody can make without the outbox's id.

    :param kind: what it begins with.
    :param outbox_id: its key.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=16, key=outbox_id.encode())
    return kind + digest.hexdigest()[:31]


#: What the ids of one process have: 58 random bits of its own, and a count. A forked child has
#: others: it would make its parent's ids again.
_ids: Final = PerProcess(
    lambda: (int.from_bytes(os.urandom(8)) >> 6, itertools.count(int.from_bytes(os.urandom(2))))
)


def new_id(now: float) -> str:
    """A fresh event id of 32 hex digits, ordered by time as a UUID 7 is, to 4 microseconds.

    No process gives one twice, whatever its clock does.

    :param now: seconds since the epoch.

    >>> len(new_id(1_700_000_000.0))
    32
    """
    # Asking the system for random bits each time would hand the interpreter to another thread.
    mine, counter = _ids.own()
    count = next(counter)
    # The 13 bits after the time tell events of one moment apart.
    number = int(now * 256_000) << 72 | (count & 0x1FFF) << 59 | mine + (count >> 13)
    return number.to_bytes(16).hex()


#: Beside the identifiers in an event's mask: somebody has imported it. The site did not report it,
#: so it does not tell whether the site reports as usual.
IMPORTED: Final = 1 << 7


# Not frozen: a report makes one, and a frozen class assigns by object.__setattr__, which takes
# three times as long.
@dataclass(slots=True)
class NewEvent:
    """One event on its way into the outbox.

    :param id: from :func:`new_id`.
    :param name: one of AdRoll's event names.
    :param advertisable_eid: its account; ``""`` where none is configured yet (see
        :meth:`.Queue.adopt`).
    :param key: deduplication key; ``None``: no deduplication.
    :param payload: the event's JSON object.
    :param occurred_at: seconds since the epoch.
    :param digest: value and currency as a text, by which a second report of the same key with
        another value is noticed.
    :param identifiers: mask of the identifiers that it carries (:attr:`.Coverage.mask`), and
        :data:`IMPORTED`.
    :param known_since: when what it tells of the visitor was learnt, seconds since the epoch, where
        that was earlier than the report: a token's time. A withdrawal since then erases it.
    :param record_id: of the visitor's record, 24 hex digits, by which their no finds it; or the
        keyed hash of it that the outbox's row has.
    :param held_for: seconds for which it waits for a release; ``None``: it is to be sent.
    :param at: when it was reported, by the host's clock, seconds since the epoch.
    :param dead: reason and error of a dead letter, or ``None``.
    :param unsure: it may have been sent before.
    :param sender: that its address may be a proxy's (``TrackedRequest.sender_note``).
    """

    id: str
    name: str
    advertisable_eid: str
    dry_run: bool
    key: str | None
    payload: bytes = field(repr=False)
    occurred_at: float
    digest: str | None = None
    identifiers: int = 0
    known_since: float | None = None
    held_for: float | None = None
    at: float = 0.0
    dead: tuple[str, str] | None = None
    unsure: bool = False
    sender: str | None = None
    record_id: str | None = field(default=None, repr=False)

    @property
    def order(self) -> OrderKey | None:
        """The key by which a second report of it is a duplicate; ``None``: it has no key."""
        if self.key is None:
            return None
        return OrderKey(self.advertisable_eid, self.dry_run, self.name, self.key)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A visitor's no.

    :param at: when they said it, by the host's clock, seconds since the epoch.
    :param record_id: of the visitor's record.
    """

    at: float
    record_id: str = field(repr=False)


@dataclass(slots=True)
class Counted:
    """What the history counts of an event. Nothing in it is the visitor's.

    It is an entry of its own where there is no event: the report failed, or nothing was to be kept.

    :param at: when it happened, seconds since the epoch.
    :param amount: how many there were, all alike.
    :param order: of what was suppressed, a keyed hash of its order id, by which the reason is found
        again.
    :param identifiers: mask of those that the event carries.
    :param value: of the event, ten-thousandths of its currency's major unit.
    :param delay: seconds from the event to its delivery, or ``None``.
    :param advertisable_eid: its account; empty: none was set.
    """

    at: float
    name: str
    outcome: str
    reason: str = ""
    amount: int = 1
    order: str | None = None
    identifiers: int = 0
    value: int = 0
    currency: str = ""
    delay: float | None = None
    advertisable_eid: str = ""


@dataclass(slots=True)
class Verdict:
    """The shop releases or cancels a held event.

    :param changes: of a release: what the event says differently, as JSON; ``None``: nothing.
    :param doubt: of a release that another database took in: the event ``rests``, or is sent again
        as ``unsure``.
    """

    at: float
    kind: Literal["release", "cancel"]
    order: OrderKey
    changes: Mapping[str, Any] | None = None
    doubt: Literal["", "unsure", "rests"] = ""


Entry: TypeAlias = NewEvent | Withdrawal | Counted | Verdict
#: By the names that lines have for them.
_KINDS: Final[Mapping[str, Any]] = {
    "e": NewEvent,
    "w": Withdrawal,
    "c": Counted,
    "v": Verdict,
}


#: A header has the fields in their order, without an event's payload.
_FIELDS: Final = {
    entry: (kind, attrgetter(*[each.name for each in fields(entry) if each.name != "payload"]))
    for kind, entry in _KINDS.items()
}
_PAYLOAD_AT: Final = [each.name for each in fields(NewEvent)].index("payload")


@cache
def _msgspec_json() -> Any:
    """Imported by the first report and not with the package, for which that would take too long."""
    from msgspec import json

    return json


def line_of(body: bytes) -> bytes:
    """The line of *body*."""
    return b"%08x %b\n" % (zlib.crc32(body), body)


def encode(entry: Entry) -> bytes:
    """The line of any entry.

    >>> values = "1f", "purchase", "EID", True, "7", b"{}", 1.5, "2 EUR", 3, 4.0, 5.0, 6.0
    >>> event = NewEvent(*values, dead=("refused", "a word"), record_id="0a")
    >>> decode(encode(event)[_START:-1]) == event
    True
    """
    kind, values_of = _FIELDS[type(entry)]
    body: bytes = _msgspec_json().encode((kind, *values_of(entry)))
    if isinstance(entry, NewEvent):
        # It may have line breaks between two fields, where JSON takes any white space.
        body += _BETWEEN + entry.payload.replace(b"\n", b" ")
    return line_of(body)


def body_of(line: bytes) -> bytes | None:
    """What a whole line has between its checksum and its end; ``None``: the line is damaged."""
    try:
        checksum = int(line[:8], 16)
    except ValueError:
        return None
    body = line[_START:-1] if line.endswith(b"\n") else line[_START:]
    return body if line[8:_START] == b" " and zlib.crc32(body) == checksum else None


def may_stop(body: bytes) -> bool:
    """Whether a line may have what stops an event: a verdict or a withdrawal."""
    return body.startswith((b'["v"', b'["w"'))


def decode(body: bytes) -> Entry:
    """The entry of a line, by its header alone.

    :raises ValueError: it is none that this version knows; so do :class:`TypeError`,
        :class:`LookupError`, :class:`AttributeError` and msgspec's own errors.
    """
    header, between, payload = body.partition(_BETWEEN)
    kind, *values = _msgspec_json().decode(header)
    if between:
        values.insert(_PAYLOAD_AT, payload)
    entry: Entry = _KINDS[kind](*values)
    if isinstance(entry, NewEvent):
        if entry.dead:
            entry.dead = entry.dead[0], entry.dead[1]
    elif isinstance(entry, Verdict):
        entry.order = OrderKey(*entry.order)
    return entry
