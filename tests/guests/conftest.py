"""The guests' browser is the one of the browser tests."""

from tests.support.browsing import (
    browsers,
    chromium,
    chromium_path,
    context,
    driver,
    new_context,
    page,
)

__all__ = ["browsers", "chromium", "chromium_path", "context", "driver", "new_context", "page"]
