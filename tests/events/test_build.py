"""From a call's plain values to the API's JSON object."""

import hashlib
import json
import logging
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

import jsonschema
import pytest

from adroll_flask import EventError
from adroll_flask.accounts import Account
from adroll_flask.events.build import Built, build, trial_event
from adroll_flask.events.event import json_schema, wire_bytes
from adroll_flask.events.fix import rebuilt
from adroll_flask.events.names import FIELD_NAMES, EventFields, EventName
from tests.conftest import Caplog
from tests.support.event_kit import (
    BARE,
    COOKIE,
    EDGES,
    NOW,
    PURCHASE,
    WEB,
    context,
    leniently,
    strictly,
)

SHA256 = hashlib.sha256(b"ada@example.com").hexdigest()
MD5 = hashlib.md5(b"ada@example.com").hexdigest()
GAID = "cdda802e-fb9c-47ad-9866-0794d394c912"
BARE_WITH_PAGE = context(BARE, page_location="https://app.example/", ip="203.0.113.9")


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


def test_the_functions_signature_has_each_field_and_event() -> None:
    assert set(EventFields.__annotations__) - {"visitor", "session", "hold"} == set(FIELD_NAMES)
    assert len(get_args(EventName)) == 13


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("add_to_cart", "did you mean 'addToCart'?"),
        ("addtocart", "did you mean 'addToCart'?"),
        ("puchase", "did you mean 'purchase'?"),
        *((name, "highValuePage") for name in ("", "xyzzy", None, 7, ["purchase"])),
    ],
)
def test_another_name_is_told_the_nearest_or_all_thirteen(name: Any, told: str) -> None:
    with pytest.raises(EventError, match=f"^event_name: .*{re.escape(told)}"):
        leniently(name)


def test_an_unknown_fields_name_is_told_only_if_it_is_one() -> None:
    (dropped,) = build("purchase", {**PURCHASE, "ada@example.com": 1}, WEB, strict=False).dropped
    assert dropped[0] == "?"


def test_none_means_not_given() -> None:
    fields: dict[str, Any] = dict.fromkeys(FIELD_NAMES)
    assert strictly("pageView", **fields).event == strictly("pageView").event


# -- forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "own"),
    [
        *(({"order_id": order_id}, {}) for order_id in (1001, " 1001\t")),
        ({"order_id": UUID(int=7)}, {"order_id": str(UUID(int=7))}),
        ({"order_id": " zero\u200bwidth"}, {"order_id": "zero\u200bwidth"}),
        ({"currency": " eur "}, {}),
        ({"value": "60.4", "currency": "jpy"}, {"value": "60", "currency": "JPY"}),
    ],
)
def test_a_value_is_written_in_its_own_form(changes: dict[str, Any], own: dict[str, Any]) -> None:
    written, said = (strictly(**{**PURCHASE, **one}) for one in (changes, own))
    assert (written.payload, written.dropped) == (said.payload, ())


def test_an_amount_of_nothing_is_an_amount() -> None:
    wire = json.loads(strictly("pageView", total=0).payload)
    assert wire["event_attributes"] == {"total": "0"}


# -- order, deduplication --------------------------------------------------------------------


def test_the_deduplication_key_is_the_order_id_unless_it_is_given() -> None:
    assert strictly(**PURCHASE).key == "1001"
    assert strictly(**PURCHASE, deduplication_key=7).key == "7"
    assert strictly("formFill").key is None


# -- money -----------------------------------------------------------------------------------


@pytest.mark.parametrize("currency", [None, "EURO"])
def test_another_event_loses_a_value_without_its_currency(currency: str | None) -> None:
    built = leniently("addToCart", value="5", currency=currency)
    assert (built.event.value, built.event.currency) == (None, None)
    assert built.dropped[0][0] == "currency"


# -- identifiers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("email", " ", "is empty"),
        ("device_id", "0" * 8 + "-0000" * 3 + "-" + "0" * 12, "is all zeros: the user opted out"),
    ],
)
def test_who_tells_nothing_of_himself_is_no_error(field: str, value: str, why: str) -> None:
    built = strictly(**PURCHASE, **one(field, value))
    assert built.event == strictly(**PURCHASE).event
    assert built.dropped == ((field, why),)


def test_a_user_id_that_looks_like_an_address_is_warned_about_by_name_only(caplog: Caplog) -> None:
    with caplog.at_level(logging.WARNING, "adroll_flask"):
        event = strictly("formFill", user_id="ada@example.com").event
    assert event.user_id == "ada@example.com"
    assert "user_id" in caplog.text
    assert "ada" not in caplog.text


