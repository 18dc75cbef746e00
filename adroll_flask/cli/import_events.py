"""From a line of an import to the event that it is."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Any, Final

from adroll_flask.errors import AdRollError, EventError
from adroll_flask.events.build import Built, build
from adroll_flask.events.event import wire_bytes
from adroll_flask.events.fix import recheck_wire
from adroll_flask.events.names import NO_IDENTITY
from adroll_flask.outbox import NewEvent
from adroll_flask.outbox.values import clean_key
from adroll_flask.reporting.lists import Line, read_time
from adroll_flask.reporting.reporter import NEEDED_OF_A_PURCHASE, Reporter

_SPACES: Final = re.compile(r"[\s\u00a0\u202f'\u2019]")
_THOUSANDS: Final = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+\.[0-9]+\Z")
_WITH_COMMA: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]+)?\Z|[0-9]+(?:,[0-9]+)?\Z")


@dataclass(frozen=True, slots=True)
class EventMaker:
    """Makes events of lines.

    :param has_json: lines are JSON: events as the API takes them, or what an export wrote.
    :param event_name: of lines that name no event.
    :param columns: by field, the column that gives it; empty: keys are the fields' names.
    :param constants: by field, what a line has that says nothing of it.
    :param date_format: as ``strptime`` takes it; ``None``: ISO 8601, or seconds since the epoch.
    :param zone: of times without an offset.
    :param decimal_comma: amounts are written 1.059,90.
    """

    reporter: Reporter
    has_json: bool
    event_name: str
    columns: Mapping[str, str]
    constants: Mapping[str, str]
    date_format: str | None
    zone: tzinfo | None
    decimal_comma: bool

    def event(self, line: Line) -> NewEvent | None:
        """What the outbox keeps of *line*; ``None``: its visitor's token carries no consent.

        :raises AdRollError: it is no event.
        """
        if line.problem:
            raise EventError("line", line.problem)
        reporter = self.reporter
        data, key = line.values, None
        if self.has_json and isinstance(data.get("event"), Mapping):  # an export's line
            key, data = data.get("deduplication_key"), data["event"]
        if self.has_json and "event_name" in data:
            defaults = reporter.bare(NO_IDENTITY, {})
            event = recheck_wire(json.dumps(data), defaults, now=defaults.now)
            built = Built(event, (), key or event.order_id, wire_bytes(event))
        else:
            data = self._values(data)
            values = dict(data)
            name = values.pop("name", self.event_name)
            token = values.pop("visitor", None)
            defaults, why = reporter.bare(NO_IDENTITY, values), ""
            if token is not None:
                defaults, why = reporter.of_token(token, values, None)
            if why:
                return None
            for needed, text in NEEDED_OF_A_PURCHASE.items() if name == "purchase" else ():
                if needed not in values:
                    raise EventError(needed, text)
            built = build(name, values, defaults, strict=True)
        if built.key is None:
            # Not by what happened at the time of the import, so that it is the same one again.
            said = repr(sorted(data.items())).encode()
            built.key = f"import:{hashlib.sha256(said).hexdigest()[:40]}"
        new = reporter.new_event(built, None)
        return replace(new, key=clean_key(new.key or ""))

    def fault(self, problem: AdRollError) -> tuple[str, str]:
        """Which column is at fault (empty: the line is), and what is wrong."""
        if not isinstance(problem, EventError):  # a visitor's token
            return self.columns.get("visitor", "visitor"), str(problem)
        name = problem.field.partition("[")[0]
        return "" if name == "line" else self.columns.get(name, name), problem.expected

    def _values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of ``report_event`` that a line's values are.

        :param given: by column, or by the keys of a line of JSON.
        :raises EventError: a value is not of its form.
        """
        values: dict[str, Any] = dict(self.constants)
        for name, column in (self.columns or dict(zip(given, given, strict=True))).items():
            value = given.get(column)
            value = value.strip() if isinstance(value, str) else value
            if value not in (None, ""):
                values[name] = value
        for name in values.keys() & {"value", "total"}:
            values[name] = self._amount(values[name], name)
        moment, products = values.get("timestamp"), values.get("products")
        if isinstance(moment, str):
            try:
                values["timestamp"] = read_time(moment, self.zone, self.date_format)
            except ValueError:
                form = self.date_format or "2026-11-24T20:31:23+01:00"
                text = f"is not of the form {form!r} (--date-format), or has no offset (--timezone)"
                raise EventError("timestamp", text) from None
        if isinstance(products, str):
            try:
                values["products"] = json.loads(products)
            except (ValueError, RecursionError):
                raise EventError("products", "takes a JSON list of products") from None
        return values

    def _amount(self, value: Any, name: str) -> Any:
        """A text with a comma as the text with a point that it means."""
        if not isinstance(value, str):
            return value
        text = _SPACES.sub("", value)
        if not self.decimal_comma:
            return text.replace(",", "") if _THOUSANDS.match(text) else value
        if not _WITH_COMMA.match(text):
            raise EventError(name, "takes an amount with a comma, such as 1.059,90")
        return text.replace(".", "").replace(",", ".")
