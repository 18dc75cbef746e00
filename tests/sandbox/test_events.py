"""What the event API asks of each field of an event."""

from __future__ import annotations

import copy
from typing import Any

import iso4217
import pytest

from adroll_flask.sandbox import event_checks
from adroll_flask.sandbox.value_checks import CURRENCIES
from tests.support.sandbox_helpers import COOKIE, LEAST, NOW, Api, full, spoiled

IDS = "identifiers"
OF_EVENT = "event_attributes"
PRODUCT = "event_attributes.products[0]"
SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
WRONG_ADDRESSES = ("", "ann", "@shop.test", "ann@", "a@b@c", "a b@c", "a@b\n", "a" * 255 + "@b")
WRONG_AMOUNTS = ("", "-1", "1,50", "1.", ".5", "1e3", "01", "€5", "5 EUR", "NaN", " 1", "٣")
WRONG_EIDS = ("", "abc", "sandboxadvertisable01x", "A" * 65, "A-" * 11, 7, "OTHER00000000000000001")
WRONG_JSON = ("", "{", "campaign", "{'a': 1}", '{"a": NaN}', '"' + "a" * 65536 + '"', "[" * 9999)
WRONG_TEXTS = ("", " ", "a\x00b", "a" * 2049, 1001, None, "\ud800")
#: What each field does not take, by what it is; other types first.
REFUSED: dict[str, tuple[tuple[str, ...], tuple[Any, ...]]] = {
    "null and other types": (
        tuple(sorted(set(full()) - {IDS, OF_EVENT})),
        (None, [], {}, True),
    ),
    "an id of the account": (("advertisable_eid", "pixel_eid"), WRONG_EIDS),
    "one of thirteen names": (
        ("event_name",),
        ("", "Purchase", "add_to_cart", "custom", "pageview", 3),
    ),
    "a URL with its scheme and host": (
        ("page_location",),
        (
            *("", "/thanks", "//shop.test/", "shop.test/thanks", "ftp://shop.test/", "https://"),
            *(
                "javascript:alert(1)",
                "https:///thanks",
                "https://shop.test:99999/",
                "https://[::1/",
            ),
        ),
    ),
    "a URL as it travels": (
        ("page_location",),
        (
            *("https://shop.test/a b", "https://shop.test/ü", "https://shop.test/\n"),
            *("https://shop.test/%zz", "https://shop.test/?q=100%", 'https://shop.test/"><script>'),
            *("https://shop.test/" + "a" * 8192,),
        ),
    ),
    "one bare address": (
        ("ip",),
        (
            *("", "localhost", "94.130.12", "94.130.12.7:443", "94.130.12.07", "094.130.12.7"),
            *("[2a01:4f8::1]", "fe80::1%eth0", "94.130.12.7, 10.0.0.1", " 94.130.12.7", 1586631687),
        ),
    ),
    "plain text": (("user_agent",), ("", "  ", "a\nb", "a" * 4097, 7)),
    "seconds since the epoch, until now": (
        ("timestamp",),
        ("1700000000", 0, -5, 946684800, 1e300, NOW + 3601),
    ),
    "an amount": (
        ("conversion_value", f"{OF_EVENT}.total"),
        (*WRONG_AMOUNTS, -0.01, 1e16),
    ),
    "a price": ((f"{PRODUCT}.price",), ("", "-1", "41,15", -1, None, "free")),
    "an ISO code": (("currency",), ("", "eur", "EURO", "EU", "QQQ", "€", "978")),
    "a click id": ((f"{IDS}.adct",), ("", "a b", "a\n", "é", "a" * 241, 5, None)),
    "a cookie's value": (
        (f"{IDS}.first_party_cookie",),
        ("", "a b", "a;b", "a,b", 'a"b', "a\\b", "é", COOKIE + "\n", "x" * 81, 7, [COOKIE], None),
    ),
    "an e-mail address": ((f"{IDS}.email",), (*WRONG_ADDRESSES, [], 7)),
    "a hash of something": (
        (f"{IDS}.email_sha256",),
        ("", "1" * 63, "1" * 65, "g" + "1" * 63, [], 7, "ann@shop.test", SHA256_OF_NOTHING),
    ),
    "an MD5 of something": (
        (f"{IDS}.email_md5",),
        (
            *("", "1" * 31, "1" * 33, "g" + "1" * 31, [], 7, "ann@shop.test"),
            *("D41D8CD98F00B204E9800998ECF8427E",),
        ),
    ),
    "a UUID that is not all zeros": (
        (f"{IDS}.device_id",),
        (
            *("", "6d92078a82464ba4ae5b76104861e7dc", "{6D92078A-8246-4BA4-AE5B-76104861E7DC}", 7),
            *("00000000-0000-0000-0000-000000000000",),
        ),
    ),
    "a text": (
        (
            *(
                "device_os",
                "device_type",
                "package_app_name",
                "package_app_version",
                f"{IDS}.user_id",
            ),
            *(f"{OF_EVENT}.{name}" for name in ("order_id", "user_id", "keywords")),
            *(f"{PRODUCT}.{name}" for name in ("product_id", "product_group", "category")),
        ),
        WRONG_TEXTS,
    ),
    "an object of attributes": ((OF_EVENT,), (None, [], "order 1001", 5)),
    "an array of products": (
        (f"{OF_EVENT}.products",),
        (None, {}, "mug", [{"product_id": "mug"}] * 1001),
    ),
    "a product that says something": ((PRODUCT,), (None, "mug", {}, ["mug"])),
    "a positive whole number": ((f"{PRODUCT}.quantity",), (0, -1, 1.5, 2.0, "3", True, None)),
    "a string that holds JSON": (("external_data",), WRONG_JSON),
    "no key that it does not know": (
        ("advertisable", f"{IDS}.cookie", f"{OF_EVENT}.orderId", f"{PRODUCT}.sku"),
        ("x",),
    ),
}
#: What they do take.
TAKEN: dict[str, tuple[Any, ...]] = {
    "event_name": event_checks.EVENT_NAMES,
    "page_location": (
        *("https://shop.test", "http://127.0.0.1:5000/?a[]=1|2#top"),
        *("https://[2a01:4f8::1]:8443/%C3%BC?adct=a+b%20c", "https://xn--bcher-kva.example/"),
    ),
    "ip": ("94.130.12.7", "2a01:4f8::1", "::ffff:94.130.12.7"),
    "timestamp": (NOW + 60, NOW - 30 * 86400 + 0.125),
    "conversion_value": ("0", "0.00", "123.45", "1000000", 123.45, 7, 0),
    # The last one is of AdRoll's samples.
    f"{IDS}.first_party_cookie": (
        *(COOKIE[:32], COOKIE[:-3], "GA1.2.3.4", "x" * 80, "~!#"),
        *(COOKIE[:33] + "a_1730238675",),
    ),
    f"{IDS}.email": ("foo.@docomo.ne.jp", "ü@bücher.test"),
    f"{IDS}.email_sha256": ("0aF" + "1" * 61,),
    f"{IDS}.email_md5": ("0aF" + "1" * 29,),
}
#: What AdRoll's words say of some mistakes.
ANSWERED = [
    (f"{OF_EVENT}.orderid", "1", "did you mean order_id?"),
    ("event_name", "add_to_cart", "did you mean addToCart?"),
    ("timestamp", int(NOW * 1000), "milliseconds"),
    ("timestamp", NOW * 1000 + 0.5, "milliseconds"),
    (f"{IDS}.first_party_cookie", COOKIE[:33] + "s2-1667065540836", "normalised"),
    (f"{IDS}.first_party_cookie", COOKIE[:33] + "1667065540836-", "normalised"),
    (f"{IDS}.first_party_cookie", COOKIE[:33] + "s2-", "normalised"),
    ("external_data", {"campaign": 7}, "not the object itself"),
]


