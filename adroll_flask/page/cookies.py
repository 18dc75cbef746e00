"""The visitor's cookies in a response: ours, its working copy for the pixel, and their domains."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from werkzeug.datastructures import Headers
from werkzeug.http import dump_cookie

from adroll_flask.host_names import is_ip
from adroll_flask.settings import Settings
from adroll_flask.visitor.record import COOKIE_LIFE, FIRST_PARTY_COOKIE, Record
from adroll_flask.visitor.tracked_request import TrackedRequest

from .caching import HeaderView, keep_private, may_be_shared, read_headers

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

#: What the pixel leaves beside its first-party cookie.
_PIXEL_COOKIE = "__ar_v4"
#: What it keeps of consent. Where the site loads the pixel itself, this may be the memory of the
#: site's consent platform (AdRoll's banner), which would ask again.
_PIXEL_CONSENT = ("__adroll_consent", "__adroll_consent_params")


def update_cookies(
    tracked: TrackedRequest, headers: Headers, view: HeaderView, *, html: bool
) -> None:
    """Write the visitor's cookies where something changed and the response may carry them.

    :param html: the response is an HTML page.
    """
    clicked = tracked.adct is not None
    if not (html or clicked or tracked.forgotten):
        return
    decision = tracked.decision
    seen = tracked.seen
    if not decision.granted or tracked.forgotten:
        taken_back = decision.granted is False or tracked.forgotten
        if seen.any and taken_back and not may_be_shared(tracked, view):
            delete_cookies(tracked, headers)
        return
    now = tracked.visitors.clock()
    if not clicked and (seen.settled(now) or not tracked.is_document):
        # A fragment's or a picture's answer (an error page is HTML, too) may cross with what the
        # kit tells at the same moment, and would undo it. The next page is soon enough.
        return
    if not tracked.visitors.can_sign or may_be_shared(tracked, view):
        return
    record = tracked.record
    if record.first_party_cookie is None and html and tracked.may_generate:
        record = record.with_cookie(tracked.new_cookie, "server")
    if record.adct is None and record.first_party_cookie is None:
        return
    if seen.settled(now) and record == seen.record:
        return
    # The page before may have come from a cache. What its kit tells at this moment, a click id too,
    # crosses with this answer, which knows of nothing and must not undo it. The copy alone is set,
    # for who has no kit; the next page makes a record of it.
    from_own_page = tracked.environ.get("HTTP_SEC_FETCH_SITE") == "same-origin"
    alone = from_own_page and not clicked and not seen.any
    write_cookies(tracked, headers, record, copy_alone=alone)


def write_cookies(
    tracked: TrackedRequest, headers: Headers, record: Record, *, copy_alone: bool = False
) -> None:
    """Set the record's cookie and its working copy for the pixel, for a year."""
    settings, hostname = tracked.visitors.settings, tracked.hostname
    secure = _is_secure(tracked)
    wanted: list[tuple[str, str | None, str | None]] = []
    if not copy_alone:
        tracked.written = record
        signed = tracked.visitors.sign(record)
        wanted.append((settings.cookie_name, signed, record_domain(hostname, settings)))
    # The pixel writes domain=<hostname>: the same cookie, not a second one.
    wanted.append((FIRST_PARTY_COOKIE, record.first_party_cookie, page_domain(hostname)))
    for name, value, domain in wanted:
        if value is not None:
            cookie = dump_cookie(
                name,
                value,
                max_age=COOKIE_LIFE,
                domain=domain,
                secure=secure,
                httponly=name != FIRST_PARTY_COOKIE,
                samesite="Lax",
            )
            headers.add("Set-Cookie", cookie)
    keep_private(tracked, headers)


def give_up_cookies(tracked: TrackedRequest, headers: Headers) -> bool:
    """Take ours off again where what ran after us lets shared caches keep the response; whether it
    did. Else keep a response with ours out of them."""
    tracked.is_last = True
    if not may_be_shared(tracked, read_headers(headers)):
        if tracked.carries_cookies:
            keep_private(tracked, headers)
        return False
    ours = (f"{tracked.visitors.settings.cookie_name}=", "__adroll_", _PIXEL_COOKIE)
    given = headers.getlist("Set-Cookie")
    headers.setlist("Set-Cookie", [one for one in given if not one.startswith(ours)])
    return True


