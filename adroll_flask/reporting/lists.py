"""Reading a shop's list, CSV or JSON lines: one reader for what is imported and what is compared.

Nothing of a list is kept: memory does not grow with it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from decimal import Decimal, InvalidOperation
from functools import partial
from itertools import chain
from typing import IO, Any, Final

from adroll_flask.amounts import EXACT
from adroll_flask.errors import AdRollError

#: The only column of a list of JSON lines. In a CSV file of rejected JSON lines it is the last one.
JSON_COLUMN: Final = "json"
#: Characters that a row may have, in one line or several: an event has at most a megabyte.
MOST_CHARACTERS: Final = 2_000_000
#: Names that columns of a list of paid orders have, without case, spaces and punctuation.
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "order_id": ("orderid", "order", "orderno", "ordernumber", "number", "id", "name"),
    "value": ("value", "total", "amount", "price", "grandtotal"),
    "currency": ("currency", "currencycode"),
    "time": ("time", "paidat", "createdat", "date", "timestamp", "orderedat"),
}


class ReconcileError(AdRollError):
    """A list of orders that cannot be read."""

    slug = "order-list"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a list.

    :param number: the list's line at which it ends, from 1.
    :param cells: of a CSV line; a line of JSON is one cell.
    :param values: by column, or by the JSON object's keys.
    :param problem: why the line cannot be used; empty: it can.
    """

    number: int
    cells: list[str] = field(repr=False)
    values: Mapping[str, Any] = field(repr=False)
    problem: str = ""


