"""TC strings, read as the reference implementation writes them."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroll_flask.visitor.tcf import LIMIT, consents
from tests.support.tcf import CASES, STRINGS, YES

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def read(text: str, vendor: int = 130, purposes: tuple[int, ...] = (1, 7)) -> bool | str:
    try:
        return consents(text, vendor=vendor, purposes=purposes)
    except ValueError:
        return "invalid"


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


RANGES_AMISS = ("FwAYAyAEY", "uQAYBGADI", "uQAYAAAEY")
WHOLE = "CQgcD4AQgcD4AAfAEBENAwFgALIAAAAAAAYgBBQAQBBAAAAA"


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "C", "not a tc string", "A" * LIMIT, WHOLE + "A" * LIMIT),
        *(f"{WHOLE}{more}" for more in ("=", "\n", ".", "..YAAA", ".I", ".YAAA" * 5)),
        *(f"{WHOLE[:-1]}Ä", f"{WHOLE[:-1]}١", f"%43{WHOLE[1:]}"),
        "BOyQ9nEOyQ9nEAAAAAENAAAAAAAAAAAA",
        # Sound but for its format, policy, scope, or a range: beyond the most, back, from 0.
        *(f"{format}AAAAAAAAAAAAAAAAAAAAAFgAP___wAAAAAABuQAYAyAEYAAAAA" for format in "BD"),
        *(f"CAAAAAAAAAAAAAAAAAAAAA{at}AP___wAAAAAABuQAYAyAEYAAAAA" for at in ("Dg", "FA")),
        *(f"CAAAAAAAAAAAAAAAAAAAAAFgAP___wAAAAAAB{it}AAAAA" for it in RANGES_AMISS),
    ],
)
def test_garbage_is_an_error_and_not_an_answer(text: str) -> None:
    with pytest.raises(ValueError, match="TC string") as caught:
        consents(text, vendor=130, purposes=(1, 7))

    assert len(text) < 8 or text not in str(caught.value)


def test_no_purpose_asked_is_no_consent() -> None:
    assert read(YES, purposes=()) is False


def test_vendors_of_large_numbers_can_be_asked() -> None:
    text = STRINGS["every second vendor, bit field"]
    assert (read(text, vendor=1500), read(text, vendor=1501)) == (True, False)


@given(
    st.sampled_from([case["string"] for case in CASES]),
    st.integers(0, 600),
    st.sampled_from(ALPHABET + ".="),
)
def test_a_damaged_string_is_an_answer_or_a_value_error(text: str, at: int, other: str) -> None:
    at %= len(text)
    assert read(text[:at] + other + text[at + 1 :]) in (True, False, "invalid")


def test_the_longest_string_takes_a_moment_only() -> None:
    head = YES[:35]
    texts = [(head + filler * LIMIT)[:LIMIT] for filler in ("A", "_", "v", "I", "E", "8")]
    started = time.process_time()

    for text in texts:
        read(text)

    assert time.process_time() - started < 0.5
