"""What the tests of events share: a visitor, a request and a purchase."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adroll_flask.events.build import Built, build
from adroll_flask.events.names import EventDefaults

NOW = 1667065540.836
COOKIE = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"

#: A visitor's request, as the extension sees it.
WEB = EventDefaults(
    advertisable_eid="ADVERTISABLE0000000001",
    pixel_eid="PIXEL00000000000000001",
    now=NOW,
    page_location="https://shop.example/thanks?order=1001",
    ip="203.0.113.9",
    user_agent="Mozilla/5.0 Engine/20240101 Browser/123.0",
    adct="click123",
    first_party_cookie=COOKIE,
    email_forms=("sha256", "md5"),
    derive_key=b"a key of thirty-two bytes, about",
)
#: No browser: a webhook, a script, an app's back end.
BARE = EventDefaults(
    advertisable_eid=WEB.advertisable_eid,
    pixel_eid=WEB.pixel_eid,
    now=NOW,
    email_forms=("sha256", "md5"),
    derive_key=WEB.derive_key,
)
PURCHASE: Mapping[str, Any] = {
    "order_id": "1001",
    "value": "59.90",
    "currency": "EUR",
    "products": [{"product_id": "mug", "price": "29.95", "quantity": 2}],
}


def strictly(name: str = "purchase", /, context: EventDefaults = WEB, **fields: Any) -> Built:
    """Build as in development: a bad field raises."""
    return build(name, fields, context, strict=True)


def leniently(name: str = "purchase", /, context: EventDefaults = WEB, **fields: Any) -> Built:
    """Build as in production: a bad optional field is left out."""
    return build(name, fields, context, strict=False)


def context(base: EventDefaults = WEB, **changes: Any) -> EventDefaults:
    """*base* with changes."""
    return replace(base, **changes)
