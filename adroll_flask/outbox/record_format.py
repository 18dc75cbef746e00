"""What a journal's records say: one line of fields, and an event's JSON behind it.

A line is a letter for its kind and fields that hold no tab and no line break.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

#: Records that one transaction takes in, unless asked otherwise.
BATCH: Final = 500

_EVENT: Final = "e"
_HELD: Final = "h"
_DEAD: Final = "d"
_WITHDRAWAL: Final = "w"
_SUPPRESSED: Final = "s"
_COUNTED: Final = "c"
_VERDICT: Final = "v"


#: The outcome of what AdRoll only checks and forgets; the reason says what became of it.
DRY_RUN: Final = "dry_run"


def counted_as(outcome: str, reason: str, dry_run: bool) -> tuple[str, str]:
    """The outcome and reason that the history counts; dry runs apart from what is sent.

    >>> counted_as("dead", "refused", False)
    ('dead', 'refused')
    >>> counted_as("dead", "refused", True), counted_as("delivered", "", True)
    (('dry_run', 'dead:refused'), ('dry_run', 'delivered'))
    """
    if not dry_run:
        return outcome, reason
    if reason and not reason.startswith(f"{outcome}:"):
        reason = f"{outcome}:{reason}"
    return DRY_RUN, (reason or outcome)[:40]


# Not frozen, like others that a report makes: an assignment by object.__setattr__ takes thrice
# the time.
@dataclass(slots=True)
class NewEvent:
    """One event on its way into the outbox.

    :param id: from :func:`.ids.new_id`.
    :param name: one of AdRoll's event names.
    :param advertisable_eid: ``""`` where it is not configured yet (see :meth:`.Queue.adopt`).
    :param key: deduplication key; ``None``: no deduplication.
    :param payload: the event's JSON object.
    :param occurred_at: seconds since the epoch.
    :param digest: value and currency as a text, by which a second report of the same key with
        another value is noticed.
    :param identifiers: mask of the identifiers that it carries (:attr:`.Coverage.mask`).
    :param known_since: when what it tells of the visitor was learnt, seconds since the epoch, where
        that was earlier than the report: a token's time. A withdrawal since then erases it.
    :param trace: trace context of the request that reported it, a W3C ``traceparent``.
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
    trace: str | None = None


@dataclass(slots=True)
class EventRecord:
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
class Suppressed:
    """A report that was not kept, and why; nothing of the visitor.

    :param order: a keyed hash of its order id, by which its reason is found again.
    """

    at: float
    name: str
    reason: str
    order: str | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """Something for the history alone: a duplicate that was noticed at once, a report that failed.

    :param digest: value and currency as a text.
    :param amount: how many there were, all alike.
    """

    at: float
    name: str
    outcome: str
    reason: str = ""
    identifiers: int = 0
    digest: str | None = None
    amount: int = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """A held event is to be sent, or forgotten.

    :param key: the event's deduplication key, clean.
    :param changes: of a release: what the event says differently, as JSON; ``None``: nothing.
    """

    at: float
    kind: Literal["release", "cancel"]
    name: str
    advertisable_eid: str
    dry_run: bool
    key: str
    changes: Mapping[str, Any] | None = None


Record: TypeAlias = EventRecord | Withdrawal | Suppressed | Counted | Verdict


def encode_event(event: NewEvent, at: float) -> bytes:
    """One event, whose key is clean, as a record. This is what a request pays for."""
    key = "" if event.key is None else "=" + event.key
    line = (
        f"e\t{at!r}\t{event.id}\t{event.name}\t{event.advertisable_eid}\t{event.dry_run:d}\t{key}"
        f"\t{event.digest or ''}\t{event.identifiers}\t{event.occurred_at!r}"
        f"\t{event.known_since!r}"
    )
    if event.held_for is not None:
        line = f"{_HELD}{line[1:]}\t{event.held_for!r}"
    if event.trace is not None:
        line = f"{line}\t{event.trace}"
    return f"{line}\n".encode() + event.payload


def encode(record: Record) -> bytes:
    """Any record."""
    if isinstance(record, Withdrawal):
        fields: list[str | None] = [record.first_party_cookie, record.adct]
        return f"{_WITHDRAWAL}\t{record.at!r}\t{json.dumps(fields)}\n".encode()
    if isinstance(record, Suppressed):
        fields = [_clean(record.name), record.reason, record.order]
        return f"{_SUPPRESSED}\t{record.at!r}\t{json.dumps(fields)}\n".encode()
    if isinstance(record, Counted):
        values: list[object] = [_clean(record.name), record.outcome, record.reason]
        values += [record.identifiers, record.digest, record.amount]
        return f"{_COUNTED}\t{record.at!r}\t{json.dumps(values)}\n".encode()
    if isinstance(record, Verdict):
        said = [record.kind, record.name, record.advertisable_eid, record.dry_run, record.key]
        return f"{_VERDICT}\t{record.at!r}\t{json.dumps([*said, record.changes])}\n".encode()
    made = encode_event(record.event, record.at)
    if record.dead is None:
        return made
    line, _, payload = made.partition(b"\n")
    words = json.dumps(record.dead).encode()
    return _DEAD.encode() + line[1:] + b"\t" + words + b"\n" + payload


def _clean(name: str) -> str:
    """An event's name as its column takes it: a visitor may have sent it."""
    return re.sub("[^ -~]", "?", name)[:40]


def decode(data: bytes) -> Record:
    """The record that *data* is.

    :raises ValueError: it is none that this version knows.
    """
    line, _, payload = data.partition(b"\n")
    kind, at, *fields = line.decode().split("\t")
    if kind in (_EVENT, _HELD, _DEAD):
        id, name, eid, dry_run, key, digest, identifiers, occurred_at, since, *more = fields
        # By position, which is faster than by name.
        event = NewEvent(
            id,
            name,
            eid,
            dry_run == "1",
            key[1:] if key else None,
            payload,
            float(occurred_at),
            digest or None,
            int(identifiers),
            None if since == "None" else float(since),
            float(more.pop(0)) if kind == _HELD else None,
        )
        words = more.pop() if kind == _DEAD else ""
        event.trace = more[0] if more else None
        if kind != _DEAD:
            return EventRecord(event, float(at))
        reason, error = json.loads(words)
        return EventRecord(event, float(at), (reason, error))
    if kind == _WITHDRAWAL:
        cookie, adct = json.loads(fields[0])
        return Withdrawal(float(at), cookie, adct)
    if kind == _SUPPRESSED:
        name, reason, *order = json.loads(fields[0])
        return Suppressed(float(at), name, reason, order[0] if order else None)
    if kind == _COUNTED:
        return Counted(float(at), *json.loads(fields[0]))
    if kind == _VERDICT:
        which, name, eid, dry_run_, key, changes = json.loads(fields[0])
        return Verdict(float(at), which, name, eid, dry_run_, key, changes)
    raise ValueError(f"a record of the unknown kind {kind!r}")
