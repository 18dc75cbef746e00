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


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "C",
        "not a tc string",
        "CQgcD4AQgcD4AAfAEBENAwFgALIAAAAAAAYgBBQAQBBAAAAA=",
        "CQgcD4AQgcD4AAfAEBENAwFgALIAAAAAAAYgBBQAQBBAAAAA\n",
        "CQgcD4AQgcD4AAfAEBENAwFgALIAAAAAAAYgBBQAQBBAAAAA.",
        "CQgcD4AQgcD4AAfAEBENAwFgALIAAAAAAAYgBBQAQBBAAAAA..YAAA",
        "CQgcD4AQgcD4AAfAEBENAwFgALIAAAAAAAYgBBQAQBBAAAAA.I",
        "CQgcD4AQgcD4AAfAEBENAwFgALIAAAAAAAYgBBQAQBBAAAAA" + ".YAAA" * 5,
        "CQgcD4AQgcD4AAfAEBENAwFgALIAAAAAAAYgBBQAQBBAAAAÄ",
        "CQgcD4AQgcD4AAfAEBENAwFgALIAAAAAAAYgBBQAQBBAAAA١",
        "%43QgcD4AQgcD4AAfAEBENAwFgALIAAAAAAAYgBBQAQBBAAAAA",
        "BOyQ9nEOyQ9nEAAAAAENAAAAAAAAAAAA",
        "A" * LIMIT,
        "C" * (LIMIT + 1),
    ],
)
def test_garbage_is_an_error_and_not_an_answer(text: str) -> None:
    with pytest.raises(ValueError, match="TC string") as caught:
        consents(text, vendor=130, purposes=(1, 7))

    assert len(text) < 8 or text not in str(caught.value)


def test_no_purpose_asked_is_no_consent() -> None:
    assert read(named("130 alone"), purposes=()) is False


def test_other_vendors_and_purposes_can_be_asked() -> None:
    text = named("every second vendor, bit field")

    assert read(text, vendor=1500) is True
    assert read(text, vendor=1501) is False
    assert read(text, vendor=1) is False
    assert read(text, purposes=(4,)) is True
    assert read(text, purposes=(24,)) is False


class Writer:
    """An encoder of our own, written from the specification, for any section and encoding."""

    def __init__(self) -> None:
        self.bits = ""

    def number(self, value: int, count: int) -> None:
        self.bits += f"{value:0{count}b}"

    def section(self, vendors: set[int], most: int, *, ranges: bool) -> None:
        self.number(most, 16)
        self.number(ranges, 1)
        if ranges:
            self.ranges(vendors)
        else:
            self.bits += "".join("01"[v in vendors] for v in range(1, most + 1))

    def ranges(self, vendors: set[int]) -> None:
        spans: list[list[int]] = []
        for vendor in sorted(vendors):
            if spans and spans[-1][1] == vendor - 1:
                spans[-1][1] = vendor
            else:
                spans.append([vendor, vendor])
        self.number(len(spans), 12)
        for first, last in spans:
            self.number(first != last, 1)
            self.number(first, 16)
            if first != last:
                self.number(last, 16)

    def text(self) -> str:
        bits = self.bits + "0" * (-len(self.bits) % 6)
        return "".join(ALPHABET[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


VENDORS = st.sets(st.integers(1, 400), max_size=60) | st.builds(
    lambda a, b: set(range(min(a, b), max(a, b) + 1)), st.integers(1, 400), st.integers(1, 400)
)


@given(
    allowed=VENDORS,
    interest=VENDORS,
    purposes=st.sets(st.integers(1, 24)),
    restrictions=st.lists(
        st.tuples(st.integers(1, 24), st.integers(0, 3), VENDORS.filter(bool)), max_size=3
    ),
    disclosed=st.none() | VENDORS,
    encodings=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    vendor=st.integers(1, 410),
    asked=st.lists(st.integers(1, 24), min_size=1, max_size=3),
)
def test_every_mix_of_sections_is_read_as_written(
    allowed: set[int],
    interest: set[int],
    purposes: set[int],
    restrictions: list[tuple[int, int, set[int]]],
    disclosed: set[int] | None,
    encodings: tuple[bool, bool, bool],
    vendor: int,
    asked: list[int],
) -> None:
    if asked and vendor % 2:
        purposes = purposes | set(asked)
        allowed = allowed | {vendor}
    writer = Writer()
    writer.number(2, 6)
    writer.number(0, 36 + 36 + 12 + 12 + 6 + 12 + 12)
    writer.number(5, 6)
    writer.number(1, 1)
    writer.number(0, 1 + 12)
    writer.bits += "".join("01"[p in purposes] for p in range(1, 25))
    writer.number(0, 24 + 1 + 12)
    writer.section(allowed, max(allowed, default=0), ranges=encodings[0])
    writer.section(interest, max(interest, default=0), ranges=encodings[1])
    writer.number(len(restrictions), 12)
    for purpose, kind, vendors in restrictions:
        writer.number(purpose, 6)
        writer.number(kind, 2)
        writer.ranges(vendors)
    text = writer.text()
    if disclosed is not None:
        shown = Writer()
        shown.number(1, 3)
        shown.section(disclosed, max(disclosed, default=0), ranges=encodings[2])
        text += "." + shown.text()

    barred = any(p in asked and kind != 1 and vendor in who for p, kind, who in restrictions)
    expected = vendor in allowed and set(asked) <= purposes and not barred
    expected = expected and (disclosed is None or vendor in disclosed)
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
