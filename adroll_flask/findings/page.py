"""Looks at a live page as new visitors' browsers would, for ``flask adroll check --url``.

Also sends a click id along its redirects, and names the hop at which it gets lost.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.hosts import host_of
from adroll_flask.page.caching import (
    HeaderView,
    cache_directives,
    is_shared_cacheable,
    read_headers,
)
from adroll_flask.redaction import describe, safe_url
from adroll_flask.visitor.cookies import FIRST_PARTY_COOKIE

from .finding import Finding, found, ok

if TYPE_CHECKING:
    from adroll_flask.settings import Settings

    from .finding import Severity

_TIMEOUT = (5.0, 15.0)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"<script\b[^>]*\sdata-adroll(?=[\s=>/])[^>]*>", re.IGNORECASE)
#: Headers by which caches say that they answered themselves: RFC 9211, nginx's usual names,
#: Fastly's and CloudFront's, Cloudflare's.
_CACHE_SAYS = ("Cache-Status", "X-Cache-Status", "X-Proxy-Cache", "X-Cache", "CF-Cache-Status")
#: What AdRoll's own loader sets before it loads the pixel.
_LOADER = re.compile(r"\badroll_adv_id\b")
#: An id that is assigned, as a loader does.
_ADVERTISABLE = re.compile(r"\badroll_adv_id[\"']?\]?\s*=\s*[\"']([A-Z0-9]{8,40})[\"']")
#: Calls of the pixel (AdRoll's pixel JavaScript API guide), and its variables of old.
_TRACKED = re.compile(r"\badroll\.track\(\s*[\"'](" + "|".join(sorted(EVENT_NAMES)) + r")[\"']")
_CONVERSION = re.compile(r"\badroll_(conversion_value|conversion_value_in_dollars)\b\s*=")
_CONTAINER = re.compile(r"GTM-[A-Z0-9]{4,12}\b")
_CONTAINER_URL = re.compile(r"https?://[A-Za-z0-9.:-]+/gtm\.js")
#: ``__tcfapi`` (IAB, "CMP API v2"), and from where consent platforms that bring it are loaded.
_PLATFORM = re.compile(
    r"__tcfapi|cookielaw\.org|onetrust|cookiebot|usercentrics|consentmanager|didomi|privacy-mgmt"
    r"|sourcepoint|quantcast|inmobi|iubenda|trustarc|axeptio|fundingchoices|cookieyes|termly"
    r"|cookiefirst|traffective|sirdata|commanders-act|ketch",
    re.IGNORECASE,
)


#: As many as browsers follow (Fetch, "HTTP-redirect fetch", step 7).
_MOST_HOPS = 20
#: What is looked for in a page that may redirect by itself, bytes.
_MOST_HTML = 100_000
_REFRESH = re.compile(
    r"<meta\b[^>]*http-equiv\s*=\s*[\"']?refresh\b[^>]*\bcontent\s*=\s*"
    r"(?:\"\s*[\d.]+\s*[;,]\s*(?:url\s*=\s*)?'?([^\"']+)|'\s*[\d.]+\s*[;,]\s*(?:url\s*=\s*)?([^']+))",
    re.IGNORECASE,
)
_LANGUAGE = re.compile(r"[a-z]{2}([_-][a-z]{2})?\Z", re.IGNORECASE)
_CONSENT = re.compile(r"consent|cookie|privacy|gdpr|age-?(check|gate|verification)", re.IGNORECASE)
_ADCT = re.compile(r"(?:^|[?&#])adct=([^&#]*)")
#: What a browser sends with a click on a link.
_VISIT = {"User-Agent": "adroll_flask check", "Accept": "text/html", "Sec-Fetch-Dest": "document"}
_FLASK = (
    'in Flask redirect(f"{url_for(…)}?{request.query_string.decode()}"), '
    "in Django RedirectView(query_string=True)"
)


@dataclass(frozen=True, slots=True)
class _Cookie:
    """One of our cookies as a response sets it, whether or not a browser would take it."""

    name: str
    value: str
    domain: str
    secure: bool


def check_url(url: str, settings: Settings) -> list[Finding]:
    """Fetch a page twice, as two new visitors, and judge its caching, its snippet, our endpoints.

    Leaves nothing behind: what the visitors are given is thrown away.

    :param url: a page of the site, as visitors reach it.
    """
    import requests

    if urlsplit(url).scheme not in ("http", "https"):
        return [found("url-form", "--url")]
    subject = safe_url(url)
    try:
        first, second = _get(url), _get(url)
        tag = second.headers.get("ETag")
        third = _get(url, {"If-None-Match": tag}) if tag else None
        if second.status_code >= 400:
            return [found("page-not-fetched/status", subject, status=second.status_code)]
        findings = []
        if second.history:
            findings.append(found("page-redirected", subject, reached=safe_url(second.url)))
        findings += [*_caching(subject, first, second, settings)]
        findings += click_findings(url, settings.cookie_name)
        host = host_of(second.url)
        if not settings.is_real(host):
            findings.append(found("host-not-listed/page", subject, name=host))
        if third is not None and third.status_code == 304:
            findings.append(ok(subject, "a conditional request is answered 304"))
        elif third is not None:
            findings.append(found("etag-changes", subject, status=third.status_code))
        findings += [*_snippet(subject, second, settings), *_endpoints(second, settings)]
    except requests.RequestException as problem:
        return [found("page-not-fetched", subject, problem=describe(problem))]
    return findings


def _get(url: str, headers: dict[str, str] | None = None) -> Any:
    import requests

    with requests.Session() as session:
        return session.get(url, timeout=_TIMEOUT, headers=_VISIT | (headers or {}))


def _set_by_us(response: Any, settings: Settings) -> dict[str, _Cookie]:
    """Our cookies, from the headers: a cookie jar would leave out what browsers refuse."""
    found = {}
    for one in [*response.history, response]:
        for line in one.raw.headers.getlist("Set-Cookie"):
            pair, *attributes = line.split(";")
            name, _, value = pair.strip().partition("=")
            named = dict(
                (attribute.strip().lower().partition("=")[::2]) for attribute in attributes
            )
            if name in (settings.cookie_name, FIRST_PARTY_COOKIE) and value:
                domain = named.get("domain", "").lstrip(".")
                found[name] = _Cookie(name, value, domain, "secure" in named)
    return found


# -- caches --------------------------------------------------------------------------------


def _caching(subject: str, first: Any, second: Any, settings: Settings) -> Iterator[Finding]:
    ours, others = _set_by_us(first, settings), _set_by_us(second, settings)
    names = " and ".join(sorted(ours | others))
    seen = read_headers(second.headers.items())
    control = cache_directives(seen.get("cache-control", ""))
    cacheable = is_shared_cacheable(seen, _now(seen))
    kept = _from_cache(second)
    private = "private" in control or "no-store" in control
    if any(ours[name].value == others[name].value for name in ours.keys() & others.keys()):
        yield found("shared-cookies", subject, names=names)
    elif cacheable and (ours or others):
        said = second.headers.get("Cache-Control", "its headers")
        yield found("shared-cookies/cacheable", subject, control=said, names=names)
    elif kept and private:
        yield found("cache-ignores-headers", subject)
    elif cacheable or (kept and not (ours or others)):
        yield ok(subject, "as cacheable as it was: no cookie of ours")
    elif (ours or others) and set(control) == {"private"}:
        yield found("page-became-private", subject)
    else:
        yield ok(subject, "its own cache headers are as the site set them")
    if kept:
        yield found("page-from-cache", subject)
    vary = {name.strip().lower() for name in second.headers.get("Vary", "").split(",")}
    if cacheable and vary & {"cookie", "*"}:
        yield found("page-varies", subject)


def _now(seen: HeaderView) -> float:
    """The time of the server's own clock, where it says it: this machine's may differ."""
    from werkzeug.http import parse_date

    told = parse_date(seen.get("date"))
    return time.time() if told is None else told.timestamp()


def _from_cache(response: Any) -> bool:
    headers = response.headers
    aged = headers.get("Age", "0").strip() not in ("", "0")
    return aged or any("hit" in headers.get(name, "").lower() for name in _CACHE_SAYS)


# -- the snippet, and the pixel beside it ---------------------------------------------------


def _snippet(subject: str, response: Any, settings: Settings) -> Iterator[Finding]:
    if "text/html" not in response.headers.get("Content-Type", "").lower():
        yield found("no-html", subject)
        return
    tags = _tags(response)
    if not tags:
        severity: Severity = "error" if settings.inject else "warning"
        yield found("snippet-missing", subject, severity=severity)
        return
    if len(tags) > 1:
        yield found("snippet-twice", subject, times=len(tags))
    else:
        yield ok(subject, "carries the snippet once")
    yield from pixel_findings(subject, response.text, settings)


def pixel_findings(subject: str, html: str, settings: Settings) -> Iterator[Finding]:
    """Events from two sides, a second pixel, and a consent that nobody asks for.

    :param html: the page.
    """
    names = sorted({one[1] for one in _TRACKED.finditer(html)} - {"pageView"})
    if _CONVERSION.search(html) and "purchase" not in names:
        names.append("purchase")
    if names:
        yield found("reported-twice", subject, names=", ".join(names))
    ids = _ADVERTISABLE.findall(html)
    if len(ids) > 1:
        yield found("pixel-twice", subject, times=len(ids))
    if settings.advertisable_eid and set(ids) - {settings.advertisable_eid}:
        yield found("other-advertisable", subject)
    if settings.pixel != "load":
        return
    container = _CONTAINER.search(html)
    if _LOADER.search(html):
        yield found("pixel-twice/kit", subject)
    if container:
        yield from _tag_manager(subject, html, container[0])
    if settings.consent == "tcf" and not _PLATFORM.search(html):
        yield found("tcf-and-banner/page", subject, severity="hint" if container else None)


def _tag_manager(subject: str, html: str, container: str) -> Iterator[Finding]:
    """AdRoll's template for Google Tag Manager does not look whether a pixel is there already."""
    import requests

    url = _CONTAINER_URL.search(html)
    address = url[0] if url else "https://www.googletagmanager.com/gtm.js"
    try:
        answer = requests.get(address, params={"id": container}, timeout=_TIMEOUT)
        loads = "adroll" in answer.text.lower() if answer.status_code == 200 else None
    except requests.RequestException:
        loads = None
    if loads is False:
        return
    says = "has a tag of AdRoll's" if loads else "may have a tag of AdRoll's (it could not be read)"
    severity: Severity | None = None if loads else "hint"
    name = "pixel-twice/container"
    yield found(name, subject, severity=severity, container=container, says=says)


