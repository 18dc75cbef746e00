"""Numbers and limits that the outbox's parts share; light."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from .dialect import KEY_LENGTH
from .protocol import State

#: The schema's version that this release writes.
VERSION: Final = 5

WAITING: Final = 0
CLAIMED: Final = 1
SENDING: Final = 2
DELIVERED: Final = 3
DEAD: Final = 4
#: Reported, and not to be sent before it is released.
HELD: Final = 5
#: Held, and cancelled or never released: the key alone is kept.
CANCELLED: Final = 6

NUMBER: Final[Mapping[State, int]] = {
    "waiting": WAITING,
    "claimed": CLAIMED,
    "sending": SENDING,
    "delivered": DELIVERED,
    "dead": DEAD,
    "held": HELD,
    "cancelled": CANCELLED,
}
NAME: Final[Mapping[int, State]] = {number: name for name, number in NUMBER.items()}

#: Bytes of one event; AdRoll's are about one thousand.
PAYLOAD_BYTES: Final = 1 << 20
#: What a row takes beside its payload, roughly.
ROW_BYTES: Final = 256
#: Seconds that a retry may be put off; more comes from a clock that was wrong.
LONGEST_DELAY: Final = 900.0
#: Seconds that a lease may last; more comes from a clock that was wrong.
LONGEST_LEASE: Final = 120.0
#: Seconds that a pause of the destination may last; more comes from a clock that was wrong.
LONGEST_PAUSE: Final = 3600.0
#: Seconds that a delivered event without a key is kept, for those who look at what was sent.
KEYLESS_KEPT: Final = 600.0

DAY: Final = 86_400.0


def clean_key(key: str) -> str:
    """*key* as it is stored: one that is too long or not printable is stored as its hash.

    PostgreSQL takes no NUL in a text, and no engine takes half a surrogate pair.
    """
    if len(key) <= KEY_LENGTH and key.isprintable():
        return key
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
