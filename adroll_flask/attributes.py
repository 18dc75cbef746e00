"""What each attribute of an event takes, in the form that pydantic calls: value in, value out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from pydantic import ValidationInfo

from .errors import EventError
from .fields import (
    accept_external_data,
    accept_id,
    accept_label,
    accept_timestamp,
    is_json,
    kind,
)
from .identifiers import (
    EMPTY_HASHES,
    MAX_EMAILS,
    accept_adct,
    accept_device_id,
    accept_email,
    accept_hash,
    accept_user_id,
    normalise_first_party_cookie,
    normalise_ip,
)
from .money import accept_amount, accept_currency, rounded
from .names import EVENT_NAMES
from .suggestions import nearest_event

#: Hashes of each kind in one event: those of the call and those that ``identify()`` gave.
MAX_HASHES = 2 * MAX_EMAILS


class Circumstances(NamedTuple):
    """What a check of an event goes by beside its values."""

    #: The clock that times may not be ahead of, epoch seconds.
    now: float | None
    #: What prices are in.
    currency: str | None


_LOWER_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_LOWER_MD5 = re.compile(r"[0-9a-f]{32}\Z")
_EID = re.compile(r"[A-Z0-9]{8,40}\Z")


def accept_event_name(value: Any) -> str:
    """One of the thirteen names, as AdRoll writes it."""
    if isinstance(value, str):
        if value in EVENT_NAMES:
            return str.__str__(value)
        near = nearest_event(value)
        if near:
            raise EventError("event_name", f"there is no such event; did you mean {near!r}?")
    raise EventError("event_name", f"takes one of {', '.join(EVENT_NAMES)}")


def order_id(value: Any) -> str | None:
    return None if value is None else accept_id(value, "order_id")


def currency(value: Any) -> str | None:
    return None if value is None else accept_currency(value)


def value(value: Any, info: ValidationInfo) -> Decimal | None:
    if value is None:
        return None
    return rounded(accept_amount(value), info.data.get("currency"))


def total(value: Any, info: ValidationInfo) -> Decimal | None:
    if value is None:
        return None
    return rounded(accept_amount(value, "total"), info.data.get("currency"))


def ip(value: Any) -> str:
    return normalise_ip(value)


def timestamp(value: Any, info: ValidationInfo) -> float:
    context: Circumstances | None = info.context
    return accept_timestamp(value, context.now if context else None)


def adct(value: Any) -> str | None:
    if value is None:
        return None
    found = accept_adct(value) if isinstance(value, str) else None
    if found is None:
        raise EventError("adct", "takes 1 to 240 printable ASCII characters without spaces")
    return found


def first_party_cookie(value: Any) -> str | None:
    if value is None:
        return None
    found = normalise_first_party_cookie(value) if isinstance(value, str) else None
    if found is None:
        raise EventError(
            "first_party_cookie", "takes the value of __adroll_fpc: 32 hex digits, '-', a time"
        )
    return found


def _sequence(value: Any, field: str, limit: int) -> Sequence[Any]:
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise EventError(field, f"takes a text or a list of texts; it got {kind(value)}")
    if len(items) > limit:
        raise EventError(field, f"takes at most {limit}")
    for item in items:
        if not isinstance(item, str):
            raise EventError(field, f"takes texts; one is {kind(item)}")
    return items


def email(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    return tuple(dict.fromkeys(map(accept_email, _sequence(value, "email", MAX_EMAILS))))


def _known_good(value: Any, field: str) -> bool:
    """True for what :func:`~adroll_flask.identifiers.email_forms` makes of one address."""
    form = _LOWER_SHA256 if field == "email_sha256" else _LOWER_MD5
    return isinstance(value, str) and form.match(value) is not None and value not in EMPTY_HASHES


def _hashes(value: Any, field: str) -> tuple[str, ...]:
    if not value:
        return ()
    if type(value) is tuple and len(value) == 1 and _known_good(value[0], field):
        return value
    items = _sequence(value, field, MAX_HASHES)
    return tuple(dict.fromkeys(accept_hash(item, field)[1] for item in items))


def email_sha256(value: Any) -> tuple[str, ...]:
    return _hashes(value, "email_sha256")


def email_md5(value: Any) -> tuple[str, ...]:
    return _hashes(value, "email_md5")


def user_id(value: Any) -> str | None:
    return None if value is None else accept_user_id(value)


def device_id(value: Any) -> str | None:
    return None if value is None else accept_device_id(value)


def external_data(value: Any) -> str | None:
    """JSON text as it is: what an event has is not encoded a second time."""
    if value is None or (isinstance(value, str) and is_json(value)):
        return value
    return accept_external_data(value)


def device_os(value: Any) -> str | None:
    return accept_label(value, "device_os")


def device_type(value: Any) -> str | None:
    return accept_label(value, "device_type")


def package_app_name(value: Any) -> str | None:
    return accept_label(value, "package_app_name")


def package_app_version(value: Any) -> str | None:
    return accept_label(value, "package_app_version")


def forms(value: Any) -> tuple[str, ...]:
    forms = tuple(value)
    if not set(forms) <= {"sha256", "md5", "plain"}:
        raise EventError("email_forms", "takes any of 'sha256', 'md5', 'plain'")
    return forms


def eid(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and _EID.match(value):
        return value
    raise EventError("eid", "takes 8 to 40 upper-case letters and digits")
