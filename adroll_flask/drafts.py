"""Events that are not in order yet: kept as far as they can be told, mended, and checked again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from pydantic_core import to_json

from .attributes import accept_event_name
from .context import Context
from .errors import EventError
from .fields import (
    MILLISECONDS,
    accept_external_data,
    accept_id,
    accept_keywords,
    accept_label,
    accept_timestamp,
    accept_user_agent,
)
from .identifiers import (
    accept_adct,
    accept_device_id,
    accept_user_id,
    derived_first_party_cookie,
    email_forms,
    normalise_first_party_cookie,
    normalise_ip,
)
from .locations import accept_location
from .model import Event, Problem, check, wire_bytes
from .money import accept_amount, accept_currency, rounded
from .names import IDENTIFIER_NAMES
from .products import PRODUCT_CHECKS, gather
from .suggestions import shown
from .wire import MAX_BYTES, WireAttributes, WireEvent, WireIdentifiers, WireProduct, compose

#: Characters of a text, or of the JSON of a list, that is kept unchecked.
_MAX_RAW = 500
#: Elements of a list that are looked at.
_MOST_RAW = 20

_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "order_id": lambda value: accept_id(value, "order_id"),
    "currency": accept_currency,
    "value": accept_amount,
    "total": lambda value: accept_amount(value, "total"),
    "page_location": accept_location,
    "ip": normalise_ip,
    "user_agent": accept_user_agent,
    "timestamp": accept_timestamp,
    "adct": accept_adct,
    "first_party_cookie": normalise_first_party_cookie,
    "user_id": accept_user_id,
    "device_id": accept_device_id,
    "keywords": accept_keywords,
    "external_data": accept_external_data,
    "device_os": lambda value: accept_label(value, "device_os"),
    "device_type": lambda value: accept_label(value, "device_type"),
    "package_app_name": lambda value: accept_label(value, "package_app_name"),
    "package_app_version": lambda value: accept_label(value, "package_app_version"),
}
_KNOWN = ("page_location", "ip", "user_agent", "adct", "first_party_cookie", "user_id", "device_id")


def derivable(device_id: Any, user_id: Any) -> str | None:
    """What a cookie value is made from where there is no browser; ``None`` where nothing is."""
    if isinstance(device_id, str):
        return f"device_id:{device_id.lower()}"
    if user_id is None:
        return None
    try:
        return f"user_id:{accept_user_id(user_id)}"
    except EventError:
        return None


def draft(name: Any, fields: Mapping[str, Any], context: Context) -> bytes:
    """The JSON of an event that was refused, for a dead letter that can be mended.

    What is in order has the API's form; what is not stays as it was given, as far as JSON can
    say it. An e-mail address is in it only in the forms that may leave the server: one that is
    not an address is left out. Never raises; at most 32 KiB.

    :param name: what was given as the event's name.
    :param fields: the caller's fields.
    :param context: as for :func:`~adroll_flask.events.build`.
    """
    values: dict[str, Any] = {
        "event_name": _as_it_may_be(accept_event_name, name),
        "advertisable_eid": context.advertisable_eid,
        "pixel_eid": context.pixel_eid,
        "timestamp": round(context.now, 3),
    }
    given = {key: getattr(context, key) for key in _KNOWN}
    given.update((key, value) for key, value in fields.items() if value is not None)
    for key, accept in _CHECKS.items():
        value = given.get(key)
        if value is not None:
            told = _as_it_may_be(accept, value)
            if told is not None:
                values[key] = told
    values.update(_emails(fields.get("email"), context))
    products = fields.get("products")
    if products is not None:
        values["products"] = _products(products, fields.get("product_map"))
    _round(values)
    if context.derive_key and not values.get("adct") and not values.get("first_party_cookie"):
        identifier = derivable(values.get("device_id"), values.get("user_id"))
        if identifier is not None:
            values["first_party_cookie"] = derived_first_party_cookie(
                context.derive_key, identifier
            )
    return _fitting(compose(values))


def _round(values: dict[str, Any]) -> None:
    currency = values.get("currency")
    currency = currency if isinstance(currency, str) else None
    priced = [(values, "value"), (values, "total")]
    priced += [(product, "price") for product in values.get("products", ())]
    for part, name in priced:
        amount = part.get(name)
        if isinstance(amount, Decimal):
            part[name] = rounded(amount, currency)


def _as_it_may_be(accept: Callable[[Any], Any], value: Any) -> Any:
    try:
        return accept(value)
    except (EventError, TypeError, ValueError):
        return _raw(value)


def _raw(value: Any, depth: int = 0) -> Any:
    """*value* as far as JSON can say it; of anything else, its type's name."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < MILLISECONDS**2 else "<a huge number>"
    if isinstance(value, float):
        number = float(value)
        return number if number - number == 0 else str(number)
    if isinstance(value, Decimal):
        return str(value)[:_MAX_RAW]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return value[:_MAX_RAW].encode("utf-8", "replace").decode()
    told: Any = None
    if depth < 2 and isinstance(value, list | tuple):
        told = [_raw(item, depth + 1) for item in value[:_MOST_RAW]]
    elif depth < 2 and isinstance(value, Mapping):
        items = list(value.items())[:_MOST_RAW]
        told = {str(_raw(key, 2)): _raw(item, depth + 1) for key, item in items}
    if told is None or len(to_json(told)) > _MAX_RAW:
        return f"<{type(value).__name__}>"
    return told


