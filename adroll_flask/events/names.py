"""What an event is made of: its names, its identifiers, its defaults.

The signatures of the public functions use the names. This module imports nothing heavy, so that
``import adroll_flask`` stays cheap.
"""

from __future__ import annotations

import functools
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Required, TypedDict, get_args

from adroll_flask.visitor.identifiers import DERIVED_TIME

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from uuid import UUID

    from adroll_flask.visitor.tokens import Visitor

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


#: Those of them of which the event is made.
FIELD_NAMES: tuple[str, ...] = tuple(
    name for name in EventFields.__annotations__ if name not in ("visitor", "hold", "session")
)


def suggestion(name: object, names: Iterable[str]) -> str:
    """The end of an error about a *name* that is none of *names*.

    >>> suggestion("add_to_cart", EVENT_NAMES)
    "; did you mean 'addToCart'?"
    """
    from difflib import get_close_matches

    if not isinstance(name, str):
        return ""
    by_bare = {_bare(candidate): candidate for candidate in names}
    near = get_close_matches(_bare(name), by_bare, 1, 0.6)
    return f"; did you mean {by_bare[near[0]]!r}?" if near else ""


def alike(typed: str, orders: Iterable[str]) -> list[str]:
    """Of *orders*, at most three that somebody can have meant who typed *typed*.

    Two ids with numbers are alike where the numbers of one are the first or the last numbers of the
    other. 1001 and 1002 are two orders, and no typing error.

    >>> alike("1001", ["1002", "001001", "Order 1001/B", "2026-1001", "10010"])
    ['001001', 'Order 1001/B', '2026-1001']
    """
    from difflib import get_close_matches

    wanted = _numbers(typed)
    if not wanted:
        return get_close_matches(typed.split(" ")[-1].lstrip("#"), list(orders), 3, 0.7)
    near = []
    for order in orders:
        there = _numbers(order)
        shared = min(len(wanted), len(there))
        is_begin = wanted[:shared] == there[:shared]
        if shared and (is_begin or wanted[-shared:] == there[-shared:]):
            near.append(order)
    return near[:3]


def _numbers(order: str) -> list[str]:
    return [digits.lstrip("0") for digits in re.findall(r"\d+", order)]


def shown(name: object) -> str:
    """*name*, if it is a plain one, else ``?``: a key that a visitor made stays out of logs."""
    is_text = isinstance(name, str) and len(name) <= 40
    return str(name) if is_text and str(name).isascii() and str(name).isidentifier() else "?"


def _bare(name: str) -> str:
    return "".join(char for char in name[:60].lower() if char.isalnum())


# -- how well an event can be matched: which of the seven identifiers it carries --------------

#: The bit of each identifier in :attr:`Coverage.mask`.
BITS: Mapping[str, int] = {name: 1 << place for place, name in enumerate(IDENTIFIER_NAMES)}

#: Where the API has each form of an e-mail address that ``ADROLL_EMAIL`` can name.
FORM_NAMES: Mapping[str, str] = {"plain": "email", "sha256": "email_sha256", "md5": "email_md5"}


class Identifier(NamedTuple):
    """One thing that AdRoll knows a visitor by.

    :param title: how people call it.
    :param bits: its bits in :attr:`Coverage.mask`. An e-mail address has one for each of its forms.
    """

    title: str
    bits: int


