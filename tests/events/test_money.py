"""Amounts are exact on their way in and have the currency's decimals on their way out."""

from decimal import ROUND_DOWN, Decimal, Inexact, localcontext
from enum import IntEnum
from typing import Any

import pytest

from adroll_flask import EventError
from adroll_flask.events.fields import accept_amount, accept_currency, rounded


class _Price(IntEnum):
    MUG = 5


class _Float(float):
    def __repr__(self) -> str:
        return f"float64({float(self)})"


class _Index:
    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        (" 59.90 ", "59.90"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1E+2", "100"),
        (59.9, "59.9"),
        (1e-7, "1E-7"),
        (_Price.MUG, "5"),
        (_Float(59.9), "59.9"),
        (_Index(), "7"),
    ],
)
def test_an_amount_is_read_exactly(value: Any, amount: str) -> None:
    found = accept_amount(value)
    assert found == Decimal(amount)
    assert type(found) is Decimal


def test_zero_has_no_sign() -> None:
    assert str(accept_amount(Decimal("-0.00"))) == "0.00"
    assert str(accept_amount(-0.0)) == "0.0"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        *((value, "finite") for value in (float("nan"), -float("inf"), "NaN", "-Infinity")),
        *((Decimal(value), "finite") for value in ("NaN", "sNaN")),
        *((value, "negative") for value in ("-1", -1, -0.01, Decimal("-0.001"))),
        pytest.param(-(10**400), "negative", id="below"),
        *((value, r"10\^14") for value in (10**14, "1e14", 1e300, Decimal("1E+999999"))),
        pytest.param(10**5000, r"10\^14", id="huge"),
        ("1.234,50", "no comma"),
        *((value, "text such as") for value in ("", " ", "€5", "5 EUR", "1_000", "0x10", "٥")),
        *((value, "text such as") for value in ("--5", "1e", "1e9999", None, b"5", [5])),
        (True, "a truth value"),
    ],
)
def test_what_is_no_amount_is_refused_and_never_told(value: Any, told: str) -> None:
    with pytest.raises(EventError, match=told) as caught:
        accept_amount(value)
    assert "1_000" not in str(caught.value)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("59.995", "EUR", "60.00"),
        ("59.994", "EUR", "59.99"),
        ("1200.5", "JPY", "1201"),
        ("1.23456", "CLF", "1.2346"),
        ("99999999999999.99", "EUR", "99999999999999.99"),
        ("59.9", None, "59.9"),
        ("1E+2", None, "100"),
        ("1E-7", None, "0.000000"),
        ("0.00000055", None, "0.000001"),
        ("99999999999999.5", "JPY", "99999999999999"),
        ("99999999999999.9999999", None, "99999999999999.999999"),
    ],
)
def test_an_amount_has_its_currencys_decimals(amount: str, currency: str | None, text: str) -> None:
    assert format(rounded(Decimal(amount), currency), "f") == text


@pytest.mark.parametrize(
    "value", ["", "EURO", "€", "DEM", "XXX", "XAU", "XTS", "ZZZ", "E\u016fR", None, 978]
)
def test_what_is_no_current_currency_is_refused(value: Any) -> None:
    with pytest.raises(EventError, match=r"^currency: "):
        accept_currency(value)


def test_an_apps_own_decimal_context_changes_no_amount() -> None:
    with localcontext() as own:
        own.prec = 3
        own.rounding = ROUND_DOWN
        own.traps[Inexact] = True
        assert rounded(accept_amount("12345678.905"), "EUR") == Decimal("12345678.91")
        assert accept_amount(Decimal("-0.000000")) == 0
