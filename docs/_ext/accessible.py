"""What axe finds in the theme's and docutils' own markup, put right in the written pages.

A test runs axe over every page (tests/browser/test_docs_site.py).
"""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

FIXED = (
    # Two landmarks of a kind have names.
    ('<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="Pages">'),
    ('<aside class="toc-drawer', '<aside aria-label="On this page" class="toc-drawer'),
    # What scrolls can be scrolled by keyboard.
    ('<div class="highlight"><pre>', '<div class="highlight"><pre tabindex="0">'),
    ('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
    ('<pre  class="mermaid"', '<pre tabindex="0" class="mermaid"'),
    # An empty corner of a table heads nothing.
    ('<th class="head"><p></p></th>', "<td></td>"),
)


def improve(app: Sphinx, failure: Exception | None) -> None:
    if failure is not None or app.builder.name != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text("utf-8")
        better = text
        for faulty, fixed in FIXED:
            better = better.replace(faulty, fixed)
        if better != text:
            path.write_text(better, "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", improve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
