"""What an event's fields take beside their own form, and what is said where they take nothing.

A field's own form stands in :mod:`.event`; pydantic's core checks it. What it refuses comes here: a
number for a text, a ``datetime`` for seconds, a text with a line break. Every function returns what
the event keeps, or raises an :class:`EventError` that says what is taken and never the value.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from adroll_flask.errors import EventError
from adroll_flask.visitor.identifiers import (
    accept_adct,
    accept_email,
    accept_hash,
    normalise_first_party_cookie,
)

from .names import EVENT_NAMES
from .suggestions import nearest_event

#: Characters of an order id, a product's id, group and category, and of the texts about a device.
MAX_TEXT = 256
#: Characters of what somebody searched for.
MAX_KEYWORDS = 1000
#: Characters of a user agent; the rest of a longer one is cut off.
MAX_USER_AGENT = 1024
#: Pieces of one product.
MAX_QUANTITY = 1_000_000

#: September 2001; an earlier time is a mistake of the unit or an unset clock.
OLDEST = 1_000_000_000
#: From here on a number means milliseconds (as seconds: the year 5138).
MILLISECONDS = 100_000_000_000
#: Seconds that an event's time may lie ahead of the clock: clocks differ, events do not come from
#: the future. A time zone that was mistaken for UTC lies further ahead.
FUTURE = 3600.0

TAKES_A_TIME = "takes an aware datetime or seconds since the epoch"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for an attribute whose reading raised, until its field is checked and refused."""

    error: str


def kind(value: object) -> str:
    """What *value* is, for a text that may not hold the value."""
    if isinstance(value, Unreadable):
        return f"an attribute that cannot be read ({value.error})"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a truth value"
    return f"a value of type {type(value).__name__}"


def accept_text(value: Any, field: str = "text", limit: int = MAX_TEXT) -> str:
    """A text of 1 to *limit* characters without controls, spaces around it removed."""
    if not isinstance(value, str):
        raise EventError(field, f"takes a text; it got {kind(value)}")
    text = value.strip()
    if not text:
        raise EventError(field, "takes a text; this one is empty")
    if len(text) > limit:
        raise EventError(field, f"takes a text of at most {limit} characters")
    if _CONTROL.search(text):
        raise EventError(field, "takes a text without control characters")
    # A subclass of str (an enum's member, a template's markup) may print as something else.
    return text if type(text) is str else str.__str__(text)


def accept_id(value: Any, field: str = "id") -> str:
    """An id as text: a text, a whole number or a UUID."""
    if not isinstance(value, str):
        from uuid import UUID

        if isinstance(value, UUID):
            return str(value)
        try:
            # Also whole numbers of numpy and of enumerations.
            number = value.__index__() if not isinstance(value, bool) else None
        except (AttributeError, TypeError):
            number = None
        if number is None:
            raise EventError(field, f"takes a text or a whole number; it got {kind(value)}")
        if abs(number) >= 10**MAX_TEXT:
            raise EventError(field, f"takes a text of at most {MAX_TEXT} characters")
        return str(number)
    return accept_text(value, field)


def accept_label(value: Any, field: str = "text", limit: int = MAX_TEXT) -> str | None:
    """Like :func:`accept_text`; an empty text is nothing, and line breaks become spaces."""
    if not isinstance(value, str):
        raise EventError(field, f"takes a text; it got {kind(value)}")
    text = value.strip()
    if not text:
        return None
    if not text.isprintable():
        text = _CONTROLS.sub(" ", text).strip()
        if not text:
            return None
    if len(text) > limit:
        raise EventError(field, f"takes a text of at most {limit} characters")
    return text if type(text) is str else str.__str__(text)


def accept_keywords(value: Any) -> str | None:
    """What somebody searched for: a text, or a list of words that are joined by spaces."""
    if isinstance(value, list | tuple):
        if not all(isinstance(word, str) for word in value):
            raise EventError("keywords", "takes a text or a list of texts")
        value = " ".join(value)
    return accept_label(value, "keywords", MAX_KEYWORDS)


def accept_user_agent(value: Any) -> str | None:
    """A browser's own text: controls become spaces, and a long one is cut."""
    if not isinstance(value, str):
        raise EventError("user_agent", f"takes a text; it got {kind(value)}")
    return _CONTROLS.sub(" ", value[:MAX_USER_AGENT]).strip() or None


def accept_quantity(value: Any, field: str = "quantity") -> int:
    """A positive whole number; ``2.0`` and ``"2"`` are taken for what they are."""
    takes = f"takes a whole number from 1 to {MAX_QUANTITY:,}"
    if isinstance(value, bool) or value is None:
        raise EventError(field, f"{takes}; it got {kind(value)}")
    if isinstance(value, str):
        text = value.strip()
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise EventError(field, takes)
        number = int(text)
    else:
        try:
            number = int(value)
            if number != value:
                raise EventError(field, takes)
        except (TypeError, ValueError, ArithmeticError):
            raise EventError(field, f"{takes}; it got {kind(value)}") from None
    if not 1 <= number <= MAX_QUANTITY:
        raise EventError(field, takes)
    return number


