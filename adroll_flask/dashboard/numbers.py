"""Numbers as a person's language writes them: German and English by Babel, else English."""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from adroll_flask.plurals import counted

#: The languages whose numbers we write; texts are in English.
LANGUAGES: Final = ("en", "de")


class Numbers:
    """Writes numbers, money and times.

    :param language: one of :data:`LANGUAGES`.

    >>> Numbers("en").count(12345), Numbers("en").percent(0.9996)
    ('12,345', '99.9 %')
    """

    def __init__(self, language: str = "en") -> None:
        self.language = language
        try:
            from babel import Locale, numbers
        except ImportError:
            self._babel: Any = None
        else:
            self._babel, self._locale = numbers, Locale.parse(language)

    def count(self, number: int) -> str:
        """A whole number: ``12,345``."""
        if self._babel is None:
            return f"{number:,}"
        return str(self._babel.format_decimal(number, locale=self._locale))

    def short(self, number: float) -> str:
        """A number for an axis: ``0``, ``250``, ``1.5k``, ``20k``, ``3M``."""
        for size, unit in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
            if abs(number) >= size:
                return self._decimal(number / size, 1) + unit
        return self._decimal(number, 1)

    def decimal(self, number: float) -> str:
        """A number with one place: ``4.2``."""
        return self._decimal(number, 1)

    def percent(self, share: float | None) -> str:
        """A share from 0 to 1: ``85.3 %``. Only what is all is 100 %, only nothing is 0 %."""
        if share is None:
            return "–"
        shown = share * 100
        if 0 < share < 1:
            shown = min(max(shown, 0.1), 99.9)
        return self._decimal(shown, 1) + " %"

    def money(self, value: Decimal, currency: str) -> str:
        """An amount: ``1,234.50 EUR``; large ones without the fraction."""
        places = 0 if abs(value) >= 100_000 else 2
        return f"{self._decimal(value, places, fixed=True)} {currency}".rstrip()

    def values(self, values: Sequence[tuple[str, Decimal]]) -> str:
        """Amounts of several currencies: ``1,234.50 EUR + 99.00 USD``."""
        return " + ".join(self.money(value, currency) for currency, value in values)

    def _decimal(self, number: float | Decimal, places: int, *, fixed: bool = False) -> str:
        if self._babel is None:
            text = f"{number:,.{places}f}"
            return text if fixed or "." not in text else text.rstrip("0").rstrip(".")
        fraction = ("0" if fixed else "#") * places
        pattern = f"#,##0.{fraction}" if places else "#,##0"
        return str(self._babel.format_decimal(number, pattern, locale=self._locale))


# -- times: everything is UTC, as the history's hours are ----------------------------------------


def moment(at: float | None) -> str:
    """``24 Nov 2026, 14:05``, UTC."""
    return "–" if at is None else written("%-d %b %Y, %H:%M", at)


def written(form: str, at: float) -> str:
    """*at* in UTC by a form of ``strftime``; ``%-d``, a day without a zero, on every platform.

    >>> written("%-d %b %Y", 1_730_764_800)
    '5 Nov 2024'
    """
    parts = time.gmtime(at)
    return time.strftime(form.replace("%-d", str(parts.tm_mday)), parts)


def iso(at: float | None) -> str:
    """``2026-11-24T14:05:09Z``."""
    return "" if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def span(seconds: float) -> str:
    """How long, in one unit: ``5 seconds``, ``5 minutes``, ``3 days``."""
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return counted(int(seconds // size), unit)
    return counted(max(1, int(seconds)), "second")


def ago(seconds: float) -> str:
    """How long ago: ``just now``, ``5 minutes ago``, ``3 days ago``."""
    return "just now" if seconds < 60 else f"{span(seconds)} ago"
