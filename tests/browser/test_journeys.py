"""From an ad click to a conversion at AdRoll, in a real browser: ten journeys that must work."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Page
from werkzeug.test import Client

from adroll_flask.sandbox import RunningSandbox
from tests.support import PATIENCE, browsing, journey
from tests.support.journey import Site, buy, check_purchase, click_the_ad, identifiers, jar
from tests.support.kit_site import SERVER_COOKIE, set_cookies
from tests.support.sites import RECORD

Opened = Callable[..., AbstractContextManager[Site]]


@pytest.fixture
def opened(adroll: RunningSandbox, tmp_path: Path) -> Opened:
    return partial(journey.open_shop, adroll, tmp_path)


@pytest.fixture
def secure_shop(adroll: RunningSandbox, tmp_path: Path, tls: ssl.SSLContext) -> Iterator[Site]:
    with journey.open_shop(adroll, tmp_path, tls=tls) as site:
        yield site


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_1_from_the_ad_to_the_purchase(
    scheme: str, request: pytest.FixtureRequest, page: Page, console: Any
) -> None:
    site: Site = request.getfixturevalue("shop" if scheme == "http" else "secure_shop")
    click = click_the_ad(page, site)
    bought = buy(page)

    purchase = site.purchase()
    check_purchase(purchase, bought, click, jar(page.context, page.url))
    assert purchase["journey"]["click"]["known"] is True
    # The pixel is on the page, and its visitor is the same one.
    assert purchase["journey"]["cookie"]["seen_by_pixel"] is True
    assert {seen["cookie"] for seen in site.adroll.tracked()} == {jar(page.context, page.url)}
    name = RECORD if scheme == "https" else "adroll_visitor"
    record = next(c for c in page.context.cookies(page.url) if c["name"] == name)
    assert (record["httpOnly"], record["secure"]) == (True, scheme == "https")
    assert console.lines == []


def test_2_the_pixel_is_blocked(shop: Site, page: Page, console: Any) -> None:
    shop.adroll.fault(path="/j/*", status=404)
    click = click_the_ad(page, shop)
    from_the_start = jar(page.context, page.url)
    bought = buy(page)

    check_purchase(shop.purchase(), bought, click, from_the_start)
    # One identity through the journey, the server's.
    events = shop.adroll.accepted()
    assert {event["event_name"] for event in events} == {"addToCart", "purchase"}
    assert {identifiers(event)["first_party_cookie"] for event in events} == {from_the_start}
    assert jar(page.context, page.url) == from_the_start
    assert shop.adroll.tracked() == []
    page.goto(shop.url("/me"))
    assert "Made by this shop." in page.inner_text("main")
    # The browser's own line about the script that is blocked is nobody's to suppress.
    assert console.without("/roundtrip.js") == []


def test_3_the_pixels_cookie_from_before(shop: Site, page: Page, console: Any) -> None:
    # As the pixel writes it: with the page's host as its domain.
    set_cookies(page.context, ".shop.test")
    click = click_the_ad(page, shop)
    bought = buy(page)

    check_purchase(shop.purchase(), bought, click, SERVER_COOKIE)
    assert jar(page.context, page.url) == SERVER_COOKIE
    assert {seen["cookie"] for seen in shop.adroll.tracked()} == {SERVER_COOKIE}
    assert console.lines == []


def wait_for_the_cookie(page: Page, name: str) -> None:
    """Until the browser has it: what a page's script wrote comes a moment later."""
    browsing.wait_in(page, lambda: name in {one["name"] for one in page.context.cookies(page.url)})


#: A browser with a profile on disk; it is ended, and started again with the same one.
StartBrowser = Callable[[], AbstractContextManager[Any]]


@pytest.fixture
def start_the_browser(launch: Callable[..., Any], tmp_path: Path) -> StartBrowser:
    return lambda: closing(launch(tmp_path / "profile", ignore_https_errors=True))


def test_4_a_visit_and_in_a_later_session_the_purchase(
    secure_shop: Site, start_the_browser: StartBrowser
) -> None:
    with start_the_browser() as monday:
        page = monday.new_page()
        page.goto(secure_shop.url("/products/saltmarsh-vase"))
        visitor = jar(monday, page.url)
        # Who closes the browser sooner has no cookie of the pixel's.
        wait_for_the_cookie(page, "__ar_v4")

    with start_the_browser() as friday:
        kept = {cookie["name"]: cookie for cookie in friday.cookies(secure_shop.url())}
        # What the pixel's script wrote last may not have reached the disk.
        record = RECORD if secure_shop.scheme == "https" else "adroll_visitor"
        assert kept.keys() - {"__ar_v4"} == {"__adroll_fpc", record}
        assert kept[record]["secure"] is (secure_shop.scheme == "https")
        console = browsing.Console(friday)
        page = friday.new_page()
        page.goto(secure_shop.url())
        bought = buy(page)
        assert jar(friday, page.url) == visitor
        assert console.lines == []

    check_purchase(secure_shop.purchase(), bought, None, visitor)


def test_5_javascript_is_off(shop: Site, new_context: browsing.NewContext) -> None:
    context = new_context(java_script_enabled=False)
    console = browsing.Console(context)
    page = context.new_page()
    click = click_the_ad(page, shop)
    bought = buy(page)

    check_purchase(shop.purchase(), bought, click, jar(context, page.url))
    assert shop.adroll.tracked() == []
    assert console.lines == []


