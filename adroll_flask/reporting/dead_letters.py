"""Dead letters that somebody wants sent: checked again, and the site's functions asked again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from adroll_flask.errors import EventError
from adroll_flask.events.build import Built
from adroll_flask.events.event import wire_bytes
from adroll_flask.events.fix import recheck_wire
from adroll_flask.events.names import NO_IDENTITY, kept_key
from adroll_flask.outbox import Row

from .reporter import Reporter

#: What another event's key means for this one.
REPORTED_ALREADY = (
    "another event has reported this order (the same deduplication key): this one can only be "
    "removed, with outbox drop"
)
#: Reasons of dead letters that were reported with ``hold=``.
UNPAID = ("invalid:held", "invalid:hold")
HELD = (
    "was reported with hold=, and nobody has said that it is paid: report the order again once it "
    "is, without hold=, after outbox drop; or send it with outbox fix"
)
#: What may be set to one value in many dead letters, and where an event has it: nothing of the
#: visitor's.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "currency": ("currency",),
    "value": ("conversion_value",),
    "order_id": ("event_attributes", "order_id"),
    "page_location": ("page_location",),
}


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


def retry_dead(reporter: Reporter, ids: Iterable[str], field: str = "", value: str = "") -> Retried:
    """Let dead letters be sent, one after the other.

    :param field: one of :data:`FIELDS` that is set in each of them before it is checked.
    :param value: to what, as a person writes it.

    Each is checked again. ``before_report`` functions that did not see it at its report (it was
    invalid, or one of them failed) are asked as a report asks them. Of an event that they have
    passed only a ``None`` counts: what they change would be changed twice.
    """
    done, admin = Retried(), reporter.outbox.admin
    for id in ids:
        row = reporter.outbox.lookups.show(id)
        if row is None or row.state != "dead":
            done.refused.append((id, "is no dead letter any more"))
        elif row.reason in UNPAID:
            done.refused.append((id, HELD))
        elif not row.payload:
            done.refused.append((id, "has no content any more"))
        else:
            payload = _changed(row.payload, field, value) if field else row.payload
            try:
                given = _checked(reporter, payload, row)
                passed = reporter.functions.passed(given)
            except EventError as problem:
                why = f"fix it first (outbox fix): {problem}"
                if problem.field == "before_report":
                    said = problem.expected
                    why = f"before_report {said}: correct it first (the log has where)"
                done.refused.append((id, why))
                continue
            if passed is None:
                if admin.drop([id]):
                    done.suppressed += 1
                    key = {"deduplication_key": given.key}
                    reporter.suppressed(row.name, "before_report", key, dry_run=row.dry_run)
            elif _sent(reporter, id, passed if row.reason.startswith("invalid") else given):
                done.sent += 1
            else:
                done.refused.append((id, REPORTED_ALREADY))
    return done


def _changed(payload: bytes, field: str, value: str) -> bytes:
    """*payload*, an event's JSON, with *field* set."""
    wire = json.loads(payload)
    *parents, last = FIELDS[field]
    part = wire
    for name in parents:
        part[name] = part = part.get(name) or {}
    part[last] = value
    return json.dumps(wire, ensure_ascii=False).encode()


def fix_dead(reporter: Reporter, id: str, payload: bytes) -> bool:
    """Give a dead letter the event *payload* and let it be sent; False: no such, or a duplicate.

    :param payload: one event as AdRoll's API takes it, JSON.
    :raises EventError: the event may not be sent as it is.
    """
    return _sent(reporter, id, _checked(reporter, payload))


def _checked(reporter: Reporter, payload: bytes, row: Row | None = None) -> Built:
    """The event *payload*, of a dead letter that keeps its key: *row*.

    :raises EventError: it may not be sent as it is.
    """
    defaults = reporter.bare(NO_IDENTITY, {})
    event = recheck_wire(payload, defaults, now=None if row is None else defaults.now)
    key = order = event.order_id
    if row is not None and row.key is not None:
        same = order is not None and row.key == kept_key(order, reporter.records.dedupe_secret)
        key = order if same else row.key
    return Built(event, (), key, wire_bytes(event), defaults=defaults)


def _sent(reporter: Reporter, id: str, built: Built) -> bool:
    key = None if built.key is None else kept_key(built.key, reporter.records.dedupe_secret)
    return reporter.outbox.admin.fix(
        id, built.payload, key, digest=built.value_digest, identifiers=built.coverage.mask
    )
