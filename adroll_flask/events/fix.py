"""Events that are not final: drafts of dead letters, what somebody fixed in them, and holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import structs

from adroll_flask.errors import EventError
from adroll_flask.visitor.identifiers import accept_id, accept_seconds

from . import event
from .build import Built, hide, values_of_call
from .fields import MAX_BYTES, accept_external_data
from .names import IDENTIFIER_NAMES, EventDefaults, shown, suggestion
from .products import gather

#: Characters of a text, or of the JSON of a list, that is kept unchecked.
_MAX_RAW = 500
#: Elements of a list that are looked at.
_MOST_RAW = 20
#: The fields in which a draft keeps a wrong value as it was given. A click id and a cookie came
#: from a visitor's browser: nobody could fix them. An address may be in a form that may not leave.
_FIXABLE = event.CHECKS.keys() - {"adct", "first_party_cookie", "email", "email_forms", "products"}
#: The fields that an event needs, where a draft has none.
_UNFILLED: Mapping[str, None] = {"page_location": None, "ip": None, "timestamp": None}


def draft(name: Any, fields: Mapping[str, Any], defaults: EventDefaults) -> bytes:
    """The JSON of an event that was refused, for a dead letter that can be fixed.

    A value that is right has the API's form. A wrong one stays as it was given, as far as JSON can
    say it. An e-mail address has only the forms that may leave the server; a wrong one is left
    out. Never raises; at most 32 KiB.

    :param name: what was given as the event's name.
    :param fields: the caller's fields.
    :param defaults: as for :func:`~adroll_flask.events.build.build`.
    """
    problems: list[EventError] = []
    values = values_of_call(fields, defaults, problems, [])
    values.pop("deduplication_key", None)
    event.round_amounts(values)
    for field in _FIXABLE & {problem.field for problem in problems}:
        value = fields.get(field)
        if value is None:
            value = defaults.identity.get(field, getattr(defaults, field, None))
        values[field] = _raw(value)
    items: Sequence[Any] = ()
    with suppress(EventError):
        items = gather(fields.get("products"), fields.get("product_map"))
    products = []
    for item, taken in zip(items, values.pop("products", ()), strict=True):
        if isinstance(taken, event.EventProduct):
            products.append(taken)
        elif isinstance(item, Mapping):
            raw = {
                key: _raw(item[key]) for key in event.PRODUCT_CHECKS if item.get(key) is not None
            }
            products.append(event.EventProduct(**{"product_id": msgspec.UNSET, **raw, **taken}))
    # An event of values that no check has taken; only its JSON is used.
    unsendable = event.Event(
        **{**_UNFILLED, **values, "event_name": _raw(name), "products": tuple(products)}
    )
    unsendable, _ = hide(unsendable, defaults)
    # Where it is too large, what no fixed event could have goes first.
    for attribute in ("external_data", "products", *event.ATTRIBUTES, *event.TOP):
        payload = event.json_of(unsendable)
        if len(payload) <= MAX_BYTES:
            break
        unsendable = structs.replace(unsendable, **{attribute: None})
    return payload


def _raw(value: Any) -> Any:
    """*value* as far as JSON can say it; of anything else, its type's name."""
    if isinstance(value, str):
        return value[:_MAX_RAW].encode("utf-8", "replace").decode()
    text = ""
    with suppress(EventError):
        text = accept_external_data(value[:_MOST_RAW] if isinstance(value, list | tuple) else value)
    return json.loads(text) if 0 < len(text) <= _MAX_RAW else f"<{type(value).__name__}>"


# -- fixed ---------------------------------------------------------------------------------

#: An event's name of each value of the API's object, by its place there. A user's id has two
#: places.
_NAMES: Mapping[str, str] = {
    part + event.API_NAMES.get(name, name): name
    for part, names in (
        ("", event.TOP),
        ("event_attributes.", (*event.ATTRIBUTES, "products")),
        ("identifiers.", IDENTIFIER_NAMES),
    )
    for name in names
}
#: The place of each of an event's fields; of a user's id it is the one among the identifiers.
_PLACES: Mapping[str, str] = {
    **{name: place for place, name in _NAMES.items()},
    "visitor": "identifiers",
}
#: Places in which other programs write an empty text where there is no address.
_MAY_BE_EMPTY = ("identifiers.email_sha256", "identifiers.email_md5")


