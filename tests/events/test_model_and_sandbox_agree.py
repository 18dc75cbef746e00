"""What our model lets through the sandbox takes, and what breaks a rule of the sandbox is stopped.

The two know nothing of each other: the sandbox was written from AdRoll's documentation alone.
"""

from __future__ import annotations

import ast
import copy
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from adroll_flask import app_location
from adroll_flask.errors import EventError
from adroll_flask.events.build import build
from adroll_flask.events.context import EventDefaults
from adroll_flask.events.event import json_schema
from adroll_flask.events.fields import DECIMALS
from adroll_flask.events.fix import recheck_wire
from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.sandbox import (
    ACCESS_TOKEN,
    ADVERTISABLE_EID,
    PIXEL_EID,
    Account,
    create_app,
    event_checks,
    value_checks,
)

pytestmark = pytest.mark.patient

NOW = 1_667_065_540.836
COOKIE = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"
WEB = EventDefaults(
    advertisable_eid=ADVERTISABLE_EID,
    pixel_eid=PIXEL_EID,
    now=NOW,
    page_location="https://shop.example/thanks",
    ip="203.0.113.9",
    user_agent="Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/120.0",
    adct="click123",
    first_party_cookie=COOKIE,
    derive_key=b"a key",
)
BARE = EventDefaults(
    advertisable_eid=ADVERTISABLE_EID, pixel_eid=PIXEL_EID, now=NOW, derive_key=b"key"
)
ACCOUNT = Account()
SCHEMA = jsonschema.Draft202012Validator(json_schema())
RUNS = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def faults(wire: Any) -> list[event_checks.Fault]:
    return event_checks.faults(json.loads(json.dumps(wire)), account=ACCOUNT, now=NOW)


# -- what the model accepts, the sandbox accepts -----------------------------------------------

#: Edges that both sides have an opinion on.
_EDGES = (
    "", " ", "a", "0", "-1", "1.5", "1e3", "NaN", "Infinity", "٣", "a\nb", "a\u0085b", "\u2028",
    "\ud800", "\ufeff", "<script>", "%", "%zz", "\\", '"',
)  # fmt: skip
_LENGTHS = (32, 64, 240, 241, 256, 257, 1000, 1001, 2048, 5000)
_long = st.builds("".ljust, st.sampled_from(_LENGTHS), st.sampled_from("x0fä𝄞"))
_text = st.sampled_from(_EDGES) | st.text(max_size=40) | _long
_number = (
    st.integers(-(10**16), 10**16)
    | st.floats()
    | st.decimals()
    | st.sampled_from([0, -0.0, 1e-9, 10**14, 10**15, 99_999_999_999_999.99, True, 10**400])
)
_amount = (
    _number
    | _text
    | st.decimals(0, 10**14, allow_nan=False, places=7)
    | st.decimals(0, 1000, places=2).map(str)
)
_currency = (
    st.sampled_from(sorted(DECIMALS)) | st.sampled_from(["eur", " Jpy ", "XAU", "XXX", "EURO"])
) | _text
_hosts = st.sampled_from(
    ["shop.example", "localhost", "[::1]", "bücher.example", "a_b.example", "-", "a..b", "x" * 70,
     "u:p@shop.example", "shop.example:8443", "shop.example:0", "1.2.3.4", "SHOP.example", ""]
)  # fmt: skip
_url = (
    st.builds(
        "{}{}/{}?{}#{}".format,
        st.sampled_from(["https://", "http://", "HTTPS://", "ftp://", "//", ""]),
        _hosts,
        _text,
        _text,
        _text,
    )
    | _text
)
_ip = st.ip_addresses().map(str) | st.sampled_from(
    ["::ffff:1.2.3.4", "fe80::1%eth0", "[::1]:80", "1.2.3.4:80", "01.2.3.4", "1.2.3", "unknown"]
)
_cookie = (
    st.from_regex(r"[0-9a-fA-F]{32}-(s2-)?([0-9]{9,15}|a_[0-9]{8,12}|[A-Za-z0-9:. +-]{0,40})-?\Z")
    | st.datetimes(timezones=st.just(UTC)).map(lambda when: f"{'a' * 32}-{when.isoformat()}")
    | _text
)
_hash = st.sampled_from(
    [
        "d41d8cd98f00b204e9800998ecf8427e",
        "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
        "a" * 32,
        "B" * 64,
    ]
)
_email = (
    st.emails()
    | st.builds("{}@{}".format, _text, _text)
    | st.sampled_from(["foo.@docomo.ne.jp", "ÄÖ@bücher.example", "İ@x.de", "a@" + "x" * 252])
    | _hash
    | _text
)
_when = (
    st.floats(NOW - 10**8, NOW + 7200)
    | st.integers(0, 2 * 10**12)
    | _number
    | st.datetimes()
    | st.datetimes(
        datetime(2000, 1, 1),
        datetime(2023, 1, 1),
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=14))]),
    )
    | _text
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_product = st.fixed_dictionaries(
    {},
    optional={
        "product_id": _text | st.integers() | st.uuids(),
        "product_group": _text,
        "price": _amount,
        "quantity": _number | st.integers(1, 9).map(str),
        "category": _text,
        "colour": _text,
    },
)
_fields = st.fixed_dictionaries(
    {},
    optional={
        "order_id": _text | st.integers() | st.uuids(),
        "value": _amount,
        "currency": _currency,
        "products": st.lists(_product | _text, max_size=4),
        "email": _email | st.lists(_email, max_size=6),
        "user_id": _text | _number | st.emails(),
        "device_id": st.uuids()
        | st.uuids().map(str)
        | st.just("0" * 8 + "-0000" * 3 + "-" + "0" * 12)
        | _text,
        "keywords": _text | st.lists(_text, max_size=3),
        "total": _amount,
        "page_location": _url,
        "ip": _ip | _text,
        "user_agent": _text,
        "timestamp": _when,
        "external_data": _json | _text,
        "device_os": _text,
        "device_type": _text,
        "package_app_name": _text,
        "package_app_version": _text,
        "adct": _text | st.text(st.characters(codec="ascii"), max_size=250),
        "first_party_cookie": _cookie,
        "deduplication_key": _text,
    },
)
_forms = st.lists(st.sampled_from(["sha256", "md5", "plain"]), unique=True).map(tuple)


