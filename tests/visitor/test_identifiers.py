"""Each identifier's accepted forms and what they become."""

import hashlib
import re
import uuid
from typing import Any

import pytest

from adroll_flask import EventError
from adroll_flask.visitor import identifiers
from adroll_flask.visitor.identifiers import accept_device_id, accept_user_id, normalise_ip

HEX = "46d41c62e88bb2e267c1e15314bb8837"
ADDRESS = "ada@example.com"
SHA256 = hashlib.sha256(ADDRESS.encode()).hexdigest()
MD5 = hashlib.md5(ADDRESS.encode()).hexdigest()
BOTH = {"email_sha256": SHA256, "email_md5": MD5}


# -- click id ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        *((value, True) for value in ("click123", "a", "x" * 240, "~!$&'()*+,;=:@/?%20")),
        *((value, False) for value in ("", " a", "a ", "a b", "x" * 241, "a\n", "a\x00", "käse")),
    ],
)
def test_a_click_id_is_kept_as_it_is_or_none(value: str, taken: bool) -> None:
    assert identifiers.accept_adct(value) == (value if taken else None)


# -- first-party cookie ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("-s2-1667065540836", "-1667065540836"),
        ("-1667065540836-", "-1667065540836"),
        ("-s2-a_1730238675-", "-a_1730238675"),
        ("-2022-10-29T17:45:40.836Z", "-1667065540836"),
        ("-2022-10-29T19:45:40.836+02:00", "-1667065540836"),
        ("-Sat, 29 Oct 2022 17:45:40 GMT", "-1667065540000"),
        ("-Sat Oct 29 2022 19:45:40 GMT+0200 (CEST)", "-1667065540000"),
        ("-Sat%20Oct%2029%202022%2019:45:40%20GMT+0200", "-1667065540000"),
        ("-", ""),
        ("-s2-s2-b--", "-b"),
        ("-s2-a-s2-b", "-a-b"),
        # What other tags write, and keep for a year: the pixel takes it over.
        *((same, same) for same in ("", "-1667065540836", "-a_1730238675", "-1667065540", "-x")),
        *((same, same) for same in ("-2022-13-29T19:45:40Z", "-1969-12-31T00:00:00Z")),
        ("-Sat%20Foo%2029%202022%2019:45:40%20GMT", "-Sat%20Foo%2029%202022%2019:45:40%20GMT"),
    ],
)
def test_the_cookie_is_normalised_as_the_pixel_does(raw: str, normal: str) -> None:
    for digits in (HEX, HEX.upper()):
        assert identifiers.normalise_first_party_cookie(digits + raw) == digits + normal


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        *((value, True) for value in ("GA1.2.1234567890.1667065540", "x", "x" * 80)),
        ("!#$%&'()*+-./:<=>?@[]^_`{|}~", True),
        *((value, False) for value in ("", "-", "--", "-s2-", "a b", "a;b", "a,b", 'a"b', "a\\b")),
        *((value, False) for value in ("\x00", "\x7f", "müller", "x" * 81)),
        (f"{HEX}-1667065540836; Path=/", False),
        (f"{HEX}-1667065540836\n", False),
        (f"{HEX}-١٦٦٧٠٦٥٥٤٠٨٣٦", False),
        (f"{HEX}-Sat Foo 29 2022 19:45:40 GMT", False),
        (f"{HEX}-" + "1" * 300, False),
    ],
)
def test_any_value_that_a_cookie_can_hold_is_kept(value: str, kept: bool) -> None:
    assert identifiers.normalise_first_party_cookie(value) == (value if kept else None)


def test_a_new_cookie_carries_its_time_and_is_never_the_same() -> None:
    first, second = (identifiers.new_first_party_cookie(1667065540.836) for _ in range(2))
    assert first != second
    assert re.fullmatch(r"[0-9a-f]{32}-1667065540836", first)


# -- e-mail ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "forms", "made"),
    [
        ("  Ada@Example.COM\n", ("sha256",), {"email_sha256": SHA256}),
        (ADDRESS, ("sha256", "md5", "plain"), {"email": ADDRESS, **BOTH}),
        (ADDRESS, ("md5",), {"email_md5": MD5}),
        (ADDRESS, (), {}),
        # Made elsewhere.
        (SHA256.upper(), ("md5",), {"email_sha256": SHA256}),
        (MD5, ("sha256",), {"email_md5": MD5}),
        ("MÜLLER@BÜCHER.example", ("plain",), {"email": "müller@bücher.example"}),
    ],
)
def test_allowed_forms_alone_are_made(
    given_: str, forms: tuple[str, ...], made: dict[str, str]
) -> None:
    assert identifiers.email_forms(given_, forms) == made


