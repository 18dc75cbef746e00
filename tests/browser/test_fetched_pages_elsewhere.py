"""A page that a service worker kept, once more in Firefox."""

from tests.browser.test_fetched_pages import (
    site_with,
    test_a_page_that_a_service_worker_kept_brings_the_click_in,
)
from tests.support.engines import context, page

__all__ = ["context", "page", "site_with"]
__all__ += ["test_a_page_that_a_service_worker_kept_brings_the_click_in"]

#: What one engine does otherwise, and why.
DIFFERS = {
    ("webkit", "test_a_page_that_a_service_worker_kept_brings_the_click_in"): (
        "WebKitGTK's driver begins no service worker in its session"
    )
}
