"""What each kind of field takes: its type, what the JSON schema says of it, and its one check.

A check returns the value in the one form that AdRoll gets, or ``None`` for a value that says
nothing. For a wrong value it raises an :class:`EventError`, which says what the field takes and
never holds the value. Which fields there are is told by :class:`.event.Event`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from functools import partial
from typing import Annotated, Any

from iso4217 import raw_table
from msgspec import Meta

from adroll_flask.amounts import EXACT
from adroll_flask.errors import EventError, let_through
from adroll_flask.visitor import identifiers
from adroll_flask.visitor.identifiers import MAX_TEXT, accept_label, kind

from .names import EVENT_NAMES, suggestion
from .page_location import MAX_LOCATION, accept_location

#: Bytes of one event as JSON. AdRoll documents no bound; a batch of a hundred stays near 3 MiB.
MAX_BYTES = 32 * 1024
#: Characters of what somebody searched for.
MAX_KEYWORDS = 1000
#: Pieces of one product.
MAX_QUANTITY = 1_000_000
#: An amount is below this. Who reports more has mistaken the unit.
_LIMIT = 10**14
LIMIT = Decimal(_LIMIT)
#: Decimals of an amount that stands without a currency.
MOST_DECIMALS = 6
#: Characters of an amount and of a currency that are read, with the spaces around them.
MAX_AMOUNT = 100
MAX_CURRENCY = 16

#: September 2001; an earlier time is a mistake of the unit or an unset clock.
OLDEST = 1_000_000_000
#: From here on a number means milliseconds (as seconds: the year 5138).
MILLISECONDS = 100_000_000_000
#: Seconds by which an event's time may be ahead of the clock, since clocks differ. A local time
#: that was taken for UTC is further ahead.
FUTURE = 3600.0
TAKES_TIME = "takes an aware datetime or seconds since the epoch"


# -- texts ---------------------------------------------------------------------------------


def _keywords(value: Any) -> str | None:
    """What somebody searched for: a text, or a list of words that are joined by spaces."""
    if isinstance(value, list | tuple):
        words = value[: MAX_KEYWORDS + 1]
        if not all(isinstance(word, str) for word in words):
            raise EventError("keywords", "takes a text or a list of texts")
        if sum(map(len, words)) + len(words) - 1 > MAX_KEYWORDS:
            raise EventError("keywords", f"takes a text of at most {MAX_KEYWORDS} characters")
        value = " ".join(words)
    return accept_label(value, MAX_KEYWORDS)


def accept_event_name(value: Any) -> str:
    if isinstance(value, str) and value in EVENT_NAMES:
        return value if type(value) is str else str.__str__(value)
    near = suggestion(value, EVENT_NAMES)
    raise EventError("event_name", f"takes one of {', '.join(EVENT_NAMES)}{near}")


_EID = re.compile(r"[A-Z0-9]{8,40}").fullmatch


def _eid(value: Any) -> str | None:
    """An account's id; an empty text is nothing."""
    if isinstance(value, str) and (not value or _EID(value)):
        return str.__str__(value) or None
    raise EventError("eid", "takes 8 to 40 upper-case letters and digits")


# -- who the visitor is --------------------------------------------------------------------


def _checked_by(check: Callable[[str], str | None], takes: str) -> Callable[[Any], str]:
    """A check that raises an error with *takes*, where *check* returns ``None``."""

    def accept(value: Any) -> str:
        text = check(str.__str__(value)) if isinstance(value, str) else None
        if text is None:
            raise EventError("text", takes)
        return text

    return accept


# -- numbers -------------------------------------------------------------------------------


def _quantity(value: Any) -> int:
    """A positive whole number; ``2.0`` and ``"2"`` are taken for what they are."""
    if type(value) is int and 1 <= value <= MAX_QUANTITY:
        return value
    with suppress(EventError):
        number = accept_amount(value)
        if 1 <= number <= MAX_QUANTITY and number == int(number):
            return int(number)
    raise EventError("quantity", f"takes a whole number from 1 to {MAX_QUANTITY:,}")


def accept_time(value: Any) -> float:
    """Epoch seconds, to the millisecond."""
    if type(value) is float and OLDEST <= value < MILLISECONDS:
        return round(value * 1000) / 1000  # the same as round(value, 3), in half of the time
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise EventError(
            "timestamp",
            f"{TAKES_TIME}; this datetime is naive, and a naive one means another moment on "
            "every server: pass datetime.now(timezone.utc), or add the tzinfo that it was meant in",
        )
    if isinstance(value, bool) or not isinstance(value, datetime | int | float | Decimal):
        hint = ": a date has no time" if isinstance(value, date) else ""
        raise EventError("timestamp", f"{TAKES_TIME}; it got {kind(value)}{hint}")
    try:
        seconds = value.timestamp() if isinstance(value, datetime) else float(value)
    except (OverflowError, ValueError):
        seconds = 0.0
    if MILLISECONDS <= seconds < float("inf"):
        raise EventError("timestamp", f"{TAKES_TIME}; these look like milliseconds: divide by 1000")
    # NaN is refused here, too: it lies in no range.
    if not OLDEST <= seconds < MILLISECONDS:
        raise EventError("timestamp", f"{TAKES_TIME}; this one is out of range")
    return round(seconds, 3)


