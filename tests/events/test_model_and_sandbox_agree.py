"""What our model lets through the sandbox takes, and what breaks a rule of the sandbox is stopped.

The two know nothing of each other: the sandbox was written from AdRoll's documentation alone.
"""

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from adroll_flask import app_location, errors, sandbox
from adroll_flask.events import event, fix
from adroll_flask.events.build import build
from adroll_flask.events.fields import DECIMALS
from adroll_flask.events.names import EVENT_NAMES, FIELD_NAMES, EventDefaults
from adroll_flask.sandbox import ACCESS_TOKEN, ADVERTISABLE_EID, PIXEL_EID, Account, event_checks
from tests.support import event_kit

pytestmark = pytest.mark.patient

NOW = 1_667_065_540.836
SITE: dict[str, Any] = {"advertisable_eid": ADVERTISABLE_EID, "pixel_eid": PIXEL_EID, "now": NOW}
WEB = event_kit.context(event_kit.WEB, **SITE)
BARE = event_kit.context(event_kit.BARE, **SITE)
ACCOUNT = Account()
SCHEMA = jsonschema.Draft202012Validator(event.json_schema())
RUNS = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def faults(wire: Any) -> list[event_checks.Fault]:
    return event_checks.faults(json.loads(json.dumps(wire)), account=ACCOUNT, now=NOW)


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


@RUNS
@given(_fields)
def test_in_production_a_purchase_is_lost_to_no_optional_field(fields: dict[str, Any]) -> None:
    needed = {name: SOUND[name] for name in ("order_id", "value", "currency")}
    place = dict.fromkeys(("page_location", "ip", "deduplication_key"))  # the request's own
    optional = fields | place
    try:
        built = build("purchase", {**optional, **needed}, WEB, strict=False)
    except errors.EventError as problem:
        # Four products of four texts each can be too much; nothing else.
        if problem.field != "event":
            raise
        assume(False)
    wire = json.loads(built.payload)
    assert faults(wire) == []
    assert wire["conversion_value"] == "59.90"


def test_all_thirteen_events_pass_the_sandboxs_door() -> None:
    client = sandbox.create_app().test_client()
    app = {"device_os": "iOS", "device_type": "phone", "package_app_name": "com.example.App"}
    batch = [
        json.loads(build(name, {"timestamp": datetime.now(UTC)}, _now(WEB), strict=True).payload)
        for name in EVENT_NAMES
    ]
    mobile = {"page_location": app_location("app.example", **app), "ip": "8.8.8.8", "user_id": 7}
    batch.append(json.loads(build("purchase", {**app, **mobile}, _now(BARE), strict=True).payload))
    answer = client.post(
        f"/api?advertisable={ADVERTISABLE_EID}",
        json=batch,
        headers={"Authorization": f"Token {ACCESS_TOKEN}"},
    )
    assert answer.status_code == 200, answer.get_data(as_text=True)


def _now(context: EventDefaults) -> EventDefaults:
    return replace(context, now=datetime.now(UTC).timestamp())


def test_both_know_the_same_names() -> None:
    assert set(DECIMALS) <= sandbox.value_checks.CURRENCIES
    assert EVENT_NAMES == event_checks.EVENT_NAMES
    top = SCHEMA.schema["properties"]
    assert set(top) == set(event_checks._ALL_FIELDS)
    assert set(top["identifiers"]["properties"]) == set(event_checks.IDENTIFIERS)
    attributes = top["event_attributes"]["properties"]
    assert set(attributes) == {*event_checks._ATTRIBUTES, "products"}
    assert set(attributes["products"]["items"]["properties"]) == set(event_checks._PRODUCT)
    assert set(SCHEMA.schema["required"]) == set(event_checks.REQUIRED)


# -- what breaks a rule of the sandbox, the model stops ----------------------------------------

_GONE = object()
_P0 = "event_attributes.products.0"

