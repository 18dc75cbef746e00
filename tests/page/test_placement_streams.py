"""The snippet in a page that comes in chunks: as in a whole one, and all passes behind its head."""

import time

import pytest

from adroll_flask.page.placement import HOLD_LIMIT, Placer
from tests.page.test_placement import LEFT_ALONE, PLACES, SNIPPET, place

PAGES = {
    name: page
    for name, page in [
        *((name, marked.replace(b"^", b"", 1)) for name, marked in PLACES.items()),
        *((name, page) for name, (page, _) in LEFT_ALONE.items()),
    ]
    if len(page) < 300
}


def streamed(chunks: list[bytes], charset: str | None = None) -> tuple[bytes, str]:
    placer = Placer(SNIPPET, charset=charset)
    page = b"".join([placer.feed(chunk) for chunk in chunks] + [placer.feed(b"", final=True)])
    assert placer.outcome is not None
    return page, placer.outcome


@pytest.mark.parametrize("charset", [None, "utf-8", "utf-16"])
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_chunks_may_be_cut_anywhere(page: bytes, charset: str | None) -> None:
    whole = place(page, SNIPPET, charset=charset)
    assert streamed([page[i : i + 1] for i in range(len(page))], charset) == whole
    for cut in range(len(page) + 1):
        assert streamed([page[:cut], b"", page[cut:]], charset) == whole


@pytest.mark.parametrize(
    "head",
    [
        b"<html><head><title>A</title>^</head><body>Hello",
        b"<html>^<body class='a>",
        b"<html><head>^A<b>",
        b"<html><head>^<template><svg></svg>",
        b"<html><head><script><!-- <script></script> --></script>^<p>",
    ],
)
def test_a_head_leaves_with_the_snippet_as_soon_as_it_is_over(head: bytes) -> None:
    before, _, behind = head.partition(b"^")
    placer = Placer(SNIPPET, charset="utf-8")
    assert placer.feed(before) == b""
    assert placer.feed(behind) == before + SNIPPET + behind
    later = b"x" * 100_000
    assert placer.feed(later) is later
    assert placer.feed(b"", final=True) == b""


def test_a_part_of_a_page_goes_on_with_its_first_content() -> None:
    placer = Placer(SNIPPET)
    assert placer.feed(b"<p>") == b"<p>"
    assert placer.outcome == "fragment"


def test_a_page_that_tells_no_charset_waits_behind_its_head_for_1024_bytes() -> None:
    for rest in (b"x" * 1000 + b"<b>", b""):
        placer = Placer(SNIPPET)
        assert placer.feed(b"<html><head></head><body>") == b""
        assert placer.feed(b"x" * 900 + b"<p>") == b""
        more = placer.feed(rest)
        assert bool(more) == bool(rest)
        assert (more + placer.feed(b"", final=True)).startswith(b"<html><head>" + SNIPPET)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (b"<!-- ", b"-->"),
        (b"<script>", b"</script>"),
        (b"<title>", b"</title>"),
        (b"<link href='", b"'>"),
        (b"<template>", b"</template>"),
    ],
)
@pytest.mark.parametrize("size", [HOLD_LIMIT - 100, HOLD_LIMIT + 100, 200_000])
def test_no_more_than_the_limit_is_held_back(start: bytes, end: bytes, size: int) -> None:
    before = b"<html><head>"
    page = before + start.ljust(size, b"x") + end + b"</head>"
    for step in (997, 40_000):
        placer = Placer(SNIPPET, charset="utf-8")
        out = b""
        for begin in range(0, len(page), step):
            out += placer.feed(page[begin : begin + step])
            assert placer.outcome or min(begin + step, len(page)) - len(out) < HOLD_LIMIT
        out += placer.feed(b"", final=True)
        if size < HOLD_LIMIT:
            assert (out, placer.outcome) == place(page, SNIPPET, charset="utf-8")
        else:
            assert (out, placer.outcome) == (before + SNIPPET + page[len(before) :], "injected")


def test_what_would_end_up_in_the_head_is_no_place_at_the_limit() -> None:
    page = b"<!doctype html><!--" + b"x" * HOLD_LIMIT + b"--><head></head>"
    assert streamed([page[i : i + 997] for i in range(0, len(page), 997)]) == (page, "unfinished")


HOSTILE = [
    b"<!-- <!-- ", b"<!", b"<link a='", b'<link a="b" ', b"<link a=b' ", b"<link ", b"<", b"</",
    b"< ", b"/", b"=", b"a", b"a>", b"-", b"--!", b" ", b"&#0", b"&#32;", b"<template>",
    b"<template></template>", b"<template><svg>", b"<title></titl", b"<script></scrip",
    b"<script><!--<script>", b"<script><!--<script></script>",
    b"<script><!--<script></script></script>", b"<script data-adroll-not></script>",
    b"<meta charset=", b"<meta ", b"<!-- --><!x><?y></ z>",
]  # fmt: skip


@pytest.mark.parametrize("start", [b"<html>", b"<html><script>", b"<html><!--", b"<html><link a"])
@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_with_the_page_and_no_faster(start: bytes, piece: bytes) -> None:
    page = start + piece * (120_000 // len(piece))
    began = time.process_time()
    place(page, SNIPPET)
    streamed([page[i : i + 50] for i in range(0, len(page), 50)])
    # Linear, it takes some 100 ms at worst; were it quadratic, ten seconds.
    assert time.process_time() - began < 3
