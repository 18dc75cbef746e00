"""An event: the one description of what it may hold, whenever it is checked, written or changed.

From the classes below come the check (by pydantic's core), AdRoll's JSON and its schema, and the
:class:`Event` that ``before_report`` gets. Python looks at a value only where the core refuses it
(:mod:`.coercion`), and at what no type can say: how fields fit together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json, to_json

from adroll_flask.errors import EventError
from adroll_flask.visitor.identifiers import DERIVED_TIME, EMPTY_HASHES, accept_hash, email_forms

from .coercion import FUTURE, TAKES_A_TIME, accept_external_data
from .coverage import FORM_NAMES, Coverage, coverage_of
from .field_types import (
    CORE,
    OTHER,
    Adct,
    Address,
    Amount,
    Cookie,
    Currency,
    DeviceId,
    Eid,
    EventName,
    Id,
    Ip,
    JsonText,
    Keywords,
    Label,
    Location,
    Md5,
    Quantity,
    Sha256,
    Time,
    UserAgent,
    UserId,
)
from .money import UNITS, rounded
from .names import IDENTIFIER_NAMES, PRODUCT_FIELDS
from .products import MAX_PRODUCTS, gather
from .suggestions import nearest_field, nearest_product_field, shown

#: Bytes of one event as JSON. AdRoll documents no bound; a batch of a hundred stays near 3 MiB.
MAX_BYTES = 32 * 1024


class _Part(BaseModel):
    """A part of an event: frozen, closed, and without values in its errors."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        # Also an instance that was made around the check is checked.
        revalidate_instances="always",
        populate_by_name=True,
        loc_by_alias=False,
    )


class EventProduct(_Part):
    """One product of an event, checked; its ``repr`` names fields and no values."""

    #: The product's id in the shop's catalogue or feed.
    product_id: Id
    #: The group of products that this one belongs to.
    product_group: Label | None = None
    #: Of one piece, in the event's currency.
    price: Amount | None = None
    #: How many pieces.
    quantity: Quantity | None = None
    category: Label | None = None

    def __repr__(self) -> str:
        told = [name for name in PRODUCT_FIELDS if self.__dict__.get(name) is not None]
        return f"<EventProduct: {', '.join(told)}>"

    __str__ = __repr__


class EventAttributes(_Part):
    """The API's ``event_attributes``."""

    order_id: Id | None = None
    #: Here and in the identifiers, as in AdRoll's sample of a conversion.
    user_id: UserId | None = None
    total: Amount | None = None
    keywords: Keywords | None = None
    products: Annotated[tuple[EventProduct, ...], Field(max_length=MAX_PRODUCTS)] = ()


class Identifiers(_Part):
    """The API's ``identifiers``: at least one of ``adct`` and ``first_party_cookie``."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["adct"]}, {"required": ["first_party_cookie"]}]}
    )

    adct: Adct | None = None
    first_party_cookie: Cookie | None = None
    #: In clear text; ``None`` unless ``ADROLL_EMAIL`` has ``"plain"``.
    email: Address | None = None
    email_sha256: Sha256 | None = None
    email_md5: Md5 | None = None
    user_id: UserId | None = None
    device_id: DeviceId | None = None


class EventTop(_Part):
    """What the API's object holds beside its two inner objects."""

    #: Both are filled in at sending where they are not known when the event is made.
    advertisable_eid: Eid | None = None
    pixel_eid: Eid | None = None
    event_name: EventName
    # Before the visitor's: where both are amiss the caller's own is told first.
    value: Annotated[Amount | None, Field(alias="conversion_value")] = None
    currency: Currency | None = None
    page_location: Location
    ip: Ip
    user_agent: UserAgent | None = None
    #: Epoch seconds with milliseconds.
    timestamp: Time
    #: JSON as text.
    external_data: JsonText | None = None
    device_os: Label | None = None
    device_type: Label | None = None
    package_app_name: Label | None = None
    package_app_version: Label | None = None


