"""From a view's plain values to a durable event: :meth:`Reporter.report`.

It is the wall behind which nothing fails that is not the caller's. Where nothing is amiss a call
goes straight through ``_report``: whose event it is, the checked event, the site's own functions,
one entry in the journal, a receipt. What is wrong with an event is raised on that way and handled
once, at its end. :meth:`Reporter.decide` is the way of a release or a cancel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

from blinker import NamedSignal

from adroll_flask.errors import AdRollError, ConfigurationError, EventError, let_through
from adroll_flask.events import names
from adroll_flask.events.names import Coverage, EventDefaults, kept_key
from adroll_flask.events.products import MAX_PRODUCTS
from adroll_flask.forks import made_once
from adroll_flask.host_names import host_of
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox import model
from adroll_flask.outbox.outbox import Outbox, after_commit, is_database_error
from adroll_flask.redaction import describe, describe_lines, short_key
from adroll_flask.signals import event_delivered, event_queued, event_rejected, event_suppressed
from adroll_flask.visitor.consent import decide_later
from adroll_flask.visitor.identifiers import accept_id
from adroll_flask.visitor.record import Record, Visitor, Visitors

if TYPE_CHECKING:
    from adroll_flask.counters import Counters
    from adroll_flask.events.build import Built
    from adroll_flask.events.event import Event
    from adroll_flask.settings import Settings
    from adroll_flask.visitor.tracked_request import TrackedRequest

logger: Logger = get_logger("adroll_flask.reporting")

_F = TypeVar("_F", bound="Callable[..., object]")

#: Event in, event or ``None`` out.
BeforeReport: TypeAlias = "Callable[[Event], Event | None]"

#: What ``@adroll.paid_orders`` takes: gives mappings with ``order_id`` and, where known, ``value``,
#: ``currency``, ``at`` (when it was paid) and ``group`` (such as the payment method).
PaidOrdersFunction: TypeAlias = "Callable[[datetime, datetime], Iterable[Mapping[str, Any]]]"

_IDENTITY = ("email", "user_id", "device_id")

Status = Literal[
    "queued", "held", "released", "cancelled", "duplicate", "suppressed", "invalid", "failed"
]

#: Of an event that is not kept, or whose identifiers could not be read.
_NO_COVERAGE = Coverage()
#: Fields left out that a receipt names.
_MAX_LEFT_OUT = 3
#: Fields that say nothing of who the visitor is.
_NOT_PERSONAL = frozenset({"order_id", "value", "currency", "products", "product_map", "total"})
#: What a purchase says nothing without, though AdRoll takes it.
_NEEDED_OF_A_PURCHASE = {
    "order_id": "a purchase takes the shop's order id; without it a reload is reported as a sale",
    "value": "a purchase takes its value; without it the sale counts as nothing",
}
_NOT_SEEN = "no hold of this order was seen by this process; applied when it is found"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one call; true when the event is queued, held or released.

    >>> bool(Receipt(id="018f", status="queued"))
    True
    """

    #: The event's id; of the kept one for a duplicate; of the held one for a release or a
    #: cancellation, where this process held it lately. ``None``: none is kept, or none is known.
    id: str | None
    #: ``"queued"``: in the journal, and AdRoll will have it. ``"duplicate"``: reported before.
    #: ``"held"``: kept until its release. ``"released"``, ``"cancelled"``: so it will be, also
    #: where the hold is found later. ``"suppressed"``: not to be reported. ``"invalid"``: kept as
    #: a dead letter that can be fixed; of a release or a cancellation with a wrong order id nothing
    #: is kept. ``"failed"``: not kept, since the journal did not take it, a setting is wrong, there
    #: is no app here, or adroll_flask has a fault.
    status: Status
    #: Why, where it is not queued: a short name or the field and what it takes. Of a queued one
    #: what was left out of it, if anything was; of a released or cancelled one also that this
    #: process has seen no hold.
    reason: str = ""
    #: Which of the seven identifiers the event carries; none where nothing is kept to be sent.
    coverage: Coverage = _NO_COVERAGE

    def __bool__(self) -> bool:
        return self.status in ("queued", "held", "released")