# -- money ---------------------------------------------------------------------------------

#: Decimals of each currency (ISO 4217, list one). Codes without minor units (gold, test codes, "no
#: currency") are not money that somebody pays with and are left out.
DECIMALS: Mapping[str, int] = {
    code: int(str(row["CcyMnrUnts"]))
    for code, row in raw_table.items()
    if code and str(row["CcyMnrUnts"]).isdigit()
}
#: One of each currency's smallest unit.
_UNITS: Mapping[str | None, Decimal] = {
    code: Decimal(1).scaleb(-decimals, EXACT) for code, decimals in DECIMALS.items()
}
_AMOUNT = re.compile(
    r"[+-]?((?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:e[+-]?[0-9]{1,3})?|s?nan|inf(?:inity)?)\Z",
    re.IGNORECASE,
)
#: Most amounts: below the limit and finite by their form.
_PLAIN_AMOUNT = re.compile(r"[0-9]{1,13}(?:\.[0-9]{1,6})?").fullmatch
_COMMA = re.compile(r"[0-9.]*,[0-9]+\Z")


def accept_amount(value: Any) -> Decimal:
    """An amount in major units, exactly as it was meant.

    :param value: a ``Decimal``, an ``int``, decimal text with a point, or a ``float``, which is
        read by its shortest text: ``0.1`` is one tenth.
    :raises EventError: not a number, not finite, negative, or 10^14 and more.

    >>> accept_amount(59.9)
    Decimal('59.9')
    """
    if type(value) is str and _PLAIN_AMOUNT(value):
        return Decimal(value)
    takes = "takes a Decimal, a number or decimal text such as '59.90'"
    if isinstance(value, str):
        text = value[: MAX_AMOUNT + 1].strip()
        if len(value) > MAX_AMOUNT or not _AMOUNT.match(text):
            if _COMMA.match(text):
                takes = "takes decimal text with a point, such as '59.90'; no comma"
            raise EventError("value", takes)
        amount = Decimal(text)
    elif isinstance(value, float):
        # Not repr(): numpy's float64 is a float too, and its repr() is no number's text.
        amount = Decimal(float.__repr__(value))
    else:
        number = value if isinstance(value, Decimal) else identifiers.whole_number(value)
        if number is None:
            raise EventError("value", f"{takes}; it got {kind(value)}")
        if isinstance(number, int):  # to make a Decimal of many digits takes a long time
            number = max(-_LIMIT, min(number, _LIMIT))
        amount = Decimal(number)
    if not amount.is_finite():
        raise EventError("value", "takes a finite amount, not infinity or NaN")
    if amount < 0:
        raise EventError("value", "takes an amount of zero or more; this one is negative")
    if amount >= LIMIT:
        raise EventError("value", "takes an amount below 10^14 in major units")
    # Zero may be a negative zero.
    return amount if amount else amount.copy_abs()


def accept_currency(value: Any) -> str:
    """A current ISO 4217 code in upper case.

    >>> accept_currency("eur")
    'EUR'
    """
    if type(value) is str and value in DECIMALS:
        return value
    if isinstance(value, str):
        code = value[:MAX_CURRENCY].strip().upper()
        if code in DECIMALS and len(value) <= MAX_CURRENCY:
            return str.__str__(code)
    raise EventError("currency", "takes a current ISO 4217 code: three letters such as 'EUR'")


def rounded(amount: Decimal, currency: str | None) -> Decimal:
    """The amount with its currency's decimals, rounded half up.

    Without a known currency it keeps its own decimals, at most six.
    """
    unit = _UNITS.get(currency)
    if unit is None:
        exponent = amount.as_tuple().exponent
        decimals = -exponent if isinstance(exponent, int) else 0
        unit = Decimal(1).scaleb(-min(max(decimals, 0), MOST_DECIMALS), EXACT)
    elif amount.same_quantum(unit):
        return amount
    nearest = amount.quantize(unit, ROUND_HALF_UP, EXACT)
    # It has to be below the limit still: it is checked again when it is read.
    return nearest if nearest < LIMIT else amount.quantize(unit, ROUND_DOWN, EXACT)


# -- the caller's own data -----------------------------------------------------------------


