"""One description of an event: what each field takes, and one JSON."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adroll_flask.errors import EventError
from adroll_flask.events import event, names
from adroll_flask.events.build import build
from adroll_flask.events.event import ATTRIBUTES, IDENTIFIERS, TOP, Event, EventProduct, check
from adroll_flask.events.fields import rounded

DEFAULTS = names.EventDefaults(
    advertisable_eid="ADVERTISABLE0000000001",
    pixel_eid="PIXEL00000000000000001",
    now=1667065540.8364,
    page_location="https://shop.example/thanks?order=1001",
    ip="203.0.113.9",
    user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    adct="click123",
    first_party_cookie="46d41c62e88bb2e267c1e15314bb8837-1667065540836",
)
ORDER: dict[str, Any] = {
    "order_id": "1001",
    "value": "59.90",
    "currency": "EUR",
    "email": " Ada@Example.com ",
    "user_id": "42",
    "products": [
        {"product_id": "mug", "price": "29.95", "quantity": 2, "category": "kitchen"},
        {"category": "Küche “groß”", "product_group": "pots", "price": "5.00", "product_id": "7"},
    ],
}
MUG, POT = ORDER["products"]
AMOUNTS: dict[Any, str] = {60: "60.00", "007.5": "7.50", "0.005": "0.01", "+5": "5.00"}
YEN: dict[str, Any] = {"value": "60", "currency": "jpy"}


def payload(fields: dict[str, Any], **known: Any) -> bytes:
    built = build("purchase", fields, replace(DEFAULTS, **known), strict=True)
    assert not built.dropped
    return built.payload


# -- one JSON ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "own"),
    [
        *(({"value": value}, {}) for value in (Decimal("59.9"), 59.9, " 59.90 ")),
        *(({"value": given}, {"value": own}) for given, own in AMOUNTS.items()),
        (YEN | {"value": "60.4", "products": None}, YEN | {"currency": "JPY", "products": []}),
        ({"value": "1.2345", "currency": "BHD"}, {"value": "1.235", "currency": "BHD"}),
        ({"order_id": 1001}, {}),
        ({"order_id": " 1001\t"}, {}),
        ({"order_id": UUID(int=7)}, {"order_id": str(UUID(int=7))}),
        *(({"user_id": user_id}, {}) for user_id in (42, 42.0)),
        ({"currency": " eur "}, {}),
        ({"ip": "[::ffff:203.0.113.9]:443"}, {}),
        ({"ip": "2001:DB8::0:1"}, {"ip": "2001:db8::1"}),
        ({"page_location": "HTTPS://shop.example/thanks?order=1001"}, {}),
        ({"first_party_cookie": "46d41c62e88bb2e267c1e15314bb8837-s2-1667065540836-"}, {}),
        ({"timestamp": datetime.fromtimestamp(1667065540.836, UTC)}, {}),
        ({"timestamp": Decimal("1667065540.8364")}, {}),
        ({"products": tuple(ORDER["products"])}, {}),
        ({"products": [EventProduct(**item) for item in ORDER["products"]]}, {}),
        *(({"products": [MUG | form, POT]}, {}) for form in ({"quantity": "2"}, {"price": 29.95})),
    ],
)
def test_a_value_is_written_in_its_own_form(changes: dict[str, Any], own: dict[str, Any]) -> None:
    written = payload({**ORDER, **changes}), payload({**ORDER, **own})
    assert json.loads(written[0]) == json.loads(written[1])


def test_an_amount_of_nothing_is_an_amount() -> None:
    wire = json.loads(build("pageView", {"total": 0}, DEFAULTS, strict=True).payload)
    assert wire["event_attributes"] == {"total": "0"}


# -- what each kind of field takes -------------------------------------------------------------


#: What lies beside a bound, or in a form that two readers may read in two ways.
EDGES: list[Any] = [
    *("9" * count for count in (13, 14, 15, 16)),
    *("x" * count for count in (240, 241, 256, 257, 1000, 1001, 1024, 1025)),
    *(f"a@{'b' * count}" for count in (252, 253)),
    *(f"https://shop.example/{'b' * count}" for count in (1979, 1980)),
    *("A" * count for count in (7, 8, 40, 41)),
    "", " ", "\n", "a\n", "a\x85b", "\u2028", "\ufeff", "\ud800", " 5 ", "5.", ".5", "-0", "0.0",
    "00", "1_000", "٥", "5e1", "NaN", "EUR", "eur", "purchase", "Purchase", "1.2.3.4", "1.2.3.4\n",
    "01.2.3.4", "::1", "https://a..b/", "https://a.b:80/", "https://a.b/%zz", "HTTPS://a.b/",
    "A@B.c", "a@b@c", "a" * 64, "A" * 64, "g" * 64, "a" * 32, f"{'a' * 32}-1667065540836",
    f"{'a' * 32}-1667065540836\n", 0, 1, -1, 1_000_000, 1_000_001, 10**9, 10**11, 10**14,
    0.0, 6.8e-63, 1.5, 1e9, 1e11 - 0.001, 1e11, float("nan"), float("inf"), True, None, b"a", ["a"],
]  # fmt: skip
_TEXTS = (
    st.text(max_size=12)
    | st.sampled_from(["59.90", "0", "007", "1e3", " a ", "a\x00", "EUR", "eur", "purchase", "x@y"])
    | st.sampled_from(["203.0.113.9", "::1", "1.2.3.4\n", "https://shop.example/?a=%C3%BC"])
    | st.from_regex(r"[0-9]{1,16}(\.[0-9]{1,8})?", fullmatch=True)
    | st.from_regex(r"https?://[a-z.:0-9-]{1,12}/[!-~]{0,12}", fullmatch=True)
    | st.from_regex(r"[0-9a-fA-F]{32}(-([0-9]{13}|a_[0-9]{10}))?", fullmatch=True)
    | st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
    | st.text(max_size=3).map(lambda text: text * 200)
)
_VALUES = _TEXTS | st.integers(-2, 10**12) | st.floats() | st.decimals() | st.none() | st.booleans()


KINDS = {name: fields for part in (TOP, IDENTIFIERS, ATTRIBUTES) for name, fields in part.items()}
#: One field of each kind: some are taken and described as others are.
OF_EACH = {(kind.accept, repr(kind.schema)): name for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", sorted(OF_EACH.values()))
def test_what_a_field_keeps_it_takes_again_and_its_schema_does(name: str) -> None:
    accept, schema = KINDS[name].accept, jsonschema.Draft202012Validator(KINDS[name].schema)

    @settings(max_examples=100, deadline=None)
    @given(_VALUES)
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
@given(st.dictionaries(st.sampled_from([*Event.__dataclass_fields__]), _VALUES))
def test_an_error_says_what_its_field_takes_in_our_words(given_: dict[str, Any]) -> None:
    found = check(given_, DEFAULTS.now)
    if isinstance(found, Event):
        event.wire_bytes(found)
        return
    for problem in found:
        assert problem.field in {*Event.__dataclass_fields__, "visitor"}
        assert problem.expected.partition(" ")[0] in ("takes", "is", "may", "there")


def test_what_is_not_there_is_not_written_of_an_event_that_was_made_by_hand() -> None:
    product = EventProduct(product_id="mug", price=None)
    made = Event(
        event_name="pageView",
        page_location="https://shop.example/",
        ip="203.0.113.9",
        timestamp=1667065540.0,
        adct="c1",
        email_sha256=None,
        products=(product,),
    )
    assert made.email_sha256 is None
    assert product.price is None
    wire = made.wire()
    assert wire["identifiers"] == {"adct": "c1"}
    assert wire["event_attributes"] == {"products": [{"product_id": "mug"}]}
    assert made.coverage.carried == ("adct",)
