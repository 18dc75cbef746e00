"""From a view's plain values to a durable event: :meth:`Reporter.report`.

Where programmers' errors do not raise, a fault of ours does not reach the caller. A good event goes
straight through ``_report``, which finds out whose event it is, checks it, asks the site's own
functions, puts one entry into the journal, and returns a receipt. If something on that way finds a
fault in the event, it raises ``EventError``. ``_report`` catches it in one place, and keeps the
event as a dead letter. :meth:`Reporter.decide` takes releases and cancellations.

The journal keeps a second report of an order like the first. :mod:`adroll_flask.outbox.rows`
decides what becomes of it, when it is taken into the outbox.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from adroll_flask.errors import AdRollError, EventError, TokenError, TokenExpiredError, let_through
from adroll_flask.events import names
from adroll_flask.events.dedupe_key import kept_key, secret_tag, suppressed_key
from adroll_flask.events.names import EventDefaults
from adroll_flask.events.products import listed
from adroll_flask.forks import made_once
from adroll_flask.host_names import host_of
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox import model
from adroll_flask.outbox.inbox import after_commit, is_database_error
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.redaction import describe, describe_lines, forget_values
from adroll_flask.signals import event_queued, event_rejected, event_suppressed
from adroll_flask.visitor.consent import decide_later
from adroll_flask.visitor.identifiers import accept_id
from adroll_flask.visitor.tokens import Visitor
from adroll_flask.visitor.visitors import Visitors

from .receipt import DISABLED, Receipt, Status, left_out
from .site_functions import SiteFunctions

if TYPE_CHECKING:
    from adroll_flask.counters import Counters
    from adroll_flask.events.build import Built
    from adroll_flask.outbox.knowledge import Knowledge
    from adroll_flask.settings import Settings
    from adroll_flask.visitor.tracked_request import TrackedRequest

logger: Logger = get_logger("adroll_flask.reporting")

#: The request in which a call is made; ``None``: outside of one.
CurrentRequest: TypeAlias = "TrackedRequest | None"

#: Arguments that say nothing about the visitor.
_NOT_PERSONAL = frozenset({"order_id", "value", "currency", "products", "product_map", "total"})
#: What a purchase needs to be of use, and why. AdRoll takes a purchase that lacks them, too.
_NEEDED_OF_A_PURCHASE = {
    "order_id": "a purchase takes the shop's order id; without it a reload is reported as a sale",
    "value": "a purchase takes its value; without it the sale counts as nothing",
}
#: Seconds after which a request counts as long.
_LONG_REQUEST: Final = 1.0
_NOT_SEEN = "no hold of this order was seen by this process; applied when it is found"


@dataclass(eq=False, repr=False)
class Reporter:
    """Reports the events of one app. Imports, holds and the work on kept events use it, too.

    :param functions: the site's own functions.
    :param open_outbox: opens the app's outbox; called at the first use.
    :param strict: tells whether programmers' errors raise now.
    :param queued: tells delivery that there is a new entry; called after a commit.
    :param announce: sends a signal.
    :param assume_cookie: treat a visitor without cookies as one who got them with a page (for a
        site's tests).
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
        # Imported by the first report, and kept: an import statement in report() would cost each
        # report a search in sys.modules.
        from adroll_flask.events.build import build

        return build

    def report(self, name: str, fields: Mapping[str, Any], tracked: CurrentRequest) -> Receipt:
        """Check, deduplicate and keep one event; see :func:`adroll_flask.report_event`."""
        if not self.settings.enabled:
            return DISABLED
        strict = self.strict()
        try:
            return self._report(name, fields, tracked, strict)
        except Exception as problem:
            session = fields.get("session")
            receipt = self.not_kept("event", problem, strict=strict, session=session, fields=fields)
            if not isinstance(problem, model.OutboxFailed):  # those the outbox notes itself
                with suppress(Exception):
                    account = self._account_at(fields.get("page_location"), tracked)
                    self.outbox.note_failure(_kept_name(name), _reason(problem), account)
            return receipt

    def _report(
        self, name: str, fields: Mapping[str, Any], tracked: CurrentRequest, strict: bool
    ) -> Receipt:
        """Report one event. An invalid one is kept as a dead letter."""
        arguments = {**fields}
        subject = arguments.pop("visitor", None)
        session = arguments.pop("session", None)
        hold = arguments.pop("hold", None)
        is_held = hold is not None and hold is not False
        # With visitor= the current request may be somebody else's, such as a payment provider's:
        # the event takes no value from it. visitor=None says that there is no visitor.
        own = None if "visitor" in fields else tracked
        page: object = arguments.get("page_location")
        defaults: EventDefaults | None = None
        built: Built | None = None
        try:
            if subject is not None:
                defaults = self.of_token(subject, arguments, tracked, strict=strict)
            elif own is not None:
                defaults = self._of_request(own, arguments, strict)
            else:
                defaults = self.defaults_at(arguments)
            page = page or defaults.page_location
            passed: Built | None = None
            if not defaults.refusal:
                built = self._built(name, arguments, defaults, strict)
                if name == "purchase":
                    self.check_purchase(arguments, strict=strict, by_token=subject is not None)
                passed = built
                if self.functions.before_report:
                    passed = self.functions.passed(built, strict=strict)
            if passed is None:
                why = defaults.refusal or "before_report"
                key = arguments.get("deduplication_key") or arguments.get("order_id")
                account = defaults.advertisable_eid or ""
                return self.suppressed(name, why, key, account, self.is_dry_run(page, tracked))
            built = passed
            if built.dropped or built.hidden:
                self._log_dropped_and_hidden(name, built.dropped, built.hidden)
            new = self.new_event(built)
            page = built.event.page_location
            if is_held:
                new.held_for = self._held_for(hold, built, strict)
        except EventError as problem:
            # That a browser keeps no cookies is no programmer's error.
            by_visitor = own is not None and built is None and problem.field == "visitor"
            if strict and not by_visitor:
                raise
            if built is not None:
                new = self.new_event(built)
            else:
                new = self._draft(name, arguments, defaults)
            # Nobody knows whether an order with hold= was paid. So the reason of its dead letter
            # has "held:", and no retry sends it.
            reason = f"held:{problem.field}" if is_held else problem.field
            new.dead = (f"invalid:{reason}", str(problem))
            self.counters.add("event_invalid", problem.field.partition("[")[0])
        new.dry_run = self.is_dry_run(page, tracked)
        # The orders of an app that is being debugged come from its developer's address.
        if own is not None and not strict and arguments.get("ip") is None:
            new.sender = own.sender_note
        return self._put(name, new, built, session)

    def _built(
        self, name: str, arguments: dict[str, Any], defaults: EventDefaults, strict: bool
    ) -> Built:
        """The event of a call's *arguments*."""
        products: Any = arguments.get("products")
        # An iterator can be read only once, and a dead letter reads the products again. The type is
        # compared first, since for a list hasattr() would raise and catch an AttributeError inside.
        if type(products) is not list and hasattr(type(products), "__next__"):
            arguments["products"] = listed(products)
        built = self._build(name, arguments, defaults, strict=strict)
        if defaults.token_problem:
            built.dropped = (("visitor", defaults.token_problem), *built.dropped)
        return built

    def _put(self, name: str, new: model.NewEvent, built: Built | None, session: Any) -> Receipt:
        """Put *new* into the outbox. The receipt of a duplicate has the first event's id.

        :param name: the event's name, as the caller wrote it.
        :param built: what *new* was made of; ``None``: it is a draft.
        """
        kept = self.outbox.put(new, session=session)
        coverage = names.Coverage() if built is None else built.coverage
        if kept != new.id:
            self.announce(event_suppressed, name=name, reason="duplicate")
            return Receipt(kept, "duplicate", "reported before", coverage)
        if built is None or new.dead is not None:
            return self._rejected(name, new, session)
        status: Status = "queued" if new.held_for is None else "held"
        self.counters.add(f"event_{status}")
        reason = left_out(built.dropped) if built.dropped else ""
        receipt = Receipt(kept, status, reason, coverage)
        if session is None:
            self._committed(receipt, built)
        else:
            after_commit(session, self._committed, receipt, built)
        return receipt

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
            # Only the length of the hold is wrong. The event must not be sent now all the same.
            self.counters.add("field_dropped", "hold")
            logger.error("AdRoll event held for %d s: %s [hold-length]", longest, problem)
            return float(longest)

    def _log_dropped_and_hidden(
        self, name: str, dropped: Sequence[tuple[str, str]], hidden: Sequence[str]
    ) -> None:
        for place, reason in dropped:
            field = place.partition("[")[0]
            # A shop may make up any number of names; a metric can have only a few labels.
            is_ours = field in names.EventFields.__annotations__
            self.counters.add("field_dropped", field if is_ours else "unknown")
            logger.warning("AdRoll event %s: %s left out: %s [field-left-out]", name, place, reason)
        for field in hidden:
            if self.counters.add("person_hidden", field):
                logger.warning(
                    "AdRoll event %s: something in %s tells a person, such as an e-mail address, "
                    "and was hidden (this is logged once and counted) [person-hidden]",
                    name,
                    field,
                )

    def check_purchase(
        self, fields: Mapping[str, Any], *, strict: bool, by_token: bool = False
    ) -> None:
        """Warn once where a purchase has no order id or no value. AdRoll takes it all the same.

        :param fields: the purchase's.
        :param strict: raise instead.
        :param by_token: the visitor is known by a token, so the identity function is not asked. If
            the site has such a function, and *fields* have no identity, warn of that once, too.
        :raises EventError: with *strict*: there is no order id, or no value.
        """
        for field, why in _NEEDED_OF_A_PURCHASE.items():
            if fields.get(field) is not None:
                continue
            if strict:
                raise EventError(field, why)
            if self.counters.add("purchase_incomplete", field):
                logger.warning(
                    "report_conversion() without %s=: %s (this is logged once and counted) "
                    "[purchase-incomplete]",
                    field,
                    why,
                )
        is_known = fields.get("email") is not None or fields.get("user_id") is not None
        if is_known or not by_token or self.functions.identity is None:
            return
        if self.counters.add("identity_not_asked"):
            logger.warning(
                "AdRoll: an order with visitor=<token> does not ask the identity function, since "
                "the current request may be somebody else's; pass email= and user_id= with it "
                "(this is logged once and counted) [identity-not-asked]"
            )

    def new_event(self, built: Built) -> model.NewEvent:
        """*built* as the outbox takes it. The caller says whether it is a dry run."""
        event = built.event
        # An event may come without an account: an imported one, and each one before an account is
        # set. The host of its page then decides.
        account = event.advertisable_eid or self._account_at(event.page_location, None)
        id = model.new_id(self.clock())
        new = model.NewEvent(
            id, event.event_name, account, False, built.kept_key(), built.payload, event.timestamp
        )
        new.digest = built.value_digest()
        new.identifiers = built.coverage.mask
        new.known_since = built.defaults.known_since
        new.record_id = built.defaults.record_id
        return new

    # -- whose event it is, and why it may not be reported ---------------------------------

    def of_token(
        self, subject: object, fields: Mapping[str, Any], browser: CurrentRequest, *, strict: bool
    ) -> EventDefaults:
        """What *subject* says of the visitor, and whether their event may be reported.

        :param subject: a ``Visitor``, or a token's text.
        :param fields: the caller's arguments. An identifier among them says whose event it is, even
            if the token does not.
        :param browser: the current request. If it is the visitor's own, and they say no in it,
            nothing may be reported, whatever the token says.
        :param strict: refuse a token that cannot be read, even if *fields* have an identifier.
        :raises EventError: *subject* is no token of this site, and *fields* have no identifier.
        """
        visitor = Visitor()
        made_at: float | None = None
        problem: TokenError | None = None
        if isinstance(subject, Visitor):
            visitor = subject
        elif isinstance(subject, str):
            try:
                visitor, made_at, is_expired = self.visitors.read_token(subject)
                problem = TokenExpiredError() if is_expired else None
            except TokenError as unreadable:
                # Where the site asks for consent, nothing but the token has the visitor's answer.
                if strict or self.settings.consent is not None:
                    raise
                problem = unreadable
        else:
            raise EventError("visitor", "takes a Visitor or the text of Visitor.token()")
        if problem is not None and not any(map(fields.get, names.IDENTIFIERS)):
            raise problem
        defaults = self.defaults_at(fields, f"https://{visitor.host}/" if visitor.host else None)
        defaults.ip = visitor.ip
        defaults.user_agent = visitor.user_agent
        defaults.record_id = visitor.record_id
        defaults.known_since = made_at
        if problem is None:
            defaults.adct = visitor.adct
            defaults.first_party_cookie = visitor.first_party_cookie
        else:
            defaults.token_problem = problem.expected
        refusal = browser.refusal_by_now(visitor) if browser is not None else ""
        defaults.refusal = refusal or decide_later(self.visitors, visitor.consent).refusal
        return defaults

    def _of_request(
        self, tracked: TrackedRequest, fields: dict[str, Any], strict: bool
    ) -> EventDefaults:
        """What the request says of the visitor; the site's identity function fills *fields*."""
        refusal = tracked.refusal
        if refusal:
            # The history counts a suppressed event by account: that of the page.
            defaults = self.defaults_at(fields, tracked.page_url)
            defaults.refusal = refusal
            return defaults
        try:
            if self.functions.identity is not None:
                for name, value in self.functions.who(tracked).items():
                    if fields.get(name) in (None, ""):
                        fields[name] = value
        except Exception as problem:
            let_through(problem)
            if strict:
                raise
            # The event is reported without an identity: the sale is worth more than the identity.
            why = "wrong_type" if isinstance(problem, EventError) else "raised"
            # A function that returns a wrong type does so at each report: it is logged once.
            if self.counters.add("identity_failed", why) or why == "raised":
                detail = describe_lines(problem)
                logger.error("The identity function failed: %s [identity-function-failed]", detail)
        defaults = self.defaults_at(fields, tracked.page_url)
        defaults.identity = self.functions.identified()
        defaults.ip = tracked.ip
        defaults.user_agent = tracked.user_agent
        record = tracked.reported_record(assume_cookie=self.assume_cookie)
        cookie = tracked.seen.record
        if cookie is not None and 0 < cookie.signed_at < self.outbox.oldest_cookie:
            self.outbox.oldest_cookie = cookie.signed_at
        defaults.adct = record.adct
        defaults.first_party_cookie = record.first_party_cookie
        defaults.record_id = record.record_id
        if defaults.now - tracked.began_at > _LONG_REQUEST:
            # It is a WebSocket or a stream: the visitor may have said no since it began.
            defaults.known_since = tracked.began_at
        defaults.is_checked = True
        return defaults

    def defaults_at(self, fields: Mapping[str, Any], location: str | None = None) -> EventDefaults:
        """The defaults of an event without a visitor: from the account, the clock and the settings.

        :param location: the page's URL, where *fields* have none.
        """
        settings = self.settings
        visitors = self.visitors
        account = settings.account
        if settings.accounts:
            account = settings.account_of(host_of(fields.get("page_location") or location))
        # Assigned one by one: keyword arguments cost three times as much.
        defaults = EventDefaults(account.advertisable_eid, account.pixel_eid, self.clock())
        defaults.page_location = location
        defaults.email_forms = settings.email
        defaults.derive_key = visitors.derive_key
        defaults.private_parameters = settings.private_parameters
        defaults.dedupe_secret = visitors.dedupe_secret
        return defaults

    def is_dry_run(self, location: object, browser: CurrentRequest) -> bool:
        """True where AdRoll is to forget the event: a setting says so, or a host is not real.

        Both the page's host and the current request's have to be real: a staging site with a copied
        database reports orders whose pages and tokens are the real site's.

        :param location: the page's URL; ``None``: it is not known.
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
        # Delivery takes a held event, too, into the outbox at once: its release may come soon.
        self.tell("an event")
        if receipt.status == "queued" and event_queued.receivers:
            self.announce(event_queued, receipt=receipt, event=built.event)

    def _rejected(self, name: str, new: model.NewEvent, session: Any) -> Receipt:
        """The receipt of an event that is kept but cannot be sent until somebody fixes it."""
        reason, text = new.dead or ("", "")
        logger.error(
            "AdRoll event invalid, kept as dead letter %s: %s [event-invalid]", new.id, text
        )
        rejected = {"id": new.id, "name": name, "reason": reason}
        after_commit(session, partial(self.announce, event_rejected, **rejected))
        return Receipt(new.id, "invalid", text)

    def _account_at(self, location: object, browser: CurrentRequest) -> str:
        """The advertisable EID of the page's host, or of the current request's; empty: none."""
        host = host_of(location) or (browser.hostname if browser is not None else "")
        return self.settings.account_of(host).advertisable_eid or ""

    def suppressed(self, name: str, why: str, key: object, account: str, dry_run: bool) -> Receipt:
        """Count an event that may not be reported.

        The outbox keeps a hash of its order id with the reason. A comparison with the shop's list
        then tells why the order was not reported.

        :param why: the reason.
        :param key: the caller's order id or deduplication key; ``None``: there is none.
        """
        self.counters.add("event_suppressed", why)
        self.announce(event_suppressed, name=name, reason=why)
        outcome, reason = model.outcome_of("suppressed", why, dry_run)
        counted = model.Counted(self.clock(), _kept_name(name), outcome, reason)
        counted.advertisable_eid = account
        secret = self.visitors.dedupe_secret
        # A hash without a secret gives order ids away: anybody could hash all numbers and compare.
        if self.settings.remember_suppressed and secret is not None:
            with suppress(EventError):  # there is no id, or none that a report takes
                counted.order = suppressed_key(name, accept_id(key), secret)
        with suppress(model.OutboxFailed):  # it is counted above; only the history lacks it
            self.outbox.record(counted)
        return Receipt(None, "suppressed", why)

    def knowledge(self) -> Knowledge:
        """For which times the outbox knows what was reported, and what was suppressed."""
        tag = secret_tag(self.visitors.dedupe_secret)
        return self.outbox.lookups.knowledge([*self.settings.served_accounts, ""], tag)

    def _draft(
        self, name: str, fields: dict[str, Any], defaults: EventDefaults | None
    ) -> model.NewEvent:
        """An invalid event, as the outbox keeps it: a draft without a key.

        :param defaults: ``None``: the visitor's token cannot be read.
        """
        from adroll_flask.events.fix import draft

        if defaults is None:
            if self.settings.consent is not None:  # the token that cannot be read may hold a no
                fields = {field: fields[field] for field in _NOT_PERSONAL & fields.keys()}
            defaults = self.defaults_at(fields)
        return model.NewEvent(
            id=model.new_id(self.clock()),
            name=_kept_name(name),
            advertisable_eid=defaults.advertisable_eid or "",
            dry_run=False,
            key=None,
            payload=draft(name, fields, defaults),
            occurred_at=defaults.now,
            known_since=defaults.known_since,
            record_id=defaults.record_id,
        )

    def not_kept(
        self, what: str, problem: Exception, *, strict: bool, session: object, fields: object = None
    ) -> Receipt:
        """The receipt of an event, a release or a cancellation that failed.

        Without *strict* a fault of ours is logged and counted, and not raised. A database error of
        the shop's own session is raised: otherwise the shop would commit half of its transaction.
        A lost event (``OutboxFailed``) is never raised.

        :param strict: raise *problem*, whoever caused it.
        :param fields: the caller's arguments. Their values are removed from *problem* before it is
            raised.
        :raises Exception: *problem*, with *strict* or where the shop's session failed.
        """
        let_through(problem)
        reason = _reason(problem)
        is_lost = isinstance(problem, model.OutboxFailed)
        is_shops = session is not None and is_database_error(problem)
        if not is_lost and (strict or is_shops):
            forget_values(problem, fields)
            raise problem
        self.counters.add(f"{what}_failed", reason)
        if is_lost:
            logger.critical("AdRoll %s lost, the outbox failed: %s [event-lost]", what, reason)
        elif isinstance(problem, AdRollError):
            logger.error("AdRoll %s not kept: %s [event-not-reported]", what, problem)
            is_wrong = isinstance(problem, EventError)
            return Receipt(None, "invalid" if is_wrong else "failed", str(problem))
        else:
            detail = describe(problem)
            logger.error(
                "AdRoll %s not kept, a fault of adroll_flask: %s [internal-fault]", what, detail
            )
        return Receipt(None, "failed", reason)

    # -- what is held ------------------------------------------------------------------------

    def order_key(self, order_id: Any, host: str = "") -> model.OrderKey:
        """The key of an order's conversion in the outbox.

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
        fields: Mapping[str, Any],
        at: str = "purchase",
        session: Any = None,
        host: str = "",
        key: model.OrderKey | None = None,
    ) -> Receipt:
        """Let a held conversion be sent, or let it not be sent.

        See :func:`adroll_flask.release_conversion` and :func:`adroll_flask.cancel_conversion`.

        :param fields: what a release changes: value, currency, products. What is ``None`` stays as
            it was held.
        :param at: the time that AdRoll is told: that of the ``"purchase"`` or of the ``"release"``.
        :param key: the order's key, where the caller knows it. *order_id* and *host* are then not
            used.
        """
        from adroll_flask.events.fix import accept_changes

        settings = self.settings
        strict = self.strict()
        if not settings.enabled:
            return DISABLED
        try:
            changes, problems = accept_changes(fields)
            if at == "release":
                changes["timestamp"] = self.clock()
            elif at != "purchase":
                problems.append(EventError("at", "takes 'purchase' or 'release'"))
            if problems and strict:
                raise problems[0]
            # The sale is worth more than its correction: what is wrong in it stays as it was held.
            dropped = [(problem.field, problem.expected) for problem in problems]
            self._log_dropped_and_hidden("purchase (release)", dropped, ())
            order = key or self.order_key(order_id, host)
            verdict = model.Verdict(self.clock(), kind, order, changes or None)
            held = self.outbox.decide(verdict, session=session)
            is_of_real_host = host != "" and settings.is_real(host)
            if held is None and settings.hosts and key is None and not is_of_real_host:
                # The order may be held as a dry run: its page's host may not be in ADROLL_HOSTS.
                verdict = replace(verdict, order=order._replace(dry_run=True))
                held = self.outbox.decide(verdict, session=session)
            self.counters.add(f"{kind}_kept")
            after_commit(session, self.tell, "a release")
        except Exception as problem:
            return self.not_kept(kind, problem, strict=strict, session=session)
        reason = "; ".join(filter(None, (left_out(dropped), "" if held else _NOT_SEEN)))
        return Receipt(held, "released" if kind == "release" else "cancelled", reason)

    # -- beside events -----------------------------------------------------------------------

    def tell(self, of: str) -> None:
        """Tell delivery that an entry was kept. A failure is logged and counted.

        :param of: what the entry is, for the log.
        """
        try:
            self.queued()
        except Exception as problem:
            let_through(problem)  # with "sync" the site's token callable runs here
            # The entry is committed. Delivery looks for new ones from time to time by itself, too.
            self.counters.add("delivery_error", "not_told")
            detail = describe(problem)
            logger.error("AdRoll's delivery was not told of %s: %s [delivery-not-told]", of, detail)

    def withdraw(self, record_id: str | None) -> None:
        """Erase the waiting events of a visitor who says no.

        Events from before the no that are still in the journal are erased when they are taken into
        the outbox. A failure is counted and logged, and does not reach the request.

        :param record_id: the id of the visitor's record. Only this server makes such ids; a click
            id in a request may be somebody else's.
        """
        if record_id is None:
            return
        try:
            self.outbox.record(model.Withdrawal(self.clock(), record_id))
            self.tell("a visitor's no")
        except AdRollError as failure:
            reason = _reason(failure)
            self.counters.add("forget_failed", reason)
            logger.error("AdRoll: a visitor's events are not erased: %s [event-lost]", reason)


def _reason(problem: Exception) -> str:
    """The reason under which *problem* is counted."""
    if isinstance(problem, model.OutboxFailed):
        return problem.reason
    return type(problem).__name__ if isinstance(problem, AdRollError) else "internal"


def _kept_name(name: object) -> str:
    """The event's name in the outbox and its history: one of AdRoll's, or ``unknown``.

    A browser may send any number of other names.
    """
    return name if isinstance(name, str) and name in names.EVENT_NAMES else "unknown"
