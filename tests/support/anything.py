"""Values of any kind that a programmer, a visitor or an attacker may pass, for Hypothesis."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

SPICE = [
    "adct=", "&", "=", "%", "%00", "%0d%0a", "+", ";", "; ", ",", '"', "\\", "\x00", "\r\n", "\x1f",
    "é", "\u202e", "\ud800", "adroll_visitor=", "__adroll_fpc=", "46d41c62e88bb2e267c1e15314bb8837",
    "-s2-", "-1667065540836", "-a_1730238675", "-", ".", "{", "}", "[", "]", ":", "null", "true",
    '"adct"', '"first_party_cookie"', '"consent"', "1e999", "<", ">", "<!--", "-->", "</head>",
    "<head>", "<script>", "</script>", "<title>", "<body>", "data-adroll", "::", "::ffff:1.2.3.4",
    "[", "]:80", "fe80::1%eth0", "127.0.0.1", "A" * 300, "9" * 40,
]  # fmt: skip

spiced = st.lists(st.sampled_from(SPICE) | st.text(max_size=12), max_size=12).map("".join)


class Long:
    """Never ends when read as a sequence."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(10**6))

    def __len__(self) -> int:
        return 10**6


class Column:
    """Like a database column or an array: comparing makes no truth value."""

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("no truth value")


LOOP: list[Any] = []
LOOP.append(LOOP)

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**60), 10**60)
    | st.floats()
    | st.decimals()
    | st.binary(max_size=8)
    | spiced
    | st.sampled_from(
        [
            Long(),
            Column(),
            LOOP,
            object(),
            Exception,
            Decimal("1e1000000"),
            datetime(1, 1, 1),
            datetime.max.replace(tzinfo=UTC),
            "9" * 5000,
            "59.90",
            "EUR",
            "ann@example.com",
            float("1e308"),
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["product_id", "price", "quantity", "category"]) | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=8,
)

#: What JSON may hold, wherever it stands.
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