_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_ZEROS = "00000000-0000-0000-0000-000000000000"
_SHOP = "https://shop.example"
#: What breaks a rule of the sandbox, by its place: one or more for each rule.
BREAKERS: dict[str, list[Any]] = {
    "": [7],
    "advertisable_eid": ["lower"],
    "pixel_eid": ["SHORT", 7],
    "event_name": [_GONE, "add_to_cart", "xyzzy", None],
    "page_location": [
        *(_GONE, [], "/thanks", "ftp://shop.example/", f"{_SHOP}:99999/", f"{_SHOP}:0/"),
        *(f"{_SHOP}/\na", f"{_SHOP}/ä %", f"{_SHOP}/{'x' * 9000}"),
    ],
    "ip": [_GONE, [], "unknown", "1.2.3.4:80", "fe80::1%eth0"],
    "user_agent": [[], "x" * 5000, "a\nb"],
    "conversion_value": [[], "59,90", "-1", -1, 1e15, True],
    "currency": ["EURO", "DEM", "eur", [], ["EUR"]],
    "external_data": [{"a": 1}, "{not json", "[NaN]", json.dumps("x" * 70_000)],
    "device_os": ["x" * 300],
    "device_type": ["x" * 300],
    "package_app_name": ["x" * 300],
    "package_app_version": [[]],
    "colour": ["red"],
    "adroll_\u00e4": [1],
    "identifiers": [_GONE, [], {}, {"user_id": "7"}],
    "identifiers.click": ["x"],
    "identifiers.adct": ["a b", "x" * 241, 7],
    "identifiers.first_party_cookie": [7, "a b", "a" * 81, "a" * 32 + "-s2-1667065540836-"],
    "identifiers.email": ["nobody", "a b@c.de", 7, ["a@x.de"]],
    "identifiers.email_sha256": ["a" * 63, "g" * 64, ["a" * 64], _EMPTY],
    "identifiers.email_md5": [["a" * 32], "a" * 31, "D41D8CD98F00B204E9800998ECF8427E"],
    "identifiers.device_id": ["abc", _ZEROS],
    "identifiers.user_id": ["x" * 600, ""],
    "event_attributes": [[]],
    "event_attributes.colour": ["red"],
    "event_attributes.order_id": ["", "x" * 600, "a\x00b", []],
    "event_attributes.total": ["1.2.3"],
    "event_attributes.keywords": ["x" * 3000],
    "event_attributes.products": [{}, [{"product_id": "1"}] * 1001],
    _P0: [{}, "mug"],
    f"{_P0}.product_id": [[]],
    f"{_P0}.price": ["free"],
    f"{_P0}.quantity": [0, 1.5, 10**7],
    f"{_P0}.category": ["x" * 2000],
    f"{_P0}.colour": ["red"],
    "timestamp": ["2022-10-29T17:45:40Z", 7, NOW * 1000, NOW + 3601],
}
#: Where the error names another place: a name that is none of a field's is not repeated.
TOLD = {"": "payload", "adroll_\u00e4": "?"}
CASES = [(place, value) for place, values in BREAKERS.items() for value in values]

#: Where our model makes what the API wants of it instead of refusing: an address loses its port,
#: a URL is encoded and shortened, an object becomes the JSON text.
MENDED = {
    ("page_location", f"{_SHOP}/ä %"),
    ("page_location", f"{_SHOP}/{'x' * 9000}"),
    ("ip", "1.2.3.4:80"),
    ("ip", "fe80::1%eth0"),
    ("user_agent", "x" * 5000),
    ("user_agent", "a\nb"),
    ("currency", "eur"),
    ("external_data", "{'a': 1}"),
    ("external_data", "{not json"),
    ("external_data", "[NaN]"),
    ("identifiers.first_party_cookie", "a" * 32 + "-s2-1667065540836-"),
    ("identifiers.device_id", _ZEROS),
}


def good() -> Any:
    return json.loads(build("purchase", event_kit.PURCHASE, WEB, strict=True).payload)


def broken(place: str, value: Any) -> Any:
    wire = good()
    if not place:
        return value
    target, steps = wire, [int(step) if step.isdigit() else step for step in place.split(".")]
    for step in steps[:-1]:
        target = target[step]
    if value is _GONE:
        del target[steps[-1]]
    else:
        target[steps[-1]] = copy.deepcopy(value)
    return wire


@pytest.mark.parametrize(
    ("place", "value"), CASES, ids=[f"{n}-{place}" for n, (place, _) in enumerate(CASES)]
)
def test_what_breaks_a_rule_of_the_sandbox_is_stopped(place: str, value: Any) -> None:
    wire = broken(place, value)
    assert faults(wire) != [], "this breaks no rule"
    stopped = ""
    try:
        fixed = fix.rebuilt(json.dumps(wire), EventDefaults(now=NOW)).event
    except errors.EventError as problem:
        stopped = problem.field
    else:
        assert faults(fixed.wire()) == []
    if (place, str(value)) in MENDED:
        assert not stopped
    else:
        told = TOLD.get(place, place.replace(".products.0", ".products[0]"))
        assert stopped.startswith(told) or stopped == "event"
