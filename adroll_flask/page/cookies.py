"""The visitor's cookies in a response: ours, its working copy for the pixel, and their domains.

A response that a cache may keep for others (:func:`.shared_caches.may_be_shared`) carries none of
them, and takes none back.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from werkzeug.datastructures import Headers
from werkzeug.http import dump_cookie

from adroll_flask.host_names import is_ip
from adroll_flask.settings import Settings
from adroll_flask.visitor.record import Record
from adroll_flask.visitor.request_cookies import COOKIE_LIFE, FIRST_PARTY_COOKIE
from adroll_flask.visitor.tracked_request import TrackedRequest

from .shared_caches import HeaderView, Said, may_be_shared, read_headers, what_is_said

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
    # Where the site's own code failed on the response, an error's page comes second.
    tracked.written = None
    tracked.carries_cookies = False
    decision = tracked.decision
    tracked.refused = html and decision.granted is False
    clicked = tracked.adct is not None
    if not (html or clicked or tracked.forgotten):
        return
    cookies = tracked.seen
    if not decision.granted or tracked.forgotten:
        taken_back = decision.granted is False or tracked.forgotten
        if cookies.any and taken_back and not may_be_shared(tracked, view):
            delete_cookies(tracked, headers)
        return
    now = tracked.visitors.clock()
    may_cross = not tracked.is_document or (tracked.is_fetched_ahead and cookies.any)
    if not clicked and (cookies.settled(now) or may_cross):
        # A fragment's or a picture's answer (an error page is HTML, too), or that of a page which
        # is fetched ahead, may cross with what the kit tells at the same moment, and would undo it.
        # The next page is soon enough.
        return
    if not tracked.visitors.can_sign or may_be_shared(tracked, view):
        return
    record = tracked.record
    if record.first_party_cookie is None and html and tracked.may_generate:
        record = record.with_cookie(tracked.new_cookie, "server")
    if record.adct is None and record.first_party_cookie is None:
        return
    if cookies.settled(now) and record == cookies.record:
        return
    # The page before may have come from a cache. What its kit tells at this moment, a click id too,
    # crosses with this answer, which knows of nothing and must not undo it. The copy alone is set,
    # for who has no kit; the next page makes a record of it.
    from_own_page = tracked.environ.get("HTTP_SEC_FETCH_SITE") == "same-origin"
    alone = from_own_page and not clicked and not cookies.any
    write_cookies(tracked, headers, record, copy_alone=alone)


def write_cookies(
    tracked: TrackedRequest, headers: Headers, record: Record, *, copy_alone: bool = False
) -> None:
    """Set the record's cookie and its working copy for the pixel, for a year."""
    hostname = tracked.hostname
    wanted: list[tuple[str, str | None, str | None]] = []
    if not copy_alone:
        tracked.written = record
        signed = tracked.visitors.sign(record)
        domain = record_domain(hostname, tracked.visitors.settings)
        wanted.append((tracked.record_cookie, signed, domain))
    # The pixel writes domain=<hostname>: the same cookie, not a second one.
    wanted.append((FIRST_PARTY_COOKIE, record.first_party_cookie, page_domain(hostname)))
    for name, value, domain in wanted:
        if value is not None:
            cookie = dump_cookie(
                name,
                value,
                max_age=COOKIE_LIFE,
                domain=domain,
                secure=tracked.sets_secure_cookies,
                httponly=name != FIRST_PARTY_COOKIE,
                samesite="Lax",
            )
            headers.add("Set-Cookie", cookie)
    keep_private(tracked, headers)


def put_ours_last(tracked: TrackedRequest, headers: Headers) -> None:
    """Let a site's own cookie be the first one, as it is without us."""
    plain = tracked.visitors.settings.cookie_name
    names = (f"{tracked.record_cookie}=", f"{plain}=", "__adroll_", _PIXEL_COOKIE)
    lines = headers.getlist("Set-Cookie")
    lines.sort(key=lambda line: line.startswith(names))
    headers.setlist("Set-Cookie", lines)


def delete_cookies(tracked: TrackedRequest, headers: Headers) -> None:
    """Take both cookies back, the host-only and the domain cookie of each name, and the pixel's."""
    settings = tracked.visitors.settings
    hostname = tracked.hostname
    tracked.withdrawn = not tracked.forgotten  # by a call, which has withdrawn what waits
    page = page_domain(hostname)
    plain = settings.cookie_name
    wanted = [(tracked.record_cookie, None), (FIRST_PARTY_COOKIE, None), (FIRST_PARTY_COOKIE, page)]
    # Under the plain name a sibling host may have planted one, or plain HTTP have left ours.
    wanted += [(plain, None), (plain, page), (plain, record_domain(hostname, settings))]
    header = tracked.environ.get("HTTP_COOKIE", "")
    of_pixel = (_PIXEL_COOKIE, *_PIXEL_CONSENT) if settings.pixel == "load" else (_PIXEL_COOKIE,)
    for name in of_pixel:
        if f"{name}=" in header:
            wanted += [(name, None), (name, page)]
    secure = tracked.sets_secure_cookies  # without it browsers keep what begins with __Host-
    for name, domain in dict.fromkeys(wanted):
        gone = dump_cookie(name, "", max_age=0, expires=0, domain=domain, secure=secure)
        headers.add("Set-Cookie", gone)
    keep_private(tracked, headers)


def keep_private(tracked: TrackedRequest, headers: Headers) -> None:
    """Keep a response that sets a visitor's cookies, or takes them back, out of shared caches."""
    tracked.carries_cookies = True
    control = read_headers(headers).get("cache-control", "")
    if what_is_said(control) is not Said.FORBIDDEN:
        headers["Cache-Control"] = f"{control}, private" if control else "private"


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
        return None
    if setting == "auto":
        # A host that is a public suffix itself keeps its cookie to itself.
        return _suffixes().privatesuffix(hostname) or None
    # On a host outside the configured domain a browser would refuse the cookie.
    covered = hostname == setting or hostname.endswith(f".{setting}")
    return setting if covered else None


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
