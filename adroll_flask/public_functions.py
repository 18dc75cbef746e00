"""What views call: report, and identify, look at or forget the current visitor."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeVar, Unpack

from flask import current_app, has_app_context
from flask.helpers import get_debug_flag

from . import request_state
from .errors import ConfigurationError, EventError
from .events.names import EventFields, EventName, Product
from .logs import logger
from .redaction import forget_values
from .reporting.receipt import DISABLED, Receipt, say_report
from .runtime import Runtime
from .settings import environment_says
from .visitor.identifiers import kept_forms
from .visitor.tokens import Visitor
from .visitor.tracked_request import TrackedRequest

_T = TypeVar("_T")


def report_event(name: EventName, **fields: Unpack[EventFields]) -> Receipt:
    """Report one of AdRoll's thirteen events for the current visitor, durably and at once.

    :param name: for example ``"addToCart"``.
    :param fields: see ``docs/reference/events.md``. ``visitor`` takes a :class:`Visitor` or the
        text of :meth:`Visitor.token` where there is no browser, and ``None`` where there is no
        visitor: then nothing is taken from the current request; ``session`` an SQLAlchemy
        session on the outbox's database, whose commit then is the event's. A database error of
        that session is raised, since its transaction has failed.
    :raises EventError: with ``ADROLL_STRICT`` only: a field is wrong. Otherwise the event is
        kept as a dead letter, and the receipt says why.
    :raises ConfigurationError: in development and tests only: there is no app here. Otherwise
        the receipt says ``failed``, and the log how to call it.

    ::

        report_event("addToCart", products=[{"product_id": "mug", "price": "29.95"}])
    """
    return _report("report_event", name, fields)


def report_conversion(**fields: Unpack[EventFields]) -> Receipt:
    """Report a purchase for the current visitor: :func:`report_event` with ``"purchase"``.

    :param fields: all of them by name; ``None`` means not given.

        - ``order_id`` and ``value``, which every purchase has, the latter in major units
          (``"59.90"``), and its ``currency`` (``"EUR"``);
        - ``products``: dicts of ``product_id``, ``price`` of one piece, ``quantity``,
          ``product_group`` and ``category``, or any objects with a ``product_map``;
        - who bought: ``email``, ``user_id``, ``device_id``; ``visitor``, a :class:`Visitor` or its
          token where there is no browser, ``None`` where there is no visitor; ``adct`` and
          ``first_party_cookie`` where you keep them yourself;
        - where and when: ``page_location``, ``ip``, ``user_agent``, ``timestamp`` (an aware
          ``datetime`` or epoch seconds), of the request if not given;
        - ``total``, ``keywords``, ``external_data``; of an app ``device_os``, ``device_type``,
          ``package_app_name``, ``package_app_version``;
        - ``deduplication_key`` in the place of the order id; ``hold``; ``session``.
    :raises EventError: as :func:`report_event`, like *ConfigurationError*.

    An ``order_id`` is reported once, over reloads, retries, processes and hosts. With ``hold``
    (``True``, a ``timedelta`` or seconds) it is kept and not sent until
    :func:`release_conversion`; see ``docs/how-to/holds.md``.

    ::

        report_conversion(order_id="1001", value="59.90", currency="EUR", email=user.email)
    """
    return _report("report_conversion", "purchase", fields)


def release_conversion(
    order_id: str | int,
    *,
    value: str | int | float | Decimal | None = None,
    currency: str | None = None,
    products: Sequence[Product | Mapping[str, Any] | object] | None = None,
    at: Literal["purchase", "release"] = "purchase",
    host: str | None = None,
    session: Any = None,
) -> Receipt:
    """Let a conversion that was reported with ``hold=`` be sent: the money is there.

    Works without a browser, from any process and host, before or after the hold, and as often as
    it is called. It is sent with all that was known of the visitor at the hold.

    :param order_id: the order's id as it was held, or its ``deduplication_key`` where it had one.
    :param value: the amount if it changed since, in major units; as *currency* and *products*.
    :param at: which time AdRoll is told: ``"purchase"``, the hold's, or ``"release"``, this one.
    :param host: the shop's host, where ``ADROLL_ACCOUNTS`` has an account of its own for it; by
        default the current request's.
    :param session: as for :func:`report_event`.
    :raises EventError: with ``ADROLL_STRICT`` only: an argument is wrong. Otherwise a change that
        is wrong is left out, and the receipt says so.

    ::

        release_conversion("1001", value="54.90")
    """
    changes = {"value": value, "currency": currency, "products": products}
    return _decide("release", order_id, host, fields=changes, at=at, session=session)


def cancel_conversion(
    order_id: str | int, *, host: str | None = None, session: Any = None
) -> Receipt:
    """Forget a conversion that will never be paid: nothing of it is sent or kept but its key.

    As :func:`release_conversion` it may come from anywhere, at any time; it is the stronger of the
    two. What AdRoll has already it cannot take back: that is counted as too late.

    :param order_id: as for :func:`release_conversion`, like *host* and *session*.

    ::

        cancel_conversion("1001")
    """
    return _decide("cancel", order_id, host, fields={}, session=session)


def _decide(
    kind: Literal["release", "cancel"], order_id: object, host: str | None, **more: Any
) -> Receipt:
    here = _here(f"{kind}_conversion")
    if isinstance(here, Receipt):
        return here
    runtime, tracked = here
    host = host or ("" if tracked is None else tracked.hostname)
    return runtime.reporter.decide(kind, order_id, host=host, **more)


def _here(call: str) -> tuple[Runtime, TrackedRequest | None] | Receipt:
    """The app's AdRoll and the request in which *call* was made. Where there is no AdRoll: what
    *call* returns in production."""
    try:
        return request_state.find(call)
    except ConfigurationError as problem:
        if environment_says("ENABLED") is False:
            return DISABLED
        # Whether a programmer's error raises where no AdRoll says so: in development and in tests.
        strict = environment_says("STRICT")
        if strict is None:
            here = has_app_context() and (current_app.debug or current_app.testing)
            strict = here or get_debug_flag() or "PYTEST_CURRENT_TEST" in os.environ
        _refuse(problem, strict)
        return Receipt(None, "failed", str(problem))


def _report(call: str, name: str, fields: EventFields) -> Receipt:
    here = _here(call)
    if isinstance(here, Receipt):
        return here
    runtime, tracked = here
    receipt = runtime.reporter.report(name, fields, tracked)
    if runtime.settings.debug:
        say_report(name, fields, receipt)
    return receipt


def identify(
    *,
    email: str | None = None,
    user_id: str | int | None = None,
    device_id: str | None = None,
) -> None:
    """Say who the visitor is, after a login: known from now on for this visitor's events.

    Kept in the session; of an e-mail address only hashes, in the forms of ``ADROLL_EMAIL``. It
    ends with :func:`reset_identity`, and with Flask-Login's logout. Before the visitor's consent
    nothing is kept: ``@adroll.identity`` is asked later, at the report. Under
    :class:`AdRollMiddleware` there is no session, and it is for the current request.

    :raises EventError: with ``ADROLL_STRICT`` only: an argument is wrong.
    """

    # The user id first: with another user's id the former user's address is removed.
    identifiers = {"user_id": user_id, "email": email, "device_id": device_id}
    del email, user_id, device_id  # so that this frame holds no values if an error is raised

    def keep(runtime: Runtime, tracked: TrackedRequest) -> None:
        if tracked.refusal:
            first = runtime.counters.add("identify_ignored", tracked.refusal)
            if first and tracked.decision.granted is None:
                logger.warning(
                    "AdRoll identify() keeps nothing before the visitor's consent, and what it is "
                    "told is lost; set a function with @adroll.identity, which is asked at each "
                    "report, after the consent [identify-before-consent]"
                )
            return
        # One at a time: if one is wrong, the others are kept.
        for name, value in identifiers.items():
            try:
                if value not in (None, ""):
                    forms = kept_forms(name, value, runtime.settings.email)
                    request_state.remember(forms)
            except (EventError, ConfigurationError) as problem:
                if runtime.is_strict():
                    forget_values(problem, identifiers)
                    value = None
                    raise
                about = problem.field if isinstance(problem, EventError) else "no_session"
                runtime.counters.add("identify_invalid", about)
                logger.error("AdRoll identify: %s [identify-refused]", problem)
                if about == "no_session":
                    break

    _of_visitor("identify", keep, None)


def reset_identity() -> None:
    """Forget what :func:`identify` said, at a logout. Flask-Login's logout does so by itself."""
    _of_visitor("reset_identity", lambda *_: request_state.forget(), None)


