"""Releasing and cancelling what is held: from a call's plain values to a verdict that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from adroll_flask.errors import AdRollError, EventError, help_url
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.session import after_commit, is_database_error
from adroll_flask.redaction import describe

from .receipt import Receipt

if TYPE_CHECKING:
    from adroll_flask.outbox.record_format import Verdict

    from .parts import Parts

logger: Logger = get_logger("adroll_flask.reporting")

_NOT_SEEN = "no hold of this order was seen by this process; applied when it is found"
#: By what is decided, and what this process decided before.
_BEFORE = {
    ("release", "release"): "released before",
    ("release", "cancel"): "cancelled before; it is not sent",
    ("cancel", "release"): "released before; too late if it has been sent",
    ("cancel", "cancel"): "cancelled before",
}


class Holding:
    """Releases and cancels held conversions of one app."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._counters = parts.counters

    def release(
        self, order_id: Any, changes: Mapping[str, Any], at: str, session: Any = None
    ) -> Receipt:
        """Let a held conversion be sent; see :func:`adroll_flask.release_conversion`."""
        return self._decided("release", order_id, changes, at, session)

    def cancel(self, order_id: Any, session: Any = None) -> Receipt:
        """Forget a conversion; see :func:`adroll_flask.cancel_conversion`."""
        return self._decided("cancel", order_id, {}, "purchase", session)

    def verdict(
        self,
        kind: Literal["release", "cancel"],
        order_id: Any,
        changes: Mapping[str, Any] | None = None,
    ) -> Verdict:
        """A verdict on the conversion of an order.

        :raises EventError: *order_id* is no order's id.
        """
        from adroll_flask.events.coercion import accept_id
        from adroll_flask.events.dedupe_key import kept_key
        from adroll_flask.outbox.record_format import Verdict

        return Verdict(
            at=self._parts.clock(),
            kind=kind,
            name="purchase",
            advertisable_eid=self._settings.advertisable_eid or "",
            dry_run=self._settings.dry_run,
            key=kept_key(accept_id(order_id, "order_id"), self._parts.records().dedupe_secret),
            changes=changes or None,
        )

    def _decided(
        self,
        kind: Literal["release", "cancel"],
        order_id: Any,
        given: Mapping[str, Any],
        at: str,
        session: Any,
    ) -> Receipt:
        if not self._settings.enabled:
            return Receipt(None, "suppressed", "disabled")
        strict = self._parts.strict()
        try:
            return self._decide(kind, order_id, given, at, session, strict)
        except AdRollError as problem:
            let_through(problem)
            from adroll_flask.outbox import OutboxFailed

            if isinstance(problem, OutboxFailed):
                self._counters.add(f"{kind}_failed", problem.reason)
                logger.critical(
                    "AdRoll %s lost, the outbox failed: %s (%s)",
                    kind,
                    problem.reason,
                    help_url("event-lost"),
                )
                return Receipt(None, "failed", problem.reason)
            if strict:
                raise
            self._counters.add(f"{kind}_failed", type(problem).__name__)
            logger.error("AdRoll %s not kept: %s (%s)", kind, problem, help_url("decision-refused"))
            is_invalid = isinstance(problem, EventError)
            return Receipt(None, "invalid" if is_invalid else "failed", str(problem))
        except Exception as problem:
            # As in a report: a fault of ours is not the shop's, an error of its transaction is.
            let_through(problem)
            if strict or (session is not None and is_database_error(problem)):
                raise
            self._counters.add(f"{kind}_failed", "internal")
            logger.error(
                "AdRoll %s not kept, a fault of adroll_flask: %s (%s)",
                kind,
                describe(problem),
                help_url("internal-fault"),
            )
            return Receipt(None, "failed", "internal")

    def _decide(
        self,
        kind: Literal["release", "cancel"],
        order_id: Any,
        given: Mapping[str, Any],
        at: str,
        session: Any,
        strict: bool,
    ) -> Receipt:
        from adroll_flask.events.release import accept_changes

        changes, wrong = accept_changes(given)
        if at == "release":
            changes["timestamp"] = self._parts.clock()
        elif at != "purchase":
            wrong.append(EventError("at", "takes 'purchase' or 'release'"))
        if wrong and strict:
            raise wrong[0]
        left_out = "; ".join(f"{one.field} left out: {one.expected}" for one in wrong[:3])
        for one in wrong:
            # The sale is worth more than its correction: it goes as it was held.
            self._counters.add("field_dropped", one.field.partition("[")[0])
            logger.error(
                "AdRoll release: %s left out: %s (%s)",
                one.field,
                one.expected,
                help_url("field-left-out"),
            )
        known = self._parts.outbox().decide(self.verdict(kind, order_id, changes), session=session)
        self._counters.add(f"{kind}_kept")
        if session is None:
            self._parts.tell("a release")
        else:
            after_commit(session, lambda: self._parts.tell("a release"))
        seen = _BEFORE.get((kind, known.before), "") if known.id else _NOT_SEEN
        reason = "; ".join(filter(None, (left_out, seen)))
        return Receipt(known.id, "released" if kind == "release" else "cancelled", reason)
