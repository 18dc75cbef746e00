"""A record or a token's content as few bytes, and back.

A payment provider's metadata field takes 500 characters, and a click id may have 240 of them.
What itsdangerous' serializers write of that is too long: with a cookie, an IPv6 address and a
host it is 413 characters of JSON, and 504 to 519 deflated and signed. So the cookie's hex
becomes bytes, and in a token the other texts, all ASCII, take seven bits a character: at most 450
characters, signed. A record has room in its cookie. Its texts stay as they are: each page of a
visitor whom the process has not seen before would pay for more.

First comes a byte that says whether there is a cookie in AdRoll's own form, and whether the texts
take seven bits. Then there are 12 bytes of the record's id (zeros: it has none), and 22 of such a
cookie: 16 of its hex, 6 of its milliseconds. Nine texts follow, joined by U+001F.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from adroll_flask import errors

from .record import RECORD_ID_BYTES, Record, VisitorData

#: Characters of a user agent that a token takes along; browsers' own have about 150.
AGENT_CHARS = 512
#: The digit for which each value stands, and back.
_SOURCES = dict(zip("012345", (None, "url", "kit", "pixel", "browser", "server"), strict=True))
_SOURCE_DIGITS = {source: digit for digit, source in _SOURCES.items()}
_CONSENTS = {"0": None, "1": True, "2": False}
_CONSENT_DIGITS = {consent: digit for digit, consent in _CONSENTS.items()}
_USUAL = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]{0,13})\Z")
_SEPARATOR = "\x1f"
#: Which of the nine texts they are.
_COOKIE = 3
_HOST = 7
_NO_ID = bytes(RECORD_ID_BYTES).hex()
#: What the first byte says.
_USUAL_COOKIE = 1
_SEVEN_BITS = 2


def _step(half: int) -> tuple[int, int, int]:
    """One step of moving characters of 7 bits apart, to 8 bits each: two masks and a shift.

    The text is taken in parts of twice *half* characters. The low half of a part stays. Its high
    half moves up by one bit for each character of the low half.
    """
    part = (1 << 7 * half) - 1
    low = sum(part << at * 8 for at in range(0, _LONGEST, 2 * half))
    return low, low << 7 * half, half


#: Characters of a text at most, with room; a power of two.
_LONGEST = 1024
_STEPS = [_step(1 << power) for power in reversed(range(_LONGEST.bit_length() - 1))]


def pack(data: VisitorData, *, max_age: int | None = None, most: int | None = None) -> bytes:
    """*data* as bytes, its user agent cut after :data:`AGENT_CHARS` characters.

    :param max_age: the token's own life, seconds.
    :param most: bytes that the result may have beside a user agent, of a token; a host that does
        not fit is left out, then a cookie of an unusual form.
    """
    form = 0 if most is None else _SEVEN_BITS
    head = bytes.fromhex(data.record_id or _NO_ID)
    cookie = data.first_party_cookie or ""
    usual = _USUAL.match(cookie)
    if usual:
        form |= _USUAL_COOKIE
        head += bytes.fromhex(usual[1]) + int(usual[2]).to_bytes(6)
    digits = _CONSENT_DIGITS[data.consent]
    digits += _SOURCE_DIGITS[data.adct_source] + _SOURCE_DIGITS[data.first_party_cookie_source]
    marks = b"".join(data.replaced) if isinstance(data, Record) else b""
    host = data.host or ""
    texts = [
        digits,
        data.adct or "",
        f"{int(data.adct_at or 0):x}" if data.adct is not None else "",
        "" if usual else cookie,
        marks.hex(),
        data.ip or "",
        f"{max_age or 0:x}",
        host if host.isascii() and _SEPARATOR not in host else "",
        "",
    ]

    def packed() -> bytes:
        text = _SEPARATOR.join(texts)
        return bytes([form]) + head + (text.encode("ascii") if most is None else _packed_text(text))

    for gives_way in (_HOST, _COOKIE):
        if most is not None and len(packed()) > most:
            texts[gives_way] = ""
    if data.user_agent is not None:
        texts[-1] = re.sub(r"[^ -~]", "?", data.user_agent[:AGENT_CHARS]).strip()
    return packed()


def unpack(payload: bytes, signed_at: float = 0.0) -> tuple[Record, int | None]:
    """The record in *payload*, and the token's own life, seconds.

    :param signed_at: when it was signed, epoch seconds.
    :raises TokenForgedError: it is not of this form.
    """
    try:
        at = 1 + RECORD_ID_BYTES
        record_id = payload[1:at].hex()
        usual_cookie = ""
        if payload[0] & _USUAL_COOKIE:
            milliseconds = int.from_bytes(payload[at + 16 : at + 22])
            usual_cookie = f"{payload[at : at + 16].hex()}-{milliseconds}"
            at += 22
        is_short = payload[0] & _SEVEN_BITS
        text = _unpacked_text(payload[at:]) if is_short else payload[at:].decode("ascii")
        digits, adct, adct_at, odd_cookie, replaced, ip, age, host, agent = text.split(_SEPARATOR)
        consent, adct_source, cookie_source = tuple(digits)
        marks = bytes.fromhex(replaced)
        record = Record(
            adct=adct or None,
            adct_at=float(int(adct_at, 16)) if adct else None,
            adct_source=_SOURCES[adct_source],
            first_party_cookie=usual_cookie or odd_cookie or None,
            first_party_cookie_source=_SOURCES[cookie_source],
            consent=_CONSENTS[consent],
            ip=str(ip_address(ip)) if ip else None,
            host=host or None,
            user_agent=agent or None,
            record_id=None if record_id == _NO_ID else record_id,
            replaced=tuple([marks[n : n + 4] for n in range(0, len(marks), 4)]),
            signed_at=signed_at,
        )
        return record, int(age, 16) or None
    except (LookupError, OverflowError, ValueError):
        raise errors.TokenForgedError from None


def _steps(size: int) -> list[tuple[int, int, int]]:
    """Of :data:`_STEPS` what a text of *size* characters takes, the widest first."""
    return _STEPS[-max(size - 1, 1).bit_length() :]


def _packed_text(text: str) -> bytes:
    """*text* with seven bits for each character; :func:`_unpacked_text` reads it."""
    number = int.from_bytes(text.encode("ascii"))
    for low, high, bits in reversed(_steps(len(text))):
        number = number & low | number >> bits & high
    # A leading 1 keeps the length: without it leading zero bits would be lost.
    number |= 1 << 7 * len(text)
    return number.to_bytes((number.bit_length() + 7) // 8)


def _unpacked_text(packed: bytes) -> str:
    number = int.from_bytes(packed)
    size = (number.bit_length() - 1) // 7
    number ^= 1 << 7 * size
    for low, high, bits in _steps(size):
        number = number & low | (number & high) << bits
    return number.to_bytes(size).decode("ascii")
