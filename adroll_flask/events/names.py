"""What is said and known of an event before one is made: names, identifiers, an order's key.

The public functions' signatures use the names. Imports nothing heavy, so that ``import
adroll_flask`` stays cheap.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, Required, TypedDict, get_args

from adroll_flask.outbox.model import KEY_LENGTH
from adroll_flask.visitor.identifiers import DERIVED_TIME

from .location import ADDRESS

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from uuid import UUID

    from adroll_flask.visitor.record import Visitor

#: The thirteen events of AdRoll's server-to-server API; custom names are not accepted.
EventName = Literal[
    "pageView",
    "homeView",
    "productSearch",
    "addToCart",
    "purchase",
    "highValuePage",
    "gatedContent",
    "demoRequest",
    "signupPlan",
    "signupTrial",
    "contactSales",
    "liveChat",
    "formFill",
]

EVENT_NAMES: tuple[str, ...] = get_args(EventName)

#: The seven identifiers, in the order in which coverage lists them.
IDENTIFIER_NAMES: tuple[str, ...] = (
    "adct",
    "first_party_cookie",
    "email",
    "email_sha256",
    "email_md5",
    "user_id",
    "device_id",
)


class Product(TypedDict, total=False):
    """One product of an event; a plain dict with these keys.

    >>> mug: Product = {"product_id": "mug", "price": "29.95", "quantity": 2}
    """

    #: The product's id in the shop's catalogue or feed: a text, a whole number or a UUID.
    product_id: Required[str | int | UUID]
    #: The group of products that this one belongs to.
    product_group: str | None
    #: Of one piece, in the event's currency and in major units: ``"29.95"``.
    price: str | int | float | Decimal | None
    #: How many pieces: a positive whole number.
    quantity: int | float | str | Decimal | None
    category: str | None


#: A product's fields as AdRoll names them.
PRODUCT_FIELDS: tuple[str, ...] = tuple(Product.__annotations__)


class EventFields(TypedDict, total=False):
    """What ``report_event`` takes beside the event's name (forms: ``docs/reference/events.md``)."""

    order_id: str | int | UUID | None
    value: str | int | float | Decimal | None
    currency: str | None
    products: Iterable[Product | Mapping[str, Any] | object] | Product | Mapping[str, Any] | None
    product_map: Mapping[str, str | Callable[[Any], object] | None] | None
    email: str | None
    user_id: str | int | float | Decimal | UUID | None
    device_id: str | UUID | None
    keywords: str | Sequence[str] | None
    total: str | int | float | Decimal | None
    page_location: str | None
    ip: str | None
    user_agent: str | None
    timestamp: datetime | float | int | Decimal | None
    external_data: object
    device_os: str | None
    device_type: str | None
    package_app_name: str | None
    package_app_version: str | None
    adct: str | None
    first_party_cookie: str | None
    deduplication_key: str | int | UUID | None
    visitor: Visitor | str | None
    hold: bool | timedelta | float | None
    session: Any


#: The fields of those that an event is made from.
FIELD_NAMES: tuple[str, ...] = tuple(
    name for name in EventFields.__annotations__ if name not in ("visitor", "hold", "session")
)


def suggestion(name: object, known: Iterable[str]) -> str:
    """How an error about a *name* that is none of *known* ends.

    >>> suggestion("add_to_cart", EVENT_NAMES)
    "; did you mean 'addToCart'?"
    """
    from difflib import get_close_matches

    by_bare = {_bare(one): one for one in known}
    near = get_close_matches(_bare(name), by_bare, 1, 0.6) if isinstance(name, str) else ()
    return f"; did you mean {by_bare[near[0]]!r}?" if near else ""


def shown(name: object) -> str:
    """*name* for a text if it is a plain name; a key of a visitor's making stays out of logs."""
    plain = isinstance(name, str) and name.isascii() and name.isidentifier() and len(name) <= 40
    return str(name) if plain else "?"


def _bare(name: str) -> str:
    return "".join(char for char in name[:60].lower() if char.isalnum())


# -- how well an event can be matched: which of the seven identifiers it carries --------------

#: The bit of each identifier in :attr:`Coverage.mask`.
BITS: Mapping[str, int] = {name: 1 << place for place, name in enumerate(IDENTIFIER_NAMES)}

