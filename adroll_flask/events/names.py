"""Names that the public functions' signatures use: the thirteen events and a product's fields.

Imports nothing heavy, so that ``import adroll_flask`` stays cheap.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from adroll_flask.visitor.records import Visitor

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

    #: The product's id in the shop's catalogue or feed: a text or a whole number.
    product_id: Required[str | int]
    #: The group of products that this one belongs to.
    product_group: str
    #: Of one piece, in the event's currency and in major units: ``"29.95"``.
    price: str | int | float | Decimal
    #: How many pieces: a positive whole number.
    quantity: int
    category: str


#: A product's fields as AdRoll names them.
PRODUCT_FIELDS: tuple[str, ...] = tuple(Product.__annotations__)


class EventFields(TypedDict, total=False):
    """What ``report_event`` takes beside the event's name (forms: ``docs/reference/events.md``)."""

    order_id: str | int | None
    value: str | int | float | Decimal | None
    currency: str | None
    products: Sequence[Product | Mapping[str, Any] | object] | None
    product_map: Mapping[str, str] | None
    email: str | None
    user_id: str | int | None
    device_id: str | None
    keywords: str | None
    total: str | int | float | Decimal | None
    page_location: str | None
    ip: str | None
    user_agent: str | None
    timestamp: datetime | float | int | None
    external_data: object
    device_os: str | None
    device_type: str | None
    package_app_name: str | None
    package_app_version: str | None
    adct: str | None
    first_party_cookie: str | None
    deduplication_key: str | None
    visitor: Visitor | str | None
    hold: bool | timedelta | float | None
    session: Any


#: The fields of those that an event is made from.
FIELD_NAMES: tuple[str, ...] = tuple(
    name for name in EventFields.__annotations__ if name not in ("visitor", "hold", "session")
)
