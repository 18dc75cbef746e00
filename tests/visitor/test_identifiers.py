"""Each identifier's accepted forms and what they become."""

from __future__ import annotations

import hashlib
import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroll_flask.errors import EventError
from adroll_flask.visitor.identifiers import (
    accept_adct,
    accept_device_id,
    accept_email,
    accept_user_id,
    derived_first_party_cookie,
    email_forms,
    is_public_ip,
    looks_like_email,
    new_first_party_cookie,
    normalise_first_party_cookie,
    normalise_ip,
)

HEX = "46d41c62e88bb2e267c1e15314bb8837"
ADDRESS = "ada@example.com"
SHA256 = hashlib.sha256(ADDRESS.encode()).hexdigest()
MD5 = hashlib.md5(ADDRESS.encode()).hexdigest()


# -- click id ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["click123", "a", "x" * 240, "~!$&'()*+,;=:@/?%20"])
def test_a_click_id_is_kept_as_it_is(value: str) -> None:
    assert accept_adct(value) == value


@pytest.mark.parametrize("value", ["", " a", "a ", "a b", "x" * 241, "a\n", "a\x00", "käse"])
def test_a_click_id_with_spaces_controls_or_too_many_characters_is_none(value: str) -> None:
    assert accept_adct(value) is None


# -- first-party cookie ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("-1667065540836", "-1667065540836"),
        ("-s2-1667065540836", "-1667065540836"),
        ("-1667065540836-", "-1667065540836"),
        ("-s2-1667065540836-", "-1667065540836"),
        ("-a_1730238675", "-a_1730238675"),
        ("-s2-a_1730238675-", "-a_1730238675"),
        ("-2022-10-29T17:45:40.836Z", "-1667065540836"),
        ("-2022-10-29T19:45:40.836+02:00", "-1667065540836"),
        ("-Sat, 29 Oct 2022 17:45:40 GMT", "-1667065540000"),
        ("-Sat Oct 29 2022 19:45:40 GMT+0200 (CEST)", "-1667065540000"),
        ("-Sat%20Oct%2029%202022%2019:45:40%20GMT+0200", "-1667065540000"),
    ],
)
def test_the_cookie_is_normalised_as_the_pixel_does(raw: str, normal: str) -> None:
    assert normalise_first_party_cookie(HEX + raw) == HEX + normal


def test_the_cookies_hex_digits_keep_their_case() -> None:
    value = f"{HEX.upper()}-1667065540836"
    assert normalise_first_party_cookie(value) == value


@pytest.mark.parametrize(
    "value",
    [
        # What other tags write, and keep for a year: the pixel takes it over.
        HEX,
        f"{HEX}-1667065540",
        f"{HEX}-166706554083",
        f"{HEX}-16670655408360",
        f"{HEX}-yesterday",
        "Zk3vQ9xYp2Lm8RtWc5HnBd7sJf4GaE6u-1667065540836",
        "GA1.2.1234567890.1667065540",
        "x",
        "!#$%&'()*+-./:<=>?@[]^_`{|}~",
        "%C3%A9t%C3%A9",
        f"{HEX}-Sat%20Foo%2029%202022%2019:45:40%20GMT",
        f"{HEX}-2022-13-29T19:45:40Z",
        f"{HEX}-1969-12-31T00:00:00Z",
        "x" * 80,
    ],
)
def test_a_cookie_of_any_other_form_is_kept_as_the_pixel_keeps_it(value: str) -> None:
    assert normalise_first_party_cookie(value) == value


@pytest.mark.parametrize(
    ("raw", "normal"), [("abc-s2-1-", "abc-1"), ("a-s2-s2-b--", "a-b"), (f"{HEX}-", HEX)]
)
def test_a_marker_and_trailing_hyphens_go_from_any_value(raw: str, normal: str) -> None:
    assert normalise_first_party_cookie(raw) == normal


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-",
        "--",
        "-s2-",
        "a b",
        "a;b",
        "a,b",
        'a"b',
        "a\\b",
        "\x00",
        "\x7f",
        "müller",
        f"{HEX}-1667065540836; Path=/",
        f"{HEX}-1667065540836\n",
        f"{HEX}-١٦٦٧٠٦٥٥٤٠٨٣٦",
        f"{HEX}-Sat Foo 29 2022 19:45:40 GMT",
        "x" * 81,
        f"{HEX}-" + "1" * 300,
    ],
)
def test_what_no_cookie_can_hold_or_nobody_would_write_is_none(value: str) -> None:
    assert normalise_first_party_cookie(value) is None


