"""What a host's name says of the host."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and loopback addresses."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def has_domain(hostname: str) -> bool:
    """False for addresses, ``localhost`` and other names without a dot.

    Browsers take no ``Domain`` for these (RFC 6265, section 5.1.3, for addresses).
    """
    if "." not in hostname or hostname.endswith((".", ".localhost")):
        return False
    try:
        ip_address(hostname)
    except ValueError:
        return True
    return False
