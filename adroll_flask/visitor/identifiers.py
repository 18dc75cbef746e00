"""What identifies a visitor: each identifier's form, and how it is written to AdRoll.

Forms are those of AdRoll's documentation and of values seen in the wild. No error text holds
the value that was refused.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import isfinite
from socket import AF_INET, inet_pton
from typing import Any, TypeGuard
from urllib.parse import unquote
from uuid import UUID

from adroll_flask.errors import EventError, let_through

#: Characters of a click id: a visitor token of 450 characters has to hold it.
MAX_ADCT = 240
#: Characters of a first-party cookie; what AdRoll writes has 46.
MAX_COOKIE = 80
#: Characters of an e-mail address (RFC 5321, section 4.5.3.1.3, less the angle brackets).
MAX_EMAIL = 254
#: Characters of an id, of a product's texts, and of the texts about a device; spaces around one
#: count, so that a longer text is not read.
MAX_TEXT = 256
#: Characters of a user agent; the rest of a longer one is cut off.
MAX_USER_AGENT = 1024

#: The time part of a cookie value that was derived from another identifier: 2020-01-01, fixed
#: so that the same identifier always gives the same value.
DERIVED_TIME = "1577836800000"

_ADCT = re.compile(rf"[\x21-\x7e]{{1,{MAX_ADCT}}}\Z")
#: What a cookie's value may hold (RFC 6265, section 4.1.1, "cookie-octet").
COOKIE_PATTERN = rf"[!#-+\--:<-\[\]-~]{{1,{MAX_COOKIE}}}"
_COOKIE = re.compile(COOKIE_PATTERN + r"\Z")
_COOKIE_MARKER = re.compile(r"-(?:s2-)+")
_DATED_COOKIE = re.compile(r"([0-9a-fA-F]{32})-(?:s2-)?(.+?)-?\Z", re.DOTALL)
#: Most cookies: in the form that AdRoll writes.
_PLAIN_COOKIE = re.compile(r"[0-9a-fA-F]{32}-(?:[0-9]{13}|a_[0-9]{10})").fullmatch
_HEX = re.compile(r"[0-9a-fA-F]+\Z")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_ZERO_UUID = "00000000-0000-0000-0000-000000000000"
#: Most addresses: nothing to do.
_PLAIN_EMAIL = re.compile(r"[a-z0-9._+-]+@[a-z0-9.-]+").fullmatch
#: Spaces of any script, C0 and C1 controls, and halves of surrogate pairs (not encodable).
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: What no text of an event holds: C0 and C1 controls, halves of surrogate pairs.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROLS = re.compile(f"{CONTROL.pattern}+")
#: JavaScript's ``String(date)`` and ``date.toUTCString()``.
_JS_DATE = re.compile(r"[A-Z][a-z]{2},? .*\d\d:\d\d:\d\d(?: .*)?\Z", re.ASCII)
_ZONE_NAME = re.compile(r"\b(?:GMT|UTC)(?=[+-])")


def accept_adct(value: str) -> str | None:
    """The click id as given, or ``None`` where it cannot be one.

    AdRoll publishes neither alphabet nor length: 1 to 240 printable ASCII characters without
    spaces are taken, as they are.

    >>> accept_adct("click123")
    'click123'
    """
    return value if _ADCT.match(value) else None


def normalise_first_party_cookie(value: str) -> str | None:
    """The value of ``__adroll_fpc`` as the pixel would write it, or ``None`` where it is none.

    The pixel keeps any value that it finds, other tags' values included, and so does this: 1 to 80
    printable ASCII characters without space, semicolon, comma, double quote and backslash. Markers
    ``-s2-`` and trailing hyphens are dropped and a date text becomes epoch milliseconds, as the
    pixel does.

    >>> normalise_first_party_cookie("46d41c62e88bb2e267c1e15314bb8837-s2-1667065540836-")
    '46d41c62e88bb2e267c1e15314bb8837-1667065540836'
    """
    if _PLAIN_COOKIE(value):
        return value
    if len(value) > 3 * MAX_COOKIE:
        return None
    dated = _dated_cookie(value)
    if dated is not None:
        return dated
    if not _COOKIE.match(value):
        return None
    return _COOKIE_MARKER.sub("-", value).rstrip("-") or None


def _dated_cookie(value: str) -> str | None:
    """A cookie that has a date as text, with epoch milliseconds instead; ``None``: it has none."""
    # A date text contains spaces and commas, which scripts store percent-encoded.
    match = _DATED_COOKIE.match(unquote(value))
    if match is None:
        return None
    digits, when = match.groups()
    try:
        if re.match(r"\d{4}-\d{2}-\d{2}", when, re.ASCII):
            moment = datetime.fromisoformat(when)
        elif when.isascii() and _JS_DATE.match(when):
            moment = parsedate_to_datetime(_ZONE_NAME.sub("", when))
        else:
            return None
        milliseconds = round(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    return f"{digits}-{milliseconds}" if milliseconds >= 0 else None


def new_first_party_cookie(now: float) -> str:
    """A new visitor's value of ``__adroll_fpc``, made at *now* (epoch seconds)."""
    return f"{os.urandom(16).hex()}-{int(now * 1000)}"


