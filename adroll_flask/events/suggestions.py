"""The nearest known name for an unknown one, names of other tools included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from .names import EVENT_NAMES, FIELD_NAMES, PRODUCT_FIELDS

#: Names that Google Analytics 4, AdRoll's pixel and other pixels use for the same events.
OTHER_EVENTS: Mapping[str, str] = MappingProxyType(
    {
        "viewpage": "pageView",
        "viewitem": "pageView",
        "viewcontent": "pageView",
        "productview": "pageView",
        "viewproduct": "pageView",
        "home": "homeView",
        "homepage": "homeView",
        "viewhome": "homeView",
        "search": "productSearch",
        "viewsearchresults": "productSearch",
        "viewitemlist": "productSearch",
        "searchproduct": "productSearch",
        "viewcart": "addToCart",
        "cart": "addToCart",
        "conversion": "purchase",
        "convert": "purchase",
        "order": "purchase",
        "checkout": "purchase",
        "transaction": "purchase",
        "completepayment": "purchase",
        "ordercompleted": "purchase",
        "lead": "formFill",
        "generatelead": "formFill",
        "submitform": "formFill",
        "formsubmit": "formFill",
        "contact": "contactSales",
        "signup": "signupPlan",
        "completeregistration": "signupPlan",
        "subscribe": "signupPlan",
        "starttrial": "signupTrial",
        "trial": "signupTrial",
        "schedule": "demoRequest",
        "requestdemo": "demoRequest",
        "bookdemo": "demoRequest",
        "filedownload": "gatedContent",
        "download": "gatedContent",
        "chat": "liveChat",
    }
)

#: Names that Google Analytics 4, the API's JSON and others use for our fields.
OTHER_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "transactionid": "order_id",
        "orderid": "order_id",
        "ordernumber": "order_id",
        "conversionvalue": "value",
        "revenue": "value",
        "amount": "value",
        "price": "value",
        "items": "products",
        "contents": "products",
        "lineitems": "products",
        "mail": "email",
        "useremail": "email",
        "emails": "email",
        "emailsha256": "email",
        "emailmd5": "email",
        "customerid": "user_id",
        "externalid": "user_id",
        "uid": "user_id",
        "idfa": "device_id",
        "gaid": "device_id",
        "advertisingid": "device_id",
        "searchterm": "keywords",
        "keyword": "keywords",
        "query": "keywords",
        "url": "page_location",
        "pageurl": "page_location",
        "eventsourceurl": "page_location",
        "location": "page_location",
        "ipaddress": "ip",
        "remoteaddr": "ip",
        "clientipaddress": "ip",
        "ipoverride": "ip",
        "useragentstring": "user_agent",
        "time": "timestamp",
        "eventtime": "timestamp",
        "timestampmicros": "timestamp",
        "occurredat": "timestamp",
        "data": "external_data",
        "customdata": "external_data",
        "os": "device_os",
        "appname": "package_app_name",
        "appid": "package_app_name",
        "appversion": "package_app_version",
        "clickid": "adct",
        "fpc": "first_party_cookie",
        "adrollfpc": "first_party_cookie",
        "eventid": "deduplication_key",
        "dedupekey": "deduplication_key",
        "idempotencykey": "deduplication_key",
    }
)

#: The same for a product's fields.
OTHER_PRODUCT_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "id": "product_id",
        "itemid": "product_id",
        "sku": "product_id",
        "contentid": "product_id",
        "itemgroupid": "product_group",
        "group": "product_group",
        "itemcategory": "category",
        "itemprice": "price",
        "unitprice": "price",
        "amount": "price",
        "value": "price",
        "qty": "quantity",
        "count": "quantity",
    }
)


def _bare(name: str) -> str:
    return "".join(char for char in name[:60].lower() if char.isalnum())


def _nearest(name: str, known: Iterable[str], others: Mapping[str, str]) -> str | None:
    bare = _bare(name)
    by_bare = {_bare(one): one for one in known}
    if bare in by_bare:
        return by_bare[bare]
    if bare in others:
        return others[bare]
    near = get_close_matches(bare, by_bare, 1, 0.6)
    return by_bare[near[0]] if near else None


def nearest_event(name: str) -> str | None:
    """The event that *name* probably means.

    >>> nearest_event("add_to_cart")
    'addToCart'
    """
    return _nearest(name, EVENT_NAMES, OTHER_EVENTS)


def nearest_field(name: str, known: Iterable[str] = FIELD_NAMES) -> str | None:
    """The field that *name* probably means, of those in *known*."""
    known = tuple(known)
    others = {key: field for key, field in OTHER_FIELDS.items() if field in known}
    return _nearest(name, known, others)


def nearest_product_field(name: str) -> str | None:
    """The field of a product that *name* probably means."""
    return _nearest(name, PRODUCT_FIELDS, OTHER_PRODUCT_FIELDS)


def shown(name: object) -> str:
    """*name* for a text if it is a plain name; a key of a visitor's making stays out of logs."""
    plain = isinstance(name, str) and name.isascii() and name.isidentifier() and len(name) <= 40
    return str(name) if plain else "?"
