"""Names that the public functions' signatures use: the thirteen events and the fields.

Imports nothing heavy, so that ``import adroll_flask`` stays cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict, get_args

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from uuid import UUID

    from adroll_flask.visitor.cookies import Visitor

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


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of *known* that *name* probably means.

    >>> nearest("add_to_cart", EVENT_NAMES)
    'addToCart'
    """
    from difflib import get_close_matches

    by_bare = {_bare(one): one for one in known}
    near = get_close_matches(_bare(name), by_bare, 1, 0.6)
    return by_bare[near[0]] if near else None


def suggestion(name: object, known: Iterable[str]) -> str:
    """How an error about a *name* that is none of *known* ends."""
    near = nearest(name, known) if isinstance(name, str) else None
    return f"; did you mean {near!r}?" if near else ""


def shown(name: object) -> str:
    """*name* for a text if it is a plain name; a key of a visitor's making stays out of logs."""
    plain = isinstance(name, str) and name.isascii() and name.isidentifier() and len(name) <= 40
    return str(name) if plain else "?"


def _bare(name: str) -> str:
    return "".join(char for char in name[:60].lower() if char.isalnum())
