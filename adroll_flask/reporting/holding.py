"""Releasing and cancelling what is held: from a call's plain values to a verdict that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from adroll_flask.errors import EventError
from adroll_flask.events.dedupe_key import kept_key
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.entries import Verdict
from adroll_flask.outbox.inbox import after_commit
from adroll_flask.outbox.values import OrderKey

from .receipt import Receipt, left_out
from .reporter import Reporter

logger: Logger = get_logger("adroll_flask.reporting")

Kind: TypeAlias = Literal["release", "cancel"]

_NOT_SEEN = "no hold of this order was seen by this process; applied when it is found"
#: By what is decided, and what this process decided before.
_BEFORE = {
    ("release", "release"): "released before",
    ("release", "cancel"): "cancelled before; it is not sent",
    ("cancel", "release"): "released before; too late if it has been sent",
    ("cancel", "cancel"): "cancelled before",
}


def order_key(reporter: Reporter, order_id: Any, host: str = "") -> OrderKey:
    """By what the conversion of an order is known.

    :param host: the shop's, where ``ADROLL_ACCOUNTS`` has its account.
    :raises EventError: *order_id* is no order's id.
    """
    from adroll_flask.visitor.identifiers import accept_id

    settings = reporter.settings
    eid = settings.account_of(host).advertisable_eid or ""
    key = kept_key(accept_id(order_id, "order_id"), reporter.records.dedupe_secret)
    return OrderKey(eid, settings.dry_run, "purchase", key)


def decide(
    reporter: Reporter,
    kind: Kind,
    order_id: Any,
    given: Mapping[str, Any],
    at: str = "purchase",
    session: Any = None,
    host: str = "",
) -> Receipt:
    """Let a held conversion be sent, or forget it; see :func:`adroll_flask.release_conversion`.

    :param given: what a release says differently.
    """
    from adroll_flask.events.release import accept_changes

    settings = reporter.settings
    if not settings.enabled:
        return Receipt(None, "suppressed", "disabled")
    strict = reporter.strict()
    try:
        changes, wrong = accept_changes(given)
        if at == "release":
            changes["timestamp"] = reporter.clock()
        elif at != "purchase":
            wrong.append(EventError("at", "takes 'purchase' or 'release'"))
        for one in wrong:
            if strict:
                raise one
            # The sale is worth more than its correction: it goes as it was held.
            reporter.counters.add("field_dropped", one.field.partition("[")[0])
            logger.error(
                "AdRoll release: %s left out: %s [field-left-out]", one.field, one.expected
            )
        order = order_key(reporter, order_id, host)
        verdict = Verdict(reporter.clock(), kind, order, changes or None)
        known = reporter.outbox.decide(verdict, session=session)
        if not known.id and settings.hosts and not (host and settings.is_real(host)):
            # The hold may be of a page that ADROLL_HOSTS does not list: a dry run.
            verdict = replace(verdict, order=order._replace(dry_run=True))
            known = reporter.outbox.decide(verdict, session=session)
        reporter.counters.add(f"{kind}_kept")
        after_commit(session, reporter.tell, "a release")
    except Exception as problem:
        return reporter.not_kept(kind, problem, strict=strict, session=session)
    missing = left_out([(one.field, one.expected) for one in wrong])
    seen = _BEFORE.get((kind, known.before), "") if known.id else _NOT_SEEN
    reason = "; ".join(filter(None, (missing, seen)))
    return Receipt(known.id, "released" if kind == "release" else "cancelled", reason)
