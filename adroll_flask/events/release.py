"""What a hold and its release take, and the event that a release makes of a held one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from adroll_flask.errors import EventError
from adroll_flask.visitor.identifiers import kind

from .context import EventDefaults
from .event import Problem, accept_products, amount_as_text, checked, value_digest, wire_bytes
from .fields import accept_amount, accept_currency
from .fix import recheck_wire
from .products import gather


def accept_hold(value: Any, longest: float) -> float:
    """Seconds for which a conversion is held.

    :param value: ``True``, a ``timedelta`` or seconds.
    :param longest: ``ADROLL_HOLD_MAX``, for which ``True`` holds.
    :raises EventError: it is none of these, or out of range.

    >>> accept_hold(timedelta(hours=1), 86_400)
    3600.0
    """
    if value is True:
        return float(longest)
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise EventError("hold", f"takes True, a timedelta or seconds; it got {kind(value)}")
    if not 0 < seconds <= longest:
        raise EventError("hold", f"takes more than 0 and at most ADROLL_HOLD_MAX, {longest} s")
    return float(seconds)


def accept_changes(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[EventError]]:
    """What a release says differently, as JSON can say it, and what is wrong with the rest.

    :param given: ``value``, ``currency`` and ``products``; ``None`` means that it stays.
    """
    changes: dict[str, Any] = {}
    wrong: list[EventError] = []
    for name, value in given.items():
        if value is not None:
            try:
                changes[name] = _ACCEPT[name](value)
            except EventError as problem:
                wrong.append(problem)
    return changes, wrong


def _products(value: Any) -> list[dict[str, Any]]:
    wrong: list[Problem] = []
    products = accept_products(gather(value), wrong)
    if wrong:
        raise wrong[0].error()
    return [amount_as_text({**vars(product)}, "price") for product in products]


_ACCEPT: Mapping[str, Callable[[Any], Any]] = {
    "value": lambda value: str(accept_amount(value)),
    "currency": accept_currency,
    "products": _products,
}


def amend(
    payload: bytes,
    changes: Mapping[str, Any],
    *,
    email_forms: tuple[str, ...],
    clock: Callable[[], float] = time.time,
) -> tuple[bytes, str, float]:
    """The JSON, the digest of the value, and the time of a held event with *changes*.

    :param payload: the held event's JSON.
    :param email_forms: ``ADROLL_EMAIL``.
    :raises EventError: there is no such event.
    """
    # What it was is checked again as it leaves a database; a held one may be weeks old.
    event = recheck_wire(payload, EventDefaults(email_forms=email_forms), now=clock())
    values = dict(changes)
    if "products" in values:
        values["products"] = gather(values["products"])
    event = checked({**event.__dict__, **values}, clock())
    return wire_bytes(event), value_digest(event), event.timestamp
