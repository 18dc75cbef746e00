"""The plain journey, consent and the kit's message in Chromium, Firefox and WebKitGTK."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adroll_flask.sandbox import RunningSandbox, running
from tests.support.engines import START, Chromium, Engine, by_text, click, until
from tests.support.journey import (
    EMAIL,
    Bought,
    Site,
    check_purchase,
    click_id,
    identifiers,
    open_shop,
)
from tests.support.kit_site import COOKIE, LOADER, OLD_METHODS, SERVER_COOKIE, KitSite

ENGINES = ("chromium", *START)
#: Chromium has the same tests for itself, in files of its own.
PARAMS = [
    pytest.param(name, marks=[pytest.mark.slow] if name == "chromium" else []) for name in ENGINES
]
#: What each engine says of itself.
NAMES = {"chromium": "Chrome/", "firefox": "Firefox/", "webkit": "Version/"}


@pytest.fixture(params=PARAMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(name: str, started: Any, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A browser without cookies; what a tab remembers is kept apart by the tests' ports."""
    if name == "chromium":
        yield Chromium(request.getfixturevalue("page"), request.getfixturevalue("context"))
        return
    found: Engine = started(name)
    yield found
    found.clear()


@pytest.fixture
def adroll() -> Iterator[RunningSandbox]:
    with running(strict=True) as sandbox:
        yield sandbox


@pytest.fixture
def shop(adroll: RunningSandbox, tmp_path: Path) -> Iterator[Site]:
    with open_shop(adroll, tmp_path) as site:
        yield site


@pytest.fixture
def asking_shop(adroll: RunningSandbox, tmp_path: Path) -> Iterator[Site]:
    """A shop that has to ask its visitors first."""
    with open_shop(adroll, tmp_path, ADROLL_CONSENT=lambda _request: None) as site:
        yield site


@pytest.fixture
def kit_site() -> Iterator[KitSite]:
    with KitSite().running() as site:
        yield site


def click_the_ad(engine: Engine, site: Site) -> str:
    engine.goto(site.ad_url(site.url()))
    click(engine, "document.getElementById('ad')")
    return click_id(until(engine, "location.href.includes('adct=') && location.href"))


def fill(engine: Engine, field: str, value: str) -> None:
    until(engine, f"!!document.getElementById('{field}')")
    engine.evaluate(f"void (document.getElementById('{field}').value = '{value}')")


def buy(engine: Engine) -> Bought:
    """From a shop page to the thank-you page."""
    click(engine, by_text("a", "Tide & Clay"))
    click(engine, by_text("a", "Harbour mug"))
    fill(engine, "quantity", "2")
    click(engine, by_text("button", "Add to cart"))
    click(engine, by_text("a, button", "Go to checkout"))
    fill(engine, "email", EMAIL)
    began = time.time()
    click(engine, "document.querySelector('#order button')")
    number = until(engine, "document.getElementById('order-number')?.textContent")
    return Bought(number, began, time.time())


def bought_events(site: Site) -> list[Any]:
    site.deliver()
    return list(site.adroll.events("purchase"))


def wait_for_requests(site: Site, count: int) -> None:
    """Until the kit has posted *count* times."""
    end = time.monotonic() + 20
    while [path for _, path in site.seen].count("/_adroll/identity") < count:
        assert time.monotonic() < end, site.seen
        time.sleep(0.05)


# -- the journey -------------------------------------------------------------------------------


def test_from_the_ad_to_the_purchase(name: str, engine: Engine, shop: Site) -> None:
    clicked = click_the_ad(engine, shop)
    until(engine, "document.cookie.includes('__adroll_fpc=')")
    bought = buy(engine)

    [purchase] = bought_events(shop)
    check_purchase(purchase, bought)
    assert identifiers(purchase)["adct"] == clicked
    cookies = engine.cookies()
    assert identifiers(purchase)["first_party_cookie"] == cookies["__adroll_fpc"]["value"]
    assert cookies["adroll_visitor"]["httpOnly"] is True
    # The pixel ran in this engine, and its visitor is the same one.
    assert purchase["journey"]["cookie"]["seen_by_pixel"] is True
    assert NAMES[name] in purchase["event"]["user_agent"]


# -- consent -----------------------------------------------------------------------------------