def rebuilt(
    payload: bytes | str, defaults: EventDefaults, key: str | None = None, **changes: Any
) -> Built:
    """The event of an API's JSON object that somebody fixed.

    :param payload: one JSON object, or an array with one.
    :param defaults: the clock, and the forms in which an address may leave. An address in clear
        text takes the place of all hashes, and is hashed where it may not leave.
    :param key: its deduplication key as the outbox keeps it, where it has one.
    :param changes: values that take the place of the JSON's, by an event's names.
    :raises EventError: names the place in the JSON that is wrong, and what it takes.
    """
    values: dict[str, Any] = {}
    for place, value in _values_by_place(payload).items():
        name = _NAMES.get(place)
        if name is None:
            part, dot, member = place.rpartition(".")
            near = suggestion(place, _NAMES)
            raise EventError(f"{part}{dot}{shown(member)}", f"is no field of the API{near}")
        if value is None or (value == "" and place in _MAY_BE_EMPTY):
            continue
        if values.setdefault(name, value) != value:
            raise EventError("event_attributes.user_id", "is the same as identifiers.user_id")
    try:
        if "email" in values:
            values |= event.address_values(values["email"], defaults.email_forms)
    except EventError as problem:
        raise EventError("identifiers.email", problem.expected) from None
    values |= changes | {"email_forms": defaults.email_forms}
    fixed = event.checked(values, defaults.now, _PLACES)
    fixed, _ = hide(fixed, defaults)
    built = Built(fixed, event.wire_bytes(fixed), fixed.order_id, defaults)
    if key and key != built.kept_key():
        built.key = accept_id(key, "key")
    return built


def _values_by_place(payload: bytes | str) -> dict[str, Any]:
    """The values of an API's JSON object: ``{"event_name": …, "identifiers.email": …}``."""
    wire: Any = None
    with suppress(ValueError, RecursionError):
        wire = json.loads(payload)
    if isinstance(wire, list) and len(wire) == 1:
        wire = wire[0]
    if not isinstance(wire, dict):
        raise EventError("payload", "takes one event as a JSON object")
    if "identifiers" not in wire:
        raise EventError("identifiers", "is required")
    for part in ("event_attributes", "identifiers"):
        members = wire.pop(part, None)
        if members is not None and not isinstance(members, dict):
            raise EventError(part, "takes a JSON object")
        wire |= {f"{part}.{name}": value for name, value in (members or {}).items()}
    return wire


# -- held, and released --------------------------------------------------------------------


def accept_hold(value: Any, longest: float) -> float:
    """Seconds for which a conversion is held.

    :param value: ``True``, a ``timedelta`` or seconds.
    :param longest: ``ADROLL_HOLD_MAX``, for which ``True`` holds.
    :raises EventError: it is none of these, or out of range.

    >>> accept_hold(3600, 86_400)
    3600.0
    """
    if value is True:
        return float(longest)
    seconds = accept_seconds(value, "hold", "takes True, a timedelta or seconds")
    if not 0 < seconds <= longest:
        raise EventError("hold", f"takes more than 0 and at most ADROLL_HOLD_MAX, {longest} s")
    return seconds


def accept_changes(changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[EventError]]:
    """The changes of a release as JSON can say them, and what is wrong with the others.

    :param changes: ``value``, ``currency`` and ``products``; ``None``: it stays as it was held.
    """
    problems: list[EventError] = []
    accepted = event.accept(changes, problems)
    event.accept_products(accepted, changes.get("products"), None, problems)
    for problem in problems:
        accepted.pop(event.argument_of(problem), None)
    return msgspec.to_builtins(accepted), problems


def amend(
    payload: bytes, changes: Mapping[str, Any], defaults: EventDefaults
) -> tuple[bytes, str, float]:
    """The JSON, the digest of the value, and the time of a held event with *changes*.

    :param payload: the held event's JSON.
    :param defaults: as for :func:`rebuilt`.
    :raises EventError: there is no such event.
    """
    built = rebuilt(payload, defaults, **changes)
    return built.payload, built.value_digest(), built.event.timestamp