@RUNS
@given(st.sampled_from(EVENT_NAMES), _fields, _forms, st.sampled_from([WEB, BARE]), st.booleans())
def test_whatever_the_model_accepts_the_sandbox_accepts(
    name: str,
    fields: dict[str, Any],
    email_forms: tuple[str, ...],
    context: EventDefaults,
    strict: bool,
) -> None:
    context = replace(context, email_forms=email_forms)
    try:
        built = build(name, fields, context, strict=strict)
    except EventError:
        assume(False)
    wire = json.loads(built.payload)
    assert faults(wire) == []
    SCHEMA.validate(wire)
    # What was kept can be fixed, changed and checked again without a change.
    assert recheck_wire(built.payload, context, now=NOW) == built.event
    if "email" in wire["identifiers"]:
        assert "plain" in email_forms


@RUNS
@given(_fields)
def test_in_production_a_purchase_is_lost_to_no_optional_field(fields: dict[str, Any]) -> None:
    needed = {"order_id": "1", "value": "5", "currency": "EUR"}
    optional = {
        name: value
        for name, value in fields.items()
        if name not in ("page_location", "ip", "deduplication_key", *needed)
    }
    try:
        built = build("purchase", {**optional, **needed}, WEB, strict=False)
    except EventError as problem:
        # Four products of four texts each can be too much; nothing else.
        if problem.field != "event":
            raise
        assume(False)
    wire = json.loads(built.payload)
    assert faults(wire) == []
    assert wire["conversion_value"] == "5.00"


@RUNS
@given(st.sampled_from(EVENT_NAMES), _fields.filter(bool), st.data())
def test_whatever_mending_is_accepted_the_sandbox_accepts(
    name: str, fields: dict[str, Any], data: st.DataObject
) -> None:
    wire = json.loads(build("purchase", {"order_id": 1, "products": []}, WEB, strict=True).payload)
    for place in data.draw(st.lists(st.sampled_from(sorted(_PLACES)), max_size=3)):
        target, _, key = place.rpartition(".")
        into = wire.setdefault(target, {}) if target else wire
        if isinstance(into, dict):
            into[key] = data.draw(_json | _amount.map(_plain) | _text)
    try:
        payload = json.dumps(wire)
        fixed = recheck_wire(payload, now=NOW)
    except (EventError, ValueError):
        assume(False)
    assert faults(fixed.wire()) == []


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal) else value


