"""Looks at a live page as new visitors' browsers would, for ``flask adroll check --url``.

Also sends a click id along its redirects, and names the hop at which it gets lost. What a browser's
console says of a page is not said again.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from html import unescape
from itertools import chain
from typing import Any, Final
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import requests
from werkzeug.http import parse_date

from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.host_names import host_of
from adroll_flask.page.caching import cache_directives, is_shared_cacheable, read_headers
from adroll_flask.page.cookies import cookies_in
from adroll_flask.page.snippet import tags_in
from adroll_flask.plurals import counted
from adroll_flask.redaction import describe, safe_url
from adroll_flask.settings import Settings

from .finding import Finding, Severity, found, ok, texts

_TIMEOUT: Final = (5.0, 15.0)
#: By what is known what a page has, by name; see the head of the file.
_SIGNS: Final = {name: re.compile(sign["in"]) for name, sign in texts("signs.toml").items()}
#: As many as browsers follow (Fetch, "HTTP-redirect fetch", step 7).
_MOST_HOPS: Final = 20
#: What is looked for in a page that may redirect by itself, bytes.
_MOST_HTML: Final = 100_000
#: What a browser sends with a click on a link.
_VISIT: Final = {
    "User-Agent": "adroll_flask check",
    "Accept": "text/html",
    "Accept-Language": "en",
    "Sec-Fetch-Dest": "document",
}


def check_url(url: str, settings: Settings) -> list[Finding]:
    """Fetch a page twice, as two new visitors, and judge its caching, its snippet, our endpoints.

    Leaves nothing behind: what the visitors are given is thrown away.

    :param url: a page of the site, as visitors reach it.
    """
    subject = safe_url(url)
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            return [found("url-form", "--url")]
        first, second = (requests.get(url, timeout=_TIMEOUT, headers=_VISIT) for _ in range(2))
        if second.status_code >= 400:
            return [found("page-not-fetched/status", subject, status=second.status_code)]
        findings = [*_caching(subject, first, second, settings)]
        findings += click_findings(url, settings.cookie_name)
        return [*findings, *_snippet(subject, second, settings), *_endpoints(second, settings)]
    except (requests.RequestException, ValueError) as problem:  # what is no address, too
        return [found("page-not-fetched", subject, problem=describe(problem))]


def _set_by_us(response: Any, settings: Settings) -> dict[str, dict[str, str]]:
    headers = (one.raw.headers for one in [*response.history, response])
    return cookies_in(chain.from_iterable(one.getlist("Set-Cookie") for one in headers), settings)


# -- caches --------------------------------------------------------------------------------


def _caching(subject: str, first: Any, second: Any, settings: Settings) -> Iterator[Finding]:
    if second.history:
        yield found("page-redirected", subject, reached=safe_url(second.url))
    ours, others = _set_by_us(first, settings), _set_by_us(second, settings)
    names = " and ".join(sorted(ours | others))
    headers = second.headers
    seen = read_headers(headers.items())
    control = cache_directives(seen.get("cache-control", ""))
    # By the server's own clock, where it says it: this machine's may differ.
    now = parse_date(seen.get("date"))
    cacheable = is_shared_cacheable(seen, time.time() if now is None else now.timestamp())
    aged = headers.get("Age", "0").strip() not in ("", "0")
    kept = aged or any(
        _SIGNS["cache"].fullmatch(name) and "hit" in value.lower()
        for name, value in headers.items()
    )
    if any(ours[name]["value"] == others[name]["value"] for name in ours.keys() & others.keys()):
        yield found("shared-cookies", subject, names=names)
    elif cacheable and (ours or others):
        said = headers.get("Cache-Control", "its headers")
        yield found("shared-cookies/cacheable", subject, control=said, names=names)
    elif kept and ("private" in control or "no-store" in control):
        yield found("cache-ignores-headers", subject)
    elif cacheable or (kept and not (ours or others)):
        yield ok(subject, "as cacheable as it was: no cookie of ours")
    elif (ours or others) and set(control) == {"private"}:
        yield found("page-became-private", subject)
    else:
        yield ok(subject, "its own cache headers are as the site set them")
    if kept:
        yield found("page-from-cache", subject)
    vary = {name.strip().lower() for name in headers.get("Vary", "").split(",")}
    if cacheable and vary & {"cookie", "*"}:
        yield found("page-varies", subject)


# -- the snippet, and the pixel beside it ---------------------------------------------------


def _snippet(subject: str, response: Any, settings: Settings) -> Iterator[Finding]:
    host = host_of(response.url)
    if not settings.is_real(host):
        yield found("host-not-listed/page", subject, name=host)
    if "text/html" not in response.headers.get("Content-Type", "").lower():
        yield found("no-html", subject)
        return
    tags = tags_in(response.text)
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
    names = ({*_SIGNS["tracked"].findall(html)} & {*EVENT_NAMES}) - {"pageView"}
    names |= {"purchase"} if _SIGNS["conversion"].search(html) else set()
    if names:
        yield found("reported-twice", subject, names=", ".join(sorted(names)))
    ids = _SIGNS["advertisable"].findall(html)
    if len(ids) > 1:
        yield found("pixel-twice", subject, times=len(ids))
    if settings.advertisable_eid and set(ids) - {settings.advertisable_eid}:
        yield found("other-advertisable", subject)
    if settings.pixel != "load":
        return
    container = _SIGNS["container"].search(html)
    if _SIGNS["loader"].search(html):
        yield found("pixel-twice/kit", subject)
    if container:
        yield from _tag_manager(subject, html, container[0])
    if settings.consent == "tcf" and not _SIGNS["platform"].search(html):
        yield found("tcf-and-banner/page", subject, severity="hint" if container else None)


def _tag_manager(subject: str, html: str, container: str) -> Iterator[Finding]:
    """AdRoll's template for Google Tag Manager does not look whether a pixel is there already."""
    url = _SIGNS["container_url"].search(html)
    address = url[0] if url else "https://www.googletagmanager.com/gtm.js"
    try:
        answer = requests.get(address, params={"id": container}, timeout=_TIMEOUT)
        loads = "adroll" in answer.text.lower() if answer.status_code == 200 else None
    except requests.RequestException:
        loads = None
    if loads is not False:
        yield found(
            f"pixel-twice/{'container' if loads else 'unread'}", subject, container=container
        )