#: Without these there is no purchase.
NEEDED = ("order_id", "deduplication_key", "value", "currency", "page_location", "ip")
#: Amiss as a whole; the fields of one product are in test_products.py.
AMISS = [*EDGES, 7.5, object(), {"a": {1}}, 10**5000, "x" * 5000, "59,90", datetime(2022, 1, 1)]


def refuses(make: Callable[..., Built], field: str, value: Any) -> bool:
    """Whether a purchase is refused for what this field is given."""
    try:
        make("purchase", context(identity={"user_id": "7"}), **{**PURCHASE, field: value})
    except EventError as problem:
        return problem.field.partition("[")[0] == field
    return False


@pytest.mark.parametrize("field", [name for name in FIELD_NAMES if name != "product_map"])
def test_a_bad_field_of_the_call_gives_way_to_what_is_known(field: str) -> None:
    known = context(identity={"user_id": "7"})
    refused = [value for value in AMISS if refuses(strictly, field, value)]
    assert refused
    for value in refused:
        if field in NEEDED:
            assert refuses(leniently, field, value)
        else:
            sound = {name: PURCHASE[name] for name in PURCHASE if name != field}
            built = leniently("purchase", known, **sound, **one(field, value))
            assert built.event == strictly("purchase", known, **sound).event
            assert {name.partition("[")[0] for name, _ in built.dropped} == {field}


@pytest.mark.parametrize(
    ("field", "value"),
    [("value", -1), ("currency", "EURO"), ("order_id", ""), ("deduplication_key", 1.5)],
)
def test_another_event_does_without_what_a_purchase_needs(field: str, value: Any) -> None:
    built = leniently("addToCart", **{**PURCHASE, field: value})
    assert [name for name, _ in built.dropped][:1] == [field]


SCHEMA = jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize("field", FIELD_NAMES)
def test_what_a_field_takes_it_takes_again_and_its_schema_does(field: str) -> None:
    where = context(email_forms=("sha256", "md5", "plain"))
    for value in AMISS:
        try:
            built = strictly("purchase", where, **{**PURCHASE, field: value})
        except EventError:
            continue
        SCHEMA.validate(json.loads(built.payload))
        assert rebuilt(built.payload, where).event == built.event


def test_what_the_visitor_sent_amiss_raises_nowhere() -> None:
    built = strictly("pageView", context(adct="a b", user_agent="x" * 5000))
    assert built.event.adct is None
    assert [field for field, _ in built.dropped] == ["adct"]
    assert built.event.user_agent == "x" * 1024


# -- visitors without a browser --------------------------------------------------------------


def test_an_id_alone_gives_a_stable_cookie_value_of_this_site() -> None:
    def cookie(context: Any = BARE_WITH_PAGE, **fields: Any) -> str:
        return str(strictly("formFill", context, **fields).event.first_party_cookie)

    assert cookie(device_id=GAID) == cookie(device_id=GAID.upper(), user_id=42)
    assert cookie(user_id=42) == cookie(user_id="42") == cookie(user_id=42, email="a@x.de")
    other_site = context(BARE_WITH_PAGE, derive_key=b"another key")
    different = {cookie(device_id=GAID), cookie(user_id=42), cookie(email="a@x.de")}
    assert len({*different, cookie(other_site, user_id=42)}) == 4
    assert all(one.endswith("-1577836800000") for one in different)


@pytest.mark.parametrize(
    "fields", [{}, {"email": "ada"}, {"user_id": ""}, {"device_id": GAID[:-1]}]
)
def test_a_visitor_with_nothing_is_an_error_that_says_what_to_pass(fields: dict[str, Any]) -> None:
    with pytest.raises(EventError, match=r"^visitor: ") as caught:
        leniently("formFill", BARE_WITH_PAGE, **fields)
    for name in ("visitor=", "adct=", "first_party_cookie=", "user_id=", "device_id="):
        assert name in str(caught.value)
    with pytest.raises(EventError, match="visitor="):  # without a key nothing is derived
        leniently(
            "formFill", context(BARE_WITH_PAGE, derive_key=None), **{**fields, "user_id": "42"}
        )


@pytest.mark.parametrize("field", ["page_location", "ip"])
def test_outside_of_a_request_the_error_names_what_to_pass(field: str) -> None:
    given = {"page_location": "https://app.example/", "ip": "203.0.113.9", "adct": "c"}
    del given[field]
    with pytest.raises(EventError, match=f"^{field}: .*pass {field}="):
        leniently("formFill", BARE, **given)


# -- coverage --------------------------------------------------------------------------------


KNOWN: dict[str, Any] = {"email": "ada@example.com", "user_id": 1, "device_id": GAID}
APP = context(BARE, page_location="https://a.example/?package_app_name=com.x", ip="8.8.8.8")


