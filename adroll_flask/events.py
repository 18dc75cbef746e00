"""From a call's plain values and what is known of the visitor to one checked event.

Loaded on the first report; ``docs/events.md`` lists what each field takes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .attributes import accept_event_name
from .context import Context
from .coverage import Coverage
from .drafts import derivable, draft, recheck_wire
from .errors import EventError
from .fields import accept_external_data, accept_id
from .identifiers import (
    accept_device_id,
    derived_first_party_cookie,
    email_forms,
    looks_like_email,
)
from .locations import app_location
from .model import Event, Problem, check, recheck, wire_bytes
from .names import EVENT_NAMES, FIELD_NAMES, EventName
from .products import EventProduct, gather
from .suggestions import nearest_field, shown
from .useragent import describe
from .wire import json_schema

__all__ = [
    "EVENT_NAMES",
    "Built",
    "Context",
    "Coverage",
    "Event",
    "EventName",
    "EventProduct",
    "app_location",
    "build",
    "draft",
    "json_schema",
    "recheck",
    "recheck_wire",
    "warm",
    "wire_bytes",
]

_LOG = logging.getLogger("adroll_flask.events")

_FIELDS = frozenset(FIELD_NAMES)
#: Fields that go to the event as they are; the others are prepared first.
_PLAIN = _FIELDS - {
    "products",
    "product_map",
    "email",
    "deduplication_key",
    "device_id",
    "external_data",
}
_DEVICE = ("device_os", "device_type", "package_app_name", "package_app_version")
#: Without these there is no event, whatever its name.
_REQUIRED = frozenset({"event_name", "page_location", "ip", "visitor"})
#: Without these a purchase says nothing: a wrong one waits for its mending instead of being left
#: out.
_PURCHASE = _REQUIRED | {"order_id", "value", "currency", "deduplication_key"}
#: What the request or the session knows as well, should the caller's own be wrong.
_FALLS_BACK = ("user_agent", "adct", "first_party_cookie", "user_id")
_NOT_KNOWN: Mapping[str, str] = {
    "page_location": (
        "is not known where there is no request: pass page_location= with a full URL, for an app "
        "app_location(...)"
    ),
    "ip": "is not known where there is no request: pass ip= with the visitor's address",
}
#: Identifiers for which an empty text means that there is none.
_MAY_BE_EMPTY = ("user_id", "adct", "first_party_cookie")


@dataclass(frozen=True, slots=True)
class Built:
    """An event, and what had to be left out of it."""

    event: Event
    #: ``(field, why)`` of each field that was left out.
    dropped: tuple[tuple[str, str], ...] = ()
    #: The deduplication key: two events of one name with the same key are one.
    key: str | None = field(default=None, repr=False)
    #: The event's JSON, for as long as the event is not changed.
    payload: bytes = field(default=b"", repr=False)


def build(name: str, fields: Mapping[str, Any], context: Context, *, strict: bool) -> Built:
    """One checked event.

    :param name: one of the thirteen.
    :param fields: the caller's, by the names of :data:`FIELD_NAMES`; ``None`` means not given.
    :param strict: a bad optional field raises instead of being left out. What came from the
        visitor and not from the caller never raises while the event can do without it.
    :raises EventError: a field without which there is no event is wrong or missing; for a
        purchase also its order id, value, currency and deduplication key.

    >>> built = build("pageView", {}, Context(
    ...     now=1667065540.0, page_location="https://shop.example/", ip="203.0.113.9", adct="c1"),
    ...     strict=True)
    >>> built.event
    <Event pageView: page_location, ip, timestamp, adct>
    """
    return _Builder(accept_event_name(name), fields, context, strict).built()


def warm() -> None:
    """Load what the first report loads: models, currencies, ua-parser's expressions.

    They take some tenths of a second once in a process; a server that loads the app before it
    forks, or a thread beside the first page, saves a visitor from waiting for them.
    """
    context = Context(
        now=1e9, page_location="https://adroll.invalid/", ip="::1", user_agent="Mozilla", adct="-"
    )
    build("pageView", {}, context, strict=True)


class _Builder:
    """The making of one event: collects values, drops what may be dropped, derives the rest."""

    __slots__ = ("context", "dropped", "fields", "required", "strict", "values")

    def __init__(
        self, name: str, fields: Mapping[str, Any], context: Context, strict: bool
    ) -> None:
        self.fields = {key: value for key, value in fields.items() if value is not None}
        self.context = context
        self.strict = strict
        self.required = _PURCHASE if name == "purchase" else _REQUIRED
        self.dropped: list[tuple[str, str]] = []
        self.values: dict[str, Any] = {"event_name": name}

    def built(self) -> Built:
        self._collect()
        self._emails()
        self._device_id()
        self._products()
        self._external_data()
        self._device()
        key = self._key()
        event = self._checked()
        if event.user_id is not None and "@" in event.user_id and looks_like_email(event.user_id):
            _LOG.warning(
                "user_id of an AdRoll event looks like an e-mail address: pass that as email=, "
                "which is hashed; user_id leaves as it is"
            )
        return Built(event, tuple(self.dropped), key or event.order_id, wire_bytes(event))

    def _collect(self) -> None:
        context, values = self.context, self.values
        values["advertisable_eid"] = context.advertisable_eid
        values["pixel_eid"] = context.pixel_eid
        values["page_location"] = context.page_location
        values["ip"] = context.ip
        values["timestamp"] = context.now
        values["email_forms"] = context.email_forms
        # Written out: this runs at every report.
        if context.user_agent is not None:
            values["user_agent"] = context.user_agent
        if context.adct is not None:
            values["adct"] = context.adct
        if context.first_party_cookie is not None:
            values["first_party_cookie"] = context.first_party_cookie
        if context.user_id is not None:
            values["user_id"] = context.user_id
        for name, value in self.fields.items():
            if name in _PLAIN:
                if name in _MAY_BE_EMPTY and isinstance(value, str) and not value.strip():
                    self.dropped.append((name, "is empty"))
                else:
                    values[name] = value
            elif name not in _FIELDS:
                near = nearest_field(name)
                hint = f"; did you mean {near!r}?" if near else ""
                self._refuse(EventError(shown(name), f"there is no such field{hint}"), name)

    def _refuse(self, problem: EventError, field: str) -> None:
        """Raise where the event may not or need not do without *field*, else note it."""
        if field in self.required or (self.strict and field in self.fields):
            raise problem
        self.dropped.append((problem.field, problem.expected))

    def _emails(self) -> None:
        context, values = self.context, self.values
        given = self.fields.get("email")
        made: dict[str, list[str]] = {}
        if isinstance(given, str) and not given.strip():
            self.dropped.append(("email", "is empty"))
        elif given is not None:
            try:
                made = email_forms(given, context.email_forms)
            except EventError as problem:
                self._refuse(problem, "email")
        for kind, known in (
            ("email", ()),
            ("email_sha256", context.email_sha256),
            ("email_md5", context.email_md5),
        ):
            texts = made.get(kind)
            if texts or known:
                values[kind] = (*texts, *known) if texts else known

    def _device_id(self) -> None:
        for given in (self.fields.get("device_id"), self.context.device_id):
            if given is None:
                continue
            if isinstance(given, str) and not given.strip():
                self.dropped.append(("device_id", "is empty"))
                continue
            try:
                accepted = accept_device_id(given)
            except EventError as problem:
                self._refuse(problem, "device_id")
                continue
            if accepted is None:
                self.dropped.append(("device_id", "is all zeros: the user opted out"))
            else:
                self.values["device_id"] = accepted
            return

    def _products(self) -> None:
        given = self.fields.get("products")
        if given is None:
            return
        try:
            items = gather(given, self.fields.get("product_map"))
        except EventError as problem:
            self._refuse(problem, "products")
        else:
            self.values["products"] = items

    def _external_data(self) -> None:
        given = self.fields.get("external_data")
        if given is None:
            return
        try:
            self.values["external_data"] = accept_external_data(given)
        except EventError as problem:
            self._refuse(problem, "external_data")

    def _device(self) -> None:
        """Device and browser from the user agent, unless the caller knows them (an app does)."""
        values = self.values
        user_agent = values.get("user_agent")
        if isinstance(user_agent, str) and not any(name in values for name in _DEVICE):
            values.update(describe(user_agent))

    def _key(self) -> str | None:
        given = self.fields.get("deduplication_key")
        if given is None:
            return None
        try:
            return accept_id(given, "deduplication_key")
        except EventError as problem:
            self._refuse(problem, "deduplication_key")
            return None

    def _derive(self) -> None:
        """A cookie value for a visitor without a browser, from the best other identifier."""
        values, key = self.values, self.context.derive_key
        if key is None or "adct" in values or "first_party_cookie" in values:
            return
        identifier = derivable(values.get("device_id"), values.get("user_id"))
        if identifier is not None:
            values["first_party_cookie"] = derived_first_party_cookie(key, identifier)

    def _checked(self) -> Event:
        while True:
            self._derive()
            found = check(self.values, self.context.now)
            if isinstance(found, Event):
                return found
            for problem in found:
                self._drop(problem)
            products = self.values.get("products")
            if products is not None:
                self.values["products"] = [item for item in products if item is not None]

    def _drop(self, problem: Problem) -> None:
        """Leave out what *problem* is about; every call takes something out of the values."""
        field, values = problem.field, self.values
        if field in ("page_location", "ip") and values[field] is None:
            raise EventError(field, _NOT_KNOWN[field])
        if field == "currency" and field not in values:
            # Missing beside an amount, which without a currency says nothing.
            self._refuse(problem.error(), "value")
            del values["value"]
            return
        self._refuse(problem.error(), field)
        if problem.path:
            self._drop_from_products(*problem.path)
            return
        given = values.pop(field, None)
        known = self.context.now if field == "timestamp" else None
        if field in _FALLS_BACK:
            known = getattr(self.context, field)
        if known is not None and known is not given:
            values[field] = known
        elif given is None or field == "timestamp":
            # Not of the caller's making and nothing to do without.
            raise problem.error()

    def _drop_from_products(self, index: int | str, *path: int | str) -> None:
        items = self.values["products"]
        item = items[index]
        if item is not None and path and path[0] in item and path[0] != "product_id":
            # A copy: the dict is the caller's.
            items[index] = {name: value for name, value in item.items() if name != path[0]}
        else:
            items[index] = None
