"""What views call: report, and identify, look at or forget the current visitor."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from flask import has_request_context

from . import current
from .context import NOBODY
from .errors import EventError
from .visitor import Visitor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from .names import EventName, Product
    from .receipt import Receipt

_LOG = logging.getLogger("adroll_flask")


class EventFields(TypedDict, total=False):
    """What :func:`report_event` takes beside the event's name; ``docs/events.md`` has the forms."""

    order_id: str | int | None
    value: str | int | float | Decimal | None
    currency: str | None
    products: Sequence[Product | Mapping[str, Any] | object] | None
    product_map: Mapping[str, str] | None
    email: str | Sequence[str] | None
    user_id: str | int | None
    device_id: str | None
    keywords: str | None
    total: str | int | float | Decimal | None
    page_location: str | None
    ip: str | None
    user_agent: str | None
    timestamp: datetime | float | int | None
    external_data: object
    device_os: str | None
    device_type: str | None
    package_app_name: str | None
    package_app_version: str | None
    adct: str | None
    first_party_cookie: str | None
    deduplication_key: str | None
    visitor: Visitor | str | None
    session: Any


def report_event(name: EventName, **fields: Unpack[EventFields]) -> Receipt:
    """Report one of AdRoll's thirteen events for the current visitor, durably and at once.

    :param name: for example ``"addToCart"``.
    :param fields: see ``docs/events.md``. ``visitor`` takes a :class:`Visitor` or the text of
        :meth:`Visitor.token` where there is no browser; ``session`` an SQLAlchemy session on the
        outbox's database, whose commit then is the event's.
    :raises EventError: with ``ADROLL_STRICT`` only: a field is wrong. Otherwise the event is
        kept as a dead letter, and the receipt says why.

    ::

        report_event("addToCart", products=[{"product_id": "mug", "price": "29.95"}])
    """
    runtime = current.runtime("report_event")
    exchange, known = None, NOBODY
    if has_request_context() and runtime.settings.enabled:
        exchange = current.exchange(runtime)
        if fields.get("visitor") is None:
            known = current.known()
    return runtime.report(name, fields, exchange=exchange, known=known)


def report_conversion(**fields: Unpack[EventFields]) -> Receipt:
    """Report a purchase for the current visitor: :func:`report_event` with ``"purchase"``.

    An ``order_id`` is reported once, over reloads, retries, processes and hosts.

    ::

        report_conversion(order_id="1001", value="59.90", currency="EUR", email=user.email)
    """
    return report_event("purchase", **fields)


def identify(
    *,
    email: str | Sequence[str] | None = None,
    user_id: str | int | None = None,
    device_id: str | None = None,
) -> None:
    """Say who the visitor is, after a login: known from now on for this visitor's events.

    Kept in the session; of an e-mail address only hashes, in the forms of ``ADROLL_EMAIL``.

    :raises EventError: with ``ADROLL_STRICT`` only: an argument is wrong.
    """
    runtime = current.runtime("identify")
    if not runtime.settings.enabled or not current.exchange(runtime).decision.granted:
        return
    from .identifiers import accept_device_id, accept_user_id, email_forms

    known: dict[str, Any] = {}
    try:
        if email:
            forms = tuple(form for form in runtime.settings.email if form != "plain")
            known |= {
                key: values
                for key, values in email_forms(email, forms or ("sha256",)).items()
                if key != "email"
            }
        if user_id is not None:
            known["user_id"] = accept_user_id(user_id)
        if device_id:
            known["device_id"] = accept_device_id(device_id)
    except EventError as problem:
        if runtime.strict:
            raise
        runtime.counters.add("identify_invalid", problem.field.partition("[")[0])
        _LOG.error("AdRoll identify: %s", problem)
        return
    try:
        current.remember({key: value for key, value in known.items() if value})
    except RuntimeError:
        if runtime.strict:
            raise
        runtime.counters.add("identify_invalid", "no_session")
        _LOG.error("AdRoll identify: set SECRET_KEY, the session keeps it")


def current_visitor() -> Visitor:
    """What is known of the current request's visitor.

    The page then depends on the visitor: the response gets ``Vary: Cookie``.
    """
    runtime = current.runtime("current_visitor")
    if not runtime.settings.enabled:
        return Visitor()
    exchange = current.exchange(runtime)
    exchange.viewed = True
    return exchange.visitor()


def forget_visitor() -> int:
    """Forget the current visitor: cookies, session keys and waiting events.

    :returns: how many waiting events were erased.
    """
    runtime = current.runtime("forget_visitor")
    if not runtime.settings.enabled:
        return 0
    exchange = current.exchange(runtime)
    record = exchange.seen.merged
    exchange.forget()
    current.forget()
    return runtime.drop_waiting(record)
