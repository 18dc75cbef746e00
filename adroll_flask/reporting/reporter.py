"""From a view's plain values to a durable event: :meth:`Reporter.report`.

Where nothing is amiss a call goes straight through :meth:`Reporter._keep`: whose event it is, the
checked event, the site's own functions, one entry in the journal, a receipt. What keeps an event
from there is raised, and handled once, in :meth:`Reporter.report`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adroll_flask.errors import AdRollError, EventError
from adroll_flask.events.context import NO_IDENTITY, EventDefaults
from adroll_flask.events.dedupe_key import kept_key, suppressed_key
from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.forks import made_once
from adroll_flask.hosts import host_of
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox import NewEvent, Outbox, OutboxFailed, Put, new_id
from adroll_flask.outbox.entries import Counted, Withdrawal, outcome_of
from adroll_flask.outbox.inbox import after_commit, is_database_error
from adroll_flask.redaction import describe, describe_lines
from adroll_flask.signals import event_queued, event_rejected, event_suppressed
from adroll_flask.visitor.cookies import Records, Visitor

from .receipt import Receipt, left_out

if TYPE_CHECKING:
    from adroll_flask.counters import Counters
    from adroll_flask.events.build import Built
    from adroll_flask.events.coverage import Coverage
    from adroll_flask.settings import Settings
    from adroll_flask.visitor.record import Record
    from adroll_flask.visitor.tracked_request import TrackedRequest

    from .site_functions import SiteFunctions

logger: Logger = get_logger("adroll_flask.reporting")

#: Fields that say nothing of who the visitor is.
_NOT_PERSONAL = frozenset({"order_id", "value", "currency", "products", "product_map", "total"})
#: Fields that say who the visitor is, whatever a token lacks.
_WHO = frozenset({"email", "user_id"})
_NO_ADDRESS = (
    "the server gave no address of the visitor, as behind a Unix socket: wrap the app in "
    "werkzeug's ProxyFix"
)
#: What a purchase says nothing without, though AdRoll takes it.
NEEDED_OF_A_PURCHASE = {
    "order_id": "a purchase takes the shop's order id; without it a reload is reported as a sale",
    "value": "a purchase takes its value; without it the sale counts as nothing",
}


def _kept_name(name: object) -> str:
    """What queue and history call an event: names that are none of AdRoll's may come from a
    browser, and there may be any number of them."""
    return name if isinstance(name, str) and name in EVENT_NAMES else "unknown"


class _NotToBeReported(Exception):
    """By consent, or by the site's own function: why, as its text."""


@dataclass(slots=True, eq=False, repr=False)
class _Call:
    """One call on its way, and what is known of it so far.

    :param given: what it says of the event.
    :param subject: the visitor that it says.
    :param browser: the current request, if any.
    :param tracked: the same, where the event is of its visitor.
    """

    name: str
    given: dict[str, Any]
    subject: object
    hold: object
    session: Any
    strict: bool
    browser: TrackedRequest | None
    tracked: TrackedRequest | None
    known: Mapping[str, Any]
    context: EventDefaults | None = None
    built: Built | None = None

    @property
    def location(self) -> object:
        """The page's URL, as far as it is known."""
        known = self.context.page_location if self.context is not None else None
        return self.given.get("page_location") or known


