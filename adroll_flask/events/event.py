"""An event: the one description of its fields.

:class:`Event` has each field with its kind. The check, AdRoll's JSON, the JSON schema and the draft
of a dead letter are made from it. :mod:`.fields` has the kinds.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import msgspec
from msgspec import structs

from adroll_flask.errors import EventError, let_through
from adroll_flask.visitor.identifiers import DERIVED_TIME, email_forms

from . import fields, names
from .fields import FUTURE, MAX_BYTES, TAKES_TIME, accept_external_data, rounded
from .names import IDENTIFIER_NAMES, coverage_of
from .products import MAX_PRODUCTS, Unreadable, gather

#: The API's name of each field that is called otherwise there.
API_NAMES: Mapping[str, str] = {"value": "conversion_value"}

NEEDS_IDENTIFIER = (
    "takes a click id or a first-party cookie, and there is neither: pass visitor= (a Visitor or "
    "its token), adct= or first_party_cookie=, or user_id=, device_id= or email= where there is no "
    "browser"
)


class EventProduct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One product of an event; its ``repr`` names fields and no values."""

    #: The product's id in the shop's catalogue or feed.
    product_id: fields.Id
    #: The group of products that this one belongs to.
    product_group: fields.Label | None = None
    #: Of one piece, in the event's currency.
    price: fields.Amount | None = None
    #: How many pieces.
    quantity: fields.Quantity | None = None
    category: fields.Label | None = None

    def __repr__(self) -> str:
        return f"<EventProduct: {_filled(self)}>"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event as it will be sent. It is frozen and checked; :meth:`replace` makes a changed copy.

    ``before_report`` takes one, and ``adroll_flask.testing`` returns them. Its ``repr`` names
    fields and no values.
    """

    # -- the API's event_attributes; it gets user_id as well, as in AdRoll's sample of a conversion
    order_id: fields.Id | None = None
    total: fields.Amount | None = None
    keywords: fields.Keywords | None = None
    products: tuple[EventProduct, ...] = ()

    # -- the top of the API's object; an EID that is not known yet is filled in before sending
    event_name: fields.Name
    advertisable_eid: fields.Eid | None = None
    pixel_eid: fields.Eid | None = None
    #: The API's ``conversion_value``.
    value: fields.Amount | None = None
    currency: fields.Currency | None = None
    page_location: fields.Location
    ip: fields.Ip
    user_agent: fields.UserAgent | None = None
    #: Epoch seconds with milliseconds.
    timestamp: fields.Time
    #: JSON as text.
    external_data: fields.JsonText | None = None
    device_os: fields.Label | None = None
    device_type: fields.Label | None = None
    package_app_name: fields.Label | None = None
    package_app_version: fields.Label | None = None

    # -- the API's identifiers: at least one of adct and first_party_cookie
    adct: fields.Adct | None = None
    first_party_cookie: fields.Cookie | None = None
    #: In clear text; ``None`` unless ``ADROLL_EMAIL`` has ``"plain"``.
    email: fields.Email | None = None
    email_sha256: fields.Sha256 | None = None
    email_md5: fields.Md5 | None = None
    user_id: fields.UserId | None = None
    device_id: fields.DeviceId | None = None

    #: Which forms of an e-mail may leave: ``ADROLL_EMAIL`` when the event was made.
    email_forms: tuple[str, ...] = ("sha256", "md5")

    def replace(self, **changes: Any) -> Event:
        """A copy with *changes*, checked like any other event.

        :param changes: attributes by name, in the forms that ``report_event`` takes; an
            ``email`` takes the place of the address and the hashes that were there.
        :raises EventError: a change that an event may not have.

        ::

            event.replace(total="12.50", user_id=None)
        """
        if "email" in changes:
            forms = changes.get("email_forms", self.email_forms)
            changes = {**address_values(changes.pop("email") or None, forms), **changes}
        if changes.get("external_data") is not None:
            changes["external_data"] = accept_external_data(changes["external_data"])
        # A clock that was put back does not make the event's own time wrong.
        return checked({**structs.asdict(self), **changes}, max(self.timestamp, time.time()))

    def wire(self) -> dict[str, Any]:
        """The API's JSON object of this event; the EIDs are absent where they are not known."""
        wire: dict[str, Any] = json.loads(json_of(self))
        return wire

    @property
    def coverage(self) -> names.Coverage:
        """Which identifiers the event carries, and which the site could have added."""
        cookie = self.first_party_cookie
        carried = (
            self.adct is not None,
            cookie is not None,
            self.email is not None,
            self.email_sha256 is not None,
            self.email_md5 is not None,
            self.user_id is not None,
            self.device_id is not None,
        )
        # A cookie that was made from another identifier tells of no browser.
        is_derived = cookie is not None and cookie.endswith(f"-{DERIVED_TIME}")
        is_app = "package_app_name=" in self.page_location
        return coverage_of(carried, self.email_forms, is_derived, is_app)

    def __repr__(self) -> str:
        return f"<Event {names.shown(self.event_name)}: {_filled(self)}>"


