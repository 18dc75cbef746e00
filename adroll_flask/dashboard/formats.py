"""Numbers and money as pages and their CSV write them; and axes of plots, which
``templates/plots.html`` draws."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from adroll_flask.amounts import EXACT
from adroll_flask.findings import sums
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


def share_of(part: int, whole: int) -> float | None:
    """A part of a whole as a number from 0 to 1; ``None``: the whole is nothing."""
    return part / whole if whole else None


def percent(share: float | None) -> str:
    """A share from 0 to 1: ``85.3 %``. Only 1 is 100 %, and only 0 is 0 %.

    >>> percent(0.9996), percent(1), percent(None)
    ('99.9 %', '100 %', '–')
    """
    if share is None:
        return "–"
    shown = min(max(share * 100, 0.1), 99.9) if 0 < share < 1 else share * 100
    return decimal(shown) + " %"


def money(value: Decimal, currency: str) -> str:
    """An amount with its currency's decimals; large ones without the fraction."""
    if value.copy_abs() >= 100_000:
        return f"{EXACT.to_integral_value(value):,f} {currency}".rstrip()
    return sums.amount_text(value, currency)


def change(share: float) -> str:
    """By how much a number is more or less than another: ``+4 %``, ``−12 %``.

    >>> change(0.041), change(0.001), change(-0.12)
    ('+4 %', 'as many', '−12 %')
    """
    shown = round(share * 100)
    if shown == 0:
        return "as many"
    return f"{'+' if shown > 0 else '−'}{abs(shown):,} %"


def values(amounts: Iterable[tuple[str, Decimal | str]]) -> str:
    """Amounts of several currencies, without those of 0: ``1,234.50 EUR + 99.00 USD``."""
    return " + ".join(money(Decimal(value), currency) for currency, value in amounts if value)


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
        writer.writerow({name: csv_safe(value) for name, value in row.items()})
    return out.getvalue()


# -- plots -----------------------------------------------------------------------------------------

#: Labels on an axis: so many at most on a wide page, and on a narrow one.
_WIDE = 12
_NARROW = 5
#: Round ends of an axis, for a power of ten of 1.
_ROUND: Final = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)


def axis_end(plot: Mapping[str, Any]) -> float:
    """The end of a plot's axis: a round number that four divides. Lines are shares: they end at 1.
    0: there is nothing to draw.

    >>> steps = [{"sent": 3, "lost": 2}, {"sent": 9, "lost": 8}]
    >>> axis_end({"steps": steps, "series": [{"name": "sent"}, {"name": "lost"}], "usual": []})
    20.0
    """
    bars = [[step[series["name"]] or 0 for series in plot["series"]] for step in plot["steps"]]
    if not any(map(any, bars)):
        return 0.0
    if plot.get("are_lines"):
        return 1.0
    largest = max((*map(sum, bars), *filter(None, plot["usual"])))
    size = 10.0 ** math.floor(math.log10(largest))
    ends = (step * size for step in _ROUND if step * size >= largest)
    return next((end for end in ends if end % 4 == 0), 4.0 * math.ceil(largest / 4))


def with_room(labels: Sequence[str]) -> list[tuple[float, str, bool]]:
    """The labels of an axis that a wide page has room for: the place in per cent, the text, and
    whether a narrow page has room for it, too."""
    every = max(1, math.ceil(len(labels) / _WIDE))
    often = every * max(1, math.ceil(len(labels) / every / _NARROW))
    return [
        (round((n + 0.5) * 100 / len(labels), 2), label, n % often == 0)
        for n, label in enumerate(labels)
        if n % every == 0
    ]