_EMAIL: Final = BITS["email"] | BITS["email_sha256"] | BITS["email_md5"]
#: By the names that they have in the dashboard's URLs and JSON.
IDENTIFIERS: Final = {
    "adct": Identifier("click id", BITS["adct"]),
    "first_party_cookie": Identifier("cookie", BITS["first_party_cookie"]),
    "email": Identifier("e-mail", _EMAIL),
    "user_id": Identifier("user id", BITS["user_id"]),
    "device_id": Identifier("device id", BITS["device_id"]),
}


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which identifiers an event carries, and which ones the site could have added.

    :param carried: names of the identifiers in the event.
    :param missing: names of those that this site could supply and did not.
    :param off: names of those that ``ADROLL_EMAIL`` keeps from leaving. They do not count, except
        one that the event carries: a hash that was made elsewhere.

    >>> coverage = Coverage(carried=("adct", "first_party_cookie", "email_sha256"), off=("email",))
    >>> str(coverage), coverage.score
    ('3 of 6: adct, first_party_cookie, email_sha256', 0.5)
    """

    carried: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    #: *carried* as a number: bit 0 is the first of ``IDENTIFIER_NAMES``.
    mask: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", sum(BITS[name] for name in self.carried))

    @property
    def possible(self) -> int:
        """How many identifiers can be sent."""
        return len(IDENTIFIER_NAMES) - len(set(self.off).difference(self.carried))

    @property
    def score(self) -> float:
        """The share of *possible* identifiers that the event carries, from 0 to 1."""
        return len(self.carried) / self.possible

    def __str__(self) -> str:
        names = ", ".join(self.carried) or "none"
        return f"{len(self.carried)} of {self.possible}: {names}"


@functools.lru_cache(512)
def coverage_of(
    has: tuple[bool, ...], forms: tuple[str, ...], is_derived: bool, is_app: bool
) -> Coverage:
    """The coverage of an event. It is cached, since one site's events are of a few kinds.

    :param has: for each of the seven identifiers whether the event carries it.
    :param forms: ``ADROLL_EMAIL``.
    :param is_derived: the cookie was made from another identifier. With a visitor's token the site
        could have supplied a click id.
    :param is_app: the event is of an app. The site could have supplied a device id.
    """
    off = tuple(name for form, name in FORM_NAMES.items() if form not in forms)
    could = {"first_party_cookie", "user_id", *FORM_NAMES.values()}.difference(off)
    if is_derived:
        could.add("adct")
    if is_app:
        could.add("device_id")
    named = tuple(zip(IDENTIFIER_NAMES, has, strict=True))
    return Coverage(
        tuple(name for name, there in named if there),
        tuple(name for name, there in named if not there and name in could),
        off=off,
    )


# -- what an event has that the caller did not give ----------------------------------------

#: What ``identify()`` may have been given; of an address the session keeps hashes only.
KNOWN: Final = ("email_sha256", "email_md5", "user_id", "device_id")


# Not frozen: a report would pay three times as much for it.
@dataclass(slots=True, repr=False)
class EventDefaults:
    """What an event has that the caller did not give: of the account, the visitor, the request.

    :param now: the clock, epoch seconds.
    :param identity: what ``identify()`` was told of the visitor, by the names of :data:`KNOWN`.
    :param email_forms: which forms of an e-mail may leave the server.
    :param derive_key: makes the cookie value of a visitor without click id and cookie.
    :param private_parameters: patterns of the names of parameters that tell who a person is.
    :param dedupe_secret: hides an order id with an address in it, see :func:`.kept_key`.
    :param known_since: when all this was learnt, epoch seconds, where that is not now: for example
        when a token was made.
    :param record_id: of the visitor's record. Where the visitor says no, it finds their events.
    :param token_problem: why a token's identifiers were left out.
    :param refusal: why nothing may be reported of the visitor; empty: it may.
    :param is_checked: account, address, user agent, click id and cookie were checked where they
        were learnt: in the settings, in the request and in the visitor's record.
    """

    advertisable_eid: str | None = None
    pixel_eid: str | None = None
    now: float = 0.0
    page_location: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    adct: str | None = None
    first_party_cookie: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    email_forms: tuple[str, ...] = ("sha256", "md5")
    derive_key: bytes | None = None
    private_parameters: tuple[str, ...] = ()
    dedupe_secret: bytes | None = None
    known_since: float | None = None
    record_id: str | None = None
    token_problem: str = ""
    refusal: str = ""
    is_checked: bool = False


def derived_cookie(taken: Mapping[str, Any], defaults: EventDefaults) -> str | None:
    """The cookie's value of somebody without a browser: always the same for the same identifier.

    AdRoll requires a click id or a first-party cookie. What its matching makes of such a value is
    unknown. A device's id is taken first, then a user's, then an address.

    :param taken: an event's values, checked.
    """
    if defaults.derive_key is None:
        return None
    for name in ("device_id", "user_id", "email_sha256", "email_md5", "email"):
        identifier = taken.get(name)
        if identifier is not None:
            # A device id may come in any case of letters.
            identifier = identifier.lower() if name == "device_id" else identifier
            text = f"{name}:{identifier}".encode("utf-8", "surrogatepass")
            digest = hmac.digest(defaults.derive_key, text, "sha256")
            return f"{digest[:16].hex()}-{DERIVED_TIME}"
    return None