@pytest.mark.parametrize(
    "address",
    [
        *("foo.@docomo.ne.jp", "foo..bar@docomo.ne.jp", "müller@bücher.example", "用户@例え.jp"),
        *("o'brien+tag@example.co.uk", "a@localhost", "x" * 242 + "@example.com"),
    ],
)
def test_addresses_that_pedants_refuse_are_customers_too(address: str) -> None:
    assert identifiers.accept_email(address) == address


@pytest.mark.parametrize(
    ("value", "told"),
    [
        *((value, "one '@' and text") for value in ("nobody", "@", "a@", "@b", "a@b@c")),
        *((value, "without spaces") for value in ("a b@c.de", "a@c .de", "a\u00a0b@c.de")),
        *((value, "without spaces") for value in ("a\x00@c.de", "a\x85@c.de", "\ud800@c.de")),
        ("x" * 243 + "@example.com", "at most 254"),
        *(("a" * length, "or a hash of one") for length in (16, 31, 33, 40, 63, 65, 128)),
        *((make(b"").hexdigest(), "empty text") for make in (hashlib.sha256, hashlib.md5)),
        *((value, "one '@' and text") for value in ("", " ", "\t\n")),
        *((value, "one address per event") for value in (["a@x.de"], ("a@x.de",), [], 7, object())),
    ],
)
def test_what_is_no_address_is_refused_and_never_told(value: Any, told: str) -> None:
    with pytest.raises(EventError, match=f"^email: .*{told}") as caught:
        identifiers.email_forms(value, ("sha256", "md5", "plain"))
    assert len(str(value)) < 4 or str(value) not in str(caught.value)


ZEROS = uuid.UUID(int=0)
IDFA = "EA7583CD-A667-48BC-B806-42ECB2B48606"


@pytest.mark.parametrize(
    ("accept", "value", "kept"),
    [
        (accept_device_id, IDFA, IDFA),
        (accept_device_id, IDFA.lower(), IDFA.lower()),
        (accept_device_id, uuid.UUID(IDFA), IDFA.lower()),
        (accept_device_id, ZEROS, None),
        (accept_device_id, str(ZEROS), None),
        *((accept_user_id, value, value.strip()) for value in ("u-1", " 7 ", "ü")),
        (accept_user_id, 42, "42"),
        (accept_user_id, 0, "0"),
        (accept_user_id, 42.0, "42"),
        (accept_user_id, 1.5, "1.5"),
        (accept_user_id, ZEROS, str(ZEROS)),
        (normalise_ip, " 203.0.113.9 ", "203.0.113.9"),
        (normalise_ip, "203.0.113.9:51234", "203.0.113.9"),
        (normalise_ip, "2001:DB8::1", "2001:db8::1"),
        (normalise_ip, "[2001:db8::1]", "2001:db8::1"),
        (normalise_ip, "fe80::1%eth0", "fe80::1"),
        (normalise_ip, "[fe80::1%25eth0]:80", "fe80::1"),
        (normalise_ip, "[::ffff:203.0.113.9]:443", "203.0.113.9"),
        (normalise_ip, "[2001:0db8:0001:0002:0003:0004:0005:0006]:65535", "2001:db8:1:2:3:4:5:6"),
    ],
)
def test_ids_and_addresses_have_one_form(accept: Any, value: object, kept: str | None) -> None:
    assert accept(value) == kept


@pytest.mark.parametrize(
    ("accept", "field", "value"),
    [
        *((accept_device_id, "device_id", value) for value in ("", "abc", 7, None, b"x")),
        (accept_device_id, "device_id", "ea7583cda66748bcb80642ecb2b48606"),
        *((accept_user_id, "user_id", value) for value in ("", "  ", "x" * 257, "a\nb", "\ud800")),
        *((accept_user_id, "user_id", value) for value in (True, None, float("nan"), [1])),
        pytest.param(accept_user_id, "user_id", 10**300, id="huge"),
        *((normalise_ip, "ip", value) for value in ("", "unknown", "203.0.113", "203.0.113.256")),
        *((normalise_ip, "ip", value) for value in ("1.2.3.4:x", "[::1", "[::1]x", "a.b.c.d")),
    ],
)
def test_other_ids_and_addresses_are_refused(accept: Any, field: str, value: object) -> None:
    with pytest.raises(EventError, match=f"^{field}: "):
        accept(value)


def test_an_address_is_told_from_other_ids() -> None:
    assert identifiers.looks_like_email("ada@example.com")
    assert not any(map(identifiers.looks_like_email, ("ada", "ada@work", "@ada", "a@b c.de", "42")))


def test_public_addresses_are_told_from_private_ones() -> None:
    assert identifiers.is_public_ip("8.8.8.8")
    assert identifiers.is_public_ip("[2a00:1450::1]:443")
    assert not any(
        map(identifiers.is_public_ip, ("10.0.0.1", "127.0.0.1", "::1", "fe80::1%eth0", "nonsense"))
    )
