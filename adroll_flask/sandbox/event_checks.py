"""What makes an event one that AdRoll takes: which keys it has, and the form of each."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from . import value_checks
from .local_only import is_loopback

EVENT_NAMES = (
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
)
IDENTIFIERS = (
    "adct",
    "first_party_cookie",
    "email",
    "email_sha256",
    "email_md5",
    "device_id",
    "user_id",
)
REQUIRED = (
    "advertisable_eid",
    "pixel_eid",
    "event_name",
    "page_location",
    "ip",
    "identifiers",
)


def _event_name(value: Any) -> str | None:
    if value in EVENT_NAMES:
        return None
    expected = "must be one of the thirteen event names"
    if isinstance(value, str):
        plain = value[:60].replace("_", "").replace("-", "").lower()
        by_plain = {name.lower(): name for name in EVENT_NAMES}
        if near := difflib.get_close_matches(plain, by_plain, n=1):
            return f"{expected}; did you mean {by_plain[near[0]]}?"
    return expected


_short = value_checks.text(256)
_FIELDS: Mapping[str, value_checks.Check] = {
    "advertisable_eid": value_checks.eid,
    "pixel_eid": value_checks.eid,
    "event_name": _event_name,
    "page_location": value_checks.url,
    "ip": value_checks.ip,
    "user_agent": value_checks.text(4096),
    "conversion_value": value_checks.amount,
    "currency": value_checks.currency,
    "external_data": value_checks.json_text,
    "device_os": _short,
    "device_type": _short,
    "package_app_name": _short,
    "package_app_version": _short,
}
_IDENTIFIERS: Mapping[str, value_checks.Check] = {
    "adct": value_checks.click_id,
    "first_party_cookie": value_checks.cookie,
    "email": value_checks.email,
    "email_sha256": value_checks.email_sha256,
    "email_md5": value_checks.email_md5,
    "device_id": value_checks.device_id,
    "user_id": value_checks.text(512),
}
_ATTRIBUTES: Mapping[str, value_checks.Check] = {
    "order_id": value_checks.text(512),
    "user_id": value_checks.text(512),
    "total": value_checks.amount,
    "keywords": value_checks.text(2048),
}
_PRODUCT: Mapping[str, value_checks.Check] = {
    "product_id": value_checks.text(512),
    "product_group": value_checks.text(512),
    "price": value_checks.amount,
    "quantity": value_checks.quantity,
    "category": value_checks.text(1024),
}
#: Those that have members of their own.
_OTHER_FIELDS = ("identifiers", "event_attributes")
_MOST_PRODUCTS = 1000

#: One fault: the field's path within the event, a short code, what is wrong.
Fault = tuple[str, str, str]


#: The account that the sandbox stands in for, unless told otherwise. The token opens nothing else.
ADVERTISABLE_EID = "SANDBOXADVERTISABLE01X"
PIXEL_EID = "SANDBOXPIXEL0000000001"
ACCESS_TOKEN = "sandbox-token"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Account:
    """The account that a sandbox accepts.

    :param advertisable_eid: of the query and of every event.
    :param pixel_eid: of every event.
    :param access_token: of the ``Authorization`` header.
    """

    advertisable_eid: str = ADVERTISABLE_EID
    pixel_eid: str = PIXEL_EID
    access_token: str = field(default=ACCESS_TOKEN, repr=False)

    def of(self, advertisable: str) -> Account | None:
        """The account of *advertisable*: this one, or one of those whose EIDs begin as the
        sandbox's do, which the same token opens; ``None``: it is for neither."""
        if advertisable == self.advertisable_eid:
            return self
        own = advertisable.removeprefix("SANDBOX")
        if own == advertisable:
            return None
        return Account(advertisable, f"SANDBOXPIXEL{own[:10]}", self.access_token)


def faults(event: Any, *, account: Account, now: float) -> list[Fault]:
    """List everything that is wrong with one event; an empty list means that AdRoll takes it.

    :param event: one element of the request's JSON array.
    :param account: whose EIDs the event must carry.
    :param now: the sandbox's clock, epoch seconds.
    """
    return list(_faults(event, account, now))