def test_without_an_answer_nothing_is_kept_and_nothing_reported(
    engine: Engine, asking_shop: Site
) -> None:
    click_the_ad(engine, asking_shop)
    wait_for_requests(asking_shop, 1)
    assert not {"adroll_visitor", "__adroll_fpc"} & engine.cookies().keys()
    buy(engine)
    assert bought_events(asking_shop) == []
    assert asking_shop.adroll.tracked() == []


def test_a_yes_on_the_landing_page_keeps_the_click(engine: Engine, asking_shop: Site) -> None:
    clicked = click_the_ad(engine, asking_shop)
    until(engine, "!!window.adrollKit?.consent")
    engine.evaluate("void adrollKit.consent(true)")
    until(engine, "document.cookie.includes('__adroll_fpc=')")
    wait_for_requests(asking_shop, 2)
    bought = buy(engine)
    [purchase] = bought_events(asking_shop)
    check_purchase(purchase, bought)
    assert identifiers(purchase)["adct"] == clicked


def test_a_no_after_a_yes_takes_everything_back(engine: Engine, asking_shop: Site) -> None:
    click_the_ad(engine, asking_shop)
    until(engine, "!!window.adrollKit?.consent")
    engine.evaluate("void adrollKit.consent(true)")
    wait_for_requests(asking_shop, 2)
    until(engine, "document.cookie.includes('__adroll_fpc=')")
    engine.evaluate("void adrollKit.consent(false)")
    until(engine, "!document.cookie.includes('__adroll_fpc=')")
    end = time.monotonic() + 20
    while "adroll_visitor" in engine.cookies() and time.monotonic() < end:
        time.sleep(0.05)
    assert not {"adroll_visitor", "__adroll_fpc"} & engine.cookies().keys()
    buy(engine)
    assert bought_events(asking_shop) == []


def test_a_refusal_leaves_no_trace(engine: Engine, asking_shop: Site) -> None:
    click_the_ad(engine, asking_shop)
    until(engine, "!!window.adrollKit?.consent")
    engine.evaluate("void adrollKit.consent(false)")
    buy(engine)
    assert bought_events(asking_shop) == []
    assert not {"adroll_visitor", "__adroll_fpc"} & engine.cookies().keys()


# -- the kit -----------------------------------------------------------------------------------


def told(site: KitSite, count: int) -> list[Any]:
    """What was told once it is *count* bodies; a moment longer, so that more would be seen."""
    end = time.monotonic() + 20
    while len(site.told) < count and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.3)
    return site.told


def test_the_kit_tells_click_id_and_cookie_in_one_json_post(
    engine: Engine, kit_site: KitSite
) -> None:
    kit_site.serve(kit_site.tag())
    engine.goto(kit_site.url("/?utm_source=x&adct=a%2Bb%3D%3D#part"))
    assert told(kit_site, 1) == [{"adct": "a+b==", "first_party_cookie": COOKIE}]
    [headers] = kit_site.headers
    assert headers["content-type"] == "application/json"
    assert headers["origin"] == kit_site.url("")


def test_the_tabs_next_page_tells_nothing_again(engine: Engine, kit_site: KitSite) -> None:
    kit_site.serve(kit_site.tag())
    engine.goto(kit_site.url("/?adct=click123"))
    assert len(told(kit_site, 1)) == 1
    engine.goto(kit_site.url("/"))
    until(engine, "!!window.adroll?.get_cookie")
    assert len(told(kit_site, 1)) == 1


def test_a_page_that_rewrites_its_address_at_once_loses_no_click(
    engine: Engine, kit_site: KitSite
) -> None:
    kit_site.serve("<script>history.replaceState(null, '', '/app')</script>" + kit_site.tag())
    engine.goto(kit_site.url("/?adct=click123"))
    assert told(kit_site, 1)[0]["adct"] == "click123"


def test_a_loader_of_old_on_the_page_answers(engine: Engine, kit_site: KitSite) -> None:
    loader = LOADER % (OLD_METHODS, kit_site.pixel_url())
    kit_site.serve(loader + kit_site.tag(pixel="present"))
    engine.goto(kit_site.url())
    assert told(kit_site, 1) == [{"first_party_cookie": COOKIE}]
    assert len(kit_site.pixels) == 1


def test_without_a_pixel_the_server_gives_the_cookie(engine: Engine, kit_site: KitSite) -> None:
    kit_site.set_cookie = SERVER_COOKIE
    kit_site.serve(kit_site.tag(pixel="none"))
    engine.goto(kit_site.url())
    assert told(kit_site, 1) == [{}]
    until(engine, f"document.cookie.includes('{SERVER_COOKIE}')")
