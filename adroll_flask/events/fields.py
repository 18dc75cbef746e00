"""What each kind of field takes: its one check, and what the JSON schema says of it.

A check returns what the event keeps, in the one form that AdRoll gets; ``None`` where the value
says nothing; or raises an :class:`EventError` that says what is taken and never the value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_DOWN, ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Annotated, Any

from iso4217 import raw_table

from adroll_flask.errors import EventError
from adroll_flask.visitor import identifiers
from adroll_flask.visitor.identifiers import CONTROL, MAX_TEXT, kind

from .location import MAX_LOCATION, PLAIN_LOCATION, accept_location
from .names import EVENT_NAMES, suggestion

#: Characters of what somebody searched for.
MAX_KEYWORDS = 1000
#: Characters of a user agent; the rest of a longer one is cut off.
MAX_USER_AGENT = 1024
#: Pieces of one product.
MAX_QUANTITY = 1_000_000
#: Amounts below this are taken; more is a slip of the unit.
LIMIT = Decimal(10) ** 14
#: Decimals of an amount that stands without a currency.
MOST_DECIMALS = 6

#: September 2001; an earlier time is a mistake of the unit or an unset clock.
OLDEST = 1_000_000_000
#: From here on a number means milliseconds (as seconds: the year 5138).
MILLISECONDS = 100_000_000_000
#: Seconds that an event's time may lie ahead of the clock: clocks differ, events do not come from
#: the future. A time zone that was mistaken for UTC lies further ahead.
FUTURE = 3600.0
TAKES_A_TIME = "takes an aware datetime or seconds since the epoch"


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One kind of field."""

    accept: Callable[[Any], Any]
    #: What the JSON schema says of it.
    schema: Mapping[str, Any]
    #: True for a text in AdRoll's own form, which is kept as it is without asking *accept*: most
    #: are, and telling so by one expression costs a report a third.
    is_plain: Callable[[str], object] = frozenset[str]().__contains__


# -- texts ---------------------------------------------------------------------------------


def accept_label(value: Any, limit: int = MAX_TEXT) -> str | None:
    """A text; an empty one is nothing, and line breaks become spaces."""
    if not isinstance(value, str):
        raise EventError("text", f"takes a text; it got {kind(value)}")
    text = value.strip()
    if not text.isprintable():
        text = re.sub(f"{CONTROL.pattern}+", " ", text).strip()
    if len(text) > limit:
        raise EventError("text", f"takes a text of at most {limit} characters")
    # A subclass of str (an enum's member, a template's markup) may print as something else.
    return str.__str__(text) or None


def _keywords(value: Any) -> str | None:
    """What somebody searched for: a text, or a list of words that are joined by spaces."""
    if isinstance(value, list | tuple):
        if not all(isinstance(word, str) for word in value):
            raise EventError("keywords", "takes a text or a list of texts")
        value = " ".join(value)
    return accept_label(value, MAX_KEYWORDS)


def _user_agent(value: Any) -> str | None:
    """A browser's own text: controls become spaces, and a long one is cut."""
    cut = value[:MAX_USER_AGENT] if isinstance(value, str) else value
    return accept_label(cut, MAX_USER_AGENT)


def accept_event_name(value: Any) -> str:
    if isinstance(value, str) and value in EVENT_NAMES:
        return str.__str__(value)
    near = suggestion(value, EVENT_NAMES)
    raise EventError("event_name", f"takes one of {', '.join(EVENT_NAMES)}{near}")


def _eid(value: Any) -> None:
    """Nothing, which an empty text says as well."""
    if not isinstance(value, str) or value:
        raise EventError("eid", "takes 8 to 40 upper-case letters and digits")


# -- who the visitor is --------------------------------------------------------------------


def _found_by(find: Callable[[str], str | None], takes: str) -> Callable[[Any], str]:
    """What *find* makes of a text; where it finds nothing, *takes* is said."""

    def accept(value: Any) -> str:
        found = find(value) if isinstance(value, str) else None
        if found is None:
            raise EventError("text", takes)
        return found

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


