"""An event: the one description of what it may hold, whenever it is checked, written or changed.

The classes below are AdRoll's object: from them come the check, its JSON, the JSON schema, and what
is kept of a dead letter. What a field takes stands in :mod:`.fields`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple, get_args, get_type_hints

from pydantic_core import to_json

from adroll_flask.errors import EventError
from adroll_flask.visitor.identifiers import DERIVED_TIME, email_forms

from . import fields, names
from .fields import FUTURE, TAKES_A_TIME, Field, accept_external_data, rounded
from .names import IDENTIFIER_NAMES, EventDefaults, coverage_of, derived_cookie
from .products import MAX_PRODUCTS, Unreadable, gather

#: Bytes of one event as JSON. AdRoll documents no bound; a batch of a hundred stays near 3 MiB.
MAX_BYTES = 32 * 1024

#: The API's name of a field where it is another.
API_NAMES: Mapping[str, str] = {"value": "conversion_value"}

NEEDS_IDENTIFIER = (
    "takes a click id or a first-party cookie, and there is neither: pass visitor= (a Visitor or "
    "its token), adct= or first_party_cookie=, or user_id=, device_id= or email= where there is no "
    "browser"
)


class _Sparse:
    def __post_init__(self) -> None:
        # Of what is not there the class has the ``None``: what reads an event looks at less.
        for name in [name for name, value in self.__dict__.items() if value is None]:
            del self.__dict__[name]


@dataclass(frozen=True, kw_only=True, repr=False)
class EventProduct(_Sparse):
    """One product of an event, checked; its ``repr`` names fields and no values."""

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
        return f"<EventProduct: {', '.join(_told(self, PRODUCT))}>"


@dataclass(frozen=True, kw_only=True, repr=False)
class _Top:
    """What the API's object holds beside its two inner objects."""

    #: Both are filled in at sending where they are not known when the event is made.
    advertisable_eid: fields.Eid | None = None
    pixel_eid: fields.Eid | None = None
    event_name: fields.Name
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


@dataclass(frozen=True, kw_only=True, repr=False)
class _Identifiers:
    """The API's ``identifiers``: at least one of ``adct`` and ``first_party_cookie``."""

    adct: fields.Adct | None = None
    first_party_cookie: fields.Cookie | None = None
    #: In clear text; ``None`` unless ``ADROLL_EMAIL`` has ``"plain"``.
    email: fields.Email | None = None
    email_sha256: fields.Sha256 | None = None
    email_md5: fields.Md5 | None = None
    user_id: fields.UserId | None = None
    device_id: fields.DeviceId | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class _Attributes:
    """The API's ``event_attributes``, beside the products."""

    order_id: fields.Id | None = None
    #: Here and in the identifiers, as in AdRoll's sample of a conversion.
    user_id: fields.UserId | None = None
    total: fields.Amount | None = None
    keywords: fields.Keywords | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Event(_Identifiers, _Top, _Attributes, _Sparse):
    """One event as it will be sent; frozen, checked, changed by :meth:`replace` only.

    What ``before_report`` gets and ``adroll_flask.testing`` returns. Its ``repr`` names fields
    and no values.
    """

    products: tuple[EventProduct, ...] = ()
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
        return checked({**self.__dict__, **changes}, max(self.timestamp, time.time()))

    def wire(self) -> dict[str, Any]:
        """The API's JSON object of this event; the EIDs are absent where they are not known."""
        wire: dict[str, Any] = json.loads(written(self.__dict__))
        return wire

    @property
    def coverage(self) -> names.Coverage:
        """Which identifiers the event carries, and which the site could have added."""
        values = self.__dict__
        return coverage_of(
            tuple([name in values for name in IDENTIFIER_NAMES]),
            self.email_forms,
            # A cookie that was made from another identifier tells of no browser.
            self.adct is None and (self.first_party_cookie or "").endswith("-" + DERIVED_TIME),
            self.device_id is None and "package_app_name=" in self.page_location,
        )

    def __repr__(self) -> str:
        told = [name for name in _told(self, FIELDS) if name not in ("event_name", "email_forms")]
        return f"<Event {names.shown(getattr(self, 'event_name', None))}: {', '.join(told)}>"