def test_6_a_double_submit_and_a_reload_of_thanks(opened: Opened, page: Page, console: Any) -> None:
    second_came = threading.Event()
    orders: list[str] = []

    def slow_at_the_till(app: Any) -> Any:
        def answer(environ: Any, start_response: Any) -> Any:
            if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) == ("POST", "/checkout"):
                orders.append("sent")
                if len(orders) == 1:
                    # Impatience: the second click comes while the first is being answered.
                    assert second_came.wait(PATIENCE)
                else:
                    second_came.set()
            return app(environ, start_response)

        return answer

    with opened(front=slow_at_the_till) as site:
        click_the_ad(page, site)
        journey.fill_the_cart(page)
        journey.go_to_the_checkout(page)
        page.dblclick("#order button", delay=100)
        number = page.inner_text("#order-number")
        for _ in range(2):
            page.reload()
            assert page.inner_text("#order-number") == number

        assert orders == ["sent", "sent"]
        assert site.purchase()["event"]["event_attributes"]["order_id"] == number
        assert console.lines == []


def test_7_a_landing_page_from_a_cache(opened: Opened, page: Page, console: Any) -> None:
    asked: list[str] = []

    def cached(app: Any) -> Any:
        """As a CDN is told to keep a page: by path, whatever the query says."""
        kept = Client(app).get("/story", buffered=True)  # somebody else's visit filled the cache
        assert "public" in kept.headers["Cache-Control"]
        assert "Set-Cookie" not in kept.headers

        def answer(environ: Any, start_response: Any) -> Any:
            if environ["PATH_INFO"] == "/story":
                return kept(environ, start_response)
            asked.append(f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}")
            return app(environ, start_response)

        return answer

    with opened(front=cached) as site:
        click = click_the_ad(page, site, to=site.url("/story"))
        # Who leaves sooner takes along either this answer's record or the next page's.
        wait_for_the_cookie(page, "adroll_visitor")
        bought = buy(page)

        assert "/_adroll/identity?" in asked
        assert [one for one in asked if "adct" in one] == []
        check_purchase(site.purchase(), bought, click, jar(page.context, page.url))
        page.goto(site.url("/me"))
        assert "told by the page’s script" in page.inner_text("main")
        assert console.lines == []


def test_8_click_on_www_buy_on_pay(
    opened: Opened, tls: ssl.SSLContext, page: Page, console: Any
) -> None:
    with opened(tls=tls, ADROLL_COOKIE_DOMAIN="auto") as site:
        www, pay = (site.url(host=f"{name}.shop.test") for name in ("www", "pay"))
        click = click_the_ad(page, site, to=www)
        visitor = jar(page.context, www)
        page.goto(pay)
        bought = buy(page)
        assert urlsplit(page.url).hostname == "pay.shop.test"

        check_purchase(site.purchase(), bought, click, visitor)
        # The pixel found the same visitor on both; each host has a cookie of its own for it.
        assert jar(page.context, pay) == jar(page.context, www) == visitor
        cookies = [*page.context.cookies(www), *page.context.cookies(pay)]
        domains = {one["domain"] for one in cookies if one["name"] == "__adroll_fpc"}
        assert domains == {".www.shop.test", ".pay.shop.test"}
        assert {seen["cookie"] for seen in site.adroll.tracked()} == {visitor}
        [record] = [c for c in page.context.cookies(pay) if c["name"] == "adroll_visitor"]
        assert (record["domain"], record["secure"]) == (".shop.test", True)
        assert console.lines == []


def test_9_adroll_is_offline_during_the_purchase(shop: Site, page: Page, console: Any) -> None:
    click = click_the_ad(page, shop)
    journey.fill_the_cart(page)
    shop.deliver()
    shop.adroll.fault(path="*", offline=600)
    journey.go_to_the_checkout(page)
    bought = journey.place_the_order(page)
    # The shop does not notice: the thank-you page comes as fast as any, and no page complains.
    assert bought.seconds < 5
    page.reload()
    # But for the browser itself, of AdRoll's own script and what that asks for.
    assert console.without("(http://adroll.example") == []
    time.sleep(1.5)
    assert shop.adroll.events("purchase") == []

    shop.adroll.clear_faults()
    [purchase] = shop.adroll.wait(1, "purchase", timeout=PATIENCE)
    check_purchase(purchase, bought, click, jar(page.context, page.url))
    assert purchase["received_at"] > purchase["event"]["timestamp"] + 1.5
    assert shop.purchase() == purchase


def test_10_a_killed_shop(adroll: RunningSandbox, tmp_path: Path, page: Page, console: Any) -> None:
    with journey.shop_process(adroll, tmp_path) as port:
        site = Site(adroll, adroll.url_at("adroll.example"), "http", port)
        click = click_the_ad(page, site)
        journey.fill_the_cart(page)
        journey.go_to_the_checkout(page)
        adroll.wait(1, "addToCart")
        adroll.fault(path="*", offline=600)
        bought = journey.place_the_order(page)
        assert console.without("/roundtrip.js") == []
    visitor = jar(page.context, page.url)
    assert adroll.events("purchase") == []

    adroll.clear_faults()
    with journey.shop_process(adroll, tmp_path, port):
        # A look at the first page by somebody who buys nothing, has no cookie and reports nothing.
        looked = requests.get(f"http://127.0.0.1:{port}/", timeout=PATIENCE)
        assert looked.status_code == 200
        [purchase] = adroll.wait(1, "purchase", timeout=PATIENCE)
        check_purchase(purchase, bought, click, visitor)
        # The customer's thank-you page is there again as well, and reports nothing more.
        page.reload()
        assert page.inner_text("#order-number") == bought.number
        assert len(adroll.events("purchase")) == 1
