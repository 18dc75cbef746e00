"""``page_location``: a full URL in plain ASCII, within a bound, its click id whole.

What tells of a person is left out: a page's URL reaches AdRoll with each event, and shops put into
theirs whom they greet (``/thanks?order=17&email=ann@example.com``).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from fnmatch import translate
from typing import Any
from urllib.parse import quote, unquote_plus, urlencode, urlsplit

from adroll_flask.errors import EventError
from adroll_flask.host_names import NAME, is_name
from adroll_flask.visitor.identifiers import CONTROL, kind

#: Characters of ``page_location``. The API documents no bound; browsers and proxies agree on
#: about this much.
MAX_LOCATION = 2000
#: Characters that are read of a longer one.
_MAX_READ = 8 * MAX_LOCATION
#: Characters of a host and its port as they are given. Written in ASCII a host has at most 253.
_MAX_HOST = 300
#: The parameter that is kept before all others: a click id of 240 characters, encoded.
_CLICK = re.compile(r"[?&]adct=[^&]{1,725}(?=&|\Z)")

#: Most URLs: nothing to do. RFC 3986's characters save brackets, which only an IPv6 host may hold,
#: and "%" only before two hex digits.
_PLAIN = re.compile(
    rf"https?://{NAME}/"
    r"[A-Za-z0-9._~:/?#@!$&'()*+,;=-]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9._~:/?#@!$&'()*+,;=-]*)*"
).fullmatch
_SCHEME = re.compile(r"(https?)://([^/?#]+)(.*)\Z", re.IGNORECASE | re.DOTALL)
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SAFE = "/?#:@!$&'()*+,;=[]|%~"
_TAKES = "takes a full URL such as 'https://shop.example/thanks'"


def accept_location(value: Any) -> str:
    """A full http(s) URL in plain ASCII, at most 2,000 characters.

    Characters that URLs may not hold are percent-encoded and a user name with password is left
    out. Of a longer URL the fragment goes first, then whole query parameters from the end on,
    then whole parts of the path; ``adct`` stays.

    :raises EventError: not a full URL.

    >>> accept_location("https://shop.example/größe")
    'https://shop.example/gr%C3%B6%C3%9Fe'
    """
    if not isinstance(value, str):
        raise EventError("page_location", f"{_TAKES}; it got {kind(value)}")
    text = value if type(value) is str else str.__str__(value)
    if len(text) <= MAX_LOCATION and _PLAIN(text):
        return text
    if len(text) > _MAX_READ:
        text = _whole_parts(text[:_MAX_READ])
    text = text.strip()
    match = _SCHEME.match(text)
    if match is None:
        raise EventError("page_location", f"{_TAKES}, with http or https and a host")
    if CONTROL.search(text):
        raise EventError("page_location", f"{_TAKES}, without control characters")
    scheme, authority, rest = match.groups()
    if rest[:1] != "/":
        rest = "/" + rest
    rest = quote(_STRAY_PERCENT.sub("%25", rest), safe=_SAFE)
    start = f"{scheme.lower()}://{_host_and_port(authority)}"
    if len(start) + len(rest) > MAX_LOCATION:
        rest = _shorten(rest, MAX_LOCATION - len(start))
    return start + rest


def _whole_parts(head: str) -> str:
    """*head* of a URL without the part that is cut off in its middle."""
    return head[: max(head.rfind(mark) for mark in "/?&#") + 1]


def _host_and_port(authority: str) -> str:
    authority = authority.rpartition("@")[2]
    try:
        if len(authority) > _MAX_HOST:
            raise ValueError("no host")
        parts = urlsplit(f"//{authority}")
        host = parts.hostname or ""
        port = parts.port
        if authority.startswith("["):
            host = f"[{host}]"
        else:
            host = host if host.isascii() else host.encode("idna").decode()
            if not is_name(host):
                raise ValueError("no host")
        if port == 0:
            raise ValueError("no port")
    except ValueError:  # of the encoding, too
        raise EventError("page_location", f"{_TAKES}, with a valid host and port") from None
    return host if port is None else f"{host}:{port}"


def _shorten(rest: str, room: int) -> str:
    """Path and query in *room* characters: whole parameters, the click id before all others."""
    rest = rest.partition("#")[0]
    if len(rest) <= room:
        return rest
    click = _CLICK.search(rest)
    reserved = len(click[0]) if click else 0
    # One more than fits: it may be the mark before which the text is cut.
    kept = rest[: room - reserved + 1]
    end = max(kept.find("?"), kept.rfind("&")) if "?" in kept else kept.rindex("/", 0, -1) + 1
    kept = kept[:end]
    if click and click.start() >= len(kept):
        kept += ("&" if "?" in kept else "?") + click[0][1:]
    return kept


def app_location(
    domain: str,
    *,
    device_os: str | None = None,
    device_type: str | None = None,
    package_app_name: str | None = None,
    package_app_version: str | None = None,
) -> str:
    """The ``page_location`` of an event of an app, which has no page.

    :param domain: a domain that the site's owner controls; it need not resolve.
    :param device_os: for example ``"iOS"``.
    :param device_type: for example ``"phone"``.
    :param package_app_name: for example ``"com.example.App"``.
    :param package_app_version: for example ``"14.1.3"``.
    :raises EventError: *domain* is no domain, or another text is empty or over 256 characters.

    >>> app_location("app.example.com", device_os="iOS", package_app_version="14.1.3")
    'https://app.example.com/?device_os=iOS&package_app_version=14.1.3'
    """
    if not isinstance(domain, str) or not domain.strip() or re.search(r"[/?#@\s]", domain.strip()):
        raise EventError("domain", "takes a domain name such as 'app.example.com'")
    parameters = {
        "device_os": device_os,
        "device_type": device_type,
        "package_app_name": package_app_name,
        "package_app_version": package_app_version,
    }
    for name, text in parameters.items():
        if text is not None and (not isinstance(text, str) or not 0 < len(text) <= 256):
            raise EventError(name, "takes a text of 1 to 256 characters")
    query = urlencode({name: text for name, text in parameters.items() if text is not None})
    return accept_location(f"https://{domain.strip()}/" + (f"?{query}" if query else ""))


# -- without persons -----------------------------------------------------------------------

#: A person's address in a text (``trial:ann@example.com``), as it is or percent-encoded. It is
#: encoded twice in a URL that stands within another. A domain has at most 253 characters; without a
#: bound a URL full of encoded @ takes seconds.
_AT = r"@|\uff20|%(?:25)*40|%(?:25)*EF%(?:25)*BC%(?:25)*A0"
ADDRESS = re.compile(rf"[^\s@](?:{_AT})[^\s@]{{0,254}}[^\W\d]", re.IGNORECASE)


def may_hold_address(text: str) -> bool:
    """False: :data:`ADDRESS` finds nothing in *text*. It takes a fraction of the time."""
    return "@" in text or "%" in text or not text.isascii()


def may_tell(url: str) -> bool:
    """False: nothing in *url* tells of a person. It has no parameter, no fragment, no address."""
    return "?" in url or "#" in url or may_hold_address(url)


def without_persons(url: str, names: tuple[str, ...], clear: bool) -> str:
    """*url* without what tells a person: whole parameters, segments of the path, the fragment.

    :param url: of :func:`accept_location`.
    :param names: ``ADROLL_PRIVATE_PARAMETERS``.
    :param clear: addresses may leave in clear text.

    >>> without_persons("https://shop.example/thanks?order=17&email=ann", ("*email*",), False)
    'https://shop.example/thanks?order=17'
    """
    is_private = _named(names)
    has_address = ADDRESS.search if may_hold_address(url) and not clear else None

    def tells(parameter: str) -> bool:
        if is_private is not None and is_private(parameter.partition("=")[0]):
            return True
        return has_address is not None and has_address(parameter) is not None

    rest, sign, fragment = url.partition("#")
    start, mark, query = rest.partition("?")
    host = start.find("/", start.find("://") + 3)
    if has_address is not None and has_address(start, host):
        path = "/".join(part for part in start[host:].split("/") if not has_address(part))
        start = start[:host] + (path or "/")
    if query:
        parameters = query.split("&")
        kept = [text for text in parameters if text.startswith("adct=") or not tells(text)]
        query = "&".join(kept)
        mark = mark if query else ""
    if fragment and any(tells(part) for part in re.split("[?&/]", fragment)):
        sign = fragment = ""
    return start + mark + query + sign + fragment


@functools.lru_cache(64)
def _named(patterns: tuple[str, ...]) -> Callable[[str], bool] | None:
    """Whether a parameter's name, as a URL has it, is one of *patterns* in any case."""
    if not patterns:
        return None
    match = re.compile("|".join(translate(pattern.lower()) for pattern in patterns)).match

    @functools.lru_cache(1000)  # a site's pages have a few names
    def named(name: str) -> bool:
        return match(unquote_plus(name).lower()) is not None

    return named