def _told(of: object, which: Iterable[str]) -> list[str]:
    return [name for name in which if getattr(of, name, None)]


def _table(part: type) -> Mapping[str, Field]:
    """What the fields of *part* take, by their annotations."""
    table = {}
    for name, hint in get_type_hints(part, include_extras=True).items():
        kind = hint if hasattr(hint, "__metadata__") else get_args(hint)[0]
        table[name] = kind.__metadata__[0]
    return table


def address_values(email: Any, forms: tuple[str, ...]) -> dict[str, str | None]:
    """An event's address and hashes for *email*, never some of another's: it may be two people.

    :param forms: those that may leave.
    """
    made = {} if email is None else email_forms(email, forms)
    return dict.fromkeys(names.FORM_NAMES.values()) | made


PRODUCT = _table(EventProduct)
TOP = _table(_Top)
IDENTIFIERS = _table(_Identifiers)
ATTRIBUTES = _table(_Attributes)
_REQUIRED = ("event_name", "page_location", "ip", "timestamp")


_FORMS: Final = (*names.FORM_NAMES,)


def _forms(value: Any) -> tuple[str, ...]:
    # Compared, not looked up: anything may stand in it.
    if not isinstance(value, tuple | list) or not all(map(_FORMS.__contains__, value)):
        raise EventError("email_forms", "takes any of 'sha256', 'md5', 'plain'")
    return tuple(value)


FIELDS: Mapping[str, Field] = {
    **ATTRIBUTES,
    # Each of them is checked afterwards.
    "products": Field(gather, {}),
    **TOP,
    **IDENTIFIERS,
    "email_forms": Field(_forms, {}),
}


def value_digest(event: Event) -> str:
    """By which a second report of the same key with another value is noticed."""
    return f"{event.value} {event.currency}"


# -- AdRoll's JSON -------------------------------------------------------------------------

_TOP_NAMES, _IDENTIFIER_NAMES, _ATTRIBUTE_NAMES = (
    tuple((name, API_NAMES.get(name, name)) for name in table)
    for table in (TOP, IDENTIFIERS, ATTRIBUTES)
)


def _known(values: Mapping[str, Any], table: Iterable[tuple[str, str]]) -> dict[str, Any]:
    return {api: values[name] for name, api in table if name in values}


def amount_as_text(values: dict[str, Any], name: str) -> dict[str, Any]:
    """*values* with the amount *name*, if there, as AdRoll's JSON has it."""
    # The writer takes an amount too, but swallows what a signal's handler raises while it asks for
    # the text (Ctrl-C, a job's time limit), and writes "<unprintable Decimal object>" in its place.
    if isinstance(values.get(name), Decimal):
        values[name] = str(values[name])
    return values


def products_as_json(products: Iterable[EventProduct]) -> list[dict[str, Any]]:
    """*products* as AdRoll's JSON has them."""
    return [amount_as_text({**vars(one)}, "price") for one in products]


def written(values: Mapping[str, Any]) -> bytes:
    """The API's JSON object of an event's *values*, of a draft's too."""
    wire = amount_as_text(_known(values, _TOP_NAMES), "conversion_value")
    wire["identifiers"] = _known(values, _IDENTIFIER_NAMES)
    attributes = amount_as_text(_known(values, _ATTRIBUTE_NAMES), "total")
    if values.get("products"):
        attributes["products"] = products_as_json(values["products"])
    if attributes:
        wire["event_attributes"] = attributes
    return to_json(wire)


