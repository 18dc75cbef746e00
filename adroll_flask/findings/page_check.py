"""Looks at a live page as new visitors' browsers would, for ``flask adroll check --url``.

Also sends a click id along the redirects to the page, and names the hop at which it gets lost. What
a browser's console says of a page is not said again.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from html import unescape
from typing import Any, Final
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from werkzeug.http import parse_date

from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.host_names import host_of, is_ip
from adroll_flask.page.shared_caches import cache_directives, is_shared_cacheable, read_headers
from adroll_flask.page.snippet import tags_in
from adroll_flask.plurals import counted
from adroll_flask.redaction import describe, safe_url
from adroll_flask.settings import Settings
from adroll_flask.visitor.identifiers import is_public_ip
from adroll_flask.visitor.request_cookies import are_secure, cookie_names, record_cookie

from .finding import TABLE, Finding, finding_of, ok, texts

_TIMEOUT: Final = (5.0, 15.0)
#: Patterns by name: what they find in a page, an address or an answer says ``signs.toml``.
_SIGNS: Final = {name: re.compile(sign["in"]) for name, sign in texts("signs.toml").items()}
#: As many as browsers follow (Fetch, "HTTP-redirect fetch", step 7).
_MOST_HOPS: Final = 20
#: Bytes of a page in which we look for a redirect by the page itself.
_MOST_HTML: Final = 100_000
#: What a browser sends with a click on a link.
_VISIT: Final = {
    "User-Agent": "adroll_flask check",
    "Accept": "text/html",
    "Accept-Language": "en",
    "Sec-Fetch-Dest": "document",
}
#: Cookies of those who look. Some caches in an app keep an answer that sets a cookie only where the
#: request brought one, whichever it was.
_BROUGHT: Final[tuple[dict[str, str], ...]] = ({}, {}, {"seen": "1"}, {"seen": "1"})


def check_url(url: str, settings: Settings) -> list[Finding]:
    """Fetch a page as new visitors, and judge its caching, its snippet, our endpoints.

    Leaves nothing behind: what the visitors are given is thrown away.

    :param url: a page of the site, as visitors reach it.
    """
    subject = safe_url(url)
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            return [finding_of("url-form")]
        visits = [requests.get(url, timeout=_TIMEOUT, headers=_VISIT, cookies=c) for c in _BROUGHT]
        second = visits[1]
        if second.status_code >= 400:
            return [finding_of("page-not-fetched/status", subject, status=second.status_code)]
        findings = [*_caching(subject, visits, settings), click_finding(url, settings)]
        return [*findings, *_snippet(subject, second, settings), *_answers(second, settings)]
    except (requests.RequestException, ValueError) as problem:  # what is no address, too
        return [finding_of("page-not-fetched", subject, problem=describe(problem))]


def _set_by_us(response: Any, settings: Settings) -> dict[str, dict[str, str]]:
    """Our cookies, each with its value and attributes, whether or not a browser would take it."""
    names = cookie_names(settings)
    cookies = {}
    for answer in [*response.history, response]:
        for line in answer.raw.headers.getlist("Set-Cookie"):
            pair, *more = (part.strip() for part in line.split(";"))
            name, _, value = pair.partition("=")
            if name in names and value:
                attributes = (attribute.lower().partition("=")[::2] for attribute in more)
                cookies[name] = {"value": value, "domain": "", **dict(attributes)}
    return cookies


# -- caches --------------------------------------------------------------------------------


def _caching(subject: str, visits: list[Any], settings: Settings) -> Iterator[Finding]:
    second = visits[1]
    if second.history:
        yield finding_of("page-redirected", subject, reached=safe_url(second.url))
    each = [_set_by_us(visit, settings) for visit in visits]
    given = [(name, cookie["value"]) for ours in each for name, cookie in ours.items()]
    names = " and ".join(sorted({name for name, _ in given}))
    headers = second.headers
    headers_read = read_headers(headers.items())
    control = {name for name, _ in cache_directives(headers_read.get("cache-control", ""))}
    # By the server's own clock, where it says it: this machine's may differ.
    now = parse_date(headers_read.get("date"))
    cacheable = is_shared_cacheable(headers_read, time.time() if now is None else now.timestamp())
    says_hit = [name for name, value in headers.items() if "hit" in value.lower()]
    is_aged = headers.get("Age", "0").strip() not in ("", "0")
    from_cache = is_aged or any(map(_SIGNS["cache"].fullmatch, says_hit))
    if len({*given}) < len(given):
        yield finding_of("shared-cookies", subject, names=names)
    elif cacheable and given:
        header = headers.get("Cache-Control", "its headers")
        yield finding_of("shared-cookies/cacheable", subject, control=header, names=names)
    elif from_cache and ("private" in control or "no-store" in control):
        yield finding_of("cache-ignores-headers", subject)
    elif cacheable or (from_cache and not given):
        yield ok(subject, "as cacheable as it was: no cookie of ours")
    elif given and control == {"private"}:
        yield finding_of("page-became-private", subject)
    else:
        yield ok(subject, "its own cache headers are as the site set them")
    vary = {name.strip().lower() for name in headers.get("Vary", "").split(",")}
    if cacheable and vary & {"cookie", "*"}:
        yield finding_of("page-varies", subject)


# -- the snippet, and the pixel beside it ---------------------------------------------------


def _snippet(subject: str, response: Any, settings: Settings) -> Iterator[Finding]:
    host = host_of(response.url)
    if not settings.is_real(host):
        yield finding_of("host-not-listed/page", subject, name=host)
    if "text/html" not in response.headers.get("Content-Type", "").lower():
        yield finding_of("no-html", subject)
        return
    tags = tags_in(response.text)
    if not tags:
        level = "error" if settings.inject else "warning"
        yield finding_of("snippet-missing", subject, severity=level)
        return
    if len(tags) > 1:
        yield finding_of("snippet-twice", subject, times=len(tags))
    else:
        yield ok(subject, "carries the snippet once")
    yield from pixel_findings(subject, response.text, settings)


def pixel_findings(subject: str, html: str, settings: Settings) -> Iterator[Finding]:
    """Events that the page reports too, a second pixel, and a consent that nobody asks for.

    :param html: the page.
    """
    names = ({*_SIGNS["tracked"].findall(html)} & {*EVENT_NAMES}) - {"pageView"}
    if _SIGNS["conversion"].search(html):
        names.add("purchase")
    if names:
        yield finding_of("reported-twice", subject, names=", ".join(sorted(names)))
    ids = _SIGNS["advertisable"].findall(html)
    if len(ids) > 1:
        yield finding_of("pixel-twice", subject, times=len(ids))
    if settings.advertisable_eid and set(ids) - {settings.advertisable_eid}:
        yield finding_of("other-advertisable", subject)
    if settings.pixel != "load":
        return
    container = _SIGNS["container"].search(html)
    if _SIGNS["loader"].search(html):
        yield finding_of("pixel-twice/kit", subject)
    if container:
        yield from _tag_manager(subject, html, container[0])
    if settings.consent == "tcf" and not _SIGNS["platform"].search(html):
        yield finding_of("tcf-and-banner/page", subject, severity="hint" if container else None)


def _tag_manager(subject: str, html: str, container: str) -> Iterator[Finding]:
    """Whether Google Tag Manager loads a second pixel. AdRoll's template for it does not look
    whether one is there already."""
    url = _SIGNS["container_url"].search(html)
    address = url[0] if url else "https://www.googletagmanager.com/gtm.js"
    try:
        answer = requests.get(address, params={"id": container}, timeout=_TIMEOUT)
        loads = "adroll" in answer.text.lower() if answer.status_code == 200 else None
    except requests.RequestException:
        loads = None
    if loads is not False:
        name = "pixel-twice/container" if loads else "pixel-twice/unread"
        yield finding_of(name, subject, container=container)


# -- our endpoints, through whatever stands before the app -----------------------------------


def _answers(page: Any, settings: Settings) -> Iterator[Finding]:
    tags = tags_in(page.text)
    prefix = settings.url_prefix
    path = tags[0].get("data-identity", "") if tags else f"{prefix}/identity"
    # Without Fetch Metadata, as browsers of before 2023 ask: then the hosts have to agree.
    parts = urlsplit(page.url)
    origin = {"Origin": f"{parts.scheme}://{parts.netloc}", "X-AdRoll-Check": "1"}
    url = urljoin(page.url, path)
    answer = requests.post(url, json={}, timeout=_TIMEOUT, headers=origin, allow_redirects=False)
    got = answer.status_code
    subject = safe_url(answer.url)
    if not tags:
        if settings.inject and got == 404:
            yield finding_of("bypassed", subject)
        return
    kit = requests.get(urljoin(page.url, tags[0].get("src", "")), timeout=_TIMEOUT)
    kind = kit.headers.get("Content-Type", "no type")
    if kit.status_code != 200 or "javascript" not in kind:
        answer_of_kit = f"{kit.status_code} ({kind})"
        yield finding_of("endpoint-taken/kit", safe_url(kit.url), got=answer_of_kit, prefix=prefix)
    cookies = _set_by_us(answer, settings)
    host = parts.hostname or ""
    domains = {name: cookie["domain"].lstrip(".") for name, cookie in cookies.items()}
    refused = [name for name in domains if not f".{host}".endswith(f".{domains[name] or host}")]
    if got == 403:
        yield finding_of("host-differs", subject)
    elif got not in (200, 204):
        yield finding_of("endpoint-taken/identity", subject, got=got, prefix=prefix)
    elif refused:
        name = refused[0]
        yield finding_of("host-differs/refused", subject, name=name, domain=domains[name])
    elif not cookies and settings.consent is None:
        yield finding_of("cookies-removed", subject)
    else:
        yield ok(subject, "answers browsers")
    yield from _visitor_address(subject, host, answer.headers.get("X-AdRoll-Sender", ""))
    insecure = any("secure" not in cookie for cookie in cookies.values())
    if insecure and settings.cookie_secure is None and parts.scheme == "https":
        yield finding_of("cookie-insecure/page", subject)


def _visitor_address(subject: str, host: str, sender: str) -> Iterator[Finding]:
    """Whether the app sees the visitor's address, as far as this one request tells.

    :param host: the page's. In a private network addresses are private.
    :param sender: what our endpoint says of the caller's address.
    """
    is_own_network = is_ip(host) and not is_public_ip(host)
    name = f"proxy-address/page-{sender}"
    if name in TABLE and not (sender == "private" and is_own_network):
        yield finding_of(name, subject)


# -- a click on an ad that leads there -------------------------------------------------------


def click_finding(url: str, settings: Settings) -> Finding:
    """Follow *url* as a click on an ad does, with a click id that AdRoll never gave.

    :raises requests.RequestException: a hop could not be fetched.
    """
    probe = f"check-{secrets.token_hex(8)}"
    subject = safe_url(url)
    at = requests.Request("GET", url, params={"adct": probe}).prepare().url or url
    lost: Finding | None = None
    with requests.Session() as session:
        session.headers.update(_VISIT)
        for hop in range(1, _MOST_HOPS + 1):
            response = session.get(at, timeout=_TIMEOUT, allow_redirects=False, stream=True)
            with response:
                to = _next_hop(response, at)
            if to is None:
                way = f" over {counted(hop - 1, 'redirect')}" if hop > 1 else ""
                if lost is not None:
                    way = f": {lost.sentence}, but by then the app has it in its cookie"
                return ok(subject, f"a click id arrives{way}")
            if not to.lower().startswith(("http://", "https://")):
                return finding_of("click-lost/no-page", subject, hop=hop)
            if lost is None and (what := _what_happens(to, probe)):
                lost = _click_lost(subject, hop, at, to, what)
            if lost is not None and not _has_record(session, to, settings):
                # The app itself, where a hop is its own, keeps a click in its cookie.
                return lost
            at = to
    return finding_of("click-lost/circle", subject, most=_MOST_HOPS)


def _has_record(session: requests.Session, url: str, settings: Settings) -> bool:
    """Whether a browser with the cookies of *session* sends a visitor's record to *url*."""
    asked = session.prepare_request(requests.Request("GET", url))
    secure = are_secure(settings, over_https=url.lower().startswith("https:"))
    names = [part.partition("=")[0] for part in asked.headers.get("Cookie", "").split("; ")]
    return record_cookie(settings, secure=secure) in names


