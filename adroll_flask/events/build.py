"""From a call's plain values and what is known of the visitor to one checked event.

Loaded on the first report; ``docs/reference/events.md`` lists what each field takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import Any

from adroll_flask.errors import EventError
from adroll_flask.logs import Logger, get_logger
from adroll_flask.settings import Account
from adroll_flask.visitor.identifiers import accept_id, looks_like_email, new_first_party_cookie

from . import names
from .event import Event, Problem, address_values, check, checked, value_digest, wire_bytes
from .fields import accept_event_name, accept_external_data
from .location import without_persons
from .names import FIELD_NAMES, EventDefaults, values_of
from .products import gather

logger: Logger = get_logger("adroll_flask.events")

#: Without these there is no event, whatever its name.
_REQUIRED = frozenset({"event_name", "page_location", "ip", "visitor"})
#: Without these a purchase says nothing: a wrong one waits to be fixed instead of being left
#: out.
_PURCHASE = _REQUIRED | {"order_id", "value", "currency", "deduplication_key"}
#: Texts of the caller's that say nothing where they are empty, which is noted.
_IDENTIFIERS = frozenset({"email", "user_id", "device_id", "adct", "first_party_cookie"})
#: Taken as the caller says them; the others are looked at one by one.
_AS_SAID = frozenset(FIELD_NAMES).difference(
    _IDENTIFIERS, ("products", "product_map", "external_data", "deduplication_key")
)
_NOT_KNOWN: Mapping[str, str] = {
    "page_location": (
        "is not known where there is no request, or where its Host is malformed (behind nginx: "
        "proxy_set_header Host $host): pass page_location= with a full URL, for an app "
        "app_location(...)"
    ),
    "ip": (
        "is not known: pass ip= with the visitor's address; where a server gives none, as behind "
        "a Unix socket, wrap the app in werkzeug's ProxyFix"
    ),
}


# Not frozen: that would treble what a report pays for it.
@dataclass(slots=True)
class Built:
    """An event, and what had to be left out of it."""

    event: Event
    #: ``(field, why)`` of each field that was left out.
    dropped: tuple[tuple[str, str], ...] = ()
    #: The deduplication key: two events of one name with the same key are one.
    key: str | None = field(default=None, repr=False)
    #: The event's JSON.
    payload: bytes = field(default=b"", repr=False)
    #: Fields of which something was hidden that tells a person.
    hidden: tuple[str, ...] = ()
    #: What it was made with.
    defaults: EventDefaults = field(default_factory=EventDefaults, repr=False)
    #: Which identifiers the event carries, and which the site could have added.
    coverage: names.Coverage = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.coverage = self.event.coverage

    @property
    def kept_key(self) -> str | None:
        """The key as the outbox keeps it."""
        return None if self.key is None else names.kept_key(self.key, self.defaults.dedupe_secret)

    @property
    def value_digest(self) -> str:
        """See :func:`.event.value_digest`."""
        return value_digest(self.event)

    def changed(self, event: Event) -> Built:
        """The same with the *event* that ``before_report`` made of it, checked again.

        :raises EventError: something in it may not leave.
        """
        if event is self.event:
            return self
        event = checked(event.__dict__)
        told: dict[str, Any] = {"page_location": event.page_location, "order_id": event.order_id}
        hidden = hide(told, self.defaults)
        if hidden:
            event = event.replace(**told)
        key = event.order_id if self.key == self.event.order_id else self.key
        hidden = (*self.hidden, *hidden)
        return Built(event, self.dropped, key, wire_bytes(event), hidden, self.defaults)


def build(name: str, fields: Mapping[str, Any], defaults: EventDefaults, *, strict: bool) -> Built:
    """One checked event.

    :param name: one of the thirteen.
    :param fields: the caller's, by the names of :data:`.names.FIELD_NAMES`; ``None`` means not
        given.
    :param defaults: what is known of the visitor and the request.
    :param strict: a bad optional field raises instead of being left out. What came from the
        visitor and not from the caller never raises while the event can do without it.
    :raises EventError: a field without which there is no event is wrong or missing; for a
        purchase also its order id, value, currency and deduplication key.

    >>> built = build("pageView", {}, EventDefaults(
    ...     now=1667065540.0, page_location="https://shop.example/", ip="203.0.113.9", adct="c1"),
    ...     strict=True)
    >>> built.event
    <Event pageView: page_location, ip, timestamp, adct>
    """
    values = values_of(defaults)
    name = values["event_name"] = accept_event_name(name)
    required = _PURCHASE if name == "purchase" else _REQUIRED
    return _Builder(fields, defaults, strict, required, values, []).built()


def warm() -> None:
    """Load what the first report loads: the currencies, above all.

    A server that loads the app before it forks, or a thread beside the first page, saves a visitor
    from waiting for them.
    """
    trial_event(Account(), 1e9)


def trial_event(account: Account, now: float, name: str = "pageView", *, size: int = 0) -> bytes:
    """The JSON of an event with all that AdRoll asks for and nobody's data in it.

    It is made as every event is, so that what refuses it is no fault of the event's.

    :param now: the clock, epoch seconds.
    :param name: one of the thirteen.
    :param size: bytes that it has at least; what fills it hardly compresses.
    :raises EventError: *name* is none of them.
    """
    purchase = {"order_id": "adroll-flask-trial", "value": "1.00", "currency": "USD"}
    defaults = EventDefaults(
        advertisable_eid=account.advertisable_eid,
        pixel_eid=account.pixel_eid,
        now=now,
        page_location="https://example.com/adroll-flask-trial",
        # TEST-NET-3 (RFC 5737): an address that no visitor has.
        ip="203.0.113.1",
        user_agent="Mozilla/5.0 (compatible; adroll_flask trial)",
        first_party_cookie=new_first_party_cookie(now),
    )
    fields: dict[str, str] = purchase if name == "purchase" else {}
    payload = build(name, fields, defaults, strict=True).payload
    if len(payload) < size:
        fields["external_data"] = token_urlsafe(size)[: size - len(payload)]
        payload = build(name, fields, defaults, strict=True).payload
    return payload


def hide(values: dict[str, Any], defaults: EventDefaults) -> tuple[str, ...]:
    """Take what tells a person out of an event's *values*; the names of those that had any.

    Of an order id with an address in it a keyed hash is left, the one that the outbox keeps as the
    deduplication key, so that the order is found by its id all the same.
    """
    hidden: tuple[str, ...] = ()
    clear = "plain" in defaults.email_forms
    url, order = values.get("page_location"), values.get("order_id")
    if isinstance(url, str):
        left = without_persons(url, defaults.private_parameters, clear)
        if left != url:
            values["page_location"] = left
            hidden += ("page_location",)
    if isinstance(order, str) and not clear:
        kept = names.kept_key(order.strip(), defaults.dedupe_secret)
        if kept.startswith(names.HASHED) and kept != order:
            values["order_id"] = kept
            hidden += ("order_id",)
    return hidden


def said(name: str, fields: Mapping[str, Any], defaults: EventDefaults) -> dict[str, Any]:
    """What the caller's field *name* says of an event's values.

    :raises EventError: it says nothing that an event can have.
    """
    value = fields[name]
    if name == "email":
        return address_values(value, defaults.email_forms)
    if name == "products":
        return {name: gather(value, fields.get("product_map"))}
    return {name: accept_external_data(value) if name == "external_data" else value}


@dataclass(slots=True, eq=False, repr=False)
class _Builder:
    """The making of one event: collects values, drops what may be dropped, derives the rest."""

    fields: Mapping[str, Any]
    defaults: EventDefaults
    strict: bool
    #: Without these there is no such event.
    required: frozenset[str]
    values: dict[str, Any]
    dropped: list[tuple[str, str]]
    key: str | None = None

    def built(self) -> Built:
        values = self.values
        for name, value in self.fields.items():
            if name in _AS_SAID:
                if value is not None:
                    values[name] = value
            elif value is not None:
                self._take(name, value)
        hidden = hide(values, self.defaults)
        event, payload = self._checked()
        if values["device_id"] is not None and event.device_id is None:
            self.dropped.append(("device_id", "is all zeros: the user opted out"))
        if event.user_id is not None and "@" in event.user_id and looks_like_email(event.user_id):
            logger.warning(
                "user_id of an AdRoll event looks like an e-mail address: pass that as email=, "
                "which is hashed; user_id leaves as it is [user-id-is-an-address]"
            )
        key = self.key or event.order_id
        return Built(event, tuple(self.dropped), key, payload, hidden, self.defaults)

    def _take(self, name: str, value: Any) -> None:
        """One of the caller's fields."""
        try:
            if name not in FIELD_NAMES:
                why = f"there is no such field{names.suggestion(name, FIELD_NAMES)}"
                raise EventError(names.shown(name), why)
            if name in _IDENTIFIERS and isinstance(value, str) and not value.strip():
                self.dropped.append((name, "is empty"))
            elif name == "deduplication_key":
                self.key = accept_id(value, name)
            elif name != "product_map":  # goes with its products
                self.values.update(said(name, self.fields, self.defaults))
        except EventError as problem:
            self._refuse(problem, name)

    def _refuse(self, problem: EventError, field: str) -> None:
        """Raise where the event may not or need not do without *field*, else note it."""
        if field in self.required or (self.strict and self.fields.get(field) is not None):
            raise problem
        self.dropped.append((problem.field, problem.expected))

    def _checked(self) -> tuple[Event, bytes]:
        """The event without what may be left out, and its JSON."""
        values = self.values
        while True:
            found = check(values, self.defaults.now, self.defaults)
            if isinstance(found, Event):
                try:
                    return found, wire_bytes(found)
                except EventError as too_large:
                    if not found.products:
                        raise
                    self._refuse(EventError("products", too_large.expected), "products")
                    values["products"] = None
                    continue
            for problem in found:
                self._drop(problem)
            products = values.get("products")
            if products is not None:
                values["products"] = [item for item in products if item is not None]

    def _drop(self, problem: Problem) -> None:
        """Leave out what *problem* is about; every call takes something out of the values."""
        field, values = problem.field, self.values
        given = values.get(field)
        if field in _NOT_KNOWN and given is None:
            raise EventError(field, _NOT_KNOWN[field])
        if field == "currency" and given is None:
            # Missing beside an amount, which without a currency says nothing.
            self._refuse(problem.error(), "value")
            del values["value"]
            return
        self._refuse(problem.error(), field)
        if len(problem.path) > 1:
            self._drop_from_products(*problem.path[1:])
            return
        # What the request or the session knows as well, should the caller's own be wrong.
        known = self.defaults.now if field == "timestamp" else getattr(self.defaults, field, None)
        values[field] = known if known is not given else None
        if given is None or (field == "timestamp" and values[field] is None):
            # Not of the caller's making and nothing to do without.
            raise problem.error()

    def _drop_from_products(self, index: int | str, *path: int | str) -> None:
        items = self.values["products"]
        item = items[index]
        if item is not None and path and path[0] != "product_id":
            # A copy: the dict is the caller's. Keys that are no names are all told as one.
            its = item.items()
            items[index] = {n: value for n, value in its if path[0] not in (n, names.shown(n))}
        else:
            items[index] = None
