"""Where the snippet goes in a page, byte for byte; in chunks as in a whole one.

A caret marks the place that is expected.
"""

import pytest

from adroll_flask.page.placement import HOLD_LIMIT, Placer, Places, ascii_compatible

SNIPPET = b'<script async src="/_adroll/kit.js" data-adroll data-adv="ours"></script>'


def place(page: bytes, snippet: bytes, *, charset: str | None = None) -> tuple[bytes, str]:
    """A whole page with the snippet, and what became of it."""
    placer = Placer(snippet, charset=charset)
    return placer.feed(page, final=True), placer.outcome or ""


PLACES = {
    "before the end of the head": b"<!doctype html><html><head><title>A</title>^</head><body>",
    "tags in any case": b"<HTML><HeAd><TITLE>A</tItLe>^</HEAD><BODY>",
    "end tag with white space": b"<html><head>^</head\n ><body>",
    "no end tag of the head": b"<html><head><title>A</title>\n^<body>",
    "no head at all": b"<html>\n^<body>",
    "a body alone": b"^<body>",
    "an end of a head alone": b"<title>A</title>^</head><p>",
    "a doctype alone": b"<!doctype html><title>A</title>^<p>A",
    "frameset": b"^<frameset></frameset>",
    "a header is no head": b"<html>^<header></header></html>",
    "text ends the head": b"<html><head> \n^A</head>",
    "an element that no head holds": b"<html><head><link rel=a>^<div></div></head>",
    "an end tag that opens the body": b"<html><head>^</br>",
    "the page ends in the head": b"<html><head><title>A</title>\n^",
    "the page ends in a long script": b"<html>^<script>" + b"x" * 70000,
    "the page ends in a comment in the head": b"<html><head>^<!-- </head>",
    "the page is as good as empty": b"<html>^",
    "an empty comment of three dashes is over": b"<html><head><!--->^</head>-->",
    "comment with almost an end": b"<html><head><!--!></head>-->^</head>",
    "comment with odd ends": b"<html><head><!-- -- > --!>^</head><!-- -->",
    "bogus comments": b"<html><![if IE]><head><?php </head ?><![endif]></ x><!x></>^</head>",
    "no CDATA in HTML": b"<html><head><![CDATA[ x > ]]>".replace(b" ]]", b"^]]"),
    "doctype that ends in its quotes":
        b'<!doctype html public "^a>b"><html>'.replace(b"^a>b", b"a>^b"),
    "style, noscript and noframes":
        b"<head><style></head></style><noscript></head></noscript>"
        b"<noframes></head></noframes>^</head>",
    "doubly escaped script":
        b"<html><head><script><!-- <script></script> </head>--></script>^</head>",
    "script that nearly ends": b"<html><head><script></scripts></head></script/>^</head>",
    "textarea ends the head": b"<html><head>^<textarea></head></textarea>",
    "plaintext ends the head": b"<html><head>^<plaintext></head>",
    "svg ends the head": b"<html><head>^<svg><title></head></title></svg>",
    # templates
    "template": b"<html><head><template><p></head><body></template>^</head>",
    "template with what looks like its end":
        b"<html><head><template><!--</template>--><title></template></title></template>^</head>",
    "before templates in templates":
        b"<html><head>^<template><template></template></head></template></head>",
    "before a template with other rules": b"<html><head>^<template><svg></template></head>",
    "before a template without an end": b"<html><head>^<template></head>",
    # attributes
    "= behind white space": b'<html><head><link a \n=\t"></head>">^</head>',
    "value that is missing": b'<html><head><link a=>^</head>">',
    # what stands before
    "UTF-8 BOM": b"\xef\xbb\xbf<!doctype html><html><head>^</head>",
    "a second BOM is text": b"\xef\xbb\xbf<html>^\xef\xbb\xbf<head></head>",
    "white space in disguise": b"<html>&#32;&#x0A;&Tab;&#0000013<head>^</head>",
    "a number of something else": b"<html>^&#320;<head></head>",
    "a no-break space is text": b"<html>^&nbsp;<head></head>",
    "< is text": b"<html>^< head></head>",
    # charset declarations
    "behind the charset": b"<html><head><meta charset=utf-8>^</head>",
    "before a charset that stays in sight": b"<html><head>^</head><p><meta charset=utf-8>",
    "a charset too far away": b"<html>^<body>" + b" " * 1024 + b"<meta charset=utf-8>",
}  # fmt: skip

