"""Keyed hashes of a waiting event's identifiers, by which an erasure finds it."""

from __future__ import annotations

import hashlib
import re
from typing import Final

#: Where an event's JSON, which is ours, has the identifiers that an erasure asks for. No text in
#: JSON can hold these bytes: its quotes are escaped.
_COOKIE: Final = b'"first_party_cookie":"'
_CLICK: Final = b'"adct":"'
_TEXT: Final = re.compile(rb'([^"\\]*(?:\\.[^"\\]*)*)"')


def of_payload(payload: bytes, key: bytes) -> tuple[str | None, str | None]:
    """Hashes of the first-party cookie and the click id in an event's JSON.

    :param key: the outbox's id.
    """
    return _hash_in(payload, _COOKIE, key), _hash_in(payload, _CLICK, key)


def _hash_in(payload: bytes, name: bytes, key: bytes) -> str | None:
    # Most events lack one of the two, and to look for plain bytes is much faster than for a
    # pattern.
    start = payload.find(name)
    value = None if start < 0 else _TEXT.match(payload, start + len(name))
    return None if value is None else _hash(value[1], key)


def of_value(value: str, key: bytes) -> str:
    """The hash of a cookie or a click id."""
    return _hash(value.replace("\\", "\\\\").replace('"', '\\"').encode(), key)


def _hash(value: bytes, key: bytes) -> str:
    return hashlib.blake2b(value, digest_size=16, key=key).hexdigest()
