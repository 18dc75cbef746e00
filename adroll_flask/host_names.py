"""What a host's name says of the host, and whether a request comes from its own pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit
from wsgiref.types import WSGIEnvironment

#: A host's name as browsers send it, or an IPv4 address: labels of at most 63 characters, 253 in
#: all (RFC 1035, section 2.3.4). Names with an underscore are a proxy's for servers, and no site's.
NAME = r"(?![a-z0-9.-]{254})[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*\.?"
#: Gives a match where a text is a host's name, in ASCII and any case.
is_name: Callable[[str], re.Match[str] | None] = re.compile(NAME, re.IGNORECASE).fullmatch


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and loopback addresses."""
    is_named = host == "localhost" or host.endswith(".localhost")
    return is_named or (is_ip(host) and ip_address(host).is_loopback)


def is_listed(host: str, listed: Collection[str]) -> bool:
    """True where *host*, without its port, is one of *listed*, or below one with a leading dot.

    >>> is_listed("www.shop.example", [".shop.example"]), is_listed("shop.test", ["shop.example"])
    (True, False)
    """
    host = in_ascii(host)
    domains = tuple(entry for entry in listed if entry.startswith("."))
    return host in listed or f".{host}".endswith(domains)


def in_ascii(host: str) -> str:
    """A host's name as settings have it and browsers send it: in lower case, without a dot at its
    end (RFC 1034, section 3.1), in ASCII (A-labels of RFC 5890).

    >>> in_ascii("Müller.Example.")
    'xn--mller-kva.example'
    """
    if not host.isascii():
        with suppress(UnicodeError):
            host = host.encode("idna").decode()
    return host.lower().rstrip(".")


def host_of(url: object) -> str:
    """The host of *url* without its port; empty: there is none."""
    try:
        return urlsplit(url).hostname or "" if isinstance(url, str) else ""
    except ValueError:
        return ""


def is_ip(host: str) -> bool:
    """True for an IPv4 or IPv6 address, without brackets."""
    if ":" not in host and not host[-1:].isdigit():
        return False  # nearly every name: ip_address() would raise, which costs more
    with suppress(ValueError):
        ip_address(host)
        return True
    return False


def why_foreign(environ: WSGIEnvironment, host: str) -> str:
    """Why a request does not come from a page of *host*'s own; empty: it does.

    By Fetch Metadata (https://www.w3.org/TR/fetch-metadata/), else by ``Origin``: browsers set both
    themselves, scripts cannot.
    """
    where = environ.get("HTTP_SEC_FETCH_SITE")
    if where is not None:
        return "" if where == "same-origin" else "cross_site"
    origin = environ.get("HTTP_ORIGIN")
    if not origin:
        return "no_origin"
    is_own = bool(host) and origin.partition("://")[2].lower() == host.lower()
    return "" if is_own else "cross_origin"
