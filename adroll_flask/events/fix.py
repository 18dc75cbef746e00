"""Events that are not final: drafts of dead letters, what somebody fixed in them, and holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from adroll_flask.errors import EventError
from adroll_flask.visitor.identifiers import accept_id, accept_seconds

from . import event
from .build import Built, hide, said
from .event import Problem
from .fields import accept_external_data
from .names import FIELD_NAMES, EventDefaults, derived_cookie, shown, suggestion, values_of

#: Characters of a text, or of the JSON of a list, that is kept unchecked.
_MAX_RAW = 500
#: Elements of a list that are looked at.
_MOST_RAW = 20
#: What a visitor's browser gave: where it is amiss nobody could fix it.
_VISITORS = ("adct", "first_party_cookie")
_FIXABLE = (event.FIELDS.keys() | event.PRODUCT.keys()).difference(_VISITORS)


def draft(name: Any, fields: Mapping[str, Any], context: EventDefaults) -> bytes:
    """The JSON of an event that was refused, for a dead letter that can be fixed.

    What is in order has the API's form; what is not stays as it was given, as far as JSON can
    say it. An e-mail address is in it only in the forms that may leave the server: one that is
    wrong is left out. Never raises; at most 32 KiB.

    :param name: what was given as the event's name.
    :param fields: the caller's fields.
    :param context: as for :func:`~adroll_flask.events.build`.
    """
    values = values_of(context) | {"event_name": name}
    for key in FIELD_NAMES:
        if (given := fields.get(key)) is not None:
            values |= {} if key in ("email", "products") else {key: given}
            with suppress(EventError):
                values |= said(key, fields, context)
    hide(values, context)
    items: Any = [item for item in values.get("products", ()) if isinstance(item, Mapping)]
    values["products"] = items
    wrong: list[Problem] = []
    kept: dict[str, Any] = {"event_name": None, **event.accept(values, wrong)}
    if kept.keys().isdisjoint(_VISITORS) and (cookie := derived_cookie(kept, context)):
        kept["first_party_cookie"] = cookie
    event.round_amounts(kept)
    for *place, name in [problem.path for problem in wrong]:
        given, part = values, kept
        if place:
            given, part = items[place[-1]], vars(kept["products"][place[-1]])
        if given.get(name) is not None and name in _FIXABLE:
            part[name] = _raw(given[name])
    # What nobody could send anyhow goes first.
    for name in ("", "external_data", "products", *event.ATTRIBUTES, *event.TOP):
        kept.pop(name, None)
        payload = event.written(kept)
        if len(payload) <= event.MAX_BYTES:
            break
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

#: The API's objects: where each is, and an event's names of what it has. What stands in two of
#: them is told by the last.
_PARTS: Mapping[str, Mapping[str, str]] = {
    place: {event.API_NAMES.get(name, name): name for name in names}
    for place, names in (
        ("", event.TOP),
        ("event_attributes", (*event.ATTRIBUTES, "products")),
        ("identifiers", event.IDENTIFIERS),
    )
}
#: Where the API has what an event's attribute holds.
_PLACES: Mapping[str, str] = {"visitor": "identifiers"} | {
    name: f"{place}.{api}".lstrip(".")
    for place, names in _PARTS.items()
    for api, name in names.items()
}


def rebuilt(
    payload: bytes | str, defaults: EventDefaults, key: str | None = None, **changes: Any
) -> Built:
    """The event of an API's JSON object that somebody fixed.

    :param payload: one JSON object, or an array with one.
    :param defaults: what may leave in which form; an address in clear text takes the place of all
        hashes, and is hashed where it may not leave. And the clock that the event's time may not
        be ahead of.
    :param key: its deduplication key as the outbox keeps it, where it has one.
    :param changes: what takes the place of what it says, by an event's names.
    :raises EventError: names the place in the JSON that is wrong, and what it takes.
    """
    wire: Any = None
    with suppress(ValueError, RecursionError):
        wire = json.loads(payload)
    if isinstance(wire, list) and len(wire) == 1:
        wire = wire[0]
    if not isinstance(wire, dict):
        raise EventError("payload", "takes one event as a JSON object")
    if "identifiers" not in wire:
        raise EventError("identifiers", "is required")
    values: dict[str, Any] = {}
    for place, names in _PARTS.items():
        given = wire if not place else {} if wire.get(place) is None else wire[place]
        inner = () if place else ("identifiers", "event_attributes")
        if not isinstance(given, dict):
            raise EventError(place, "takes a JSON object")
        for api, value in given.items():
            if api in names:
                if value is None or (value == "" and api in ("email_sha256", "email_md5")):
                    continue
                if values.setdefault(names[api], value) != value:
                    same = "is the same as identifiers.user_id"
                    raise EventError("event_attributes.user_id", same)
            elif api not in inner:
                known = suggestion(api, (*names, *inner))
                at = f"{place}.{shown(api)}".lstrip(".")
                raise EventError(at, f"is no field of the API{known}")
    try:
        if "email" in values:
            values |= event.address_values(values["email"], defaults.email_forms)
    except EventError as problem:
        raise EventError("identifiers.email", problem.expected) from None
    values |= changes | {"email_forms": defaults.email_forms}
    hide(values, defaults)
    found = event.check(values, defaults.now)
    if isinstance(found, list):
        field, *path = found[0].path
        place = _PLACES.get(str(field), str(field))
        raise found[0]._replace(path=(place, *path)).error()
    built = Built(found, (), found.order_id, event.wire_bytes(found), defaults=defaults)
    if key and key != built.kept_key:
        built.key = accept_id(key, "key")
    return built


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


def accept_changes(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[EventError]]:
    """What a release says differently, as JSON can say it, and what is wrong with the rest.

    :param given: ``value``, ``currency`` and ``products``; ``None`` means that it stays.
    """
    wrong: list[Problem] = []
    changes = event.amount_as_text(event.accept(given, wrong), "value")
    if given.get("products") is not None:  # of an empty list nothing is taken
        changes["products"] = event.products_as_json(changes.get("products", ()))
    for problem in wrong:
        changes.pop(problem.field, None)
    return changes, [problem.error() for problem in wrong]


def amend(
    payload: bytes, changes: Mapping[str, Any], defaults: EventDefaults
) -> tuple[bytes, str, float]:
    """The JSON, the digest of the value, and the time of a held event with *changes*.

    :param payload: the held event's JSON.
    :param defaults: as for :func:`rebuilt`.
    :raises EventError: there is no such event.
    """
    # What it was is checked again as it leaves a database; a held one may be weeks old.
    held = rebuilt(payload, defaults).event
    made = event.checked({**held.__dict__, **changes}, defaults.now)
    return event.wire_bytes(made), event.value_digest(made), made.timestamp
