"""Caches between the site and its visitors: what they may keep, and what we say to them."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

    from .exchange import Exchange

#: A response's headers by lower-case name, repeated ones joined. werkzeug's ``Headers`` walks its
#: list, and raises and catches within, for each question; here one walk answers all.
Look = Mapping[str, str]


def look(headers: Headers) -> Look:
    """One look at *headers*, before anything is changed."""
    found: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def is_shared_cacheable(exchange: Exchange, seen: Look) -> bool:
    """True where a cache between the site and its visitors may keep the response.

    design.md, "Shared-cacheable"; the directives are those of RFC 9111, section 5.2.2.
    """
    if exchange.method not in ("GET", "HEAD"):
        return False
    settings = exchange.site.settings
    if settings.cached_paths:
        path = exchange.path
        if any(fnmatchcase(path, pattern) for pattern in settings.cached_paths):
            return True
    control = seen.get("cache-control")
    if control:
        directives = _directives(control)
        if "no-store" in directives or "private" in directives:
            return False
        if "public" in directives or "s-maxage" in directives:
            return True
        age = directives.get("max-age", "")
        if age.isdigit() and int(age[:12]) > 0:
            return True
    if "cdn-cache-control" in seen or "surrogate-control" in seen:
        return True
    expires = seen.get("expires")
    return expires is not None and _is_future(expires, exchange.site.clock())


def _directives(control: str) -> dict[str, str]:
    directives: dict[str, str] = {}
    for part in control.split(","):
        name, _, value = part.strip().partition("=")
        directives[name.strip().lower()] = value.strip().strip('"')
    return directives


def _is_future(date: str, now: float) -> bool:
    try:
        return parsedate_to_datetime(date).timestamp() > now
    except (ValueError, TypeError, OverflowError):
        # RFC 9111, section 5.3: an invalid date, "0" above all, is in the past.
        return False


def keep_private(headers: Headers) -> None:
    """Keep a response that carries a visitor's cookies out of shared caches."""
    # Promise 4: only where the site had said nothing about caching.
    if "Cache-Control" not in headers and "Expires" not in headers:
        headers["Cache-Control"] = "private"


def vary_by_cookie(headers: Headers, seen: Look) -> None:
    """Say that the response depends on the visitor."""
    vary = seen.get("vary", "")
    names = {name.strip().lower() for name in vary.split(",")}
    if not names & {"cookie", "*"}:
        headers["Vary"] = f"{vary}, Cookie" if vary else "Cookie"
