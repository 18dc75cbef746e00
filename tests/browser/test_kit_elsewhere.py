"""The kit's tests once more, in Firefox and WebKitGTK: the same functions, with other pages."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser import test_kit, test_kit_consent, test_kit_lifecycle
from tests.support import engine_pages, engines

pytestmark = pytest.mark.slow

#: Tests of one browser alone, and why.
CHROMIUMS_OWN = {
    "test_what_was_not_taken_is_told_by_the_next": "reads the console",
    "test_what_the_server_refused_is_not_told_again": "reads the console",
    "test_a_lost_network_is_survived": "reads the console",
    "test_trusted_types_are_survived": "others have no Trusted Types, or say it otherwise",
    "test_no_storage_is_survived": "a setting in Chromium's profile",
    "test_a_prerendered_page_starts_shown": "others do not prerender",
}
#: What one engine does otherwise, and why.
DIFFERS = {
    ("webkit", "test_the_stub_takes_all_five_methods_until_the_script_comes"): (
        "its driver answers when the page has loaded, and then the stub has gone"
    ),
    ("webkit", "test_who_leaves_a_hanging_pixel_keeps_the_click_id"): (
        "it says nothing to who leaves before the load event: what there is was told before"
    ),
}


@pytest.fixture(params=[*engines.START])
def context(
    request: Any, started: Callable[[str], engines.Engine], proxy: engines.ForwardProxy
) -> Iterator[engine_pages.EngineContext]:
    why = DIFFERS.get((request.param, request.function.__name__))
    if why:
        pytest.skip(why)
    context = engine_pages.EngineContext(started(request.param), proxy)
    yield context
    context.close()


@pytest.fixture
def caching_context(context: engine_pages.EngineContext) -> engine_pages.EngineContext:
    """They keep pages for back and forward as they are."""
    return context


@pytest.fixture
def page(context: engine_pages.EngineContext) -> engine_pages.EnginePage:
    return context.new_page()


def _borrowed() -> dict[str, Any]:
    borrowed: dict[str, Any] = {}
    for module in (test_kit, test_kit_consent, test_kit_lifecycle):
        for name, value in vars(module).items():
            if name.startswith("test_") and callable(value) and name not in CHROMIUMS_OWN:
                short = module.__name__.rpartition("test_kit")[2]
                borrowed[name + short if name in borrowed else name] = value
    return borrowed


globals().update(_borrowed())


def test_what_is_left_out_is_there() -> None:
    modules = (test_kit, test_kit_consent, test_kit_lifecycle)
    there = {name for module in modules for name in vars(module)}
    assert CHROMIUMS_OWN.keys() | {name for _engine, name in DIFFERS} <= there
