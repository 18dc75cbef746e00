"""Debian's Chromium for tests: fixtures, to be imported where they are used.

Hosts of their own instead of ``localhost``: there, host-only and domain cookies fall together, and
the traps between them would stay unseen.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright import sync_api
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright

from tests.support import PATIENCE, ROOT, eventually, lacking

#: The fixtures: a folder's conftest.py imports them all.
__all__ = ["axe", "browsers", "chromium", "chromium_path", "console", "context", "driver"]
__all__ += ["launch", "new_context", "page", "view"]

HOSTS = (
    *("shop.test", "www.shop.test", "pay.shop.test", "api.shop.test"),
    *("brand.example", "adroll.example"),
)
NewContext = Callable[..., BrowserContext]
CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=" + ", ".join(f"MAP {host} 127.0.0.1" for host in HOSTS),
)


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where Chromium is; without one the test is skipped, or fails where CI says so."""
    name = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    how = "apt-get install chromium, or set CHROMIUM to its path"
    return shutil.which(name) or lacking(f"no {name}: {how}")


# A folder's, since Playwright's event loop runs in the main thread for as long as it is open, and
# asyncio refuses a second one there: to the tests of async views, and to another Playwright.
@pytest.fixture(scope="package")
def driver() -> Iterator[Playwright]:
    with sync_api.sync_playwright() as playwright:
        yield playwright


def _options(path: str) -> dict[str, Any]:
    return {"executable_path": path, "args": list(CHROMIUM_ARGS)}


@pytest.fixture
def launch(driver: Playwright, chromium_path: str) -> Iterator[Callable[..., BrowserContext]]:
    """Start a browser whose profile is a folder: ``launch(folder, ignore_default_args=[...])``.

    It is ended with the test.
    """
    started: list[BrowserContext] = []

    def start(profile: Path, **options: Any) -> BrowserContext:
        options |= _options(chromium_path)
        started.append(driver.chromium.launch_persistent_context(profile, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="package")
def browsers(driver: Playwright) -> Iterator[list[Browser]]:
    """The browser that all tests of a folder share, and those before it that have died."""
    started: list[Browser] = []
    yield started
    for one in started:
        one.close()


@pytest.fixture
def chromium(driver: Playwright, browsers: list[Browser], chromium_path: str) -> Browser:
    """The browser that all tests share; what is in it is kept apart by contexts."""
    if not browsers or not browsers[-1].is_connected():
        browsers.append(driver.chromium.launch(**_options(chromium_path)))
    return browsers[-1]


@pytest.fixture
def new_context(chromium: Browser) -> Iterator[NewContext]:
    """A browser with nothing in it: ``new_context(java_script_enabled=False)``."""
    contexts: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:
        context = chromium.new_context(ignore_https_errors=True, **options)
        context.set_default_timeout(1000 * PATIENCE)
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def context(new_context: NewContext) -> BrowserContext:
    """One fresh browser context."""
    return new_context()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """One fresh page."""
    return context.new_page()


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's source: ``cd docs && npm ci --ignore-scripts``."""
    path = ROOT / "docs" / "node_modules" / "axe-core" / "axe.min.js"
    return path.read_text() if path.is_file() else lacking(f"no {path}: make docs brings it")


def wait_in(page: Page, condition: Callable[[], object]) -> None:
    """Wait until *condition* is true, while the page goes on."""
    eventually(condition, wait=lambda: page.wait_for_timeout(20))


def faults(page: Page, axe: str) -> list[Any]:
    """What axe finds wrong with the page as it stands, and whether it is too wide."""
    page.evaluate(axe)
    found: list[Any] = page.evaluate(
        "axe.run().then(found => found.violations.map("
        "one => [one.id, one.nodes.map(node => [node.target, node.failureSummary])]))"
    )
    if not page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
        found.append("wider than the window")
    return found


class Console:
    """What a context's pages put on the console: messages, uncaught errors, failed requests."""

    def __init__(self, context: BrowserContext) -> None:
        self.lines: list[str] = []
        context.on("console", self._message)
        context.on("weberror", lambda error: self.lines.append(f"uncaught: {error.error}"))

    def _message(self, message: ConsoleMessage) -> None:
        self.lines.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def without(self, part: str) -> list[str]:
        """The lines that do not hold *part*, such as the URL of a script that the test blocks."""
        return [line for line in self.lines if part not in line]


@pytest.fixture
def console(context: BrowserContext) -> Console:
    """The console of ``context``'s pages: ``assert console.lines == []``."""
    return Console(context)


@dataclass
class View:
    """A page at one width and in one scheme of colours, which puts nothing on the console."""

    page: Page
    axe: str
    console: Console

    def cut(self) -> list[str]:
        """The tables and messages of which a part is out of sight, across."""
        found: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('.scroll, .message pre')]"
            ".filter(one => one.checkVisibility({contentVisibilityAuto: true}))"
            ".filter(one => one.scrollWidth > one.clientWidth).map(one => one.innerText)"
        )
        return found

    def assert_whole(self) -> None:
        """All that can be opened is, and nobody is kept out."""
        # On a wide page advice is open, and has nothing to click.
        for summary in self.page.locator("summary:visible").all():
            summary.click()
        assert faults(self.page, self.axe) == []
        assert self.console.lines == []


#: Colours do not depend on the width.
@pytest.fixture(
    params=[(1280, 900, "light"), (360, 780, "dark")], ids=["wide-light", "narrow-dark"]
)
def view(request: Any, new_context: NewContext, axe: str) -> View:
    """Each of a page's two looks."""
    width, height, scheme = request.param
    size = {"width": width, "height": height}
    context = new_context(viewport=size, color_scheme=scheme, locale="en-GB")
    return View(context.new_page(), axe, Console(context))
