"""Events that are not in order yet: kept as far as they can be told, fixed, and checked again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any

from adroll_flask.errors import EventError
from adroll_flask.visitor.identifiers import email_forms

from .context import EventDefaults, derived_cookie, values_of
from .event import (
    API_NAMES,
    ATTRIBUTES,
    IDENTIFIERS,
    MAX_BYTES,
    PRODUCT,
    TOP,
    Event,
    check,
    wire_bytes,
)
from .fields import Field, accept_external_data, rounded
from .names import FIELD_NAMES, shown, suggestion
from .privacy import hide
from .products import gather

#: Characters of a text, or of the JSON of a list, that is kept unchecked.
_MAX_RAW = 500
#: Elements of a list that are looked at.
_MOST_RAW = 20
#: What a visitor's browser gave: where it is amiss nobody could fix it.
_VISITORS = ("adct", "first_party_cookie")


def draft(name: Any, fields: Mapping[str, Any], context: EventDefaults) -> bytes:
    """The JSON of an event that was refused, for a dead letter that can be fixed.

    What is in order has the API's form; what is not stays as it was given, as far as JSON can
    say it. An e-mail address is in it only in the forms that may leave the server: one that is
    wrong is left out. Never raises; at most 32 KiB.

    :param name: what was given as the event's name.
    :param fields: the caller's fields.
    :param context: as for :func:`~adroll_flask.events.build`.
    """
    values = values_of(context)
    values.update((key, fields[key]) for key in FIELD_NAMES if fields.get(key) is not None)
    values |= {"event_name": name, "email": None}
    values |= _or_none(_email, fields.get("email"), context) or {}
    hide(values, context)
    if values.get("external_data") is not None:
        told = _or_none(accept_external_data, values["external_data"])
        values["external_data"] = told if told is not None else values["external_data"]
    currency = _or_none(TOP["currency"].accept, values.get("currency"))
    identifiers = _kept(IDENTIFIERS, values, None)
    if not identifiers.keys() & {*_VISITORS}:
        cookie = derived_cookie(identifiers, context)
        identifiers |= {"first_party_cookie": cookie} if cookie else {}
    attributes = _kept(ATTRIBUTES, values, currency)
    products = _or_none(gather, values.get("products"), fields.get("product_map")) or []
    items = [_kept(PRODUCT, item, currency) for item in products if isinstance(item, Mapping)]
    if items:
        attributes["products"] = items
    wire = {"event_name": None, **_kept(TOP, values, currency), "identifiers": identifiers}
    if attributes:
        wire["event_attributes"] = attributes
    return _fitting(wire)


def _or_none(make: Any, value: Any, *more: Any) -> Any:
    """What *make* makes of *value*; ``None`` of nothing, and of what it refuses."""
    try:
        return None if value is None else make(value, *more)
    except EventError:
        return None


def _email(given: Any, context: EventDefaults) -> dict[str, Any]:
    """What takes the place of the visitor's hashes."""
    made = email_forms(given, context.email_forms)
    return {"email_sha256": None, "email_md5": None, **made} if made else {}


def _kept(
    table: Mapping[str, Field], given: Mapping[str, Any], currency: str | None
) -> dict[str, Any]:
    """What *table* has of *given*, in the API's form; what it refuses as it was."""
    kept = {}
    for name, field in table.items():
        value = given.get(name)
        if value is not None:
            try:
                value = field.accept(value)
            except EventError:
                value = None if name in _VISITORS else _raw(value)
            if isinstance(value, Decimal):
                value = str(rounded(value, currency))
            if value is not None:
                kept[API_NAMES.get(name, name)] = value
    return kept


def _raw(value: Any) -> Any:
    """*value* as far as JSON can say it; of anything else, its type's name."""
    if isinstance(value, str):
        return value[:_MAX_RAW].encode("utf-8", "replace").decode()
    if isinstance(value, list | tuple):
        value = value[:_MOST_RAW]
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_told)
    except (TypeError, ValueError, RecursionError):
        text = ""
    if not 0 < len(text) <= _MAX_RAW:
        return f"<{type(value).__name__}>"
    return json.loads(text.encode("utf-8", "replace"))


