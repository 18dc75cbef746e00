"""One order's life: held, released, reported, each attempt, delivered, or why not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.events.privacy import kept_key, suppressed_key
from adroll_flask.outbox.values import Attempt, Row
from adroll_flask.redaction import redact_event

from .lists import spellings
from .reporter import Reporter


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an event's life.

    :param kind: ``happened``, ``reported``, ``held``, ``kept`` (here, and cancelled since),
        ``released``, ``attempt``, ``delivered``, ``dead``, ``cancelled``; ``now`` has no end yet.
    :param at: when, seconds since the epoch; ``None``: at present.
    :param said: what there is to say of it: AdRoll's answer and words, the reason.
    :param attempt: of an attempt: all that is known of it.
    """

    kind: str
    at: float | None
    said: str = ""
    attempt: Attempt | None = None


@dataclass(frozen=True, slots=True)
class NotReported:
    """That an order was suppressed: the event's name, why, and when (seconds since the epoch)."""

    name: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class FoundOrder:
    """What is known of an order: its events, oldest first, and where none was made."""

    events: tuple[Row, ...] = ()
    suppressed: tuple[NotReported, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.events or self.suppressed)


def find_order(reporter: Reporter, order: str, most: int = 20_000) -> FoundOrder:
    """What is known of *order*, the shop's order id, in the first of its spellings that is known.

    :param most: invalid dead letters that are looked through, the newest.
    """
    found, lookups, secret = FoundOrder(), reporter.outbox.lookups, reporter.records.dedupe_secret
    if not reporter.outbox.exists():  # to look makes no file
        return found
    lookups.take_in_all()
    for one in spellings(order):
        rows = (
            *lookups.find(kept_key(one, secret), EVENT_NAMES),
            *lookups.dead_letters_of(one, most),
        )
        names = {suppressed_key(name, one, secret): name for name in EVENT_NAMES}
        suppressed = tuple(
            NotReported(names[hashed], why.reason, why.at)
            for hashed, why in lookups.suppressed(list(names)).items()
        )
        found = FoundOrder(rows, suppressed)
        if found:
            break
    return found


def life(row: Row) -> list[Step]:
    """The life of one event, oldest step first; without the visitor's values."""
    steps = list(_steps(row))
    if row.released_at is not None:
        # A release with the present time makes an event happen after it was held. Within a second
        # nothing tells that: events have their times in milliseconds, and clocks are set.
        steps.sort(key=lambda step: inf if step.at is None else step.at - (step.kind == "happened"))
    return steps


def _steps(row: Row) -> Iterator[Step]:
    yield Step("happened", row.occurred_at)
    if row.released_at is not None or row.state == "held" or row.reason == "hold_expired":
        yield Step("held", row.queued_at)
    elif row.state == "cancelled":
        # Whether it was held is not known any more; it was kept here and told to nobody.
        yield Step("kept", row.queued_at)
    else:
        yield Step("reported", row.queued_at)
    if row.released_at is not None:
        yield Step("released", row.released_at)
    for attempt in row.attempt_log:
        status = f" {attempt.status}" if attempt.status else ""
        unsure = ", may have arrived" if attempt.unsure else ""
        words = f": {attempt.words}" if attempt.words else ""
        yield Step("attempt", attempt.at, f"{attempt.answer}{status}{unsure}{words}", attempt)
    if row.state == "delivered":
        yield Step("delivered", row.settled_at, "maybe more than once" if row.unsure else "")
    elif row.state == "dead":
        yield Step("dead", row.settled_at, row.why)
    elif row.state == "cancelled":
        why = "nobody released it in time" if row.reason == "hold_expired" else ""
        yield Step("cancelled", row.settled_at, why)
    else:
        yield Step("now", None, row.state)


def carried(row: Row) -> dict[str, Any] | None:
    """What the event carried, redacted; ``None``: its content is not kept any more."""
    return None if not row.payload else redact_event(json.loads(row.payload))