_PLACES = (
    *(
        name
        for name in event_checks._ALL_FIELDS
        if name != "advertisable_eid" and name != "pixel_eid"
    ),
    *(f"identifiers.{name}" for name in event_checks.IDENTIFIERS),
    *(f"event_attributes.{name}" for name in (*event_checks._ATTRIBUTES, "products")),
)


def test_all_thirteen_events_pass_the_sandboxs_door() -> None:
    client = create_app().test_client()
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


def test_each_currency_of_ours_is_one_of_the_sandboxs() -> None:
    assert set(DECIMALS) <= value_checks.CURRENCIES


def test_both_know_the_same_names() -> None:
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

#: ``(place, value)``, one or more for each rule.
BREAKERS: list[tuple[str, Any]] = [
    *((name, _GONE) for name in ("event_name", "page_location", "ip", "identifiers")),
    ("", 7),
    ("advertisable_eid", "lower"),
    ("pixel_eid", "SHORT"),
    ("pixel_eid", 7),
    ("event_name", "add_to_cart"),
    ("event_name", "xyzzy"),
    ("event_name", None),
    ("page_location", []),
    ("page_location", "/thanks"),
    ("page_location", "ftp://shop.example/"),
    ("page_location", "https://shop.example:99999/"),
    ("page_location", "https://shop.example:0/"),
    ("page_location", "https://shop.example/\na"),
    ("page_location", "https://shop.example/ä %"),
    ("page_location", "https://shop.example/" + "x" * 9000),
    ("ip", []),
    ("ip", "unknown"),
    ("ip", "1.2.3.4:80"),
    ("ip", "fe80::1%eth0"),
    ("user_agent", []),
    ("user_agent", "x" * 5000),
    ("user_agent", "a\nb"),
    ("conversion_value", []),
    ("conversion_value", "59,90"),
    ("conversion_value", "-1"),
    ("conversion_value", -1),
    ("conversion_value", 1e15),
    ("conversion_value", True),
    ("currency", "EURO"),
    ("currency", "DEM"),
    ("currency", "eur"),
    ("currency", []),
    ("currency", ["EUR"]),
    ("external_data", {"a": 1}),
    ("external_data", "{not json"),
    ("external_data", "[NaN]"),
    ("external_data", json.dumps("x" * 70_000)),
    *((name, "x" * 300) for name in ("device_os", "device_type", "package_app_name")),
    ("package_app_version", []),
    ("colour", "red"),
    ("adroll_\u00e4", 1),
    ("identifiers", []),
    ("identifiers", {}),
    ("identifiers", {"user_id": "7"}),
    ("identifiers.click", "x"),
    ("identifiers.adct", "a b"),
    ("identifiers.adct", "x" * 241),
    ("identifiers.adct", 7),
    ("identifiers.first_party_cookie", 7),
    ("identifiers.first_party_cookie", "a b"),
    ("identifiers.first_party_cookie", "a" * 81),
    ("identifiers.first_party_cookie", "a" * 32 + "-s2-1667065540836-"),
    ("identifiers.email", "nobody"),
    ("identifiers.email", "a b@c.de"),
    ("identifiers.email", 7),
    ("identifiers.email", ["a@x.de"]),
    ("identifiers.email_sha256", "a" * 63),
    ("identifiers.email_sha256", "g" * 64),
    ("identifiers.email_sha256", ["a" * 64]),
    ("identifiers.email_md5", ["a" * 32, "b" * 32]),
    (
        "identifiers.email_sha256",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ),
    ("identifiers.email_md5", "a" * 31),
    ("identifiers.email_md5", "D41D8CD98F00B204E9800998ECF8427E"),
    ("identifiers.device_id", "abc"),
    ("identifiers.device_id", "00000000-0000-0000-0000-000000000000"),
    ("identifiers.user_id", "x" * 600),
    ("identifiers.user_id", ""),
    ("event_attributes", []),
    ("event_attributes.colour", "red"),
    ("event_attributes.order_id", ""),
    ("event_attributes.order_id", "x" * 600),
    ("event_attributes.order_id", "a\x00b"),
    ("event_attributes.order_id", []),
    ("event_attributes.total", "1.2.3"),
    ("event_attributes.keywords", "x" * 3000),
    ("event_attributes.products", {}),
    ("event_attributes.products", [{"product_id": "1"}] * 1001),
    (_P0, {}),
    (_P0, "mug"),
    (f"{_P0}.product_id", []),
    (f"{_P0}.price", "free"),
    (f"{_P0}.quantity", 0),
    (f"{_P0}.quantity", 1.5),
    (f"{_P0}.quantity", 10**7),
    (f"{_P0}.category", "x" * 2000),
    (f"{_P0}.colour", "red"),
    ("timestamp", "2022-10-29T17:45:40Z"),
    ("timestamp", 7),
    ("timestamp", NOW * 1000),
    ("timestamp", NOW + 3601),
]

