"""One order's life: held, released, reported, each attempt, delivered, or why not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import inf
from typing import Any, NamedTuple

from adroll_flask.events.names import EVENT_NAMES, kept_key, suppressed_key
from adroll_flask.outbox.model import Row, SuppressedOrder
from adroll_flask.redaction import redact_event

from .lists import spellings
from .reporter import Reporter


class Step(NamedTuple):
    """One step of an event's life.

    :param kind: ``happened``, ``reported``, ``held``, ``kept`` (here, and cancelled since),
        ``released``, ``attempt``, ``delivered``, ``dead``, ``cancelled``; ``now`` has no end yet.
    :param at: when, seconds since the epoch; ``None``: at present.
    :param said: what there is to say of it: AdRoll's words, the reason.
    """

    kind: str
    at: float | None
    said: str = ""


class FoundOrder(NamedTuple):
    """What is known of an order.

    :param events: its events, oldest first.
    :param suppressed: where none was made: why not, by the event's name.
    """

    events: tuple[Row, ...] = ()
    suppressed: Mapping[str, SuppressedOrder] = {}

    def __bool__(self) -> bool:
        return bool(self.events or self.suppressed)


def find_order(reporter: Reporter, *orders: str, most: int = 20_000) -> FoundOrder:
    """What is known of an order, the first that is known of *orders* and their spellings.

    :param orders: the shop's order id, as people may write it.
    :param most: invalid dead letters that are looked through, the newest.
    """
    lookups, secret = reporter.outbox.lookups, reporter.records.dedupe_secret
    if not reporter.outbox.exists():  # to look makes no file
        return FoundOrder()
    for one in (spelled for order in orders for spelled in spellings(order)):
        rows = lookups.find(kept_key(one, secret), EVENT_NAMES)
        rows += lookups.dead_letters_of(one, most)
        names = {suppressed_key(name, one, secret): name for name in EVENT_NAMES}
        suppressed = lookups.suppressed(list(names))
        if rows or suppressed:
            return FoundOrder(rows, {names[hashed]: why for hashed, why in suppressed.items()})
    return FoundOrder()


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
        unsure = "; it may have arrived" if attempt.unsure else ""
        yield Step("attempt", attempt.at, (attempt.words or attempt.answer) + unsure)
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
