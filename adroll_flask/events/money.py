"""Amounts and currencies: exact in, written with the currency's own number of decimals.

The list of currencies and their decimals is ISO 4217's list one, kept in the package
``iso4217``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_DOWN, ROUND_HALF_UP, Context, Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any

from iso4217 import raw_table

from adroll_flask.errors import EventError

from .coercion import kind

#: Amounts below this are taken; more is a slip of the unit.
LIMIT = Decimal(10) ** 14
#: Decimals of an amount that stands without a currency.
MOST_DECIMALS = 6

#: Decimals of each currency. Codes without minor units (gold, test codes, "no currency") are not
#: money that somebody pays with and are left out.
DECIMALS: Mapping[str, int] = MappingProxyType(
    {
        code: int(str(row["CcyMnrUnts"]))
        for code, row in raw_table.items()
        if code and str(row["CcyMnrUnts"]).isdigit()
    }
)
#: One of each currency's smallest unit.
UNITS: Mapping[str | None, Decimal] = MappingProxyType(
    {code: Decimal(1).scaleb(-decimals) for code, decimals in DECIMALS.items()}
)
_FINEST = Decimal(1).scaleb(-MOST_DECIMALS)
_WHOLE = Decimal(1)
#: Ours, so that an app's own precision and traps change no amount.
_CONTEXT = Context(prec=40, rounding=ROUND_HALF_UP, traps=[InvalidOperation])
_ZERO = Decimal(0)
_AMOUNT = re.compile(r"[0-9]{1,40}(?:\.[0-9]{0,40})?\Z|\.[0-9]{1,40}\Z")
_EXPONENT = re.compile(r"[+-]?[0-9]{0,40}\.?[0-9]{0,40}(?:[eE][+-]?[0-9]{1,3})?\Z")
_COMMA = re.compile(r"[0-9.]*,[0-9]+\Z")


def accept_amount(value: Any, field: str = "value") -> Decimal:
    """An amount in major units, exactly as it was meant.

    :param value: a ``Decimal``, an ``int``, decimal text with a point, or a ``float``, which is
        read by its shortest text: ``0.1`` is one tenth.
    :raises EventError: not a number, not finite, negative, or 10^14 and more.

    >>> accept_amount(59.9)
    Decimal('59.9')
    """
    given = type(value)
    if given is str:
        amount = Decimal(value) if _AMOUNT.match(value) else _from_text(value, field)
    elif given is Decimal:
        amount = value
    elif given is int:
        # Compared before it becomes text: that of a huge number is costly or refused.
        if not 0 <= value < LIMIT:
            raise _out_of_range(value < 0, field)
        return Decimal(value)
    else:
        amount = _from_other(value, field)
    if not amount.is_finite():
        raise EventError(field, "takes a finite amount, not infinity or NaN")
    if not _ZERO <= amount < LIMIT:
        raise _out_of_range(amount < 0, field)
    # Also turns a negative zero into zero.
    return amount if amount else amount.copy_abs()


def _out_of_range(negative: bool, field: str) -> EventError:
    if negative:
        return EventError(field, "takes an amount of zero or more; this one is negative")
    return EventError(field, "takes an amount below 10^14 in major units")


def _from_text(value: str, field: str) -> Decimal:
    text = value.strip()
    if text.lower().lstrip("+-") in ("nan", "snan", "inf", "infinity"):
        raise EventError(field, "takes a finite amount, not infinity or NaN")
    if any(char.isdigit() for char in text) and _EXPONENT.match(text):
        return Decimal(text)
    if _COMMA.match(text):
        raise EventError(field, "takes decimal text with a point, such as '59.90'; no comma")
    raise EventError(field, "takes a Decimal, a number or decimal text such as '59.90'")


def _from_other(value: Any, field: str) -> Decimal:
    if isinstance(value, bool):
        raise EventError(field, f"takes an amount; it got {kind(value)}")
    if isinstance(value, float):
        # Not repr(): that of numpy's float64, which is a float too, is not a number's text.
        return Decimal(float.__repr__(value))
    if isinstance(value, Decimal):
        return Decimal(value)
    if isinstance(value, str):
        return _from_text(str(value), field)
    try:
        whole = value.__index__()
    except (AttributeError, TypeError):
        raise EventError(
            field,
            f"takes a Decimal, a number or decimal text such as '59.90'; it got {kind(value)}",
        ) from None
    if not 0 <= whole < LIMIT:
        raise _out_of_range(whole < 0, field)
    return Decimal(whole)


def accept_currency(value: Any) -> str:
    """An ISO 4217 code in upper case.

    :param value: three letters in any case.
    :raises EventError: not a current currency with minor units.

    >>> accept_currency("eur")
    'EUR'
    """
    if isinstance(value, str):
        if value in DECIMALS:
            return str(value)
        code = value.strip().upper()
        if code in DECIMALS:
            return code
    raise EventError("currency", "takes a current ISO 4217 code: three letters such as 'EUR'")


def rounded(amount: Decimal, currency: str | None) -> Decimal:
    """The amount with its currency's decimals, rounded half up.

    Without a known currency it keeps its own decimals, at most six.
    """
    quantum = UNITS.get(currency) if currency else None
    if quantum is not None and amount.same_quantum(quantum):
        return amount
    if quantum is None:
        exponent = amount.as_tuple().exponent
        if not isinstance(exponent, int):
            raise EventError("value", "takes a finite amount, not infinity or NaN")
        if -MOST_DECIMALS <= exponent <= 0:
            return amount
        quantum = _WHOLE if exponent > 0 else _FINEST
    nearest = amount.quantize(quantum, ROUND_HALF_UP, _CONTEXT)
    # What is written has to be taken when it is read again.
    return nearest if nearest < LIMIT else amount.quantize(quantum, ROUND_DOWN, _CONTEXT)
