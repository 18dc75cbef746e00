"""A pytest plugin, run inside a guest's suite: puts AdRoll around every app that Starlette's
``TestClient`` asks.

``-p everywhere_asgi --everywhere FILE``: as ``everywhere.py`` has it.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from everywhere import (  # type: ignore[import-not-found]  # beside it, there
    COUNTERS,
    pytest_addoption,
    pytest_sessionfinish,
)

from adroll_flask import AdRollASGIMiddleware

__all__ = ["pytest_addoption", "pytest_configure", "pytest_sessionfinish"]


def pytest_configure(config: pytest.Config) -> None:
    """Wraps ``TestClient.__init__``; the guests' own code stays as it is."""
    from starlette import testclient

    folder = config.getoption("--everywhere").parent
    made: Callable[..., None] = testclient.TestClient.__init__

    @wraps(made)
    def init(self: Any, app: Any, *args: Any, **kwargs: Any) -> None:
        if not testclient._is_asgi3(app):
            app = testclient._WrapASGI2(app)
        middleware = AdRollASGIMiddleware(
            app,
            advertisable_eid="ADVERTISABLE0000000001",
            pixel_eid="PIXEL00000000000000001",
            access_token="a-token",
            api_url="http://127.0.0.1:9/api",
            delivery="worker",
            secret_key="a key for tests",
            folder=str(folder),
            strict=True,
        )
        COUNTERS.append(middleware.runtime.counters)
        made(self, middleware, *args, **kwargs)

    testclient.TestClient.__init__ = init  # type: ignore[method-assign]
