"""What the event API asks of each field of an event."""

from __future__ import annotations

import copy
from typing import Any

import iso4217
import pytest

from adroll_flask.sandbox import event_checks
from adroll_flask.sandbox.value_checks import CURRENCIES
from tests.support.sandbox_helpers import COOKIE, LEAST, NOW, Api, full, spoiled


@pytest.mark.parametrize("name", event_checks.REQUIRED)
def test_required_fields_are_required(api: Api, name: str) -> None:
    event = full()
    del event[name]
    assert api.fields(event) == [name]


@pytest.mark.parametrize("event", [None, "text", 1, [], [LEAST]])
def test_an_event_is_an_object(api: Api, event: Any) -> None:
    assert api.fields(event) == [""]


@pytest.mark.parametrize("name", sorted(set(full()) - {"identifiers", "event_attributes"}))
@pytest.mark.parametrize("value", [None, [], {}, True])
def test_null_and_other_types_are_refused_everywhere(api: Api, name: str, value: Any) -> None:
    assert api.fields(spoiled(name, value)) == [name]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("advertisable", "advertisable"),
        ("identifiers.cookie", "identifiers.cookie"),
        ("event_attributes.orderId", "event_attributes.orderId"),
        ("event_attributes.products[0].sku", "event_attributes.products[0].sku"),
    ],
)
def test_unknown_keys_are_refused(api: Api, path: str, shown: str) -> None:
    assert api.fields(spoiled(path, "x")) == [shown]


def test_an_unknown_key_is_answered_with_the_nearest_known_one(api: Api) -> None:
    answer = api.post([spoiled("event_attributes.orderid", "1")])
    assert "did you mean order_id?" in answer.get_json()["errors"][0]["message"]


@pytest.mark.parametrize("name", ["advertisable_eid", "pixel_eid"])
@pytest.mark.parametrize("value", ["", "abc", "sandboxadvertisable01x", "A" * 65, "A-" * 11, 7])
def test_eids_are_upper_case_letters_and_digits(api: Api, name: str, value: Any) -> None:
    assert api.fields(spoiled(name, value)) == [name]


@pytest.mark.parametrize("name", ["advertisable_eid", "pixel_eid"])
def test_eids_are_the_accounts(api: Api, name: str) -> None:
    assert api.fields(spoiled(name, "OTHER00000000000000001")) == [name]


@pytest.mark.parametrize("name", event_checks.EVENT_NAMES)
def test_all_thirteen_names_are_taken(api: Api, name: str) -> None:
    assert len(event_checks.EVENT_NAMES) == 13
    assert api.fields(spoiled("event_name", name)) == []


@pytest.mark.parametrize("name", ["", "Purchase", "add_to_cart", "custom", "pageview", 3])
def test_other_names_are_refused(api: Api, name: Any) -> None:
    assert api.fields(spoiled("event_name", name)) == ["event_name"]


def test_a_name_of_another_product_is_answered_with_ours(api: Api) -> None:
    answer = api.post([spoiled("event_name", "add_to_cart")])
    assert "did you mean addToCart?" in answer.get_json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "/thanks",
        "//shop.test/",
        "shop.test/thanks",
        "ftp://shop.test/",
        "javascript:alert(1)",
        "https://",
        "https:///thanks",
        "https://shop.test:99999/",
        "https://[::1/",
        "https://shop.test/a b",
        "https://shop.test/ü",
        "https://shop.test/\n",
        "https://shop.test/%zz",
        "https://shop.test/?q=100%",
        'https://shop.test/"><script>',
        "https://shop.test/" + "a" * 8192,
    ],
)
def test_page_location_is_a_full_url(api: Api, value: str) -> None:
    assert api.fields(spoiled("page_location", value)) == ["page_location"]


