"""Work on events of the outbox: an order's life, dead letters to be sent, a visitor's erasure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from adroll_flask.errors import EventError
from adroll_flask.events import names
from adroll_flask.events.build import Built
from adroll_flask.events.dedupe_key import kept_key, suppressed_key
from adroll_flask.events.event import matcher
from adroll_flask.events.fix import rebuilt
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.admin import Changed
from adroll_flask.outbox.lookups import order_id_of, wire_of
from adroll_flask.outbox.model import ERRORS_NAMED, GIVEN_UP, Row, SuppressedOrder
from adroll_flask.outbox.retention import DEAD_LETTER_KEPT
from adroll_flask.plurals import counted
from adroll_flask.redaction import redact_event, short_key

from .lists import searched
from .reporter import Reporter

logger: Logger = get_logger("adroll_flask.audit")

#: The reason of an invalid event that was reported with ``hold=`` begins so.
UNPAID: Final = "invalid:held:"
HELD = (
    "was reported with hold=, and nobody has said that it is paid: report the order again once it "
    "is, without hold=, after outbox drop; or send it with outbox fix"
)
_NO_DEAD_LETTER: Final = "is no dead letter any more"
#: So many of the newest orders are searched for an id like one that is not found.
_LOOKED_THROUGH: Final = 500
#: What may be set to one value in many dead letters: nothing of the visitor's.
FIELDS: Final = ("currency", "value", "order_id", "page_location")


# -- what AdRoll can match an event by -------------------------------------------------------------


def matched_by(row: Row) -> str:
    """What the event carried that AdRoll can match it by; kept after its content is gone.

    ``click id, cookie and e-mail``; empty: nothing.
    """
    if row.state != "delivered" and not row.whole:
        return ""  # cancelled, or of a visitor who asked to be forgotten
    titles = [each.title for each in names.IDENTIFIERS.values() if row.identifiers & each.bits]
    if len(titles) < 2:
        return "".join(titles)
    return f"{', '.join(titles[:-1])} and {titles[-1]}"


# -- an order's life -------------------------------------------------------------------------------


class LifeStep(NamedTuple):
    """One step of an event's life.

    :param kind: ``happened``; ``reported``, ``held``, or ``kept`` (cancelled since, and perhaps
        never held); ``released``; ``attempt``; ``sent_again`` (by hand); ``delivered``;
        ``refunded`` (after the delivery); ``dead``; ``given_up`` (nobody decided on the dead letter
        in time); ``cancelled``; ``now`` (the event has no end yet).
    :param at: when, seconds since the epoch; ``None`` for ``now``.
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


def find_order(
    reporter: Reporter, typed: str, *, most: int = 20_000, account: str | None = None
) -> FoundOrder:
    """What is known of an order.

    :param typed: the shop's order id, as people may write it: ``Order #4826``.
    :param most: so many of the newest invalid dead letters are searched.
    :param account: the advertisable EID of the shop that is looked at; ``None``: all shops.
    """
    lookups = reporter.outbox.lookups.of(account)
    secret = reporter.visitors.dedupe_secret
    for spelling in searched(typed):
        rows = lookups.find(kept_key(spelling, secret), names.EVENT_NAMES)
        rows += lookups.dead_letters_of(spelling, most)
        hashes = {suppressed_key(name, spelling, secret): name for name in names.EVENT_NAMES}
        suppressed = lookups.suppressed(list(hashes))
        if rows or suppressed:
            return FoundOrder(rows, {hashes[hashed]: why for hashed, why in suppressed.items()})
    return FoundOrder()


def orders_alike(reporter: Reporter, typed: str, account: str | None = None) -> dict[str, str]:
    """Of the newest orders, those with an id like *typed*, each with the id of its event."""
    rows = reporter.outbox.lookups.of(account).newest_events(_LOOKED_THROUGH, "purchase")
    newest = {short_key(row.key): row.id for row in reversed(rows) if row.key}
    return {order: newest[order] for order in names.alike(typed, newest)}


def life(row: Row) -> list[LifeStep]:
    """The life of one event, oldest step first; without the visitor's values."""
    # Whether a cancelled event was held is not known. It was kept here and not sent.
    began = "kept" if row.state == "cancelled" else "reported"
    if row.released_at is not None or row.state == "held" or row.reason == "hold_expired":
        began = "held"
    steps = [LifeStep("happened", row.occurred_at), LifeStep(began, row.reported_at)]
    if row.released_at is not None:
        steps.append(LifeStep("released", row.released_at))
    for attempt in row.attempt_log:
        unsure = "; it may have arrived" if attempt.unsure else ""
        steps.append(LifeStep("attempt", attempt.at, (attempt.words or attempt.answer) + unsure))
    delivered = "maybe more than once" if row.unsure else ""
    if row.reason == ERRORS_NAMED:
        delivered = "AdRoll's answer named errors"
    ended = {
        "delivered": delivered,
        "dead": row.why,
        "cancelled": "nobody released it in time" if row.reason == "hold_expired" else "",
    }
    is_retry = row.reported_at < row.queued_at
    if is_retry:
        steps.append(LifeStep("sent_again", row.queued_at, "it had been given up"))
    if row.released_at is not None or is_retry:
        # An event that is released with at="release" happens after it was held. A difference below
        # a second does not tell that: events have whole milliseconds, and clocks are set.
        steps.sort(key=lambda step: (step.at or 0.0) - (1.0 if step.kind == "happened" else 0.0))
    if row.reason in GIVEN_UP:
        end = "never sent" if row.reason == "given_up" else "AdRoll may have it"
        steps.append(LifeStep("dead", row.settled_at, row.error))
        steps.append(LifeStep("given_up", row.due_at - DEAD_LETTER_KEPT, end))
    elif row.state in ended:
        steps.append(LifeStep(row.state, row.settled_at, ended[row.state]))
        if row.refunded_at is not None:
            steps.append(LifeStep("refunded", row.refunded_at, refund_told(row)))
    else:
        steps.append(LifeStep("now", None, row.state))
    return steps


