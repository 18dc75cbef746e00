"""What the visitor's own browser keeps for us, and its bytes, which the record and the token carry.

A payment provider's metadata field takes 500 characters, and a click id may have 240 of them. What
itsdangerous' serializers write of that is too long: with a cookie, an IPv6 address and a host it is
413 characters of JSON, and 504 to 519 deflated and signed. So the cookie's hex becomes bytes, and
the other texts, all ASCII, take seven bits a character: 447 characters, signed. Reading them takes
no longer (42 microseconds with such a click id, 15 with one of eight characters).

One byte says how many bytes of a cookie in AdRoll's own form follow: none, or 16 of its hex and 6
of its milliseconds. Then come nine texts, joined by U+001F.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from hashlib import sha256
from ipaddress import ip_address

#: How many click ids that a newer one replaced a record remembers, by a short hash each.
_REPLACED = 3


@dataclass(frozen=True, slots=True, repr=False)
class Known:
    """What identifies a visitor, wherever it is kept."""

    #: The click id of the visitor's newest ad click.
    adct: str | None = None
    #: When that click arrived, epoch seconds.
    adct_at: float | None = None
    #: How it came: ``"url"`` (the server saw the landing) or ``"kit"`` (the browser told us).
    adct_source: str | None = None
    #: AdRoll's first-party cookie, normalised.
    first_party_cookie: str | None = None
    #: Where it came from: ``"pixel"`` (through the kit), ``"browser"`` (found in a request's
    #: cookies) or ``"server"`` (generated here).
    first_party_cookie_source: str | None = None
    #: Whether tracking was allowed at the time; ``None``: not yet asked. Of a record: what the kit
    #: told us, where the server cannot see it itself.
    consent: bool | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Record(Known):
    """The content of ``adroll_visitor`` and, beside an address and a host, of a token."""

    #: Short hashes of click ids that newer ones replaced.
    replaced: tuple[bytes, ...] = ()
    #: When it was signed, epoch seconds; 0: not yet.
    signed_at: float = 0.0

    def same_as(self, other: Record) -> bool:
        """True where the two say the same, whenever they were signed."""
        return replace(self, signed_at=0.0) == replace(other, signed_at=0.0)

    def with_adct(self, adct: str, now: float, source: str) -> Record:
        """This record after a click: a newer click id replaces an older one.

        The kit may speak late, from a tab that was opened before the newest click: a click id
        that was replaced already does not come back through it.
        """
        if adct == self.adct:
            return self
        mark = _short_hash(adct)
        if source == "kit" and mark in self.replaced:
            return self
        replaced = self.replaced
        if self.adct is not None:
            replaced = (_short_hash(self.adct), *replaced)
        replaced = tuple(old for old in replaced if old != mark)[:_REPLACED]
        return replace(self, adct=adct, adct_at=now, adct_source=source, replaced=replaced)

    def with_cookie(self, value: str, source: str) -> Record:
        """This record with the browser's or the server's first-party cookie."""
        if value == self.first_party_cookie and (
            source == self.first_party_cookie_source or source == "browser"
        ):
            # "browser" says less than what is known of the same value already.
            return self
        return replace(self, first_party_cookie=value, first_party_cookie_source=source)


def _short_hash(text: str) -> bytes:
    return sha256(text.encode()).digest()[:4]


# -- in few bytes ----------------------------------------------------------------------------

#: The longest token: what payment providers' metadata hold (Stripe: 500 characters a value).
TOKEN_CHARS = 450
#: What is left of it for us: less 43 characters of SHA-256 signature, 6 of time, 2 separators;
#: base64 takes four characters for three bytes.
TOKEN_BYTES = (TOKEN_CHARS - 43 - 6 - 2) * 3 // 4
#: Characters of a user agent that a token takes along; browsers' own have about 150.
AGENT_CHARS = 512
#: The longest token with a user agent: seven bits a character and a separator, four characters of
#: base64 for three bytes.
TOKEN_CHARS_WITH_AGENT = TOKEN_CHARS + -(-(AGENT_CHARS + 1) * 7 // 8) * 4 // 3 + 1

#: Kept as a digit each.
_SOURCES = (None, "url", "kit", "pixel", "browser", "server")
_CONSENTS = (None, True, False)
_USUAL = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]{0,13})\Z")
_SEPARATOR = "\x1f"
#: Where among the texts they are.
_COOKIE, _HOST = 3, 7
#: The seven bits of each character, and characters by them.
_BITS = [f"{code:07b}" for code in range(128)]
_CHARACTERS = {bits: chr(code) for code, bits in enumerate(_BITS)}


def pack(
    known: Known,
    *,
    replaced: tuple[bytes, ...] = (),
    ip: str | None = None,
    host: str | None = None,
    user_agent: str | None = None,
    max_age: int | None = None,
    most: int | None = None,
) -> bytes:
    """*known* as bytes, and the visitor's address, agent and the site's host with it.

    :param replaced: a record's.
    :param user_agent: cut after :data:`AGENT_CHARS` characters.
    :param max_age: the token's own life, seconds.
    :param most: bytes that the result may have beside a user agent; a host that does not fit is
        left out, then a cookie of an unusual form.
    """
    usual = _USUAL.match(known.first_party_cookie or "")
    cookie = bytes.fromhex(usual[1]) + int(usual[2]).to_bytes(6, "big") if usual else b""
    digits = "".join(
        str(words.index(told))
        for words, told in (
            (_CONSENTS, known.consent),
            (_SOURCES, known.adct_source),
            (_SOURCES, known.first_party_cookie_source),
        )
    )
    odd = "" if usual else known.first_party_cookie or ""
    host = host if host and host.isascii() and _SEPARATOR not in host else ""
    texts = [
        digits,
        known.adct or "",
        f"{int(known.adct_at or 0):x}" if known.adct is not None else "",
        odd,
        b"".join(replaced).hex(),
        ip or "",
        f"{max_age or 0:x}",
        host,
        "",
    ]

    def packed() -> bytes:
        return bytes([len(cookie)]) + cookie + _seven(_SEPARATOR.join(texts))

    for gives_way in (_HOST, _COOKIE):
        if most is not None and len(packed()) > most:
            texts[gives_way] = ""
    if user_agent is not None:
        texts[-1] = re.sub(r"[^ -~]", "?", user_agent[:AGENT_CHARS]).strip()
    return packed()


def unpack(
    payload: bytes, signed_at: float = 0.0
) -> tuple[Record, dict[str, str | None], int | None]:
    """The record in *payload*; by name the address, host and agent; the token's own life, seconds.

    :param signed_at: when it was signed, epoch seconds.
    :raises ValueError: it is not of this form.
    """
    size = payload[0] if payload else -1
    if size not in (0, 22) or len(payload) <= size:
        raise ValueError("another form")
    try:
        digits, adct, at, odd, replaced, ip, age, host, agent = _text(payload[1 + size :])
        consent, adct_source, cookie_source = map(int, digits)
        marks = bytes.fromhex(replaced)
        cookie = f"{payload[1:17].hex()}-{int.from_bytes(payload[17:23])}" if size else odd
        record = Record(
            adct=adct or None,
            adct_at=float(int(at, 16)) if adct else None,
            adct_source=_SOURCES[adct_source],
            first_party_cookie=cookie or None,
            first_party_cookie_source=_SOURCES[cookie_source],
            consent=_CONSENTS[consent],
            replaced=tuple(marks[n : n + 4] for n in range(0, len(marks), 4)),
            signed_at=signed_at,
        )
        address = str(ip_address(ip)) if ip else None
        about = {"ip": address, "host": host or None, "user_agent": agent or None}
        return record, about, int(age, 16) or None
    except (IndexError, OverflowError):
        raise ValueError("another form") from None


def _seven(text: str) -> bytes:
    # A leading 1 keeps the length: without it leading zero bits would be lost.
    bits = "1" + "".join([_BITS[code] for code in text.encode("ascii")])
    return int(bits, 2).to_bytes((len(bits) + 7) // 8, "big")


def _text(packed: bytes) -> list[str]:
    bits = f"{int.from_bytes(packed, 'big'):b}"[1:]
    if len(bits) % 7:
        raise ValueError("cut short")
    text = "".join([_CHARACTERS[bits[n : n + 7]] for n in range(0, len(bits), 7)])
    return text.split(_SEPARATOR)
