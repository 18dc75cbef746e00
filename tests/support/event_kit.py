"""What the tests of events share: a visitor, a request and a purchase."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from adroll_flask.events.build import Built, build
from adroll_flask.events.names import PRODUCT_FIELDS, EventDefaults

from .anything import ANYTHING

NOW = 1667065540.836
COOKIE = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"

#: A visitor's request, as the extension sees it.
WEB = EventDefaults(
    advertisable_eid="ADVERTISABLE0000000001",
    pixel_eid="PIXEL00000000000000001",
    now=NOW,
    page_location="https://shop.example/thanks?order=1001",
    ip="203.0.113.9",
    user_agent="Mozilla/5.0 Engine/20240101 Browser/123.0",
    adct="click123",
    first_party_cookie=COOKIE,
    email_forms=("sha256", "md5"),
    derive_key=b"a key of thirty-two bytes, about",
)
#: No browser: a webhook, a script, an app's back end.
BARE = replace(
    WEB, page_location=None, ip=None, user_agent=None, adct=None, first_party_cookie=None
)
PURCHASE: Mapping[str, Any] = {
    "order_id": "1001",
    "value": "59.90",
    "currency": "EUR",
    "products": [{"product_id": "mug", "price": "29.95", "quantity": 2}],
}


def strictly(name: str = "purchase", /, context: EventDefaults = WEB, **fields: Any) -> Built:
    """Build as in development: a bad field raises."""
    return build(name, fields, context, strict=True)


def leniently(name: str = "purchase", /, context: EventDefaults = WEB, **fields: Any) -> Built:
    """Build as in production: a bad optional field is left out."""
    return build(name, fields, context, strict=False)


def context(base: EventDefaults = WEB, **changes: Any) -> EventDefaults:
    """*base* with changes."""
    return replace(base, **changes)


#: What lies beside a bound, or in a form that two readers may read in two ways.
EDGES: list[Any] = [
    *("9" * count for count in (13, 14, 15, 16)),
    *("x" * count for count in (240, 241, 256, 257, 1000, 1001, 1024, 1025)),
    *(f"a@{'b' * count}" for count in (252, 253)),
    *(f"https://shop.example/{'b' * count}" for count in (1979, 1980, 5000)),
    *("A" * count for count in (7, 8, 40, 41)),
    "", " ", "\n", "a\n", "a\x85b", "\u2028", "\ufeff", "\ud800", " 5 ", "5.", ".5", "-0", "0.0",
    "00", "1_000", "\u0665", "5e1", "NaN", "EUR", "eur", "purchase", "Purchase", "1.2.3.4",
    "1.2.3.4\n", "01.2.3.4", "::1", "https://a..b/", "https://a.b:80/", "https://a.b/%zz",
    "HTTPS://a.b/", "A@B.c", "a@b@c", "a" * 64, "A" * 64, "g" * 64, "a" * 32,
    f"{'a' * 32}-1667065540836", f"{'a' * 32}-1667065540836\n",
    0, 1, -1, 1_000_000, 1_000_001, 10**9, 10**11, 10**14,
    0.0, 6.8e-63, 1.5, 1e9, 1e11 - 0.001, 1e11, float("nan"), float("inf"), True, None, b"a", ["a"],
    "::ffff:1.2.3.4", "fe80::1%eth0", "[::1]:80", "1.2.3.4:80",
    "https://u:p@b\u00fccher.example:0/", "foo.@docomo.ne.jp", "\u0130@x.de", "XAU", " Jpy ",
    f"{'a' * 32}-s2-1667065540836-", "00000000-0000-0000-0000-000000000000",
    "d41d8cd98f00b204e9800998ecf8427e", NOW + 7200,
]  # fmt: skip
_SIMPLE = (
    ANYTHING
    | st.sampled_from(EDGES)
    | st.text(max_size=3).map(lambda text: text * 200)
    | st.from_regex(r"[0-9]{1,16}(\.[0-9]{1,8})?", fullmatch=True)
    | st.from_regex(r"https?://[a-z.:0-9-]{1,12}/[!-~]{0,12}", fullmatch=True)
    | st.from_regex(r"[0-9a-fA-F]{32}(-(s2-)?([0-9]{13}|a_[0-9]{10}))?-?", fullmatch=True)
    | st.emails()
    | st.uuids()
    | st.ip_addresses().map(str)
    | st.decimals(0, 10**14, places=7)
    | st.floats(NOW - 10**8, NOW + 7200)
    | st.datetimes(datetime(2000, 1, 1), datetime(2023, 1, 1), timezones=st.just(UTC))
)
_PRODUCT = st.fixed_dictionaries({}, optional=dict.fromkeys(PRODUCT_FIELDS, _SIMPLE))


@st.composite
def values(draw: st.DrawFn) -> Any:
    """What a field may be given. By name: Hypothesis writes out what has none, at each use."""
    return draw(_SIMPLE | st.lists(_SIMPLE | _PRODUCT, max_size=4))
