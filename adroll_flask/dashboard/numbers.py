"""Numbers, money and times as the pages and their CSV write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from decimal import Decimal

from adroll_flask.redaction import csv_safe


def count(number: int) -> str:
    """A whole number: ``12,345``."""
    return f"{number:,}"


def short(number: float) -> str:
    """A number for an axis: ``0``, ``250``, ``1.5k``, ``20k``, ``3M``."""
    for size, unit in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return decimal(number / size) + unit
    return decimal(number)


def decimal(number: float) -> str:
    """A number with one place at most: ``4.2``."""
    return f"{number:,.1f}".removesuffix(".0")


def percent(share: float | None) -> str:
    """A share from 0 to 1: ``85.3 %``. Only what is all is 100 %, only nothing is 0 %.

    >>> percent(0.9996), percent(1), percent(None)
    ('99.9 %', '100 %', '–')
    """
    if share is None:
        return "–"
    shown = min(max(share * 100, 0.1), 99.9) if 0 < share < 1 else share * 100
    return decimal(shown) + " %"


def money(value: Decimal, currency: str) -> str:
    """An amount: ``1,234.50 EUR``; large ones without the fraction."""
    return f"{value:,.{0 if abs(value) >= 100_000 else 2}f} {currency}".rstrip()


def values(amounts: Iterable[tuple[str, Decimal | str]]) -> str:
    """Amounts of several currencies: ``1,234.50 EUR + 99.00 USD``; nothing of what is none."""
    return " + ".join(money(Decimal(value), currency) for currency, value in amounts if value)


def written(form: str, at: float, zone: tzinfo) -> str:
    """*at* in *zone* by a form of ``strftime``; ``%-d``, a day without a zero, on every platform.

    >>> from datetime import UTC
    >>> written("%-d %b %Y", 1_730_764_800, UTC)
    '5 Nov 2024'
    """
    moment = datetime.fromtimestamp(at, zone)
    return moment.strftime(form.replace("%-d", str(moment.day)))


def iso(at: float | None) -> str:
    """``2026-11-24T14:05:09Z``."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def csv_text(rows: Iterable[Mapping[str, object]], names: Sequence[str] = ()) -> str:
    """Rows as CSV; a text that a spreadsheet would run gets a quote before it.

    :param names: the columns, where there may be no rows.

    >>> csv_text([{"day": "2026-11-24", "order": "=1+1"}])
    "day,order\\n2026-11-24,'=1+1\\n"
    """
    rows = list(rows)
    names = names or list(rows[0] if rows else ())
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    if names:
        writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return "" if value is None else csv_safe(value)