def event_of(values: dict[str, Any]) -> Event:
    """The event of *values*, which are checked. A product that is a dict without an id is left
    out."""
    products: list[EventProduct] = []
    for item in values.get("products", ()):
        if type(item) is EventProduct:
            products.append(item)
        elif "product_id" in item:
            products.append(EventProduct(**item))
    values["products"] = tuple(products)
    return Event(**values)


def _filled(struct: Event | EventProduct) -> str:
    """The names of the fields that are filled, without those that each event has."""
    of_each = ("event_name", "email_forms")
    names = [name for name in struct.__struct_fields__ if getattr(struct, name)]
    return ", ".join(name for name in names if name not in of_each)


def address_values(email: Any, forms: tuple[str, ...]) -> dict[str, str | None]:
    """The values of all fields that hold an address.

    A field that *email* does not fill is emptied: it might hold another person's address.

    :param email: the address; ``None``: the event has none.
    :param forms: those that may leave.
    """
    filled = {} if email is None else email_forms(email, forms)
    return {"email": None, "email_sha256": None, "email_md5": None, **filled}


# -- the check of each field ---------------------------------------------------------------


def _kinds(struct: type) -> dict[str, Any]:
    """The kind of each field of *struct*, see :mod:`.fields`. One that holds a tuple has none."""
    kinds: dict[str, Any] = {}
    for name, hint in get_type_hints(struct, include_extras=True).items():
        # The hint of a field that may be absent is a union: its kind, or None.
        kind = hint if get_origin(hint) is Annotated else get_args(hint)[0]
        if get_origin(kind) is Annotated:
            kinds[name] = kind
    return kinds


_FORMS: Final = tuple(names.FORM_NAMES)


def _accept_forms(value: Any) -> tuple[str, ...]:
    # _FORMS is not a set: an item of the list may be unhashable.
    if not isinstance(value, tuple | list) or not all(form in _FORMS for form in value):
        raise EventError("email_forms", "takes any of 'sha256', 'md5', 'plain'")
    return tuple(value)


_KINDS: Final = _kinds(Event)
_PRODUCT_KINDS: Final = _kinds(EventProduct)
#: Checks, by the name of the field that each of them checks; ``None``: the field is checked apart.
Checks = Mapping[str, Callable[[Any], Any] | None]
#: The check of each field of an event, and of a product.
CHECKS: Final[Checks] = {
    **{name: kind.__metadata__[1] for name, kind in _KINDS.items()},
    "email_forms": _accept_forms,
    "products": None,
}
PRODUCT_CHECKS: Final[Checks] = {
    name: kind.__metadata__[1] for name, kind in _PRODUCT_KINDS.items()
}

# -- AdRoll's JSON -------------------------------------------------------------------------

#: The fields that AdRoll takes in ``event_attributes``, beside the products.
ATTRIBUTES: Final = ("order_id", "user_id", "total", "keywords")
#: The fields that stand at the top of the API's object.
TOP: Final = tuple(name for name in _KINDS if name not in (*ATTRIBUTES, *IDENTIFIER_NAMES))


def _object(title: str, kinds: Mapping[str, Any]) -> Any:
    """One of the API's objects, of which each member may be absent."""
    members = [(name, kind, None) for name, kind in kinds.items()]
    return msgspec.defstruct(
        title, members, omit_defaults=True, forbid_unknown_fields=True, rename=API_NAMES
    )


_Product: Any = _object("Product", _PRODUCT_KINDS)
_Products: Any = Annotated[list[_Product], msgspec.Meta(max_length=MAX_PRODUCTS)]
_Identifiers: Any = _object("Identifiers", {name: _KINDS[name] for name in IDENTIFIER_NAMES})
_Attributes: Any = _object(
    "Attributes", {name: _KINDS[name] for name in ATTRIBUTES} | {"products": _Products}
)
_Wire: Any = _object(
    "Event",
    {name: _KINDS[name] for name in TOP}
    | {"identifiers": _Identifiers, "event_attributes": _Attributes},
)
_NO_ATTRIBUTES: Final = _Attributes()
_encode: Final = msgspec.json.Encoder().encode
_place_of: Final = Event.__struct_fields__.index
_top_of: Final = itemgetter(*map(_place_of, TOP))
_identifiers_of: Final = itemgetter(*map(_place_of, IDENTIFIER_NAMES))
_attributes_of: Final = itemgetter(*map(_place_of, ATTRIBUTES))