#: What each call gives where ``ADROLL_ENABLED`` is False.
DISABLED: Final = Receipt(None, "suppressed", "disabled")


@dataclass(slots=True)
class SiteFunctions:
    """What a site has said with ``@adroll.before_report`` and ``@adroll.identity`` so far.

    :param identity: says who is logged in; takes the environ where *takes_environ*.
    :param paid_orders: lists the shop's paid orders.
    :param known: tells what ``identify()`` was told of the current request's visitor.
    :param are_here: False where a command knows a site's settings and not its app.
    """

    before_report: list[BeforeReport] = field(default_factory=list)
    identity: Callable[..., object] | None = None
    takes_environ: bool = False
    paid_orders: PaidOrdersFunction | None = None
    known: Callable[[], Mapping[str, Any]] = dict
    are_here: bool = True

    def set_once(self, name: str, function: _F) -> _F:
        """Keep *function* under *name*.

        :raises ConfigurationError: there is another already.
        """
        if getattr(self, name) not in (None, function):
            raise ConfigurationError(name, "there is such a function already", slug="set-up-twice")
        setattr(self, name, function)
        return function

    def who(self, tracked: TrackedRequest) -> Mapping[str, Any]:
        """Who is logged in, as fields of an event.

        :raises EventError: the function said something else than who somebody is.
        """
        if self.identity is None:
            return {}
        said = self.identity(tracked.environ) if self.takes_environ else self.identity()
        if said is None:
            return {}
        if not isinstance(said, Mapping):
            raise EventError(
                "identity", "has to return a dict of email, user_id, device_id, or None"
            )
        if unknown := [str(key) for key in said if key not in _IDENTITY]:
            raise EventError(
                "identity",
                f"has to return email, user_id, device_id; {names.shown(unknown[0])} is none",
            )
        return {key: value for key, value in said.items() if value not in (None, "")}

    def passed(self, built: Built, *, strict: bool = False) -> Built | None:
        """The event as ``before_report`` lets it pass; ``None``: one of them keeps it back.

        Each is asked in turn and sees what the one before it returned, checked.

        :param strict: raise what one of them raises.
        :raises EventError: one failed, or returned something that cannot be sent: its field is
            ``before_report``.
        """
        for function in self.before_report:
            try:
                changed = function(built.event)
                if changed is None:
                    return None
                if isinstance(changed, type(built.event)):
                    built = built.changed(changed)
                    continue
                why = "has to return the event, another one, or None"
            except Exception as problem:
                let_through(problem)
                if strict:
                    raise
                if isinstance(problem, EventError):
                    why = str(problem)
                else:
                    said = describe_lines(problem)
                    logger.error("before_report failed: %s [before-report-failed]", said)
                    why = f"raised {type(problem).__name__}"
            # Kept, not sent: the function may have been there to keep this very event back.
            raise EventError("before_report", why)
        return built


