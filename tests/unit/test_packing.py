"""A visitor in few bytes, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroll_flask.packing import TOKEN_BYTES, Fields, pack, unpack

PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)

FIELDS = st.builds(
    Fields,
    adct=st.none() | PRINTABLE.filter(lambda text: len(text) <= 240),
    adct_at=st.just(1_700_000_000.0),
    adct_source=st.sampled_from([None, "url", "kit"]),
    first_party_cookie=st.none()
    | st.just("46d41c62e88bb2e267c1e15314bb8837-1667065540836")
    | st.just("46D41C62E88BB2E267C1E15314BB8837-1667065540836")
    | st.just("46d41c62e88bb2e267c1e15314bb8837-a_1730238675"),
    first_party_cookie_source=st.sampled_from([None, "pixel", "browser", "server"]),
    consent=st.sampled_from([None, True, False]),
    replaced=st.lists(st.binary(min_size=4, max_size=4), max_size=3).map(tuple),
    ip=st.none() | st.ip_addresses().map(str),
    host=st.none() | st.just("www.shop.example:8443"),
)


@given(FIELDS)
def test_what_is_packed_comes_back(fields: Fields) -> None:
    back = unpack(pack(fields))
    if fields.adct is None:
        assert back.adct_at is None
    else:
        assert back.adct_at == fields.adct_at
    for name in Fields.__slots__:
        if name != "adct_at":
            assert getattr(back, name) == getattr(fields, name), name


@given(st.binary(max_size=200))
def test_other_bytes_are_a_value_error_or_fields(payload: bytes) -> None:
    try:
        unpack(payload)
    except ValueError:
        return


def test_the_longest_click_id_fits_a_token_and_a_long_host_gives_way() -> None:
    fields = Fields(
        adct="x" * 240,
        adct_at=1_700_000_000.0,
        first_party_cookie="46d41c62e88bb2e267c1e15314bb8837-1667065540836",
        ip="2001:db8::1",
        host="shop.example",
    )
    packed = pack(fields, most=TOKEN_BYTES)
    assert len(packed) <= TOKEN_BYTES
    assert unpack(packed).host == "shop.example"
    long_host = Fields(adct="x" * 240, host="a" * 200 + ".example")
    packed = pack(long_host, most=TOKEN_BYTES)
    assert len(packed) <= TOKEN_BYTES
    assert unpack(packed).host is None
    assert unpack(packed).adct == "x" * 240


@pytest.mark.parametrize("text", ["\x7f\x00", "a\x1fb"])
def test_a_separator_or_control_in_a_text_does_not_smuggle_a_field(text: str) -> None:
    packed = pack(Fields(adct="a", host="b.example"))
    tampered = pack(Fields(adct=text if "\x1f" not in text else "a", host="b.example"))
    assert unpack(packed).adct == "a"
    assert unpack(tampered).host == "b.example"
