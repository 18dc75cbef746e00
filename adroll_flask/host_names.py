"""What a host's name says of the host."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and loopback addresses."""
    if is_ip(host):
        return ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def is_listed(host: str, listed: Collection[str]) -> bool:
    """True where *host*, without its port, is one of *listed*, or below one with a leading dot.

    >>> is_listed("www.shop.example", [".shop.example"]), is_listed("shop.test", ["shop.example"])
    (True, False)
    """
    host = in_ascii(host)
    return host in listed or f".{host}".endswith(tuple(one for one in listed if one[:1] == "."))


def in_ascii(host: str) -> str:
    """A host's name as settings have it: in lower case, without a dot at its end (RFC 1034, section
    3.1), and as browsers send it (RFC 5890, A-labels).

    >>> in_ascii("Müller.Example.")
    'xn--mller-kva.example'
    """
    if not host.isascii():
        with suppress(UnicodeError):
            host = host.encode("idna").decode()
    return host.lower().rstrip(".")


def host_of(url: object) -> str:
    """The host of *url* without its port, or an empty text where there is none."""
    try:
        return urlsplit(url).hostname or "" if isinstance(url, str) else ""
    except ValueError:
        return ""


def is_ip(host: str) -> bool:
    """True for an IPv4 or IPv6 address, without brackets."""
    if ":" not in host and not host[-1:].isdigit():
        return False  # as nearly every name, told without an error being raised and caught
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
