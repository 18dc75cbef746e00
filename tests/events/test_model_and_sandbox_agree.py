"""What our model lets through the sandbox takes, and what breaks a rule of the sandbox is stopped.

The two know nothing of each other: the sandbox was written from AdRoll's documentation alone.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from adroll_flask import errors, sandbox
from adroll_flask.events import event, fix
from adroll_flask.events.build import build
from adroll_flask.events.fields import DECIMALS
from adroll_flask.events.names import EVENT_NAMES, FIELD_NAMES, EventDefaults
from adroll_flask.sandbox import ADVERTISABLE_EID, PIXEL_EID, Account, event_checks
from tests.sandbox import test_requests
from tests.support import event_kit, sandbox_helpers
from tests.support.sandbox_helpers import LEAST, full, spoiled

pytestmark = pytest.mark.patient

NOW = 1_667_065_540.836
SITE: dict[str, Any] = {"advertisable_eid": ADVERTISABLE_EID, "pixel_eid": PIXEL_EID, "now": NOW}
WEB = event_kit.context(event_kit.WEB, **SITE)
BARE = event_kit.context(event_kit.BARE, **SITE)
ACCOUNT = Account()
SCHEMA = jsonschema.Draft202012Validator(event.json_schema())
RUNS = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def faults(wire: Any, at: float = NOW) -> list[event_checks.Fault]:
    return event_checks.faults(json.loads(json.dumps(wire)), account=ACCOUNT, now=at)


# -- what the model accepts, the sandbox accepts -----------------------------------------------

#: A sound event with a few fields changed gets further than one of anything at all.
SOUND: dict[str, Any] = {
    **event_kit.PURCHASE,
    "email": "ada@example.com",
    "user_id": 42,
    "device_id": "cdda802e-fb9c-47ad-9866-0794d394c912",
    "keywords": ["red", "mug"],
    "total": 62,
    "external_data": {"a": 1},
}
_changes = st.dictionaries(st.sampled_from(FIELD_NAMES), event_kit.values(), max_size=6)
_fields = _changes.map(lambda changes: SOUND | changes)
_forms = st.lists(st.sampled_from(["sha256", "md5", "plain"]), unique=True).map(tuple)


@RUNS
@given(st.sampled_from(EVENT_NAMES), _fields, _forms, st.sampled_from([WEB, BARE]), st.booleans())
def test_whatever_the_model_accepts_the_sandbox_accepts(
    name: str, fields: Any, email_forms: tuple[str, ...], context: Any, strict: bool
) -> None:
    context = replace(context, email_forms=email_forms)
    try:
        built = build(name, fields, context, strict=strict)
    except errors.EventError:
        assume(False)
    wire = json.loads(built.payload)
    assert faults(wire) == []
    SCHEMA.validate(wire)
    # What was kept can be fixed, changed and checked again without a change.
    assert fix.rebuilt(built.payload, context).event == built.event
    if "email" in wire["identifiers"]:
        assert "plain" in email_forms


def test_both_know_the_same_names() -> None:
    assert set(DECIMALS) <= sandbox.value_checks.CURRENCIES
    assert EVENT_NAMES == event_checks.EVENT_NAMES
    objects = SCHEMA.schema["$defs"]
    fields = {*event_checks._FIELDS, *event_checks._OTHER_FIELDS, "timestamp"}
    assert set(SCHEMA.schema["properties"]) == fields
    assert set(objects["Identifiers"]["properties"]) == set(event_checks.IDENTIFIERS)
    assert set(objects["Attributes"]["properties"]) == {*event_checks._ATTRIBUTES, "products"}
    assert set(objects["Product"]["properties"]) == set(event_checks._PRODUCT)
    assert set(SCHEMA.schema["required"]) == set(event_checks.REQUIRED)


# -- what breaks a rule of the sandbox, the model stops ----------------------------------------


#: Where our model makes what the API wants of some values instead of refusing them.
MENDED = {
    *("page_location", "ip", "user_agent", "currency", "external_data", "total", "quantity"),
    *("conversion_value", "device_id", "email", "user_id", "order_id", "keywords", "category"),
    *("product_id", "product_group", "device_os", "device_type"),
    *("package_app_name", "package_app_version"),
}


def breakers() -> Iterator[tuple[str, Any, Any]]:
    for places, values in test_requests.REFUSED.items():
        # An event that lacks an account's ids is given them.
        for place, value in product({*places.split()} - {"advertisable_eid", "pixel_eid"}, values):
            wire = spoiled(place, value)
            if place != "identifiers.email":
                del wire["identifiers"]["email"]  # or the hashes would be made of it
            if place == "identifiers.user_id":
                del wire["event_attributes"]["user_id"]  # the same, by another name
            yield place, value, wire
    for value in ([], {}, {"user_id": "7"}):
        wire = LEAST | {"timestamp": sandbox_helpers.NOW, "identifiers": value}
        yield "identifiers", value, wire
    for place in ("event_name", "page_location", "ip", "identifiers"):
        yield place, "gone", {name: full()[name] for name in full() if name != place}
    yield "payload", 7, 7


def test_what_breaks_a_rule_of_the_sandbox_is_stopped_or_mended() -> None:
    """The one names the place; what our model makes of the other, the sandbox takes."""
    for place, value, wire in breakers():
        assert faults(wire, at=sandbox_helpers.NOW), f"{place}: this breaks no rule"
        told = place
        try:
            fixed = fix.rebuilt(json.dumps(wire), EventDefaults(now=sandbox_helpers.NOW)).event
        except errors.EventError as problem:
            told = problem.field
        else:
            assert place.rpartition(".")[2] in MENDED or value in (None, "")
            assert faults(fixed.wire(), at=sandbox_helpers.NOW) == [], place
        assert told == "event" or told.startswith(place)