@given(st.text(st.characters(codec="ascii"), max_size=90))
def test_a_normal_form_is_its_own_normal_form(value: str) -> None:
    normal = normalise_first_party_cookie(value)
    if normal is not None:
        assert normalise_first_party_cookie(normal) == normal
        assert "-s2-" not in normal
        assert not normal.endswith("-")
        assert 0 < len(normal) <= 80


def test_a_new_cookie_carries_its_time_and_is_never_the_same() -> None:
    first, second = (new_first_party_cookie(1667065540.836) for _ in range(2))
    assert first != second
    assert re.fullmatch(r"[0-9a-f]{32}-1667065540836", first)


def test_a_derived_cookie_is_stable_keyed_and_well_formed() -> None:
    value = derived_first_party_cookie(b"key", "user_id:42")
    assert value == derived_first_party_cookie(b"key", "user_id:42")
    assert value != derived_first_party_cookie(b"other key", "user_id:42")
    assert value != derived_first_party_cookie(b"key", "user_id:43")
    assert normalise_first_party_cookie(value) == value
    assert value.endswith("-1577836800000")


# -- e-mail ------------------------------------------------------------------------------


def test_an_address_is_trimmed_lowered_and_hashed() -> None:
    assert email_forms("  Ada@Example.COM\n", ("sha256",)) == {"email_sha256": SHA256}


def test_each_form_that_may_leave_is_made_and_no_other() -> None:
    assert email_forms(ADDRESS, ("sha256", "md5", "plain")) == {
        "email": ADDRESS,
        "email_sha256": SHA256,
        "email_md5": MD5,
    }
    assert email_forms(ADDRESS, ("md5",)) == {"email_md5": MD5}
    assert email_forms(ADDRESS, ()) == {}


@pytest.mark.parametrize(
    "value", [["a@x.de"], ["a@x.de", "b@x.de"], ("a@x.de",), [SHA256, MD5], {"a@x.de": 1}, []]
)
def test_a_list_of_addresses_is_refused(value: object) -> None:
    with pytest.raises(EventError, match="one address per event") as caught:
        email_forms(value, ("sha256",))  # type: ignore[arg-type]
    assert caught.value.field == "email"
    assert "x.de" not in str(caught.value)


def test_hashes_made_elsewhere_are_recognised_and_passed_through() -> None:
    assert email_forms(SHA256.upper(), ("md5",)) == {"email_sha256": SHA256}
    assert email_forms(MD5, ("sha256",)) == {"email_md5": MD5}


@pytest.mark.parametrize("length", [16, 31, 33, 40, 63, 65, 128])
def test_a_hash_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(EventError, match="another length"):
        email_forms("a" * length, ("sha256",))


@pytest.mark.parametrize("value", ["bad", "a", "facade", "deadbeef", "0301234567", "4930123456789"])
def test_a_word_or_a_number_of_hex_digits_is_no_address_and_not_taken_for_a_hash(
    value: str,
) -> None:
    with pytest.raises(EventError, match="takes an e-mail address") as caught:
        email_forms(value, ("sha256",))
    assert "hash" not in str(caught.value)


@pytest.mark.parametrize("empty", [hashlib.sha256(b"").hexdigest(), hashlib.md5(b"").hexdigest()])
def test_the_hash_of_the_empty_text_is_refused(empty: str) -> None:
    with pytest.raises(EventError, match="empty text"):
        email_forms(empty, ("sha256",))


@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_the_empty_text_never_becomes_a_hash(value: str) -> None:
    with pytest.raises(EventError, match="empty"):
        email_forms(value, ("sha256", "md5", "plain"))


@pytest.mark.parametrize(
    "address",
    [
        "foo.@docomo.ne.jp",
        "foo..bar@docomo.ne.jp",
        "müller@bücher.example",
        "用户@例え.jp",
        "o'brien+tag@example.co.uk",
        "a@localhost",
        "x" * 242 + "@example.com",
    ],
)
def test_addresses_that_pedants_refuse_are_customers_too(address: str) -> None:
    assert accept_email(address) == address