# -- our endpoints, through whatever stands before the app -----------------------------------


def _endpoints(page: Any, settings: Settings) -> Iterator[Finding]:
    tags, prefix = tags_in(page.text), settings.url_prefix
    path = tags[0].get("data-identity", "") if tags else f"{prefix}/identity"
    # Without Fetch Metadata, as browsers of before 2023 ask: then the hosts have to agree.
    parts = urlsplit(page.url)
    origin = {"Origin": f"{parts.scheme}://{parts.netloc}"}
    identity = urljoin(page.url, path)
    answer = requests.post(
        identity, json={}, timeout=_TIMEOUT, headers=origin, allow_redirects=False
    )
    got, subject = answer.status_code, safe_url(answer.url)
    if not tags:
        if settings.inject and got == 404:
            yield found("bypassed", subject)
        return
    kit = requests.get(urljoin(page.url, tags[0].get("src", "")), timeout=_TIMEOUT)
    kind = kit.headers.get("Content-Type", "no type")
    if kit.status_code != 200 or "javascript" not in kind:
        said = f"{kit.status_code} ({kind})"
        yield found("endpoint-taken/kit", safe_url(kit.url), got=said, prefix=prefix)
    cookies, host = _set_by_us(answer, settings), parts.hostname or ""
    domains = ((name, one["domain"].lstrip(".")) for name, one in cookies.items())
    refused = [one for one in domains if one[1] and not f".{host}".endswith(f".{one[1]}")]
    if got == 403:
        yield found("host-differs", subject)
    elif got not in (200, 204):
        yield found("endpoint-taken/identity", subject, got=got, prefix=prefix)
    elif refused:
        name, domain = refused[0]
        yield found("host-differs/refused", subject, name=name, domain=domain)
    elif not cookies and settings.consent is None:
        yield found("cookies-removed", subject)
    else:
        yield ok(subject, "answers browsers")
    insecure = any("secure" not in one for one in cookies.values())
    if insecure and settings.cookie_secure is None and parts.scheme == "https":
        yield found("cookie-insecure/page", subject)