class Lines:
    """A list that is being read; iterating it gives its lines.

    It is JSON where its first line begins with a brace; else CSV. Its delimiter is the one that the
    header has most often.

    :raises ReconcileError: it is neither; also while iterating.
    """

    def __init__(self, file: IO[str]) -> None:
        #: Characters that were read since the last row.
        self._characters = 0
        # Of a line that is too long, one character too many is read and not the whole line.
        texts = iter(partial(file.readline, MOST_CHARACTERS + 1), "")
        first = next((text for text in texts if text.strip()), "")
        if first.lstrip()[:1] == "[":
            raise ReconcileError(
                "this is a JSON array, and not a JSON object in each line: jq -c '.[]' makes these"
                " of it"
            )
        self.columns: list[str] = [JSON_COLUMN]
        # Names in the header may have commas; they stand between quotes then.
        self.delimiter: str = max(",;\t|", key=re.sub(r'"[^"]*"', "", first).count)
        texts = self._checked(chain([first], texts))
        if first.lstrip()[:1] != "{":
            self._rows = self._csv(texts)
            _, header = next(self._rows, (0, []))
            self._characters = 0
            self.columns = [name.strip() for name in header]
        else:
            self._rows = ((number, [text.strip()]) for number, text in enumerate(texts, 1))
        self.has_json: bool = self.columns[-1:] == [JSON_COLUMN]

    def _checked(self, texts: Iterable[str]) -> Iterator[str]:
        """*texts*, checked. All lines of a row are in memory, and a quoted cell may have many."""
        for number, text in enumerate(texts, 1):
            # A picture or an Excel file has such characters in its first two lines; no text has.
            if number <= 2 and re.search(r"[\0-\x08\x0e-\x1f]", text):
                raise ReconcileError(
                    "this is no CSV, and no text in UTF-8 (an Excel file: save it as CSV)"
                )
            self._characters += len(text)
            if self._characters > MOST_CHARACTERS:
                raise ReconcileError(
                    f"line {number} has more than {MOST_CHARACTERS:,} characters, with the lines "
                    "before it that a quote joins to it"
                )
            yield text

    def _csv(self, texts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        # Strict: otherwise a quote that is not closed makes one cell of all lines after it.
        rows = csv.reader(texts, delimiter=self.delimiter, strict=True)
        try:
            yield from ((rows.line_num, cells) for cells in rows)
        except csv.Error as problem:
            raise ReconcileError(
                f"line {rows.line_num} is no CSV ({problem}): is a quote in it, or before it, not "
                "closed?"
            ) from None

    def __iter__(self) -> Iterator[Line]:
        for number, cells in self._rows:
            self._characters = 0
            if not any(cells):
                continue
            problem = ""
            values: Any = dict(zip(self.columns, cells, strict=False))
            if self.has_json:
                values = None
                with suppress(ValueError, RecursionError):
                    values = json.loads(cells[-1])
                problem = "" if isinstance(values, dict) else "takes one JSON object"
            elif len(cells) != len(self.columns):
                problem = f"has {len(cells)} cells, and the header has {len(self.columns)}"
            yield Line(number, cells, values, problem)


def read_orders(file: IO[str]) -> Iterator[Mapping[str, Any]]:
    """The orders of a list: CSV with a line of names, or JSON lines.

    :raises ReconcileError: while iterating: a line is neither, or has more cells than names.

    >>> from io import StringIO
    >>> [dict(order) for order in read_orders(StringIO("order;total\\n1001;59,90\\n"))]
    [{'order': '1001', 'total': '59,90'}]
    """
    lines = Lines(file)
    for line in lines:
        # Its cells may stand one column further right: a name with a comma, say, without quotes.
        has_more = any(cell.strip() for cell in line.cells[len(lines.columns) :])
        if has_more or not isinstance(line.values, dict):
            hint = f": put quotes around a cell with {lines.delimiter!r} in it" if has_more else ""
            raise ReconcileError(f"line {line.number}: {line.problem}{hint}")
        yield line.values


def spellings(order: str) -> tuple[str, ...]:
    """An order's id as people and exports write it, and as the shop may have reported it.

    >>> spellings("4826"), spellings("#4826")
    (('4826', '#4826'), ('#4826', '4826'))
    """
    bare = order.lstrip("# ") or order
    return tuple(dict.fromkeys((order, bare, f"#{bare}")))


def searched(typed: str) -> tuple[str, ...]:
    """The ids that *typed* may mean, the likeliest first.

    >>> searched("Order #4826")
    ('Order #4826', '#Order #4826', '4826', '#4826')
    """
    text = typed.strip()
    last_word = text.split(" ")[-1].lstrip("#") or text
    return tuple(dict.fromkeys((*spellings(text), *spellings(last_word))))


def find_columns(
    header: Iterable[str], chosen: Mapping[str, str], usual: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The names of a list's columns, by what they hold.

    :param header: all names.
    :param chosen: names that somebody chose, by what they hold.
    :param usual: names that such columns usually have, by what they hold, without case, spaces and
        punctuation; the first one wins.
    :raises ReconcileError: *chosen* names a column that is not there.

    >>> find_columns(["Order no.", "Total"], {}, {"order_id": ("orderid", "orderno")})
    {'order_id': 'Order no.'}
    """
    header = [str(name) for name in header]
    absent = [name for name in chosen.values() if name not in header]
    if absent:
        there = ", ".join(map(repr, header))
        raise ReconcileError(f"there is no column {absent[0]!r}; the file has {there}")
    plain = {
        re.sub(r"[\W_]+", "", name).lower(): name for name in header if name not in chosen.values()
    }
    columns = {
        what: [plain[name] for name in names if name in plain] for what, names in usual.items()
    }
    return {what: names[0] for what, names in columns.items() if names} | dict(chosen)


def read_time(text: str, zone: tzinfo | None, form: str | None = None) -> float:
    """A time of a list, or of an option, as seconds since the epoch.

    :param zone: of a time without an offset; ``None``: it has to have one.
    :param form: as ``strptime`` takes it; ``None``: ISO 8601, or seconds or milliseconds since the
        epoch.
    :raises ValueError: it is none.

    >>> read_time("2026-11-24T21:31:00+01:00", None)
    1795552260.0
    """
    # A date such as 20261101 has eight digits.
    if form is None and len(text) > 8 and re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        seconds = float(text)
        if 1e12 <= seconds < 1e13:  # milliseconds, from 2001 on
            seconds /= 1000
        if seconds > 1e11:  # the year 5138: more likely a date, such as 202611012131
            raise ValueError
        return seconds
    at = datetime.strptime(text, form) if form else datetime.fromisoformat(text)
    if at.tzinfo is None and zone is None:
        raise ValueError
    return (at if at.tzinfo else at.replace(tzinfo=zone)).timestamp()


def read_amount(text: str) -> Decimal | None:
    """An amount as shops export it: ``59.90``, ``59,90 €``, ``1.234,50``.

    >>> read_amount("1.234,50 EUR")
    Decimal('1234.50')
    """
    digits = re.sub(r"[^\d.,-]", "", text)
    point = digits.rfind(".")
    comma = digits.rfind(",")
    if comma > point and (point >= 0 or len(digits) - comma <= 3):
        digits = digits.replace(".", "").replace(",", ".")
    else:
        digits = digits.replace(",", "")
    with suppress(InvalidOperation):
        return EXACT.create_decimal(digits)
    return None