@dataclass(eq=False, repr=False)
class Reporter:
    """Reports events of one app, and is what its other doings with the outbox are made of.

    :param functions: the site's own.
    :param open_outbox: opens the app's outbox; asked at the first use.
    :param strict: whether programmers' errors raise now.
    :param queued: called after a commit, to deliver.
    :param announce: sends a signal.
    :param assume_cookie: a visitor without cookies counts as one whose page view gave them (tests
        of a site).
    """

    settings: Settings
    functions: SiteFunctions
    counters: Counters
    clock: Callable[[], float]
    visitors: Visitors
    open_outbox: Callable[[], Outbox]
    strict: Callable[[], bool]
    queued: Callable[[], None]
    announce: Callable[..., None]
    assume_cookie: bool = False

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
        self, name: str, fields: Mapping[str, Any], tracked: TrackedRequest | None
    ) -> Receipt:
        """Check, deduplicate and keep one event; see :func:`adroll_flask.report_event`.

        :param tracked: the current request's, or ``None`` outside of one.
        """
        if not self.settings.enabled:
            return DISABLED
        strict, session = self.strict(), fields.get("session")
        try:
            return self._report(name, fields, tracked, strict)
        except Exception as problem:
            receipt = self.not_kept("event", problem, strict=strict, session=session)
            if not isinstance(problem, model.OutboxFailed):  # else the outbox knows
                with suppress(Exception):
                    self.outbox.note_failure(_kept_name(name), _reason(problem))
            return receipt

    def _report(
        self, name: str, fields: Mapping[str, Any], tracked: TrackedRequest | None, strict: bool
    ) -> Receipt:
        """The way of one event; what is wrong with it makes it a dead letter."""
        given = {key: value for key, value in fields.items() if value is not None}
        subject, session = given.pop("visitor", None), given.pop("session", None)
        # Also for None, which says that there is no visitor: nothing is taken from the current
        # request, which is a payment provider's and not the visitor's.
        own = None if "visitor" in fields else tracked
        hold = given.pop("hold", False)
        context: EventDefaults | None = None
        built: Built | None = None
        try:
            if subject is not None:
                context = self.of_token(subject, given, tracked)
            elif own is not None:
                context = self._of_request(own, given, strict)
            else:
                context = self.bare(given)
            passed = None
            if not context.refusal:
                if hasattr(given.get("products"), "__next__"):  # a dead letter reads them, too
                    given["products"] = [*islice(given["products"], MAX_PRODUCTS + 1)]
                built = self._build(name, given, context, strict=strict)
                if name == "purchase":
                    self.check_purchase(given, strict=strict, by_token=subject is not None)
                passed = self.functions.passed(built, strict=strict)
            if passed is None:
                why = context.refusal or "before_report"
                key = given.get("deduplication_key") or given.get("order_id")
                page = given.get("page_location") or context.page_location
                dry_run = self.is_dry_run(page, tracked)
                return self.suppressed(name, why, key, dry_run=dry_run)
            built = passed
            self._tell_what_is_missing(name, built.dropped, built.hidden)
            held_for = None if hold is False else self._held_for(hold, built, strict)
            new = self.new_event(built, tracked)
            new.held_for = held_for
            kept = self.outbox.put(new, session=session)
            if kept != new.id:
                return self._duplicate(name, kept, built.coverage)
            status: Status = "queued" if hold is False else "held"
            self.counters.add(f"event_{status}")
            receipt = Receipt(kept, status, _left_out(built.dropped), built.coverage)
            after_commit(session, self._committed, receipt, built)
            return receipt
        except EventError as problem:
            # A visitor whose browser keeps no cookies is no fault of the programmer's.
            by_visitor = own is not None and built is None and problem.field == "visitor"
            if strict and not by_visitor:
                raise
            if built is not None:
                new = self.new_event(built, tracked)
            else:
                new = self._draft(name, given, context, tracked)
            # A good event that before_report failed on keeps its key. Nobody knows whether a
            # held one was paid: its reason says so, and no retry sends it.
            reason = problem.field if hold is False else f"held:{problem.field}"
            return self._dead(name, new, reason, problem, built, session)

    # -- on the way ------------------------------------------------------------------------

    def _held_for(self, hold: object, built: Built, strict: bool) -> float:
        from adroll_flask.events.fix import accept_hold

        if built.event.event_name != "purchase" or built.key is None:
            raise EventError("hold", "takes a purchase with an order_id, by which it is released")
        longest = self.settings.hold_max
        try:
            return accept_hold(hold, longest)
        except EventError as problem:
            if strict:
                raise
            # What is to be held is not sent, however the time was said.
            self.counters.add("field_dropped", "hold")
            logger.error("AdRoll event held for %d s: %s [hold-length]", longest, problem)
            return float(longest)

    def _tell_what_is_missing(
        self, name: str, dropped: Sequence[tuple[str, str]], hidden: Sequence[str]
    ) -> None:
        for what, reason in dropped:
            self.counters.add("field_dropped", what.partition("[")[0])
            logger.warning("AdRoll event %s: %s left out: %s [field-left-out]", name, what, reason)
        for what in hidden:
            if self.counters.add("person_hidden", what):
                logger.warning(
                    "AdRoll event %s: something in %s tells a person, such as an e-mail address, "
                    "and was hidden (this is logged once and counted) [person-hidden]",
                    name,
                    what,
                )

    def check_purchase(
        self, given: Mapping[str, Any], *, strict: bool, by_token: bool = False
    ) -> None:
        """Warn once of what a purchase lacks that AdRoll takes without.

        :raises EventError: with *strict*: it has no order id, or no value.
        """
        for what, why in _NEEDED_OF_A_PURCHASE.items():
            if what in given:
                continue
            if strict:
                raise EventError(what, why)
            if self.counters.add("purchase_incomplete", what):
                logger.warning(
                    "report_conversion() without %s=: %s (this is logged once and counted) "
                    "[purchase-incomplete]",
                    what,
                    why,
                )

        nobody = by_token and self.functions.identity and not given.keys() & {"email", "user_id"}
        if nobody and self.counters.add("identity_not_asked"):
            logger.warning(
                "AdRoll: an order with visitor=<token> does not ask the identity function, since "
                "the current request may be somebody else's; pass email= and user_id= with it "
                "(this is logged once and counted) [identity-not-asked]"
            )

    def new_event(
        self, built: Built, browser: TrackedRequest | None, *, dry_run: bool | None = None
    ) -> model.NewEvent:
        """A good event, as the outbox takes it.

        :param browser: the current request.
        :param dry_run: whether it is one; ``None``: by its page and the request.
        """
        event = built.event
        if dry_run is None:
            dry_run = self.is_dry_run(event.page_location, browser)
        eid = event.advertisable_eid
        if eid is None:  # of a line of an import, or not configured yet
            eid = self.settings.account_of(host_of(event.page_location)).advertisable_eid
        return model.NewEvent(
            id=model.new_id(self.clock()),
            name=event.event_name,
            advertisable_eid=eid or "",
            dry_run=dry_run,
            key=built.kept_key,
            payload=built.payload,
            occurred_at=event.timestamp,
            digest=built.value_digest,
            identifiers=built.coverage.mask,
            known_since=built.defaults.known_since,
        )

    # -- whose event it is, and why it may not be reported ---------------------------------

    def of_token(
        self, subject: object, given: Mapping[str, Any], browser: TrackedRequest | None
    ) -> EventDefaults:
        """Whose event it is, and why it may not be reported.

        :param given: the event's fields, as far as the caller says them.
        :param browser: the current request, in case it is the visitor's own and says no by now.
        :raises EventError: *subject* says nothing, or is no token of this site.
        """
        if isinstance(subject, str):
            visitor, known_since = self.visitors.from_token(subject)
        elif isinstance(subject, Visitor):
            visitor, known_since = subject, None
        else:
            raise EventError("visitor", "takes a Visitor or the text of Visitor.token()")
        context = self.bare(given, f"https://{visitor.host}/" if visitor.host else None)
        context.ip, context.user_agent = visitor.ip, visitor.user_agent
        context.adct, context.first_party_cookie = visitor.adct, visitor.first_party_cookie
        context.known_since = known_since
        now = browser.refusal_by_now(visitor) if browser is not None else ""
        context.refusal = now or decide_later(self.visitors, visitor.consent).refusal
        return context

    def _of_request(
        self, tracked: TrackedRequest, given: dict[str, Any], strict: bool
    ) -> EventDefaults:
        if why := tracked.refusal:
            return self.bare(given, refusal=why)
        try:
            who = self.functions.who(tracked)
            given |= {key: who[key] for key in who if given.get(key) in (None, "")}
        except Exception as problem:
            let_through(problem)
            if strict:
                raise
            # The event goes without: who is logged in is worth less than the sale.
            self.counters.add("identity_failed")
            said = describe_lines(problem)
            logger.error("AdRoll's identity function failed: %s [identity-function-failed]", said)
        known = self.functions.known()
        context = self.bare(given, tracked.url, **known)
        context.ip, context.user_agent = tracked.ip, tracked.user_agent
        # From an id of another kind a cookie's value can be derived.
        has_id = any(said.get(id) for said in (given, known) for id in ("user_id", "device_id"))
        record = tracked.reported_record(assume_cookie=self.assume_cookie and not has_id)
        context.adct, context.first_party_cookie = record.adct, record.first_party_cookie
        return context

    def bare(
        self, given: Mapping[str, Any], location: str | None = None, **known: Any
    ) -> EventDefaults:
        """The account and the clock, and what else is *known*.

        :param location: the page's URL, where *given* does not say it.
        """
        settings, visitors = self.settings, self.visitors
        # Of one account nothing is asked.
        page = given.get("page_location") or location if settings.accounts else None
        account = settings.account_of(host_of(page))
        return EventDefaults(
            advertisable_eid=account.advertisable_eid,
            pixel_eid=account.pixel_eid,
            now=self.clock(),
            page_location=location,
            email_forms=settings.email,
            derive_key=visitors.derive_key,
            private_parameters=settings.private_parameters,
            dedupe_secret=visitors.dedupe_secret,
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

    # -- what becomes of it ------------------------------------------------------------------

    def _committed(self, receipt: Receipt, built: Built) -> None:
        # Also one that is held has to be taken in, so that a claim can meet its release.
        self.tell("an event")
        if receipt.status == "queued" and event_queued.receivers:
            self.announce(event_queued, receipt=receipt, event=built.event)

    def _duplicate(self, name: str, id: str, coverage: Coverage) -> Receipt:
        self.announce(event_suppressed, name=name, reason="duplicate")
        return Receipt(id, "duplicate", "reported before", coverage)

    def suppressed(self, name: str, why: str, key: object, *, dry_run: bool) -> Receipt:
        """Count an event that is not to be reported, and keep why; of a dry run only the count.

        :param key: by which a second report of it is known, as it was given; ``None``: by nothing.
        """
        self.counters.add("event_suppressed", why)
        self.announce(event_suppressed, name=name, reason=why)
        now, order, secret = self.clock(), None, self.visitors.dedupe_secret
        with suppress(model.OutboxFailed):  # counted above; history does without it
            is_kept = self.settings.remember_suppressed and not dry_run
            # Without a secret, order numbers could be found by trying them.
            if is_kept and key is not None and secret is not None:
                text = str(key)
                with suppress(EventError):
                    text = accept_id(key)  # as a report has it
                order = names.suppressed_key(name, text, secret)
            became = model.outcome_of("suppressed", why, dry_run)
            self.outbox.record(model.Counted(now, _kept_name(name), *became, order=order))
        return Receipt(None, "suppressed", why)

    def _dead(
        self,
        name: str,
        new: model.NewEvent,
        reason: str,
        problem: EventError,
        built: Built | None,
        session: Any,
    ) -> Receipt:
        """Keep what cannot be sent as it is, for its fixing."""
        text = str(problem)
        self.counters.add("event_invalid", problem.field.partition("[")[0])
        new.dead = f"invalid:{reason}", text
        kept = self.outbox.put(new, session=session)
        if kept != new.id and built is not None:
            return self._duplicate(name, kept, built.coverage)
        logger.error(
            "AdRoll event invalid, kept as dead letter %s: %s [event-invalid]", new.id, text
        )
        told = {"id": new.id, "name": name, "reason": f"invalid:{reason}"}
        after_commit(session, partial(self.announce, event_rejected, **told))
        return Receipt(new.id, "invalid", text)

    def _draft(
        self,
        name: str,
        given: Mapping[str, Any],
        context: EventDefaults | None,
        browser: TrackedRequest | None,
    ) -> model.NewEvent:
        from adroll_flask.events.fix import draft

        kept = given
        if context is None:  # a token that cannot be read
            context = self.bare(given)
            if self.settings.consent is not None:
                # The visitor's answer was in it.
                kept = {key: given[key] for key in _NOT_PERSONAL & given.keys()}
        return model.NewEvent(
            id=model.new_id(self.clock()),
            name=_kept_name(name),
            advertisable_eid=context.advertisable_eid or "",
            dry_run=self.is_dry_run(given.get("page_location") or context.page_location, browser),
            key=None,
            payload=draft(name, kept, context),
            occurred_at=context.now,
        )

    def not_kept(self, what: str, problem: Exception, *, strict: bool, session: object) -> Receipt:
        """The receipt of an event, a release or a cancel that failed.

        :raises Exception: *problem*, where it is the caller's.

        Promise 1: a fault of ours is not the shop's. Loud, counted, and not raised. An error of
        the shop's own transaction is the shop's: to hide it would commit half of it.
        """
        let_through(problem)
        reason, is_lost = _reason(problem), isinstance(problem, model.OutboxFailed)
        if not is_lost and (strict or (session is not None and is_database_error(problem))):
            raise problem
        self.counters.add(f"{what}_failed", reason)
        if is_lost:
            logger.critical("AdRoll %s lost, the outbox failed: %s [event-lost]", what, reason)
        elif isinstance(problem, AdRollError):
            logger.error("AdRoll %s not kept: %s [event-not-reported]", what, problem)
            is_wrong = isinstance(problem, EventError)
            return Receipt(None, "invalid" if is_wrong else "failed", str(problem))
        else:
            said = describe(problem)
            logger.error(
                "AdRoll %s not kept, a fault of adroll_flask: %s [internal-fault]", what, said
            )
        return Receipt(None, "failed", reason)

    # -- what is held ------------------------------------------------------------------------

    def order_key(self, order_id: Any, host: str = "") -> model.OrderKey:
        """By what the conversion of an order is known.

        :param host: the shop's, where ``ADROLL_ACCOUNTS`` has its account.
        :raises EventError: *order_id* is no order's id.
        """
        eid = self.settings.account_of(host).advertisable_eid or ""
        key = kept_key(accept_id(order_id, "order_id"), self.visitors.dedupe_secret)
        return model.OrderKey(eid, self.settings.dry_run, "purchase", key)

    def decide(
        self,
        kind: Literal["release", "cancel"],
        order_id: Any,
        given: Mapping[str, Any],
        at: str = "purchase",
        session: Any = None,
        host: str = "",
    ) -> Receipt:
        """Let a held conversion be sent, or forget it; see :func:`adroll_flask.release_conversion`.

        :param given: what a release says differently.
        """
        from adroll_flask.events.fix import accept_changes

        settings, strict = self.settings, self.strict()
        if not settings.enabled:
            return DISABLED
        try:
            changes, wrong = accept_changes(given)
            if at == "release":
                changes["timestamp"] = self.clock()
            elif at != "purchase":
                wrong.append(EventError("at", "takes 'purchase' or 'release'"))
            if wrong and strict:
                raise wrong[0]
            # The sale is worth more than its correction: it goes as it was held.
            dropped = [(one.field, one.expected) for one in wrong]
            self._tell_what_is_missing("purchase (release)", dropped, ())
            order = self.order_key(order_id, host)
            verdict = model.Verdict(self.clock(), kind, order, changes or None)
            held = self.outbox.decide(verdict, session=session)
            if held is None and settings.hosts and not (host and settings.is_real(host)):
                # The hold may be of a page that ADROLL_HOSTS does not list: a dry run.
                verdict = replace(verdict, order=order._replace(dry_run=True))
                held = self.outbox.decide(verdict, session=session)
            self.counters.add(f"{kind}_kept")
            after_commit(session, self.tell, "a release")
        except Exception as problem:
            return self.not_kept(kind, problem, strict=strict, session=session)
        reason = "; ".join(filter(None, (_left_out(dropped), "" if held else _NOT_SEEN)))
        return Receipt(held, "released" if kind == "release" else "cancelled", reason)

    # -- beside events -----------------------------------------------------------------------

    def tell(self, of: str) -> None:
        """Tell delivery *of* something that is kept; a failure is logged and counted."""
        try:
            self.queued()
        except Exception as problem:
            let_through(problem)  # the token's callable is the site's
            # It is committed: whoever delivers comes by without being told.
            self.counters.add("delivery_error", "not_told")
            said = describe(problem)
            logger.error("AdRoll's delivery was not told of %s: %s [delivery-not-told]", of, said)

    def withdraw(self, record: Record | None) -> None:
        """A visitor says no: what waits of them is erased, and what they left earlier is not sent.

        Never fails a request. What the journal does not take is counted and logged.
        """
        if record is None or not (record.first_party_cookie or record.adct):
            return
        try:
            self.outbox.record(
                model.Withdrawal(self.clock(), record.first_party_cookie, record.adct)
            )
            self.tell("a visitor's no")
        except AdRollError as failure:
            reason = _reason(failure)
            self.counters.add("forget_failed", reason)
            logger.error("AdRoll: a visitor's events are not erased: %s [event-lost]", reason)


def _reason(problem: Exception) -> str:
    """Why something failed, as it is counted."""
    if isinstance(problem, model.OutboxFailed):
        return problem.reason
    return type(problem).__name__ if isinstance(problem, AdRollError) else "internal"


def _left_out(dropped: Sequence[tuple[str, str]]) -> str:
    """The receipt's reason of an event that does without some of its fields; bounded."""
    said = [f"{field} left out: {why}" for field, why in dropped[:_MAX_LEFT_OUT]]
    more = len(dropped) - _MAX_LEFT_OUT
    return "; ".join([*said, f"{more} more"] if more > 0 else said)


def _kept_name(name: object) -> str:
    """What queue and history call an event: names that are none of AdRoll's may come from a
    browser, and there may be any number of them."""
    return name if isinstance(name, str) and name in names.EVENT_NAMES else "unknown"


# -- ADROLL_DEBUG ----------------------------------------------------------------------------------
#
# Each event, and what became of it, on standard error. No visitor's values: of what a call gave,
# the names, and what a shop itself made of it.


def say_report(name: str, fields: Mapping[str, Any], receipt: Receipt) -> None:
    """Say what came of a call."""
    order, coverage = fields.get("order_id"), receipt.coverage
    value = f"{fields.get('value', '')} {fields.get('currency', '')}".strip()
    _say(
        f"{name} {short_key(str(order))}" if order is not None else name,
        value if value[:1].isdigit() else "",
        f"{receipt.status} {receipt.id or ''}".strip(),
        receipt.reason,
        str(coverage) if coverage.carried else "",
        f"missing: {', '.join(coverage.missing)}" if coverage.missing else "",
    )


def say_outcome(signal: NamedSignal, values: Mapping[str, Any]) -> None:
    """Say what delivery made of an event."""
    if signal is event_delivered:
        _say(values["name"], f"delivered {values['id']}", "maybe twice" * values["unsure"])
    elif signal is event_rejected and not values["reason"].startswith("invalid"):
        _say(values["name"], f"dead {values['id']}", values["reason"])


def _say(*parts: str) -> None:
    sys.stderr.write(f"AdRoll: {'; '.join(filter(None, parts))}\n")