class WireEvent(EventTop):
    """One event as AdRoll's server-to-server API takes it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(populate_by_name=False, loc_by_alias=True)

    identifiers: Identifiers
    event_attributes: EventAttributes | None = None


NEEDS_IDENTIFIER = (
    "takes a click id or a first-party cookie, and there is neither: pass visitor= (a Visitor or "
    "its token), adct= or first_party_cookie=, or user_id= or device_id= where there is no browser"
)


class Event(Identifiers, EventTop, EventAttributes):
    """One event as it will be sent; frozen, checked, changed by :meth:`replace` only.

    What ``before_report`` gets and ``adroll_flask.testing`` returns. Its ``repr`` names fields
    and no values.
    """

    #: Which forms of an e-mail may leave: ``ADROLL_EMAIL`` when the event was made.
    email_forms: tuple[Literal["sha256", "md5", "plain"], ...] = ("sha256", "md5")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        values = self.__dict__
        value, currency = values["value"], values["currency"]
        if values["adct"] is None and values["first_party_cookie"] is None:
            raise EventError("visitor", NEEDS_IDENTIFIER)
        if value is not None and currency is None:
            raise EventError("currency", "is needed with value: an ISO 4217 code such as 'EUR'")
        if values["email"] is not None and "plain" not in values["email_forms"]:
            raise EventError("email", "may not leave in clear text: ADROLL_EMAIL has no 'plain'")
        # Written out: this runs at every report.
        if values["email_sha256"] in EMPTY_HASHES:
            accept_hash(values["email_sha256"], "email_sha256")  # raises what it says of those
        if values["email_md5"] in EMPTY_HASHES:
            accept_hash(values["email_md5"], "email_md5")
        values["timestamp"] = round(values["timestamp"], 3)
        # Most amounts have their currency's decimals already.
        unit = UNITS.get(currency)
        if value is not None and not value.same_quantum(unit):
            values["value"] = rounded(value, currency)
        if values["total"] is not None:
            values["total"] = rounded(values["total"], currency)
        for product in values["products"]:
            price = product.__dict__["price"]
            if price is not None and (unit is None or not price.same_quantum(unit)):
                product.__dict__["price"] = rounded(price, currency)
        return self

    def replace(self, **changes: Any) -> Event:
        """A copy with *changes*, checked like any other event.

        :param changes: attributes by name, in the forms that ``report_event`` takes; an
            ``email`` takes the place of the address and the hashes that were there.
        :raises EventError: a change that an event may not have.

        ::

            event.replace(total="12.50", user_id=None)
        """
        values = self.__dict__
        for name in changes:
            if name not in Event.model_fields:
                near = nearest_field(name, Event.model_fields)
                hint = f"; did you mean {near!r}?" if near else ""
                raise EventError(shown(name), f"is no field of an event{hint}")
        if "email" in changes:
            email = changes.pop("email")
            forms = changes.get("email_forms", self.email_forms)
            made = email_forms(email, forms) if email else {}
            for form in FORM_NAMES.values():
                changes.setdefault(form, made.get(form))
        if changes.get("products") is not None:
            changes["products"] = gather(changes["products"])
        if changes.get("external_data") is not None:
            changes["external_data"] = accept_external_data(changes["external_data"])
        return checked({**values, **changes}, now=max(values["timestamp"], time.time()))

    def wire(self) -> dict[str, Any]:
        """The API's JSON object of this event; the EIDs are absent where they are not known."""
        wire: dict[str, Any] = from_json(_written(self))
        return wire

    @property
    def coverage(self) -> Coverage:
        """Which identifiers the event carries, and which the site could have added."""
        values = self.__dict__
        return coverage_of(
            tuple(map(bool, _identifiers_of(values))),
            values["email_forms"],
            values["adct"] is None and is_derived(values["first_party_cookie"]),
            values["device_id"] is None and "package_app_name=" in values["page_location"],
        )

    def __repr__(self) -> str:
        values = self.__dict__
        told = [name for name in Event.model_fields if name not in _UNTOLD and values.get(name)]
        return f"<Event {shown(values.get('event_name'))}: {', '.join(told)}>"

    __str__ = __repr__


_UNTOLD = frozenset({"event_name", "email_forms"})
_identifiers_of = itemgetter(*IDENTIFIER_NAMES)


def is_derived(cookie: str | None) -> bool:
    """True for a cookie value that was made from another identifier."""
    return cookie is not None and cookie.endswith("-" + DERIVED_TIME)


def value_digest(event: Event) -> str:
    """By which a second report of the same key with another value is noticed."""
    return f"{event.value} {event.currency}"


# -- AdRoll's JSON -------------------------------------------------------------------------

_to_json = WireEvent.__pydantic_serializer__.to_json
_attributes_of = itemgetter(*(name for name in EventAttributes.model_fields if name != "products"))


