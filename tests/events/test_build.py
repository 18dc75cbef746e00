"""From a call's plain values to the API's JSON object."""

from __future__ import annotations

import hashlib
import json
import logging
from decimal import Decimal
from enum import StrEnum
from typing import Any, get_args
from uuid import UUID

import jsonschema
import pytest

from adroll_flask.errors import EventError
from adroll_flask.events.build import build, warm
from adroll_flask.events.context import EventDefaults
from adroll_flask.events.event import Event, json_schema, wire_bytes
from adroll_flask.events.names import EVENT_NAMES, FIELD_NAMES, EventFields, EventName
from tests.support.event_kit import (
    BARE,
    COOKIE,
    NOW,
    PURCHASE,
    WEB,
    context,
    leniently,
    strictly,
)

SHA256 = hashlib.sha256(b"ada@example.com").hexdigest()
MD5 = hashlib.md5(b"ada@example.com").hexdigest()


# -- the whole -----------------------------------------------------------------------------


def test_a_purchase_becomes_the_apis_object() -> None:
    built = strictly(**PURCHASE, email="Ada@Example.com", user_id=42, keywords="mugs", total=62)
    assert built.event.wire() == {
        "advertisable_eid": "ADVERTISABLE0000000001",
        "pixel_eid": "PIXEL00000000000000001",
        "event_name": "purchase",
        "page_location": "https://shop.example/thanks?order=1001",
        "ip": "203.0.113.9",
        "user_agent": WEB.user_agent,
        "timestamp": NOW,
        "identifiers": {
            "adct": "click123",
            "first_party_cookie": COOKIE,
            "email_sha256": SHA256,
            "email_md5": MD5,
            "user_id": "42",
        },
        "event_attributes": {
            "order_id": "1001",
            "user_id": "42",
            "total": "62.00",
            "keywords": "mugs",
            "products": [{"product_id": "mug", "price": "29.95", "quantity": 2}],
        },
        "conversion_value": "59.90",
        "currency": "EUR",
    }
    assert json.loads(built.payload) == built.event.wire()
    assert wire_bytes(built.event) == built.payload
    assert built.dropped == ()


def one(field: str, value: Any) -> dict[str, Any]:
    """A field whose name a test's table gives."""
    return {field: value}


@pytest.mark.parametrize("name", EVENT_NAMES)
def test_each_of_the_thirteen_events_is_taken(name: str) -> None:
    event = strictly(name).event
    jsonschema.validate(event.wire(), json_schema())
    assert event.event_name == name


def test_thirteen_names_are_known_to_the_editor() -> None:
    assert len(get_args(EventName)) == 13


def test_the_functions_signature_has_each_field() -> None:
    assert set(EventFields.__annotations__) - {"visitor", "session", "hold"} == set(FIELD_NAMES)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("add_to_cart", "addToCart"),
        ("AddToCart", "addToCart"),
        ("addtocart", "addToCart"),
        ("page_view", "pageView"),
        ("Purchase", "purchase"),
        ("puchase", "purchase"),
    ],
)
def test_a_slip_of_a_name_is_recognised(name: str, meant: str) -> None:
    with pytest.raises(EventError) as caught:
        leniently(name)
    assert caught.value.field == "event_name"
    assert f"did you mean {meant!r}?" in str(caught.value)


@pytest.mark.parametrize("name", ["", "xyzzy", None, 7, ["purchase"]])
def test_other_names_are_told_all_thirteen(name: Any) -> None:
    with pytest.raises(EventError, match="highValuePage"):
        leniently(name)


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("valeu", "value"),
        ("email_sha256", "email"),
        ("useragent", "user_agent"),
    ],
)
def test_an_unknown_field_suggests_the_nearest_known_one(field: str, meant: str) -> None:
    with pytest.raises(EventError) as caught:
        strictly(**one(field, "x"))
    assert caught.value.field == field
    assert f"did you mean {meant!r}?" in str(caught.value)
    assert leniently(**PURCHASE, **one(field, "x")).dropped[0][0] == field


def test_an_unknown_fields_name_is_told_only_if_it_is_one() -> None:
    (dropped,) = build("purchase", {**PURCHASE, "ada@example.com": 1}, WEB, strict=False).dropped
    assert dropped[0] == "?"


def test_none_means_not_given() -> None:
    fields: dict[str, Any] = dict.fromkeys(FIELD_NAMES)
    assert strictly("pageView", **fields).event == strictly("pageView").event


