"""The JSON object that AdRoll's API takes: its types, its schema, and how an event becomes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Required

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from pydantic_core import to_json
from typing_extensions import TypedDict

from .errors import EventError
from .fields import MAX_KEYWORDS, MAX_QUANTITY, MAX_TEXT, MAX_USER_AGENT, MILLISECONDS, OLDEST
from .identifiers import MAX_EMAIL, MAX_EMAILS, MAX_USER_ID
from .locations import MAX_LOCATION
from .money import MOST_DECIMALS, amount_text
from .names import EventName
from .products import MAX_PRODUCTS

#: Bytes of one event as JSON. AdRoll documents no bound; a batch of a hundred stays near 3 MiB.
MAX_BYTES = 32 * 1024

_CLOSED = ConfigDict(extra="forbid", hide_input_in_errors=True, strict=True)
_Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
_Amount = Annotated[
    str,
    Field(
        pattern=rf"^(0|[1-9][0-9]{{0,14}})(\.[0-9]{{1,{MOST_DECIMALS}}})?$",
        description="Major units; with the currency's own number of decimals.",
        examples=["123.45"],
    ),
]
_Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=MAX_EMAIL)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
_Md5 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{32}$")]
_UserId = Annotated[str, Field(min_length=1, max_length=MAX_USER_ID)]
_Eid = Annotated[str, Field(pattern=r"^[A-Z0-9]{8,40}$")]


@with_config(_CLOSED)
class WireProduct(TypedDict, total=False):
    """One element of ``event_attributes.products``."""

    product_id: Required[_Text]
    product_group: _Text
    price: _Amount
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY)]
    category: _Text


@with_config(_CLOSED)
class WireAttributes(TypedDict, total=False):
    """``event_attributes``."""

    order_id: _Text
    user_id: _UserId
    total: _Amount
    keywords: Annotated[str, Field(min_length=1, max_length=MAX_KEYWORDS)]
    products: Annotated[list[WireProduct], Field(max_length=MAX_PRODUCTS)]


@with_config(_CLOSED)
class WireIdentifiers(TypedDict, total=False):
    """``identifiers``: at least one of ``adct`` and ``first_party_cookie``."""

    adct: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,240}$")]
    first_party_cookie: Annotated[
        str,
        Field(
            pattern=r"^[0-9a-fA-F]{32}-([0-9]{13}|a_[0-9]{10})$",
            examples=["46d41c62e88bb2e267c1e15314bb8837-1667065540836"],
        ),
    ]
    email: _Email | Annotated[list[_Email], Field(min_length=1, max_length=MAX_EMAILS)]
    email_sha256: _Sha256 | Annotated[list[_Sha256], Field(min_length=1)]
    email_md5: _Md5 | Annotated[list[_Md5], Field(min_length=1)]
    device_id: Annotated[
        str, Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
    ]
    user_id: _UserId


@with_config(_CLOSED)
class WireEvent(TypedDict, total=False):
    """One event as AdRoll's server-to-server API takes it."""

    advertisable_eid: _Eid
    pixel_eid: _Eid
    event_name: Required[EventName]
    page_location: Required[
        Annotated[str, Field(pattern=r"^https?://[\x21-\x7e]+$", max_length=MAX_LOCATION)]
    ]
    ip: Required[Annotated[str, Field(description="The visitor's IPv4 or IPv6 address.")]]
    identifiers: Required[WireIdentifiers]
    user_agent: Annotated[str, Field(min_length=1, max_length=MAX_USER_AGENT)]
    timestamp: Annotated[float, Field(ge=OLDEST, lt=MILLISECONDS, description="UTC seconds.")]
    conversion_value: _Amount
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217.")]
    event_attributes: WireAttributes
    external_data: Annotated[str, Field(description="JSON in a text.")]
    device_os: _Text
    device_type: _Text
    package_app_name: _Text
    package_app_version: _Text


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one event in a request's array."""
    schema = TypeAdapter(WireEvent).json_schema()
    # Filled in when the event is sent, so the type leaves them open; AdRoll requires them.
    schema["required"] = ["advertisable_eid", "pixel_eid", *schema["required"]]
    schema["$defs"]["WireIdentifiers"]["anyOf"] = [
        {"required": ["adct"]},
        {"required": ["first_party_cookie"]},
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "AdRoll server-to-server event",
    }