def delete_cookies(tracked: TrackedRequest, headers: Headers) -> None:
    """Take both cookies back, the host-only and the domain cookie of each name, and the pixel's."""
    settings, hostname = tracked.visitors.settings, tracked.hostname
    tracked.withdrawn = not tracked.forgotten  # by a call, which has withdrawn what waits
    page, ours = page_domain(hostname), settings.cookie_name
    wanted = [(ours, None), (FIRST_PARTY_COOKIE, None), (FIRST_PARTY_COOKIE, page)]
    wanted += [(ours, page), (ours, record_domain(hostname, settings))]
    header = tracked.environ.get("HTTP_COOKIE", "")
    our_pixel = settings.pixel == "load"
    for name in (_PIXEL_COOKIE, *(_PIXEL_CONSENT if our_pixel else ())):
        if f"{name}=" in header:
            wanted += [(name, None), (name, page)]
    secure = _is_secure(tracked)  # a name that begins with __Secure- is not taken back without
    for name, domain in dict.fromkeys(wanted):
        gone = dump_cookie(name, "", max_age=0, expires=0, domain=domain, secure=secure)
        headers.add("Set-Cookie", gone)
    keep_private(tracked, headers)


def _is_secure(tracked: TrackedRequest) -> bool:
    setting = tracked.visitors.settings.cookie_secure
    return tracked.is_secure if setting is None else setting


# -- which Domain a cookie gets on which host ------------------------------------------------


def page_domain(hostname: str) -> str | None:
    """The domain of ``__adroll_fpc``: the page's host, as the pixel writes it."""
    return hostname if _has_domain(hostname) else None


def record_domain(hostname: str, settings: Settings) -> str | None:
    """The domain of ``adroll_visitor`` on *hostname*; ``None``: a host-only cookie.

    >>> record_domain("www.shop.co.uk", Settings(cookie_domain="auto"))
    'shop.co.uk'
    """
    setting = settings.cookie_domain
    if setting is None or not _has_domain(hostname):
        return page_domain(hostname)
    if setting == "auto":
        return _registrable(hostname)
    # On a host outside the configured domain a browser would refuse the cookie.
    covered = hostname == setting or hostname.endswith(f".{setting}")
    return setting if covered else hostname


@lru_cache(256)  # whoever asks names the host: what is kept of hosts is bounded
def _registrable(hostname: str) -> str | None:
    # A host that is a public suffix itself keeps its cookie to itself.
    found = _suffixes().privatesuffix(hostname)
    return str(found) if found else None


@cache
def _suffixes() -> PublicSuffixList:
    # On first use: reading the list takes some 20 ms.
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def _has_domain(hostname: str) -> bool:
    """False for addresses, ``localhost`` and other names without a dot.

    Browsers take no ``Domain`` for these (RFC 6265, section 5.1.3, for addresses).
    """
    named = "." in hostname and not hostname.endswith((".", ".localhost"))
    return named and not is_ip(hostname)


def cookies_in(lines: Iterable[str], settings: Settings) -> dict[str, dict[str, str]]:
    """Our cookies in the *lines* of a response's ``Set-Cookie``, each with its value and
    attributes, whether or not a browser would take it.

    >>> cookies_in(["adroll_visitor=x; Path=/", "__adroll_fpc="], Settings())
    {'adroll_visitor': {'value': 'x', 'domain': '', 'path': '/'}}
    """
    found = {}
    for line in lines:
        pair, *more = (part.strip() for part in line.split(";"))
        name, _, value = pair.partition("=")
        if name in (settings.cookie_name, FIRST_PARTY_COOKIE) and value:
            attributes = (attribute.lower().partition("=")[::2] for attribute in more)
            found[name] = {"value": value, "domain": "", **dict(attributes)}
    return found