# -- order, deduplication --------------------------------------------------------------------


class _Order(StrEnum):
    FIRST = "1001"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1001", "1001"),
        (1001, "1001"),
        (" A-1 ", "A-1"),
        (UUID(int=1), str(UUID(int=1))),
        (_Order.FIRST, "1001"),
    ],
)
def test_an_order_id_is_a_text_a_whole_number_or_a_uuid(value: Any, text: str) -> None:
    built = strictly(order_id=value)
    assert built.event.order_id == text
    assert built.key == text


@pytest.mark.parametrize(
    "value", ["", " ", "x" * 257, "a\nb", 1.5, True, b"1", pytest.param(10**5000, id="huge")]
)
def test_a_purchase_with_a_bad_order_id_is_invalid_in_production_too(value: Any) -> None:
    with pytest.raises(EventError) as caught:
        leniently(**{**PURCHASE, "order_id": value})
    assert caught.value.field == "order_id"


def test_the_deduplication_key_is_the_order_id_unless_it_is_given() -> None:
    assert strictly(**PURCHASE).key == "1001"
    assert strictly(**PURCHASE, deduplication_key=7).key == "7"
    assert strictly("formFill").key is None


@pytest.mark.parametrize("value", ["", "x" * 257, 1.5])
def test_a_bad_deduplication_key_is_refused(value: Any) -> None:
    with pytest.raises(EventError) as caught:
        leniently(**PURCHASE, deduplication_key=value)
    assert caught.value.field == "deduplication_key"
    built = leniently("formFill", deduplication_key=value)
    assert (built.key, built.dropped[0][0]) == (None, "deduplication_key")


# -- money -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "currency", "text"),
    [
        ("59.90", "EUR", "59.90"),
        (59.9, "eur", "59.90"),
        (Decimal("59.9"), "EUR", "59.90"),
        (60, "EUR", "60.00"),
        (0.1 + 0.2, "EUR", "0.30"),
        (1200, "JPY", "1200"),
        ("1.5", "KWD", "1.500"),
        (0, "EUR", "0.00"),
    ],
)
def test_value_is_written_in_its_currencys_decimals(value: Any, currency: str, text: str) -> None:
    event = strictly(value=value, currency=currency).event
    assert event.wire()["conversion_value"] == text
    assert event.wire()["currency"] == currency.upper()
    assert str(event.value) == text


@pytest.mark.parametrize("value", ["NaN", float("inf"), -1, "59,90", "abc", True])
def test_a_purchase_with_a_bad_value_is_invalid_in_production_too(value: Any) -> None:
    with pytest.raises(EventError) as caught:
        leniently(**{**PURCHASE, "value": value})
    assert caught.value.field == "value"


def test_a_purchase_with_a_bad_currency_is_invalid_in_production_too() -> None:
    with pytest.raises(EventError) as caught:
        leniently(**{**PURCHASE, "currency": "EURO"})
    assert caught.value.field == "currency"


def test_a_value_needs_its_currency() -> None:
    for build_it in (leniently, strictly):
        with pytest.raises(EventError) as caught:
            build_it(value="5")
        assert caught.value.field == "currency"
    built = leniently("addToCart", value="5")
    assert built.event.value is None
    assert built.dropped[0][0] == "currency"


def test_another_event_loses_a_bad_currency_together_with_its_value() -> None:
    built = leniently("addToCart", value="5", currency="EURO")
    assert (built.event.value, built.event.currency) == (None, None)


def test_value_fills_conversion_value_and_total_fills_total() -> None:
    only_value = strictly(value=5, currency="EUR").event.wire()
    assert only_value["conversion_value"] == "5.00"
    assert "event_attributes" not in only_value
    only_total = strictly("pageView", total=5, currency="EUR").event.wire()
    assert "conversion_value" not in only_total
    assert only_total["event_attributes"] == {"total": "5.00"}


def test_a_bad_total_is_left_out_of_a_purchase() -> None:
    built = leniently(**PURCHASE, total=-1)
    assert built.event.total is None
    assert built.dropped[0][0] == "total"
    with pytest.raises(EventError, match="total"):
        strictly(**PURCHASE, total=-1)


# -- identifiers -----------------------------------------------------------------------------


def test_user_id_fills_both_places() -> None:
    wire = strictly("pageView", user_id=42).event.wire()
    assert wire["identifiers"]["user_id"] == wire["event_attributes"]["user_id"] == "42"


