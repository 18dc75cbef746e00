"""When and where an event happened, and what the caller adds of his own."""

import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adroll_flask import EventError, app_location
from adroll_flask.events.fields import MAX_BYTES
from adroll_flask.events.fix import rebuilt
from adroll_flask.events.page_location import MAX_LOCATION, accept_location
from tests.support.event_kit import NOW, WEB, context, leniently, strictly

# -- time ------------------------------------------------------------------------------------

MOMENT = datetime(2022, 10, 29, 17, 45, 40, 836_000, tzinfo=UTC)
INDIA = timezone(timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    "value",
    [MOMENT, MOMENT.astimezone(INDIA), NOW, Decimal("1667065540.836"), 1667065540.8364999, None],
)
def test_a_time_is_kept_to_the_millisecond(value: Any) -> None:
    event = strictly("pageView", timestamp=value).event
    assert event.timestamp == NOW
    assert event.wire()["timestamp"] == 1667065540.836


def test_a_time_an_hour_ahead_is_a_clocks_and_beyond_it_a_mistake() -> None:
    assert strictly("pageView", timestamp=NOW + 3600).event.timestamp == round(NOW + 3600, 3)
    with pytest.raises(EventError, match="future"):
        strictly("pageView", timestamp=NOW + 3601)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (MOMENT.replace(tzinfo=None), "naive"),
        *((value, "divide by 1000") for value in (1667065540836, 1667065540836.0)),
        (Decimal(1667065540836), "divide by 1000"),
        *((value, "out of range") for value in (0, -1, 999_999_999, float("nan"), float("inf"))),
        pytest.param(10**400, "out of range", id="huge"),
        (Decimal("NaN"), "out of range"),
        (datetime(1, 1, 1, tzinfo=UTC), "out of range"),
        *((value, "it got") for value in (True, "2022-10-29T17:45:40Z", "1667065540", [NOW])),
        (date(2022, 10, 29), "a date has no time"),
    ],
)
def test_another_time_is_refused(value: Any, told: str) -> None:
    with pytest.raises(EventError, match=f"^timestamp: .*{told}"):
        strictly("pageView", timestamp=value)


# -- place -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://shop.example/a?b=c&d=%C3%BC#e", "https://shop.example/a?b=c&d=%C3%BC#e"),
        ("http://localhost:5000/", "http://localhost:5000/"),
        ("https://shop.example", "https://shop.example/"),
        ("https://shop.example?adct=c1", "https://shop.example/?adct=c1"),
        ("HTTPS://Shop.Example/A", "https://shop.example/A"),
        ("https://user:secret@shop.example/", "https://shop.example/"),
        ("https://shop.example/größe?q=ä b", "https://shop.example/gr%C3%B6%C3%9Fe?q=%C3%A4%20b"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
        ('https://shop.example/<">\\^`{}', "https://shop.example/%3C%22%3E%5C%5E%60%7B%7D"),
        ("https://shop.example/100%", "https://shop.example/100%25"),
        ("https://shop.example/%zz%4", "https://shop.example/%25zz%254"),
        (" https://shop.example/ ", "https://shop.example/"),
    ],
)
def test_a_location_is_a_full_url_in_plain_ascii(url: str, kept: str) -> None:
    assert accept_location(url) == kept
    assert accept_location(kept) == kept


@pytest.mark.parametrize(
    "url",
    [
        *("", "/thanks", "shop.example/thanks", "//shop.example/", 7, None, b"https://a.example/"),
        *("ftp://shop.example/", "javascript:alert(1)", "https://", "https:///x", "https://:80/"),
        *(f"https://shop.example:{port}/" for port in ("0", "99999", "x")),
        *(f"https://{host}/" for host in ("[::1", "a b.example", "a" * 254)),
        *(f"https://shop.example/{path}" for path in ("\x00", "\nX", "\ud800")),
    ],
)
def test_what_is_no_full_url_is_refused(url: Any) -> None:
    with pytest.raises(EventError, match=r"^page_location: "):
        accept_location(url)


def test_a_long_location_keeps_its_click_id_and_whole_parameters() -> None:
    noise = "&".join(f"p{n}={'%C3%A4' * 10}" for n in range(100))
    url = accept_location(f"https://shop.example/landing?{noise}&adct=click123&last=1#fragment")
    assert len(url) <= MAX_LOCATION
    query = parse_qs(urlsplit(url).query, strict_parsing=True, errors="strict")
    assert query["adct"] == ["click123"]
    assert query["p0"] == ["ä" * 10]
    assert all(value == ["ä" * 10] for name, value in query.items() if name != "adct")
    assert len(url) > MAX_LOCATION - 100


def test_a_long_path_loses_whole_parts_and_a_fragment_goes_first() -> None:
    assert len(accept_location("https://shop.example/R&D" + "/b" * 2000)) > MAX_LOCATION - 10
    part = "/" + "%C3%A4" * 50
    url = accept_location("https://shop.example" + part * 20 + "?adct=c1")
    assert url == f"https://shop.example{part * 6}/?adct=c1"
    url = accept_location("https://shop.example/?a=1&b=2#" + "x" * 3000)
    assert url == "https://shop.example/?a=1&b=2"
    for size, kept in ((2000, 2000), (2001, 21)):
        url = "https://shop.example/?a=".ljust(size, "x")
        assert accept_location(f"{url}&b=1") == url[:kept]