def current_visitor() -> Visitor:
    """What is known of the current request's visitor.

    The page then depends on the visitor: the response gets ``Vary: Cookie``.
    """

    def look(_runtime: Runtime, tracked: TrackedRequest) -> Visitor:
        tracked.viewed = True
        return tracked.visitor()

    return _of_visitor("current_visitor", look, Visitor())


def forget_visitor() -> None:
    """Forget the current visitor: cookies, session keys and waiting events.

    Events that wait are erased beside the request, soon after it; a token that was made before is
    not taken any more.
    """
    _of_visitor("forget_visitor", _forget, None)


def _forget(runtime: Runtime, tracked: TrackedRequest) -> None:
    tracked.forgotten = True
    request_state.forget()
    runtime.reporter.withdraw(tracked.record_id)


def _of_visitor(call: str, work: Callable[[Runtime, TrackedRequest], _T], otherwise: _T) -> _T:
    """What *work* gives on the current request's visitor; *otherwise* where *call* can do nothing.

    :raises Exception: a fault, where programmer errors raise.
    """
    here = _here(call)
    if isinstance(here, Receipt) or not here[0].settings.enabled:
        return otherwise
    runtime, tracked = here
    if tracked is None:
        problem = "there is no request here, and so no visitor"
        _refuse(ConfigurationError(call, problem, slug="no-app"), runtime.is_strict())
        return otherwise
    return runtime.of_visitor(lambda: work(runtime, tracked), otherwise)


def _refuse(problem: ConfigurationError, strict: bool) -> None:
    """Raise *problem* where programmer's errors do; log it in production."""
    if strict:
        raise problem
    logger.error("AdRoll did nothing: %s [no-app]", problem)
