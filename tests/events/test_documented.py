"""`docs/reference/events.md` has each field of the API, with its bounds."""

from typing import Any

from adroll_flask.events import event, names
from adroll_flask.events.fields import FUTURE, MAX_BYTES
from adroll_flask.visitor import identifiers
from tests.support import ROOT

PAGE = (ROOT / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in PAGE.partition("## Every field")[2].partition("## Bounds")[0].splitlines()
    if line.startswith("| `") and "=` |" not in line[:24]
]


def fields() -> dict[str, Any]:
    """What the schema says of each field, by the names on the page."""
    schema = event.json_schema()
    objects = {"Event": schema, **schema["$defs"]}
    places = {
        "": "Event",
        "identifiers.": "Identifiers",
        "event_attributes.": "Attributes",
        "products[].": "Product",
    }
    return {
        at + name: member
        for at, part in places.items()
        for name, member in objects[part]["properties"].items()
        if name not in ("identifiers", "event_attributes")
    }


def test_each_field_of_the_api_has_its_row() -> None:
    assert {row[0].strip("`") for row in ROWS} == set(fields())
    assert not any("default" in member for member in fields().values()), "no member is null"
    for row in ROWS:
        assert len(row) == 4, row[0]


def test_each_argument_and_each_event_is_on_the_page() -> None:
    for name in names.FIELD_NAMES:
        assert f"`{name}=`" in PAGE or f"{name}=" in PAGE, name
    for name in names.EVENT_NAMES:
        assert f"`{name}`" in PAGE


def test_each_bound_of_the_schema_is_in_its_row() -> None:
    taken, bounds = "", 0
    for row in ROWS:
        taken = taken if row[2] == "the same" else row[2]
        for bound in ("maxLength", "maxItems", "maximum"):
            if bound in (field := fields()[row[0].strip("`")]):
                assert f"{field[bound]:,}" in taken, row[0]
                bounds += 1
    assert bounds >= 15


def test_the_bounds_on_the_page_are_those_of_the_code() -> None:
    assert f"1 to {identifiers.MAX_ADCT} printable" in PAGE
    assert f"| {MAX_BYTES // 1024} KiB |" in PAGE
    assert FUTURE == 3600
    assert "up to an hour ahead" in PAGE
