"""Whose event a report is, where it comes from, and why it may not be reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adroll_flask.errors import EventError, help_url
from adroll_flask.events.context import NO_IDENTITY, EventDefaults, KnownIdentity
from adroll_flask.hosts import host_of
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.redaction import describe_lines
from adroll_flask.visitor.records import Visitor

from .site_functions import identity_fields

if TYPE_CHECKING:
    from adroll_flask.visitor.record import Record
    from adroll_flask.visitor.tracked_request import TrackedRequest

    from .parts import Parts

logger: Logger = get_logger("adroll_flask.reporting")


class ReportContext:
    """Finds what is known of an event without the caller's saying so."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._counters = parts.counters

    def of_token(
        self, subject: object, browser: TrackedRequest | None
    ) -> tuple[EventDefaults, str]:
        """Whose event it is, and why it may not be reported (or an empty text).

        :param browser: the current request, in case it is the visitor's own and says no by now.
        """
        visitor, known_since = self._subject(subject)
        location = f"https://{visitor.host}/" if visitor.host else None
        context = self._make(
            NO_IDENTITY, visitor, location, visitor.ip, visitor.user_agent, known_since
        )
        if browser is not None and browser.is_of(visitor):
            if browser.forgotten:
                return context, "forgotten"
            if browser.decision.answer is False:
                return context, f"consent_{browser.decision.reason}"
        if visitor.consent is None:
            return context, "" if self._settings.consent is None else "consent_unknown"
        return context, "" if visitor.consent else "consent_refused"

    def of_request(
        self,
        given: dict[str, Any],
        tracked: TrackedRequest | None,
        known: KnownIdentity,
        strict: bool,
    ) -> tuple[EventDefaults, str]:
        """Whose event it is, from where, and why it may not be reported (or an empty text).

        Adds to *given* what the site's own function says of who is logged in.
        """
        if tracked is None:
            return self.bare(known), ""
        decision = tracked.decision
        if not decision.granted:
            return self.bare(known), f"consent_{decision.reason}"
        if tracked.forgotten:
            return self.bare(known), "forgotten"
        self._add_identity(given, tracked, strict)
        has_id = given.get("user_id") or given.get("device_id") or known.user_id or known.device_id
        record = tracked.reported_record(known=bool(has_id))
        context = self._make(known, record, tracked.url, tracked.ip, tracked.user_agent)
        return context, ""

    def is_dry_run(self, location: object, browser: TrackedRequest | None) -> bool:
        """True where AdRoll is to forget the event: by the setting, or of a host that is not real.

        The page's host counts and the current request's: in a copied database the orders, and
        the tokens that are stored with them, are of the real site.

        :param location: the page's URL, as far as it is known.
        """
        settings = self._settings
        if settings.dry_run or not settings.hosts:
            return settings.dry_run
        for host in (host_of(location), browser.hostname if browser is not None else ""):
            if not settings.is_real(host):
                if not self._counters.get("event_dry_run", "host"):
                    logger.warning(
                        "AdRoll events of %s go out as dry runs: it is not in ADROLL_HOSTS (this "
                        "is logged once and counted) (%s)",
                        host,
                        help_url("host-not-listed"),
                    )
                self._counters.add("event_dry_run", "host")
                return True
        return False

    def _add_identity(self, given: dict[str, Any], tracked: TrackedRequest, strict: bool) -> None:
        try:
            said = identity_fields(self._parts.identity(tracked))
        except Exception as problem:
            let_through(problem)
            if strict:
                raise
            # The event goes without: who is logged in is worth less than the sale.
            self._counters.add("identity_failed")
            logger.error(
                "AdRoll's identity function failed: %s (%s)",
                describe_lines(problem),
                help_url("identity-function-failed"),
            )
            return
        for key, value in said.items():
            if given.get(key) in (None, ""):
                given[key] = value

    def _subject(self, subject: object) -> tuple[Visitor, float | None]:
        if isinstance(subject, Visitor):
            return subject, None
        if isinstance(subject, str):
            return self._parts.records().from_token(subject)
        raise EventError("visitor", "takes a Visitor or the text of Visitor.token()")

    def bare(self, known: KnownIdentity) -> EventDefaults:
        """The account and the clock, where there is neither a request nor a visitor."""
        return self._make(known, None, None, None, None)

    def _make(
        self,
        known: KnownIdentity,
        visitor: Visitor | Record | None,
        location: str | None,
        ip: str | None,
        user_agent: str | None,
        known_since: float | None = None,
    ) -> EventDefaults:
        settings = self._settings
        return EventDefaults(
            advertisable_eid=settings.advertisable_eid,
            pixel_eid=settings.pixel_eid,
            now=self._parts.clock(),
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
            derive_key=self._parts.records().derive_key,
            known_since=known_since,
        )
