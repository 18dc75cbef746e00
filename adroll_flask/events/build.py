"""Makes one checked event of a call's plain values and of what the visitor and the request give.

It is imported by the first report. ``docs/reference/events.md`` lists what each field takes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from msgspec import structs

from adroll_flask.accounts import Account
from adroll_flask.errors import EventError
from adroll_flask.logs import Logger, get_logger
from adroll_flask.visitor.identifiers import (
    MAX_TEXT,
    accept_id,
    looks_like_email,
    new_first_party_cookie,
)

from . import names
from .dedupe_key import HASHED, kept_key
from .event import (
    CHECKS,
    Checks,
    Event,
    accept,
    accept_products,
    address_values,
    argument_of,
    checked,
    event_of,
    misfits,
    position_of,
    round_amounts,
    wire_bytes,
)
from .fields import accept_event_name, accept_external_data, accept_time
from .names import FIELD_NAMES, EventDefaults, derived_cookie
from .page_location import may_hold_address, may_tell, without_persons

logger: Logger = get_logger("adroll_flask.events")

#: Arguments that are never left out: where one is wrong, there is no event.
_NEEDED = frozenset({"event_name", "page_location", "ip", "visitor"})
#: The same of a purchase, which says nothing with a wrong one. It then waits to be fixed.
_NEEDED_BY_PURCHASE = _NEEDED | {"order_id", "value", "currency", "deduplication_key"}
#: The check of each argument of a call. An address becomes several fields, and products have
#: fields of their own: both are checked apart.
_CALL_CHECKS: Checks = {
    **{name: CHECKS[name] for name in FIELD_NAMES if name in CHECKS},
    "external_data": accept_external_data,
    "deduplication_key": accept_id,
    "email": None,
    "product_map": None,
}
#: Arguments that may be an empty text. Then they are left out, and the receipt says so.
_IDENTIFIERS = ("email", "user_id", "device_id", "adct", "first_party_cookie")
#: Characters of a text that are looked at to tell whether it says anything.
_BLANK = MAX_TEXT + 1
_NOT_KNOWN: Mapping[str, str] = {
    "page_location": (
        "is not known where there is no request, or where its Host is malformed (behind nginx: "
        "proxy_set_header Host $host): pass page_location= with a full URL, for an app "
        "app_location(...)"
    ),
    "ip": (
        "is not known: pass ip= with the visitor's address; where a server gives none, as behind "
        "a Unix socket, wrap the app in werkzeug's ProxyFix (uvicorn: --proxy-headers)"
    ),
}


# Not frozen: a report would pay three times as much for it.
@dataclass(slots=True, eq=False, repr=False)
class Built:
    """An event as it is kept and sent, and what had to be left out of it."""

    event: Event
    #: The event's JSON.
    payload: bytes
    #: The deduplication key: two events of one name with the same key are one.
    key: str | None
    #: What it was made with.
    defaults: EventDefaults
    #: ``(field, why)`` of each field that was left out.
    dropped: tuple[tuple[str, str], ...] = ()
    #: Fields in which something was hidden that tells who a person is.
    hidden: tuple[str, ...] = ()
    #: Which identifiers the event carries, and which the site could have added.
    coverage: names.Coverage = field(init=False)

    def __post_init__(self) -> None:
        self.coverage = self.event.coverage

    def kept_key(self) -> str | None:
        """The key as the outbox keeps it."""
        return None if self.key is None else kept_key(self.key, self.defaults.dedupe_secret)

    def value_digest(self) -> str:
        """Value and currency: by it a second report of the same key with others is noticed."""
        return f"{self.event.value!s} {self.event.currency}"

    def changed(self, event: Event) -> Built:
        """The same with the *event* that ``before_report`` returned, which is checked again.

        :raises EventError: *event* cannot be sent.
        """
        if event is self.event:
            return self
        event, hidden = hide(checked(structs.asdict(event)), self.defaults)
        # A key that is the order id changes with it.
        key = event.order_id if self.key == self.event.order_id else self.key
        hidden = (*self.hidden, *hidden)
        return Built(event, wire_bytes(event), key, self.defaults, self.dropped, hidden)


def build(name: str, fields: Mapping[str, Any], defaults: EventDefaults, *, strict: bool) -> Built:
    """One checked event.

    :param name: one of the thirteen.
    :param fields: the caller's arguments, by the names of :data:`.names.FIELD_NAMES`. One that is
        ``None`` counts as not given.
    :param defaults: what the visitor and the request give.
    :param strict: raise where an optional argument of the caller's is wrong; else it is left out.
        What is wrong of the visitor's is always left out.
    :raises EventError: a field is wrong or missing without which there is no event: of a purchase
        that is also a wrong order id, value, currency or deduplication key.

    >>> built = build("pageView", {}, EventDefaults(
    ...     now=1667065540.0, page_location="https://shop.example/", ip="203.0.113.9", adct="c1"),
    ...     strict=True)
    >>> built.event
    <Event pageView: page_location, ip, timestamp, adct>
    """
    name = accept_event_name(name)
    needed = _NEEDED_BY_PURCHASE if name == "purchase" else _NEEDED
    dropped: list[tuple[str, str]] = []
    problems: list[EventError] = []
    leave_out = partial(_leave_out, fields, needed, strict, dropped)
    values = values_of_call(fields, defaults, problems, dropped)
    for argument, why in _NOT_KNOWN.items():
        if values.get(argument) is None and argument not in [each.field for each in problems]:
            problems.append(EventError(argument, why))
    problems.sort(key=position_of)
    for problem in problems:
        leave_out(problem, argument_of(problem))
    for problem in misfits(values, defaults.now):
        if problem.field == "currency":
            # The amount is left out: without a currency it says nothing.
            leave_out(problem, "value")
            values["value"] = None
        elif problem.field == "timestamp" and fields.get("timestamp") is not None:
            leave_out(problem, "timestamp")
            values["timestamp"] = accept_time(defaults.now)
        else:
            # There is no event without an identifier, and nothing takes its place.
            raise problem
    round_amounts(values)
    key = values.pop("deduplication_key", None)
    values["event_name"] = name
    event, hidden = hide(event_of(values), defaults)
    try:
        payload = wire_bytes(event)
    except EventError as too_large:
        if not event.products:
            raise
        leave_out(EventError("products", too_large.expected), "products")
        event = structs.replace(event, products=())
        payload = wire_bytes(event)
    user_id = event.user_id
    if user_id is not None and "@" in user_id and looks_like_email(user_id):
        logger.warning(
            "user_id of an AdRoll event looks like an e-mail address: pass that as email=, "
            "which is hashed; user_id leaves as it is [user-id-is-an-address]"
        )
    return Built(event, payload, key or event.order_id, defaults, tuple(dropped), hidden)


def _leave_out(
    fields: Mapping[str, Any],
    needed: Collection[str],
    strict: bool,
    dropped: list[tuple[str, str]],
    problem: EventError,
    name: str,
) -> None:
    """Note in *dropped* that the field *name* is left out, or raise where it may not be.

    :raises EventError: *problem*.
    """
    is_callers = fields.get(name) is not None
    is_needed = name in needed or (name == "timestamp" and not is_callers)
    if is_needed or (strict and is_callers):
        raise problem
    dropped.append((problem.field, problem.expected))


def values_of_call(
    fields: Mapping[str, Any],
    defaults: EventDefaults,
    problems: list[EventError],
    dropped: list[tuple[str, str]],
) -> dict[str, Any]:
    """An event's values: those of the call, and *defaults* for the fields that it does not have.

    Each value is checked. Amounts are not rounded yet. Each product of the call's is an
    ``EventProduct`` or a dict, see :func:`.event.accept_products`.

    :param problems: each refusal of a check is added to it. The field then has its default, if
        there is one.
    :param dropped: the call's fields that are empty are added to it.
    """
    taken = accept(fields, problems, _CALL_CHECKS)
    email = fields.get("email")
    if email is not None:
        try:
            taken |= address_values(email, defaults.email_forms)
        except EventError as problem:
            problems.append(EventError("email", problem.expected))
    if problems:
        _pass_over_empty(fields, problems, dropped)
    if "device_id" in taken and taken["device_id"] is None:
        dropped.append(("device_id", "is all zeros: the user opted out"))
    accept_products(taken, fields.get("products"), fields.get("product_map"), problems)

    # These were checked where they were learnt: in the settings, the request, the visitor's record.
    values: dict[str, Any] = {
        "advertisable_eid": defaults.advertisable_eid,
        "pixel_eid": defaults.pixel_eid,
        "ip": defaults.ip,
        "user_agent": defaults.user_agent,
        "adct": defaults.adct,
        "first_party_cookie": defaults.first_party_cookie,
    }
    # What was not checked there: the site makes the page's address, and a session holds anything.
    unchecked = {"page_location": defaults.page_location, "timestamp": defaults.now}
    if defaults.identity:
        unchecked |= defaults.identity
    if not defaults.is_checked:
        unchecked |= values
        values = {}
    for name in unchecked.keys() & taken.keys():
        del unchecked[name]
    values |= accept(unchecked, problems)
    values |= taken
    values["email_forms"] = defaults.email_forms
    if values.get("adct") is None and values.get("first_party_cookie") is None:
        values["first_party_cookie"] = derived_cookie(values, defaults)
    return values


def _pass_over_empty(
    fields: Mapping[str, Any], problems: list[EventError], dropped: list[tuple[str, str]]
) -> None:
    """Note as left out, instead of as wrong, those of *fields* that are an empty identifier."""
    for problem in problems.copy():
        name = problem.field
        value = fields.get(name)
        if name in _IDENTIFIERS and isinstance(value, str) and not value[:_BLANK].strip():
            problems.remove(problem)
            dropped.append((name, "is empty"))


def warm() -> None:
    """Load what the first report needs, above all the currencies.

    A server calls it before it forks, or a thread beside the first page: then no visitor waits.
    """
    trial_event(Account(), 1e9)


def trial_event(account: Account, now: float, name: str = "pageView") -> bytes:
    """The JSON of an event with all that AdRoll asks for and nobody's data in it.

    It is made like every event: where AdRoll refuses it, the event is not at fault.

    :param now: the clock, epoch seconds.
    :param name: one of the thirteen.
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
    return build(name, fields, defaults, strict=True).payload


def hide(event: Event, defaults: EventDefaults) -> tuple[Event, tuple[str, ...]]:
    """*event* without what tells who a person is, and the names of the fields that told it.

    An order id with an address in it becomes a keyed hash. The outbox keeps the same hash as the
    deduplication key, so the order is still found by its id.
    """
    changes: dict[str, str] = {}
    clear = "plain" in defaults.email_forms
    url: Any = event.page_location
    order: Any = event.order_id
    # In a draft either may be anything.
    if isinstance(url, str) and may_tell(url):
        safe_url = without_persons(url, defaults.private_parameters, clear)
        if safe_url != url:
            changes["page_location"] = safe_url
    if isinstance(order, str) and not clear and may_hold_address(order):
        key = kept_key(order, defaults.dedupe_secret)
        if key.startswith(HASHED) and key != order:
            changes["order_id"] = key
    if not changes:
        return event, ()
    return structs.replace(event, **changes), tuple(changes)
