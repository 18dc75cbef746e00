"""Events that `before_report` changed, and dead letters that somebody fixed."""

import hashlib
import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from adroll_flask import Event, EventError
from adroll_flask.events.event import EventProduct, json_schema
from adroll_flask.events.fields import MAX_BYTES
from adroll_flask.events.fix import draft, rebuilt
from adroll_flask.events.names import FIELD_NAMES, EventDefaults
from tests.support.anything import ANYTHING
from tests.support.event_kit import NOW, PURCHASE, WEB, context, strictly

SHA256 = hashlib.sha256(b"ada@example.com").hexdigest()
HASHES = {"email_sha256", "email_md5"}


@pytest.fixture
def event() -> Event:
    return strictly(**PURCHASE, email="ada@example.com", user_id=42).event


def again(event: Event) -> Event:
    """What leaves of an event that a hook returned."""
    return strictly(**PURCHASE).changed(event).event


def fixed(payload: str | bytes, forms: tuple[str, ...] = ("sha256", "md5")) -> Event:
    """The event that somebody fixed."""
    return rebuilt(payload, EventDefaults(now=NOW, email_forms=forms)).event


# -- replace ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"currency": None}, "currency"),
        ({"page_location": None}, "page_location"),
        ({"timestamp": 4_000_000_000}, "future"),
        ({"products": [{"price": 1}]}, "product_id"),
        ({"adct": None, "first_party_cookie": None}, "visitor"),
        ({"email_forms": [["md5"]]}, "email_forms"),
        ({"currancy": "EUR"}, "did you mean 'currency'"),
    ],
)
def test_what_may_not_change_is_refused(event: Event, change: dict[str, Any], told: str) -> None:
    with pytest.raises(EventError, match=told):
        event.replace(**change)


def test_an_address_that_a_hook_adds_leaves_hashed_too(event: Event) -> None:
    changed = event.replace(email="other@example.com")
    assert changed.email is None
    assert changed.email_sha256 == hashlib.sha256(b"other@example.com").hexdigest()
    assert event.replace(email=None).email_sha256 is None
    assert event.replace(email_sha256=SHA256.upper()).email_sha256 == SHA256


def test_events_of_a_clock_ahead_can_be_changed() -> None:
    event = strictly("pageView", context(now=4_000_000_000.0)).event
    assert event.replace(user_id="1").timestamp == 4_000_000_000.0


# -- again -----------------------------------------------------------------------------------


def test_what_went_around_the_checks_is_caught(event: Event) -> None:
    amiss: list[tuple[str, Any]] = [
        ("value", Decimal(-1)),
        *(("email", bad) for bad in ("ada@example.com", ("ada@example.com",))),
        ("products", (EventProduct(product_id="", price=Decimal(-1)),)),
        ("products", ("mug",)),
        ("email_sha256", ("a" * 64,)),
        ("timestamp", float("nan")),
        ("external_data", "x" * MAX_BYTES),
    ]
    for name, bad in amiss:
        with pytest.raises(EventError, match=name):
            again(replace(event, **{name: bad}))


# -- schema ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"identifiers": {"user_id": "1"}},
        {"event_name": "add_to_cart"},
        {"conversion_value": "1,5"},
        {"colour": "red"},
    ],
)
def test_the_schema_refuses_what_is_no_event(event: Event, wrong: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(event.wire())
    assert not validator.is_valid(event.wire() | wrong)


# -- drafts ----------------------------------------------------------------------------------


def told(fields: dict[str, Any], name: Any = "purchase", where: Any = WEB) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(draft(name, fields, where))
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"user_id": 42, "external_data": {"a": 1}, "email": "ada@example.com"},
        {"value": 59.9, "currency": "eur", "total": Decimal("1E+2")},
        {"products": [{"product_id": 1, "price": Decimal("3.3333")}]},
    ],
)
def test_a_draft_of_a_good_event_is_that_event(fields: dict[str, Any]) -> None:
    assert told({**PURCHASE, **fields}) == strictly(**{**PURCHASE, **fields}).event.wire()


def test_a_draft_keeps_what_is_wrong_as_it_was_given() -> None:
    wire = told(
        {
            **PURCHASE,
            "value": "59,90",
            "currency": "EURO",
            "timestamp": datetime(2022, 10, 29, 17, 45),
            "products": [{"product_id": "mug", "price": "29,95", "quantity": 0, "sku": 1}],
            "keywords": {"too": "long" * 200},
            "total": [Decimal("1.5")],
        }
    )
    attributes = wire["event_attributes"]
    assert (attributes["keywords"], attributes["total"]) == ("<dict>", ["1.5"])
    assert wire["conversion_value"] == "59,90"
    assert wire["currency"] == "EURO"
    assert wire["timestamp"] == "2022-10-29T17:45:00"
    assert attributes["products"] == [{"product_id": "mug", "price": "29,95", "quantity": 0}]
    assert wire["identifiers"]["adct"] == "click123"
    assert told({}, "add_to_cart")["event_name"] == "add_to_cart"


