"""The documentation's site in Chromium: for everybody, on every screen, without a network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from werkzeug.exceptions import NotFound
from werkzeug.middleware.shared_data import SharedDataMiddleware

from tests.support.browsing import Console, NewContext, faults
from tests.support.docs_site import built_site
from tests.support.serving import serving

#: Diagrams come after the page: what is judged before is a page without them.
DRAWN = "document.querySelectorAll('pre.mermaid:not(:has(> svg))').length == 0"


@pytest.fixture(scope="module")
def folder(axe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; npm brings Mermaid along with axe."""
    return built_site(tmp_path_factory)


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(SharedDataMiddleware(NotFound(), {"/": str(folder)})) as port:
        yield f"http://127.0.0.1:{port}/"


def foreign(page: Page, address: str) -> list[str]:
    """What the page asks of other hosts, from now on."""
    asked: list[str] = []
    page.on("request", lambda one: asked.extend([one.url] * (not one.url.startswith(address))))
    return asked


def views() -> Iterator[Any]:
    """An eighth of the pages in each of two views; all of them, in both, with the proofs."""
    for first, (width, scheme) in enumerate(((1400, "light"), (390, "dark"))):
        name = f"{'wide' if width > 1000 else 'narrow'}, {scheme}"
        yield pytest.param((first, 8, width, scheme), id=f"{name}, some")
        yield pytest.param((0, 1, width, scheme), id=f"{name}, all", marks=pytest.mark.slow)


@pytest.mark.parametrize("view", list(views()))
def test_every_page_is_whole(
    view: tuple[int, int, int, str], folder: Path, address: str, axe: str, new_context: NewContext
) -> None:
    first, step, width, scheme = view
    context = new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    asked = foreign(page, address)
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.html"))[first::step]:
        name = str(path.relative_to(folder))
        if name in ("404.html", "search.html", "genindex.html", "py-modindex.html"):
            continue
        page.goto(address + name)
        page.wait_for_function(DRAWN)
        if wrong := faults(page, axe):
            found[name] = wrong
    assert found == {}
    assert asked == []


def test_diagrams_are_drawn(address: str, new_context: NewContext) -> None:
    context = new_context()
    console = Console(context)
    page = context.new_page()
    page.goto(f"{address}explanation/architecture.html")
    drawings = page.locator("pre.mermaid > svg")
    page.wait_for_function("document.querySelectorAll('pre.mermaid > svg').length >= 3")
    assert drawings.count() == page.locator("pre.mermaid").count() == 3
    assert "commit" in (drawings.nth(1).text_content() or "")
    assert [line for line in console.lines if "failed" in str(line)] == []


def test_the_search_finds_without_a_network(address: str, new_context: NewContext) -> None:
    page = new_context().new_page()
    asked = foreign(page, address)
    page.goto(f"{address}search.html?q=release_conversion")
    page.locator("#search-results li a", has_text="Functions and classes").first.wait_for()
    page.goto(f"{address}search.html?q=401")
    page.locator(
        "#search-results li a", has_text="Delivery, and what an answer means"
    ).first.wait_for()
    assert asked == []
