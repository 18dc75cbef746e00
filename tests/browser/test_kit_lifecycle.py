"""The kit in pages that are shown before, or again after, they were loaded."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.support import eventually, started
from tests.support.browsing import CHROMIUM_ARGS
from tests.support.kit_site import COOKIE, LANDING, KitSite

#: Shown before the kit has had its answer, and whether the page came from the browser's cache.
WATCH = "<script>addEventListener('pageshow', (event) => (kept = event.persisted))</script>"


def test_a_prerendered_page_starts_shown(site: KitSite, chromium_path: str, tmp_path: Path) -> None:
    # Playwright keeps Chromium from prerendering, so nobody attends to this one.
    note = "(word) => fetch('/_adroll/identity', {method: 'POST', body: JSON.stringify(word)})"
    rules = '{"prerender": [{"urls": ["/landing?adct=click123"], "eagerness": "immediate"}]}'
    site.serve(
        f'<script type="speculationrules">{rules}</script>'
        "<script>(async function look() { if ((await fetch('/go')).ok) {"
        f" await ({note})('going'); location = '/landing?adct=click123'"
        " } else setTimeout(look, 200) })()</script>"
    )
    told = f"<script>({note})(document.prerendering ? 'prerendered' : 'not prerendered')</script>"
    site.serve(told + site.tag(), "/landing")
    command = [chromium_path, "--headless=new", f"--user-data-dir={tmp_path}", *CHROMIUM_ARGS]
    with started(*command, site.url(), gently=True):
        eventually(lambda: site.told == ["prerendered"])
        time.sleep(0.5)  # in which the kit would tell something
        site.serve("", "/go")
        eventually(lambda: len(site.told) >= 3)
    assert site.told == ["prerendered", "going", {"adct": "click123", "first_party_cookie": COOKIE}]


@pytest.fixture
def caching_context(launch: Callable[..., BrowserContext], tmp_path: Path) -> BrowserContext:
    """Playwright switches the cache for back and forward off."""
    return launch(tmp_path, ignore_default_args=["--disable-back-forward-cache"])


def come_back(page: Page) -> None:
    page.evaluate("history.back()")
    page.wait_for_function("window.kept")


def test_a_page_from_the_page_cache_goes_on(site: KitSite, caching_context: BrowserContext) -> None:
    page = caching_context.new_page()
    site.serve("", "/next")
    site.open(page, WATCH + site.tag(src=site.pixel_url(silent=1, cookieless=1)), LANDING)
    page.goto(site.url("/next"))
    assert site.wait_told(page, 1) == [{"adct": "click123"}]
    come_back(page)
    # The pixel that did not answer is another one now.
    page.evaluate(f"adroll = {{ get_cookie(callback) {{ callback('{COOKIE}') }} }}")
    assert site.wait_told(page, 2)[1] == {"adct": "click123", "first_party_cookie": COOKIE}
    page.goto(site.url("/next"))
    assert len(site.wait_told(page, 2)) == 2


def test_a_no_ends_a_page_from_the_cache(site: KitSite, caching_context: BrowserContext) -> None:
    page = caching_context.new_page()
    site.serve(site.tag(consent="tcf"), "/next")
    site.open(page, WATCH + site.tag(consent="tcf"), LANDING)
    page.evaluate("adrollKit.consent(true)")
    site.wait_told(page, 1)
    page.goto(site.url("/next"))
    page.evaluate("adrollKit.consent(false)")
    assert site.wait_told(page, 2)[1] == {"consent": False}
    come_back(page)
    page.evaluate("adroll.track('addToCart')")
    assert page.evaluate("seen.tracked") == ["pageView"]
    assert page.evaluate("sessionStorage.length") == 0
    assert len(site.wait_told(page, 2)) == 2