def _as_text(value: object) -> str:
    """The usual text of a decimal number, a UUID or a date, for which JSON has no form.

    :raises TypeError: *value* is none of these.
    """
    from uuid import UUID

    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError


def accept_external_data(value: Any, *, again: bool = False) -> str:
    """The caller's own data, as the JSON text that the API wants.

    :param value: anything that JSON can say; ``Decimal``, dates and UUIDs become texts. A text
        that is a JSON object or array already is passed on as it is.
    :param again: it is an event's, which is checked again: any JSON text is kept as it is.
    :raises EventError: no JSON can be made of it.
    """
    with suppress(ValueError, RecursionError):
        if isinstance(value, str) and len(value) > MAX_BYTES:
            # No event has room for it. The error comes where the event's size is checked.
            return json.dumps(value[:MAX_BYTES])
        if isinstance(value, str) and (again or value.lstrip()[:1] in ("{", "[")):
            json.loads(value, parse_constant=int)  # int() refuses NaN and Infinity
            value.encode()  # half a surrogate pair fails
            return str.__str__(value)
    try:
        text = json.dumps(
            value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_as_text
        )
        text.encode()
    except Exception as problem:
        let_through(problem)
        raise EventError(
            "external_data", "takes what JSON can say: objects, lists, texts, finite numbers"
        ) from None
    return text


# -- the kinds -----------------------------------------------------------------------------
#
# Each is the type of what the event keeps, what the JSON schema says of it, and its check.


def _text(pattern: str, **more: Any) -> Meta:
    return Meta(pattern=f"^{pattern}$", **more)


def _words(most: int) -> Meta:
    return _text(r"[^\x00-\x1f\x7f-\x9f]+", min_length=1, max_length=most)


def _one_of(names: Sequence[str], description: str | None = None) -> Meta:
    return Meta(extra_json_schema={"enum": [*names]}, description=description)


_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_ADDRESS = r"[^@\s\x00-\x1f\x7f-\x9f]+@[^@\s\x00-\x1f\x7f-\x9f]+"
_MAJOR_UNITS = {
    "type": "string",
    "pattern": rf"^(0|[1-9][0-9]{{0,13}})(\.[0-9]{{1,{MOST_DECIMALS}}})?$",
    "description": "Major units; with the currency's own number of decimals.",
}
_adct = _checked_by(
    identifiers.accept_adct, "takes 1 to 240 printable ASCII characters without spaces"
)
accept_cookie: Callable[[Any], str] = _checked_by(
    identifiers.normalise_first_party_cookie,
    "takes the value of __adroll_fpc: 1 to 80 printable ASCII characters without space, "
    "semicolon, comma, double quote and backslash",
)
_email = _checked_by(identifiers.accept_email, "takes one text")

Id = Annotated[str, _words(MAX_TEXT), identifiers.accept_id]
Label = Annotated[str, _words(MAX_TEXT), accept_label]
Keywords = Annotated[str, _words(MAX_KEYWORDS), _keywords]
UserAgent = Annotated[str, _words(identifiers.MAX_USER_AGENT), identifiers.accept_user_agent]
UserId = Annotated[str, _words(MAX_TEXT), identifiers.accept_user_id]
Name = Annotated[str, _one_of(EVENT_NAMES), accept_event_name]
Eid = Annotated[str, _text(r"[A-Z0-9]{8,40}"), _eid]
Adct = Annotated[str, _text(rf"[\x21-\x7e]{{1,{identifiers.MAX_ADCT}}}"), _adct]
Cookie = Annotated[str, _text(identifiers.COOKIE_PATTERN), accept_cookie]
Email = Annotated[str, _text(_ADDRESS, max_length=identifiers.MAX_EMAIL), _email]
Sha256 = Annotated[str, _text("[0-9a-f]{64}"), partial(identifiers.accept_hash, digits=64)]
Md5 = Annotated[str, _text("[0-9a-f]{32}"), partial(identifiers.accept_hash, digits=32)]
DeviceId = Annotated[str, _text(_UUID), identifiers.accept_device_id]
Ip = Annotated[str, _text("[0-9A-Fa-f.:]+"), identifiers.normalise_ip]
Location = Annotated[str, _text(r"https?://[\x21-\x7e]+", max_length=MAX_LOCATION), accept_location]
Time = Annotated[float, Meta(ge=OLDEST, lt=MILLISECONDS, description="UTC seconds."), accept_time]
Currency = Annotated[str, _one_of(sorted(DECIMALS), "ISO 4217."), accept_currency]
Amount = Annotated[Decimal, Meta(extra_json_schema=_MAJOR_UNITS), accept_amount]
Quantity = Annotated[int, Meta(ge=1, le=MAX_QUANTITY), _quantity]
JsonText = Annotated[
    str, Meta(description="JSON in a text."), partial(accept_external_data, again=True)
]
