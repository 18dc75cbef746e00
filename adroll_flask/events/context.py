"""What is known of an event without the caller's saying so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from adroll_flask.visitor.identifiers import derived_first_party_cookie

#: What ``identify()`` may have said of a visitor; hashes only, as the session keeps it.
KNOWN: Final = ("email_sha256", "email_md5", "user_id", "device_id")
#: Of a visitor of whom nothing was said.
NO_IDENTITY: Final[Mapping[str, Any]] = {}


# Not frozen: that would treble what a report pays for it.
@dataclass(slots=True, repr=False)
class EventDefaults:
    """What is known without the caller's saying so: the account, the visitor, the request.

    :param now: the clock, epoch seconds.
    :param email_forms: which forms of an e-mail may leave the server.
    :param derive_key: makes the cookie value of a visitor who has only a user or device id.
    :param private_parameters: patterns of names of parameters that mean a person.
    :param dedupe_secret: hides an order id with an address in it, see :func:`.kept_key`.
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
    private_parameters: tuple[str, ...] = ()
    dedupe_secret: bytes | None = None
    known_since: float | None = None


#: What an event takes of it, under the same name.
_VALUES = (
    *("advertisable_eid", "pixel_eid", "page_location", "ip", "user_agent"),
    *("adct", "first_party_cookie", "email_sha256", "email_md5", "user_id", "device_id"),
    "email_forms",
)
_values = attrgetter(*_VALUES)


def values_of(defaults: EventDefaults) -> dict[str, Any]:
    """An event's values as far as they are known, by the names of its fields."""
    values = dict(zip(_VALUES, _values(defaults), strict=True))
    values["timestamp"] = defaults.now
    return values


def derived_cookie(taken: Mapping[str, Any], defaults: EventDefaults) -> str | None:
    """The cookie's value of somebody without a browser: always the same for the same identifier.

    AdRoll requires a click id or a first-party cookie; what its matching makes of such a value is
    unknown. A device tells more than a user's id; an e-mail address counts where nothing is known
    of a browser alone, as of an order by telephone.

    :param taken: an event's values, checked.
    """
    if defaults.derive_key is None:
        return None
    for name in ("device_id", "user_id", "email_sha256", "email_md5", "email"):
        if name in taken and (defaults.ip is None or not name.startswith("email")):
            identifier = taken[name].lower() if name == "device_id" else taken[name]
            return derived_first_party_cookie(defaults.derive_key, f"{name}:{identifier}")
    return None