CLICK = "adct, first_party_cookie"
HASHES = "email_sha256, email_md5"


@pytest.mark.parametrize(
    ("where", "fields", "told", "missing"),
    [
        (WEB, {"email": "ada@example.com"}, f"4 of 6: {CLICK}, {HASHES}", "user_id"),
        (context(email_forms=("sha256",)), KNOWN, f"5 of 5: {CLICK}, email_sha256", ""),
        (WEB, KNOWN, f"6 of 6: {CLICK}, {HASHES}", ""),
        (context(email_forms=("sha256", "md5", "plain")), KNOWN, f"7 of 7: {CLICK}, email, ", ""),
        # A hash that was made elsewhere counts though its form is off.
        (
            context(email_forms=("sha256",)),
            *({"email": MD5}, f"3 of 6: {CLICK}, email_md5", "email_sha256, user_id"),
        ),
        # An app misses its device's id, and a derived cookie its click.
        (APP, {"user_id": 1}, "2 of 6: first_party_cookie, user_id", f"adct, {HASHES}, device_id"),
    ],
)
def test_coverage_names_what_is_carried_and_what_this_site_could_supply(
    where: Any, fields: dict[str, Any], told: str, missing: str
) -> None:
    coverage = strictly("pageView", where, **fields).event.coverage
    assert str(coverage).startswith(told)
    assert ", ".join(coverage.missing) == missing
    assert coverage.score == pytest.approx(int(told[0]) / int(told[5]))


# -- user agent ------------------------------------------------------------------------------


def test_user_agents_lose_controls_and_their_far_end() -> None:
    assert strictly("pageView", user_agent="a\r\nX-Evil: 1").event.user_agent == "a X-Evil: 1"
    assert strictly("pageView", user_agent="é" * 2000).event.user_agent == "é" * 1024
    assert strictly("pageView", user_agent="\x00").event.user_agent is None


# -- trials ----------------------------------------------------------------------------------


def test_two_trials_are_of_two_visitors() -> None:
    first, second = (json.loads(trial_event(Account(), 1_667_065_540.0)) for _ in range(2))
    assert first["identifiers"].keys() == {"first_party_cookie"}
    assert first["identifiers"] != second["identifiers"]
    with pytest.raises(EventError, match="event_name"):
        trial_event(Account(), 1_667_065_540.0, "bought")


# -- what is looked at in haste ----------------------------------------------------------------


#: A text and a number that no check takes in haste: their types are not ``str`` and ``float``
#: themselves. They have these names, which errors tell.
Text: Any = type("str", (str,), {})
Number: Any = type("float", (float,), {})


def slowly(value: Any) -> Any:
    """*value* with its texts and numbers as checks do not take them in haste."""
    if isinstance(value, dict):
        return {name: slowly(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [slowly(inner) for inner in value]
    if type(value) is str:
        return Text(value)
    return Number(value) if type(value) is float else value


def outcome(fields: dict[str, Any]) -> object:
    """What a purchase of *fields* leads to."""
    try:
        built = build("purchase", fields, context(identity={"user_id": "7"}), strict=False)
    except EventError as problem:
        return str(problem)
    return built.payload, built.key, built.dropped


NEAR = [
    *(text * count for text in ("x", "é", "9", " x") for count in (80, 127, 128, 240, 255, 256)),
    *("x" * (bound + 1) for bound in (80, 128, 240, 256)),
    *(f"{'x' * count}@b.example" for count in (243, 244, 245, 246)),
    *("A@B.example", "a+b@c.example", ".@.", "a@b c", " a@b.example", "a@b@c", "é@b.example"),
    *("59.9", "59.90", "059.90", "59.900", "1234567890123", "12345678901234", "0.0000001"),
    *("EUR", "eur", " EUR", "XAU", "JPY"),
    *(1e9 - 0.001, 1e9, 1e11 - 0.001, 1e11, 1667065540.0625, 1667065540.8365, 0.1, 2.0),
]


def test_what_is_taken_in_haste_is_what_a_long_look_makes_of_it() -> None:
    names = ("order_id", "value", "currency", "email", "user_id", "total", "timestamp", "keywords")
    for value in (*NEAR, *EDGES):
        for name in (*names, "device_os", "adct", "ip", "deduplication_key"):
            fields = {**PURCHASE, name: value}
            assert outcome(fields) == outcome(slowly(fields)), name
        for name in ("product_id", "price", "quantity", "category"):
            fields = {**PURCHASE, "products": [{"product_id": "mug", name: value}]}
            assert outcome(fields) == outcome(slowly(fields)), name
