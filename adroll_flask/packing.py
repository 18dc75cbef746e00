"""A visitor in few bytes: what the record and the token carry, before signing.

A payment provider's metadata field takes 500 characters and a click id may have 240, so the token
has to be tight: the first-party cookie's hex becomes bytes, and ASCII text takes seven bits a
character. The layout (big-endian):

==================  ===============================================================
1 byte              version (high 4 bits) and consent (low 2 bits: 0 unknown, 1 yes, 2 no)
1 byte              which parts follow, one bit each
1 byte              sources: click id (high 4 bits), cookie (low 4 bits)
4 bytes             when the click came, epoch seconds      (if there is a click id)
16 + 6 bytes        the cookie's hex, and its milliseconds  (if it has the usual form)
1 + 4 * n bytes     hashes of replaced click ids            (if any)
4 or 16 bytes       the address                             (if any)
rest                click id, cookie of an unusual form and host, joined by U+001F, 7 bits each
==================  ===============================================================
"""

from __future__ import annotations

import re
import struct
from ipaddress import ip_address
from typing import NamedTuple

#: The longest token (design.md, "Events without a browser").
TOKEN_CHARS = 450
#: What is left of it for us: less 43 characters of SHA-256 signature, 6 of time, 2 separators;
#: base64 takes four characters for three bytes.
TOKEN_BYTES = (TOKEN_CHARS - 43 - 6 - 2) * 3 // 4

_VERSION = 1
_ADCT, _COOKIE, _ODD_COOKIE, _REPLACED, _IPV4, _IPV6, _HOST = (1 << n for n in range(7))
_SOURCES = (None, "url", "kit", "pixel", "browser", "server")
_CONSENTS = (None, True, False)
_USUAL = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]{0,13})\Z")
_SEPARATOR = "\x1f"
#: Characters by their seven bits.
_CHARACTERS = {f"{code:07b}": chr(code) for code in range(128)}


class Fields(NamedTuple):
    """What is packed; the attributes are those of :class:`~adroll_flask.visitor.Visitor`."""

    adct: str | None = None
    adct_at: float | None = None
    adct_source: str | None = None
    first_party_cookie: str | None = None
    first_party_cookie_source: str | None = None
    consent: bool | None = None
    replaced: tuple[bytes, ...] = ()
    ip: str | None = None
    host: str | None = None

    def __repr__(self) -> str:
        return "<Fields>"


def pack(fields: Fields, *, most: int | None = None) -> bytes:
    """*fields* as bytes.

    :param most: bytes that the result may have; a host that does not fit is left out.
    """
    parts = 0
    body = b""
    texts: list[str] = []
    if fields.adct is not None:
        parts |= _ADCT
        body += struct.pack(">I", int(fields.adct_at or 0) & 0xFFFFFFFF)
        texts.append(fields.adct)
    if fields.first_party_cookie is not None:
        usual = _USUAL.match(fields.first_party_cookie)
        if usual:
            parts |= _COOKIE
            body += bytes.fromhex(usual[1]) + int(usual[2]).to_bytes(6, "big")
        else:
            parts |= _ODD_COOKIE
            texts.append(fields.first_party_cookie)
    if fields.replaced:
        parts |= _REPLACED
        body += bytes([len(fields.replaced)]) + b"".join(fields.replaced)
    if fields.ip is not None:
        address = ip_address(fields.ip)
        parts |= _IPV4 if address.version == 4 else _IPV6
        body += address.packed
    head = bytes(
        [
            _VERSION << 4 | _CONSENTS.index(fields.consent),
            parts,
            _SOURCES.index(fields.adct_source) << 4
            | _SOURCES.index(fields.first_party_cookie_source),
        ]
    )
    host = fields.host
    if host and host.isascii() and _SEPARATOR not in host:
        with_host = bytes([head[0], parts | _HOST, head[2]]) + body + _seven([*texts, host])
        if most is None or len(with_host) <= most:
            return with_host
    return head + body + _seven(texts)


def unpack(payload: bytes) -> Fields:
    """The fields of *payload*.

    :raises ValueError: it is not of this form.
    """
    try:
        return _unpack(payload)
    except (IndexError, struct.error, OverflowError) as problem:
        raise ValueError("cut short") from problem


def _unpack(payload: bytes) -> Fields:
    if payload[0] >> 4 != _VERSION:
        raise ValueError("another version")
    consent = _CONSENTS[payload[0] & 3]
    parts = payload[1]
    adct_source = _SOURCES[payload[2] >> 4]
    cookie_source = _SOURCES[payload[2] & 15]
    at = 3
    adct = adct_at = cookie = ip = host = None
    replaced: tuple[bytes, ...] = ()
    if parts & _ADCT:
        adct_at = float(struct.unpack_from(">I", payload, at)[0])
        at += 4
    if parts & _COOKIE:
        if len(payload) < at + 22:
            raise ValueError("cut short")
        millis = int.from_bytes(payload[at + 16 : at + 22], "big")
        cookie = f"{payload[at : at + 16].hex()}-{millis}"
        at += 22
    if parts & _REPLACED:
        count = payload[at]
        end = at + 1 + 4 * count
        if len(payload) < end:
            raise ValueError("cut short")
        replaced = tuple(payload[n : n + 4] for n in range(at + 1, end, 4))
        at = end
    if parts & (_IPV4 | _IPV6):
        size = 4 if parts & _IPV4 else 16
        ip = str(ip_address(payload[at : at + size]))
        at += size
    texts = _texts(payload[at:])
    if parts & _ADCT:
        adct = texts.pop(0)
    if parts & _ODD_COOKIE:
        cookie = texts.pop(0)
    if parts & _HOST:
        host = texts.pop(0)
    if texts:
        raise ValueError("too long")
    return Fields(
        adct=adct,
        adct_at=adct_at,
        adct_source=adct_source,
        first_party_cookie=cookie,
        first_party_cookie_source=cookie_source,
        consent=consent,
        replaced=replaced,
        ip=ip,
        host=host,
    )


def _seven(texts: list[str]) -> bytes:
    if not texts:
        return b""
    codes = _SEPARATOR.join(texts).encode("ascii")
    # A leading 1 keeps the length: without it leading zero bits would be lost.
    bits = "1" + "".join([f"{code:07b}" for code in codes])
    return int(bits, 2).to_bytes((len(bits) + 7) // 8, "big")


def _texts(packed: bytes) -> list[str]:
    if not packed:
        return []
    bits = f"{int.from_bytes(packed, 'big'):b}"[1:]
    if len(bits) % 7:
        raise ValueError("cut short")
    text = "".join([_CHARACTERS[bits[n : n + 7]] for n in range(0, len(bits), 7)])
    return text.split(_SEPARATOR)