def _told(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if isinstance(value, date) else f"<{type(value).__name__}>"


def _fitting(wire: dict[str, Any]) -> bytes:
    attributes = wire.get("event_attributes", {})
    for part, name in (
        (wire, ""),
        (wire, "external_data"),
        (attributes, "products"),
        (attributes, "keywords"),
        (wire, "user_agent"),
        (wire, "event_attributes"),
    ):
        part.pop(name, None)
        payload = json.dumps(wire, ensure_ascii=False, separators=(",", ":")).encode()
        if len(payload) <= MAX_BYTES:
            break
    return payload


# -- fixed ---------------------------------------------------------------------------------

_NAMES: Mapping[Any, Any] = {api: name for name, api in API_NAMES.items()}
#: Where the API has what an event's attribute holds.
_PLACES: Mapping[str, str] = {
    **{name: f"event_attributes.{name}" for name in (*ATTRIBUTES, "products")},
    "visitor": "identifiers",
    **{name: f"identifiers.{name}" for name in IDENTIFIERS},
    **API_NAMES,
}


def recheck_wire(
    payload: bytes | str,
    defaults: EventDefaults | None = None,
    *,
    now: float | None = None,
) -> Event:
    """The event of an API's JSON object that somebody fixed.

    :param payload: one JSON object, or an array with one.
    :param defaults: what may leave in which form; an address in clear text that may not leave is
        hashed.
    :param now: the clock that the event's time may not be ahead of, epoch seconds.
    :raises EventError: names the place in the JSON that is wrong, and what it takes.
    """
    defaults = defaults or EventDefaults()
    try:
        wire = json.loads(payload)
    except (ValueError, RecursionError):
        raise EventError("payload", "takes one event as a JSON object") from None
    if isinstance(wire, list) and len(wire) == 1:
        wire = wire[0]
    if not isinstance(wire, dict):
        raise EventError("payload", "takes one event as a JSON object")
    values = _part(wire, TOP, "", ("identifiers", "event_attributes"))
    if "identifiers" not in wire:
        raise EventError("identifiers", "is required")
    attributes = wire.get("event_attributes")
    if attributes is not None:
        values |= _part(attributes, ATTRIBUTES, "event_attributes", ("products",))
        if attributes.get("products") is not None:
            values["products"] = attributes["products"]
    identifiers = _part(wire["identifiers"], IDENTIFIERS, "identifiers")
    user_id = identifiers.setdefault("user_id", values.get("user_id"))
    if values.get("user_id") not in (None, user_id):
        raise EventError("event_attributes.user_id", "is the same as identifiers.user_id")
    values |= identifiers
    if values.get("email") is not None:
        _only_one_address(values, defaults.email_forms)
    values["email_forms"] = defaults.email_forms
    hide(values, defaults)
    found = check(values, time.time() if now is None else now)
    if isinstance(found, Event):
        wire_bytes(found)
        return found
    field, *path = found[0].path
    place = (_PLACES.get(str(field), field), *path)
    raise found[0]._replace(path=place).error()


def _part(
    given: Any, table: Mapping[str, Field], place: str, parts: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The values of one of the API's objects, by an event's names."""
    if not isinstance(given, dict):
        raise EventError(place, "takes a JSON object")
    values = {_NAMES.get(name, name): value for name, value in given.items() if name not in parts}
    api = [API_NAMES.get(name, name) for name in table]
    for name in given:
        if name not in api and name not in parts:
            at = f"{place}.{shown(name)}" if place else shown(name)
            raise EventError(at, f"is no field of the API{suggestion(name, (*api, *parts))}")
    return values


def _only_one_address(values: dict[str, Any], forms: tuple[str, ...]) -> None:
    given = values.pop("email")
    try:
        every = email_forms(given, ("sha256", "md5"))
        values |= {kind: None for kind in every if values.get(kind) != every[kind]}
        values |= email_forms(given, forms)
    except EventError as problem:
        expected = problem.expected
    else:
        return
    raise EventError("identifiers.email", expected)
