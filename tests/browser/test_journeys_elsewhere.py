"""The journeys once more, in Firefox and WebKitGTK: the same functions, with other pages.

Journey 4 needs a browser that keeps something when it ends, and WebKitGTK keeps nothing of a
session that a driver began.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Response

from tests.browser import test_journeys
from tests.browser.test_journeys import StartBrowser, opened, secure_shop
from tests.support.engines import EngineContext, context, firefox, page
from tests.support.journey import Site

__all__ = ["context", "opened", "page", "secure_shop"]


@pytest.fixture
def new_context(context: EngineContext, shop: Site) -> Callable[..., EngineContext]:
    def new_context(*, java_script_enabled: bool) -> EngineContext:
        # Neither can be told so by its driver; what a page is told by its server is the same to it.
        assert shop.app is not None
        assert not java_script_enabled

        @shop.app.after_request
        def told(response: Response) -> Response:
            response.headers["Content-Security-Policy"] = "script-src 'none'"
            return response

        return context

    return new_context


@pytest.fixture
def start_the_browser(tmp_path: Path, tunnel: int) -> StartBrowser:
    @contextmanager
    def start() -> Iterator[EngineContext]:
        with firefox(tmp_path / "profile", tunnel) as engine:
            yield EngineContext(engine)
            engine.quit()

    return start


#: The fourth in Firefox alone.
globals().update({name: test for name, test in vars(test_journeys).items() if name[:5] == "test_"})
