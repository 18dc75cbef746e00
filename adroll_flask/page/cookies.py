"""The visitor's cookies in a response: ours, its working copy for the pixel, and their domains."""

from __future__ import annotations

from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from werkzeug.http import dump_cookie

from adroll_flask.errors import ConfigurationError
from adroll_flask.host_names import has_domain
from adroll_flask.visitor.record import COOKIE_LIFE, FIRST_PARTY_COOKIE

from .caching import HeaderView, keep_private, may_be_shared, read_headers

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList
    from werkzeug.datastructures import Headers

    from adroll_flask.visitor.record import Record
    from adroll_flask.visitor.tracked_request import TrackedRequest

#: What the pixel leaves beside its first-party cookie.
_PIXEL_COOKIE = "__ar_v4"
#: What it keeps of consent. Where the site loads the pixel itself, this may be the memory of the
#: site's consent platform (AdRoll's banner), which would ask again.
_PIXEL_CONSENT = ("__adroll_consent", "__adroll_consent_params")


def update_cookies(
    tracked: TrackedRequest,
    headers: Headers,
    view: HeaderView,
    domains: Domains,
    *,
    html: bool,
) -> Record | None:
    """Write the visitor's cookies where something changed and the response may carry them.

    :param html: the response is an HTML page.
    :returns: the record that was written, for the session's mirror.
    """
    clicked = tracked.adct is not None
    if not (html or clicked or tracked.forgotten):
        return None
    decision = tracked.decision
    seen = tracked.seen
    if not decision.granted or tracked.forgotten:
        taken_back = decision.answer is False or tracked.forgotten
        if seen.any and taken_back and not may_be_shared(tracked, view):
            delete_cookies(tracked, headers, domains)
        return None
    now = tracked.services.clock()
    if not clicked and (seen.settled(now) or not tracked.is_document):
        # A fragment's or a picture's answer (an error page is HTML, too) may cross with what the
        # kit tells at the same moment, and would undo it. The next page is soon enough.
        return None
    if not tracked.services.records.can_sign or may_be_shared(tracked, view):
        return None
    record = tracked.record
    if record.first_party_cookie is None and html and tracked.may_generate:
        record = record.with_cookie(tracked.new_cookie, "server")
    if record.adct is None and record.first_party_cookie is None:
        return None
    if seen.settled(now) and seen.record is not None and record.same_as(seen.record):
        return None
    if not clicked and not seen.any and tracked.is_from_own_page:
        # The page before may have come from a cache. What its kit tells at this moment, a click id
        # too, crosses with this answer, which knows of nothing and must not undo it. The copy alone
        # is set, for who has no kit; the next page makes a record of it.
        _write_copy(tracked, headers, domains, record)
        return None
    write_cookies(tracked, headers, domains, record)
    return record


def write_cookies(
    tracked: TrackedRequest, headers: Headers, domains: Domains, record: Record
) -> None:
    """Set the record's cookie and its working copy for the pixel, for a year."""
    headers.add(
        "Set-Cookie",
        dump_cookie(
            tracked.services.settings.cookie_name,
            tracked.services.records.sign(record),
            max_age=COOKIE_LIFE,
            domain=domains.of_record(tracked.hostname),
            secure=_is_secure(tracked),
            httponly=True,
            samesite="Lax",
        ),
    )
    _write_copy(tracked, headers, domains, record)


def _write_copy(
    tracked: TrackedRequest, headers: Headers, domains: Domains, record: Record
) -> None:
    if record.first_party_cookie is not None:
        headers.add(
            "Set-Cookie",
            dump_cookie(
                FIRST_PARTY_COOKIE,
                record.first_party_cookie,
                max_age=COOKIE_LIFE,
                # The pixel writes domain=<hostname>: the same cookie, not a second one.
                domain=domains.of_page(tracked.hostname),
                secure=_is_secure(tracked),
                samesite="Lax",
            ),
        )
    keep_private(headers)


def give_up_cookies(tracked: TrackedRequest, headers: Headers) -> bool:
    """Take ours off again where what ran after us lets shared caches keep the response; whether it
    did."""
    if not may_be_shared(tracked, read_headers(headers)):
        return False
    ours = (f"{tracked.services.settings.cookie_name}=", "__adroll_", _PIXEL_COOKIE)
    given = headers.getlist("Set-Cookie")
    headers.setlist("Set-Cookie", [one for one in given if not one.startswith(ours)])
    return True


def _is_secure(tracked: TrackedRequest) -> bool:
    chosen = tracked.services.settings.cookie_secure
    return tracked.is_secure if chosen is None else chosen


def delete_cookies(tracked: TrackedRequest, headers: Headers, domains: Domains) -> None:
    """Take both cookies back, the host-only and the domain cookie of each name, and the pixel's."""
    hostname = tracked.hostname
    page = domains.of_page(hostname)
    ours = tracked.services.settings.cookie_name
    wanted = [(ours, None), (FIRST_PARTY_COOKIE, None), (FIRST_PARTY_COOKIE, page)]
    wanted += [(ours, page), (ours, domains.of_record(hostname))]
    header = tracked.environ.get("HTTP_COOKIE", "")
    our_pixel = tracked.services.settings.pixel == "load"
    for name in (_PIXEL_COOKIE, *(_PIXEL_CONSENT if our_pixel else ())):
        if f"{name}=" in header:
            wanted += [(name, None), (name, page)]
    for name, domain in dict.fromkeys(wanted):
        headers.add("Set-Cookie", dump_cookie(name, "", max_age=0, expires=0, domain=domain))
    keep_private(headers)


class Domains:
    """The cookies' domains of one app.

    :param setting: ``ADROLL_COOKIE_DOMAIN``: ``None``, ``"auto"`` or a domain name.
    :raises ConfigurationError: ``"auto"`` without the list of public suffixes.

    >>> Domains("auto").of_record("www.shop.co.uk")
    'shop.co.uk'
    """

    def __init__(self, setting: str | None) -> None:
        if setting == "auto" and find_spec("publicsuffixlist") is None:
            raise ConfigurationError(
                "ADROLL_COOKIE_DOMAIN",
                "'auto' needs the list of public suffixes: pip install 'adroll-flask[domains]'",
                slug="cookie-domain",
            )
        self._setting = setting
        # Whoever asks names the host: what is kept of hosts is bounded.
        self._registrable = lru_cache(256)(self._look_up)

    def of_page(self, hostname: str) -> str | None:
        """The domain of ``__adroll_fpc``: the page's host, as the pixel writes it."""
        return hostname if has_domain(hostname) else None

    def of_record(self, hostname: str) -> str | None:
        """The domain of ``adroll_visitor`` on *hostname*; ``None``: a host-only cookie."""
        setting = self._setting
        if setting is None or not has_domain(hostname):
            return self.of_page(hostname)
        if setting == "auto":
            return self._registrable(hostname)
        # On a host outside the configured domain a browser would refuse the cookie.
        covered = hostname == setting or hostname.endswith(f".{setting}")
        return setting if covered else hostname

    def _look_up(self, hostname: str) -> str | None:
        # A host that is a public suffix itself keeps its cookie to itself.
        found = self._suffixes.privatesuffix(hostname)
        return str(found) if found else None

    @cached_property
    def _suffixes(self) -> PublicSuffixList:
        # On first use: reading the list takes some 20 ms.
        from publicsuffixlist import PublicSuffixList

        return PublicSuffixList()