def accept_email(value: str) -> str:
    """The address trimmed and in lower case: what AdRoll calls ``LOWERCASE(email)``.

    :raises EventError: not of the shape ``someone@somewhere``.

    >>> accept_email(" Foo.@docomo.ne.jp ")
    'foo.@docomo.ne.jp'
    """
    address = value.strip().lower() if len(value) <= MAX_EMAIL else value
    if len(address) > MAX_EMAIL:
        raise EventError("email", f"takes an address of at most {MAX_EMAIL} characters")
    local, at, domain = address.partition("@")
    if not (local and at and domain) or "@" in domain:
        raise EventError(
            "email",
            "takes an e-mail address, with one '@' and text on both sides of it, or a hash of one "
            "in 64 (SHA-256) or 32 (MD5) hex digits; this is neither",
        )
    if _UNPRINTABLE.search(address):
        raise EventError("email", "takes an address without spaces and control characters")
    return address


def accept_hash(value: Any, digits: int) -> str:
    """An address that was hashed already, in lower case.

    :raises EventError: not *digits* hex digits, or the hash of an empty text.
    """
    if not isinstance(value, str) or len(value) != digits or not _HEX.match(value):
        raise EventError("email", f"takes {digits} hex digits")
    lower = str.lower(value)  # a plain text, also of a subclass such as a template's markup
    if lower in _EMPTY_HASHES:
        raise EventError("email", "takes the hash of an address; this is the hash of an empty text")
    return lower


def email_forms(value: str, forms: Sequence[str]) -> dict[str, str]:
    """An address in the forms that may leave the server.

    :param value: an address, or the hash of one that was made elsewhere (recognised by its form
        and passed through whatever *forms* says).
    :param forms: any of ``"sha256"``, ``"md5"``, ``"plain"``.
    :returns: texts under the API's keys ``email``, ``email_sha256``, ``email_md5``.
    :raises EventError: neither an address nor a hash of one; a list, even with one text.

    >>> email_forms("Ada@example.com", ("md5",))
    {'email_md5': '3e3417d7ef77d5932a6734b916515ed5'}
    """
    if type(value) is str and len(value) <= MAX_EMAIL and _PLAIN_EMAIL(value):
        return _forms_of(value, forms)
    if not isinstance(value, str):
        # No source of AdRoll's shows a list, and two addresses are two people.
        raise EventError("email", f"takes one address per event, as a text; it got {kind(value)}")
    value = str.__str__(value)
    text = value.strip()
    if len(text) == 64 and _HEX.match(text):
        return {"email_sha256": accept_hash(text, 64)}
    if len(text) == 32 and _HEX.match(text):
        return {"email_md5": accept_hash(text, 32)}
    return _forms_of(accept_email(value), forms)


def _forms_of(address: str, forms: Sequence[str]) -> dict[str, str]:
    encoded = address.encode()
    texts: dict[str, str] = {}
    if "plain" in forms:
        texts["email"] = address
    if "sha256" in forms:
        texts["email_sha256"] = hashlib.sha256(encoded).hexdigest()
    if "md5" in forms:
        texts["email_md5"] = hashlib.md5(encoded, usedforsecurity=False).hexdigest()
    return texts


#: The hashes of an empty text: somebody hashed who had no address.
_EMPTY_HASHES = frozenset(_forms_of("", ("sha256", "md5")).values())


def accept_device_id(value: object) -> str | None:
    """An advertising id (IDFA, GAID) as given, or ``None`` where all zeros say "opted out".

    :param value: a UUID as text in any case, or a ``uuid.UUID``.
    :raises EventError: anything else.
    """
    if isinstance(value, UUID):
        value = str(value)
    if not isinstance(value, str):
        raise EventError("device_id", f"takes a UUID; it got {kind(value)}")
    text = str.strip(value) if len(value) <= MAX_TEXT else ""
    if not _UUID.match(text):
        raise EventError("device_id", "takes a UUID such as an IDFA or GAID, with hyphens")
    return None if text == _ZERO_UUID else text


def accept_label(value: Any, limit: int = MAX_TEXT) -> str | None:
    """A text; an empty one is nothing, and line breaks become spaces.

    :raises EventError: no text, or more than *limit* characters.
    """
    if not isinstance(value, str):
        raise EventError("text", f"takes a text; it got {kind(value)}")
    if len(value) > limit:
        raise EventError("text", f"takes a text of at most {limit} characters")
    # A subclass of str (an enum's member, a template's markup) may print as something else.
    text = str.__str__(value).strip()
    if not text.isprintable():
        text = _CONTROLS.sub(" ", text).strip()
    return text or None


def accept_user_agent(value: Any) -> str | None:
    """A browser's own text: controls become spaces, and a long one is cut."""
    cut = value[:MAX_USER_AGENT] if isinstance(value, str) else value
    return accept_label(cut, MAX_USER_AGENT)


