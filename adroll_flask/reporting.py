"""From a view's plain values to a durable event, and what became of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .commits import after_commit, is_database_error
from .context import NOBODY, Context, Known
from .errors import AdRollError, EventError
from .receipt import Receipt
from .redaction import describe
from .signals import event_queued, event_rejected, event_suppressed
from .visitor import Visitor

if TYPE_CHECKING:
    from .counters import Counters
    from .coverage import Coverage
    from .events import Event
    from .exchange import Exchange
    from .outbox import NewEvent, Outbox, Put
    from .quick import Quick
    from .record import Record
    from .settings import Settings
    from .visitor import Records

_LOG = logging.getLogger("adroll_flask.reporting")


class Reporter:
    """Reports events of one app.

    :param outbox: returns the app's outbox.
    :param strict: says at each call whether programmer errors raise.
    :param before_report: returns the site's own function, if it set one.
    :param queued: called after an event's commit, to deliver it.
    :param announce: sends a signal.
    """

    def __init__(
        self,
        settings: Settings,
        records: Callable[[], Records],
        counters: Counters,
        *,
        clock: Callable[[], float],
        outbox: Callable[[], Outbox],
        strict: Callable[[], bool],
        before_report: Callable[[], Callable[[Event], Event | None] | None],
        queued: Callable[[], None],
        announce: Callable[..., None],
    ) -> None:
        self._settings = settings
        self._records = records
        self._counters = counters
        self._clock = clock
        self._outbox = outbox
        self._strict = strict
        self._before_report = before_report
        self._queued = queued
        self._announce = announce
        #: Made with the first report, which loads what it needs.
        self._quick: Quick | None = None

    def report(
        self,
        name: str,
        fields: Mapping[str, Any],
        *,
        exchange: Exchange | None,
        known: Known = NOBODY,
    ) -> Receipt:
        """Check, deduplicate and keep one event; see :func:`adroll_flask.report_event`.

        :param exchange: the current request's, or ``None`` outside of one.
        :param known: what is known of the request's visitor.
        """
        if not self._settings.enabled:
            return Receipt(None, "suppressed", "disabled")
        strict = self._strict()
        try:
            return self._report(name, fields, exchange, known, strict)
        except AdRollError as problem:
            if strict:
                raise
            self._counters.add("event_failed", type(problem).__name__)
            _LOG.error("AdRoll event not reported: %s", problem)
            return Receipt(None, "failed", str(problem))
        except Exception as problem:
            # Promise 1: a fault of ours is not the shop's. Loud, counted, and not raised. An error
            # of the shop's own transaction is the shop's: to hide it would commit half of it.
            if strict or (fields.get("session") is not None and is_database_error(problem)):
                raise
            self._counters.add("event_failed", "internal")
            _LOG.error("AdRoll event not reported, a fault of adroll_flask: %s", describe(problem))
            return Receipt(None, "failed", "internal")

    def _report(
        self,
        name: str,
        fields: Mapping[str, Any],
        exchange: Exchange | None,
        known: Known,
        strict: bool,
    ) -> Receipt:
        given = {key: value for key, value in fields.items() if value is not None}
        subject = given.pop("visitor", None)
        session = given.pop("session", None)
        try:
            has_id = bool(given.get("user_id") or given.get("device_id"))
            context, why = self._context(subject, exchange, known, has_id=has_id)
        except EventError as problem:
            if strict:
                raise
            return self._invalid(name, given, self._bare_context(known), problem)
        if why:
            return self._suppressed(name, why)
        hook = self._before_report()
        if hook is None and session is None and not event_queued.receivers:
            # Nobody asks for the event itself.
            receipt = self._report_quickly(name, given, context)
            if receipt is not None:
                return receipt
        from .events import build, wire_bytes

        try:
            built = build(name, given, context, strict=strict)
        except EventError as problem:
            if exchange is not None and subject is None and problem.field == "ip":
                problem = _no_address(problem, given)
            # A visitor whose browser keeps no cookies is no fault of the programmer's.
            unknown = exchange is not None and subject is None and problem.field == "visitor"
            if strict and not unknown:
                raise problem from None
            return self._invalid(name, given, context, problem)
        for field, reason in built.dropped:
            self._counters.add("field_dropped", field.partition("[")[0])
            _LOG.warning("AdRoll event %s: %s left out: %s", name, field, reason)
        event = built.event
        key = built.key
        if hook is not None:
            try:
                changed = self._hooked(hook, event)
            except EventError as problem:
                if strict:
                    raise
                return self._dead(self._new(event, built.payload, key), "before_report", problem)
            except Exception as problem:
                if strict:
                    raise
                # Kept, not sent: the hook may have been there to keep this very event back.
                _LOG.error("before_report failed: %s", describe(problem))
                return self._dead(
                    self._new(event, built.payload, key),
                    "before_report",
                    EventError("before_report", f"raised {type(problem).__name__}"),
                )
            if changed is None:
                return self._suppressed(name, "before_report")
            if key == event.order_id:
                key = changed.order_id
            event = changed
        payload = built.payload if event is built.event else wire_bytes(event)
        return self._keep(event, payload, key, session)

    def _report_quickly(
        self, name: str, fields: Mapping[str, Any], context: Context
    ) -> Receipt | None:
        """The short way of an event in good order; ``None`` where it has to go the long way."""
        quick = self._quick
        if quick is None:
            from .quick import Quick

            quick = self._quick = Quick(dry_run=self._settings.dry_run)
        found = quick.event(name, fields, context)
        return None if found is None else self._put(found[0], None, found[1], None)

    @staticmethod
    def _hooked(hook: Callable[[Event], Event | None], event: Event) -> Event | None:
        from .events import Event, recheck

        changed = hook(event)
        if changed is None or changed is event:
            return changed
        if not isinstance(changed, Event):
            raise EventError("before_report", "has to return the event, another one, or None")
        return recheck(changed)

    def _context(
        self, subject: object, exchange: Exchange | None, known: Known, *, has_id: bool
    ) -> tuple[Context, str]:
        """Whose event it is, from where, and why it may not be reported (or an empty text)."""
        if subject is not None:
            # Nothing is taken from the current request: it is a payment provider's, not the
            # visitor's.
            visitor = self._subject(subject)
            location = f"https://{visitor.host}/" if visitor.host else None
            context = self._make_context(NOBODY, visitor, location, visitor.ip, None)
            allowed = visitor.consent is True or (
                visitor.consent is None and self._settings.consent is None
            )
            why = "" if allowed else "consent_refused"
            if not allowed and visitor.consent is None:
                why = "consent_unknown"
            return context, why
        if exchange is None:
            return self._bare_context(known), ""
        decision = exchange.decision
        if not decision.granted:
            return self._bare_context(known), f"consent_{decision.reason}"
        if exchange.forgotten:
            return self._bare_context(known), "forgotten"
        record = exchange.reported_record(known=bool(has_id or known.user_id or known.device_id))
        context = self._make_context(known, record, exchange.url, exchange.ip, exchange.user_agent)
        return context, ""

    def _subject(self, subject: object) -> Visitor:
        if isinstance(subject, Visitor):
            return subject
        if isinstance(subject, str):
            return self._records().from_token(subject)[0]
        raise EventError("visitor", "takes a Visitor or the text of Visitor.token()")

    def _bare_context(self, known: Known) -> Context:
        return self._make_context(known, None, None, None, None)

    def _make_context(
        self,
        known: Known,
        visitor: Visitor | Record | None,
        location: str | None,
        ip: str | None,
        user_agent: str | None,
    ) -> Context:
        settings = self._settings
        return Context(
            advertisable_eid=settings.advertisable_eid,
            pixel_eid=settings.pixel_eid,
            now=self._clock(),
            page_location=location,
            ip=ip,
            user_agent=user_agent,
            adct=visitor.adct if visitor else None,
            first_party_cookie=visitor.first_party_cookie if visitor else None,
            email_sha256=known.email_sha256,
            email_md5=known.email_md5,
            user_id=known.user_id,
            device_id=known.device_id,
            email_forms=settings.email,
            derive_key=self._records().derive_key,
        )

    # -- what becomes of it --------------------------------------------------------------

    def _keep(self, event: Event, payload: bytes, key: str | None, session: Any) -> Receipt:
        return self._put(self._new(event, payload, key), event, event.coverage, session)

    def _put(self, new: NewEvent, event: Event | None, coverage: Coverage, session: Any) -> Receipt:
        try:
            put = self._outbox().put(new, session=session)
        except AdRollError as problem:
            from .outbox.protocol import OutboxFailed

            if not isinstance(problem, OutboxFailed):
                raise  # the session's: a programmer's error
            self._counters.add("event_failed", problem.reason)
            _LOG.critical("AdRoll event lost, the outbox failed: %s", problem.reason)
            return Receipt(None, "failed", problem.reason, coverage)
        if put.status == "duplicate":
            return self._duplicate(new.name, put, coverage)
        self._counters.add("event_queued")
        if put.spilled:
            self._counters.add("event_spilled", put.spilled)
            _LOG.warning("AdRoll event kept in the spill file: %s", put.spilled)
        receipt = Receipt(put.id, "queued", "", coverage)
        if session is None:
            self._committed(receipt, event)
        else:
            after_commit(session, lambda: self._committed(receipt, event))
        return receipt

    def _committed(self, receipt: Receipt, event: Event | None) -> None:
        try:
            self._queued()
        except Exception as problem:
            # The event is committed: whoever delivers comes by without being told.
            self._counters.add("delivery_error", "not_told")
            _LOG.error("AdRoll's delivery was not told of an event: %s", describe(problem))
        if event is not None:
            self._announce(event_queued, receipt=receipt, event=event)

    def _duplicate(self, name: str, put: Put, coverage: Coverage) -> Receipt:
        self._counters.add("event_duplicate")
        if not put.same:
            self._counters.add("event_duplicate", "another_value")
            _LOG.warning(
                "AdRoll event %s was reported before with another value; the first is kept (%s)",
                name,
                put.id,
            )
        self._announce(event_suppressed, name=name, reason="duplicate")
        return Receipt(put.id, "duplicate", "reported before", coverage)

    def _suppressed(self, name: str, why: str) -> Receipt:
        self._counters.add("event_suppressed", why)
        self._announce(event_suppressed, name=name, reason=why)
        return Receipt(None, "suppressed", why)

    def _invalid(
        self, name: str, fields: Mapping[str, Any], context: Context, problem: EventError
    ) -> Receipt:
        from .events import draft

        payload = draft(name, fields, context)
        new = self._new_of(str(name)[:64], payload, context.now, None, None)
        return self._dead(new, problem.field, problem)

    def _dead(self, new: NewEvent, reason: str, problem: EventError) -> Receipt:
        from .outbox import OutboxFailed

        field = problem.field.partition("[")[0]
        self._counters.add("event_invalid", field)
        text = str(problem)
        try:
            self._outbox().put_dead(new, f"invalid:{reason}", text)
        except OutboxFailed as failure:
            self._counters.add("event_failed", failure.reason)
            _LOG.critical("AdRoll event invalid (%s), and not kept: %s", text, failure.reason)
            return Receipt(None, "failed", failure.reason)
        _LOG.error("AdRoll event invalid, kept as dead letter %s: %s", new.id, text)
        self._announce(event_rejected, id=new.id, name=new.name, reason=f"invalid:{reason}")
        return Receipt(new.id, "invalid", text)

    def _new(self, event: Event, payload: bytes, key: str | None) -> NewEvent:
        digest = None if key is None else f"{event.value} {event.currency}"
        return self._new_of(event.event_name, payload, event.timestamp, key, digest)

    def _new_of(
        self, name: str, payload: bytes, at: float, key: str | None, digest: str | None
    ) -> NewEvent:
        from .outbox import NewEvent, new_id

        return NewEvent(
            id=new_id(self._clock()),
            name=name,
            advertisable_eid=self._settings.advertisable_eid or "",
            dry_run=self._settings.dry_run,
            key=key,
            payload=payload,
            occurred_at=at,
            digest=digest,
        )


def _no_address(problem: EventError, given: Mapping[str, Any]) -> EventError:
    """*problem*, or what is at fault where the server itself names no client."""
    if "ip" in given:
        return problem
    return EventError(
        "ip",
        "the server gave no address of the visitor, as behind a Unix socket: wrap the app in "
        "werkzeug's ProxyFix",
    )
