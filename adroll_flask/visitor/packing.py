"""A visitor in few bytes: what the record and the token carry, before signing.

A payment provider's metadata field takes 500 characters and a click id may have 240, so the token
has to be tight: the first-party cookie's hex becomes bytes, and ASCII text takes seven bits a
character. The layout (big-endian):

==================  ===============================================================
1 byte              version (high 4 bits) and consent (low 2 bits: 0 unknown, 1 yes, 2 no)
1 byte              which parts follow, one bit each
1 byte              sources: click id (high 4 bits), cookie (low 4 bits)
4 bytes             the token's own life, seconds; 0: the site's (version 2)
4 bytes             when the click came, epoch seconds      (if there is a click id)
16 + 6 bytes        the cookie's hex, and its milliseconds  (if it has the usual form)
1 + 4 * n bytes     hashes of replaced click ids            (if any)
4 or 16 bytes       the address                             (if any)
rest                click id, cookie of an unusual form, host and user agent, joined by U+001F,
                    7 bits each
==================  ===============================================================

Version 2 is written only where a life or a user agent is in it, so that an older version of the
package, on another host during an update, reads all the others.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import ip_address

from .record import Record

#: The longest token (design.md, "Events without a browser").
TOKEN_CHARS = 450
#: What is left of it for us: less 43 characters of SHA-256 signature, 6 of time, 2 separators;
#: base64 takes four characters for three bytes.
TOKEN_BYTES = (TOKEN_CHARS - 43 - 6 - 2) * 3 // 4
#: Characters of a user agent that a token takes along; browsers' own have about 150.
AGENT_CHARS = 512
#: The longest token with a user agent: seven bits a character and a separator, four characters of
#: base64 for three bytes.
TOKEN_CHARS_WITH_AGENT = TOKEN_CHARS + -(-(AGENT_CHARS + 1) * 7 // 8) * 4 // 3 + 1

_ADCT, _COOKIE, _ODD_COOKIE, _REPLACED, _IPV4, _IPV6, _HOST, _AGENT = (1 << n for n in range(8))
_SOURCES = (None, "url", "kit", "pixel", "browser", "server")
_CONSENTS = (None, True, False)
_USUAL = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]{0,13})\Z")
_SEPARATOR = "\x1f"
#: Characters by their seven bits.
_CHARACTERS = {f"{code:07b}": chr(code) for code in range(128)}


@dataclass(frozen=True, slots=True, repr=False)
class Unpacked:
    """What :func:`unpack` finds."""

    record: Record
    #: The visitor's address.
    ip: str | None
    #: The site's host.
    host: str | None
    #: The browser's user agent.
    user_agent: str | None
    #: Seconds for which the token says that it is taken; ``None``: as long as the site's setting.
    max_age: int | None


def pack(
    record: Record,
    *,
    ip: str | None = None,
    host: str | None = None,
    user_agent: str | None = None,
    max_age: int | None = None,
    most: int | None = None,
) -> bytes:
    """*record* as bytes, and the visitor's address, agent and the site's host with it.

    :param user_agent: cut after :data:`AGENT_CHARS` characters.
    :param max_age: the token's own life, seconds.
    :param most: bytes that the result may have beside a user agent; a host that does not fit is
        left out.
    """
    parts = 0
    body = b""
    texts: list[str] = []
    agent = _as_agent(user_agent)
    version = 1
    if agent is not None or max_age is not None:
        version = 2
        body += struct.pack(">I", max_age or 0)
    if record.adct is not None:
        parts |= _ADCT
        body += struct.pack(">I", int(record.adct_at or 0) & 0xFFFFFFFF)
        texts.append(record.adct)
    if record.first_party_cookie is not None:
        usual = _USUAL.match(record.first_party_cookie)
        if usual:
            parts |= _COOKIE
            body += bytes.fromhex(usual[1]) + int(usual[2]).to_bytes(6, "big")
        else:
            parts |= _ODD_COOKIE
            texts.append(record.first_party_cookie)
    if record.replaced:
        parts |= _REPLACED
        body += bytes([len(record.replaced)]) + b"".join(record.replaced)
    if ip is not None:
        address = ip_address(ip)
        parts |= _IPV4 if address.version == 4 else _IPV6
        body += address.packed
    if host and host.isascii() and _SEPARATOR not in host:
        with_host = len(body) + 3 + len(_seven([*texts, host]))
        if most is None or with_host <= most:
            parts |= _HOST
            texts.append(host)
    if agent is not None:
        parts |= _AGENT
        texts.append(agent)
    head = bytes(
        [
            version << 4 | _CONSENTS.index(record.consent),
            parts,
            _SOURCES.index(record.adct_source) << 4
            | _SOURCES.index(record.first_party_cookie_source),
        ]
    )
    return head + body + _seven(texts)


def unpack(payload: bytes, signed_at: float = 0.0) -> Unpacked:
    """The record, address, host and agent of *payload*.

    :param signed_at: when it was signed, epoch seconds.
    :raises ValueError: it is not of this form.
    """
    try:
        return _unpack(payload, signed_at)
    except (IndexError, struct.error, OverflowError) as problem:
        raise ValueError("cut short") from problem


def _unpack(payload: bytes, signed_at: float) -> Unpacked:
    version = payload[0] >> 4
    if version not in (1, 2):
        raise ValueError("another version")
    consent = _CONSENTS[payload[0] & 3]
    parts = payload[1]
    adct_source = _SOURCES[payload[2] >> 4]
    cookie_source = _SOURCES[payload[2] & 15]
    at = 3
    adct = adct_at = cookie = ip = host = agent = max_age = None
    replaced: tuple[bytes, ...] = ()
    if version == 2:
        max_age = int(struct.unpack_from(">I", payload, at)[0]) or None
        at += 4
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
    if parts & _AGENT:
        agent = texts.pop(0)
    if texts:
        raise ValueError("too long")
    record = Record(
        adct=adct,
        adct_at=adct_at,
        adct_source=adct_source,
        first_party_cookie=cookie,
        first_party_cookie_source=cookie_source,
        consent=consent,
        replaced=replaced,
        signed_at=signed_at,
    )
    return Unpacked(record, ip, host, agent, max_age)


def _as_agent(text: str | None) -> str | None:
    """A user agent in the characters that can be packed: printable ASCII."""
    if text is None:
        return None
    return re.sub(r"[^ -~]", "?", text[:AGENT_CHARS]).strip() or None


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