def accept_timestamp(value: Any) -> float:
    """Epoch seconds.

    :param value: an aware ``datetime``, or seconds since the epoch as ``int``, ``float`` or
        ``Decimal``.
    :raises EventError: a naive ``datetime``, milliseconds, or a text.
    """
    takes = TAKES_A_TIME
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise EventError(
                "timestamp",
                f"{takes}; this datetime is naive, and a naive one means another moment on every "
                "server: pass datetime.now(timezone.utc), or add the tzinfo that it was meant in",
            )
        try:
            seconds = value.timestamp()
        except (OverflowError, ValueError):
            raise EventError("timestamp", f"{takes}; this one is out of range") from None
    elif isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        hint = ": a date has no time" if isinstance(value, date) else ""
        raise EventError("timestamp", f"{takes}; it got {kind(value)}{hint}")
    else:
        try:
            seconds = float(value)
        except (OverflowError, ValueError, ArithmeticError):
            raise EventError("timestamp", f"{takes}; this one is out of range") from None
    if seconds >= MILLISECONDS and seconds != float("inf"):
        raise EventError("timestamp", f"{takes}; these look like milliseconds: divide by 1000")
    # Also false for NaN.
    if not OLDEST <= seconds < MILLISECONDS:
        raise EventError("timestamp", f"{takes}; this one is out of range")
    return seconds


def _no_constant(_name: str) -> None:
    raise ValueError


def _told(value: object) -> Any:
    """What JSON has no form for and that everybody writes alike."""
    from uuid import UUID

    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError


def is_json(text: str) -> bool:
    """True for a text that holds JSON and can leave as UTF-8."""
    try:
        json.loads(text, parse_constant=_no_constant)
        text.encode()
    except (ValueError, RecursionError):
        return False
    return True


def accept_json_text(value: Any) -> str:
    """External data of an event that is checked again: JSON text is not encoded a second time."""
    if isinstance(value, str) and is_json(value):
        return str.__str__(value)
    return accept_external_data(value)


def accept_external_data(value: Any) -> str:
    """The caller's own data, as the JSON text that the API wants.

    :param value: anything that JSON can say; ``Decimal``, dates and UUIDs become texts. A text
        that is a JSON object or array already is passed on as it is.
    :raises EventError: no JSON can be made of it.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") and is_json(value):
        return str.__str__(value)
    try:
        text = json.dumps(
            value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_told
        )
        text.encode()
    except (TypeError, ValueError, RecursionError):
        raise EventError(
            "external_data", "takes what JSON can say: objects, lists, texts, finite numbers"
        ) from None
    return text


def accept_event_name(value: Any) -> str:
    """One of the thirteen names, as AdRoll writes it."""
    if isinstance(value, str):
        if value in EVENT_NAMES:
            return str.__str__(value)
        near = nearest_event(value)
        if near:
            raise EventError("event_name", f"there is no such event; did you mean {near!r}?")
    raise EventError("event_name", f"takes one of {', '.join(EVENT_NAMES)}")


def accept_click_id(value: Any) -> str:
    """What :func:`~adroll_flask.visitor.identifiers.accept_adct` takes; the rest is an error."""
    found = accept_adct(value) if isinstance(value, str) else None
    if found is None:
        raise EventError("adct", "takes 1 to 240 printable ASCII characters without spaces")
    return found


def accept_cookie(value: Any) -> str:
    """A first-party cookie's value, as the pixel would write it."""
    found = normalise_first_party_cookie(value) if isinstance(value, str) else None
    if found is None:
        raise EventError(
            "first_party_cookie",
            "takes the value of __adroll_fpc: 1 to 80 printable ASCII characters without space, "
            "semicolon, comma, double quote and backslash",
        )
    return found


def accept_eid(value: Any) -> None:
    """Nothing, which an empty text says as well."""
    if not isinstance(value, str) or value:
        raise EventError("eid", "takes 8 to 40 upper-case letters and digits")


def _one_text(value: Any) -> str:
    # One text per kind (s2s-api.md, "The identifiers"): never a list.
    if not isinstance(value, str):
        raise EventError("email", f"takes one text; it got {kind(value)}")
    return value


def accept_address(value: Any) -> str | None:
    """An e-mail address in clear text; an empty text is nothing."""
    return accept_email(value) if _one_text(value) else None


def accept_sha256(value: Any) -> str | None:
    """The SHA-256 of an address in any case; an empty text is nothing."""
    return accept_hash(value, "email_sha256")[1] if _one_text(value) else None


def accept_md5(value: Any) -> str | None:
    """The MD5 of an address in any case; an empty text is nothing."""
    return accept_hash(value, "email_md5")[1] if _one_text(value) else None