@pytest.mark.parametrize(
    "value",
    [
        "https://shop.test",
        "http://127.0.0.1:5000/?a[]=1|2#top",
        "https://[2a01:4f8::1]:8443/%C3%BC?adct=a+b%20c",
        "https://xn--bcher-kva.example/",
    ],
)
def test_full_urls_are_taken(api: Api, value: str) -> None:
    assert api.fields(spoiled("page_location", value)) == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "localhost",
        "94.130.12",
        "94.130.12.7:443",
        "94.130.12.07",
        "094.130.12.7",
        "[2a01:4f8::1]",
        "fe80::1%eth0",
        "94.130.12.7, 10.0.0.1",
        " 94.130.12.7",
        1586631687,
    ],
)
def test_ip_is_one_bare_address(api: Api, value: Any) -> None:
    assert api.fields(spoiled("ip", value)) == ["ip"]


@pytest.mark.parametrize("value", ["94.130.12.7", "2a01:4f8::1", "::ffff:94.130.12.7"])
def test_addresses_of_both_kinds_are_taken(api: Api, value: str) -> None:
    assert api.fields(spoiled("ip", value)) == []


@pytest.mark.parametrize("value", ["", "  ", "a\nb", "a" * 4097, 7])
def test_user_agent_is_plain_text(api: Api, value: Any) -> None:
    assert api.fields(spoiled("user_agent", value)) == ["user_agent"]


@pytest.mark.parametrize("value", ["1700000000", 0, -5, 946684800, 1e300])
def test_timestamp_is_seconds_since_the_epoch(api: Api, value: Any) -> None:
    assert api.fields(spoiled("timestamp", value)) == ["timestamp"]


@pytest.mark.parametrize("value", [int(NOW * 1000), NOW * 1000 + 0.5])
def test_timestamp_is_not_milliseconds(api: Api, value: float) -> None:
    answer = api.post([spoiled("timestamp", value)])
    assert "milliseconds" in answer.get_json()["errors"][0]["message"]


def test_timestamp_is_not_in_the_future(api: Api) -> None:
    assert api.fields(spoiled("timestamp", NOW + 3601)) == ["timestamp"]
    assert api.fields(spoiled("timestamp", NOW + 60)) == []


def test_timestamp_may_be_days_old_and_have_decimals(api: Api) -> None:
    assert api.fields(spoiled("timestamp", NOW - 30 * 86400 + 0.125)) == []


@pytest.mark.parametrize("path", ["conversion_value", "event_attributes.total"])
@pytest.mark.parametrize(
    "value",
    ["", "-1", "1,50", "1.", ".5", "1e3", "01", "€5", "5 EUR", "NaN", " 1", -0.01, 1e16, "٣"],
)
def test_amounts_are_decimal_texts_or_numbers(api: Api, path: str, value: Any) -> None:
    assert api.fields(spoiled(path, value)) == [path]


@pytest.mark.parametrize("value", ["0", "0.00", "123.45", "1000000", 123.45, 7, 0])
def test_amounts_in_order_are_taken(api: Api, value: Any) -> None:
    assert api.fields(spoiled("conversion_value", value)) == []


@pytest.mark.parametrize("value", ["", "eur", "EURO", "EU", "QQQ", "€", "978"])
def test_currency_is_an_iso_code(api: Api, value: str) -> None:
    assert api.fields(spoiled("currency", value)) == ["currency"]


def test_the_list_of_currencies_is_the_standards() -> None:
    assert {currency.code.upper() for currency in iso4217.Currency} == CURRENCIES


@pytest.mark.parametrize("value", [None, [], "click123", {}, {"user_id": "7", "email": "a@b.c"}])
def test_a_click_id_or_a_first_party_cookie_is_required(api: Api, value: Any) -> None:
    assert api.fields({**LEAST, "identifiers": value}) == ["identifiers"]


@pytest.mark.parametrize("value", ["", "a b", "a\n", "é", "a" * 241, 5, None])
def test_adct_is_printable_ascii(api: Api, value: Any) -> None:
    assert api.fields(spoiled("identifiers.adct", value)) == ["identifiers.adct"]