def _time(value: Any) -> float:
    """Epoch seconds, to the millisecond."""
    if type(value) is float and OLDEST <= value < MILLISECONDS:
        return round(value, 3)
    takes = TAKES_A_TIME
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise EventError(
            "timestamp",
            f"{takes}; this datetime is naive, and a naive one means another moment on every "
            "server: pass datetime.now(timezone.utc), or add the tzinfo that it was meant in",
        )
    if isinstance(value, bool) or not isinstance(value, datetime | int | float | Decimal):
        hint = ": a date has no time" if isinstance(value, date) else ""
        raise EventError("timestamp", f"{takes}; it got {kind(value)}{hint}")
    try:
        seconds = value.timestamp() if isinstance(value, datetime) else float(value)
    except (OverflowError, ValueError, ArithmeticError):
        seconds = 0.0
    if MILLISECONDS <= seconds < float("inf"):
        raise EventError("timestamp", f"{takes}; these look like milliseconds: divide by 1000")
    # Also false for NaN.
    if not OLDEST <= seconds < MILLISECONDS:
        raise EventError("timestamp", f"{takes}; this one is out of range")
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
    code: Decimal(1).scaleb(-decimals) for code, decimals in DECIMALS.items()
}
#: Ours, so that an app's own precision and traps change no amount.
_CONTEXT = Context(prec=40, rounding=ROUND_HALF_UP, traps=[InvalidOperation])
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
        text = value.strip()
        if not _AMOUNT.match(text):
            if _COMMA.match(text):
                takes = "takes decimal text with a point, such as '59.90'; no comma"
            raise EventError("value", takes)
        amount = Decimal(text)
    elif isinstance(value, float):
        # Not repr(): that of numpy's float64, which is a float too, is not a number's text.
        amount = Decimal(float.__repr__(value))
    else:
        number = value if isinstance(value, Decimal) else identifiers.whole_number(value)
        if number is None:
            raise EventError("value", f"{takes}; it got {kind(value)}")
        amount = Decimal(number)
    if not amount.is_finite():
        raise EventError("value", "takes a finite amount, not infinity or NaN")
    if amount < 0:
        raise EventError("value", "takes an amount of zero or more; this one is negative")
    if amount >= LIMIT:
        raise EventError("value", "takes an amount below 10^14 in major units")
    # Also turns a negative zero into zero.
    return amount if amount else amount.copy_abs()


def accept_currency(value: Any) -> str:
    """A current ISO 4217 code in upper case.

    >>> accept_currency("eur")
    'EUR'
    """
    if isinstance(value, str):
        code = value if value in DECIMALS else value.strip().upper()
        if code in DECIMALS:
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
        unit = Decimal(1).scaleb(-min(max(decimals, 0), MOST_DECIMALS))
    if amount.same_quantum(unit):
        return amount
    nearest = amount.quantize(unit, ROUND_HALF_UP, _CONTEXT)
    # What is written has to be taken when it is read again.
    return nearest if nearest < LIMIT else amount.quantize(unit, ROUND_DOWN, _CONTEXT)


# -- the caller's own data -----------------------------------------------------------------


