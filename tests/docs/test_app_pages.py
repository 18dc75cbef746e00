"""The pages about apps that call a Flask API, in the browser and on phones, run as they stand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from adroll_flask import AdRoll, report_conversion, report_event
from adroll_flask.testing import reports
from tests.conftest import AppMaker
from tests.support.page_shop import ADDRESS, PageShop, page_shop
from tests.support.pages import Page

SHOP = "https://shop.test"
GAID = "38400000-8cf0-11bd-b23e-10b96e40000d"
NAMES: dict[str, Any] = {
    "report_conversion": report_conversion,
    "report_event": report_event,
    "request": request,
}


# -- a single-page app -------------------------------------------------------------------------


@dataclass
class Order:
    id: str
    total: Decimal


def place_orders(app: Flask, adroll: AdRoll) -> None:
    """Put the page's code into *app*, whose calls may carry a token in a header."""
    placed: list[Order] = []

    def place_order(lines: list[dict[str, Any]]) -> Order:
        placed.append(Order(str(1001 + len(placed)), Decimal("9.90") * len(lines)))
        return placed[-1]

    @adroll.identity
    def who() -> dict[str, str] | None:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return {"user_id": bearer} if bearer else None

    with Page("docs/how-to/single-page-apps.md") as page:
        page.run(app=app, place_order=place_order, **NAMES)


@pytest.fixture
def spa(make_app: AppMaker) -> Flask:
    adroll = AdRoll()
    app = make_app(adroll)
    place_orders(app, adroll)
    return app


@pytest.fixture
def browser(spa: Flask) -> FlaskClient:
    """A browser on the app's one page, after a click on an ad."""
    client = spa.test_client()
    client.environ_base.update(ADDRESS)
    client.get("/?adct=click123", base_url=SHOP)
    return client


def call(browser: FlaskClient, path: str, data: dict[str, Any], **headers: str) -> Any:
    # As fetch() calls.
    sent = {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin", **headers}
    return browser.post(path, json=data, base_url=SHOP, headers=sent)


def test_a_single_page_app_reports_with_the_page_that_it_shows(tmp_path: Path) -> None:
    with page_shop(tmp_path) as shop:
        place_orders(shop.app, shop.adroll)
        shop.start()
        browser = shop.browser()
        page = f"{SHOP}/checkout#payment"
        call(browser, "/api/cart", {"sku": "mug", "count": 2, "page": f"{SHOP}/mugs"})
        answer = call(browser, "/api/orders", {"lines": [{}, {}], "page": page})
        assert answer.get_json() == {"order": "1001"}
        assert shop.sold() == [("1001", Decimal("19.80"), "click123")]
        [sale], [added] = shop.sandbox.purchases(), shop.sandbox.accepted("addToCart")
        assert sale["event"]["page_location"].startswith(f"{SHOP}/checkout")
        assert added["event"]["page_location"] == f"{SHOP}/mugs"
        cookies = {one["event"]["identifiers"]["first_party_cookie"] for one in (sale, added)}
        assert len(cookies) == 1
        assert sale["event"]["ip"] == "203.0.113.7"


@pytest.mark.parametrize(
    "page", ["https://evil.example/", "https://shop.test.evil.example/", "https://[", "", None, 5]
)
def test_a_page_that_is_not_the_shops_is_not_taken_from_a_script(
    spa: Flask, browser: FlaskClient, page: Any
) -> None:
    with reports(spa) as reported:
        call(browser, "/api/orders", {"lines": [{}], "page": page})
    assert reported.one("purchase").page_location == f"{SHOP}/api/orders"


def test_who_is_logged_in_by_a_header_is_asked_at_each_call(
    spa: Flask, browser: FlaskClient
) -> None:
    with reports(spa) as reported:
        call(browser, "/api/orders", {"lines": [{}]}, Authorization="Bearer 17")
        call(browser, "/api/orders", {"lines": [{}]})
    assert [event.user_id for event in reported] == ["17", None]


# -- a mobile app ------------------------------------------------------------------------------

CALL = {"os": "iOS", "version": "14.1.3", "order": "A-7", "total": "12.00", "account": "17"}


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[PageShop]:
    """A shop with the page's API, which asks for the app's consent."""
    with page_shop(tmp_path, ADROLL_STRICT=False) as shop:
        with Page("docs/how-to/mobile-apps.md") as page:
            page.run(app=shop.app, **NAMES)
        shop.start()
        yield shop


def order(shop: PageShop, consent: str = "yes", **changes: Any) -> Any:
    # A phone: no cookies, an app's user agent.
    client = shop.app.test_client(use_cookies=False)
    headers = {
        "User-Agent": "Shop/14.1.3 CFNetwork/1568 Darwin/24.0.0",
        "X-Ads-Consent": consent,
    }
    data = {key: value for key, value in (CALL | changes).items() if value is not None}
    answer = client.post("/api/app/orders", json=data, headers=headers, environ_base=ADDRESS)
    assert answer.status_code == 201
    return answer.get_json()["report"]


def test_a_mobile_app_reports_with_the_click_of_its_universal_link(phone: PageShop) -> None:
    statuses = [order(phone, adct="click123", device_id=GAID) for _again in range(3)]
    assert statuses == ["queued", "duplicate", "duplicate"]
    assert phone.sold() == [("A-7", Decimal("12.00"), "click123")]
    event = phone.sandbox.purchases()[0]["event"]
    assert event["identifiers"]["device_id"] == GAID
    assert event["identifiers"]["user_id"] == "17"
    assert event["page_location"].startswith("https://shop.example/?device_os=iOS")
    assert event["ip"] == "203.0.113.7"


@pytest.mark.parametrize("device_id", [GAID, "00000000-0000-0000-0000-000000000000", None])
def test_without_a_click_the_same_id_gives_the_same_cookie(
    phone: PageShop, device_id: str | None
) -> None:
    with reports(phone.app) as reported:
        for number in ("A-1", "A-2"):
            assert order(phone, device_id=device_id, order=number) == "queued"
        order(phone, device_id=device_id, order="A-3", account="18")
    first, second, other = list(reported)
    assert first.first_party_cookie == second.first_party_cookie is not None
    # The device is the same one, whoever is logged in; without it the account decides.
    assert (other.first_party_cookie == first.first_party_cookie) == (device_id == GAID)
    assert (first.device_id == GAID) == (device_id == GAID)


def test_consent_comes_in_a_header_of_the_app(phone: PageShop) -> None:
    assert order(phone, "no", device_id=GAID, order="A-1") == "suppressed"
    assert order(phone, "yes", device_id=GAID, order="A-2") == "queued"
    assert [number for number, *_ in phone.sold()] == ["A-2"]
