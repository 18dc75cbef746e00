"""The journeys once more, in Firefox and WebKitGTK: the same functions, with other pages.

Journey 4 needs a browser that keeps something when it ends, and WebKitGTK keeps nothing of a
session that a driver began.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser import test_journeys
from tests.browser.test_journeys import Opened, StartBrowser, opened, secure_shop
from tests.support.engine_pages import EngineContext, context, page
from tests.support.engines import ForwardProxy, firefox
from tests.support.journey import buy, click_the_ad, identifiers
from tests.support.outbox_engines import wait_until

__all__ = ["context", "opened", "page", "secure_shop"]


@pytest.fixture
def new_context(context: EngineContext) -> Callable[..., EngineContext]:
    def new_context(*, java_script_enabled: bool) -> EngineContext:
        # Neither can be told so by its driver; what a page is told by its server is the same to it.
        context.proxy.scripts = java_script_enabled
        return context

    return new_context


@pytest.fixture
def start_the_browser(tmp_path: Path, proxy: ForwardProxy) -> StartBrowser:
    @contextmanager
    def start() -> Iterator[EngineContext]:
        with firefox(tmp_path / "profile", proxy.port) as engine:
            yield EngineContext(engine, proxy)
            engine.quit()

    return start


#: The fourth in Firefox alone.
globals().update({name: test for name, test in vars(test_journeys).items() if name[:5] == "test_"})


def test_a_no_after_a_yes_takes_everything_back(opened: Opened, page: Any) -> None:
    def ours() -> set[str]:
        names = {cookie["name"] for cookie in page.context.cookies()}
        return names & {"adroll_visitor", "__adroll_fpc"}

    with opened(ADROLL_CONSENT=lambda _request: None) as site:
        clicked = click_the_ad(page, site)
        page.wait_for_function("window.adrollKit?.consent")
        assert ours() == set()
        page.evaluate("void adrollKit.consent(true)")
        assert wait_until(lambda: len(ours()) == 2)
        buy(page)
        assert identifiers(site.purchase())["adct"] == clicked
        page.evaluate("void adrollKit.consent(false)")
        assert wait_until(lambda: ours() == set())
        buy(page)
        site.deliver()
        assert len(site.adroll.purchases()) == 1