@pytest.mark.parametrize(
    ("field", "value"), [("page_location", "/thanks"), ("ip", "unknown"), ("ip", "")]
)
def test_a_bad_place_of_the_request_is_an_invalid_event_too(field: str, value: Any) -> None:
    for make in (strictly, leniently):
        with pytest.raises(EventError, match=f"^{field}: "):
            make("pageView", context(WEB, **{field: value}))


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=3000),
    st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="#"), max_size=3000),
    st.text("abcXYZ019-_~.!%", min_size=1, max_size=240),
)
def test_no_url_is_broken_by_the_bound(path: str, query: str, adct: str) -> None:
    from urllib.parse import quote

    click_id = quote(adct, safe="")
    path = re.sub("[?#]", "", path)
    url = accept_location(f"https://shop.example/{path}?{query}&adct={click_id}")
    assert len(url) <= MAX_LOCATION
    assert re.fullmatch(r"https://shop\.example/(?:[!-$&-~]|%[0-9A-Fa-f]{2})*", url)
    parameters = urlsplit(url).query.split("&")
    assert any(parameter.startswith("adct=") for parameter in parameters)
    if not any(parameter.startswith("adct=") for parameter in query.split("&")):
        assert f"adct={click_id}" in parameters
    assert accept_location(url) == url


def test_an_apps_location_is_a_url_on_a_domain_of_the_owners() -> None:
    url = app_location("app.example.com", device_os="iOS", package_app_version="14.1.3 (β)")
    assert url == ("https://app.example.com/?device_os=iOS&package_app_version=14.1.3+%28%CE%B2%29")
    assert accept_location(url) == url
    assert app_location("app.example.com") == "https://app.example.com/"
    wrong: Any
    for wrong in ("", " ", "a/b", "https://a.example", "a b", "a?b", "u@a", None):
        with pytest.raises(EventError, match="domain"):
            app_location(wrong)
    for wrong in ("", "x" * 257, 7):
        with pytest.raises(EventError, match="device_type"):
            app_location("a.example", device_type=wrong)


# -- keywords --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "kept"),
    [("red shoes", "red shoes"), (["red", "shoes"], "red shoes"), (" a\tb\n", "a b"), ("", None)],
)
def test_keywords_are_a_text_or_words(given_: Any, kept: str | None) -> None:
    assert strictly("productSearch", keywords=given_).event.keywords == kept
    with pytest.raises(EventError, match=r"^keywords: takes a text or a list of texts"):
        strictly("productSearch", keywords=[*given_, 7])


# -- external data ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": 1}, '{"a":1}'),
        ([1, None, True, "ü"], '[1,null,true,"ü"]'),
        *((plain, f'"{plain}"') for plain in ("plain", "", "7")),
        (7, "7"),
        ('{"already": "json"}', '{"already": "json"}'),
        ("{not json", '"{not json"'),
        ("[NaN]", '"[NaN]"'),
        ("[" * 5000, f'"{"[" * 5000}"'),
        (
            {"d": Decimal("1.50"), "t": MOMENT, "u": UUID(int=1)},
            '{"d":"1.50","t":"2022-10-29T17:45:40.836000+00:00",'
            '"u":"00000000-0000-0000-0000-000000000001"}',
        ),
    ],
)
def test_external_data_leaves_as_a_json_text(value: Any, text: str) -> None:
    built = strictly("pageView", external_data=value)
    assert built.event.wire()["external_data"] == text
    # Once, whatever it goes through.
    for event in (built.changed(built.event).event, rebuilt(built.payload, WEB).event):
        assert event == built.event == event.replace(external_data=value)


def test_what_json_cannot_say_is_left_out() -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    unsaid = [{"a": {1, 2}}, [float("nan")], {"a": float("inf")}, b"x", {(1, 2): 3}, "\ud800"]
    for value in (*unsaid, circle, deep):
        assert leniently("pageView", external_data=value).event.external_data is None


# -- size ------------------------------------------------------------------------------------


def test_an_event_beyond_32_kib_is_refused_at_the_call() -> None:
    small = strictly(order_id="1", external_data="x" * (MAX_BYTES - 1000))
    assert len(small.payload) <= MAX_BYTES
    for make in (strictly, leniently):
        with pytest.raises(EventError, match=r"^event: .*32 KiB.*external_data is largest"):
            make(order_id="1", external_data="x" * MAX_BYTES)


@pytest.mark.parametrize("lines", [235, 500, 501])
def test_an_order_too_large_with_its_products_goes_without_them(lines: int) -> None:
    known = {"price": "19.95", "quantity": 2, "category": "Kitchen and dining > Mugs and cups"}
    products = [known | {"product_id": f"{at:050}"} for at in range(lines)]
    built = leniently(order_id="1", products=products)
    assert built.event.products == ()
    assert built.event.order_id == "1"
    assert [field for field, _ in built.dropped] == ["products"]
    assert len(built.payload) <= MAX_BYTES
    with pytest.raises(EventError, match="products"):
        strictly(order_id="1", products=products)


def test_products_stay_where_the_event_is_too_large_without_them() -> None:
    with pytest.raises(EventError, match="external_data is largest"):
        leniently(order_id="1", external_data="x" * MAX_BYTES, products=[{"product_id": "mug"}])