def _told(value: object) -> str:
    """What JSON has no form for and that everybody writes alike."""
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
    :param again: it is an event's that is checked again: any JSON text is, and not encoded twice.
    :raises EventError: no JSON can be made of it.
    """
    with suppress(ValueError, RecursionError):
        if isinstance(value, str) and (again or value.lstrip()[:1] in ("{", "[")):
            json.loads(value, parse_constant=int)  # which NaN and Infinity are none
            value.encode()
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


# -- the kinds -----------------------------------------------------------------------------


def _text(pattern: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$", **more}


def _of_form(
    accept: Callable[[Any], Any], pattern: str, plain: str | re.Pattern[str] = "", **more: Any
) -> Field:
    """A text of the form *pattern*.

    :param plain: the part of it that is kept as it is, where that is another.
    :param more: what else the JSON schema says.
    """
    return Field(accept, _text(pattern, **more), re.compile(plain or pattern).fullmatch)


def _one_of(accept: Callable[[Any], str], names: Sequence[str], **more: Any) -> Field:
    schema = {"type": "string", "enum": [*names], **more}
    return Field(accept, schema, frozenset(names).__contains__)


def _words(accept: Callable[[Any], str | None], most: int) -> Field:
    plain = rf"[!-~](?:[ -~]{{0,{most - 2}}}[!-~])?"
    return _of_form(accept, r"[^\x00-\x1f\x7f-\x9f]+", plain, minLength=1, maxLength=most)


def _hash(digits: int) -> Field:
    form = f"[0-9a-f]{{{digits}}}"
    # What may be the hash of an empty text is looked at.
    plain = rf"(?!e3b0c442|d41d8cd9){form}"
    return _of_form(lambda value: identifiers.accept_hash(value, digits), form, plain)


Id = Annotated[str, _words(identifiers.accept_id, MAX_TEXT)]
Label = Annotated[str, _words(accept_label, MAX_TEXT)]
Keywords = Annotated[str, _words(_keywords, MAX_KEYWORDS)]
UserAgent = Annotated[str, _words(_user_agent, MAX_USER_AGENT)]
UserId = Annotated[str, _words(identifiers.accept_user_id, MAX_TEXT)]
Name = Annotated[str, _one_of(accept_event_name, EVENT_NAMES)]
Eid = Annotated[str, _of_form(_eid, r"[A-Z0-9]{8,40}")]
_adct = _found_by(
    identifiers.accept_adct, "takes 1 to 240 printable ASCII characters without spaces"
)
Adct = Annotated[str, _of_form(_adct, rf"[\x21-\x7e]{{1,{identifiers.MAX_ADCT}}}")]
_cookie = _found_by(
    identifiers.normalise_first_party_cookie,
    "takes the value of __adroll_fpc: 1 to 80 printable ASCII characters without space, "
    "semicolon, comma, double quote and backslash",
)
Cookie = Annotated[str, _of_form(_cookie, identifiers.COOKIE_PATTERN, identifiers.PLAIN_COOKIE)]
_ADDRESS = _text(
    r"[^@\s\x00-\x1f\x7f-\x9f]+@[^@\s\x00-\x1f\x7f-\x9f]+", maxLength=identifiers.MAX_EMAIL
)
Email = Annotated[str, Field(_found_by(identifiers.accept_email, "takes one text"), _ADDRESS)]
Sha256 = Annotated[str, _hash(64)]
Md5 = Annotated[str, _hash(32)]
_UUID = _text("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
DeviceId = Annotated[str, Field(identifiers.accept_device_id, _UUID)]
Ip = Annotated[str, _of_form(identifiers.normalise_ip, "[0-9A-Fa-f.:]+", identifiers.IPV4)]
_URL = r"https?://[\x21-\x7e]+"
Location = Annotated[str, _of_form(accept_location, _URL, PLAIN_LOCATION, maxLength=MAX_LOCATION)]
_SECONDS = {"type": "number", "minimum": OLDEST, "exclusiveMaximum": MILLISECONDS}
Time = Annotated[float, Field(_time, {**_SECONDS, "description": "UTC seconds."})]
Currency = Annotated[str, _one_of(accept_currency, sorted(DECIMALS), description="ISO 4217.")]
_MAJOR_UNITS = _text(
    rf"(0|[1-9][0-9]{{0,13}})(\.[0-9]{{1,{MOST_DECIMALS}}})?",
    description="Major units; with the currency's own number of decimals.",
)
Amount = Annotated[Decimal, Field(accept_amount, _MAJOR_UNITS)]
_PIECES = {"type": "integer", "minimum": 1, "maximum": MAX_QUANTITY}
Quantity = Annotated[int, Field(_quantity, _PIECES)]
_JSON = {"type": "string", "description": "JSON in a text."}
JsonText = Annotated[str, Field(lambda value: accept_external_data(value, again=True), _JSON)]
