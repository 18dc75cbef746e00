"""The short way writes what the long way writes, or leaves the event to it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adroll_flask.errors import EventError
from adroll_flask.events import Context, build
from adroll_flask.quick import Quick

CONTEXT = Context(
    advertisable_eid="ADVERTISABLE0000000001",
    pixel_eid="PIXEL00000000000000001",
    now=1667065540.8364,
    page_location="https://shop.example/thanks?order=1001",
    ip="203.0.113.9",
    user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    adct="click123",
    first_party_cookie="46d41c62e88bb2e267c1e15314bb8837-1667065540836",
)
ADA = sha256(b"ada@example.com").hexdigest()
ORDER: dict[str, Any] = {
    "order_id": "1001",
    "value": "59.90",
    "currency": "EUR",
    "email": " Ada@Example.com ",
    "user_id": 42,
    "products": [
        {"product_id": "mug", "price": "29.95", "quantity": 2, "category": "kitchen"},
        {"category": "Küche “groß”", "product_group": "pots", "price": 5, "product_id": 7},
    ],
}


def compare(name: str, fields: dict[str, Any], context: Context) -> bool:
    """Whether the short way was taken; fails where the two differ."""
    found = Quick(dry_run=False).event(name, fields, context)
    if found is None:
        return False
    built = build(name, fields, context, strict=True)
    assert not built.dropped
    event, coverage = found
    assert event.name == name
    assert event.advertisable_eid == context.advertisable_eid
    assert event.payload == built.payload
    assert event.key == built.key
    assert event.occurred_at == built.event.timestamp
    worth = f"{built.event.value} {built.event.currency}"
    assert event.digest == (None if built.key is None else worth)
    assert coverage == built.event.coverage
    return True


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"value": Decimal("59.9")},
        {"value": 59.9},
        {"value": 60},
        {"value": "007.5"},
        {"value": "0.005"},
        {"value": "60", "currency": "JPY", "products": []},
        {"value": "1.2345", "currency": "BHD", "products": ()},
        {"order_id": 1001},
        {"order_id": 'a "quoted" \\ order'},
        {"adct": "click~/1"},
        {"ip": "198.51.100.7"},
        {"ip": "2001:DB8::0:1"},
        {"ip": "[::ffff:203.0.113.9]:443"},
        {"page_location": "https://shop.example/?q=%C3%B6"},
        {"user_agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X)"},
    ],
)
def test_an_order_in_good_order_goes_the_short_way_to_the_same_bytes(changes):
    assert compare("purchase", ORDER | changes, CONTEXT)


@pytest.mark.parametrize("without", ["email", "user_id", "products", "order_id"])
def test_what_is_not_given_is_absent_on_both_ways(without):
    fields = {name: value for name, value in ORDER.items() if name != without}
    assert compare("purchase", fields, CONTEXT)
    assert compare("pageView", {}, CONTEXT)
    assert compare("pageView", {}, replace(CONTEXT, adct=None, user_agent=None))
    assert compare("pageView", {}, replace(CONTEXT, first_party_cookie=None, user_id="7"))


def test_a_visitor_whom_the_site_knows_goes_the_short_way():
    assert compare("purchase", ORDER | {"email": None}, replace(CONTEXT, email_sha256=(ADA,)))
    assert compare("pageView", {}, replace(CONTEXT, email_sha256=("a" * 64,), user_id="7"))
    assert compare("purchase", ORDER, replace(CONTEXT, email_sha256=(ADA,)))


@pytest.mark.parametrize(
    ("fields", "context"),
    [
        ({"value": "59.90"}, {}),
        ({"value": "-1", "currency": "EUR"}, {}),
        ({"value": True, "currency": "EUR"}, {}),
        ({"value": "1", "currency": "XXX"}, {}),
        ({"email": "3e3417d7ef77d5932a6734b916515ed5"}, {}),
        ({"email": ["ada@example.com"]}, {}),
        ({"email": ""}, {}),
        ({"user_id": "ada@example.com"}, {}),
        ({"user_id": True}, {}),
        ({"order_id": " 1001"}, {}),
        ({"order_id": "a\nb"}, {}),
        ({"order_id": ""}, {}),
        ({"products": [{"price": "1"}]}, {}),
        ({"products": [{"product_id": "mug", "colour": "red"}]}, {}),
        ({"products": [{"product_id": "mug", "price": "1"}]}, {}),
        ({"products": [{"product_id": "mug", "quantity": 0}]}, {}),
        ({"products": {"product_id": "mug"}}, {}),
        ({"products": [{"product_id": "mug"}] * 501}, {}),
        ({"keywords": "mug"}, {}),
        ({"deduplication_key": "x"}, {}),
        ({"colour": "red"}, {}),
        ({"adct": "with space"}, {}),
        ({"page_location": "/thanks"}, {}),
        ({"ip": "unknown"}, {}),
        ({}, {"email_forms": ("plain",)}),
        ({"email": "ada@example.com"}, {"email_sha256": ("a" * 64,)}),
        ({}, {"email_sha256": ("a" * 64, "b" * 64)}),
        ({}, {"device_id": "123e4567-e89b-12d3-a456-426614174000"}),
        ({}, {"advertisable_eid": None}),
        ({}, {"adct": None, "first_party_cookie": None}),
        ({}, {"first_party_cookie": "46d41c62e88bb2e267c1e15314bb8837-1577836800000"}),
        ({}, {"page_location": "https://app.example/?package_app_name=x"}),
        ({}, {"user_agent": "with\tcontrols"}),
    ],
)
def test_whatever_needs_a_closer_look_goes_the_long_way(fields, context):
    assert not compare("pageView", fields, replace(CONTEXT, **context))


def test_an_unknown_event_goes_the_long_way_to_its_error():
    assert Quick(dry_run=False).event("refund", {}, CONTEXT) is None


_ANY = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.integers(-3, 10**7),
    st.floats(),
    st.decimals(),
    st.booleans(),
)
_PRODUCT = st.dictionaries(
    st.sampled_from(["product_id", "product_group", "price", "quantity", "category", "other"]), _ANY
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "order_id": _ANY,
            "value": st.one_of(_ANY, st.from_regex(r"[0-9]{1,5}\.[0-9]{1,3}", fullmatch=True)),
            "currency": st.sampled_from(["EUR", "JPY", "BHD", "eur", "XXX", "", 3]),
            "email": st.one_of(_ANY, st.just("ada@example.com"), st.emails()),
            "user_id": _ANY,
            "products": st.lists(st.one_of(_PRODUCT, _ANY), max_size=3),
            "adct": _ANY,
            "first_party_cookie": _ANY,
            "user_agent": _ANY,
        },
    ),
    st.sampled_from(((), ("a" * 64,), (ADA,), ("x" * 64,))),
)
def test_the_short_way_never_differs_from_the_long_one(fields, known):
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        compare("purchase", given, replace(CONTEXT, email_sha256=known))
    except EventError as problem:
        raise AssertionError(f"only the long way refuses {given}") from problem