@dataclass(eq=False, repr=False)
class Reporter:
    """Reports events of one app, and is what its other doings with the outbox are made of.

    :param functions: the site's own.
    :param open_outbox: opens the app's outbox; asked at the first use.
    :param strict: whether programmers' errors raise now.
    :param queued: called after a commit, to deliver.
    :param announce: sends a signal.
    """

    settings: Settings
    functions: SiteFunctions
    counters: Counters
    clock: Callable[[], float]
    records: Records
    open_outbox: Callable[[], Outbox]
    strict: Callable[[], bool]
    queued: Callable[[], None]
    announce: Callable[..., None]

    @made_once
    def outbox(self) -> Outbox:
        """The app's one outbox."""
        return self.open_outbox()

    @made_once
    def _build(self) -> Callable[..., Built]:
        # Loaded by the first report; an import statement costs each one a look.
        from adroll_flask.events.build import build

        return build

    def report(
        self,
        name: str,
        fields: Mapping[str, Any],
        *,
        tracked: TrackedRequest | None,
        known: Mapping[str, Any] = NO_IDENTITY,
    ) -> Receipt:
        """Check, deduplicate and keep one event; see :func:`adroll_flask.report_event`.

        :param tracked: the current request's, or ``None`` outside of one.
        :param known: what is known of the event's visitor.
        """
        if not self.settings.enabled:
            return Receipt(None, "suppressed", "disabled")
        given = {key: value for key, value in fields.items() if value is not None}
        subject, session = given.pop("visitor", None), given.pop("session", None)
        # Also for None, which says that there is no visitor: nothing is taken from the current
        # request, which is a payment provider's and not the visitor's.
        own = None if "visitor" in fields else tracked
        hold = given.pop("hold", None)
        hold = None if hold is False else hold
        call = _Call(name, given, subject, hold, session, self.strict(), tracked, own, known)
        try:
            try:
                return self._keep(call)
            except _NotToBeReported as answer:
                dry_run = self.is_dry_run(call.location, tracked)
                return self.suppressed(name, str(answer), given, dry_run=dry_run)
            except EventError as problem:
                unmade = own is not None and call.built is None
                if problem.field == "ip" and unmade and "ip" not in given:
                    problem = EventError("ip", _NO_ADDRESS)
                # A visitor whose browser keeps no cookies is no fault of the programmer's.
                if call.strict and not (unmade and problem.field == "visitor"):
                    raise problem
                return self._dead(call, problem)
        except Exception as problem:
            receipt = self.not_kept("event", problem, strict=call.strict, session=session)
            if not isinstance(problem, OutboxFailed):  # else the outbox knows
                with suppress(Exception):
                    self.outbox.note_failure(_kept_name(name), _reason(problem))
            elif call.built is not None:
                return Receipt(None, "failed", receipt.reason, call.built.coverage)
            return receipt

    def _keep(self, call: _Call) -> Receipt:
        """The way of a report on which nothing is amiss."""
        name, context = call.name, self._whose(call)
        built = call.built = self._build(name, call.given, context, strict=call.strict)
        if built.dropped or built.hidden:
            self._tell_what_is_missing(name, built.dropped, built.hidden)
        if name == "purchase":
            self._check_purchase(call)
        if self.functions.before_report:
            passed = self.functions.passed(built, strict=call.strict)
            if passed is None:
                raise _NotToBeReported("before_report")
            self._tell_what_is_missing(name, (), passed.hidden[len(built.hidden) :])
            built = call.built = passed
        held_for = None if call.hold is None else self._held_for(call, built)
        new = self.new_event(built, call.browser)
        new.held_for = held_for
        put = self.outbox.put(new, session=call.session)
        if put.status == "duplicate":
            return self._duplicate(name, put, built.coverage)
        status: Any = "queued" if held_for is None else "held"
        self.counters.add(f"event_{status}")
        receipt = Receipt(put.id, status, left_out(built.dropped), built.coverage)
        after_commit(call.session, self._committed, receipt, built)
        return receipt

    # -- on the way ------------------------------------------------------------------------

    def _whose(self, call: _Call) -> EventDefaults:
        if call.subject is not None:
            context, why = self.of_token(call.subject, call.given, call.browser)
            if call.name == "purchase" and self.functions.identity is not None and not why:
                self._check_identity(call.given)
        elif call.tracked is not None:
            context, why = self._of_request(call, call.tracked)
        else:
            context, why = self.bare(call.known, call.given), ""
        call.context = context
        if why:
            raise _NotToBeReported(why)
        return context

    def _held_for(self, call: _Call, built: Built) -> float:
        from adroll_flask.events.release import accept_hold

        if call.name != "purchase" or built.key is None:
            raise EventError("hold", "takes a purchase with an order_id, by which it is released")
        longest = self.settings.hold_max
        try:
            return accept_hold(call.hold, longest)
        except EventError as problem:
            if call.strict:
                raise
            # What is to be held is not sent, however the time was said.
            self.counters.add("field_dropped", "hold")
            logger.error("AdRoll event held for %d s: %s [hold-length]", longest, problem)
            return float(longest)

    def _tell_what_is_missing(
        self, name: str, dropped: tuple[tuple[str, str], ...], hidden: tuple[str, ...]
    ) -> None:
        for field, reason in dropped:
            self.counters.add("field_dropped", field.partition("[")[0])
            logger.warning("AdRoll event %s: %s left out: %s [field-left-out]", name, field, reason)
        for field in hidden:
            if self.counters.add("person_hidden", field):
                logger.warning(
                    "AdRoll event %s: something in %s tells a person, such as an e-mail address, "
                    "and was hidden (this is logged once and counted) [person-hidden]",
                    name,
                    field,
                )

    def _check_purchase(self, call: _Call) -> None:
        for field, why in NEEDED_OF_A_PURCHASE.items():
            if field in call.given:
                continue
            if call.strict:
                raise EventError(field, why)
            if self.counters.add("purchase_incomplete", field):
                logger.warning(
                    "report_conversion() without %s=: %s (this is logged once and counted) "
                    "[purchase-incomplete]",
                    field,
                    why,
                )

    def _check_identity(self, given: Mapping[str, Any]) -> None:
        if _WHO.isdisjoint(given) and self.counters.add("identity_not_asked"):
            logger.warning(
                "AdRoll: an order with visitor=<token> does not ask the identity function, since "
                "the current request may be somebody else's; pass email= and user_id= with it "
                "(this is logged once and counted) [identity-not-asked]"
            )

    def new_event(self, built: Built, browser: TrackedRequest | None) -> NewEvent:
        """A good event, as the outbox takes it; *browser*: the current request."""
        event, key = built.event, built.key
        eid = event.advertisable_eid
        if eid is None:  # of a line of an import, or not configured yet
            eid = self.settings.account_of(host_of(event.page_location)).advertisable_eid
        return NewEvent(
            id=new_id(self.clock()),
            name=event.event_name,
            advertisable_eid=eid or "",
            dry_run=self.is_dry_run(event.page_location, browser),
            key=None if key is None else kept_key(key, self.records.dedupe_secret),
            payload=built.payload,
            occurred_at=event.timestamp,
            digest=built.value_digest,
            identifiers=built.coverage.mask,
            known_since=built.defaults.known_since,
        )

    # -- whose event it is, and why it may not be reported ---------------------------------

    def of_token(
        self, subject: object, given: Mapping[str, Any], browser: TrackedRequest | None
    ) -> tuple[EventDefaults, str]:
        """Whose event it is, and why it may not be reported (or an empty text).

        :param given: the event's fields, as far as the caller says them.
        :param browser: the current request, in case it is the visitor's own and says no by now.
        :raises EventError: *subject* says nothing, or is no token of this site.
        """
        known_since = None
        if isinstance(subject, str):
            visitor, known_since = self.records.from_token(subject)
        elif isinstance(subject, Visitor):
            visitor = subject
        else:
            raise EventError("visitor", "takes a Visitor or the text of Visitor.token()")
        context = self.bare(
            NO_IDENTITY, given, f"https://{visitor.host}/" if visitor.host else None
        )
        context.ip, context.user_agent = visitor.ip, visitor.user_agent
        context.adct, context.first_party_cookie = visitor.adct, visitor.first_party_cookie
        context.known_since = known_since
        if browser is not None and browser.is_of(visitor):
            if browser.forgotten:
                return context, "forgotten"
            if browser.decision.answer is False:
                return context, f"consent_{browser.decision.reason}"
        if visitor.consent is None:
            return context, "" if self.settings.consent is None else "consent_unknown"
        return context, "" if visitor.consent else "consent_refused"

    def _of_request(self, call: _Call, tracked: TrackedRequest) -> tuple[EventDefaults, str]:
        given, known = call.given, call.known
        if not tracked.decision.granted:
            return self.bare(known, given), f"consent_{tracked.decision.reason}"
        if tracked.forgotten:
            return self.bare(known, given), "forgotten"
        if self.functions.identity is not None:
            self._add_identity(given, tracked, call.strict)
        context = self.bare(known, given, tracked.url)
        context.ip, context.user_agent = tracked.ip, tracked.user_agent
        has_id = given.get("user_id") or given.get("device_id")
        has_id = has_id or known.get("user_id") or known.get("device_id")
        record = tracked.reported_record(known=bool(has_id))
        context.adct, context.first_party_cookie = record.adct, record.first_party_cookie
        return context, ""

    def bare(
        self, known: Mapping[str, Any], given: Mapping[str, Any], location: str | None = None
    ) -> EventDefaults:
        """The account and the clock, where there is neither a request nor a visitor.

        :param location: the page's URL, where *given* does not say it.
        """
        settings, records = self.settings, self.records
        account = settings.account
        if settings.accounts:
            account = settings.account_of(host_of(given.get("page_location") or location))
        return EventDefaults(
            advertisable_eid=account.advertisable_eid,
            pixel_eid=account.pixel_eid,
            now=self.clock(),
            page_location=location,
            email_forms=settings.email,
            derive_key=records.derive_key,
            private_parameters=settings.private_parameters,
            dedupe_secret=records.dedupe_secret,
            **known,
        )

    def is_dry_run(self, location: object, browser: TrackedRequest | None) -> bool:
        """True where AdRoll is to forget the event: by the setting, or of a host that is not real.

        The page's host counts and the current request's: in a copied database the orders, and
        the tokens that are stored with them, are of the real site.

        :param location: the page's URL, as far as it is known.
        """
        settings = self.settings
        if settings.dry_run or not settings.hosts:
            return settings.dry_run
        for host in (host_of(location), browser.hostname if browser is not None else ""):
            if not settings.is_real(host):
                if self.counters.add("event_dry_run", "host"):
                    logger.warning(
                        "AdRoll events of %s go out as dry runs: it is not in ADROLL_HOSTS (this "
                        "is logged once and counted) [host-not-listed]",
                        host,
                    )
                return True
        return False

    def _add_identity(self, given: dict[str, Any], tracked: TrackedRequest, strict: bool) -> None:
        try:
            said = self.functions.who(tracked)
        except Exception as problem:
            let_through(problem)
            if strict:
                raise
            # The event goes without: who is logged in is worth less than the sale.
            self.counters.add("identity_failed")
            logger.error(
                "AdRoll's identity function failed: %s [identity-function-failed]",
                describe_lines(problem),
            )
            return
        for key, value in said.items():
            if given.get(key) in (None, ""):
                given[key] = value

    # -- what becomes of it ------------------------------------------------------------------

    def _committed(self, receipt: Receipt, built: Built) -> None:
        # Also one that is held has to be taken in, so that a claim can meet its release.
        self.tell("an event")
        if receipt.status == "queued" and event_queued.receivers:
            self.announce(event_queued, receipt=receipt, event=built.event)

    def _duplicate(self, name: str, put: Put, coverage: Coverage) -> Receipt:
        self.counters.add("event_duplicate")
        if not put.same:
            self.counters.add("event_duplicate", "another_value")
            logger.warning(
                "AdRoll event %s was reported before with another value; %s is kept "
                "[reported-with-another-value]",
                name,
                put.id,
            )
        self.announce(event_suppressed, name=name, reason="duplicate")
        return Receipt(put.id, "duplicate", "reported before", coverage)

    def suppressed(
        self, name: str, why: str, given: Mapping[str, Any], *, dry_run: bool
    ) -> Receipt:
        """Count an event that is not to be reported, and keep why; of a dry run only the count."""
        self.counters.add("event_suppressed", why)
        self.announce(event_suppressed, name=name, reason=why)
        now, order, secret = self.clock(), None, self.records.dedupe_secret
        with suppress(OutboxFailed):  # counted above; history does without it
            key = None if dry_run else given.get("deduplication_key") or given.get("order_id")
            # Without a secret, order numbers could be found by trying them.
            if self.settings.remember_suppressed and key is not None and secret is not None:
                order = suppressed_key(name, str(key), secret)
            became = outcome_of("suppressed", why, dry_run)
            self.outbox.record(Counted(now, _kept_name(name), *became, order=order))
        return Receipt(None, "suppressed", why)

    def _dead(self, call: _Call, problem: EventError) -> Receipt:
        """Keep what cannot be sent as it is, for its fixing.

        A good event that ``before_report`` failed on keeps its key. Nobody knows whether a held one
        was paid: its reason says so, and no retry sends it.
        """
        reason, text, built = problem.field, str(problem), call.built
        if reason == "before_report" and call.hold is not None:
            reason = "held"
        new = self._draft(call) if built is None else self.new_event(built, call.browser)
        self.counters.add("event_invalid", problem.field.partition("[")[0])
        try:
            put = self.outbox.put_dead(new, f"invalid:{reason}", text)
        except OutboxFailed as failure:
            self.counters.add("event_failed", failure.reason)
            logger.critical(
                "AdRoll event invalid (%s), and not kept: %s [event-lost]", text, failure.reason
            )
            return Receipt(None, "failed", failure.reason)
        if put.status == "duplicate" and built is not None:
            return self._duplicate(new.name, put, built.coverage)
        logger.error(
            "AdRoll event invalid, kept as dead letter %s: %s [event-invalid]", new.id, text
        )
        name = call.name if built is None else new.name
        self.announce(event_rejected, id=new.id, name=name, reason=f"invalid:{reason}")
        return Receipt(new.id, "invalid", text)

    def _draft(self, call: _Call) -> NewEvent:
        from adroll_flask.events.fix import draft

        given, context = call.given, call.context
        if context is None:  # a token that cannot be read
            context = self.bare(call.known, given)
            if self.settings.consent is not None:
                # The visitor's answer was in it.
                given = {key: given[key] for key in _NOT_PERSONAL & given.keys()}
        return NewEvent(
            id=new_id(self.clock()),
            name=_kept_name(call.name),
            advertisable_eid=context.advertisable_eid or "",
            dry_run=self.is_dry_run(call.location, call.browser),
            key=None,
            payload=draft(call.name, given, context),
            occurred_at=context.now,
        )

    def not_kept(self, what: str, problem: Exception, *, strict: bool, session: object) -> Receipt:
        """The receipt of an event, a release or a cancel that failed.

        :raises Exception: *problem*, where it is the caller's.

        Promise 1: a fault of ours is not the shop's. Loud, counted, and not raised. An error of
        the shop's own transaction is the shop's: to hide it would commit half of it.
        """
        let_through(problem)
        if isinstance(problem, OutboxFailed):
            self.counters.add(f"{what}_failed", problem.reason)
            logger.critical(
                "AdRoll %s lost, the outbox failed: %s [event-lost]", what, problem.reason
            )
            return Receipt(None, "failed", problem.reason)
        if strict or (session is not None and is_database_error(problem)):
            raise problem
        self.counters.add(f"{what}_failed", _reason(problem))
        if not isinstance(problem, AdRollError):
            logger.error(
                "AdRoll %s not kept, a fault of adroll_flask: %s [internal-fault]",
                what,
                describe(problem),
            )
            return Receipt(None, "failed", "internal")
        if what == "event":
            logger.error("AdRoll event not reported: %s [event-not-reported]", problem)
            return Receipt(None, "failed", str(problem))
        logger.error("AdRoll %s not kept: %s [decision-refused]", what, problem)
        is_wrong = isinstance(problem, EventError)
        return Receipt(None, "invalid" if is_wrong else "failed", str(problem))

    # -- beside events -----------------------------------------------------------------------

    def tell(self, of: str) -> None:
        """Tell delivery *of* something that is kept; a failure is logged and counted."""
        try:
            self.queued()
        except Exception as problem:
            let_through(problem)  # the token's callable is the site's
            # It is committed: whoever delivers comes by without being told.
            self.counters.add("delivery_error", "not_told")
            logger.error(
                "AdRoll's delivery was not told of %s: %s [delivery-not-told]",
                of,
                describe(problem),
            )

    def withdraw(self, record: Record | None) -> None:
        """A visitor says no: what waits of them is erased, and what they left earlier is not sent.

        Never fails a request. What the journal does not take is counted and logged.
        """
        if record is None or not (record.first_party_cookie or record.adct):
            return
        try:
            self.outbox.record(Withdrawal(self.clock(), record.first_party_cookie, record.adct))
        except AdRollError as failure:
            reason = _reason(failure)
            self.counters.add("forget_failed", reason)
            logger.error("AdRoll: a visitor's events are not erased: %s [event-lost]", reason)
            return
        self.tell("a visitor's no")


def _reason(problem: Exception) -> str:
    """Why something failed, as it is counted."""
    if isinstance(problem, OutboxFailed):
        return problem.reason
    return type(problem).__name__ if isinstance(problem, AdRollError) else "internal"
