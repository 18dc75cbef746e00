"""The journeys once more, in Firefox and WebKitGTK: the same functions, with other pages.

Journey 4 needs a browser that keeps something when it ends, and WebKitGTK keeps nothing of a
session that a driver began. With the proofs; test_three_engines.py has the plain journey in each
browser every day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser import test_journeys
from tests.browser.test_journeys import StartBrowser, adroll, secure_shop, shop, tls
from tests.support.engine_pages import EngineContext, EnginePage
from tests.support.engines import START, ForwardProxy, Tabs, firefox

__all__ = ["adroll", "secure_shop", "shop", "tls"]

pytestmark = pytest.mark.slow


class Console:
    """Neither driver hands on what a page says there."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def without(self, _part: str) -> list[str]:
        return self.lines


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def watch_console() -> Callable[[Any], Console]:
    return lambda _context: Console()


@pytest.fixture(params=[*START])
def context(
    request: pytest.FixtureRequest, started: Callable[[str], Tabs], proxy: ForwardProxy
) -> Iterator[EngineContext]:
    context = EngineContext(started(request.param), proxy)
    yield context
    context.close()


@pytest.fixture
def new_context(context: EngineContext) -> Callable[..., EngineContext]:
    def new_context(*, java_script_enabled: bool) -> EngineContext:
        # Neither can be told so by its driver; what a page is told by its server is the same to it.
        context.proxy.scripts = java_script_enabled
        return context

    return new_context


@pytest.fixture
def page(context: EngineContext) -> EnginePage:
    return context.new_page()


@pytest.fixture
def start_the_browser(tmp_path: Path, proxy: ForwardProxy) -> StartBrowser:
    @contextmanager
    def start() -> Iterator[EngineContext]:
        with firefox(tmp_path / "profile", proxy.port) as engine:
            yield EngineContext(engine, proxy)
            engine.quit()

    return start


test_1_from_the_ad_to_the_purchase = test_journeys.test_1_from_the_ad_to_the_purchase
test_2_the_pixel_is_blocked = test_journeys.test_2_the_pixel_is_blocked
test_3_the_pixels_cookie_from_before = test_journeys.test_3_the_pixels_cookie_from_before
#: In Firefox.
test_4_a_visit_and_in_a_later_session_the_purchase = (
    test_journeys.test_4_a_visit_and_in_a_later_session_the_purchase
)
test_5_javascript_is_off = test_journeys.test_5_javascript_is_off
test_6_a_double_submit_and_a_reload_of_the_thank_you_page = (
    test_journeys.test_6_a_double_submit_and_a_reload_of_the_thank_you_page
)
test_7_a_landing_page_from_a_cache = test_journeys.test_7_a_landing_page_from_a_cache
test_8_click_on_www_and_purchase_on_pay = test_journeys.test_8_click_on_www_and_purchase_on_pay
test_9_adroll_is_offline_during_the_purchase = (
    test_journeys.test_9_adroll_is_offline_during_the_purchase
)
test_10_the_shop_is_killed_right_after_the_purchase = (
    test_journeys.test_10_the_shop_is_killed_right_after_the_purchase
)
