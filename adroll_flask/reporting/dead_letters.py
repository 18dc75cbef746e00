"""Dead letters that somebody wants sent: checked again, and the site's functions asked again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from adroll_flask.errors import EventError, help_url
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.redaction import describe_lines

from .site_functions import run_before_report

if TYPE_CHECKING:
    from adroll_flask.events.build import Built
    from adroll_flask.outbox import Row

    from .parts import Parts
    from .reporter import Reporter

logger: Logger = get_logger("adroll_flask.reporting")

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


@dataclass(frozen=True, slots=True)
class Change:
    """One field that is set before dead letters are checked again.

    :param field: one of :data:`FIELDS`.
    :param value: as a person writes it.
    """

    field: str
    value: str

    def made(self, payload: bytes) -> bytes:
        """*payload*, an event's JSON, with the field set."""
        wire = json.loads(payload)
        *parents, last = FIELDS[self.field]
        part = wire
        for name in parents:
            if not isinstance(part.get(name), dict):
                part[name] = {}
            part = part[name]
        part[last] = self.value
        return json.dumps(wire, ensure_ascii=False).encode()


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


def retry_dead(reporter: Reporter, ids: Iterable[str], change: Change | None = None) -> Retried:
    """Let dead letters be sent, one after the other.

    :param change: what is set in each of them before it is checked.

    Each is checked again. ``before_report`` functions that did not see it at its report (it was
    invalid, or one of them failed) are asked as a report asks them. Of an event that they have
    passed only a ``None`` counts: what they change would be changed twice.
    """
    parts, done = reporter.parts, Retried()
    outbox = parts.outbox()
    for id in ids:
        row = outbox.admin.show(id)
        if row is None or row.state != "dead":
            done.refused.append((id, "is no dead letter any more"))
        elif row.reason in UNPAID:
            done.refused.append((id, HELD))
        elif not row.payload:
            done.refused.append((id, "has no content any more"))
        else:
            try:
                if change is not None:
                    row = replace(row, payload=change.made(row.payload))
                given = _checked(parts, row)
                built = _asked(parts, row, given)
            except EventError as problem:
                done.refused.append((id, problem.expected if _is_hook(problem) else _fix(problem)))
                continue
            if built is None:
                if outbox.admin.drop([id]):
                    done.suppressed += 1
                    key = {"deduplication_key": given.key}
                    reporter.suppressed(row.name, "before_report", key, dry_run=row.dry_run)
            elif outbox.admin.fix(
                id,
                built.payload,
                built.key,
                digest=built.value_digest,
                identifiers=built.coverage.mask,
            ):
                done.sent += 1
            else:
                done.refused.append((id, REPORTED_ALREADY))
    return done


def fix_dead(parts: Parts, id: str, payload: bytes) -> bool:
    """Give a dead letter the event *payload* and let it be sent; False: no such, or a duplicate.

    :param payload: one event as AdRoll's API takes it, JSON.
    :raises EventError: the event may not be sent as it is.
    """
    from adroll_flask.events.build import recheck_wire, value_digest, wire_bytes
    from adroll_flask.events.dedupe_key import kept_key

    event = recheck_wire(payload, email_forms=parts.settings.email)
    order = event.order_id
    key = None if order is None else kept_key(order, _secret(parts))
    digest, mask = value_digest(event), event.coverage.mask
    return parts.outbox().admin.fix(id, wire_bytes(event), key, digest=digest, identifiers=mask)


def _checked(parts: Parts, row: Row) -> Built:
    """The dead letter's event.

    :raises EventError: it may not be sent as it is.
    """
    from adroll_flask.events.build import Built, recheck_wire, wire_bytes
    from adroll_flask.events.dedupe_key import kept_key

    event = recheck_wire(row.payload or b"", email_forms=parts.settings.email, now=parts.clock())
    key, order = row.key, event.order_id
    if order is not None and key in (None, kept_key(order, _secret(parts))):
        key = order
    return Built(event, (), key, wire_bytes(event))


def _asked(parts: Parts, row: Row, given: Built) -> Built | None:
    """The event as it may be sent; ``None``: the site's functions keep it back.

    :raises EventError: one of them failed.
    """
    from adroll_flask.events.dedupe_key import kept_key

    changed = _hooked(parts, given)
    if changed is None:
        return None
    built = changed if row.reason.startswith("invalid") else given
    key = None if built.key is None else kept_key(built.key, _secret(parts))
    return replace(built, key=key)


def _secret(parts: Parts) -> bytes | None:
    return parts.records().dedupe_secret


def _hooked(parts: Parts, built: Built) -> Built | None:
    try:
        return run_before_report(parts.before_report(), built)
    except EventError as problem:
        let_through(problem)
        text = f"before_report returned what cannot be sent: {problem}"
        raise EventError("before_report", text) from None
    except Exception as problem:
        let_through(problem)
        logger.error(
            "before_report failed: %s (%s)",
            describe_lines(problem),
            help_url("before-report-failed"),
        )
        raise EventError(
            "before_report",
            f"before_report raised {type(problem).__name__}: correct it first (the log has where)",
        ) from None


def _is_hook(problem: EventError) -> bool:
    return problem.field == "before_report"


def _fix(problem: EventError) -> str:
    return f"fix it first (outbox fix): {problem}"
