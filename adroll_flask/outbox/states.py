"""Numbers and limits that the outbox's parts share; light."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from .protocol import State

#: The schema's version that this release writes.
VERSION: Final = 1

WAITING: Final = 0
CLAIMED: Final = 1
SENDING: Final = 2
DELIVERED: Final = 3
DEAD: Final = 4

NUMBER: Final[Mapping[State, int]] = {
    "waiting": WAITING,
    "claimed": CLAIMED,
    "sending": SENDING,
    "delivered": DELIVERED,
    "dead": DEAD,
}
NAME: Final[Mapping[int, State]] = {number: name for name, number in NUMBER.items()}

#: Characters of a deduplication key; MariaDB's index takes 3072 bytes in all.
KEY_LENGTH: Final = 255
#: Bytes of one event; AdRoll's are about one thousand.
PAYLOAD_BYTES: Final = 1 << 20
#: What a row takes beside its payload, roughly.
ROW_BYTES: Final = 256
#: Seconds that a retry may be put off.
LONGEST_DELAY: Final = 3600.0
#: Seconds that a lease may last.
LONGEST_LEASE: Final = 86_400.0
#: Seconds that a pause of the destination may last; more comes from a clock that was wrong.
LONGEST_PAUSE: Final = 3600.0
#: Seconds that a delivered event without a key is kept, for those who look at what was sent.
KEYLESS_KEPT: Final = 600.0

DAY: Final = 86_400.0
#: Places that an event tries on SQLite before it gives up.
PLACES: Final = 64


def seq_of(id: str) -> int:
    """SQLite's primary key of an event: its id's 56 bits of time and the 13 bits after them.

    Rows thus lie in the order of their ids, without an index over ids to keep. Delivered rows move
    to the negative of their number.
    """
    return ((int(id[:18], 16) >> 3) & 0x3FFF_FFFF_FFFF_FFFF) or 1


def next_id(id: str) -> str:
    """The id that an event takes instead where another one has its place; always the same."""
    later = (int(id[:14], 16) + 1) & 0xFF_FFFF_FFFF_FFFF
    return f"{later:014x}{hashlib.sha256(id.encode()).hexdigest()[:18]}"


def clean_key(key: str) -> str:
    """*key* as it is stored: one that is too long or not printable is stored as its hash.

    PostgreSQL takes no NUL in a text, and no engine takes half a surrogate pair.
    """
    if len(key) <= KEY_LENGTH and key.isprintable():
        return key
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
