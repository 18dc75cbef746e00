"""What a page costs grows with its bytes and with its pieces, and no faster: by instructions."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from benchmarks.instructions import CountedProcess, missing
from tests.support import lacking

#: What a page begins with: a whole one, one of which that is not known, and within items.
STARTS = ("<html>", "", "<html><script>", "<html><!--", "<html><link a", "<html><template>")
#: What is then repeated.
PIECES = (
    *("<!-- <!-- ", "<!", "<link a='", '<link a="b" ', "<link a=b' ", "<link ", "<", "</"),
    *("< ", "/", "=", "a", "a>", "-", "--!", " ", " \n", "&#0", "&#32;", "<template>", "\n>"),
    *("<template></template>", "<template><svg>", "<title></titl", "<script></scrip"),
    *("<script><!--<script>", "<script><!--<script></script>", "<p>A</p>", "<link>"),
    *("<script><!--<script></script></script>", "<script data-adroll-not></script>"),
    *("<meta charset=", "<meta ", "<!-- --><!x><?y></ z>", "<script data-adroll></script "),
)
#: What a visitor's text in front of a page was found to do, and a template in small pieces.
FOUND = [("", " ", "<body>"), ("", " ", "A"), ("<html><head><template>", "<p>A</p>", "</template>")]
#: Twice the bytes are twice the work, and a little: of what is held back, some is read again.
AT_MOST = 2.7


@pytest.fixture(scope="module")
def placing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedProcess]:
    why = missing()
    if why:
        lacking(why)
    process = CountedProcess(tmp_path_factory.mktemp("placing"), "tests.support.placing")
    # Compiles what is not, by an item of each kind.
    process.do(start="<html><head><template><p>", piece="<svg>", end="", size=10, step=5)
    process.do(start="<link>", piece="<script data-adroll>", end="", size=40, step=0)
    yield process
    process.close()


def costs(
    placing: CountedProcess, page: tuple[str, str, str], step: int, sizes: tuple[int, ...]
) -> list[float]:
    """Of the page of each size, in instructions."""
    start, piece, end = page

    def cost(size: int) -> float:
        placing.do(start=start, piece=piece, end=end, size=size, step=step)
        return placing.counted().own

    cost(1000)
    return [cost(size) for size in sizes]


def grows_too_fast(counts: list[float]) -> bool:
    # What is less than reading the line costs says nothing.
    floor = 2e6
    return any(after > AT_MOST * max(before, floor) for before, after in pairwise(counts))


@pytest.mark.patient  # valgrind takes its time
@pytest.mark.parametrize("page", FOUND)
def test_a_page_twice_as_long_costs_twice_as_much(
    placing: CountedProcess, page: tuple[str, str, str]
) -> None:
    for step in (0, 16, 256):
        counts = costs(placing, page, step, (12_500, 25_000, 50_000))
        assert not grows_too_fast(counts), f"{page} in pieces of {step}: {counts}"


#: Of which pages each is tried, in pieces of how many bytes: in single ones each costs the most.
EACH = {0: 1, 1: 19, 16: 5, 256: 5}


@pytest.mark.slow
@pytest.mark.parametrize("step", EACH)
def test_no_page_costs_more_than_its_bytes(placing: CountedProcess, step: int) -> None:
    for page in FOUND:
        counts = costs(placing, page, step, (25_000, 50_000, 100_000, 200_000, 400_000, 800_000))
        assert not grows_too_fast(counts), f"{page} in pieces of {step}: {counts}"
    hostile = [(start, piece, "") for piece in PIECES for start in STARTS]
    for page in hostile[:: EACH[step]]:
        counts = costs(placing, page, step, (12_500, 25_000, 50_000))
        assert not grows_too_fast(counts), f"{page} in pieces of {step}: {counts}"
