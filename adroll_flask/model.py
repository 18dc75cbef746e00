"""An event: what it may hold, checked whenever one is made."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from . import attributes
from .coverage import Coverage
from .errors import EventError
from .fields import accept_external_data, accept_keywords, accept_user_agent
from .identifiers import DERIVED_TIME, email_forms
from .locations import accept_location
from .names import IDENTIFIER_NAMES
from .products import MAX_PRODUCTS, EventProduct, gather
from .suggestions import nearest_field, nearest_product_field, shown
from .wire import compose, encode


class Event(BaseModel):
    """One event as it will be sent; frozen, checked, changed by :meth:`replace` only.

    What ``before_report`` gets and ``adroll_flask.testing`` returns. Its ``repr`` names fields
    and no values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    event_name: Annotated[str, PlainValidator(attributes.accept_event_name)]
    order_id: Annotated[str | None, PlainValidator(attributes.order_id)] = None
    # Before the amounts, which take its number of decimals.
    currency: Annotated[str | None, PlainValidator(attributes.currency)] = None
    value: Annotated[Decimal | None, PlainValidator(attributes.value)] = None
    products: Annotated[tuple[EventProduct, ...], Field(max_length=MAX_PRODUCTS)] = ()
    page_location: Annotated[str, PlainValidator(accept_location)]
    ip: Annotated[str, PlainValidator(attributes.ip)]
    user_agent: Annotated[str | None, PlainValidator(accept_user_agent)] = None
    #: Epoch seconds with milliseconds.
    timestamp: Annotated[float, PlainValidator(attributes.timestamp)]
    adct: Annotated[str | None, PlainValidator(attributes.adct)] = None
    first_party_cookie: Annotated[str | None, PlainValidator(attributes.first_party_cookie)] = None
    #: Addresses in clear text; empty unless ``ADROLL_EMAIL`` has ``"plain"``.
    email: Annotated[tuple[str, ...], PlainValidator(attributes.email)] = ()
    email_sha256: Annotated[tuple[str, ...], PlainValidator(attributes.email_sha256)] = ()
    email_md5: Annotated[tuple[str, ...], PlainValidator(attributes.email_md5)] = ()
    user_id: Annotated[str | None, PlainValidator(attributes.user_id)] = None
    device_id: Annotated[str | None, PlainValidator(attributes.device_id)] = None
    keywords: Annotated[str | None, PlainValidator(accept_keywords)] = None
    total: Annotated[Decimal | None, PlainValidator(attributes.total)] = None
    #: JSON as text.
    external_data: Annotated[str | None, PlainValidator(attributes.external_data)] = None
    device_os: Annotated[str | None, PlainValidator(attributes.device_os)] = None
    device_type: Annotated[str | None, PlainValidator(attributes.device_type)] = None
    package_app_name: Annotated[str | None, PlainValidator(attributes.package_app_name)] = None
    package_app_version: Annotated[str | None, PlainValidator(attributes.package_app_version)] = (
        None
    )
    advertisable_eid: Annotated[str | None, PlainValidator(attributes.eid)] = None
    pixel_eid: Annotated[str | None, PlainValidator(attributes.eid)] = None
    #: Which forms of an e-mail may leave: ``ADROLL_EMAIL`` when the event was made.
    email_forms: Annotated[tuple[str, ...], PlainValidator(attributes.forms)] = Field(
        default=("sha256",), exclude=True
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        values = self.__dict__
        if values["adct"] is None and values["first_party_cookie"] is None:
            raise EventError("visitor", NOBODY)
        if values["value"] is not None and values["currency"] is None:
            raise EventError("currency", "is needed with value: an ISO 4217 code such as 'EUR'")
        if values["email"] and "plain" not in values["email_forms"]:
            raise EventError("email", "may not leave in clear text: ADROLL_EMAIL has no 'plain'")
        return self

    def replace(self, **changes: Any) -> Event:
        """A copy with *changes*, checked like any other event.

        :param changes: attributes by name, in the forms that ``report_event`` takes; an
            ``email`` takes the place of the addresses and hashes that were there.
        :raises EventError: a change that an event may not have.

        ::

            event.replace(total="12.50", user_id=None)
        """
        values = _values(self)
        for name in changes:
            if name not in Event.model_fields:
                raise _unknown(name)
        now = max(values["timestamp"], time.time())
        if "email" in changes:
            email = changes.pop("email")
            forms = changes.get("email_forms", self.email_forms)
            made = email_forms(email, forms) if email else {}
            for form in ("email", "email_sha256", "email_md5"):
                changes.setdefault(form, made.get(form, ()))
        if changes.get("products") is not None:
            changes["products"] = gather(changes["products"])
        if changes.get("external_data") is not None:
            changes["external_data"] = accept_external_data(changes["external_data"])
        return checked({**values, **changes}, now=now)

    def wire(self) -> dict[str, Any]:
        """The API's JSON object of this event; the EIDs are absent where they are not known."""
        values: dict[str, Any] = self.__dict__
        products = values["products"]
        if products:
            values = {**values, "products": [product.__dict__ for product in products]}
        return compose(values)

    @property
    def coverage(self) -> Coverage:
        """Which identifiers the event carries, and which the site could have added."""
        values = self.__dict__
        carried = tuple(name for name in IDENTIFIER_NAMES if values[name])
        missing: list[str] = []
        if not values["adct"] and is_derived(values["first_party_cookie"]):
            # A token of the visitor would have brought both.
            missing.append("adct")
        if not values["first_party_cookie"]:
            missing.append("first_party_cookie")
        for form, name in _FORM_NAMES:
            if form in values["email_forms"] and not values[name]:
                missing.append(name)
        if not values["user_id"]:
            missing.append("user_id")
        if not values["device_id"] and "package_app_name=" in values["page_location"]:
            missing.append("device_id")
        return Coverage(carried, tuple(missing))

    def __repr__(self) -> str:
        values = self.__dict__
        told = [name for name in Event.model_fields if name not in _UNTOLD and values.get(name)]
        return f"<Event {shown(values.get('event_name'))}: {', '.join(told)}>"

    __str__ = __repr__


_FORM_NAMES = (("plain", "email"), ("sha256", "email_sha256"), ("md5", "email_md5"))
_UNTOLD = frozenset({"event_name", "email_forms"})

NOBODY = (
    "takes a click id or a first-party cookie, and there is neither: pass visitor= (a Visitor or "
    "its token), adct= or first_party_cookie=, or user_id= or device_id= where there is no browser"
)


def is_derived(cookie: str | None) -> bool:
    """True for a cookie value that was made from another identifier."""
    return cookie is not None and cookie.endswith("-" + DERIVED_TIME)


def _unknown(name: str) -> EventError:
    near = nearest_field(name, Event.model_fields)
    hint = f"; did you mean {near!r}?" if near else ""
    return EventError(shown(name), f"is no field of an event{hint}")


# -- checking ------------------------------------------------------------------------------

_VALIDATE = Event.__pydantic_validator__.validate_python


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


_PHRASES: Mapping[str, str] = {
    "missing": "is required",
    "model_type": "takes a dict, a dataclass or an object with attributes",
    "tuple_type": "takes a list of products",
    "too_long": f"takes at most {MAX_PRODUCTS} products",
}


def check(values: Mapping[str, Any], now: float | None = None) -> Event | list[Problem]:
    """The event of *values*, or everything that is wrong with them.

    :param now: the clock that times may not be ahead of, epoch seconds.
    """
    currency = values.get("currency")
    currency = currency.strip().upper() if isinstance(currency, str) else None
    try:
        event: Event = _VALIDATE(values, context=attributes.Circumstances(now, currency))
    except ValidationError as error:
        return [_problem(line) for line in error.errors(include_url=False, include_input=False)]
    return event


def _problem(line: Any) -> Problem:
    loc = line["loc"]
    cause = line.get("ctx", {}).get("error")
    field = str(loc[0]) if loc else ""
    if isinstance(cause, EventError):
        return Problem(field or cause.field, tuple(loc[1:]), cause.expected)
    kind_of = line["type"]
    if kind_of == "extra_forbidden":
        name = str(loc[-1])
        near = nearest_product_field(name) if len(loc) > 1 else None
        hint = f"; did you mean {near!r}?" if near else ""
        return Problem(field, tuple(loc[1:]), f"is no field of a product{hint}")
    return Problem(field, tuple(loc[1:]), _PHRASES.get(kind_of, f"takes another value: {kind_of}"))


def checked(values: Mapping[str, Any], now: float | None = None) -> Event:
    """The event of *values*.

    :raises EventError: the first thing that is wrong with them.
    """
    found = check(values, now)
    if isinstance(found, Event):
        return found
    # Raised here and not in check(): no exception that holds the input hangs on it.
    raise found[0].error()


def _values(event: Event) -> dict[str, Any]:
    values = dict(event.__dict__)
    products = values.get("products")
    if isinstance(products, list | tuple):
        values["products"] = [
            dict(product.__dict__) if isinstance(product, EventProduct) else product
            for product in products
        ]
    return values


def recheck(event: Event, *, now: float | None = None) -> Event:
    """The same event, every value checked again, however it came about.

    :param now: the clock, epoch seconds; without it a time may lie in the future.
    :raises EventError: something in it may not leave.
    """
    values = {name: value for name, value in _values(event).items() if name in Event.model_fields}
    for name in ("event_name", "page_location", "ip", "timestamp"):
        values.setdefault(name, None)
    again = checked(values, now)
    wire_bytes(again)
    return again


def wire_bytes(event: Event) -> bytes:
    """The event as the JSON that the outbox keeps and AdRoll gets.

    :raises EventError: more than 32 KiB.
    """
    return encode(event.wire())