def _tags(response: Any) -> list[str]:
    return _TAG.findall(_COMMENT.sub("", response.text))


def _attribute(tag: str, name: str) -> str:
    found = re.search(rf'\s{name}="([^"]*)"', tag)
    return unescape(found[1]) if found else ""


# -- our endpoints, through whatever stands before the app -----------------------------------


def _endpoints(page: Any, settings: Settings) -> Iterator[Finding]:
    import requests

    tags, prefix = _tags(page), settings.url_prefix
    if not tags:
        identity = urljoin(page.url, f"{prefix}/identity")
        answer = requests.post(identity, timeout=_TIMEOUT, allow_redirects=False)
        if settings.inject and answer.status_code == 404:
            yield found("bypassed", safe_url(identity))
        return
    kit = urljoin(page.url, _attribute(tags[0], "src"))
    answer = requests.get(kit, timeout=_TIMEOUT)
    kind = answer.headers.get("Content-Type", "no type")
    if answer.status_code != 200 or "javascript" not in kind:
        got = f"{answer.status_code} ({kind})"
        yield found("endpoint-taken/kit", safe_url(kit), got=got, prefix=prefix)
    identity = urljoin(page.url, _attribute(tags[0], "data-identity"))
    parts = urlsplit(page.url)
    # Without Fetch Metadata, as browsers of before 2023 ask: then the hosts have to agree.
    answer = requests.post(
        identity, json={}, timeout=_TIMEOUT, headers={"Origin": f"{parts.scheme}://{parts.netloc}"}
    )
    yield from _identity(safe_url(identity), answer, settings)