def wire_bytes(event: Event) -> bytes:
    """The event as the JSON that the outbox keeps and AdRoll gets.

    :raises EventError: more than 32 KiB.
    """
    payload = written(event.__dict__)
    if len(payload) > MAX_BYTES:
        wire = json.loads(payload)
        wire.update(wire.pop("event_attributes", {}))
        largest = max((len(to_json(part)), name) for name, part in wire.items())[1]
        raise EventError(
            "event", f"takes at most {MAX_BYTES // 1024} KiB as JSON; {largest} is largest"
        )
    return payload


# -- whose it is --------------------------------------------------------------------------


def matcher(
    *,
    email: str | None = None,
    user_id: str | None = None,
    cookie: str | None = None,
    adct: str | None = None,
) -> Callable[[dict[str, Any]], bool]:
    """A test for events (the API's JSON objects) that carry any of these identifiers.

    :param email: an address; events carry it in clear or as a hash, and all forms are looked for.
    :param user_id: the site's own id of a user.
    :param cookie: a first-party cookie in any of its forms.
    :param adct: a click id.
    :raises EventError: *email* is no address, or *cookie* no cookie.

    >>> match = matcher(user_id="42")
    >>> match({"identifiers": {"user_id": "42"}})
    True
    """
    wanted: set[tuple[str, str | None]] = {("user_id", user_id), ("adct", adct)}
    if email:
        wanted |= email_forms(email, _FORMS).items()
    if cookie:
        forms = cookie, IDENTIFIERS["first_party_cookie"].accept(cookie)
        wanted |= {("first_party_cookie", form) for form in forms}

    def match(wire: Mapping[str, Any]) -> bool:
        identifiers = wire.get("identifiers")
        return isinstance(identifiers, Mapping) and any(
            (name, str(one)) in wanted
            for name, said in identifiers.items()
            for one in (said if isinstance(said, list) else [said])
        )

    return match


# -- checking ------------------------------------------------------------------------------


class Problem(NamedTuple):
    """One field that was refused."""

    #: Where: ``("products", 1, "price")``.
    path: tuple[int | str, ...]
    #: What it takes.
    expected: str

    @property
    def field(self) -> str:
        """The argument at fault."""
        return str(self.path[0])

    def error(self) -> EventError:
        """The problem as an exception."""
        steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path]
        return EventError("".join(steps)[1:], self.expected)


def check(
    values: Mapping[str, Any], now: float | None = None, known: EventDefaults | None = None
) -> Event | list[Problem]:
    """The event of *values*, or everything that is wrong with them.

    :param now: the clock that times may not be ahead of, epoch seconds.
    :param known: with what a cookie is made for somebody without a browser.
    """
    wrong: list[Problem] = []
    taken = accept(values, wrong)
    told = {problem.path[0] for problem in wrong} if wrong else ()
    for name in _REQUIRED:
        if name not in taken and name not in told:
            wrong.append(Problem((name,), "is required"))
    if not wrong:
        _fit_together(taken, now, known, wrong)
    if wrong:
        wrong.sort(key=lambda one: [*FIELDS].index(one.field) if one.field in FIELDS else 0)
    event: Event = _of(Event, taken)
    return wrong or event


def accept(given: Mapping[str, Any], wrong: list[Problem]) -> dict[str, Any]:
    """What an event's fields take of *given*; what is refused is added to *wrong*."""
    taken = _taken(given, FIELDS, wrong)
    items = taken.pop("products", ())
    products = []
    for number, item in enumerate(items):
        if not isinstance(item, Mapping):
            takes = "takes a dict, a dataclass or an object with attributes"
            wrong.append(Problem(("products", number), takes))
            continue
        if item.get("product_id") is None:
            wrong.append(Problem(("products", number, "product_id"), "is required"))
        products.append(_of(EventProduct, _taken(item, PRODUCT, wrong, ("products", number))))
    if products:
        taken["products"] = tuple(products)
    return taken


def _of(part: Any, values: dict[str, Any]) -> Any:
    # Its own way past a frozen dataclass's, which sets thirty attributes one by one.
    made = object.__new__(part)
    made.__dict__.update(values)
    return made