def test_an_address_leaves_in_the_configured_forms_only() -> None:
    all_forms = context(email_forms=("sha256", "md5", "plain"))
    wire = strictly("formFill", all_forms, email="Ada@example.com").event.wire()
    assert wire["identifiers"]["email"] == "ada@example.com"
    assert wire["identifiers"]["email_sha256"] == SHA256
    assert wire["identifiers"]["email_md5"] == MD5
    hashed = strictly("formFill", email="Ada@example.com").payload
    assert b"ada@" not in hashed.lower()


@pytest.mark.parametrize("given", [["a@x.de", "b@x.de"], ["a@x.de"], ("a@x.de",), {"a@x.de"}])
def test_an_event_has_one_address_and_a_list_is_refused(given: Any) -> None:
    with pytest.raises(EventError, match="one address per event") as caught:
        strictly("formFill", email=given)
    assert caught.value.field == "email"
    built = leniently("formFill", email=given)
    assert [field for field, _ in built.dropped] == ["email"]
    assert not {"email_sha256", "email_md5"} & built.event.wire()["identifiers"].keys()


def test_the_calls_address_wins_over_identifys_in_every_form() -> None:
    known = context(email_sha256="b" * 64, email_md5="c" * 32)
    event = strictly("formFill", known, email="ada@example.com").event
    assert (event.email_sha256, event.email_md5) == (SHA256, MD5)
    # Of one person: a hash of the call's beside another kind of identify()'s would be of two.
    event = strictly("formFill", known, email=MD5).event
    assert (event.email_sha256, event.email_md5) == (None, MD5)
    event = strictly("formFill", known).event
    assert (event.email_sha256, event.email_md5) == ("b" * 64, "c" * 32)


def test_an_empty_address_is_no_address_and_no_error() -> None:
    built = strictly(**PURCHASE, email=" ")
    assert built.event.email_sha256 is None
    assert built.dropped == (("email", "is empty"),)


def test_a_bad_address_is_left_out_in_production() -> None:
    built = leniently(**PURCHASE, email="not-an-address", user_id="u1")
    assert built.event.email_sha256 is None
    assert built.event.user_id == "u1"
    assert [field for field, _ in built.dropped] == ["email"]
    with pytest.raises(EventError, match="email"):
        strictly(**PURCHASE, email="not-an-address")


def test_what_identify_gave_is_used_and_the_call_overrides_it() -> None:
    gaid = "cdda802e-fb9c-47ad-9866-0794d394c912"
    known = context(user_id="7", device_id=gaid)
    event = strictly("formFill", known).event
    assert (event.user_id, event.device_id) == ("7", gaid)
    other = "EA7583CD-A667-48BC-B806-42ECB2B48606"
    event = strictly("formFill", known, user_id="8", device_id=other).event
    assert (event.user_id, event.device_id) == ("8", other)


def test_a_device_id_of_zeros_is_left_out_with_its_reason() -> None:
    built = strictly(**PURCHASE, device_id="00000000-0000-0000-0000-000000000000")
    assert built.event.device_id is None
    assert built.dropped == (("device_id", "is all zeros: the user opted out"),)


def test_a_user_id_that_looks_like_an_address_is_warned_about_by_name_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "adroll_flask"):
        event = strictly("formFill", user_id="ada@example.com").event
    assert event.user_id == "ada@example.com"
    assert "user_id" in caplog.text
    assert "ada" not in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("adct", "a b"),
        ("adct", 7),
        ("first_party_cookie", "non sense"),
        ("user_id", "x" * 257),
        ("user_agent", 7),
    ],
)
def test_a_bad_identifier_of_the_call_gives_way_to_the_visitors(field: str, value: Any) -> None:
    known = context(user_id="7")
    built = leniently("formFill", known, **{field: value})
    assert getattr(built.event, field) == getattr(known, field)
    assert [name for name, _ in built.dropped] == [field]
    with pytest.raises(EventError, match=field):
        strictly("formFill", known, **{field: value})


def test_a_cookie_of_the_call_is_normalised() -> None:
    raw = COOKIE.replace("-", "-s2-") + "-"
    assert strictly(
        "formFill", BARE_WITH_PAGE, first_party_cookie=raw
    ).event.first_party_cookie == (COOKIE)


def test_what_the_visitor_sent_amiss_raises_nowhere() -> None:
    built = strictly("pageView", context(adct="a b", user_agent="x" * 5000))
    assert built.event.adct is None
    assert [field for field, _ in built.dropped] == ["adct"]
    assert built.event.user_agent == "x" * 1024