def _emails(given: Any, context: Context) -> dict[str, list[str]]:
    made: dict[str, list[str]] = {}
    for item in given if isinstance(given, list | tuple) else [given]:
        try:
            for kind, texts in email_forms(item, context.email_forms).items():
                made.setdefault(kind, []).extend(texts)
        except EventError:
            # Neither an address nor a hash: there is no form of it that may be kept.
            continue
    for kind, known in (
        ("email_sha256", context.email_sha256),
        ("email_md5", context.email_md5),
    ):
        if known:
            made.setdefault(kind, []).extend(known)
    return {kind: list(dict.fromkeys(texts)) for kind, texts in made.items()}


def _products(products: Any, product_map: Any) -> list[Any]:
    try:
        items = gather(products, product_map)
    except EventError:
        items = []
    return [
        {
            name: _as_it_may_be(PRODUCT_CHECKS[name], value)
            for name, value in item.items()
            if name in PRODUCT_CHECKS
        }
        for item in items
        if isinstance(item, Mapping)
    ]


def _fitting(wire: dict[str, Any]) -> bytes:
    payload = to_json(wire)
    attributes = wire.get("event_attributes", {})
    for part, name in (
        (wire, "external_data"),
        (attributes, "products"),
        (attributes, "keywords"),
        (wire, "user_agent"),
        (wire, "event_attributes"),
    ):
        if len(payload) <= MAX_BYTES:
            break
        part.pop(name, None)
        payload = to_json(wire)
    return payload


# -- mended --------------------------------------------------------------------------------

#: Where the API has what an event's attribute holds.
_PLACES: Mapping[str, str] = {
    "value": "conversion_value",
    "visitor": "identifiers",
    **{name: f"identifiers.{name}" for name in IDENTIFIER_NAMES},
    **{name: f"event_attributes.{name}" for name in ("order_id", "total", "keywords", "products")},
}


def recheck_wire(
    payload: bytes | str,
    *,
    email_forms: tuple[str, ...] = ("sha256",),
    now: float | None = None,
) -> Event:
    """The event of an API's JSON object that somebody mended.

    :param payload: one JSON object, or an array with one.
    :param email_forms: ``ADROLL_EMAIL``; an address in clear text that may not leave is hashed.
    :param now: the clock that the event's time may not be ahead of, epoch seconds.
    :raises EventError: names the place in the JSON that is wrong, and what it takes.
    """
    try:
        wire = json.loads(payload)
    except (ValueError, RecursionError):
        raise EventError("payload", "takes one event as a JSON object") from None
    if isinstance(wire, list) and len(wire) == 1:
        wire = wire[0]
    values = _flat(wire)
    _hash_what_may_not_leave(values, email_forms)
    values["email_forms"] = email_forms
    found = check(values, time.time() if now is None else now)
    if isinstance(found, Event):
        wire_bytes(found)
        return found
    raise _placed(found[0])


def _placed(problem: Problem) -> EventError:
    place = _PLACES.get(problem.field, problem.field)
    return Problem(place, problem.path, problem.expected).error()


def _flat(wire: Any) -> dict[str, Any]:
    values = _members(wire, "", WireEvent)
    identifiers = _members(values.pop("identifiers", {}), "identifiers.", WireIdentifiers)
    attributes = _members(values.pop("event_attributes", {}), "event_attributes.", WireAttributes)
    products = attributes.get("products")
    if products is not None:
        place = "event_attributes.products"
        if not isinstance(products, list):
            raise EventError(place, "takes an array")
        for index, product in enumerate(products):
            _members(product, f"{place}[{index}].", WireProduct)
    user_id = identifiers.get("user_id", attributes.get("user_id"))
    if attributes.get("user_id", user_id) != user_id:
        raise EventError("event_attributes.user_id", "is the same as identifiers.user_id")
    if "conversion_value" in values:
        values["value"] = values.pop("conversion_value")
    values.update(attributes)
    values.update(identifiers)
    for name in ("event_name", "page_location", "ip"):
        if name not in values:
            raise EventError(name, "is required")
    if "timestamp" not in values:
        raise EventError("timestamp", "is required in a kept event: when it happened")
    return {name: value for name, value in values.items() if value is not None}


def _members(value: Any, prefix: str, kind: type) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EventError(prefix.rstrip(".") or "payload", "takes a JSON object")
    known = kind.__annotations__
    for name in value:
        if name not in known:
            raise EventError(
                f"{prefix}{shown(name)}", f"is no field of the API{_hint(name, known)}"
            )
    return dict(value)


def _hint(name: str, known: Mapping[str, Any]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name[:60], known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _hash_what_may_not_leave(values: dict[str, Any], forms: tuple[str, ...]) -> None:
    given = values.get("email")
    if not given or "plain" in forms:
        return
    try:
        made = email_forms(given, forms)
    except EventError as problem:
        raise EventError("identifiers.email", problem.expected) from None
    del values["email"]
    for kind, texts in made.items():
        known = values.get(kind, ())
        known = [known] if isinstance(known, str) else list(known)
        values[kind] = list(dict.fromkeys([*texts, *known]))