def test_an_international_address_is_hashed_as_utf8_of_its_lower_case() -> None:
    expected = hashlib.sha256("müller@bücher.example".encode()).hexdigest()
    assert email_forms("MÜLLER@BÜCHER.example", ("sha256",)) == {"email_sha256": expected}


@pytest.mark.parametrize(
    "value",
    [
        "nobody",
        "@",
        "a@",
        "@b",
        "a@b@c",
        "a b@c.de",
        "a@c .de",
        "a\u00a0b@c.de",
        "a\x00@c.de",
        "a\x85@c.de",
        "\ud800@c.de",
        "x" * 243 + "@example.com",
    ],
)
def test_what_is_no_address_is_refused_and_never_told(value: str) -> None:
    with pytest.raises(EventError) as caught:
        email_forms(value, ("sha256",))
    assert caught.value.field == "email"
    assert len(value) < 4 or value not in str(caught.value)


@pytest.mark.parametrize("value", [7, [7], [None], {"a": 1}.items(), object()])
def test_an_email_that_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(EventError):
        email_forms(value, ("sha256",))  # type: ignore[arg-type]


# -- device id ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["EA7583CD-A667-48BC-B806-42ECB2B48606", "cdda802e-fb9c-47ad-9866-0794d394c912"]
)
def test_an_advertising_id_is_taken_in_any_case(value: str) -> None:
    assert accept_device_id(value) == value
    assert accept_device_id(uuid.UUID(value)) == value.lower()


def test_a_device_id_of_zeros_is_nobody() -> None:
    assert accept_device_id("00000000-0000-0000-0000-000000000000") is None
    assert accept_device_id(uuid.UUID(int=0)) is None


@pytest.mark.parametrize("value", ["", "abc", "ea7583cda66748bcb80642ecb2b48606", 7, None, b"x"])
def test_a_device_id_of_another_form_is_refused(value: object) -> None:
    with pytest.raises(EventError) as caught:
        accept_device_id(value)
    assert caught.value.field == "device_id"


# -- user id -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [("u-1", "u-1"), (" 7 ", "7"), (42, "42"), (0, "0"), (42.0, "42"), (1.5, "1.5"), ("ü", "ü")],
)
def test_a_user_id_is_a_text_or_a_number(value: object, text: str) -> None:
    assert accept_user_id(value) == text


def test_a_user_id_may_be_a_uuid() -> None:
    assert accept_user_id(uuid.UUID(int=1)) == "00000000-0000-0000-0000-000000000001"


@pytest.mark.parametrize(
    "value",
    ["", "  ", "x" * 257, "a\nb", "\ud800", True, None, float("nan"), float("inf"), [], 10**300],
)
def test_another_user_id_is_refused(value: object) -> None:
    with pytest.raises(EventError) as caught:
        accept_user_id(value)
    assert caught.value.field == "user_id"


def test_an_address_is_told_from_other_ids() -> None:
    assert looks_like_email("ada@example.com")
    assert not any(map(looks_like_email, ("ada", "ada@work", "@ada", "a@b c.de", "42")))


# -- address -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("203.0.113.9", "203.0.113.9"),
        (" 203.0.113.9 ", "203.0.113.9"),
        ("203.0.113.9:51234", "203.0.113.9"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:443", "203.0.113.9"),
    ],
)
def test_an_ip_loses_port_brackets_zone_and_ipv6_clothes(text: str, normal: str) -> None:
    assert normalise_ip(text) == normal


@pytest.mark.parametrize(
    "text", ["", "unknown", "203.0.113", "203.0.113.256", "1.2.3.4:x", "[::1", "[::1]x", "a.b.c.d"]
)
def test_what_is_no_ip_is_refused(text: str) -> None:
    with pytest.raises(EventError) as caught:
        normalise_ip(text)
    assert caught.value.field == "ip"


def test_public_addresses_are_told_from_private_ones() -> None:
    assert is_public_ip("8.8.8.8")
    assert is_public_ip("[2a00:1450::1]:443")
    assert not any(map(is_public_ip, ("10.0.0.1", "127.0.0.1", "::1", "fe80::1%eth0", "nonsense")))