#: Where the API has each form of an e-mail address that ``ADROLL_EMAIL`` can name.
FORM_NAMES: Mapping[str, str] = {"plain": "email", "sha256": "email_sha256", "md5": "email_md5"}


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which identifiers an event carries, and which ones the site could have added.

    :param carried: names of the identifiers in the event.
    :param missing: names of those that this site could supply and did not.
    :param off: names of those that ``ADROLL_EMAIL`` keeps from leaving; they do not count,
        unless the event carries one all the same (a hash that was made elsewhere).

    >>> coverage = Coverage(carried=("adct", "first_party_cookie", "email_sha256"), off=("email",))
    >>> str(coverage), coverage.score
    ('3 of 6: adct, first_party_cookie, email_sha256', 0.5)
    """

    carried: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    off: tuple[str, ...] = ()

    @property
    def mask(self) -> int:
        """What is carried as a number: bit 0 is the first of ``IDENTIFIER_NAMES``."""
        return sum(map(BITS.__getitem__, self.carried))

    @property
    def possible(self) -> int:
        """How many identifiers can be sent."""
        return len(IDENTIFIER_NAMES) - len(set(self.off).difference(self.carried))

    @property
    def score(self) -> float:
        """The share of the identifiers that can be sent which is carried, from 0 to 1."""
        return len(self.carried) / self.possible

    def __str__(self) -> str:
        names = ", ".join(self.carried) or "none"
        return f"{len(self.carried)} of {self.possible}: {names}"


@functools.lru_cache(512)
def coverage_of(
    has: tuple[bool, ...], forms: tuple[str, ...], could_click_id: bool, could_device_id: bool
) -> Coverage:
    """The coverage of an event; kept, because one site's events are of a few kinds.

    :param has: for each of the seven identifiers whether the event carries it.
    :param forms: ``ADROLL_EMAIL``.
    :param could_click_id: the site could have supplied one (with a visitor's token).
    :param could_device_id: the site could have supplied one (it is an app).
    """
    off = tuple(name for form, name in FORM_NAMES.items() if form not in forms)
    could = {"first_party_cookie", "user_id", *FORM_NAMES.values()}.difference(off)
    if could_click_id:
        could.add("adct")
    if could_device_id:
        could.add("device_id")
    named = tuple(zip(IDENTIFIER_NAMES, has, strict=True))
    return Coverage(
        tuple(name for name, there in named if there),
        tuple(name for name, there in named if not there and name in could),
        off=off,
    )


# -- what is known without the caller's saying so ------------------------------------------

#: What ``identify()`` may have said of a visitor; hashes only, as the session keeps it.
KNOWN: Final = ("email_sha256", "email_md5", "user_id", "device_id")


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
    :param refusal: why nothing may be reported of the visitor; empty: it may.
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
    refusal: str = ""


#: What an event takes of it, under the same name.
_VALUES = (
    *("advertisable_eid", "pixel_eid", "page_location", "ip", "user_agent"),
    *("adct", "first_party_cookie", "email_sha256", "email_md5", "user_id", "device_id"),
    "email_forms",
)


def values_of(defaults: EventDefaults) -> dict[str, Any]:
    """An event's values as far as they are known, by the names of its fields."""
    return {name: getattr(defaults, name) for name in _VALUES} | {"timestamp": defaults.now}


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
            text = f"{name}:{identifier}".encode("utf-8", "surrogatepass")
            digest = hmac.digest(defaults.derive_key, text, "sha256")
            return f"{digest[:16].hex()}-{DERIVED_TIME}"
    return None


# -- a deduplication key as it is kept -----------------------------------------------------

#: How a key begins that is kept as a hash.
HASHED = "hmac-sha256:"
#: Most keys, kept as they are: ASCII without spaces, and without what an address needs.
_PLAIN_KEY = re.compile(rf"[!-$&-?A-~]{{1,{KEY_LENGTH}}}")


def kept_key(key: str, secret: bytes | None) -> str:
    """*key* as the outbox keeps it; whoever looks for a key looks for this.

    Two ways to write one character are one order (NFC). A key with an e-mail address in it is
    kept as a hash, since keys outlive what else is known of a visitor, and so is one that is too
    long, not printable or ends in a space: PostgreSQL takes no NUL in a text, no engine takes half
    a surrogate pair, and for MariaDB and MySQL a text is the same with spaces behind it. Other keys
    stay readable, because people look for their orders.

    :param secret: the site's own (``Visitors.dedupe_secret``): without it nobody could tell whose
        address a hash is by trying addresses.

    >>> kept_key("2024-1001", b"secret")
    '2024-1001'
    """
    if _PLAIN_KEY.fullmatch(key):
        return key
    key = unicodedata.normalize("NFC", key)
    has_address = ADDRESS.search(key)
    is_kept = len(key) <= KEY_LENGTH and key.isprintable() and not key.endswith(" ")
    if is_kept and not has_address:
        return key
    text = key.encode("utf-8", "surrogatepass")
    if has_address:
        return HASHED + hmac.digest(secret or b"adroll_flask", text, "sha256").hex()
    return "sha256:" + hashlib.sha256(text).hexdigest()


def suppressed_key(name: str, key: str, secret: bytes | None) -> str:
    """The hash by which it is known why the order *key* was not reported as an event *name*.

    :param secret: as for :func:`kept_key`.
    """
    text = f"{name}\0{unicodedata.normalize('NFC', key)}".encode("utf-8", "surrogatepass")
    return hmac.digest(secret or b"adroll_flask", text, "sha256").hex()[:32]
