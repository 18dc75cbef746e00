"""Events that are not in order yet: kept as far as they can be told, fixed, and checked again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from adroll_flask.errors import EventError
from adroll_flask.visitor.identifiers import (
    accept_user_id,
    derived_first_party_cookie,
    email_forms,
)

from .coercion import MILLISECONDS, accept_external_data
from .context import EventDefaults, values_of
from .event import (
    MAX_BYTES,
    PHRASES,
    Event,
    EventAttributes,
    EventProduct,
    EventTop,
    Identifiers,
    Problem,
    WireEvent,
    check,
    problems,
    wire_bytes,
)
from .money import rounded
from .names import FIELD_NAMES, IDENTIFIER_NAMES
from .products import gather

#: Characters of a text, or of the JSON of a list, that is kept unchecked.
_MAX_RAW = 500
#: Elements of a list that are looked at.
_MOST_RAW = 20

#: What stands for a part's required fields while the others are checked.
_STAND_INS: Mapping[type[BaseModel], Mapping[str, Any]] = {
    EventTop: {
        "event_name": "pageView",
        "page_location": "https://adroll.invalid/",
        "ip": "::1",
        "timestamp": float(MILLISECONDS // 100),
    },
    EventAttributes: {},
    Identifiers: {},
    EventProduct: {"product_id": "-"},
}
#: What a visitor's browser gave: where it is amiss nobody could fix it.
_VISITORS = ("adct", "first_party_cookie")


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


def draft(name: Any, fields: Mapping[str, Any], context: EventDefaults) -> bytes:
    """The JSON of an event that was refused, for a dead letter that can be fixed.

    What is in order has the API's form; what is not stays as it was given, as far as JSON can
    say it. An e-mail address is in it only in the forms that may leave the server: one that is
    not an address is left out. Never raises; at most 32 KiB.

    :param name: what was given as the event's name.
    :param fields: the caller's fields.
    :param context: as for :func:`~adroll_flask.events.build`.
    """
    values = values_of(context)
    values.update((key, fields[key]) for key in FIELD_NAMES if fields.get(key) is not None)
    values |= {"event_name": name, "email": None, "products": None}
    values |= _email(fields.get("email"), context)
    with suppress(EventError):
        if values.get("external_data") is not None:
            values["external_data"] = accept_external_data(values["external_data"])
    identifiers = _kept(Identifiers, values)
    if context.derive_key and not identifiers.keys() & {"adct", "first_party_cookie"}:
        found = derivable(identifiers.get("device_id"), identifiers.get("user_id"))
        if found is not None:
            cookie = derived_first_party_cookie(context.derive_key, found)
            identifiers["first_party_cookie"] = cookie
    wire = {"event_name": None, **_kept(EventTop, values)}
    currency = wire.get("currency") if isinstance(wire.get("currency"), str) else None
    attributes = _kept(EventAttributes, values, currency)
    products = _products(fields.get("products"), fields.get("product_map"), currency)
    if products:
        attributes["products"] = products
    wire["identifiers"] = identifiers
    if attributes:
        wire["event_attributes"] = attributes
    return _fitting(wire)


def _kept(
    part: type[BaseModel], given: Mapping[str, Any], currency: str | None = None
) -> dict[str, Any]:
    """What *part* of an event holds of *given*, in the API's form; what it refuses as it was."""
    values = {name: given[name] for name in part.model_fields if given.get(name) is not None}
    stand_ins = _STAND_INS[part]
    refused: set[Any] = set()
    try:
        found = part.model_validate({**stand_ins, **values})
    except ValidationError as error:
        refused = {problem.field for problem in problems(error)}
        good = {name: value for name, value in values.items() if name not in refused}
        found = part.model_validate({**stand_ins, **good})
    kept = {}
    for name, field in part.model_fields.items():
        if name in values:
            value = getattr(found, name)
            if name in refused:
                value = None if name in _VISITORS else _raw(values[name])
            elif isinstance(value, Decimal):
                value = rounded(value, getattr(found, "currency", currency))
            elif isinstance(value, float):
                value = round(value, 3)
            if value is not None:
                kept[field.alias or name] = value
    return kept


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


def _email(given: Any, context: EventDefaults) -> dict[str, Any]:
    """What takes the place of the visitor's hashes; nothing where *given* is no address."""
    if given is not None:
        # Neither an address nor a hash: there is no form of it that may be kept.
        with suppress(EventError):
            made = email_forms(given, context.email_forms)
            return {"email_sha256": None, "email_md5": None, **made} if made else {}
    return {}


def _products(products: Any, product_map: Any, currency: Any) -> list[Any]:
    if products is None:
        return []
    try:
        items = gather(products, product_map)
    except EventError:
        return []
    return [_kept(EventProduct, item, currency) for item in items if isinstance(item, Mapping)]


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


# -- fixed ---------------------------------------------------------------------------------

#: Where the API has what an event's attribute holds.
_PLACES: Mapping[str, str] = {
    "visitor": "identifiers",
    **{name: f"identifiers.{name}" for name in IDENTIFIER_NAMES},
}
_JSON_PHRASES: Mapping[str, str] = {
    **PHRASES,
    "model_type": "takes a JSON object",
    "tuple_type": "takes an array",
}


def recheck_wire(
    payload: bytes | str,
    *,
    email_forms: tuple[str, ...] = ("sha256", "md5"),
    now: float | None = None,
) -> Event:
    """The event of an API's JSON object that somebody fixed.

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
    wrong: list[Problem] = []
    try:
        given = WireEvent.model_validate(wire)
    except ValidationError as error:
        wrong = problems(error, _JSON_PHRASES)
    if wrong:
        # Raised here: no exception that holds the input hangs on it.
        raise _first(wrong, {"": "payload"})
    values, attributes = dict(given), dict(given.event_attributes or {})
    values |= attributes | dict(given.identifiers)
    if values["user_id"] is None:
        values["user_id"] = attributes.get("user_id")
    elif attributes.get("user_id") not in (None, values["user_id"]):
        raise EventError("event_attributes.user_id", "is the same as identifiers.user_id")
    del values["identifiers"], values["event_attributes"]
    _only_one_address(values, email_forms)
    values["email_forms"] = email_forms
    found = check(values, time.time() if now is None else now)
    if isinstance(found, Event):
        wire_bytes(found)
        return found
    raise _first(found, _PLACES)


def _first(found: list[Problem], places: Mapping[str, str]) -> EventError:
    problem = found[0]
    place = places.get(problem.field, problem.field)
    return Problem(place, problem.path, problem.expected).error()


def _only_one_address(values: dict[str, Any], forms: tuple[str, ...]) -> None:
    given = values.pop("email")
    if given is not None:
        every = email_forms(given, ("sha256", "md5"))
        for kind in every:
            if values[kind] != every[kind]:
                # Of another address; the one in clear is what somebody wrote last.
                values[kind] = None
        values.update(email_forms(given, forms))