def _faults(event: Any, account: Account, now: float) -> Iterator[Fault]:
    if not isinstance(event, dict):
        yield "", "invalid", "each event must be an object"
        return
    for name in REQUIRED:
        if name not in event:
            yield name, "required", "is required"
    checks: Mapping[str, value_checks.Check] = {
        **_FIELDS,
        "timestamp": partial(value_checks.timestamp, now=now),
    }
    yield from _members(event, "", checks, _OTHER_FIELDS)
    for name, own, words in (
        ("advertisable_eid", account.advertisable_eid, "must be the advertisable of the request"),
        ("pixel_eid", account.pixel_eid, "must be the pixel of the advertisable"),
    ):
        eid = event.get(name)
        if eid != own and value_checks.eid(eid) is None:
            yield name, "mismatch", words
    if "identifiers" in event:
        yield from _identifiers(event["identifiers"])
    if "event_attributes" in event:
        yield from _attributes(event["event_attributes"])


def _identifiers(value: Any) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield "identifiers", "invalid", "must be an object"
        return
    if "adct" not in value and "first_party_cookie" not in value:
        yield "identifiers", "required", "needs at least one of first_party_cookie or adct"
    yield from _members(value, "identifiers.", _IDENTIFIERS, ())


def _attributes(value: Any) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield "event_attributes", "invalid", "must be an object"
        return
    yield from _members(value, "event_attributes.", _ATTRIBUTES, ("products",))
    if "products" not in value:
        return
    products = value["products"]
    path = "event_attributes.products"
    if not isinstance(products, list):
        yield path, "invalid", "must be an array"
        return
    if len(products) > _MOST_PRODUCTS:
        yield path, "invalid", f"must hold at most {_MOST_PRODUCTS} products"
        return
    for index, product in enumerate(products):
        if not isinstance(product, dict) or not product:
            yield f"{path}[{index}]", "invalid", "must be an object that describes a product"
        else:
            yield from _members(product, f"{path}[{index}].", _PRODUCT, ())


def _members(
    value: dict[str, Any],
    prefix: str,
    checks: Mapping[str, value_checks.Check],
    others: tuple[str, ...],
) -> Iterator[Fault]:
    for name, member in value.items():
        if check := checks.get(name):
            if wrong := check(member):
                yield prefix + name, "invalid", wrong
        elif name not in others:
            yield _unknown(name, prefix, (*checks, *others))


def _unknown(name: str, prefix: str, known: tuple[str, ...]) -> Fault:
    # A key is the caller's, but it may be a visitor's by mistake: it is named only if it is short
    # and plain.
    shown = name if name.isascii() and name.isidentifier() and len(name) <= 40 else "?"
    near = difflib.get_close_matches(name[:60], known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return prefix + shown, "unknown", f"is not a field of the API{hint}"


def warnings(event: Mapping[str, Any]) -> list[str]:
    """List what AdRoll would take but what is probably a mistake, for an event without faults."""
    texts = []
    address = ipaddress.ip_address(event["ip"])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        texts.append("ip is an IPv4 address written as IPv6 (::ffff:…)")
    elif not address.is_global and not (address.is_loopback and _is_of_this_machine(event)):
        texts.append(
            "ip is not a public address: behind a proxy, this is the proxy's "
            "(a Flask app needs werkzeug's ProxyFix)"
        )
    if "user_agent" not in event:
        texts.append("user_agent is missing")
    if "conversion_value" in event and "currency" not in event:
        texts.append("conversion_value has no currency")
    if event["event_name"] == "purchase":
        if "conversion_value" not in event:
            texts.append("a purchase without conversion_value")
        if "order_id" not in event.get("event_attributes", ()):
            texts.append("a purchase without event_attributes.order_id")
    return texts


def _is_of_this_machine(event: Mapping[str, Any]) -> bool:
    """Whether its page is one of a shop that is tried out here, whose visitors are here as well."""
    return is_loopback(urlsplit(event["page_location"]).hostname or "")


def _part(event: Any, name: str) -> dict[str, Any]:
    """Return an object of an event that may be anything, empty where there is none."""
    part = event.get(name) if isinstance(event, dict) else None
    return part if isinstance(part, dict) else {}


def identifiers_of(event: Any) -> dict[str, Any]:
    """Return an event's identifiers, whatever is wrong with it."""
    return _part(event, "identifiers")


def name_and_order(event: Any) -> tuple[str | None, str | None]:
    """Return an event's name and order id, whatever is wrong with it."""
    name = event.get("event_name") if isinstance(event, dict) else None
    order = _part(event, "event_attributes").get("order_id")
    return name if isinstance(name, str) else None, order if isinstance(order, str) else None


def coverage(event: Any) -> dict[str, Any]:
    """Say which of the seven identifiers an event carries."""
    values = identifiers_of(event)
    carried = [name for name in IDENTIFIERS if values.get(name)]
    return {
        "carried": carried,
        "missing": [name for name in IDENTIFIERS if name not in carried],
        "score": round(len(carried) / len(IDENTIFIERS), 3),
    }
