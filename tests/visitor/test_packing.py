"""A visitor in few bytes, and back."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from adroll_flask.visitor.record import Record, pack, unpack

PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)

RECORDS = st.builds(
    Record,
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
    signed_at=st.just(1_750_000_000.0),
)
ADDRESSES = st.none() | st.ip_addresses().map(str)
HOSTS = st.none() | st.just("www.shop.example:8443")


@given(RECORDS, ADDRESSES, HOSTS)
def test_what_is_packed_comes_back(record: Record, ip: str | None, host: str | None) -> None:
    if record.adct is None:  # then no time of a click is kept
        record = replace(record, adct_at=None)
    for agent in (None, "Mozilla/5.0 (X11; Linux x86_64)"):
        for max_age in (None, 31_536_000):
            whole = replace(record, ip=ip, host=host, user_agent=agent)
            packed = pack(whole, replaced=record.replaced, max_age=max_age)
            told, life = unpack(packed, record.signed_at)
            assert (told, told.signed_at, life) == (whole, record.signed_at, max_age)
