"""Caches between the site and its visitors: which responses they may keep for others.

Such a response never gets a cookie of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from enum import Enum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from werkzeug.datastructures import Headers

from adroll_flask.visitor.tracked_request import TrackedRequest

#: A response's headers by lower-case name, repeated ones joined. werkzeug's ``Headers`` walks its
#: list, and raises and catches within, for each question; here one walk answers all.
HeaderView = Mapping[str, str]


def read_headers(headers: Iterable[tuple[str, str]]) -> HeaderView:
    """One look at *headers*, before anything is changed."""
    view: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        view[name] = f"{view[name]}, {value}" if name in view else value
    return view


def may_be_shared(tracked: TrackedRequest, seen: HeaderView) -> bool:
    """True where a cache between the site and its visitors may keep the response.

    That is told by ``ADROLL_CACHED_PATHS`` and by the headers. A cookie of ours, or one that is
    taken back, leaves on no such response.
    """
    patterns = tracked.visitors.settings.cached_paths
    if patterns and tracked.method in ("GET", "HEAD"):
        # Whoever lists a path may write it as people do, or as browsers send it.
        path = unquote(tracked.path)
        if any(fnmatchcase(path, unquote(pattern)) for pattern in patterns):
            return True
    return is_shared_cacheable(seen, tracked.visitors.clock())


# -- what the headers say ----------------------------------------------------------------------

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
_FORBIDS: Final = frozenset({("no-store", None), ("private", None), ("0", None)})
_QUOTED: Final = r"\"(?:[^\"\\]|\\.)*+"
#: One directive with its argument (RFC 9111, section 5.2), or a run of what is none.
_DIRECTIVE: Final = re.compile(
    rf"[\s,]*+(?:([^\s,=\"]++)(?:\s*+=\s*+({_QUOTED}\"|[^\s,\"]*+))?(?=\s*+(?:,|\Z))"
    rf"|(?:{_QUOTED}(?:\"|\Z)|[^\s,\"])++)",
    re.DOTALL,
)
#: With an argument these two are about single headers, and say nothing of the response (RFC 9111,
#: sections 5.2.2.4 and 5.2.2.7).
_OF_HEADERS: Final = frozenset({"private", "no-cache"})
#: By these a cache asks the origin before each use. They count where nothing else stands beside
#: them than :data:`_BESIDE`.
_ASKS_EACH_TIME: Final = frozenset({("no-cache", None), ("max-age", "0")})
_BESIDE: Final = frozenset(
    {("must-revalidate", None), ("proxy-revalidate", None), ("no-transform", None)}
)


class Said(Enum):
    """What a response's ``Cache-Control``, or its like for one kind of cache, says."""

    #: Nothing is kept for others: ``private`` or ``no-store``.
    FORBIDDEN = "forbidden"
    #: Nothing, or only that each use is asked for at the origin.
    NOTHING = "nothing"
    #: Anything else.
    SHARED = "shared"


def is_shared_cacheable(seen: HeaderView, now: float) -> bool:
    """True where a response's headers do not keep shared caches from answering others with it.

    The only rule of it: for responses on their way out, and for ``flask adroll check --url``.
    Apache's mod_cache keeps what says no more than ``must-revalidate``, and a past ``Expires``.

    :param now: epoch seconds, to compare ``Expires`` with.

    >>> is_shared_cacheable({"cache-control": "max-age=60"}, 0.0)
    True
    >>> is_shared_cacheable({"cache-control": "private, max-age=60"}, 0.0)
    False
    >>> is_shared_cacheable({"cache-control": "private", "cdn-cache-control": "max-age=60"}, 0.0)
    True
    """
    if not TARGETED.keys().isdisjoint(seen) and any(
        what_is_said(seen[name]) is not Said.FORBIDDEN for name in TARGETED.keys() & seen.keys()
    ):
        return True
    control = seen.get("cache-control", "")
    expires = seen.get("expires")
    rule = what_is_said(control)
    if rule is not Said.NOTHING or expires is None:
        return rule is Said.SHARED
    # A past one may stand beside what asks for each use.
    return not is_asked_each_time(control) or _is_future(expires, now)


@lru_cache(256)  # an app says few different things
def what_is_said(control: str) -> Said:
    """What the value of a ``Cache-Control`` says to shared caches.

    >>> what_is_said("no-cache"), what_is_said("must-revalidate")
    (<Said.NOTHING: 'nothing'>, <Said.SHARED: 'shared'>)
    """
    directives = _of_response(control)
    if not _FORBIDS.isdisjoint(directives):
        return Said.FORBIDDEN
    if not directives or is_asked_each_time(control):
        return Said.NOTHING
    return Said.SHARED


def is_asked_each_time(control: str) -> bool:
    """True where a ``Cache-Control`` says that each use is asked for at the origin, and no more."""
    directives = _of_response(control)
    return not _ASKS_EACH_TIME.isdisjoint(directives) and directives <= _ASKS_EACH_TIME | _BESIDE


def cache_directives(control: str) -> list[tuple[str, str | None]]:
    """The directives of a ``Cache-Control`` in lower case, each with its argument.

    What cannot be read is a directive without a name.

    >>> cache_directives('private="a, b", Max-Age=60')
    [('private', 'a, b'), ('max-age', '60')]
    """
    directives = _DIRECTIVE.finditer(control)
    return [((match[1] or "").lower(), match[2] and match[2].strip('"')) for match in directives]


def _of_response(control: str) -> set[tuple[str, str | None]]:
    """The directives that are about the response, each once; zeros of one form."""
    return {
        (name, "0" if argument and argument.strip("0") == "" else argument)
        for name, argument in cache_directives(control)
        if argument is None or name not in _OF_HEADERS
    }


def _is_future(date: str, now: float) -> bool:
    try:
        return parsedate_to_datetime(date).timestamp() > now
    except (ValueError, TypeError, OverflowError):
        # RFC 9111, section 5.3: an invalid date, "0" above all, is in the past.
        return False


def vary_by_cookie(headers: Headers, seen: HeaderView) -> None:
    """Say that the response depends on the visitor."""
    vary = seen.get("vary", "")
    names = {name.strip().lower() for name in vary.split(",")}
    if not names & {"cookie", "*"}:
        headers["Vary"] = f"{vary}, Cookie" if vary else "Cookie"