def _money(amount: Any, currency: Any) -> Any:
    if type(amount) is not Decimal:
        # A draft's: it stays as it was given until somebody mends it.
        return amount
    # An event's amounts are rounded already.
    text = str(amount)
    return amount_text(amount, currency) if "E" in text else text


def _one_or_more(texts: Sequence[str]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else list(texts)


def compose(values: Mapping[str, Any]) -> dict[str, Any]:
    """An event's attributes in the nested form of the API; absent ones are left out.

    :param values: attributes of :class:`~adroll_flask.events.Event` by name; products as
        mappings.
    """
    # Written out and not looped: this runs at every report.
    get = values.get
    currency = get("currency")
    identifiers: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    event: dict[str, Any] = {}
    if value := get("advertisable_eid"):
        event["advertisable_eid"] = value
    if value := get("pixel_eid"):
        event["pixel_eid"] = value
    event["event_name"] = get("event_name")
    if (value := get("page_location")) is not None:
        event["page_location"] = value
    if (value := get("ip")) is not None:
        event["ip"] = value
    if (value := get("user_agent")) is not None:
        event["user_agent"] = value
    if (value := get("timestamp")) is not None:
        event["timestamp"] = value
    event["identifiers"] = identifiers
    if (value := get("adct")) is not None:
        identifiers["adct"] = value
    if (value := get("first_party_cookie")) is not None:
        identifiers["first_party_cookie"] = value
    if value := get("email"):
        identifiers["email"] = _one_or_more(value)
    if value := get("email_sha256"):
        identifiers["email_sha256"] = _one_or_more(value)
    if value := get("email_md5"):
        identifiers["email_md5"] = _one_or_more(value)
    if (value := get("device_id")) is not None:
        identifiers["device_id"] = value
    if (value := get("order_id")) is not None:
        attributes["order_id"] = value
    if (value := get("user_id")) is not None:
        # Both places, as in AdRoll's sample of a conversion.
        identifiers["user_id"] = attributes["user_id"] = value
    if (value := get("total")) is not None:
        attributes["total"] = _money(value, currency)
    if (value := get("keywords")) is not None:
        attributes["keywords"] = value
    if value := get("products"):
        attributes["products"] = [_product(product, currency) for product in value]
    if attributes:
        event["event_attributes"] = attributes
    if (value := get("value")) is not None:
        event["conversion_value"] = _money(value, currency)
    if currency is not None:
        event["currency"] = currency
    if (value := get("external_data")) is not None:
        event["external_data"] = value
    if (value := get("device_os")) is not None:
        event["device_os"] = value
    if (value := get("device_type")) is not None:
        event["device_type"] = value
    if (value := get("package_app_name")) is not None:
        event["package_app_name"] = value
    if (value := get("package_app_version")) is not None:
        event["package_app_version"] = value
    return event


def _product(product: Mapping[str, Any], currency: Any) -> dict[str, Any]:
    told = {name: value for name, value in product.items() if value is not None}
    if "price" in told:
        told["price"] = _money(told["price"], currency)
    return told


def encode(wire: Mapping[str, Any]) -> bytes:
    """The event's JSON.

    :raises EventError: more than 32 KiB.
    """
    payload = to_json(wire)
    if len(payload) > MAX_BYTES:
        raise EventError(
            "event", f"takes at most {MAX_BYTES // 1024} KiB as JSON; {_largest(wire)} is largest"
        )
    return payload


def _largest(wire: Mapping[str, Any]) -> str:
    parts: dict[str, Any] = {**wire, **wire.get("event_attributes", {})}
    parts.pop("event_attributes", None)
    return max((len(to_json(part)), name) for name, part in parts.items())[1]