def _identity(subject: str, answer: Any, settings: Settings) -> Iterator[Finding]:
    got = answer.status_code
    if got == 403:
        yield found("host-differs", subject)
        return
    if got not in (200, 204):
        yield found("endpoint-taken/identity", subject, got=got, prefix=settings.url_prefix)
        return
    cookies = _set_by_us(answer, settings)
    host = urlsplit(answer.url).hostname or ""
    refused = [c for c in cookies.values() if c.domain and not f".{host}".endswith(f".{c.domain}")]
    if refused:
        name, domain = refused[0].name, refused[0].domain
        yield found("host-differs/refused", subject, name=name, domain=domain)
    elif not cookies and settings.consent is None:
        yield found("cookies-removed", subject)
    else:
        yield ok(subject, "answers browsers")
    insecure = any(not cookie.secure for cookie in cookies.values())
    if insecure and answer.url.startswith("https:") and settings.cookie_secure is None:
        yield found("cookie-insecure/page", subject)


# -- a click on an ad that leads there -------------------------------------------------------


def click_findings(url: str, record_cookie: str) -> list[Finding]:
    """Follow *url* as a click on an ad does, with a click id that AdRoll never gave.

    An https page is also asked for by http, as an old ad would.

    :param record_cookie: ``ADROLL_COOKIE_NAME``.

    :raises requests.RequestException: a hop could not be fetched.
    """
    import requests

    findings = [_follow(url, record_cookie)]
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.port is None:
        try:
            plain = _follow(urlunsplit(parts._replace(scheme="http")), record_cookie)
        except requests.RequestException:
            # Nothing answers there: no ad leads there either.
            return findings
        if plain.severity != "ok":
            findings.append(plain)
    return findings


