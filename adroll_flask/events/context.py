"""What is known of an event without the caller's saying so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class KnownIdentity:
    """What ``identify()`` said of the visitor; hashes only, as the session keeps it."""

    email_sha256: str | None = None
    email_md5: str | None = None
    user_id: str | None = None
    device_id: str | None = None


#: Of a visitor of whom nothing was said.
NO_IDENTITY = KnownIdentity()


# Not frozen: that would treble what a report pays for it.
@dataclass(slots=True, repr=False)
class EventDefaults:
    """What is known without the caller's saying so: the account, the visitor, the request.

    :param now: the clock, epoch seconds.
    :param email_forms: which forms of an e-mail may leave the server.
    :param derive_key: makes the cookie value of a visitor who has only a user or device id.
    :param known_since: when it was learnt, epoch seconds, where that is not now: a token's time.
    """

    advertisable_eid: str | None = None
    pixel_eid: str | None = None
    now: float = 0.0
    page_location: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    adct: str | None = None
    first_party_cookie: str | None = None
    email_sha256: str | None = None
    email_md5: str | None = None
    user_id: str | None = None
    device_id: str | None = None
    email_forms: tuple[str, ...] = ("sha256", "md5")
    derive_key: bytes | None = None
    known_since: float | None = None

    def __repr__(self) -> str:
        return "<EventDefaults>"


def values_of(defaults: EventDefaults) -> dict[str, Any]:
    """An event's values as far as they are known, by the names of its fields."""
    # Written out: this runs at every report.
    return {
        "advertisable_eid": defaults.advertisable_eid,
        "pixel_eid": defaults.pixel_eid,
        "page_location": defaults.page_location,
        "ip": defaults.ip,
        "user_agent": defaults.user_agent,
        "timestamp": defaults.now,
        "adct": defaults.adct,
        "first_party_cookie": defaults.first_party_cookie,
        "email_sha256": defaults.email_sha256,
        "email_md5": defaults.email_md5,
        "user_id": defaults.user_id,
        "device_id": defaults.device_id,
        "email_forms": defaults.email_forms,
    }