def json_of(event: Event) -> bytes:
    """The API's JSON object of *event*, which may be a draft."""
    values = structs.astuple(event)
    identifiers = _Identifiers(*_identifiers_of(values))
    attributes = _Attributes(*_attributes_of(values), event.products or None)
    if attributes == _NO_ATTRIBUTES:
        attributes = None
    return _encode(_Wire(*_top_of(values), identifiers, attributes))


def wire_bytes(event: Event) -> bytes:
    """*event* as the JSON that the outbox keeps and AdRoll gets.

    :raises EventError: more than 32 KiB.
    """
    payload = json_of(event)
    if len(payload) > MAX_BYTES:
        takes = f"takes at most {MAX_BYTES // 1024} KiB as JSON"
        raise EventError("event", f"{takes}; {_largest_of(payload)} is largest")
    return payload


def _largest_of(payload: bytes) -> str:
    """The field of an event's JSON that takes the most room."""
    wire: dict[str, Any] = json.loads(payload)
    wire.update(wire.pop("event_attributes", {}))
    return max(wire, key=lambda name: len(_encode(wire[name])))


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one event in a request's array."""
    objects: dict[str, Any] = msgspec.json.schema(_Wire)["$defs"]
    for part in objects.values():
        for member in part["properties"].values():
            # A member without a value is left out of what is sent: it never is null.
            member.pop("default", None)
    # A timestamp is not required: without one AdRoll takes the time of the request.
    event: dict[str, Any] = objects.pop("Event")
    event["required"] = [
        "advertisable_eid",
        "pixel_eid",
        "event_name",
        "page_location",
        "ip",
        "identifiers",
    ]
    objects["Identifiers"]["anyOf"] = [{"required": [it]} for it in ("adct", "first_party_cookie")]
    objects["Product"]["required"] = ["product_id"]
    return event | {
        "$defs": objects,
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "AdRoll server-to-server event",
        "description": "One event as AdRoll's server-to-server API takes it.",
    }


# -- whose it is --------------------------------------------------------------------------


def matcher(
    *,
    email: str | None = None,
    user_id: str | None = None,
    device_id: str | None = None,
    cookie: str | None = None,
    click_id: str | None = None,
) -> Callable[[dict[str, Any]], bool]:
    """A test for events (the API's JSON objects): does one carry any of these identifiers?

    :param email: an address; it is looked for in clear and as a hash.
    :param user_id: the site's own id of a user.
    :param device_id: an advertising id, in any case of letters.
    :param cookie: a first-party cookie in any of its forms.
    :param click_id: a click id.
    :raises EventError: *email* is no address, or *cookie* no cookie.

    >>> match = matcher(user_id="42")
    >>> match({"identifiers": {"user_id": "42"}})
    True
    """
    wanted: set[tuple[str, str | None]] = {("user_id", user_id), ("adct", click_id)}
    if device_id:
        wanted.add(("device_id", device_id.lower()))
    if email:
        wanted |= email_forms(email, _FORMS).items()
    if cookie:
        accepted = fields.accept_cookie(cookie)
        wanted |= {("first_party_cookie", cookie), ("first_party_cookie", accepted)}

    def match(wire: Mapping[str, Any]) -> bool:
        identifiers = wire.get("identifiers")
        if not isinstance(identifiers, Mapping):  # a draft's may be anything
            return False
        for name, value in identifiers.items():
            values = value if isinstance(value, list) else [value]
            # An event keeps a device id in the case in which it was reported.
            form = str.lower if name == "device_id" else str
            if any((name, form(str(item))) in wanted for item in values):
                return True
        return False

    return match


# -- checking ------------------------------------------------------------------------------


_REQUIRED: Final = ("event_name", "page_location", "ip", "timestamp")


def checked(
    values: Mapping[str, Any], now: float | None = None, places: Mapping[str, str] | None = None
) -> Event:
    """The event of *values*.

    :param now: the clock, epoch seconds; without it a time may lie in the future.
    :param places: what an error calls a field, where that is not its name.
    :raises EventError: the first thing that is wrong with them.
    """
    problems: list[EventError] = []
    taken = accept(values, problems)
    accept_products(taken, values.get("products"), None, problems)
    refused = [problem.field for problem in problems]
    for name in _REQUIRED:
        if taken.get(name) is None and name not in refused:
            problems.append(EventError(name, "is required"))
    if not problems:
        problems = misfits(taken, now)
    if problems:
        first = min(problems, key=position_of)
        field = argument_of(first)
        place = field if places is None else places.get(field, field)
        # Only the argument has another name there. What follows it, such as "[1].price", stays.
        raise EventError(place + first.field.removeprefix(field), first.expected)
    round_amounts(taken)
    return event_of(taken)


def argument_of(problem: EventError) -> str:
    """The argument at fault: ``products``, where the field is ``products[1].price``."""
    return problem.field.partition("[")[0]