LEFT_ALONE = {
    "text": (b"Hello", "fragment"),
    "nothing": (b"", "fragment"),
    "white space": (b" \n", "fragment"),
    "a part of a page": (b"<div><p>Hello</p></div>", "fragment"),
    "a part that begins as a head": (b"<title>A</title><p>", "fragment"),
    "a body in a comment": (b"<!-- <html><body> --><p>", "fragment"),
    "a body in a script": (b"<script>'<body>'</script><p>", "fragment"),
    "a body in a template": (b"<template><body></body></template><p>", "fragment"),
    "XML": (b"<?xml version='1.0'?><rss></rss>", "fragment"),
    "UTF-16, little end first": ("\ufeff<html><head></head>".encode("utf-16-le"), "charset"),
    "UTF-16, big end first": ("\ufeff<html><head></head>".encode("utf-16-be"), "charset"),
    "UTF-32": ("\ufeff<html><head></head>".encode("utf-32-be"), "charset"),
    "UTF-16 without a mark": ("<html><head></head>".encode("utf-16-le"), "fragment"),
    "a charset that shifts": (b"<head><meta charset=ISO-2022-JP></head>", "charset"),
    "a charset that shifts, first of two": (
        b"<head><meta http-equiv=content-type content='text/html; charset=hz-gb-2312'>"
        b'<meta charset="utf-8"></head>',
        "charset",
    ),
    "a charset in the old form that the snippet would push away": (
        b"<html><body>".ljust(950)
        + b"<meta content='text/html; charset=utf-8' http-equiv=content-type>",
        "charset_late",
    ),
    "a charset that shifts, behind the head": (b"<html><p><meta charset=iso-2022-kr>", "charset"),
    "a comment that would move": (b"<!doctype html><!-- unfinished", "unfinished"),
    "a comment that has hardly begun": (b"<!doctype html><!", "unfinished"),
    "a head tag that would move": (b"<!doctype html><head class='a", "unfinished"),
    "our snippet": (b"<head><script src=a data-adroll></script></head>", "present"),
    "our snippet, attributes in quotes": (
        b"<head><script data-adv='>' data-adroll=''></script>",
        "present",
    ),
}


@pytest.mark.parametrize("marked", PLACES.values(), ids=PLACES.keys())
def test_the_snippet_goes_where_the_head_ends(marked: bytes) -> None:
    before, _, behind = marked.partition(b"^")
    assert place(before + behind, SNIPPET) == (before + SNIPPET + behind, "injected")


@pytest.mark.parametrize(("page", "why"), LEFT_ALONE.values(), ids=LEFT_ALONE.keys())
def test_a_page_without_a_safe_place_is_left_alone_and_says_why(page: bytes, why: str) -> None:
    left, outcome = place(page, SNIPPET)
    assert outcome == why
    assert left is page


@pytest.mark.parametrize(
    "head",
    [
        b"<!-- <script data-adroll> -->",
        b"<script>'<script data-adroll>'</script>",
        b"<noscript><script data-adroll></script></noscript>",
        b"<template><script data-adroll></script></template>",
        b"<meta name=data-adroll>",
        b"<link data-adroll>",
        b"<script data-adroll-not='data-adroll'></script>",
        b"<script>// data-adroll</script>",
        b"<script><!-- <script> --> data-adroll </script>",
    ],
)
def test_only_a_script_that_runs_counts_as_a_snippet_that_is_there(head: bytes) -> None:
    page = b"<html><head>" + head + b"</head>"
    assert place(page, SNIPPET)[1] == "injected"


def test_a_charset_in_the_header_makes_those_in_the_page_idle() -> None:
    page = b"<html><body><meta charset=utf-8>"
    placed, _ = place(page, SNIPPET, charset="utf-8")
    assert placed == b"<html>" + SNIPPET + b"<body><meta charset=utf-8>"


@pytest.mark.parametrize("room", range(940, 1040))
def test_no_declaration_is_pushed_out_of_the_first_1024_bytes(room: int) -> None:
    declaration = b"<meta charset=utf-8>"
    page = b"<html><body>".ljust(room) + declaration + b"<p>"
    placed, outcome = place(page, SNIPPET)
    if outcome == "injected":
        assert (declaration in placed[:1024]) == (declaration in page[:1024])
    else:
        assert outcome == "charset_late"
    assert outcome == "injected" or 1024 - len(SNIPPET) < room + len(declaration)


@pytest.mark.parametrize(
    ("charset", "read"),
    [
        *((name, True) for name in (None, "", "utf-8", "UTF-8", '"latin1"', "Shift_JIS", "gbk")),
        *((name, True) for name in ("nobody-knows", "rot13")),
        *((name, False) for name in ("utf-16", "UTF-16LE", "utf-32", "ucs-2", "unicode")),
        *((name, False) for name in ("utf-7", "iso-2022-jp", "hz", "cp037")),
    ],
)
def test_charsets_that_keep_ascii_are_read_and_no_others(charset: str | None, read: bool) -> None:
    assert ascii_compatible(charset) is read
    page = b"<html><head></head>"
    assert (place(page, SNIPPET, charset=charset) == (page, "charset")) is not read


# -- in chunks: all passes behind its head ---------------------------------------------------------


PAGES = [marked.replace(b"^", b"", 1) for marked in PLACES.values()]
PAGES += [page for page, _ in LEFT_ALONE.values()]


def streamed(chunks: list[bytes], charset: str | None = None) -> tuple[bytes, str]:
    placer = Placer(SNIPPET, charset=charset)
    page = b"".join([placer.feed(chunk) for chunk in chunks] + [placer.feed(b"", final=True)])
    assert placer.outcome is not None
    return page, placer.outcome


@pytest.mark.parametrize("charset", [None, "utf-8", "utf-16"])
@pytest.mark.parametrize("page", [page for page in PAGES if len(page) < 300])
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


def test_a_page_that_begins_as_another_did_has_the_same_place_and_no_other_has() -> None:
    places = Places()
    for _ in range(2):
        for marked in PLACES.values():
            for behind in (b"", b"<p>", b"></title></script></template>-->", b"ody>", b";"):
                page = marked.replace(b"^", b"") + behind
                placed = places.put(SNIPPET, page)
                if placed is None:
                    placed = Placer(SNIPPET, charset="utf-8", places=places).feed(page, final=True)
                assert placed == place(page, SNIPPET, charset="utf-8")[0]


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
