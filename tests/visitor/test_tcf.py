"""TC strings, read as the reference implementation writes them."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroll_flask.visitor.tcf import LIMIT, consents

REFERENCE = json.loads(
    (Path(__file__).parent.parent / "data" / "tcf" / "strings.json").read_text("utf-8")
)
CASES: list[dict[str, Any]] = REFERENCE["cases"]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def read(text: str, vendor: int = 130, purposes: tuple[int, ...] = (1, 7)) -> bool | str:
    try:
        return consents(text, vendor=vendor, purposes=purposes)
    except ValueError:
        return "invalid"


def named(name: str) -> str:
    return next(str(case["string"]) for case in CASES if case["name"] == name)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_string_of_the_reference_implementation_is_read_as_meant(case: dict[str, Any]) -> None:
    assert read(case["string"]) == case["expected"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_string_cut_short_never_says_yes_by_accident(case: dict[str, Any]) -> None:
    text = case["string"].partition(".")[0]
    whole = read(text)

    answers = [read(text[:length]) for length in range(len(text))]

    # Only the fill bits at the end, at most 24, may be missing without harm.
    assert set(answers[:-4]) == {"invalid"}
    assert set(answers[-4:]) <= {"invalid", whole}


WHOLE = "CQgcD4AQgcD4AAfAEBENAwFgALIAAAAAAAYgBBQAQBBAAAAA"


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "C", "not a tc string", "A" * LIMIT, "C" * (LIMIT + 1)),
        *(f"{WHOLE}{more}" for more in ("=", "\n", ".", "..YAAA", ".I", ".YAAA" * 5)),
        *(f"{WHOLE[:-1]}Ä", f"{WHOLE[:-1]}١", f"%43{WHOLE[1:]}"),
        "BOyQ9nEOyQ9nEAAAAAENAAAAAAAAAAAA",
    ],
)
def test_garbage_is_an_error_and_not_an_answer(text: str) -> None:
    with pytest.raises(ValueError, match="TC string") as caught:
        consents(text, vendor=130, purposes=(1, 7))

    assert len(text) < 8 or text not in str(caught.value)


def test_no_purpose_asked_is_no_consent() -> None:
    assert read(named("130 alone"), purposes=()) is False


def test_vendors_of_large_numbers_can_be_asked() -> None:
    text = named("every second vendor, bit field")
    assert (read(text, vendor=1500), read(text, vendor=1501)) == (True, False)


RANGES = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 20)), max_size=5)
SECTION = st.tuples(RANGES, st.booleans())
RESTRICTION = st.tuples(st.integers(1, 24), st.integers(0, 3), RANGES)


def has(ranges: list[tuple[int, int]], vendor: int) -> bool:
    return any(first <= vendor <= first + more for first, more in ranges)


def written(ranges: list[tuple[int, int]]) -> str:
    return f"{len(ranges):012b}" + "".join(
        f"1{first:016b}{first + more:016b}" if more else f"0{first:016b}" for first, more in ranges
    )


def section(ranges: list[tuple[int, int]], is_field: bool) -> str:
    field = "".join("01"[has(ranges, vendor)] for vendor in range(1, 221))
    return f"{220:016b}" + (f"0{field}" if is_field else f"1{written(ranges)}")


def base64(bits: str) -> str:
    bits += "0" * (-len(bits) % 6)
    return "".join(ALPHABET[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


@given(
    allowed=SECTION,
    interest=SECTION,
    shown=st.none() | SECTION,
    restrictions=st.lists(RESTRICTION, max_size=3),
    purposes=st.sets(st.integers(1, 24)),
    asked=st.sets(st.integers(1, 24), min_size=1, max_size=3),
    vendor=st.integers(1, 230),
    agreed=st.booleans(),
)
def test_any_mix_of_sections_is_read_as_written(
    purposes: set[int], asked: set[int], vendor: int, agreed: bool, **parts: Any
) -> None:
    allowed, interest, shown = parts["allowed"], parts["interest"], parts["shown"]
    restrictions = parts["restrictions"]
    if agreed:
        purposes, allowed = purposes | asked, ([*allowed[0], (min(vendor, 220), 0)], allowed[1])
    bits = f"{2:06b}{0:0126b}{5:06b}1{0:013b}"
    bits += "".join("01"[purpose in purposes] for purpose in range(1, 25)) + "0" * 37
    bits += section(*allowed) + section(*interest) + f"{len(restrictions):012b}"
    for purpose, kind, ranges in restrictions:
        bits += f"{purpose:06b}{kind:02b}" + written(ranges)
    text = base64(bits) + ("" if shown is None else "." + base64("001" + section(*shown)))

    barred = any(p in asked and kind != 1 and has(who, vendor) for p, kind, who in restrictions)
    expected = has(allowed[0], vendor) and asked <= purposes and not barred
    expected = expected and (shown is None or has(shown[0], vendor))
    assert read(text, vendor, tuple(asked)) == expected


@given(
    st.sampled_from([case["string"] for case in CASES]),
    st.integers(0, 600),
    st.sampled_from(ALPHABET + ".="),
)
def test_a_damaged_string_is_an_answer_or_a_value_error(text: str, at: int, other: str) -> None:
    at %= len(text)
    assert read(text[:at] + other + text[at + 1 :]) in (True, False, "invalid")


def test_the_longest_string_takes_a_moment_only() -> None:
    head = named("130 alone")[:35]
    texts = [(head + filler * LIMIT)[:LIMIT] for filler in ("A", "_", "v", "I", "E", "8")]
    started = time.process_time()

    for text in texts:
        read(text)

    assert time.process_time() - started < 0.5
