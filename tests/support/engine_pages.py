"""Firefox's and WebKit's tabs, to be used as Playwright's pages are: what the kit's tests call.

Playwright drives builds of its own of these engines and not those that people have.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.support import PATIENCE
from tests.support.engines import BLANK, START, Engine, ForwardProxy, by_text, click, until

#: Hosts on which the kit's tests leave cookies.
HOSTS = ("shop.test", "www.shop.test", "pay.shop.test")


def _found_by(selector: str) -> str:
    """The expression for what one of the selectors finds that the journeys use."""
    text = re.fullmatch(r"text=(.*?)(?: >> nth=0)?", selector)
    if text:
        return f"{by_text('a, button', text[1])} || {by_text('p, li, div', text[1])}"
    exact = re.fullmatch(r"(\w+):text-is\('(.*)'\)", selector)
    if exact:
        return by_text(exact[1], exact[2])
    return f"document.querySelector({json.dumps(selector)})"


class EngineContext:
    """What the tabs of one test share: cookies, and what the proxy does to their requests."""

    def __init__(self, engine: Engine, proxy: ForwardProxy) -> None:
        self.engine = engine
        self.proxy = proxy
        self._tabs: list[str] = []
        self._first = engine.open_tab()

    def on(self, event: str, _handler: object) -> None:
        """Neither driver hands on what a page says on the console."""

    def new_page(self) -> EnginePage:
        self._tabs.append(self.engine.open_tab())
        return EnginePage(self, self._tabs[-1])

    def forget(self, tab: str) -> None:
        """Close a tab; the first one stays, so that the browser does."""
        self._tabs.remove(tab)
        self.engine.close_tab(tab)
        self.engine.use_tab(self._first)

    def cookies(self, url: str = "") -> list[dict[str, Any]]:
        """Those of the current page, or of the host of *url*."""
        host = urlsplit(url).hostname
        if host is None or host == self.engine.evaluate("location.hostname"):
            return list(self.engine.cookies().values())
        # WebKit's driver knows the current page's alone. A cookie is of all ports, and https sees
        # all of them.
        before = self.engine.tab
        tab = self.engine.open_tab()
        self.engine.goto(f"https://{host}{BLANK}")
        found = list(self.engine.cookies().values())
        self.engine.close_tab(tab)
        self.engine.use_tab(before)
        return found

    def route(self, pattern: str, handler: Callable[[Any], object]) -> None:
        """Stop requests: *handler* aborts them, or lets them hang."""
        aborted: list[str] = []
        handler(SimpleNamespace(abort=lambda why="": aborted.append(why)))
        self.proxy.stop(pattern, hang=not aborted)

    def add_cookies(self, cookies: Sequence[dict[str, str]]) -> None:
        for cookie in cookies:
            domain = cookie["domain"]
            text = f"{cookie['name']}={cookie['value']}; Path={cookie['path']}"
            if domain.startswith("."):
                text += f"; Domain={domain[1:]}"
            self.engine.goto(f"http://{domain.lstrip('.')}{BLANK}?cookie={quote(text)}")

    def clear_cookies(self) -> None:
        self.engine.use_tab(self._first)
        for host in HOSTS:  # WebKit's driver knows the cookies of the current page's host alone
            self.engine.goto(f"https://{host}{BLANK}")
            self.engine.clear()

    def close(self) -> None:
        """End the test's tabs and forget what they left."""
        self.proxy.reset()
        for tab in list(self._tabs):
            self.forget(tab)
        self.clear_cookies()
        self.engine.use_tab(self._first)


class EnginePage:
    """One tab."""

    def __init__(self, context: EngineContext, tab: str) -> None:
        self.context = context
        self._tab = tab

    @property
    def _engine(self) -> Engine:
        engine = self.context.engine
        engine.use_tab(self._tab)
        return engine

    def goto(self, url: str, wait_until: str = "load") -> None:
        engine = self._engine
        if wait_until == "load":
            engine.goto(url)
            return
        engine.begin(url)
        until(engine, f"location.href == {json.dumps(url)}")

    def evaluate(self, text: str, argument: Any = None) -> Any:
        """The value of *text*: statements, an expression, or a function of *argument*."""
        # A page's Content-Security-Policy may forbid eval(), which only statements need.
        value = text if text.startswith("(") else f"(0, eval)({json.dumps(text)})"
        return self._engine.evaluate(
            f"((found) => typeof found == 'function' ? found({json.dumps(argument)}) : found)"
            f"({value})"
        )

    def wait_for_function(self, text: str) -> None:
        until(self._engine, f"!!({text})")

    @property
    def url(self) -> str:
        return str(self._engine.evaluate("location.href"))

    def wait_for_url(self, matches: Callable[[str], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not matches(self.url):
            assert time.monotonic() < end, self.url
            time.sleep(0.05)

    def wait_for_selector(self, selector: str) -> None:
        until(self._engine, f"!!({_found_by(selector)})")

    def inner_text(self, selector: str) -> str:
        self.wait_for_selector(selector)
        return str(self._engine.evaluate(f"({_found_by(selector)}).innerText"))

    def fill(self, selector: str, value: str) -> None:
        self.wait_for_selector(selector)
        self._engine.evaluate(f"({_found_by(selector)}).value = {json.dumps(value)}")

    def click(self, selector: str) -> None:
        """Click, and wait for the page that follows."""
        click(self._engine, _found_by(selector))

    def dblclick(self, selector: str, delay: float = 0) -> None:
        """Click twice, *delay* milliseconds apart, and wait for the page that follows."""
        twice = f"one.click(); setTimeout(() => one.click(), {delay})"
        found = _found_by(selector)
        click(self._engine, f"((one) => one && {{ click() {{ {twice} }} }})({found})")

    def reload(self) -> None:
        click(self._engine, "({click() { location.reload() }})")

    def wait_for_timeout(self, milliseconds: float) -> None:
        time.sleep(milliseconds / 1000)

    def route(self, pattern: str, handler: Callable[[Any], object]) -> None:
        self.context.route(pattern, handler)

    def add_init_script(self, text: str) -> None:
        self.context.proxy.head = f"<script>{text}</script>"

    def close(self) -> None:
        self.context.forget(self._tab)


@pytest.fixture(params=[*START])
def context(
    request: Any, started: Callable[[str], Engine], proxy: ForwardProxy
) -> Iterator[EngineContext]:
    """To be imported, with :func:`page`, where these engines take Chromium's place."""
    why = getattr(request.module, "DIFFERS", {}).get((request.param, request.function.__name__))
    if why:
        pytest.skip(why)
    context = EngineContext(started(request.param), proxy)
    yield context
    context.close()


@pytest.fixture
def page(context: EngineContext) -> EnginePage:
    return context.new_page()