def _next_hop(response: Any, at: str) -> str | None:
    """Where a response leads, by its status or by the page itself; ``None``: it is the end."""
    if 300 <= response.status_code < 400 and "Location" in response.headers:
        # requests reads headers as Latin-1; browsers as UTF-8.
        raw: bytes = response.headers["Location"].encode("latin-1", "replace")
        return urljoin(at, raw.decode(errors="replace"))
    if "text/html" in response.headers.get("Content-Type", "").lower():
        start = next(response.iter_content(_MOST_HTML), b"").decode(errors="replace")
        if refresh := _SIGNS["refresh"].search(start):
            return urljoin(at, unescape(refresh[1] or refresh[2]).strip())
    return None


def _what_happens(url: str, probe: str) -> str:
    """What happens to a click id in a redirect to *url*; empty: it goes on as it is."""
    values = _SIGNS["click_id"].findall(url)
    if values:
        return "" if probe in values else "is changed"
    return "is put into another parameter" if probe in url else "gets lost"


def _click_lost(subject: str, hop: int, at: str, to: str, what: str) -> Finding:
    step = f"hop {hop}, {safe_url(at)} to {safe_url(to)}"
    parts = urlsplit(to)
    name = f"click-lost/{_cause(urlsplit(at), parts)}"
    return finding_of(name, subject, what=what, step=step, theirs=parts.hostname)


def _cause(at: SplitResult, to: SplitResult) -> str:
    """What kind of redirect this is: each keeps the query in its own way."""
    mine = at.hostname or ""
    theirs = to.hostname or ""
    if _SIGNS["consent"].search(f"{theirs.partition('.')[0]} {to.path}"):
        return "consent"
    if mine != theirs:
        return "name" if mine.removeprefix("www.") == theirs.removeprefix("www.") else "tracker"
    if (at.path or "/") == (to.path or "/"):
        return "https" if (at.scheme, to.scheme) == ("http", "https") else "own"
    if at.path.rstrip("/") == to.path.rstrip("/"):
        return "slash"
    added = {*to.path.split("/")} - {*at.path.split("/")}
    return "language" if any(map(_SIGNS["language"].fullmatch, added)) else "own"
