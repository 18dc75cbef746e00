"""`docs/reference/events.md` has each field of the API, with its bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from adroll_flask.events import coercion
from adroll_flask.events.event import MAX_BYTES
from adroll_flask.events.json_schema import json_schema
from adroll_flask.events.names import EVENT_NAMES, FIELD_NAMES
from adroll_flask.visitor import identifiers

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in PAGE.partition("## Every field")[2].partition("## Bounds")[0].splitlines()
    if line.startswith("| `") and "=` |" not in line[:24]
]


def test_each_field_of_the_api_has_its_row() -> None:
    schema = json_schema()
    kinds = schema["$defs"]
    wanted = set(schema["properties"]) - {"identifiers", "event_attributes"}
    wanted |= {f"identifiers.{name}" for name in kinds["Identifiers"]["properties"]}
    wanted |= {f"event_attributes.{name}" for name in kinds["EventAttributes"]["properties"]}
    wanted |= {f"products[].{name}" for name in kinds["EventProduct"]["properties"]}
    assert {row[0].strip("`") for row in ROWS} == wanted
    for row in ROWS:
        assert len(row) == 4, row[0]


def test_each_argument_and_each_event_is_on_the_page() -> None:
    for name in FIELD_NAMES:
        assert f"`{name}=`" in PAGE or f"{name}=" in PAGE, name
    for name in EVENT_NAMES:
        assert f"`{name}`" in PAGE


def test_each_bound_of_the_schema_is_in_its_row() -> None:
    schema = json_schema()
    kinds = schema["$defs"]
    places = {
        "": schema["properties"],
        "identifiers.": kinds["Identifiers"]["properties"],
        "event_attributes.": kinds["EventAttributes"]["properties"],
        "products[].": kinds["EventProduct"]["properties"],
    }
    fields = {at + name: field for at, found in places.items() for name, field in found.items()}
    taken, bounds = "", 0
    for row in ROWS:
        taken = taken if row[2] == "the same" else row[2]
        for bound in ("maxLength", "maxItems", "maximum"):
            if bound in (field := fields[row[0].strip("`")]):
                assert f"{field[bound]:,}" in taken, row[0]
                bounds += 1
    assert bounds >= 15


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("1 to 240 printable", identifiers.MAX_ADCT == 240),
        ("| 32 KiB |", MAX_BYTES == 32 * 1024),
        ("up to an hour ahead", coercion.FUTURE == 3600),
    ],
)
def test_the_bounds_on_the_page_are_those_of_the_code(text: str, bound: bool) -> None:
    assert text in PAGE
    assert bound
