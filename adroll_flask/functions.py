"""What views call: report, and identify, look at or forget the current visitor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

from . import request_state
from .errors import ConfigurationError, EventError, help_url
from .events.context import NO_IDENTITY
from .events.names import EventFields
from .logs import Logger, get_logger
from .reporting.receipt import Receipt
from .visitor.records import Visitor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from .events.names import EventName, Product
    from .runtime import Runtime
    from .visitor.tracked_request import TrackedRequest

logger: Logger = get_logger("adroll_flask")


def report_event(name: EventName, **fields: Unpack[EventFields]) -> Receipt:
    """Report one of AdRoll's thirteen events for the current visitor, durably and at once.

    :param name: for example ``"addToCart"``.
    :param fields: see ``docs/reference/events.md``. ``visitor`` takes a :class:`Visitor` or the
        text of :meth:`Visitor.token` where there is no browser, and ``None`` where there is no
        visitor: then nothing is taken from the current request; ``session`` an SQLAlchemy
        session on the outbox's database, whose commit then is the event's.
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
    session: Any = None,
) -> Receipt:
    """Let a conversion that was reported with ``hold=`` be sent: the money is there.

    Works without a browser, from any process and host, before or after the hold, and as often as
    it is called. It is sent with all that was known of the visitor at the hold.

    :param order_id: the order's id as it was held, or its ``deduplication_key`` where it had one.
    :param value: the amount if it changed since, in major units; as *currency* and *products*.
    :param at: which time AdRoll is told: ``"purchase"``, the hold's, or ``"release"``, this one.
    :param session: as for :func:`report_event`.
    :raises EventError: with ``ADROLL_STRICT`` only: an argument is wrong. Otherwise a change that
        is wrong is left out, and the receipt says so.

    ::

        release_conversion("1001", value="54.90")
    """
    runtime, refused = _anywhere("release_conversion")
    if runtime is None:
        return Receipt(None, "failed", refused)
    changes = {"value": value, "currency": currency, "products": products}
    return runtime.holding.release(order_id, changes, at, session)


def cancel_conversion(order_id: str | int, *, session: Any = None) -> Receipt:
    """Forget a conversion that will never be paid: nothing of it is sent or kept but its key.

    As :func:`release_conversion` it may come from anywhere, at any time; it is the stronger of the
    two. What AdRoll has already it cannot take back: that is counted as too late.

    :param order_id: as for :func:`release_conversion`, like *session*.

    ::

        cancel_conversion("1001")
    """
    runtime, refused = _anywhere("cancel_conversion")
    if runtime is None:
        return Receipt(None, "failed", refused)
    return runtime.holding.cancel(order_id, session)


def _anywhere(call: str) -> tuple[Runtime | None, str]:
    """The AdRoll here, with or without a request; or why there is none."""
    try:
        return request_state.find(call)[0], ""
    except ConfigurationError as problem:
        _refuse(problem)
        return None, str(problem)


def _report(call: str, name: str, fields: EventFields) -> Receipt:
    try:
        runtime, tracked = request_state.find(call)
    except ConfigurationError as problem:
        _refuse(problem)
        return Receipt(None, "failed", str(problem))
    known = NO_IDENTITY
    if tracked is not None and runtime.settings.enabled and "visitor" not in fields:
        known = request_state.known()
    return runtime.report(name, fields, tracked=tracked, known=known)


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
    found = _in_request("identify")
    if found is None:
        return
    runtime, tracked = found
    decision = tracked.decision
    if not decision.granted:
        runtime.counters.add("identify_ignored", f"consent_{decision.reason}")
        if decision.answer is None and runtime.services.once("identify_before_consent"):
            logger.warning(
                "AdRoll identify() keeps nothing before the visitor's consent, and what it is told "
                "is lost; set a function with @adroll.identity, which is asked at each report, "
                "after the consent (%s)",
                help_url("identify-before-consent"),
            )
        return
    from .visitor.identifiers import accept_device_id, accept_user_id, email_forms

    known: dict[str, Any] = {}
    try:
        if email:
            forms = tuple(form for form in runtime.settings.email if form != "plain")
            known |= {
                key: text
                for key, text in email_forms(email, forms or ("sha256",)).items()
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
        logger.error("AdRoll identify: %s (%s)", problem, help_url("identify-refused"))
        return
    try:
        request_state.remember({key: value for key, value in known.items() if value})
    except RuntimeError:
        if runtime.strict:
            raise ConfigurationError("SECRET_KEY", "set it: the session keeps it") from None
        runtime.counters.add("identify_invalid", "no_session")
        logger.error(
            "AdRoll identify: set SECRET_KEY, the session keeps it (%s)",
            help_url("secret-key-missing"),
        )


def reset_identity() -> None:
    """Forget what :func:`identify` said, at a logout. Flask-Login's logout does so by itself."""
    found = _in_request("reset_identity")
    if found is not None:
        request_state.forget_identity()


def current_visitor() -> Visitor:
    """What is known of the current request's visitor.

    The page then depends on the visitor: the response gets ``Vary: Cookie``.
    """
    found = _in_request("current_visitor")
    if found is None:
        return Visitor()
    _, tracked = found
    tracked.viewed = True
    return tracked.visitor()


def forget_visitor() -> None:
    """Forget the current visitor: cookies, session keys and waiting events.

    Events that wait are erased beside the request, soon after it; a token that was made before is
    not taken any more.
    """
    found = _in_request("forget_visitor")
    if found is None:
        return
    runtime, tracked = found
    # Only what we signed: anybody can send any visitor's cookie along.
    record = tracked.seen.record
    tracked.forget()
    request_state.forget()
    if record is not None:
        runtime.withdraw(record)


def _in_request(call: str) -> tuple[Runtime, TrackedRequest] | None:
    """The AdRoll of the current request, and the request; ``None`` where *call* can do nothing."""
    try:
        runtime, tracked = request_state.find(call)
    except ConfigurationError as problem:
        _refuse(problem)
        return None
    if not runtime.settings.enabled:
        return None
    if tracked is None:
        _refuse(
            ConfigurationError(call, "there is no request here, and so no visitor", slug="no-app"),
            runtime,
        )
        return None
    return runtime, tracked


def _refuse(problem: ConfigurationError, runtime: Runtime | None = None) -> None:
    """Raise *problem* where programmer's errors do; log it in production."""
    if request_state.strict_without_runtime() if runtime is None else runtime.strict:
        raise problem
    logger.error("AdRoll did nothing: %s (%s)", problem, help_url("no-app"))
