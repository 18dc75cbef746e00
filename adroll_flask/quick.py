"""The short way of most events: plain texts and numbers in good order, straight to their JSON.

:func:`adroll_flask.events.build` checks every form that a field may take. Most reports need none of
that: an order id that is a short text, an amount such as ``"59.90"``. For these the same JSON is
written at a third of the cost; for anything else :meth:`Quick.event` gives ``None``, and the
long way decides. A test holds the two against each other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic_core import to_json

from .attributes import _EID
from .context import Context
from .coverage import Coverage
from .errors import EventError
from .fields import MAX_TEXT, MAX_USER_AGENT, MILLISECONDS, OLDEST
from .identifiers import _ADCT, _IPV4, _PLAIN_COOKIE, DERIVED_TIME, normalise_ip
from .locations import _PLAIN, MAX_LOCATION
from .money import DECIMALS, accept_amount, rounded
from .names import EVENT_NAMES
from .outbox.ids import new_id
from .outbox.protocol import NewEvent
from .products import MAX_PRODUCTS
from .useragent import describe
from .wire import MAX_BYTES

_NAMES = frozenset(EVENT_NAMES)
_TAKEN = frozenset(
    {
        "order_id",
        "value",
        "currency",
        "email",
        "user_id",
        "products",
        "page_location",
        "ip",
        "user_agent",
        "adct",
        "first_party_cookie",
    }
)
_CENTS = re.compile(r"(?:0|[1-9][0-9]{0,8})\.[0-9]{2}\Z")
_EMAIL = re.compile(r"[a-z0-9.+_-]{1,64}@[a-z0-9.-]{1,180}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_DEVICE = ("device_os", "device_type", "package_app_name", "package_app_version")
#: User agents whose description is kept: a site sees a few hundred browsers.
_AGENTS = 1000


class _Long(Exception):
    """Not for the short way."""


class Quick:
    """The short way, with what it remembers of browsers; one per app.

    :param dry_run: whether AdRoll is to validate and forget its events.
    """

    def __init__(self, *, dry_run: bool) -> None:
        self._dry_run = dry_run
        self._agents: dict[str, tuple[tuple[str, str], ...]] = {}
        self._coverages: dict[tuple[bool, bool, bool, bool], Coverage] = {}

    def event(
        self, name: str, fields: Mapping[str, Any], context: Context
    ) -> tuple[NewEvent, Coverage] | None:
        """The event, or ``None`` where :func:`~adroll_flask.events.build` has to look at it.

        :param fields: the caller's, without those that are ``None``.
        """
        if (
            type(name) is not str
            or name not in _NAMES
            or not fields.keys() <= _TAKEN
            or context.email_forms != ("sha256",)
            or len(context.email_sha256) > 1
            or context.email_md5
            or context.device_id is not None
        ):
            return None
        try:
            return self._event(name, fields, context)
        except (_Long, EventError):
            return None

    def _event(
        self, name: str, fields: Mapping[str, Any], context: Context
    ) -> tuple[NewEvent, Coverage]:
        get = fields.get
        eid, pixel_eid, now = context.advertisable_eid, context.pixel_eid, context.now
        page = get("page_location", context.page_location)
        ip = get("ip", context.ip)
        agent = get("user_agent", context.user_agent)
        adct = get("adct", context.adct)
        cookie = get("first_party_cookie", context.first_party_cookie)
        if (
            type(eid) is not str
            or not _EID.match(eid)
            or type(pixel_eid) is not str
            or not _EID.match(pixel_eid)
            or type(page) is not str
            or len(page) > MAX_LOCATION
            or not _PLAIN.match(page)
            or "package_app_name=" in page
            or type(ip) is not str
            or type(now) is not float
            or not OLDEST <= now < MILLISECONDS
            or (adct is None and cookie is None)
        ):
            raise _Long
        if not _IPV4.match(ip):
            ip = normalise_ip(ip)
        at = round(now, 3)
        identifiers: dict[str, Any] = {}
        attributes: dict[str, Any] = {}
        wire: dict[str, Any] = {
            "advertisable_eid": eid,
            "pixel_eid": pixel_eid,
            "event_name": name,
            "page_location": page,
            "ip": ip,
        }
        if agent is not None:
            if type(agent) is not str or not _is_text(agent, MAX_USER_AGENT):
                raise _Long
            wire["user_agent"] = agent
        wire["timestamp"] = at
        wire["identifiers"] = identifiers
        if adct is not None:
            if type(adct) is not str or not _ADCT.match(adct):
                raise _Long
            identifiers["adct"] = adct
        if cookie is not None:
            if (
                type(cookie) is not str
                or not _PLAIN_COOKIE.match(cookie)
                or cookie.endswith(DERIVED_TIME)
            ):
                raise _Long
            identifiers["first_party_cookie"] = cookie
        email = get("email")
        known = context.email_sha256[0] if context.email_sha256 else None
        if email is not None:
            if type(email) is not str:
                raise _Long
            address = email.strip().lower()
            if not _EMAIL.match(address):
                raise _Long
            hashed = hashlib.sha256(address.encode()).hexdigest()
            if known is not None and known != hashed:
                raise _Long
            identifiers["email_sha256"] = hashed
        elif known is not None:
            if not _SHA256.match(known):
                raise _Long
            identifiers["email_sha256"] = known
        order_id = get("order_id")
        if order_id is not None:
            order_id = attributes["order_id"] = _id(order_id)
        user_id = get("user_id")
        if user_id is None:
            user_id = context.user_id
        if user_id is not None:
            user_id = _id(user_id)
            if "@" in user_id:
                raise _Long
            identifiers["user_id"] = attributes["user_id"] = user_id
        currency = get("currency")
        if currency is not None and (type(currency) is not str or currency not in DECIMALS):
            raise _Long
        products = get("products")
        if products is not None:
            if type(products) not in (list, tuple) or len(products) > MAX_PRODUCTS:
                raise _Long
            if products:
                attributes["products"] = [_product(product, currency) for product in products]
        if attributes:
            wire["event_attributes"] = attributes
        value = get("value")
        if value is not None:
            value = wire["conversion_value"] = _amount(value, currency)
        if currency is not None:
            wire["currency"] = currency
        if agent is not None:
            wire.update(self._device(agent))
        payload = to_json(wire)
        if len(payload) > MAX_BYTES:
            raise _Long
        carried = (
            adct is not None,
            cookie is not None,
            "email_sha256" in identifiers,
            user_id is not None,
        )
        coverage = self._coverages.get(carried)
        if coverage is None:
            coverage = self._coverages[carried] = _coverage(*carried)
        worth = None if order_id is None else f"{value} {currency}"
        event = NewEvent(new_id(now), name, eid, self._dry_run, order_id, payload, at, worth)
        return event, coverage

    def _device(self, agent: str) -> tuple[tuple[str, str], ...]:
        known = self._agents.get(agent)
        if known is None:
            told = describe(agent)
            if not all(_is_text(text, MAX_TEXT) for text in told.values()):
                raise _Long
            known = tuple((name, told[name]) for name in _DEVICE if name in told)
            if len(self._agents) >= _AGENTS:
                self._agents = {}
            self._agents[agent] = known
        return known


def _is_text(text: str, most: int) -> bool:
    return 0 < len(text) <= most and text.isprintable() and text[0] != " " != text[-1]


def _id(value: Any) -> str:
    if type(value) is str:
        if 0 < len(value) <= MAX_TEXT and value.isprintable() and value[0] != " " != value[-1]:
            return value
    elif type(value) is int and -(10**18) < value < 10**18:
        return str(value)
    raise _Long


def _amount(value: Any, currency: Any) -> str:
    if currency is None:
        raise _Long
    if type(value) is str and DECIMALS[currency] == 2 and _CENTS.match(value):
        return value
    if type(value) not in (str, Decimal, int, float):
        raise _Long
    text = str(rounded(accept_amount(value), currency))
    if "E" in text:
        raise _Long
    return text


def _product(product: Any, currency: Any) -> dict[str, Any]:
    if type(product) is not dict:
        raise _Long
    get = product.get
    told: dict[str, Any] = {"product_id": _id(get("product_id"))}
    if (group := get("product_group")) is not None:
        told["product_group"] = _label(group)
    if (price := get("price")) is not None:
        told["price"] = _amount(price, currency)
    if (quantity := get("quantity")) is not None:
        if type(quantity) is not int or not 1 <= quantity <= 1_000_000:
            raise _Long
        told["quantity"] = quantity
    if (category := get("category")) is not None:
        told["category"] = _label(category)
    if len(told) != len(product):
        raise _Long
    return told


def _label(value: Any) -> str:
    if type(value) is not str or not _is_text(value, MAX_TEXT):
        raise _Long
    return value


def _coverage(adct: bool, cookie: bool, email: bool, user_id: bool) -> Coverage:
    had = {
        "adct": adct,
        "first_party_cookie": cookie,
        "email_sha256": email,
        "user_id": user_id,
    }
    # A click id cannot be supplied by a site that has none (Event.coverage).
    return Coverage(
        tuple(name for name, has in had.items() if has),
        tuple(name for name, has in had.items() if not has and name != "adct"),
    )