def _follow(url: str, record_cookie: str) -> Finding:
    import requests

    probe = f"check-{secrets.token_hex(8)}"
    at = _with_adct(url, probe)
    subject = safe_url(url)
    lost: Finding | None = None
    with requests.Session() as session:
        session.headers.update(_VISIT | {"Accept-Language": "en"})
        for hop in range(1, _MOST_HOPS + 1):
            response = session.get(at, timeout=_TIMEOUT, allow_redirects=False, stream=True)
            with response:
                to = _next(response, at)
            if to is None:
                return _arrived(subject, hop - 1, lost)
            if not _is_web(to):
                return found("click-lost/no-page", subject, hop=hop)
            carried = _carried(to, probe)
            if lost is None and carried != "whole":
                lost = _lost(subject, hop, at, to, carried)
            if lost is not None and not _keeps(session, to, record_cookie):
                # The app itself, where a hop is its own, keeps a click in its cookie.
                return lost
            at = to
    return found("click-lost/circle", subject, most=_MOST_HOPS)


def _with_adct(url: str, probe: str) -> str:
    parts = urlsplit(url)
    query = f"{parts.query}&adct={probe}" if parts.query else f"adct={probe}"
    return urlunsplit(parts._replace(query=query, path=parts.path or "/"))


def _next(response: Any, at: str) -> str | None:
    """Where a response leads, by its status or by the page itself; ``None``: it is the end."""
    if 300 <= response.status_code < 400 and "Location" in response.headers:
        # requests reads headers as Latin-1; browsers as UTF-8.
        raw: bytes = response.headers["Location"].encode("latin-1", "replace")
        return urljoin(at, raw.decode(errors="replace"))
    if "text/html" in response.headers.get("Content-Type", "").lower():
        start = next(response.iter_content(_MOST_HTML), b"").decode(errors="replace")
        found = _REFRESH.search(start)
        if found:
            return urljoin(at, unescape(found[1] or found[2]).strip())
    return None


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _carried(url: str, probe: str) -> str:
    """``whole``, ``inside`` (in another parameter), ``changed`` or ``lost``."""
    values = _ADCT.findall(url)
    if probe in values:
        return "whole"
    if values:
        return "changed"
    for _ in range(3):
        if probe in url:
            return "inside"
        url = unquote(url)
    return "lost"


def _keeps(session: Any, to: str, record_cookie: str) -> bool:
    import requests

    asked = session.prepare_request(requests.Request("GET", to))
    return f"{record_cookie}=" in asked.headers.get("Cookie", "")


def _arrived(subject: str, hops: int, lost: Finding | None) -> Finding:
    if lost is not None:
        said = f"a click id arrives: {lost.sentence}, but by then the app has it in its cookie"
        return ok(subject, said)
    way = "" if not hops else " over 1 redirect" if hops == 1 else f" over {hops} redirects"
    return ok(subject, f"a click id arrives{way}")


#: How a click id gets lost, by what the next address carries.
_LOST = {"changed": "is changed", "inside": "is put into another parameter", "lost": "gets lost"}


def _lost(subject: str, hop: int, at: str, to: str, carried: str) -> Finding:
    return found(
        f"click-lost/{_cause(urlsplit(at), urlsplit(to))}",
        subject,
        what=_LOST[carried],
        step=f"hop {hop}, {safe_url(at)} to {safe_url(to)}",
        more=", and gets lost unless the page there hands it on" * (carried == "inside"),
        theirs=urlsplit(to).hostname,
        flask=_FLASK,
    )


def _cause(at: SplitResult, to: SplitResult) -> str:
    """What kind of redirect this is: each keeps the query in its own way."""
    same_path = (at.path or "/") == (to.path or "/")
    mine, theirs = at.hostname or "", to.hostname or ""
    if _CONSENT.search(to.path) or _CONSENT.search(theirs.partition(".")[0]):
        return "consent"
    if mine == theirs and (at.scheme, to.scheme) == ("http", "https") and same_path:
        return "https"
    if mine != theirs:
        return "name" if mine.removeprefix("www.") == theirs.removeprefix("www.") else "tracker"
    if not same_path and at.path.rstrip("/") == to.path.rstrip("/"):
        return "slash"
    added = {*to.path.split("/")} - {*at.path.split("/")}
    if any(_LANGUAGE.match(part) for part in added):
        return "language"
    return "own"