def test_no_address_is_in_a_draft_but_in_forms_that_may_leave() -> None:
    payload = draft("buy", {"email": "Ada@example.com"}, WEB)
    assert b"ada" not in payload.lower()
    assert json.loads(payload)["identifiers"]["email_sha256"] == SHA256
    for refused in ("ada example.com", ["Ada@example.com"]):
        payload = draft("buy", {"email": refused}, WEB)
        assert b"ada" not in payload.lower()
        assert not HASHES & json.loads(payload)["identifiers"].keys()
    plain = context(email_forms=("plain",))
    assert told({"email": "Ada@example.com"}, where=plain)["identifiers"]["email"] == (
        "ada@example.com"
    )


def test_a_draft_keeps_nothing_of_a_visitors_that_nobody_could_fix() -> None:
    assert "a b" not in str(told({"adct": "a b", "value": "much"}))


def test_a_draft_has_what_is_known_of_a_visitor_where_the_call_said_it_wrong() -> None:
    identifiers = told({"adct": "a b", "first_party_cookie": "", "value": "much"})["identifiers"]
    assert identifiers["adct"] == WEB.adct
    assert identifiers["first_party_cookie"] == WEB.first_party_cookie


def test_a_draft_stays_small() -> None:
    huge = {
        "external_data": "x" * 10**6,
        "products": [{"product_id": "x" * 10**5}] * 400,
        "user_id": "x" * 10**6,
        "keywords": [["x" * 10**5] * 100] * 100,
        "order_id": 10**5000,
    }
    payload = draft("purchase", huge, WEB)
    assert len(payload) <= MAX_BYTES
    assert json.loads(payload)["identifiers"]["adct"] == "click123"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ANYTHING, st.dictionaries(st.sampled_from(FIELD_NAMES), ANYTHING, max_size=8))
def test_a_draft_can_be_made_of_anything(name: Any, fields: dict[str, Any]) -> None:
    payload = draft(name, fields, WEB)
    assert isinstance(json.loads(payload), dict)
    assert len(payload) <= MAX_BYTES


# -- fixed ----------------------------------------------------------------------------------


def test_a_fixed_draft_is_the_event_that_was_meant() -> None:
    fields = {**PURCHASE, "email": "ada@example.com", "user_id": 42}
    wire = told({**fields, "currency": "EURO"})
    wire["currency"] = "EUR"
    fix = fixed(json.dumps(wire).encode())
    assert fix == strictly(**fields).event
    assert fixed(json.dumps([wire])) == fix


@pytest.mark.parametrize("place", ["event_attributes", "identifiers"])
def test_what_says_nothing_in_the_json_is_not_refused(place: str) -> None:
    """Other programs write null where there is nothing, and the hash of no address as a text."""
    event = strictly("pageView").event
    empty = {"email_sha256": "", "email_md5": "", "user_id": None}
    said = {**event.wire()["identifiers"], **empty} if place == "identifiers" else None
    assert fixed(json.dumps({**event.wire(), place: said})) == event


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"timestamp": None}, "timestamp"),
        ({"currency": None}, "currency"),
        ({"event_attributes": {"user_id": "43"}}, "event_attributes.user_id"),
    ],
)
def test_an_incomplete_or_odd_fix_is_refused(
    event: Event, change: dict[str, Any], place: str
) -> None:
    with pytest.raises(EventError, match=f"^{place}: "):
        fixed(json.dumps(event.wire() | change))


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"7", b"[{},{}]", b"\xff", b"[" * 100_000])
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(EventError, match=r"^payload: "):
        fixed(payload)


def test_an_address_that_was_fixed_in_is_hashed_unless_it_may_leave(event: Event) -> None:
    wire = event.wire()
    wire["identifiers"]["email"] = "Other@example.com"
    payload = json.dumps(wire).encode()
    fix = fixed(payload)
    # The one in clear takes the place of the hashes of the former one.
    assert fix.email is None
    assert fix.email_sha256 == hashlib.sha256(b"other@example.com").hexdigest()
    assert fix.email_md5 == hashlib.md5(b"other@example.com").hexdigest()
    plain = fixed(payload, ("plain",))
    assert (plain.email, plain.email_sha256) == ("other@example.com", None)