# -- a click on an ad that leads there -------------------------------------------------------


def click_findings(url: str, record_cookie: str) -> list[Finding]:
    """Follow *url* as a click on an ad does, with a click id that AdRoll never gave.

    An https page is also asked for by http, as an old ad would.

    :param record_cookie: ``ADROLL_COOKIE_NAME``.

    :raises requests.RequestException: a hop could not be fetched.
    """
    findings = [_follow(url, record_cookie)]
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.port is None:
        with suppress(requests.RequestException):  # nothing answers: no ad leads there either
            plain = _follow(urlunsplit(parts._replace(scheme="http")), record_cookie)
            findings += [plain] if plain.severity != "ok" else []
    return findings


def _follow(url: str, record_cookie: str) -> Finding:
    probe, subject = f"check-{secrets.token_hex(8)}", safe_url(url)
    at = requests.Request("GET", url, params={"adct": probe}).prepare().url or url
    lost: Finding | None = None
    with requests.Session() as session:
        session.headers.update(_VISIT)
        for hop in range(1, _MOST_HOPS + 1):
            response = session.get(at, timeout=_TIMEOUT, allow_redirects=False, stream=True)
            with response:
                to = _next(response, at)
            if to is None:
                way = f" over {counted(hop - 1, 'redirect')}" if hop > 1 else ""
                if lost is not None:
                    way = f": {lost.sentence}, but by then the app has it in its cookie"
                return ok(subject, f"a click id arrives{way}")
            if not to.lower().startswith(("http://", "https://")):
                return found("click-lost/no-page", subject, hop=hop)
            if lost is None and (what := _what_happens(to, probe)):
                lost = _lost(subject, hop, at, to, what)
            asked = session.prepare_request(requests.Request("GET", to)).headers
            if lost is not None and f"{record_cookie}=" not in asked.get("Cookie", ""):
                # The app itself, where a hop is its own, keeps a click in its cookie.
                return lost
            at = to
    return found("click-lost/circle", subject, most=_MOST_HOPS)


def _next(response: Any, at: str) -> str | None:
    """Where a response leads, by its status or by the page itself; ``None``: it is the end."""
    if 300 <= response.status_code < 400 and "Location" in response.headers:
        # requests reads headers as Latin-1; browsers as UTF-8.
        raw: bytes = response.headers["Location"].encode("latin-1", "replace")
        return urljoin(at, raw.decode(errors="replace"))
    if "text/html" in response.headers.get("Content-Type", "").lower():
        start = next(response.iter_content(_MOST_HTML), b"").decode(errors="replace")
        if found := _SIGNS["refresh"].search(start):
            return urljoin(at, unescape(found[1] or found[2]).strip())
    return None


def _what_happens(url: str, probe: str) -> str:
    """What happens to a click id whose next address is *url*; empty: it goes on as it is."""
    values = _SIGNS["click_id"].findall(url)
    if values:
        return "" if probe in values else "is changed"
    return "is put into another parameter" if probe in url else "gets lost"


def _lost(subject: str, hop: int, at: str, to: str, what: str) -> Finding:
    step, parts = f"hop {hop}, {safe_url(at)} to {safe_url(to)}", urlsplit(to)
    name = f"click-lost/{_cause(urlsplit(at), parts)}"
    return found(name, subject, what=what, step=step, theirs=parts.hostname)


def _cause(at: SplitResult, to: SplitResult) -> str:
    """What kind of redirect this is: each keeps the query in its own way."""
    mine, theirs = at.hostname or "", to.hostname or ""
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
