"""Caches between the site and its visitors: what they may keep, and what we say to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import unquote

from werkzeug.datastructures import Headers

from adroll_flask.visitor.tracked_request import TrackedRequest

#: A response's headers by lower-case name, repeated ones joined. werkzeug's ``Headers`` walks its
#: list, and raises and catches within, for each question; here one walk answers all.
HeaderView = Mapping[str, str]


def read_headers(headers: Iterable[tuple[str, str]]) -> HeaderView:
    """One look at *headers*, before anything is changed."""
    found: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


#: Headers that tell one kind of cache what it may keep, by what documents them. Such a cache heeds
#: its own header and not ``Cache-Control`` (RFC 9213, section 2.2), whatever that forbids others.
TARGETED: Final[Mapping[str, str]] = {
    "cdn-cache-control": "RFC 9213",
    "cloudflare-cdn-cache-control": "developers.cloudflare.com/cache/concepts/cdn-cache-control",
    "netlify-cdn-cache-control": "docs.netlify.com/build/caching/caching-overview",
    "vercel-cdn-cache-control": "vercel.com/docs/caching/cache-control-headers",
    "deno-cdn-cache-control": "docs.deno.com/deploy/reference/caching",
    "akamai-cache-control": "RFC 9213, section 2: any cache's name before -Cache-Control",
    "edge-control": "Akamai's of old; http.dev/edge-control",
    "surrogate-control": "w3.org/TR/edge-arch",
    "x-litespeed-cache-control": "docs.litespeedtech.com/lscache/devguide/controls",
    "x-accel-expires": "nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_cache_valid",
}
#: In such a header or in ``Cache-Control``: nothing is kept for others. ``X-Accel-Expires`` has a
#: number of seconds instead, of which 0 says the same.
_FORBIDS: Final = frozenset({"no-store", "private", "0"})
#: With each of these a cache may answer others: RFC 9111, section 5.2.2, and RFC 5861.
_SHARED: Final = frozenset({"public", "s-maxage", "stale-while-revalidate", "stale-if-error"})


def may_be_shared(tracked: TrackedRequest, seen: HeaderView) -> bool:
    """True where a cache between the site and its visitors may keep the response.

    That is told by the method, by ``ADROLL_CACHED_PATHS``, by the headers.
    """
    if tracked.method not in ("GET", "HEAD"):
        return False
    patterns = tracked.visitors.settings.cached_paths
    if patterns:
        # Whoever lists a path may write it as people do, or as browsers send it.
        path = unquote(tracked.path)
        if any(fnmatchcase(path, unquote(pattern)) for pattern in patterns):
            return True
    return is_shared_cacheable(seen, tracked.visitors.clock())


def is_shared_cacheable(seen: HeaderView, now: float) -> bool:
    """True where a response's headers let a shared cache keep it for a while.

    The only rule of it: for responses on their way out, and for ``flask adroll check --url``.

    :param now: epoch seconds, to compare ``Expires`` with.

    >>> is_shared_cacheable({"cache-control": "max-age=60"}, 0.0)
    True
    >>> is_shared_cacheable({"cache-control": "private, max-age=60"}, 0.0)
    False
    >>> is_shared_cacheable({"cache-control": "private", "cdn-cache-control": "max-age=60"}, 0.0)
    True
    """
    for name in TARGETED.keys() & seen.keys():
        if _FORBIDS.isdisjoint(cache_directives(seen[name])):
            return True
    control = seen.get("cache-control")
    directives = cache_directives(control) if control else {}
    if not _FORBIDS.isdisjoint(directives):
        return False
    if not _SHARED.isdisjoint(directives):
        return True
    age = directives.get("max-age")
    if age is not None:
        # RFC 9111, section 5.3: where there is a max-age, Expires must be ignored. One that is no
        # number makes the response stale (section 4.2.1).
        return age.isdecimal() and int(age[:12]) > 0
    expires = seen.get("expires")
    return expires is not None and _is_future(expires, now)


def cache_directives(control: str) -> dict[str, str]:
    """The directives of a ``Cache-Control`` with their arguments (RFC 9111, section 5.2)."""
    parts = (part.strip().partition("=") for part in control.split(","))
    return {
        name.strip().lower(): value.strip().strip('"') for name, _, value in parts if name.strip()
    }


def _is_future(date: str, now: float) -> bool:
    try:
        return parsedate_to_datetime(date).timestamp() > now
    except (ValueError, TypeError, OverflowError):
        # RFC 9111, section 5.3: an invalid date, "0" above all, is in the past.
        return False


def keep_private(tracked: TrackedRequest, headers: Headers) -> None:
    """Keep a response that carries a visitor's cookies out of shared caches."""
    tracked.carries_cookies = True
    # Promise 4: only where the site had said nothing about caching. What comes after us would add
    # to a "private" of ours, which would then be taken for the site's.
    told = ("cache-control", "expires")
    if tracked.is_last and read_headers(headers).keys().isdisjoint(told):
        headers["Cache-Control"] = "private"


def vary_by_cookie(headers: Headers, seen: HeaderView) -> None:
    """Say that the response depends on the visitor."""
    vary = seen.get("vary", "")
    names = {name.strip().lower() for name in vary.split(",")}
    if not names & {"cookie", "*"}:
        headers["Vary"] = f"{vary}, Cookie" if vary else "Cookie"
