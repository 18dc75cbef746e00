"""What a file writes, as an event's values: columns to fields, dates and amounts by option."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from typing import Any, Final
from zoneinfo import ZoneInfo

import click

from adroll_flask.errors import EventError
from adroll_flask.events.names import FIELD_NAMES

from .import_lines import REJECTED_COLUMNS

#: The fields that a column may give: an event's name, a visitor's token, and what an event takes.
FIELDS: Final = ("name", "visitor", *(name for name in FIELD_NAMES if name != "product_map"))

_AMOUNTS: Final = frozenset({"value", "total"})
_SPACES: Final = re.compile(r"[\s\u00a0\u202f'\u2019]")
_WITH_COMMA: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]+)?\Z|[0-9]+(?:,[0-9]+)?\Z")
#: Both marks are there, so that it is clear which one is which.
_THOUSANDS: Final = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+\.[0-9]+\Z")
#: Times that are remembered.
_TIMES: Final = 4096
_EPOCH: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?\Z")


@dataclass(frozen=True)
class ValueForms:
    """How a file writes its values.

    :param columns: by field, the column that gives it.
    :param header: of a CSV file.
    :param constants: by field, what a line has that says nothing of it.
    :param date_format: as ``strptime`` takes it; ``None``: ISO 8601, or seconds since the epoch.
    :param zone: of times without an offset.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    date_format: str | None = None
    zone: tzinfo | None = None
    decimal_comma: bool = False
    header: Sequence[str] = ()
    _times: dict[str, float] = field(default_factory=dict, repr=False)

    def column_of(self, field_name: str) -> str:
        """The column or key that gives *field_name*, for a reason."""
        return self.columns.get(field_name, field_name)

    def amount(self, value: Any, field_name: str) -> Any:
        """A text with a comma as the text with a point that it means."""
        if not isinstance(value, str):
            return value
        text = _SPACES.sub("", value)
        if not self.decimal_comma:
            return text.replace(",", "") if _THOUSANDS.match(text) else value
        if not _WITH_COMMA.match(text):
            raise EventError(field_name, "takes an amount with a comma, such as 1.059,90")
        return text.replace(".", "").replace(",", ".")

    def time(self, value: Any) -> Any:
        """A text as seconds since the epoch."""
        if not isinstance(value, str):
            return value
        known = self._times.get(value)
        if known is None:
            known = self._read_time(value.strip()).timestamp()
            # An export that is sorted, or that has dates alone, asks the same again and again.
            if len(self._times) > _TIMES:
                self._times.clear()
            self._times[value] = known
        return known

    def _read_time(self, text: str) -> datetime:
        if self.date_format is None and _EPOCH.match(text):
            try:
                return datetime.fromtimestamp(float(text), UTC)
            except (ValueError, OverflowError, OSError):
                raise EventError("timestamp", "is out of range: are these milliseconds?") from None
        if self.date_format is not None:
            try:
                moment = datetime.strptime(text, self.date_format)
            except ValueError:
                raise EventError(
                    "timestamp", f"is not of the form {self.date_format!r} (--date-format)"
                ) from None
        else:
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                raise EventError(
                    "timestamp", "takes 2026-11-24T20:31:23+01:00; pass --date-format for others"
                ) from None
        if moment.tzinfo is None:
            if self.zone is None:
                raise EventError(
                    "timestamp", "has no offset: pass --timezone, such as Europe/Berlin"
                )
            moment = moment.replace(tzinfo=self.zone)
        return moment

    @cached_property
    def _cells(self) -> list[tuple[str, int]]:
        """By field, which cell of a CSV line gives it."""
        return [(name, self.header.index(column)) for name, column in self.columns.items()]

    def values(self, given: Mapping[str, Any] | list[str]) -> dict[str, Any]:
        """The arguments of ``report_event`` that a line's values are.

        :param given: the values of a line of JSON by their keys, or a CSV line's cells.
        :raises EventError: a value is not of its form.
        """
        values: dict[str, Any] = dict(self.constants)
        if isinstance(given, list):
            for name, number in self._cells:
                text = given[number].strip()
                if text:
                    values[name] = text
            products = values.get("products")
            if products is not None:
                try:
                    values["products"] = json.loads(products)
                except (ValueError, RecursionError):
                    raise EventError("products", "takes a JSON list of products") from None
        elif self.columns:
            for name, key in self.columns.items():
                if given.get(key) is not None:
                    values[name] = given[key]
        else:
            values.update({name: value for name, value in given.items() if value is not None})
        for name in _AMOUNTS & values.keys():
            values[name] = self.amount(values[name], name)
        if "timestamp" in values:
            values["timestamp"] = self.time(values["timestamp"])
        if self.decimal_comma and isinstance(values.get("products"), list):
            values["products"] = [self._product(item) for item in values["products"]]
        return values

    def _product(self, item: Any) -> Any:
        if isinstance(item, Mapping) and "price" in item:
            return {**item, "price": self.amount(item["price"], "products")}
        return item


def read_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """``FIELD=text`` of an option that may be given many times.

    :raises click.UsageError: one has no ``=``, or names no field.
    """
    from adroll_flask.events.suggestions import nearest_field

    pairs = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        name = name.strip()
        if not equals or not rest.strip():
            raise click.UsageError(f'{option} takes FIELD="text", such as order_id="Order no."')
        if name not in FIELDS:
            near = nearest_field(name, FIELDS)
            hint = f"; did you mean {near}?" if near else f"; there are {', '.join(FIELDS)}"
            raise click.UsageError(f"{option}: there is no field {name!r}{hint}")
        pairs[name] = rest.strip()
    return pairs


def read_zone(name: str | None) -> tzinfo | None:
    """A time zone by its name.

    :raises click.UsageError: there is none of that name.
    """
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise click.UsageError(
            f"--timezone: there is no {name!r}; it takes UTC or a name such as Europe/Berlin"
        ) from None


def columns_of(header: Sequence[str], given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """By field, the column of a CSV file that gives it; and the columns that nothing takes.

    :param given: what ``--column`` says; other columns are known by the names of fields.
    :raises click.UsageError: ``--column`` names a column that is not there.
    """
    for name, column in given.items():
        if column not in header:
            raise click.UsageError(
                f"--column {name}: there is no column {column!r}; the file has "
                + ", ".join(map(repr, header))
            )
    columns = dict(given)
    taken = set(given.values())
    plain: Callable[[str], str] = lambda text: text.lower().replace(" ", "_").replace("-", "_")  # noqa: E731
    for column in header:
        name = plain(column)
        if name in FIELDS and name not in columns and column not in taken:
            columns[name] = column
            taken.add(column)
    unused = [one for one in header if one and one not in taken and one not in REJECTED_COLUMNS]
    return columns, unused