# -- visitors without a browser --------------------------------------------------------------

BARE_WITH_PAGE = context(BARE, page_location="https://app.example/", ip="203.0.113.9")
GAID = "cdda802e-fb9c-47ad-9866-0794d394c912"


def test_only_a_device_id_gives_a_stable_cookie_value() -> None:
    first = strictly("formFill", BARE_WITH_PAGE, device_id=GAID).event
    again = strictly("formFill", BARE_WITH_PAGE, device_id=GAID.upper()).event
    assert first.first_party_cookie is not None
    assert first.first_party_cookie == again.first_party_cookie
    assert first.first_party_cookie.endswith("-1577836800000")


def test_only_a_user_id_gives_another_stable_cookie_value() -> None:
    by_user = strictly("formFill", BARE_WITH_PAGE, user_id=42).event.first_party_cookie
    assert by_user == strictly("formFill", BARE_WITH_PAGE, user_id="42").event.first_party_cookie
    assert by_user != strictly("formFill", BARE_WITH_PAGE, user_id="43").event.first_party_cookie
    other_site = context(BARE_WITH_PAGE, derive_key=b"another key")
    assert by_user != strictly("formFill", other_site, user_id="42").event.first_party_cookie


@pytest.mark.parametrize(
    "fields", [{}, {"email": "ada@example.com"}, {"user_id": ""}, {"device_id": GAID[:-1]}]
)
def test_a_visitor_with_nothing_is_an_error_that_says_what_to_pass(fields: dict[str, Any]) -> None:
    with pytest.raises(EventError) as caught:
        leniently("formFill", BARE_WITH_PAGE, **fields)
    assert caught.value.field == "visitor"
    for name in ("visitor=", "adct=", "first_party_cookie=", "user_id=", "device_id="):
        assert name in str(caught.value)


def test_without_a_key_nothing_is_derived() -> None:
    with pytest.raises(EventError, match="visitor="):
        leniently("formFill", context(BARE_WITH_PAGE, derive_key=None), user_id="42")


@pytest.mark.parametrize("field", ["page_location", "ip"])
def test_outside_of_a_request_the_error_names_what_to_pass(field: str) -> None:
    given = {"page_location": "https://app.example/", "ip": "203.0.113.9", "adct": "c"}
    del given[field]
    with pytest.raises(EventError) as caught:
        leniently("formFill", BARE, **given)
    assert caught.value.field == field
    assert f"pass {field}=" in str(caught.value)


def test_an_app_reports_with_its_device() -> None:
    from adroll_flask import app_location

    app: dict[str, Any] = {
        "device_os": "iOS",
        "device_type": "phone",
        "package_app_name": "com.example.App",
        "package_app_version": "14.1.3",
    }
    wire = strictly(
        "purchase",
        BARE,
        **PURCHASE,
        device_id="EA7583CD-A667-48BC-B806-42ECB2B48606",
        ip="203.0.113.9",
        page_location=app_location("app.example.com", **app),
        **app,
    ).event.wire()
    assert {name: wire[name] for name in app} == app
    assert wire["identifiers"]["device_id"] == "EA7583CD-A667-48BC-B806-42ECB2B48606"
    assert "package_app_name=com.example.App" in wire["page_location"]


# -- coverage --------------------------------------------------------------------------------


def test_coverage_names_what_is_carried_and_what_this_site_could_supply() -> None:
    coverage = strictly("pageView", email="ada@example.com").event.coverage
    assert coverage.carried == ("adct", "first_party_cookie", "email_sha256", "email_md5")
    assert coverage.missing == ("user_id",)
    assert str(coverage) == "4 of 6: adct, first_party_cookie, email_sha256, email_md5"
    assert coverage.score == pytest.approx(4 / 6)


def test_coverage_counts_what_can_be_sent_and_not_what_is_off() -> None:
    everything = {"email": "ada@example.com", "user_id": 1, "device_id": GAID}
    for forms, most in (
        (("sha256",), 5),
        (("sha256", "md5"), 6),
        (("sha256", "md5", "plain"), 7),
    ):
        built = strictly("pageView", context(email_forms=forms), **everything)
        assert len(built.event.coverage.carried) == most
        assert built.event.coverage.score == 1
        assert str(built.event.coverage).startswith(f"{most} of {most}: ")