def refund_told(row: Row) -> str:
    """What the shop took back of a delivered order, and that AdRoll keeps it."""
    text = f"AdRoll keeps {value_in(row.digest) or 'the order'}, its API takes nothing back"
    refund = value_in(row.refund)
    return f"{refund}; {text}" if refund else text


def value_in(digest: str) -> str:
    """The value and currency of an event, or of a refund; empty: it has none."""
    return digest if digest[:1].isdigit() and " " in digest else ""


def carried(row: Row) -> dict[str, Any] | None:
    """What the event carried, redacted; ``None``: its content is not kept any more."""
    return None if not row.payload else redact_event(wire_of(row.payload))


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

    Each is checked again, and the ``before_report`` functions are asked. If they did not pass the
    event at its report (it was invalid, or one of them failed), what they return is sent. If they
    did, they can only keep the event back now: otherwise they would change it twice.
    """
    done = Retried()
    for id in ids:
        if why := _retry(reporter, id, changes, done):
            done.refused.append((id, why))
    return done


def _retry(reporter: Reporter, id: str, changes: Mapping[str, str], done: Retried) -> str:
    """Why one stays a dead letter; empty: it does not."""
    row = reporter.outbox.lookups.show(id)
    if row is None or row.state != "dead":
        return _NO_DEAD_LETTER
    if row.reason.startswith(UNPAID):
        return HELD
    if row.reason.startswith("invalid") and not reporter.functions.are_here:
        # Nobody has asked them: they may keep this very event back.
        return "the site's before_report functions are not known here: name the app with --app"
    if not row.payload:
        return "has no content any more"
    try:
        built = rebuilt(row.payload, reporter.defaults_at({}), row.key, **changes)
        passed = reporter.functions.passed(built)
    except EventError as problem:
        if problem.field == "before_report":
            return f"before_report {problem.expected}: correct it first (the log has where)"
        return f"fix it first (outbox fix): {problem}"
    if passed is None:
        if not reporter.outbox.admin.drop([id]).events:
            return _why_not_fixed(reporter, id)
        done.suppressed += 1
        eid = row.advertisable_eid
        reporter.suppressed(row.name, "before_report", built.key, eid, row.dry_run)
    elif why := _fixed(reporter, id, passed if row.reason.startswith("invalid") else built):
        return why
    else:
        done.sent += 1
    return ""


def fix_dead(reporter: Reporter, row: Row, payload: bytes) -> str:
    """Give the dead letter *row* another event and let it be sent; why not (empty: it will be).

    :param payload: one event as AdRoll's API takes it, JSON.
    :raises EventError: the event may not be sent as it is.
    """
    built = rebuilt(payload, reporter.defaults_at({}))
    order = order_id_of(row.payload) or ""
    # A key that is not just the order's id is the shop's own: two orders may have one id.
    if row.key and row.key != kept_key(order, reporter.visitors.dedupe_secret):
        built.key = row.key
    return _fixed(reporter, row.id, built)


def _fixed(reporter: Reporter, id: str, built: Built) -> str:
    """Why a dead letter is not sent as the event *built*; empty: it will be."""
    # Whether the new event is a dry run does not count: a dead letter stays what it is.
    if reporter.outbox.admin.fix(id, reporter.new_event(built)):
        return ""
    return _why_not_fixed(reporter, id)


def _why_not_fixed(reporter: Reporter, id: str) -> str:
    """Why a change of the dead letter had no effect: others may have changed it just now."""
    row = reporter.outbox.lookups.show(id)
    if row is not None and row.state == "cancelled":
        return "the shop has cancelled this order: it is not sent, and is no dead letter any more"
    if row is None or row.state != "dead":
        return _NO_DEAD_LETTER
    if row.reason == "forgotten":
        return "the visitor said no, or asked to be forgotten: it is not sent any more"
    return (
        "another event has reported this order (the same deduplication key): this one can only be"
        f" removed, with outbox drop {id}"
    )


# -- a visitor's events that are to be erased ------------------------------------------------------


def erase(reporter: Reporter, **identifiers: str | None) -> Changed:
    """Erase the events of a visitor and write an audit line: how many, by what, never of whom.

    :param identifiers: as for :func:`~adroll_flask.events.event.matcher`.
    :raises EventError: likewise.
    """
    erased = reporter.outbox.admin.forget(matcher(**identifiers))
    reporter.counters.add("event_forgotten", amount=erased.events)
    by = " and ".join(name.replace("_", " ") for name, value in identifiers.items() if value)
    logger.warning(
        "AdRoll: %s erased on request, by %s [visitor-erased]", counted(erased.events, "event"), by
    )
    return erased