def _written(event: Event) -> bytes:
    values = event.__dict__
    full = values["products"] or any(value is not None for value in _attributes_of(values))
    # Of a subclass pydantic writes what the declared class has: an event is its own two parts.
    parts = {"identifiers": event, "event_attributes": event if full else None}
    wire = WireEvent.__new__(WireEvent)
    object.__setattr__(wire, "__dict__", {**values, **parts})
    return _to_json(
        wire,
        by_alias=True,
        exclude_none=True,
        exclude_defaults=not values["products"],
        warnings=False,  # they would tell values
    )


def wire_bytes(event: Event) -> bytes:
    """The event as the JSON that the outbox keeps and AdRoll gets.

    :raises EventError: more than 32 KiB.
    """
    payload = _written(event)
    if len(payload) > MAX_BYTES:
        wire = from_json(payload)
        wire.update(wire.pop("event_attributes", {}))
        largest = max((len(to_json(part)), name) for name, part in wire.items())[1]
        raise EventError(
            "event", f"takes at most {MAX_BYTES // 1024} KiB as JSON; {largest} is largest"
        )
    return payload


# -- checking ------------------------------------------------------------------------------

_validate = Event.__pydantic_validator__.validate_python


@dataclass(frozen=True, slots=True)
class Problem:
    """One field that was refused."""

    #: The argument at fault.
    field: str
    #: Where in it: ``(1, "price")`` of ``products``.
    path: tuple[int | str, ...]
    #: What it takes.
    expected: str

    def error(self) -> EventError:
        """The problem as an exception."""
        text = self.field
        for step in self.path:
            text += f"[{step}]" if isinstance(step, int) else f".{shown(step)}"
        return EventError(text, self.expected)


PHRASES: Mapping[str, str] = {
    "missing": "is required",
    "model_type": "takes a dict, a dataclass or an object with attributes",
    "tuple_type": "takes a list of products",
    "too_long": f"takes at most {MAX_PRODUCTS} products",
}


def problems(error: ValidationError, phrases: Mapping[str, str] = PHRASES) -> list[Problem]:
    """What *error* says, without the core's own word where Python has a better one."""
    lines = error.errors(include_url=False, include_input=False)
    return [_problem(line, phrases) for line in lines if line["loc"][-1:] != (CORE,)]


def _problem(line: Any, phrases: Mapping[str, str]) -> Problem:
    loc, kind = line["loc"], line["type"]
    if loc[-1:] == (OTHER,):
        loc = loc[:-1]
    cause = line.get("ctx", {}).get("error")
    field, path = str(loc[0]) if loc else "", tuple(loc[1:])
    if isinstance(cause, EventError):
        return Problem(field or cause.field, path, cause.expected)
    if kind == "extra_forbidden":
        of_product = any(isinstance(step, int) for step in path)
        name = str(loc[-1])
        near = nearest_product_field(name) if of_product else nearest_field(name, _API_FIELDS)
        hint = f"; did you mean {near!r}?" if near else ""
        of = "a product" if of_product else "the API"
        return Problem(field if path else shown(field), path, f"is no field of {of}{hint}")
    return Problem(field, path, phrases.get(kind, f"takes another value: {kind}"))


_API_FIELDS = (
    *(field.alias or name for name, field in WireEvent.model_fields.items()),
    *EventAttributes.model_fields,
    *Identifiers.model_fields,
)


def check(values: Mapping[str, Any] | Event, now: float | None = None) -> Event | list[Problem]:
    """The event of *values*, or everything that is wrong with them.

    :param now: the clock that times may not be ahead of, epoch seconds.
    """
    try:
        event: Event = _validate(values)
    except ValidationError as error:
        return problems(error)
    if now is not None and event.timestamp > now + FUTURE:
        ahead = "this one lies in the future: is a local time marked as UTC?"
        return [Problem("timestamp", (), f"{TAKES_A_TIME}; {ahead}")]
    return event


def checked(values: Mapping[str, Any] | Event, now: float | None = None) -> Event:
    """The event of *values*.

    :raises EventError: the first thing that is wrong with them.
    """
    found = check(values, now)
    if isinstance(found, Event):
        return found
    # Raised here and not in check(): no exception that holds the input hangs on it.
    raise found[0].error()


def recheck(event: Event, *, now: float | None = None) -> Event:
    """The same event, every value checked again, however it came about.

    :param now: the clock, epoch seconds; without it a time may lie in the future.
    :raises EventError: something in it may not leave.
    """
    again = checked(event, now)
    wire_bytes(again)
    return again
