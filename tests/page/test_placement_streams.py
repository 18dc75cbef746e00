"""The snippet in a page that comes in chunks: as in a whole one, and nothing waits without need."""

from __future__ import annotations

import itertools
import time

import pytest

from adroll_flask.page.placement import Placer, place

SNIPPET = b"<script async src=/_adroll/kit.js data-adroll></script>"

PAGES = {
    "plain": b'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>A</title></head><p>',
    "byte order mark": b"\xef\xbb\xbf<html><head></head><body>",
    "no head": b"<html><p>Hello",
    "head without an end": b"<html><head><!-- a --><link a='>'>",
    "ends in a script": b"<html><head><script><!-- <script> </script>",
    "ends in a comment": b"<html><head><!-- a --",
    "ends in a tag": b"<html><head><link a = '",
    "scripts": b"<head><script><!-- <script></script> --></script ><script><!--></script></head>",
    "comments": b"<html><!--><!---><!----><!-- - -- --!><!x></x></ x><?x><head></head>",
    "templates": b"<html><head><template><title></template></title></template></head>",
    "template with other rules": b"<html><head><template><b><svg></svg></template></head>",
    "attributes": b'<html a = b c=\'d>\' e="f>" g=h"i / =j k=l/><head/></head >',
    "white space in disguise": b"<html>&#32;&#x20&Tab;&NewLine;&#0032;<head></head>",
    "text that looks like it": b"<html>&Tabs;<head></head>",
    "late charset": b"<html><head></head><body><meta charset=utf-8>text",
    "long names": b"<html><link></abcdefghijklmnop a='>'><abcdefghijklmnop>",
    "fragment": b"<title>A</title><p>Hello",
    "snippet that is there": b"<html><script data-adroll></script></head>",
    "wide": "\ufeff<html><head></head>".encode("utf-16-le"),
    "short": b"<",
    "empty": b"",
}


def streamed(
    chunks: list[bytes], limit: int = 65536, charset: str | None = None
) -> tuple[bytes, str]:
    placer = Placer(SNIPPET, limit, charset=charset)
    page = b"".join([placer.feed(chunk) for chunk in chunks] + [placer.finish()])
    assert placer.outcome is not None
    return page, placer.outcome


@pytest.mark.parametrize("charset", [None, "utf-8"])
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_chunks_may_be_cut_anywhere(page: bytes, charset: str | None) -> None:
    whole = place(page, SNIPPET, charset=charset)
    assert streamed([page[i : i + 1] for i in range(len(page))], charset=charset) == whole
    for first, second in itertools.combinations(range(0, len(page) + 1, 3), 2):
        chunks = [page[:first], page[first:second], page[second:]]
        assert streamed(chunks, charset=charset) == whole
    for cut in range(len(page) + 1):
        assert streamed([page[:cut], b"", page[cut:]], charset=charset) == whole


def test_what_is_sure_leaves_at_once_and_the_snippet_with_the_first_byte_behind_it() -> None:
    placer = Placer(SNIPPET, charset="utf-8")
    assert placer.feed(b"<!doctype html><html><he") == b"<!doctype html><html>"
    assert placer.feed(b"ad><title>A</ti") == b"<head>"
    assert placer.feed(b"tle>\n<link rel=stylesheet href=a.css>\n</head") == (
        b"<title>A</title>\n<link rel=stylesheet href=a.css>\n"
    )
    assert not placer.done
    assert placer.feed(b">") == SNIPPET + b"</head>"
    assert placer.done


def test_a_body_is_not_waited_for_to_its_end() -> None:
    placer = Placer(SNIPPET, charset="utf-8")
    assert placer.feed(b"<html><body class='a") == b"<html>" + SNIPPET + b"<body class='a"


def test_a_part_of_a_page_goes_on_with_its_first_content() -> None:
    placer = Placer(SNIPPET)
    assert placer.feed(b"<p>") == b"<p>"
    assert placer.outcome == "fragment"


def test_later_chunks_pass_as_the_very_same_objects() -> None:
    placer = Placer(SNIPPET)
    placer.feed(b"<html><head><meta charset=utf-8></head>")
    chunk = b"<body>" + b"x" * 100000
    assert placer.feed(chunk) is chunk
    assert placer.finish() == b""


def test_a_page_that_tells_no_charset_waits_behind_its_head_for_1024_bytes() -> None:
    placer = Placer(SNIPPET)
    assert placer.feed(b"<html><head></head><body>") == b"<html><head>"
    assert placer.feed(b"x" * 900) == b""
    assert placer.feed(b"x" * 200).startswith(SNIPPET + b"</head><body>x")


def test_a_page_that_ends_before_is_served_at_its_end() -> None:
    placer = Placer(SNIPPET)
    placer.feed(b"<html><head></head><body>")
    assert placer.finish() == SNIPPET + b"</head><body>"


def test_a_header_that_tells_the_charset_spares_the_wait() -> None:
    placer = Placer(SNIPPET, charset="utf-8")
    assert placer.feed(b"<html></head>") == b"<html>" + SNIPPET + b"</head>"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (b"<!-- ", b"-->"),
        (b"<script>", b"</script>"),
        (b"<title>", b"</title>"),
        (b"<link href='", b"'>"),
        (b"<template>", b"</template>"),
        (b"<!doctype ", b">"),
        (b"<link ", b">"),
        (b"<script data-adroll src='", b"'></script>"),
    ],
)
@pytest.mark.parametrize("size", [2000, 2032, 2033, 2048, 65519, 65520, 65521, 65536, 200000])
@pytest.mark.parametrize("finished", [True, False])
def test_no_more_than_the_limit_is_held_back_and_the_outcome_is_the_same(
    start: bytes, end: bytes, size: int, finished: bool
) -> None:
    page = b"<html><head>" + start.ljust(size, b"x")
    if finished:
        page += end + b"</head><body>"
    for limit in (2048, 65536):
        whole = place(page, SNIPPET, limit, charset="utf-8")
        for step in (997, 40000):
            placer = Placer(SNIPPET, limit, charset="utf-8")
            out = b""
            for begin in range(0, len(page), step):
                out += placer.feed(page[begin : begin + step])
                came = min(begin + step, len(page))
                assert placer.done or came - len(out) <= limit
            assert (out + placer.finish(), placer.outcome) == whole
        if finished and not start.startswith(b"<script data-adroll"):
            assert whole[1] == "injected"


HOSTILE = [
    b"<!-- <!-- ",
    b"<!",
    b"<link a='",
    b'<link a="b" ',
    b"<link a=b' ",
    b"<link ",
    b"<",
    b"</",
    b"< ",
    b"/",
    b"=",
    b"a",
    b"-",
    b"--!",
    b" ",
    b"&#0",
    b"&#32;",
    b"<template>",
    b"<template></template>",
    b"<template><svg>",
    b"<title></titl",
    b"<script></scrip",
    b"<script><!--<script>",
    b"<script><!--<script></script>",
    b"<script><!--<script></script></script>",
    b"<script data-adroll-not></script>",
    b"<meta charset=",
    b"<meta ",
    b"<!-- --><!x><?y></ z>",
]


@pytest.mark.parametrize("start", [b"<html>", b"<html><script>", b"<html><!--", b"<html><link a"])
@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_with_the_page_and_no_faster(start: bytes, piece: bytes) -> None:
    page = start + piece * (120_000 // len(piece))
    began = time.process_time()
    whole = place(page, SNIPPET)
    assert streamed([page[i : i + 50] for i in range(0, len(page), 50)]) == whole
    # Linear, it takes some 100 ms at worst; were it quadratic, ten seconds.
    assert time.process_time() - began < 3
