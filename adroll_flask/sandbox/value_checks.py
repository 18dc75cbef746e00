"""The form of every value in an event, as AdRoll's documentation describes it.

Each function takes a JSON value and returns ``None`` when it is in order, else what is wrong with
it, as a phrase. No phrase repeats the value: an event holds a visitor's data.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

Check = Callable[[Any], str | None]

#: ISO 4217, list one: currencies, funds and precious metals.
_CURRENCIES = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN "
    "BZD CAD CDF CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR "
    "FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY "
    "KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU "
    "MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON "
    "RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP "
    "TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAD XAF XAG XAU XBA XBB "
    "XBC XBD XCD XCG XDR XOF XPD XPF XPT XSU XTS XUA XXX YER ZAR ZMW ZWG "
)
CURRENCIES = frozenset(_CURRENCIES.split())

# "Usually 22 characters", so other lengths are not refused.
EID = re.compile(r"[A-Z0-9]{8,64}\Z")
_CLICK_ID = re.compile(r"[\x21-\x7e]{1,240}\Z")
#: What RFC 6265 (section 4.1.1) lets a cookie's value hold. The pixel keeps whatever it finds.
_COOKIE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]{1,80}\Z")
#: What the pixel would not leave as it is: a marker, a hyphen at the end.
_RAW_COOKIE = re.compile(r".*-s2-|.*-\Z")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,6})?\Z")
_HEX = re.compile(r"[0-9A-Fa-f]+\Z")
# C0 and C1 controls, and halves of surrogate pairs: no UTF-8 text has those.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# RFC 3986 has no spaces, controls or non-ASCII in a URL, and "%" only before two hex digits. The
# other characters that it forbids are left alone where browsers send them unescaped.
_NOT_IN_URL = re.compile(r"[^\x21-\x7e]|[\"<>\\`]|%(?![0-9A-Fa-f]{2})")
_EMPTY_HASHES = frozenset(
    {
        "d41d8cd98f00b204e9800998ecf8427e",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
)
_OLDEST = 1_000_000_000
_MILLISECONDS = 100_000_000_000
#: How far a timestamp may lie ahead of the sandbox's clock, in seconds.
FUTURE = 3600.0


def eid(value: Any) -> str | None:
    if not isinstance(value, str) or not EID.match(value):
        return "must be an EID: upper-case letters and digits, usually 22"
    return None


def text(limit: int) -> Check:
    """Make a check for non-empty text of at most ``limit`` characters without controls."""

    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return "must be a string"
        if not value.strip():
            return "must not be empty"
        if len(value) > limit:
            return f"must have at most {limit} characters"
        if _CONTROL.search(value):
            return "must not hold control characters"
        return None

    return check


def url(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a string"
    if len(value) > 8192:
        return "must have at most 8192 characters"
    if _NOT_IN_URL.search(value):
        return "must be a URL: percent-encode what is not plain ASCII, and '%' itself"
    try:
        parts = urlsplit(value)
        host = parts.hostname
        port = parts.port
    except ValueError:
        return "must be a full URL with a valid host and port"
    if parts.scheme not in ("http", "https") or not host or port == 0:
        return "must be a full URL: http(s)://host/path"
    return None


def ip(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a string"
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return "must be an IPv4 or IPv6 address without port or brackets"
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        return "must be an address without a zone"
    return None


def click_id(value: Any) -> str | None:
    if not isinstance(value, str) or not _CLICK_ID.match(value):
        return "must be 1 to 240 printable ASCII characters without spaces"
    return None


def cookie(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a string"
    if _RAW_COOKIE.match(value):
        return "must be normalised as the pixel does: without -s2- and without a hyphen at the end"
    if not _COOKIE.match(value):
        return (
            "must be a cookie's value: 1 to 80 printable ASCII characters but space ; , \" and \\"
        )
    return None


def email(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a string"
    name, at, domain = value.partition("@")
    if not (name and at and domain) or "@" in domain or len(value) > 254:
        return "must be an e-mail address"
    if any(char.isspace() for char in value) or _CONTROL.search(value):
        return "must be an e-mail address without spaces or control characters"
    return None


def _digest(kind: str, length: int) -> Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, str) or len(value) != length or not _HEX.match(value):
            return f"must be {kind} of the lower-cased e-mail: {length} hex digits"
        if value.lower() in _EMPTY_HASHES:
            return "is the hash of the empty text, which identifies nobody"
        return None

    return check


email_sha256: Check = _digest("SHA-256", 64)
email_md5: Check = _digest("MD5", 32)


def device_id(value: Any) -> str | None:
    if not isinstance(value, str) or not _UUID.match(value):
        return "must be a UUID (IDFA or GAID)"
    if not value.strip("0-"):
        return "is all zeros: the user opted out, it identifies nobody"
    return None


def amount(value: Any) -> str | None:
    if isinstance(value, str):
        if not _DECIMAL.match(value):
            return "must be a decimal text such as 123.45 (major units, not negative)"
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "must be a decimal text or a number"
    if not math.isfinite(value) or not 0 <= value < 1e15:
        return "must be a finite amount that is not negative"
    return None


def quantity(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        return "must be a positive whole number"
    return None


def currency(value: Any) -> str | None:
    if not isinstance(value, str) or len(value) != 3 or value not in CURRENCIES:
        return "must be an ISO 4217 code: three letters, upper case"
    return None


def json_text(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a string that holds JSON, not the object itself"
    if len(value) > 65536:
        return "must have at most 65536 characters"
    try:
        json.loads(value, parse_constant=no_constant)
    except (ValueError, RecursionError):
        return "must be a string that holds JSON"
    return None


def timestamp(value: Any, now: float) -> str | None:
    """Say what is wrong with a time in UTC seconds; ``now`` is the sandbox's clock."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "must be a number: UTC seconds since the epoch"
    if not math.isfinite(value) or value < _OLDEST:
        return "must be UTC seconds since the epoch"
    if value >= _MILLISECONDS:
        return "must be seconds; this looks like milliseconds"
    if value > now + FUTURE:
        return "must not lie in the future"
    return None


def no_constant(name: str) -> None:
    """Refuse ``NaN`` and ``Infinity``, which :mod:`json` reads and JSON does not have."""
    raise ValueError(f"{name} is not JSON")
