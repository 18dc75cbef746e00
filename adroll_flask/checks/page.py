"""Looks at a live page as new visitors' browsers would, for ``flask adroll check --url``."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from adroll_flask.hosts import host_of
from adroll_flask.page.caching import (
    HeaderView,
    cache_directives,
    is_shared_cacheable,
    read_headers,
)
from adroll_flask.redaction import describe, safe_url
from adroll_flask.visitor.records import FIRST_PARTY_COOKIE, RECORD_COOKIE

from .clicks import click_findings
from .finding import Finding
from .pixel import pixel_findings
from .policy import policy_findings

if TYPE_CHECKING:
    from adroll_flask.settings import Settings

_TIMEOUT = (5.0, 15.0)
_OURS = (RECORD_COOKIE, FIRST_PARTY_COOKIE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TAG = re.compile(r"<script\b[^>]*\sdata-adroll(?=[\s=>/])[^>]*>", re.IGNORECASE)
#: Headers by which caches say that they answered themselves: RFC 9211, nginx's usual names,
#: Fastly's and CloudFront's, Cloudflare's.
_CACHE_SAYS = ("Cache-Status", "X-Cache-Status", "X-Proxy-Cache", "X-Cache", "CF-Cache-Status")
_CACHED_PATHS = "list the path in ADROLL_CACHED_PATHS, then purge the cache"
_HOST_FIX = (
    "pass the browser's host on (nginx: proxy_set_header Host $http_host), or send "
    "X-Forwarded-Host and use ProxyFix(x_host=1)"
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
        return [Finding("error", "--url", "takes a full http or https URL", slug="url-form")]
    subject = safe_url(url)
    try:
        first, second = _get(url), _get(url)
        tag = second.headers.get("ETag")
        third = _get(url, {"If-None-Match": tag}) if tag else None
        if second.status_code >= 400:
            return [
                Finding(
                    "error",
                    subject,
                    f"answers {second.status_code}: no page to judge",
                    slug="page-not-fetched",
                )
            ]
        findings = [*_redirects(subject, second), *_caching(subject, first, second)]
        findings += click_findings(url)
        findings += [*_real(subject, second, settings), *_conditional(subject, third)]
        findings += _snippet(subject, second, settings)
        findings += _endpoints(second, settings)
    except requests.RequestException as problem:
        return [
            Finding(
                "error",
                subject,
                f"could not be fetched: {describe(problem)}",
                slug="page-not-fetched",
            )
        ]
    return findings


def _get(url: str, headers: dict[str, str] | None = None) -> Any:
    import requests

    document = {"Sec-Fetch-Dest": "document", "Accept": "text/html"}
    agent = {"User-Agent": "adroll_flask check"}
    with requests.Session() as session:
        return session.get(url, timeout=_TIMEOUT, headers=document | agent | (headers or {}))


def _set_by_us(response: Any) -> dict[str, _Cookie]:
    """Our cookies, from the headers: a cookie jar would leave out what browsers refuse."""
    found = {}
    for one in [*response.history, response]:
        for line in one.raw.headers.getlist("Set-Cookie"):
            pair, *attributes = line.split(";")
            name, _, value = pair.strip().partition("=")
            named = dict(
                (attribute.strip().lower().partition("=")[::2]) for attribute in attributes
            )
            if name in _OURS and value:
                domain = named.get("domain", "").lstrip(".")
                found[name] = _Cookie(name, value, domain, "secure" in named)
    return found


def _redirects(subject: str, response: Any) -> Iterator[Finding]:
    if response.history:
        reached = safe_url(response.url)
        yield Finding(
            "info", subject, f"leads to {reached}: that page was looked at", slug="page-redirected"
        )


def _real(subject: str, response: Any, settings: Settings) -> Iterator[Finding]:
    host = host_of(response.url)
    if not settings.is_real(host):
        yield Finding(
            "warning",
            subject,
            f"is not of ADROLL_HOSTS ({host}): what is reported there goes out as dry runs",
            "on the real site, add it; on staging this is as it should be",
            slug="host-not-listed",
        )


# -- caches --------------------------------------------------------------------------------


def _caching(subject: str, first: Any, second: Any) -> Iterator[Finding]:
    ours, others = _set_by_us(first), _set_by_us(second)
    names = " and ".join(sorted(ours | others))
    seen = read_headers(second.headers.items())
    control = cache_directives(seen.get("cache-control", ""))
    cacheable = is_shared_cacheable(seen, _now(seen))
    kept = _from_cache(second)
    if any(ours[name].value == others[name].value for name in ours.keys() & others.keys()):
        yield Finding(
            "error",
            subject,
            f"gave two new visitors the same {names}: a cache keeps the page with its cookies, "
            "and visitors share an identity",
            _CACHED_PATHS,
            slug="shared-cookies",
        )
    elif cacheable and (ours or others):
        yield Finding(
            "error",
            subject,
            f"may be kept by a shared cache ({second.headers.get('Cache-Control', 'its headers')})"
            f" and sets {names}: visitors would share an identity",
            "is a proxy adding cache headers after the app? List the path in ADROLL_CACHED_PATHS",
            slug="shared-cookies",
        )
    elif kept and ("private" in control or "no-store" in control):
        yield Finding(
            "warning",
            subject,
            "came from a cache that does not heed its Cache-Control: what the app does for one "
            "visitor, every visitor gets",
            _CACHED_PATHS,
            slug="cache-ignores-headers",
        )
    elif cacheable or (kept and not (ours or others)):
        yield Finding("ok", subject, "as cacheable as it was: no cookie of ours")
    elif (ours or others) and set(control) == {"private"}:
        yield Finding(
            "info",
            subject,
            "says nothing about caching itself; where we set a cookie it became private",
            "a CDN that caches it all the same needs the path in ADROLL_CACHED_PATHS",
            slug="page-became-private",
        )
    else:
        yield Finding("ok", subject, "its own cache headers are as the site set them")
    if kept:
        yield Finding("info", subject, "came from a cache", slug="page-from-cache")
    vary = {name.strip().lower() for name in second.headers.get("Vary", "").split(",")}
    if cacheable and vary & {"cookie", "*"}:
        yield Finding(
            "warning",
            subject,
            "is cacheable but varies by Cookie: a cache keeps one copy a visitor",
            "a view that calls current_visitor() or reads the session does this",
            slug="page-varies",
        )


def _now(seen: HeaderView) -> float:
    """The time of the server's own clock, where it says it: this machine's may differ."""
    from werkzeug.http import parse_date

    told = parse_date(seen.get("date"))
    return time.time() if told is None else told.timestamp()


def _from_cache(response: Any) -> bool:
    headers = response.headers
    if headers.get("Age", "0").strip() not in ("", "0"):
        return True
    return any("hit" in headers.get(name, "").lower() for name in _CACHE_SAYS)


def _conditional(subject: str, response: Any) -> Iterator[Finding]:
    if response is None:
        return
    if response.status_code == 304:
        yield Finding("ok", subject, "a conditional request is answered 304")
    else:
        yield Finding(
            "warning",
            subject,
            f"a conditional request with its own ETag is answered {response.status_code}",
            "an ETag that changes with every answer, by a CSRF token or a nonce in the page for "
            "example, spares nobody anything",
            slug="etag-changes",
        )


# -- the snippet ---------------------------------------------------------------------------


def _snippet(subject: str, response: Any, settings: Settings) -> Iterator[Finding]:
    if "text/html" not in response.headers.get("Content-Type", "").lower():
        yield Finding("info", subject, "is no HTML page", slug="no-html")
        return
    tags = _tags(response)
    if not tags:
        yield Finding(
            "error" if settings.inject else "warning",
            subject,
            "does not carry the snippet",
            "is the page compressed before AdRoll sees it? Call AdRoll's init_app after the "
            "compressing extension's; or place {{ adroll_snippet() }} in the template. A cache "
            "may hold a page from before the installation: purge it",
            slug="snippet-missing",
        )
        return
    if len(tags) > 1:
        yield Finding(
            "warning",
            subject,
            f"carries the snippet {len(tags)} times",
            "place it once",
            slug="snippet-twice",
        )
    else:
        yield Finding("ok", subject, "carries the snippet once")
    policies = response.headers.get("Content-Security-Policy", "")
    yield from policy_findings(
        subject, policies, response.url, _attribute(tags[0], "nonce"), settings
    )
    yield from pixel_findings(subject, response.text, settings)


def _tags(response: Any) -> list[str]:
    return _TAG.findall(_COMMENT.sub("", response.text))


def _attribute(tag: str, name: str) -> str:
    found = re.search(rf'\s{name}="([^"]*)"', tag)
    return unescape(found[1]) if found else ""


# -- our endpoints, through whatever stands before the app -----------------------------------


def _endpoints(page: Any, settings: Settings) -> Iterator[Finding]:
    import requests

    tags = _tags(page)
    if not tags:
        return
    kit = urljoin(page.url, _attribute(tags[0], "src"))
    answer = requests.get(kit, timeout=_TIMEOUT)
    if answer.status_code != 200 or "javascript" not in answer.headers.get("Content-Type", ""):
        kind = answer.headers.get("Content-Type", "no type")
        yield Finding(
            "error",
            safe_url(kit),
            f"is answered {answer.status_code} ({kind}): the kit does not reach browsers",
            f"let {settings.url_prefix}/ through to the app",
            slug="endpoint-taken",
        )
    identity = urljoin(page.url, _attribute(tags[0], "data-identity"))
    parts = urlsplit(page.url)
    # Without Fetch Metadata, as browsers of before 2023 ask: then the hosts have to agree.
    answer = requests.post(
        identity, json={}, timeout=_TIMEOUT, headers={"Origin": f"{parts.scheme}://{parts.netloc}"}
    )
    yield from _identity(safe_url(identity), answer, settings)


def _identity(subject: str, answer: Any, settings: Settings) -> Iterator[Finding]:
    if answer.status_code == 403:
        yield Finding(
            "error",
            subject,
            "the app sees another host than browsers do",
            _HOST_FIX,
            slug="host-differs",
        )
        return
    if answer.status_code not in (200, 204):
        yield Finding(
            "error",
            subject,
            f"is answered {answer.status_code}: what the kit learns does not reach the app",
            f"let POST requests to {settings.url_prefix}/ through to the app",
            slug="endpoint-taken",
        )
        return
    cookies = _set_by_us(answer)
    host = urlsplit(answer.url).hostname or ""
    refused = [c for c in cookies.values() if c.domain and not f".{host}".endswith(f".{c.domain}")]
    if refused:
        yield Finding(
            "error",
            subject,
            f"sets {refused[0].name} for {refused[0].domain}: browsers refuse it here",
            _HOST_FIX,
            slug="host-differs",
        )
    elif not cookies and settings.consent is None:
        yield Finding(
            "error",
            subject,
            "its cookies do not arrive: visitors of cached pages stay unknown",
            "the proxy removes Set-Cookie; let our endpoint's through (and is SECRET_KEY set?)",
            slug="cookies-removed",
        )
    else:
        yield Finding("ok", subject, "answers browsers")
    insecure = any(not cookie.secure for cookie in cookies.values())
    if insecure and answer.url.startswith("https:") and settings.cookie_secure is None:
        yield Finding(
            "warning",
            subject,
            "sets cookies without Secure on an https site: the app takes it for http",
            "wrap the app in werkzeug's ProxyFix with x_proto=1",
            slug="cookie-insecure",
        )