@pytest.mark.parametrize(
    "value",
    ["", "a b", "a;b", "a,b", 'a"b', "a\\b", "é", COOKIE + "\n", "x" * 81, 7, [COOKIE], None],
)
def test_first_party_cookie_is_a_cookies_value(api: Api, value: Any) -> None:
    path = "identifiers.first_party_cookie"
    assert api.fields(spoiled(path, value)) == [path]


@pytest.mark.parametrize("value", [COOKIE[:32], COOKIE[:-3], "GA1.2.3.4", "x" * 80, "~!#"])
def test_first_party_cookies_that_the_pixel_keeps_are_taken(api: Api, value: str) -> None:
    assert api.fields(spoiled("identifiers.first_party_cookie", value)) == []


@pytest.mark.parametrize("rest", ["s2-1667065540836", "1667065540836-", "s2-"])
def test_first_party_cookie_is_normalised(api: Api, rest: str) -> None:
    answer = api.post([spoiled("identifiers.first_party_cookie", COOKIE[:33] + rest)])
    assert "normalised" in answer.get_json()["errors"][0]["message"]


def test_first_party_cookies_of_adrolls_samples_are_taken(api: Api) -> None:
    value = COOKIE[:33] + "a_1730238675"
    assert api.fields(spoiled("identifiers.first_party_cookie", value)) == []


@pytest.mark.parametrize(
    "value", ["", "ann", "@shop.test", "ann@", "a@b@c", "a b@c", "a@b\n", "a" * 255 + "@b", [], 7]
)
def test_email_is_an_address(api: Api, value: Any) -> None:
    assert api.fields(spoiled("identifiers.email", value)) == ["identifiers.email"]


@pytest.mark.parametrize("value", ["foo.@docomo.ne.jp", "ü@bücher.test"])
def test_addresses_that_pedants_refuse_are_taken(api: Api, value: Any) -> None:
    assert api.fields(spoiled("identifiers.email", value)) == []


@pytest.mark.parametrize(("name", "length"), [("email_sha256", 64), ("email_md5", 32)])
def test_hashes_have_their_length_in_hex(api: Api, name: str, length: int) -> None:
    good, path = "0aF" + "1" * (length - 3), f"identifiers.{name}"
    assert api.fields(spoiled(path, good)) == []
    bad: list[Any] = ["", good[1:], good + "0", "g" + good[1:], [], 7]
    for value in [*bad, "ann@shop.test"]:
        assert api.fields(spoiled(path, value)) == [path], value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("email_sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("email_md5", "D41D8CD98F00B204E9800998ECF8427E"),
    ],
)
def test_the_hash_of_nothing_identifies_nobody(api: Api, name: str, value: str) -> None:
    assert api.fields(spoiled(f"identifiers.{name}", value)) == [f"identifiers.{name}"]


@pytest.mark.parametrize("kind", ["email", "email_sha256", "email_md5"])
def test_a_list_of_addresses_or_hashes_is_refused(api: Api, kind: str) -> None:
    one = full()["identifiers"][kind]
    for value in ([one], [one, one]):
        assert api.fields(spoiled(f"identifiers.{kind}", value)) == [f"identifiers.{kind}"]


@pytest.mark.parametrize(
    "value", ["", "6d92078a82464ba4ae5b76104861e7dc", "{6D92078A-8246-4BA4-AE5B-76104861E7DC}", 7]
)
def test_device_id_is_a_uuid(api: Api, value: Any) -> None:
    assert api.fields(spoiled("identifiers.device_id", value)) == ["identifiers.device_id"]


def test_device_id_is_not_all_zeros(api: Api) -> None:
    value = "00000000-0000-0000-0000-000000000000"
    assert api.fields(spoiled("identifiers.device_id", value)) == ["identifiers.device_id"]