def test_a_hash_that_came_from_elsewhere_counts_though_its_form_is_off() -> None:
    coverage = strictly("pageView", context(email_forms=("sha256",)), email=MD5).event.coverage
    assert str(coverage) == "3 of 6: adct, first_party_cookie, email_md5"
    assert coverage.missing == ("email_sha256", "user_id")


def test_only_configured_forms_of_an_address_are_missed() -> None:
    both = context(email_forms=("md5", "plain"))
    assert strictly("pageView", both, user_id=1).event.coverage.missing == ("email", "email_md5")


def test_an_app_misses_its_device_id_and_a_derived_cookie_its_click() -> None:
    app = context(BARE, page_location="https://a.example/?package_app_name=com.x", ip="8.8.8.8")
    missing = strictly("pageView", app, user_id=1).event.coverage.missing
    assert missing == ("adct", "email_sha256", "email_md5", "device_id")


# -- user agent ------------------------------------------------------------------------------


def test_user_agents_lose_controls_and_their_far_end() -> None:
    assert strictly("pageView", user_agent="a\r\nX-Evil: 1").event.user_agent == "a X-Evil: 1"
    assert strictly("pageView", user_agent="é" * 2000).event.user_agent == "é" * 1024
    assert strictly("pageView", user_agent="\x00").event.user_agent is None


@pytest.mark.parametrize("field", ["device_os", "device_type", "package_app_name"])
def test_texts_about_the_device_are_bounded(field: str) -> None:
    assert getattr(strictly("pageView", **one(field, " x ")).event, field) == "x"
    assert getattr(strictly("pageView", **one(field, "")).event, field) is None
    for bad in ("x" * 257, 7):
        assert leniently("pageView", **one(field, bad)).dropped[0][0] == field


# -- what is never told ----------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELD_NAMES)
@pytest.mark.parametrize(
    "bad",
    [
        "hunter2 secret\x00 value",
        "hunter2" * 1000,
        ["hunter2 secret"],
        {"hunter2 secret": "hunter2"},
        ("hunter2", object()),
        [{"hunter2 secret": "hunter2", "product_id": "hunter2" * 100, "price": "hunter2"}],
    ],
    ids=["controls", "long", "list", "dict", "tuple", "products"],
)
def test_no_field_is_ever_told_by_its_value(
    field: str, bad: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for make in (strictly, leniently):
        try:
            said = str(make("purchase", **one(field, bad)).dropped)
        except EventError as problem:
            said = f"{problem} {problem.field} {problem.expected} {problem.__context__!r}"
        assert "hunter2" not in said
    assert "hunter2" not in caplog.text


class _Column:
    """Like a database column or an array: comparing makes no truth value."""

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("no truth value")


@pytest.mark.parametrize("field", sorted(set(FIELD_NAMES) - {"product_map"}))
def test_objects_without_a_truth_value_are_refused_like_others(field: str) -> None:
    with pytest.raises(EventError) as caught:
        strictly("purchase", **one(field, _Column()))
    assert caught.value.field.startswith(field)


def test_warming_up_is_a_report_of_nothing() -> None:
    warm()


def test_representations_name_fields_and_no_values() -> None:
    built = strictly(**PURCHASE, email="ada@example.com", user_id="u-42")
    for text in (repr(built.event), str(built.event), repr(built), repr(WEB), f"{built.event}"):
        for value in ("click123", COOKIE, SHA256, "u-42", "203.0.113.9", "mug", "59.90"):
            assert value not in text
    assert repr(built.event).startswith("<Event purchase: order_id, user_id, products, ")


def test_an_event_is_frozen() -> None:
    event = strictly("pageView").event
    with pytest.raises(Exception, match="cannot assign"):
        event.user_id = "x"  # type: ignore[misc]


def test_events_are_equal_by_value_and_can_be_pickled() -> None:
    import copy
    import pickle

    event = strictly(**PURCHASE).event
    assert pickle.loads(pickle.dumps(event)) == event == copy.deepcopy(event)


def test_without_an_account_the_eids_are_left_for_later() -> None:
    wire = strictly("pageView", context(advertisable_eid=None, pixel_eid="")).event.wire()
    assert "advertisable_eid" not in wire
    assert "pixel_eid" not in wire


def test_the_context_has_safe_defaults() -> None:
    event = build(
        "pageView",
        {"adct": "c", "ip": "::1", "page_location": "http://x/"},
        EventDefaults(now=NOW),
        strict=True,
    ).event
    assert isinstance(event, Event)
    assert event.email_forms == ("sha256", "md5")
