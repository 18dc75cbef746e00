"""What is known of an event without the caller's saying so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Known:
    """What ``identify()`` said of the visitor; hashes only, as the session keeps it."""

    email_sha256: tuple[str, ...] = ()
    email_md5: tuple[str, ...] = ()
    user_id: str | None = None
    device_id: str | None = None


#: Of a visitor of whom nothing was said.
NOBODY = Known()


# Not frozen: that would treble what a report pays for it.
@dataclass(slots=True, repr=False)
class Context:
    """What is known without the caller's saying so: the account, the visitor, the request.

    :param now: the clock, epoch seconds.
    :param email_forms: which forms of an e-mail may leave the server.
    :param derive_key: makes the cookie value of a visitor who has only a user or device id.
    """

    advertisable_eid: str | None = None
    pixel_eid: str | None = None
    now: float = 0.0
    page_location: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    adct: str | None = None
    first_party_cookie: str | None = None
    email_sha256: tuple[str, ...] = ()
    email_md5: tuple[str, ...] = ()
    user_id: str | None = None
    device_id: str | None = None
    email_forms: tuple[str, ...] = ("sha256",)
    derive_key: bytes | None = None

    def __repr__(self) -> str:
        return "<Context>"