@pytest.mark.parametrize("name", event_checks.REQUIRED)
def test_required_fields_are_required(api: Api, name: str) -> None:
    event = full()
    del event[name]
    assert api.fields(event) == [name]


@pytest.mark.parametrize("event", [None, "text", 1, [], [LEAST]])
def test_an_event_is_an_object(api: Api, event: Any) -> None:
    assert api.fields(event) == [""]


@pytest.mark.parametrize("takes", REFUSED)
def test_what_a_field_does_not_take_is_refused_by_its_name(api: Api, takes: str) -> None:
    paths, values = REFUSED[takes]
    for path in paths:
        for value in values:
            assert api.fields(spoiled(path, value)) == [path], value


@pytest.mark.parametrize("path", TAKEN)
def test_what_a_field_takes_has_no_fault(api: Api, path: str) -> None:
    for value in TAKEN[path]:
        assert api.fields(spoiled(path, value)) == [], value


def test_there_are_thirteen_events() -> None:
    assert len(event_checks.EVENT_NAMES) == 13


@pytest.mark.parametrize(("path", "value", "said"), ANSWERED)
def test_a_mistake_that_is_known_is_answered_in_words(
    api: Api, path: str, value: Any, said: str
) -> None:
    assert said in api.post([spoiled(path, value)]).get_json()["errors"][0]["message"]


def test_the_list_of_currencies_is_the_standards() -> None:
    assert {currency.code.upper() for currency in iso4217.Currency} == CURRENCIES


@pytest.mark.parametrize("value", [None, [], "click123", {}, {"user_id": "7", "email": "a@b.c"}])
def test_a_click_id_or_a_first_party_cookie_is_required(api: Api, value: Any) -> None:
    assert api.fields({**LEAST, "identifiers": value}) == ["identifiers"]


@pytest.mark.parametrize("kind", ["email", "email_sha256", "email_md5"])
def test_a_list_of_addresses_or_hashes_is_refused(api: Api, kind: str) -> None:
    one = full()["identifiers"][kind]
    for value in ([one], [one, one]):
        assert api.fields(spoiled(f"identifiers.{kind}", value)) == [f"identifiers.{kind}"]


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
