"""The documentation's site in Chromium: for everybody, on every screen, without a network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from werkzeug.exceptions import NotFound
from werkzeug.middleware.shared_data import SharedDataMiddleware

from tests.support.browsing import Console, View, faults
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


#: An eighth of the pages; all of them with the proofs.
@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_every_page_is_whole(step: int, folder: Path, address: str, view: View) -> None:
    asked = foreign(view.page, address)
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.html"))[::step]:
        name = str(path.relative_to(folder))
        if name in ("404.html", "search.html", "genindex.html", "py-modindex.html"):
            continue
        view.page.goto(address + name)
        view.page.wait_for_function(DRAWN)
        if wrong := faults(view.page, view.axe):
            found[name] = wrong
    assert found == {}
    assert asked == []


def test_diagrams_are_drawn(address: str, page: Page, console: Console) -> None:
    page.goto(f"{address}explanation/architecture.html")
    page.wait_for_function(DRAWN)
    drawings = page.locator("pre.mermaid > svg")
    assert drawings.count() == 3
    assert "commit" in (drawings.nth(1).text_content() or "")
    assert [line for line in console.lines if "failed" in line] == []
