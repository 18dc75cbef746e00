"""What the journal's entries say, each one line: a checksum, JSON, the end of the line.

A line is ``<CRC-32 of the JSON, 8 hex digits> <JSON>\\n``. The JSON is an array: first the entry's
own fields, ASCII alone, then an event's JSON as it was made. JSON has no line break inside, so that
a reader that met damage finds the next entry at the next line.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import Any, Final, Literal, TypeAlias

from adroll_flask.forks import PerProcess

from .values import OrderKey

#: The outcome of what AdRoll only checks and forgets; the reason says what became of it.
DRY_RUN: Final = "dry_run"
_NOT_PLAIN: Final = re.compile("[^ -~]")
#: Where the JSON of a line begins.
_START: Final = 9
_read_json: Final = json.JSONDecoder().raw_decode


def outcome_of(outcome: str, reason: str, dry_run: bool) -> tuple[str, str]:
    """The outcome and reason that the history counts; dry runs apart from what is sent.

    >>> outcome_of("dead", "refused", False)
    ('dead', 'refused')
    >>> outcome_of("dead", "refused", True), outcome_of("delivered", "", True)
    (('dry_run', 'dead:refused'), ('dry_run', 'delivered'))
    """
    if not dry_run:
        return outcome, reason
    if reason and not reason.startswith(f"{outcome}:"):
        reason = f"{outcome}:{reason}"
    return DRY_RUN, (reason or outcome)[:40]


def plain_name(name: str) -> str:
    """An event's name as its column takes it: a visitor may have sent it."""
    return _NOT_PLAIN.sub("?", name)[:40]


#: What makes ids of one process its own, 58 random bits, and a count: a forked child does not go on
#: where its parent is.
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
    return f"{int(now * 256_000) << 72 | (count & 0x1FFF) << 59 | mine + (count >> 13):032x}"


# Not frozen, like others that a report makes: an assignment by object.__setattr__ takes thrice
# the time.
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
    :param identifiers: mask of the identifiers that it carries (:attr:`.Coverage.mask`).
    :param known_since: when what it tells of the visitor was learnt, seconds since the epoch, where
        that was earlier than the report: a token's time. A withdrawal since then erases it.
    :param held_for: seconds for which it waits for a release; ``None``: it is to be sent.
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

    @property
    def order(self) -> OrderKey | None:
        """By what a second report of it is known; ``None``: by nothing."""
        if self.key is None:
            return None
        return OrderKey(self.advertisable_eid, self.dry_run, self.name, self.key)


@dataclass(slots=True)
class EventEntry:
    """An event that was reported.

    :param at: when, by the host's clock, seconds since the epoch.
    :param dead: reason and error of a dead letter, or ``None``.
    :param unsure: it may have been sent before.
    """

    event: NewEvent
    at: float
    dead: tuple[str, str] | None = None
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A visitor took consent back; known by first-party cookie, click id or both."""

    at: float
    first_party_cookie: str | None = field(repr=False)
    adct: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Counted:
    """Something for the history alone: a duplicate that was noticed at once, a report that failed
    or was not to be kept; nothing of the visitor.

    :param digest: value and currency as a text.
    :param amount: how many there were, all alike.
    :param order: of what was suppressed, a keyed hash of its order id, by which the reason is found
        again.
    """

    at: float
    name: str
    outcome: str
    reason: str = ""
    identifiers: int = 0
    digest: str | None = None
    amount: int = 1
    order: str | None = None


@dataclass(slots=True)
class Verdict:
    """A held event is to be sent, or forgotten.

    :param changes: of a release: what the event says differently, as JSON; ``None``: nothing.
    :param doubt: of a release that another database took in: the event ``rests``, or is sent again
        as ``unsure``.
    """

    at: float
    kind: Literal["release", "cancel"]
    order: OrderKey
    changes: Mapping[str, Any] | None = None
    doubt: Literal["", "rests", "unsure"] = ""


Entry: TypeAlias = EventEntry | Withdrawal | Counted | Verdict


def encode_event(event: NewEvent, at: float, dead: tuple[str, str] | None = None) -> bytes:
    """The line of one event, whose key is clean. This is what a request pays for."""
    quoted = encode_basestring_ascii
    key = "null" if event.key is None else quoted(event.key)
    digest = "null" if event.digest is None else quoted(event.digest)
    since = "null" if event.known_since is None else repr(event.known_since)
    held = "null" if event.held_for is None else repr(event.held_for)
    words = "" if dead is None else f",{json.dumps(dead)}"
    fields = (
        f'[["e",{at!r},"{event.id}",{quoted(event.name)},{quoted(event.advertisable_eid)},'
        f"{event.dry_run:d},{key},{digest},{event.identifiers},{event.occurred_at!r},{since},{held}"
        f"{words}],"
    ).encode()
    payload = event.payload
    if b"\n" in payload:  # between two fields, where JSON takes any white space
        payload = payload.replace(b"\n", b" ")
    return line_of(b"%b%b]" % (fields, payload))


def line_of(body: bytes) -> bytes:
    """The line whose JSON is *body*."""
    return b"%08x %b\n" % (zlib.crc32(body), body)


def encode(entry: Entry) -> bytes:
    """The line of any entry."""
    if isinstance(entry, EventEntry):
        return encode_event(entry.event, entry.at, entry.dead)
    fields: list[object]
    if isinstance(entry, Withdrawal):
        fields = ["w", entry.at, entry.first_party_cookie, entry.adct]
    elif isinstance(entry, Counted):
        fields = ["c", entry.at, plain_name(entry.name), entry.outcome, entry.reason]
        fields += [entry.identifiers, entry.digest, entry.amount, entry.order]
    else:
        fields = ["v", entry.at, entry.kind, *entry.order, entry.changes]
    return line_of(json.dumps([fields]).encode())


def body_of(line: bytes) -> bytes | None:
    """The JSON of a whole line, without its end; ``None``: the line is damaged."""
    try:
        checksum = int(line[:8], 16)
    except ValueError:
        return None
    body = line[_START:]
    return body if line[8:_START] == b" " and zlib.crc32(body) == checksum else None


def decode(body: bytes) -> Entry:
    """The entry that the JSON of a line is.

    :raises ValueError: it is none that this version knows; so do :class:`TypeError` and
        :class:`IndexError`.
    """
    # The fields are ASCII: where they end is the same place in text and bytes.
    (kind, at, *fields), end = _read_json(body.decode("latin-1"), 1)
    if kind == "e":
        id, name, eid, dry_run, key, digest, mask, occurred_at, since, held_for, *dead = fields
        event = NewEvent(
            *(id, name, eid, bool(dry_run), key, body[end + 1 : -1]),
            *(occurred_at, digest, mask, since, held_for),
        )
        return EventEntry(event, at, tuple(dead[0]) if dead else None)
    if kind == "w":
        return Withdrawal(at, *fields)
    if kind == "c":
        return Counted(at, *fields)
    if kind == "v":
        verdict, eid, dry_run, name, key, changes = fields
        return Verdict(at, verdict, OrderKey(eid, bool(dry_run), name, key), changes)
    raise ValueError(f"an entry of the unknown kind {kind!r}")