def _taken(
    given: Mapping[str, Any],
    table: Mapping[str, Field],
    wrong: list[Problem],
    place: tuple[int | str, ...] = (),
) -> dict[str, Any]:
    """What *table* takes of *given*; what it refuses is added to *wrong*."""
    taken: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        field = table.get(name)
        if field is None:
            of = "a product" if place else "an event"
            expected = f"is no field of {of}{names.suggestion(name, table)}"
            wrong.append(Problem((*place, names.shown(name)), expected))
            continue
        if type(value) is str and field.is_plain(value):
            taken[name] = value
            continue
        try:
            found = field.accept(value)
        except EventError as problem:
            expected = problem.expected
            if isinstance(value, Unreadable):
                expected = f"is an attribute that cannot be read ({value.error})"
            # Kept as a text: no exception that holds the input hangs on what is raised later.
            wrong.append(Problem((*place, name), expected))
        else:
            if found is not None:
                taken[name] = found
    return taken


def _fit_together(
    taken: dict[str, Any], now: float | None, known: EventDefaults | None, wrong: list[Problem]
) -> None:
    """What no field says alone."""
    if "adct" not in taken and "first_party_cookie" not in taken:
        cookie = None if known is None else derived_cookie(taken, known)
        if cookie is None:
            wrong.append(Problem(("visitor",), NEEDS_IDENTIFIER))
        else:
            taken["first_party_cookie"] = cookie
    if "value" in taken and "currency" not in taken:
        needed = "is needed with value: an ISO 4217 code such as 'EUR'"
        wrong.append(Problem(("currency",), needed))
    if "email" in taken and "plain" not in taken.get("email_forms", ()):
        hidden = "may not leave in clear text: ADROLL_EMAIL has no 'plain'"
        wrong.append(Problem(("email",), hidden))
    if now is not None and taken["timestamp"] > now + FUTURE:
        ahead = "this one lies in the future: is a local time marked as UTC?"
        wrong.append(Problem(("timestamp",), f"{TAKES_A_TIME}; {ahead}"))
    round_amounts(taken)


def round_amounts(values: dict[str, Any]) -> None:
    """Give each amount its currency's decimals."""
    currency = values.get("currency")
    for name in ("value", "total"):
        if isinstance(values.get(name), Decimal):
            values[name] = rounded(values[name], currency)
    for part in [one.__dict__ for one in values.get("products", ())]:
        if isinstance(part.get("price"), Decimal):
            part["price"] = rounded(part["price"], currency)


def checked(values: Mapping[str, Any], now: float | None = None) -> Event:
    """The event of *values*.

    :param now: the clock, epoch seconds; without it a time may lie in the future.
    :raises EventError: the first thing that is wrong with them.
    """
    found = check(values, now)
    if isinstance(found, list):
        raise found[0].error()
    return found


# -- its schema ----------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one event in a request's array."""
    products = {"type": "array", "maxItems": MAX_PRODUCTS}
    products["items"] = _schema(PRODUCT, ["product_id"])
    either = [{"required": ["adct"]}, {"required": ["first_party_cookie"]}]
    # The time is that of the request where it is not said.
    required = ["advertisable_eid", "pixel_eid", *_REQUIRED[:-1], "identifiers"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "AdRoll server-to-server event",
        "description": "One event as AdRoll's server-to-server API takes it.",
        **_schema(
            TOP,
            required,
            identifiers={**_schema(IDENTIFIERS), "anyOf": either},
            event_attributes=_schema(ATTRIBUTES, products=products),
        ),
    }


def _schema(table: Mapping[str, Field], required: Any = (), **more: Any) -> dict[str, Any]:
    properties = {API_NAMES.get(name, name): dict(field.schema) for name, field in table.items()}
    return {
        "type": "object",
        "properties": properties | more,
        "additionalProperties": False,
        **({"required": [*required]} if required else {}),
    }
