"""What the journeys have in common: the demo shop behind real sockets, and a customer's steps."""

import datetime
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from flask import Flask
from playwright.sync_api import BrowserContext, Page

from adroll_flask.sandbox import RunningSandbox
from demo_app import create_app
from tests.support import started
from tests.support.serving import serving

#: A shop of http has none.
Tls = ssl.SSLContext | None
#: What the customer buys, as the event's products say it.
PRODUCTS = [
    {
        "product_id": "harbour-mug",
        "product_group": "tableware",
        "category": "Cups & pots",
        "price": "29.95",
        "quantity": 2,
    }
]


@dataclass
class Site:
    """The demo shop in this process, and AdRoll as its pages see it."""

    adroll: RunningSandbox
    #: AdRoll's origin for browsers; of the shop's own scheme, since mixed content is blocked.
    adroll_origin: str
    scheme: str
    port: int
    app: Flask | None = None

    def url(self, path: str = "/", host: str = "shop.test") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def ad_url(self, to: str) -> str:
        """The ad whose click leads to *to*."""
        return f"{self.adroll_origin}/ad?{urlencode({'to': to})}"

    @property
    def runtime(self) -> Any:
        assert self.app is not None
        return self.app.extensions["adroll"]

    def deliver(self) -> None:
        """Send what is reported; nothing waits afterwards, so what is not there never comes."""
        is_workers = self.runtime.settings.delivery == "worker"
        assert (self.runtime.deliverer if is_workers else self.runtime).flush(10) == 0

    def purchase(self) -> Any:
        """The one purchase that AdRoll has, after everything was delivered."""
        self.deliver()
        [record] = self.adroll.events("purchase")
        return record


@contextmanager
def adroll_origin(adroll: RunningSandbox, tls: Tls) -> Iterator[str]:
    """AdRoll's origin under its own host, over TLS where the shop's pages need it.

    The shop's server reaches the event API on loopback without TLS: the certificate is nobody's.
    """
    if tls is None:
        yield adroll.url_at("adroll.example")
        return
    with serving(adroll.app, tls) as port:
        yield f"https://adroll.example:{port}"


@contextmanager
def open_shop(
    adroll: RunningSandbox, folder: Path, *, tls: Tls = None, front: Any = None, **config: Any
) -> Iterator[Site]:
    """The demo shop on a free port, at all of its hosts.

    :param front: takes the WSGI application and returns what stands before it.
    """
    with adroll_origin(adroll, tls) as origin:
        app = create_app(
            {
                "ADROLL_API_URL": adroll.api_url,
                "ADROLL_PIXEL_URL": origin + "/j/{advertisable_eid}/roundtrip.js",
                "ADROLL_LINGER": 0.1,
                **config,
            },
            instance_path=str(folder / "instance"),
        )
        with serving(app if front is None else front(app), tls) as port:
            scheme = "http" if tls is None else "https"
            yield Site(adroll, origin, scheme, port, app)
        # The thread delivers to its end, so that no thread outlives the test's AdRoll.
        app.extensions["adroll"].flush(2)


@contextmanager
def shop_process(adroll: RunningSandbox, folder: Path, port: int = 0) -> Iterator[int]:
    """The demo shop as a process of its own, at *port* or a free one; in the end it is killed."""
    origin = adroll.url_at("adroll.example")
    env = os.environ | {
        "FLASK_ADROLL_API_URL": adroll.api_url,
        "FLASK_ADROLL_PIXEL_URL": origin + "/j/{advertisable_eid}/roundtrip.js",
    }
    command = (sys.executable, "-m", "demo_app", "--no-sandbox", f"--port={port}")
    instance = f"--instance={folder / 'instance'}"
    with started(*command, instance, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield urlsplit(process.stdout.readline().split()[1]).port or 0


# -- a customer's steps -----------------------------------------------------------------------


@dataclass(frozen=True)
class Bought:
    number: str
    #: Epoch seconds in the browser, around the order.
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def click_the_ad(page: Page, site: Site, to: str | None = None) -> str:
    """From the ad to the shop; returns the click id in the landing page's address."""
    page.goto(site.ad_url(to or site.url()))
    page.click("#ad")
    page.wait_for_url(lambda url: "adct=" in url)
    return click_id(page.url)


def click_id(url: str) -> str:
    return parse_qs(urlsplit(url).query)["adct"][0]


def fill_the_cart(page: Page) -> None:
    """From a shop page to the cart with two mugs."""
    page.click(".brand")
    page.click("a[href$='/harbour-mug']")
    page.fill("#quantity", "2")
    page.click("form.row button")
    assert page.inner_text(".flash").strip() == "Harbour mug is in your cart."


def go_to_the_checkout(page: Page) -> None:
    page.click("a[href$='/checkout']")
    page.fill("#email", "ada@example.com")


def place_the_order(page: Page) -> Bought:
    """From the checkout to the thank-you page."""
    began = datetime.datetime.now().timestamp()
    page.click("#order button")
    number = page.inner_text("#order-number")
    return Bought(number, began, datetime.datetime.now().timestamp())


def buy(page: Page) -> Bought:
    """From a shop page to the thank-you page."""
    fill_the_cart(page)
    go_to_the_checkout(page)
    return place_the_order(page)


def jar(context: BrowserContext, url: str) -> str:
    """The browser's one first-party cookie for *url*; two of the name would be a fault."""
    [value] = [one["value"] for one in context.cookies(url) if one["name"] == "__adroll_fpc"]
    return value


def identifiers(record: Any) -> dict[str, Any]:
    found: dict[str, Any] = record["event"]["identifiers"]
    return found


def check_known(record: Any, click: str | None, cookie: str) -> None:
    """The sandbox's record says of which visitor it is."""
    known = identifiers(record)
    assert (known.get("adct"), known["first_party_cookie"]) == (click, cookie)


def check_purchase(record: Any, bought: Bought, click: str | None, cookie: str) -> None:
    """The sandbox's record of a purchase says what was bought, and by whom."""
    check_known(record, click, cookie)
    assert record["verdict"] == "accepted"
    assert record["errors"] == []
    assert record["reported_by_pixel_too"] is False
    event = record["event"]
    assert event["event_attributes"]["order_id"] == bought.number
    assert Decimal(str(event["conversion_value"])) == Decimal("59.90")
    assert event["currency"] == "EUR"
    assert event["event_attributes"]["products"] == PRODUCTS
    assert bought.began - 1 <= event["timestamp"] <= bought.ended + 1
