"""`docs/events.md` has each field of the API, and each test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from event_kit import PURCHASE, WEB

from adroll_flask import events, fields, identifiers, locations, products, wire
from adroll_flask.names import EVENT_NAMES, FIELD_NAMES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in PAGE.partition("## Every field")[2].partition("## Bounds")[0].splitlines()
    if line.startswith("| `")
]


def all_tests() -> set[str]:
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                found.add(node.name)
    return found


def test_each_test_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 40
    assert named - all_tests() == set()


def test_each_field_of_the_api_has_its_row_with_a_test() -> None:
    schema = wire.json_schema()
    kinds = schema["$defs"]
    wanted = set(schema["properties"]) - {"identifiers", "event_attributes"}
    wanted |= {f"identifiers.{name}" for name in kinds["WireIdentifiers"]["properties"]}
    wanted |= {f"event_attributes.{name}" for name in kinds["WireAttributes"]["properties"]}
    wanted |= {f"products[].{name}" for name in kinds["WireProduct"]["properties"]}
    assert {row[0].strip("`") for row in ROWS} == wanted
    for row in ROWS:
        assert len(row) == 5, row[0]
        assert "`test_" in row[4], row[0]


def test_each_argument_and_each_event_is_on_the_page() -> None:
    for name in FIELD_NAMES:
        assert f"`{name}=`" in PAGE or f"{name}=" in PAGE, name
    for name in EVENT_NAMES:
        assert f"`{name}`" in PAGE


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("at most 2,000 characters", locations.MAX_LOCATION == 2000),
        ("cut at 1,024 characters", fields.MAX_USER_AGENT == 1024),
        ("at most 1,000 characters", fields.MAX_KEYWORDS == 1000),
        ("1 to 256 characters", fields.MAX_TEXT == identifiers.MAX_USER_ID == 256),
        ("from 1 to 1,000,000", fields.MAX_QUANTITY == 1_000_000),
        ("1 to 240 printable", identifiers.MAX_ADCT == 240),
        ("at most 254 characters", identifiers.MAX_EMAIL == 254),
        ("up to five", identifiers.MAX_EMAILS == 5),
        ("up to 500 dicts", products.MAX_PRODUCTS == 500),
        ("| 32 KiB |", wire.MAX_BYTES == 32 * 1024),
        ("up to an hour ahead", fields.FUTURE == 3600),
    ],
)
def test_the_bounds_on_the_page_are_those_of_the_code(text: str, bound: bool) -> None:
    assert text in PAGE
    assert bound


def test_the_pages_calls_are_calls_that_work() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 4
    made = []

    def report_event(name: str, **given: object) -> None:
        made.append(events.build(name, given, WEB, strict=True))

    class Line:
        amount = 2

        class article:
            sku = "mug"
            unit_price = PURCHASE["value"]

    class Names:
        lines = (Line(),)
        email = "ada@example.com"
        id = 42

    for block in blocks:
        code = "\n".join(
            line for line in block.splitlines() if not line.startswith("from adroll_flask import")
        )
        exec(  # the page's own examples
            code,
            {
                "report_event": report_event,
                "report_conversion": lambda **given: report_event("purchase", **given),
                "user": Names,
                "order": Names,
                "idfa": "EA7583CD-A667-48BC-B806-42ECB2B48606",
                "client_ip": "203.0.113.9",
            },
        )
    assert len(made) == 8
