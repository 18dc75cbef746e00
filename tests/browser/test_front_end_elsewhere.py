"""A front end that Flask does not serve, on another port and host, from the ad to the purchase."""

import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import request
from playwright.sync_api import Page

from adroll_flask import report_conversion, report_event
from adroll_flask.sandbox import RunningSandbox
from tests.support import front_end, journey, pages
from tests.support.front_end import buy
from tests.support.journey import click_the_ad
from tests.support.page_shop import page_shop
from tests.support.pages import Page as DocumentedPage
from tests.support.serving import serving

Opened = Callable[..., AbstractContextManager[front_end.TwoServers]]


@pytest.fixture
def opened(adroll: RunningSandbox, tmp_path: Path) -> Opened:
    return partial(front_end.open_front_end, adroll, tmp_path)


@pytest.fixture(params=["http", "https"])
def tls(request: pytest.FixtureRequest, tls: ssl.SSLContext) -> journey.Tls:
    return tls if request.param == "https" else None


@pytest.mark.parametrize("host", ["www.shop.test", "brand.example"])
def test_a_front_end_on_another_host_buys(
    host: str, opened: Opened, tls: journey.Tls, page: Page, console: Any
) -> None:
    with opened(host=host, tls=tls) as shop:
        with page.expect_response(lambda r: r.url.endswith("/identity")) as answered:
            click = click_the_ad(page, shop, shop.url(host=host))
        page.goto(shop.url("/mugs", host))
        page.wait_for_function("window.adrollKit && adrollKit.token")
        assert buy(page) == "queued"
        record = shop.purchase()
        assert record["errors"] == []
        journey.check_known(record, click, journey.jar(page.context, page.url))
        assert record["event"]["page_location"] == page.url
        assert "Chrome" in record["event"]["user_agent"]
    assert console.lines == []
    cookies = page.context.cookies(f"{shop.scheme}://api.shop.test:{shop.api_port}")
    if host == "brand.example":
        # It bought with a token: the API set no cookie that a browser would keep for it.
        assert cookies == []
        return
    assert answered.value.status == 204
    visitor = next(c for c in cookies if c["name"].endswith("adroll_visitor"))
    assert (visitor["httpOnly"], visitor["domain"]) == (True, "api.shop.test")


def test_the_token_reports_nothing_before_a_yes(opened: Opened, page: Page) -> None:
    with opened(host="brand.example", ADROLL_CONSENT=lambda _request: None) as shop:
        click = click_the_ad(page, shop, shop.url(host="brand.example"))
        page.wait_for_function("window.adrollKit && adrollKit.token")
        assert buy(page) == "suppressed"
        assert page.context.cookies() == []
        page.evaluate("adrollKit.consent(true)")
        assert buy(page) == "queued"
        assert journey.identifiers(shop.purchase())["adct"] == click
        page.evaluate("adrollKit.consent(false)")
        assert buy(page) == "suppressed"


def test_without_the_api_the_shop_goes_on(opened: Opened, page: Page) -> None:
    with opened(host="brand.example") as shop:
        page.goto(shop.url(host="brand.example"))
        page.wait_for_function("window.adrollKit && adrollKit.token")
        page.route("**/identity", lambda route: route.abort())
        assert page.evaluate("adrollKit.token().then((token) => token === undefined)") is True


# -- docs/how-to/single-page-apps.md in a browser: its script calls its views ---------------------


DOC = "docs/how-to/single-page-apps.md"


def place_order(lines: list[Any]) -> SimpleNamespace:
    return SimpleNamespace(id="1001", total=Decimal("9.90") * len(lines))


def test_the_pages_script_reports_with_the_routers_address(page: Page, tmp_path: Path) -> None:
    [script] = [block.code for block in pages.blocks(DOC) if block.language == "js"]
    with page_shop(tmp_path, ADROLL_PIXEL="none") as shop:
        DocumentedPage(DOC).run(
            app=shop.app,
            place_order=place_order,
            report_conversion=report_conversion,
            report_event=report_event,
            request=request,
        )
        shop.start()
        with serving(shop.app) as port:
            address = f"http://shop.test:{port}"
            page.goto(f"{address}/?adct=click123")
            page.evaluate("history.pushState(0, '', '/checkout')")
            page.evaluate(f"async (cart) => {{ {script} }}", {"lines": [{}, {}]})
        assert shop.sold() == [("1001", Decimal("19.80"), "click123")]
        [sale] = shop.sandbox.purchases()
        assert sale["event"]["page_location"] == f"{address}/checkout"