#: Where our model makes what the API wants of it instead of refusing: an address loses its port,
#: a URL is encoded and shortened, an object becomes the JSON text.
MENDED = {
    ("page_location", "https://shop.example/ä %"),
    ("page_location", "https://shop.example/" + "x" * 9000),
    ("ip", "1.2.3.4:80"),
    ("ip", "fe80::1%eth0"),
    ("user_agent", "x" * 5000),
    ("user_agent", "a\nb"),
    ("currency", "eur"),
    ("external_data", "{'a': 1}"),
    ("external_data", "{not json"),
    ("external_data", "[NaN]"),
    ("identifiers.first_party_cookie", "a" * 32 + "-s2-1667065540836-"),
    ("identifiers.device_id", "00000000-0000-0000-0000-000000000000"),
}


def good() -> Any:
    fields = {
        "order_id": "1001",
        "value": "59.90",
        "currency": "EUR",
        "products": [{"product_id": "mug", "price": "29.95", "quantity": 2}],
    }
    return json.loads(build("purchase", fields, WEB, strict=True).payload)


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
    ("place", "value"), BREAKERS, ids=[f"{n}-{place}" for n, (place, _) in enumerate(BREAKERS)]
)
def test_what_breaks_a_rule_of_the_sandbox_is_stopped(place: str, value: Any) -> None:
    wire = broken(place, value)
    assert faults(wire) != [], "this breaks no rule"
    try:
        fixed = recheck_wire(json.dumps(wire), now=NOW)
    except EventError:
        stopped = True
    else:
        stopped = False
        assert faults(fixed.wire()) == []
    assert stopped is ((place, str(value)) not in MENDED)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (place, value)
        for place, value in BREAKERS
        if place in _PLACES and (place, str(value)) not in MENDED and value is not _GONE
    ],
)
def test_and_where_the_call_would_give_it_it_is_stopped_there(place: str, value: Any) -> None:
    name = place.rpartition(".")[2]
    if name in ("identifiers", "event_attributes", "event_name"):
        return
    name = {"conversion_value": "value", "email_sha256": "email", "email_md5": "email"}.get(
        name, name
    )
    fields = {"currency": "EUR", "order_id": "1", name: value}
    if name in ("user_id", "adct", "first_party_cookie", "device_id", "email") and not value:
        assert build("pageView", fields, WEB, strict=True).dropped
        return
    with pytest.raises(EventError):
        build("pageView", fields, WEB, strict=True)


def _texts(node: ast.AST) -> Iterator[str]:
    """Patterns of the phrases that a rule can say."""
    for part in ast.walk(node):
        if isinstance(part, ast.JoinedStr):
            yield ".*".join(
                re.escape(str(piece.value)) if isinstance(piece, ast.Constant) else ""
                for piece in part.values
            )
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield re.escape(part.value)


def _phrases() -> set[str]:
    found: set[str] = set()
    for module in (value_checks, event_checks):
        for function in ast.walk(ast.parse(inspect.getsource(module))):
            if not isinstance(function, ast.FunctionDef) or function.name in (
                "warnings",
                "coverage",
                "_no_constant",
            ):
                continue
            for node in ast.walk(function):
                said: list[ast.AST] = []
                if isinstance(node, ast.Return) and node.value is not None:
                    said = [node.value]
                elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
                    said = [node.value.elts[-1]]
                for part in said:
                    found.update(
                        text for text in _texts(part) if re.match(r"(must|is|needs)\\", text)
                    )
    return found


def test_no_rule_of_the_sandbox_is_left_untried() -> None:
    phrases = _phrases()
    assert len(phrases) >= 30
    said = {phrase for place, value in BREAKERS for _, _, phrase in faults(broken(place, value))}
    untried = {pattern for pattern in phrases if not any(re.match(pattern, one) for one in said)}
    # Whose account it is the settings say, not the event.
    assert untried == {
        re.escape("must be the advertisable of the request"),
        re.escape("must be the pixel of the advertisable"),
    }
