"""From a view's plain values to a durable event, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adroll_flask.errors import AdRollError, EventError, help_url
from adroll_flask.events.context import NO_IDENTITY, EventDefaults, KnownIdentity
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox import OutboxFailed
from adroll_flask.outbox.record_format import Counted, Suppressed, counted_as
from adroll_flask.outbox.session import after_commit, is_database_error
from adroll_flask.redaction import describe, describe_lines
from adroll_flask.signals import event_queued, event_rejected, event_suppressed

from .context import ReportContext
from .new_events import event_of, new_event, no_address, suppressed_order
from .receipt import Receipt, left_out
from .site_functions import run_before_report

if TYPE_CHECKING:
    from adroll_flask.events.build import Built
    from adroll_flask.events.coverage import Coverage
    from adroll_flask.outbox import NewEvent, Put
    from adroll_flask.visitor.tracked_request import TrackedRequest

    from .parts import Parts

logger: Logger = get_logger("adroll_flask.reporting")

#: Fields that say nothing of who the visitor is.
_NOT_PERSONAL = frozenset({"order_id", "value", "currency", "products", "product_map", "total"})
#: What a purchase says nothing without, though AdRoll takes it.
_NEEDED_OF_A_PURCHASE = {
    "order_id": "a purchase takes the shop's order id; without it a reload is reported as a sale",
    "value": "a purchase takes its value; without it the sale counts as nothing",
}


class Reporter:
    """Reports events of one app."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._settings = parts.settings
        self._counters = parts.counters
        self._contexts = ReportContext(parts)

    @cached_property
    def _build(self) -> Callable[..., Built]:
        # Loaded by the first report; an import statement costs each one a look.
        from adroll_flask.events.build import build

        return build

    def defaults(self) -> EventDefaults:
        """What is known of an event where there is neither a request nor a visitor."""
        return self._contexts.bare(NO_IDENTITY)

    def defaults_of(self, token: object) -> tuple[EventDefaults, str]:
        """What a visitor's token says, and why its event may not be reported (or an empty text).

        :raises EventError: it says nothing, or is no token of this site.
        """
        return self._contexts.of_token(token, None)

    def report(
        self,
        name: str,
        fields: Mapping[str, Any],
        *,
        tracked: TrackedRequest | None,
        known: KnownIdentity = NO_IDENTITY,
    ) -> Receipt:
        """Check, deduplicate and keep one event; see :func:`adroll_flask.report_event`.

        :param tracked: the current request's, or ``None`` outside of one.
        :param known: what is known of the request's visitor.
        """
        if not self._settings.enabled:
            return Receipt(None, "suppressed", "disabled")
        strict = self.parts.strict()
        try:
            return self._report(name, fields, tracked, known, strict)
        except AdRollError as problem:
            let_through(problem)
            if strict:
                raise
            self._failed(name, type(problem).__name__)
            logger.error(
                "AdRoll event not reported: %s (%s)", problem, help_url("event-not-reported")
            )
            return Receipt(None, "failed", str(problem))
        except Exception as problem:
            # Promise 1: a fault of ours is not the shop's. Loud, counted, and not raised. An error
            # of the shop's own transaction is the shop's: to hide it would commit half of it.
            let_through(problem)
            if strict or (fields.get("session") is not None and is_database_error(problem)):
                raise
            self._failed(name, "internal")
            logger.error(
                "AdRoll event not reported, a fault of adroll_flask: %s (%s)",
                describe(problem),
                help_url("internal-fault"),
            )
            return Receipt(None, "failed", "internal")

    def _report(
        self,
        name: str,
        fields: Mapping[str, Any],
        tracked: TrackedRequest | None,
        known: KnownIdentity,
        strict: bool,
    ) -> Receipt:
        given = {key: value for key, value in fields.items() if value is not None}
        subject = given.pop("visitor", None)
        session = given.pop("session", None)
        hold = given.pop("hold", None)
        browser = tracked
        if "visitor" in fields:
            # Also for None, which says that there is no visitor: nothing is taken from the current
            # request, which is a payment provider's and not the visitor's.
            tracked, known = None, NO_IDENTITY
        try:
            if subject is not None:
                context, why = self._contexts.of_token(subject, browser)
            else:
                context, why = self._contexts.of_request(given, tracked, known, strict)
        except EventError as problem:
            if strict:
                raise
            if self._settings.consent is not None:
                # The visitor's answer was in the token.
                given = {key: given[key] for key in _NOT_PERSONAL & given.keys()}
            return self._invalid(name, given, self._contexts.bare(known), problem, browser)
        if why:
            return self._suppressed(name, why, given, context, browser)
        try:
            built = self._build(name, given, context, strict=strict)
        except EventError as problem:
            if tracked is not None and problem.field == "ip":
                problem = no_address(problem, given)
            # A visitor whose browser keeps no cookies is no fault of the programmer's.
            unknown = tracked is not None and problem.field == "visitor"
            if strict and not unknown:
                raise problem from None
            return self._invalid(name, given, context, problem, browser)
        for field, reason in built.dropped:
            self._counters.add("field_dropped", field.partition("[")[0])
            logger.warning(
                "AdRoll event %s: %s left out: %s (%s)",
                name,
                field,
                reason,
                help_url("field-left-out"),
            )
        if name == "purchase":
            self._check_purchase(given, strict)
        hooks = self.parts.before_report()
        if hooks:
            try:
                changed = run_before_report(hooks, built)
            except EventError as problem:
                let_through(problem)
                if strict:
                    raise
                return self._kept_back(built, browser, context.known_since, problem, hold)
            except Exception as problem:
                let_through(problem)
                if strict:
                    raise
                # Kept, not sent: the hook may have been there to keep this very event back.
                logger.error(
                    "before_report failed: %s (%s)",
                    describe_lines(problem),
                    help_url("before-report-failed"),
                )
                failed = EventError("before_report", f"raised {type(problem).__name__}")
                return self._kept_back(built, browser, context.known_since, failed, hold)
            if changed is None:
                return self._suppressed(name, "before_report", given, context, browser)
            built = changed
        held_for = None
        if hold is not None and hold is not False:
            if name != "purchase" or built.key is None:
                takes = "a purchase with an order_id, by which it is released"
                no_hold = EventError("hold", f"takes {takes}")
                if strict:
                    raise no_hold
                return self._dead(self._new(built, browser, context.known_since), "hold", no_hold)
            held_for = self._held_for(hold, strict)
        return self._put(built, session, browser, context.known_since, held_for)

    def _held_for(self, hold: object, strict: bool) -> float:
        from adroll_flask.events.release import accept_hold

        longest = self._settings.hold_max
        try:
            return accept_hold(hold, longest)
        except EventError as problem:
            if strict:
                raise
            # What is to be held is not sent, however the time was said.
            self._counters.add("field_dropped", "hold")
            logger.error(
                "AdRoll event held for %d s: %s (%s)", longest, problem, help_url("hold-length")
            )
            return float(longest)

    def _check_purchase(self, given: Mapping[str, Any], strict: bool) -> None:
        for field, why in _NEEDED_OF_A_PURCHASE.items():
            if field in given:
                continue
            if strict:
                raise EventError(field, why)
            if not self._counters.get("purchase_incomplete", field):
                logger.warning(
                    "report_conversion() without %s=: %s (this is logged once and counted) (%s)",
                    field,
                    why,
                    help_url("purchase-incomplete"),
                )
            self._counters.add("purchase_incomplete", field)

    def _new(
        self, built: Built, browser: TrackedRequest | None, known_since: float | None
    ) -> NewEvent:
        dry_run = self._contexts.is_dry_run(built.event.page_location, browser)
        return event_of(self.parts, built, dry_run=dry_run, known_since=known_since)

    # -- what becomes of it --------------------------------------------------------------

    def _put(
        self,
        built: Built,
        session: Any,
        browser: TrackedRequest | None,
        known_since: float | None,
        held_for: float | None,
    ) -> Receipt:
        new, coverage = self._new(built, browser, known_since), built.coverage
        new.held_for = held_for
        try:
            put = self.parts.outbox().put(new, session=session)
        except AdRollError as problem:
            let_through(problem)
            if not isinstance(problem, OutboxFailed):
                raise  # the session's: a programmer's error
            self._counters.add("event_failed", problem.reason)
            logger.critical(
                "AdRoll event lost, the outbox failed: %s (%s)",
                problem.reason,
                help_url("event-lost"),
            )
            return Receipt(None, "failed", problem.reason, coverage)
        if put.status == "duplicate":
            return self._duplicate(new.name, put, coverage)
        if held_for is not None:
            self._counters.add("event_held")
            if session is None:
                self.parts.tell(
                    "an event"
                )  # it has to be taken in, so that a claim can meet its release
            return Receipt(put.id, "held", left_out(built.dropped), coverage)
        self._counters.add("event_queued")
        receipt = Receipt(put.id, "queued", left_out(built.dropped), coverage)
        if session is None:
            self._committed(receipt, built)
        else:
            after_commit(session, lambda: self._committed(receipt, built))
        return receipt

    def _committed(self, receipt: Receipt, built: Built) -> None:
        self.parts.tell("an event")
        if event_queued.receivers:
            self.parts.announce(event_queued, receipt=receipt, event=built.event)

    def _duplicate(self, name: str, put: Put, coverage: Coverage | None) -> Receipt:
        self._counters.add("event_duplicate")
        if not put.same:
            self._counters.add("event_duplicate", "another_value")
            logger.warning(
                "AdRoll event %s was reported before with another value; %s is kept (%s)",
                name,
                put.id,
                help_url("reported-with-another-value"),
            )
        self.parts.announce(event_suppressed, name=name, reason="duplicate")
        if coverage is None:
            return Receipt(put.id, "duplicate", "reported before")
        return Receipt(put.id, "duplicate", "reported before", coverage)

    def _failed(self, name: str, reason: str) -> None:
        self._counters.add("event_failed", reason)
        try:
            self.parts.outbox().note_failure(str(name), reason)
        except Exception as problem:  # what failed may be the outbox itself
            let_through(problem)

    def _suppressed(
        self,
        name: str,
        why: str,
        given: Mapping[str, Any],
        context: EventDefaults,
        browser: TrackedRequest | None,
    ) -> Receipt:
        location = given.get("page_location") or context.page_location
        dry_run = self._contexts.is_dry_run(location, browser)
        return self.suppressed(name, why, given, dry_run=dry_run)

    def suppressed(
        self, name: str, why: str, given: Mapping[str, Any], *, dry_run: bool
    ) -> Receipt:
        """Count an event that is not to be reported, and keep why; of a dry run only the count."""
        self._counters.add("event_suppressed", why)
        self.parts.announce(event_suppressed, name=name, reason=why)
        now = self.parts.clock()
        with suppress(OutboxFailed):  # counted above; history does without it
            if dry_run:
                self.parts.outbox().record(
                    Counted(now, name, *counted_as("suppressed", why, dry_run))
                )
            else:
                order = suppressed_order(self.parts, name, given)
                self.parts.outbox().record(Suppressed(now, name, why, order))
        return Receipt(None, "suppressed", why)

    def _invalid(
        self,
        name: str,
        fields: Mapping[str, Any],
        context: EventDefaults,
        problem: EventError,
        browser: TrackedRequest | None,
    ) -> Receipt:
        from adroll_flask.events.build import draft

        payload = draft(name, fields, context)
        location = fields.get("page_location") or context.page_location
        new = new_event(
            self.parts,
            str(name)[:64],
            payload,
            context.now,
            dry_run=self._contexts.is_dry_run(location, browser),
        )
        return self._dead(new, problem.field, problem)

    def _kept_back(
        self,
        built: Built,
        browser: TrackedRequest | None,
        known_since: float | None,
        problem: EventError,
        hold: object,
    ) -> Receipt:
        """A good event that ``before_report`` failed on: a dead letter that keeps its key.

        Nobody knows whether a held one was paid: its reason says so, and no retry sends it.
        """
        new = self._new(built, browser, known_since)
        reason = "before_report" if hold is None or hold is False else "held"
        return self._dead(new, reason, problem, built.coverage)

    def _dead(
        self, new: NewEvent, reason: str, problem: EventError, coverage: Coverage | None = None
    ) -> Receipt:
        field = problem.field.partition("[")[0]
        self._counters.add("event_invalid", field)
        text = str(problem)
        try:
            put = self.parts.outbox().put_dead(new, f"invalid:{reason}", text)
        except OutboxFailed as failure:
            let_through(failure)
            self._counters.add("event_failed", failure.reason)
            logger.critical(
                "AdRoll event invalid (%s), and not kept: %s (%s)",
                text,
                failure.reason,
                help_url("event-lost"),
            )
            return Receipt(None, "failed", failure.reason)
        if put.status == "duplicate":
            return self._duplicate(new.name, put, coverage)
        logger.error(
            "AdRoll event invalid, kept as dead letter %s: %s (%s)",
            new.id,
            text,
            help_url("event-invalid"),
        )
        self.parts.announce(event_rejected, id=new.id, name=new.name, reason=f"invalid:{reason}")
        return Receipt(new.id, "invalid", text)
