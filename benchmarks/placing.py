"""What placing costs, side by side in one run: ours, New Relic's, the debug toolbar's way, a find.

Run ``python -m benchmarks.placing``; New Relic's agent is taken where it is installed
(``pip install newrelic``). The pages are the real ones that the tests use: as they are, and with
their own head at 2, 50 and 500 kB, the body cut or repeated; a page whose head does not fit into
a size is left out there. The last columns are a page with the short head of a small site. Each
figure is the median over the pages of the best of five rounds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

from adroll_flask.page.placement import Placer, place
from tests.support.corpora import real_pages

SNIPPET = (
    b'<script async src="/_adroll/kit.0123456789abcdef.js" data-adroll data-adv="A" data-pix="B" '
    b'data-pixel="load" data-src="https://s.adroll.com/j/A/roundtrip.js" '
    b'data-identity="/_adroll/identity" data-wait="3000"></script>'
)


SHORT = (
    b'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    b'<meta name="viewport" content="width=device-width">\n<title>Shop</title>\n'
    b'<link rel="stylesheet" href="/static/site.css">\n'
    b'<script src="/static/site.js" defer></script>\n</head>\n<body class="home">\n<p>Hello</p>\n'
)


def ours(page: bytes) -> bytes:
    return place(page, SNIPPET, charset="utf-8")[0]


def ours_without_header(page: bytes) -> bytes:
    return place(page, SNIPPET)[0]


def ours_streamed(page: bytes) -> bytes:
    placer = Placer(SNIPPET, charset="utf-8")
    return placer.feed(page) + placer.finish()


def lower_and_rfind(page: bytes) -> bytes:
    """As Flask-DebugToolbar does: text, a lower-case copy, the last end of the body, bytes."""
    text = page.decode("utf-8", "replace")
    place = text.lower().rfind("</body>")
    return "".join((text[:place], SNIPPET.decode(), text[place:])).encode()


def bare_find(page: bytes) -> bytes:
    place = page.find(b"</head>")
    return page[:place] + SNIPPET + page[place:]


WAYS: dict[str, Callable[[bytes], bytes | None]] = {
    "ours, charset in the header": ours,
    "ours, no charset in the header": ours_without_header,
    "ours, as a stream of one chunk": ours_streamed,
    "debug toolbar's way": lower_and_rfind,
    "bare bytes.find": bare_find,
}
try:
    from newrelic.api.html_insertion import insert_html_snippet
except ImportError:
    print("newrelic is not installed; pip install newrelic to compare with it", file=sys.stderr)
else:
    WAYS["New Relic"] = lambda page: insert_html_snippet(page, lambda: SNIPPET)


def microseconds(way: Callable[[bytes], bytes | None], page: bytes) -> float:
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(10):
            way(page)
        best = min(best, (time.perf_counter() - start) / 10)
    return best * 1e6


def resized(page: bytes, size: int) -> bytes | None:
    """The page with a body that makes it *size* bytes, if its head leaves room for one."""
    body = page.lower().find(b"<body")
    if not 0 <= body < size - 100:
        return None
    content = page[body:] or b" "
    return (page[:body] + content * (size // len(content) + 1))[:size]


def main() -> None:
    pages = [page for _, page in real_pages()]
    print(f"{len(pages)} real pages; microseconds, median over the pages")
    columns: dict[str, list[bytes]] = {"as they are": pages}
    for size in (2, 50, 500):
        fitted = [resized(page, size * 1000) for page in pages]
        columns[f"{size} kB"] = [page for page in fitted if page is not None]
    for size in (2, 50, 500):
        page = resized(SHORT, size * 1000)
        columns[f"short, {size} kB"] = [page] if page else []
    print(f"{'':32}" + "".join(f"{name + f' ({len(some)})':>18}" for name, some in columns.items()))
    for name, way in WAYS.items():
        figures = [median(microseconds(way, page) for page in some) for some in columns.values()]
        print(f"{name:32}" + "".join(f"{figure:18.1f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()
