"""Events that are kept: an order's life, dead letters to be sent, a visitor's to be erased."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from adroll_flask.errors import EventError
from adroll_flask.events import names
from adroll_flask.events.build import Built
from adroll_flask.events.event import matcher
from adroll_flask.events.fix import rebuilt
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.lookups import order_id_of
from adroll_flask.outbox.model import Row, SuppressedOrder
from adroll_flask.plurals import counted
from adroll_flask.redaction import redact_event

from .lists import spellings
from .reporter import Reporter

logger: Logger = get_logger("adroll_flask.audit")

#: What another event's key means for this one.
REPORTED_ALREADY = (
    "another event has reported this order (the same deduplication key): this one can only be "
    "removed, with outbox drop"
)
#: Of one that a cancellation waited for.
CANCELLED = "the shop has cancelled this order: it is not sent, and is no dead letter any more"
#: How the reasons begin of dead letters that were reported with ``hold=``.
UNPAID: Final = "invalid:held:"
HELD = (
    "was reported with hold=, and nobody has said that it is paid: report the order again once it "
    "is, without hold=, after outbox drop; or send it with outbox fix"
)
#: What may be set to one value in many dead letters: nothing of the visitor's.
FIELDS: Final = ("currency", "value", "order_id", "page_location")


# -- an order's life -------------------------------------------------------------------------------


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
    lookups, secret = reporter.outbox.lookups, reporter.visitors.dedupe_secret
    for one in (spelled for order in orders for spelled in spellings(order)):
        rows = lookups.find(names.kept_key(one, secret), names.EVENT_NAMES)
        rows += lookups.dead_letters_of(one, most)
        hashes = {names.suppressed_key(name, one, secret): name for name in names.EVENT_NAMES}
        suppressed = lookups.suppressed(list(hashes))
        if rows or suppressed:
            return FoundOrder(rows, {hashes[hashed]: why for hashed, why in suppressed.items()})
    return FoundOrder()


def life(row: Row) -> list[Step]:
    """The life of one event, oldest step first; without the visitor's values."""
    was_held = row.released_at is not None or row.state == "held" or row.reason == "hold_expired"
    # Whether one that was cancelled was held is not known; it was kept here and told to nobody.
    began = "held" if was_held else "kept" if row.state == "cancelled" else "reported"
    steps = [Step("happened", row.occurred_at), Step(began, row.queued_at)]
    if row.released_at is not None:
        steps.append(Step("released", row.released_at))
    for attempt in row.attempt_log:
        unsure = "; it may have arrived" if attempt.unsure else ""
        steps.append(Step("attempt", attempt.at, (attempt.words or attempt.answer) + unsure))
    ended = {
        "delivered": "maybe more than once" if row.unsure else "",
        "dead": row.why,
        "cancelled": "nobody released it in time" if row.reason == "hold_expired" else "",
    }
    if row.released_at is not None:
        # A release with the present time makes an event happen after it was held. Within a second
        # nothing tells that: events have their times in milliseconds, and clocks are set.
        steps.sort(key=lambda step: (step.at or 0.0) - (step.kind == "happened"))
    if row.state in ended:
        return [*steps, Step(row.state, row.settled_at, ended[row.state])]
    return [*steps, Step("now", None, row.state)]


def carried(row: Row) -> dict[str, Any] | None:
    """What the event carried, redacted; ``None``: its content is not kept any more."""
    return None if not row.payload else redact_event(json.loads(row.payload))


# -- dead letters that are to be sent --------------------------------------------------------------
#
# Each is checked again, and the site's functions are asked again.


@dataclass(slots=True)
class Retried:
    """What became of the dead letters that were to be sent.

    :param sent: how many wait now.
    :param suppressed: how many a ``before_report`` function kept back; they are gone.
    :param refused: ids of those that stay dead letters, and why.
    """

    sent: int = 0
    suppressed: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


def retry_dead(reporter: Reporter, ids: Iterable[str], **changes: str) -> Retried:
    """Let dead letters be sent, one after the other.

    :param changes: what is set in each of them before it is checked, of :data:`FIELDS`, as a
        person writes it.

    Each is checked again. ``before_report`` functions that did not see it at its report (it was
    invalid, or one of them failed) are asked as a report asks them. Of an event that they have
    passed only a ``None`` counts: what they change would be changed twice.
    """
    done = Retried()
    for id in ids:
        if why := _retry(reporter, id, changes, done):
            done.refused.append((id, why))
    return done


def _retry(reporter: Reporter, id: str, changes: Mapping[str, str], done: Retried) -> str:
    """Why one stays a dead letter; empty: it does not."""
    admin, row = reporter.outbox.admin, reporter.outbox.lookups.show(id)
    if row is None or row.state != "dead":
        return "is no dead letter any more"
    if row.reason.startswith(UNPAID):
        return HELD
    if row.reason.startswith("invalid") and not reporter.functions.are_here:
        # Nobody has asked them: they may keep this very event back.
        return "the site's before_report functions are not known here: name the app with --app"
    if not row.payload:
        return "has no content any more"
    try:
        given = rebuilt(row.payload, reporter.bare({}), row.key, **changes)
        passed = reporter.functions.passed(given)
    except EventError as problem:
        if problem.field == "before_report":
            return f"before_report {problem.expected}: correct it first (the log has where)"
        return f"fix it first (outbox fix): {problem}"
    if passed is None:
        if admin.drop([id]):
            done.suppressed += 1
            reporter.suppressed(row.name, "before_report", given.key, dry_run=row.dry_run)
    elif why := _fixed(reporter, id, passed if row.reason.startswith("invalid") else given):
        return why
    else:
        done.sent += 1
    return ""


def fix_dead(reporter: Reporter, id: str, payload: bytes) -> str:
    """Give a dead letter the event *payload* and let it be sent; why not (empty: it will be).

    :param payload: one event as AdRoll's API takes it, JSON.
    :raises EventError: the event may not be sent as it is.
    """
    built, row = rebuilt(payload, reporter.bare({})), reporter.outbox.lookups.show(id)
    if row is not None and row.key:
        order, secret = order_id_of(row.payload or b""), reporter.visitors.dedupe_secret
        # A key that is not just the order's id is the shop's own: two orders may have one id.
        if order is None or names.kept_key(order, secret) != row.key:
            built.key = row.key
    return _fixed(reporter, id, built)


def _fixed(reporter: Reporter, id: str, built: Built) -> str:
    """Why a dead letter is not sent as the event *built*; empty: it will be."""
    # It stays the dry run that it is, or none.
    if reporter.outbox.admin.fix(id, reporter.new_event(built, None, dry_run=False)):
        return ""
    row = reporter.outbox.lookups.show(id)
    is_cancelled = row is not None and row.state == "cancelled"
    return CANCELLED if is_cancelled else f"{REPORTED_ALREADY} {id}"


# -- a visitor's events that are to be erased ------------------------------------------------------


def erase(reporter: Reporter, **identifiers: str | None) -> int:
    """Erase the events of a visitor and write an audit line: how many, by what, never of whom.

    :param identifiers: as for :func:`~adroll_flask.events.event.matcher`.
    :raises EventError: likewise.
    """
    count = reporter.outbox.admin.forget(matcher(**identifiers))
    reporter.counters.add("event_forgotten", amount=count)
    by = " and ".join(name.replace("_", " ") for name, value in identifiers.items() if value)
    logger.warning(
        "AdRoll: %s erased on request, by %s [visitor-erased]", counted(count, "event"), by
    )
    return count
