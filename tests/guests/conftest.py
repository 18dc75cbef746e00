"""The guests' browser is the one of the browser tests."""

from tests.support.browsing import chromium, chromium_path, context, launch, new_context, page

__all__ = ["chromium", "chromium_path", "context", "launch", "new_context", "page"]