def position_of(problem: EventError) -> int:
    """The key by which problems are sorted: in the order of an event's fields, others first."""
    order = Event.__struct_fields__
    field = argument_of(problem)
    return order.index(field) if field in order else 0


def accept(
    values: Mapping[str, Any],
    problems: list[EventError],
    checks: Checks = CHECKS,
    product: int | None = None,
) -> dict[str, Any]:
    """What *checks* make of *values*, without those that are checked apart.

    :param problems: takes what is refused.
    :param product: the number of the product whose values they are; ``None``: an event's.
    """
    taken: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        check = checks.get(name)
        try:
            if check is not None:
                taken[name] = check(value)
            elif name not in checks:
                thing = "an event" if product is None else "a product"
                raise EventError(name, f"is no field of {thing}{names.suggestion(name, checks)}")
        except Exception as problem:
            let_through(problem)
            problems.append(_refusal(name, value, problem, checks, product))
    return taken


def _refusal(
    name: str, value: object, problem: Exception, checks: Checks, product: int | None
) -> EventError:
    """Why *value* is refused.

    This is a new error, since *problem* may be chained to an exception that holds the input.
    """
    field = name if name in checks else names.shown(name)
    if product is not None:
        field = f"products[{product}].{field}"
    if isinstance(value, Unreadable):
        return EventError(field, f"is an attribute that cannot be read ({value.error})")
    if isinstance(problem, EventError):
        return EventError(field, problem.expected)
    # The value's own code raised.
    return EventError(field, f"cannot be read ({type(problem).__name__})")


def accept_products(
    taken: dict[str, Any], products: Any, product_map: Any, problems: list[EventError]
) -> None:
    """Check each of *products*, and put them into *taken*.

    A product becomes an ``EventProduct`` if all of it is right and the event's currency is known.
    Any other product becomes a dict of those of its fields that are right.

    :param taken: the event's checked values; the currency is read from it.
    :param product_map: see :func:`.products.gather`.
    :param problems: takes what is refused.
    """
    if products is None:
        return
    try:
        items = gather(products, product_map)
    except EventError as problem:
        problems.append(EventError(problem.field, problem.expected))
        return
    currency = taken.get("currency")
    accepted = []
    for number, item in enumerate(items):
        accepted.append(_accept_product(number, item, currency, problems))
    taken["products"] = accepted


def _accept_product(
    number: int, item: Any, currency: str | None, problems: list[EventError]
) -> EventProduct | dict[str, Any]:
    if type(item) is dict and currency is not None:
        try:
            return _whole_product(currency, **item)
        except Exception as problem:
            let_through(problem)  # accept() below collects each problem of the product
    if type(item) is not dict and not isinstance(item, Mapping):
        takes = "takes a dict, a dataclass or an object with attributes"
        problems.append(EventError(f"products[{number}]", takes))
        return {}
    if item.get("product_id") is None:
        problems.append(EventError(f"products[{number}].product_id", "is required"))
    taken = accept(item, problems, PRODUCT_CHECKS, number)
    if "price" in taken:
        taken["price"] = rounded(taken["price"], currency)
    return taken


@functools.lru_cache(1024, typed=True)
def _whole_product(currency: str, /, **item: Any) -> EventProduct:
    """The product of *item*, if all of it is right.

    1,024 products are remembered by their values: a shop's orders have the same ones again and
    again.

    :raises Exception: something of *item* is wrong.
    """
    problems: list[EventError] = []
    taken = accept(item, problems, PRODUCT_CHECKS, 0)
    if problems:
        raise problems[0]
    if "price" in taken:
        taken["price"] = rounded(taken["price"], currency)
    return EventProduct(**taken)


def misfits(taken: Mapping[str, Any], now: float | None) -> list[EventError]:
    """What is wrong with checked values, each of which is right alone."""
    problems = []
    get = taken.get
    if get("adct") is None and get("first_party_cookie") is None:
        problems.append(EventError("visitor", NEEDS_IDENTIFIER))
    if get("value") is not None and get("currency") is None:
        needed = "is needed with value: an ISO 4217 code such as 'EUR'"
        problems.append(EventError("currency", needed))
    if get("email") is not None and "plain" not in get("email_forms", ()):
        hidden = "may not leave in clear text: ADROLL_EMAIL has no 'plain'"
        problems.append(EventError("email", hidden))
    if now is not None and taken["timestamp"] > now + FUTURE:
        ahead = "this one lies in the future: is a local time marked as UTC?"
        problems.append(EventError("timestamp", f"{TAKES_TIME}; {ahead}"))
    return problems


def round_amounts(values: dict[str, Any]) -> None:
    """Give each amount its currency's decimals. The prices of products have them."""
    currency = values.get("currency")
    for name in ("value", "total"):
        amount = values.get(name)
        if amount is not None:
            values[name] = rounded(amount, currency)
