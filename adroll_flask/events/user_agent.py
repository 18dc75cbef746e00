"""What a user agent says of the device, where the extra ``useragent`` is installed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

#: Characters that are looked at: parsing takes longer the longer the text, and browsers' own have
#: about 150.
_LOOKED_AT = 400

_DESKTOPS = frozenset(
    {"Windows", "Mac OS X", "Linux", "Ubuntu", "Fedora", "Debian", "Chrome OS", "FreeBSD"}
)


@functools.cache
def _parse() -> Callable[[str], Any] | None:
    """ua-parser's function, which keeps a bounded cache of its own; ``None`` without ua-parser."""
    try:
        from ua_parser import parse
    except ImportError:
        return None
    return parse  # type: ignore[no-any-return,unused-ignore]


#: What a description can hold.
DEVICE = ("device_os", "device_type", "package_app_name", "package_app_version")


def describe(user_agent: str) -> Mapping[str, str]:
    """``device_os`` and ``device_type``, as far as known.

    A browser is no app: ``package_app_name`` is for the caller alone.

    Empty without ua-parser, for robots and for agents that it does not know.
    """
    parse = _parse()
    return {} if parse is None else _described(user_agent[:_LOOKED_AT], parse)


@functools.lru_cache(1000)  # a site sees a few hundred browsers
def _described(user_agent: str, parse: Callable[[str], Any]) -> Mapping[str, str]:
    found = parse(user_agent)
    os, device = found.os, found.device
    if device is not None and device.family == "Spider":
        return {}
    told: dict[str, str] = {}
    if os is not None and os.family != "Other":
        told["device_os"] = os.family
        kind = _device_type(user_agent, os.family, device)
        if kind:
            told["device_type"] = kind
    return told


def _device_type(user_agent: str, os: str, device: Any) -> str | None:
    family = device.family if device is not None else ""
    if "TV" in family or "TV" in os or "SmartTV" in user_agent:
        return "tv"
    if os == "iOS":
        return "tablet" if family.startswith("iPad") else "phone"
    if os == "Android":
        # Google asks Android browsers to say "Mobile" on phones and not on tablets.
        return "phone" if "Mobile" in user_agent else "tablet"
    if os in _DESKTOPS:
        return "desktop"
    return "phone" if "Mobile" in user_agent else None
