"""What a user agent says of device and browser, where the extra ``useragent`` is installed."""

from __future__ import annotations

import functools
from collections.abc import Callable
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


def describe(user_agent: str) -> dict[str, str]:
    """``device_os``, ``device_type`` and the browser as ``package_app_*``, as far as known.

    Empty without ua-parser, for robots and for agents that it does not know.
    """
    parse = _parse()
    if parse is None:
        return {}
    found = parse(user_agent[:_LOOKED_AT])
    os, device, browser = found.os, found.device, found.user_agent
    if device is not None and device.family == "Spider":
        return {}
    told: dict[str, str] = {}
    if os is not None and os.family != "Other":
        told["device_os"] = os.family
        kind = _device_type(user_agent, os.family, device)
        if kind:
            told["device_type"] = kind
    if browser is not None and browser.family != "Other":
        told["package_app_name"] = browser.family
        version = [browser.major, browser.minor, browser.patch, browser.patch_minor]
        text = ".".join(part for part in version if part)
        if text:
            told["package_app_version"] = text
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