def accept_id(value: object, field: str = "id", *, any_number: bool = False) -> str:
    """An id as text: 1 to 256 characters without controls.

    :param value: a text, a whole number or a UUID.
    :param any_number: also a fraction: a data frame's ``42.0`` is the same user as ``42``.
    :raises EventError: anything else, an empty text included.

    >>> accept_id(42)
    '42'
    """
    text = value if type(value) is str else _id_of(value, field, any_number)
    if len(text) > MAX_TEXT:
        raise EventError(field, f"takes a text of at most {MAX_TEXT} characters")
    text = text.strip()
    if not text:
        raise EventError(field, "takes a text; this one is empty")
    if not text.isprintable() and CONTROL.search(text):
        raise EventError(field, "takes a text without control characters")
    return text


def _id_of(value: Any, field: str, any_number: bool) -> str:
    if isinstance(value, str):
        # A subclass of str (an enum's member, a template's markup) may print as something else.
        return str.__str__(value)
    if isinstance(value, UUID):
        return str(value)
    if any_number and _is_finite(value):
        # From 2**53 on a float stands for several whole numbers.
        is_whole = -(2**53) < value < 2**53 and int(value) == value
        return str(int(value)) if is_whole else str(value)
    number = whole_number(value)
    if number is None:
        takes = "takes a text or a number" if any_number else "takes a text or a whole number"
        raise EventError(field, f"{takes}; it got {kind(value)}")
    # A longer number is over the bound as a text, which Python makes slowly or refuses to make.
    return str(number) if number.bit_length() < 4 * MAX_TEXT else "-" * (MAX_TEXT + 1)


def _is_finite(value: Any) -> TypeGuard[float | Decimal]:
    if isinstance(value, Decimal):
        return value.is_finite()
    return isinstance(value, float) and isfinite(value)


def whole_number(value: Any) -> int | None:
    """*value* if it is one, also numpy's or an enumeration's; no truth value is."""
    try:
        return None if isinstance(value, bool) else int(value.__index__())
    except (AttributeError, TypeError):
        return None


def accept_user_id(value: object) -> str:
    """The site's own id of a user, see :func:`accept_id`."""
    return accept_id(value, "user_id", any_number=True)


def kept_forms(name: str, value: Any, named: Sequence[str]) -> dict[str, str]:
    """What a session keeps of an ``email``, a ``user_id`` or a ``device_id``.

    :param named: ``ADROLL_EMAIL``. Of an address hashes alone are kept: SHA-256 where only the
        clear text is named.
    :raises EventError: *value* is none.
    """
    if name == "email":
        hashes = [form for form in named if form != "plain"]
        return email_forms(value, ["sha256"] if named and not hashes else hashes)
    kept = accept_user_id(value) if name == "user_id" else accept_device_id(value)
    return {name: kept} if kept else {}


def accept_seconds(value: Any, field: str, takes: str) -> float:
    """A ``timedelta`` or seconds, as seconds.

    :param takes: what the error says that *field* takes.
    :raises EventError: anything else.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise EventError(field, f"{takes}; it got {kind(value)}")
    # These are beyond any bound. A float has no room for some integers.
    return float(max(-1e18, min(seconds, 1e18)))


def looks_like_email(text: str) -> bool:
    """True for a text that somebody could write an e-mail to."""
    local, at, domain = text.partition("@")
    return bool(local and at and "." in domain.strip(".") and not _UNPRINTABLE.search(text))


def _ip_of(text: str) -> IPv4Address | IPv6Address:
    # [2001:db8::1]:443 and [2001:db8::1], as in a Forwarded header; 192.0.2.7:443.
    with_port = re.fullmatch(r"\[(.*)\](?::[0-9]{1,5})?|([^:]*):[0-9]{1,5}", text.strip())
    text = text.strip() if with_port is None else with_port[1] or with_port[2] or ""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def normalise_ip(text: str) -> str:
    """An IPv4 or IPv6 address without port, brackets and zone; mapped IPv4 becomes IPv4.

    :raises EventError: not an address.

    >>> normalise_ip("[::ffff:203.0.113.9]:443")
    '203.0.113.9'
    """
    if type(text) is str and ":" not in text and _is_plain_ipv4(text):
        return text
    if isinstance(text, str):
        with suppress(ValueError):
            # No address has more, with brackets, zone and port.
            return str(_ip_of(text if len(text) <= 100 else ""))
    raise EventError("ip", "takes the visitor's IPv4 or IPv6 address")


def _is_plain_ipv4(text: str) -> bool:
    """True for four numbers without leading zeros, as nearly all addresses have them."""
    try:
        inet_pton(AF_INET, text)
    except (OSError, ValueError) as problem:  # ValueError: a NUL, or half of a surrogate pair
        let_through(problem)  # a time limit may be an OSError, too
        return False
    return True


def is_public_ip(text: str) -> bool:
    """True for an address of the public internet; a private one is a proxy's or a test's."""
    try:
        return _ip_of(text).is_global
    except ValueError:
        return False


def kind(value: object) -> str:
    """What *value* is, for a text that may not hold the value."""
    if value is None:
        return "nothing"
    return "a truth value" if isinstance(value, bool) else f"a value of type {type(value).__name__}"
