"""Names that the public functions' signatures use: the thirteen events and a product's fields.

Imports nothing heavy, so that ``import adroll_flask`` stays cheap.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, Required, TypedDict, get_args

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

#: What ``report_event`` takes beside the event's name, ``visitor`` and ``session``.
FIELD_NAMES: tuple[str, ...] = (
    "order_id",
    "value",
    "currency",
    "products",
    "product_map",
    "email",
    "user_id",
    "device_id",
    "keywords",
    "total",
    "page_location",
    "ip",
    "user_agent",
    "timestamp",
    "external_data",
    "device_os",
    "device_type",
    "package_app_name",
    "package_app_version",
    "adct",
    "first_party_cookie",
    "deduplication_key",
)

#: A product's fields as AdRoll names them.
PRODUCT_FIELDS: tuple[str, ...] = ("product_id", "product_group", "price", "quantity", "category")


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
