"""One description of an event: what each field takes, and one JSON."""

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adroll_flask.errors import EventError
from adroll_flask.events import event
from adroll_flask.events.event import ATTRIBUTES, IDENTIFIERS, TOP, Event, check
from adroll_flask.events.fields import rounded
from tests.support.event_kit import EDGES, NOW, PURCHASE, strictly, values

# -- one JSON ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "own"),
    [
        *(({"order_id": order_id}, {}) for order_id in (1001, " 1001\t")),
        ({"order_id": UUID(int=7)}, {"order_id": str(UUID(int=7))}),
        ({"currency": " eur "}, {}),
        ({"value": "60.4", "currency": "jpy"}, {"value": "60", "currency": "JPY"}),
        ({"value": "1.2345", "currency": "BHD"}, {"value": "1.235", "currency": "BHD"}),
        ({"products": tuple(PURCHASE["products"])}, {}),
    ],
)
def test_a_value_is_written_in_its_own_form(changes: dict[str, Any], own: dict[str, Any]) -> None:
    written, said = (strictly(**{**PURCHASE, **one}) for one in (changes, own))
    assert (written.payload, written.dropped) == (said.payload, ())


def test_an_amount_of_nothing_is_an_amount() -> None:
    wire = json.loads(strictly("pageView", total=0).payload)
    assert wire["event_attributes"] == {"total": "0"}


# -- what each kind of field takes -------------------------------------------------------------


KINDS = {name: fields for part in (TOP, IDENTIFIERS, ATTRIBUTES) for name, fields in part.items()}
#: One field of each kind: some are taken and described as others are.
OF_EACH = {(kind.accept, repr(kind.schema)): name for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", sorted(OF_EACH.values()))
def test_what_a_field_keeps_it_takes_again_and_its_schema_does(name: str) -> None:
    accept, schema = KINDS[name].accept, jsonschema.Draft202012Validator(KINDS[name].schema)

    @settings(max_examples=100, deadline=None)
    @given(values())
    def check_one(value: Any) -> None:
        try:
            kept = accept(value)
        except EventError:
            return
        if isinstance(kept, Decimal):
            kept = rounded(kept, None)  # as an event keeps it
            assert accept(f"{kept:f}") == kept
            schema.validate(f"{kept:f}")
        elif kept is not None:
            assert accept(kept) == kept
            assert type(kept) in (str, int, float)
            schema.validate(kept)

    for edge in EDGES:
        check_one = example(edge)(check_one)
    check_one()


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*Event.__dataclass_fields__]), values()))
def test_an_error_says_what_its_field_takes_in_our_words(given_: dict[str, Any]) -> None:
    found = check(given_, NOW)
    if isinstance(found, Event):
        event.wire_bytes(found)
        return
    for problem in found:
        assert problem.field in {*Event.__dataclass_fields__, "visitor"}
        assert problem.expected.partition(" ")[0] in ("takes", "is", "may", "there")
