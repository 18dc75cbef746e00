"""What of a person is left out of an event: addresses in clear, and parameters that mean a person.

A page's URL reaches AdRoll with each event, and shops put into theirs whom they greet
(``/thanks?order=17&email=ann@example.com``). A click id stays whatever it looks like.
"""

from __future__ import annotations

import functools
import hmac
import re
import unicodedata
from collections.abc import Callable
from fnmatch import translate
from typing import Any
from urllib.parse import unquote_plus

from .context import EventDefaults

#: How a key begins that is kept as a hash.
HASHED = "hmac-sha256:"
#: A person's address in a text: ``trial:ann@example.com``, as it is or as a URL has it, which one
#: within another has encoded twice. A domain has at most 253 characters; without a bound a URL full
#: of encoded @ takes seconds.
_AT = r"@|\uff20|%(?:25)*40|%(?:25)*EF%(?:25)*BC%(?:25)*A0"
ADDRESS = re.compile(rf"[^\s@](?:{_AT})[^\s@]{{0,254}}[^\W\d]", re.IGNORECASE)


def without_persons(url: str, names: tuple[str, ...], clear: bool) -> str:
    """*url* without what tells a person: whole parameters, segments of the path, the fragment.

    :param names: ``ADROLL_PRIVATE_PARAMETERS``.
    :param clear: addresses may leave in clear text.

    >>> without_persons("https://shop.example/thanks?order=17&email=ann", ("*email*",), False)
    'https://shop.example/thanks?order=17'
    """
    plain = "@" not in url and "%" not in url and url.isascii()
    told = _nothing if clear or plain else ADDRESS.search
    is_private = _named(names)

    rest, hash, fragment = url.partition("#")
    start, mark, query = rest.partition("?")
    host = start.find("/", start.find("://") + 3)
    if host >= 0 and told(start[host:]):
        start = start[:host] + "/".join(one for one in start[host:].split("/") if not told(one))
    if query:
        kept = [
            one
            for one in query.split("&")
            if one.startswith("adct=") or not (is_private(one.partition("=")[0]) or told(one))
        ]
        query = "&".join(kept)
        mark = mark if query else ""
    parts = re.split("[?&/]", fragment) if fragment else ()
    if any(is_private(one.partition("=")[0]) or told(one) for one in parts):
        hash = fragment = ""
    return start + mark + query + hash + fragment


def _nothing(text: str) -> None:
    """It is not there."""


@functools.lru_cache(64)
def _named(patterns: tuple[str, ...]) -> Callable[[str], object]:
    """Whether a parameter's name, as a URL has it, is one of *patterns* in any case."""
    if not patterns:
        return _nothing
    match = re.compile("|".join(translate(one.lower()) for one in patterns)).match

    @functools.lru_cache(1000)  # a site's pages have a few names
    def named(name: str) -> object:
        return match(unquote_plus(name).lower())

    return named


def hide(values: dict[str, Any], defaults: EventDefaults) -> tuple[str, ...]:
    """Take what tells a person out of an event's *values*; the names of those that had any.

    Of an order id with an address in it a keyed hash is left, the one that the outbox keeps as the
    deduplication key, so that the order is found by its id all the same.
    """
    hidden: tuple[str, ...] = ()
    clear = "plain" in defaults.email_forms
    url, order = values.get("page_location"), values.get("order_id")
    if isinstance(url, str):
        left = without_persons(url, defaults.private_parameters, clear)
        if left != url:
            values["page_location"] = left
            hidden += ("page_location",)
    if isinstance(order, str) and not clear:
        kept = kept_key(order.strip(), defaults.dedupe_secret)
        if kept.startswith(HASHED) and kept != order:
            values["order_id"] = kept
            hidden += ("order_id",)
    return hidden


# -- a deduplication key as it is kept -----------------------------------------------------


def kept_key(key: str, secret: bytes | None) -> str:
    """*key* as the outbox keeps it; whoever looks for a key looks for this.

    Two ways to write one character are one order (NFC). A key with an e-mail address in it is
    kept as a hash, since keys outlive what else is known of a visitor; other keys stay readable,
    because people look for their orders.

    :param secret: the site's own (``Records.dedupe_secret``): without it nobody could tell whose
        address a hash is by trying addresses.

    >>> kept_key("2024-1001", b"secret")
    '2024-1001'
    """
    if key.isascii():
        if "@" not in key and "%" not in key:
            return key
    else:
        key = unicodedata.normalize("NFC", key)
    if not ADDRESS.search(key):
        return key
    text = key.encode("utf-8", "surrogatepass")
    return HASHED + hmac.digest(secret or b"adroll_flask", text, "sha256").hex()


def suppressed_key(name: str, key: str, secret: bytes | None) -> str:
    """The hash by which it is known why the order *key* was not reported as an event *name*.

    :param secret: as for :func:`kept_key`.
    """
    text = f"{name}\0{unicodedata.normalize('NFC', key)}".encode("utf-8", "surrogatepass")
    return hmac.digest(secret or b"adroll_flask", text, "sha256").hex()[:32]
