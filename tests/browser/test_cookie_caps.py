"""What Safari's caps on cookies do to each identifier: docs/reference/browsers.md in Chromium.

Safari keeps what a script writes into ``document.cookie`` for seven days, and for one day where the
page was reached from a classified domain with a query in its address, as from an ad. Cookies that a
server sets are not capped (WebKit, "Tracking Prevention"). Chromium caps nothing, so a script caps
``document.cookie`` before any other runs, and days pass by removing what has run out by then.
"""

import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page

from adroll_flask.sandbox import RunningSandbox
from tests.support import front_end
from tests.support.journey import Site, buy, check_known, click_the_ad, identifiers, jar

DAY = 86_400.0

#: Any script's write gets at most a day on a page with a click id, at most seven days elsewhere.
CAPS = """
const real = Object.getOwnPropertyDescriptor(Document.prototype, "cookie");
Object.defineProperty(Document.prototype, "cookie", {
  configurable: true,
  get() { return real.get.call(this); },
  set(text) {
    const most = 86400 * (/[?&]adct=/.test(location.href) ? 1 : 7);
    const age = /;\\s*max-age=(-?\\d+)/i.exec(text);
    const date = /;\\s*expires=([^;]*)/i.exec(text);
    const asked = age ? +age[1] : date ? (Date.parse(date[1]) - Date.now()) / 1000 : most;
    const rest = text.replace(/;\\s*(max-age|expires)=[^;]*/gi, "");
    real.set.call(this, `${rest};max-age=${Math.floor(Math.min(asked, most))}`);
  },
});
"""


@pytest.fixture(autouse=True)
def _caps(context: BrowserContext) -> None:
    context.add_init_script(CAPS)


def pass_days(context: BrowserContext, days: float) -> Page:
    """Remove what has run out after *days*, and come back in a new tab."""
    for page in context.pages:
        page.close()
    kept: Any = [c for c in context.cookies() if c["expires"] > time.time() + days * DAY]
    context.clear_cookies()
    context.add_cookies(kept)
    return context.new_page()


def days_left(context: BrowserContext, name: str, url: str) -> float:
    [expires] = [c["expires"] for c in context.cookies(url) if c["name"] == name]
    return (float(expires) - time.time()) / DAY


def land(page: Page, site: Site) -> str:
    """From the ad to the landing page, which the visitor looks at twice; the click id.

    The first time the kit's message has the server write the cookie last; then the pixel does.
    """
    with page.expect_response(lambda r: r.url.endswith("/identity")):
        click = click_the_ad(page, site)
    page.reload()
    pixel_has_written(page)
    return click


def pixel_has_written(page: Page) -> None:
    page.wait_for_function("document.cookie.includes('__adroll_fpc=') && !!adroll.get_cookie")
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("days", [2, pytest.param(8, marks=pytest.mark.slow), 300])
def test_who_buys_days_later_is_who_clicked(days: float, shop: Site, page: Page) -> None:
    click = land(page, shop)
    cookie = jar(page.context, page.url)
    assert days_left(page.context, "__adroll_fpc", page.url) == pytest.approx(1, abs=0.1)
    assert days_left(page.context, "adroll_visitor", page.url) == pytest.approx(365, abs=1)

    page = pass_days(page.context, days)
    assert {c["name"] for c in page.context.cookies(shop.url())} >= {"adroll_visitor"}
    assert "__adroll_fpc" not in {c["name"] for c in page.context.cookies(shop.url())}
    page.goto(shop.url())
    buy(page)
    check_known(shop.purchase(), click, cookie)
    # And the pixel has its visitor back: the server restored the cookie before it ran.
    assert jar(page.context, page.url) == cookie
    assert {seen["cookie"] for seen in shop.adroll.tracked()} == {cookie}
    page.goto(shop.url())
    pixel_has_written(page)
    assert days_left(page.context, "__adroll_fpc", page.url) == pytest.approx(7, abs=0.1)


def test_elsewhere_only_the_click_stays(adroll: RunningSandbox, tmp_path: Path, page: Page) -> None:
    with front_end.open_front_end(adroll, tmp_path, host="www.shop.test") as shop:
        with page.expect_response(lambda r: r.url.endswith("/identity")):
            page.goto(shop.url("/?adct=click123", "www.shop.test"))
        first = {c["name"]: c["value"] for c in page.context.cookies(page.url)}["__adroll_fpc"]

        page = pass_days(page.context, 8)
        with page.expect_response(lambda r: r.url.endswith("/identity")):
            page.goto(shop.url(host="www.shop.test"))
        assert front_end.buy(page) == "queued"
        known = identifiers(shop.purchase())
    assert known["adct"] == "click123"
    assert known["first_party_cookie"] != first