@pytest.mark.parametrize(
    "path",
    [
        "identifiers.user_id",
        "event_attributes.order_id",
        "event_attributes.user_id",
        "event_attributes.keywords",
        "event_attributes.products[0].product_id",
        "event_attributes.products[0].product_group",
        "event_attributes.products[0].category",
        "device_os",
        "device_type",
        "package_app_name",
        "package_app_version",
    ],
)
@pytest.mark.parametrize("value", ["", " ", "a\x00b", "a" * 2049, 1001, None, "\ud800"])
def test_texts_are_texts(api: Api, path: str, value: Any) -> None:
    assert api.fields(spoiled(path, value)) == [path]


@pytest.mark.parametrize("value", [None, [], "order 1001", 5])
def test_event_attributes_are_an_object(api: Api, value: Any) -> None:
    assert api.fields(spoiled("event_attributes", value)) == ["event_attributes"]


@pytest.mark.parametrize("value", [None, {}, "mug", [{"product_id": "mug"}] * 1001])
def test_products_are_an_array(api: Api, value: Any) -> None:
    path = "event_attributes.products"
    assert api.fields(spoiled(path, value)) == [path]


@pytest.mark.parametrize("value", [None, "mug", {}, ["mug"]])
def test_a_product_is_an_object_that_says_something(api: Api, value: Any) -> None:
    path = "event_attributes.products[0]"
    assert api.fields(spoiled(path, value)) == [path]


@pytest.mark.parametrize("value", ["", "-1", "41,15", -1, None, "free"])
def test_a_price_is_an_amount(api: Api, value: Any) -> None:
    path = "event_attributes.products[0].price"
    assert api.fields(spoiled(path, value)) == [path]


@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, "3", True, None])
def test_a_quantity_is_a_positive_whole_number(api: Api, value: Any) -> None:
    path = "event_attributes.products[0].quantity"
    assert api.fields(spoiled(path, value)) == [path]


@pytest.mark.parametrize(
    "value", ["", "{", "campaign", "{'a': 1}", '{"a": NaN}', '"' + "a" * 65536 + '"', "[" * 9999]
)
def test_external_data_is_a_string_that_holds_json(api: Api, value: str) -> None:
    assert api.fields(spoiled("external_data", value)) == ["external_data"]


def test_external_data_is_not_the_object_itself(api: Api) -> None:
    answer = api.post([spoiled("external_data", {"campaign": 7})])
    assert "not the object itself" in answer.get_json()["errors"][0]["message"]


def test_every_fault_of_an_event_is_named_at_once(api: Api) -> None:
    event = {**spoiled("identifiers.device_id", "x"), "ip": "x", "currency": "eur"}
    assert set(api.fields(event)) == {"identifiers.device_id", "ip", "currency"}


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"ip": "fd00::1"}, "not a public address"),
        ({"ip": "10.1.2.3"}, "not a public address"),
        ({"ip": "::ffff:94.130.12.7"}, "written as IPv6"),
        ({"event_name": "purchase"}, "without conversion_value"),
        ({"event_name": "purchase"}, "without event_attributes.order_id"),
        ({"conversion_value": "5"}, "no currency"),
    ],
)
def test_what_is_taken_but_looks_wrong_is_warned_about(
    api: Api, change: dict[str, Any], warning: str
) -> None:
    assert api.post([{**LEAST, **change}]).status_code == 200
    (record,) = api.sandbox.state.events()
    assert any(warning in said for said in record["warnings"])


def test_an_event_in_order_has_no_warning(api: Api) -> None:
    api.post([full()])
    assert api.sandbox.state.events()[0]["warnings"] == []


def test_judging_leaves_the_event_as_it_was(api: Api) -> None:
    event = full()
    before = copy.deepcopy(event)
    event_checks.faults(event, account=event_checks.Account(), now=NOW)
    assert event == before
