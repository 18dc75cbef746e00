"""The dashboard in Chromium: over a year of history, wide and narrow, light and dark.

``PICTURES=1`` also takes the pictures that the documentation shows.
"""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from playwright.sync_api import FloatRect, Page, expect

from adroll_flask import AdRoll
from adroll_flask.dashboard.mounting import PAGES
from demo_app import create_app, lately
from tests.support import ROOT, visits
from tests.support.browsing import NewContext, View
from tests.support.serving import serving

#: A Wednesday, 15:03 UTC.
NOW = 1_795_619_000.0
PICTURES = ROOT / "docs" / "pictures"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The demo shop with its past, on a day that does not change."""
    folder = str(tmp_path_factory.mktemp("instance"))
    demo = create_app({"ADROLL_DELIVERY": "worker"}, instance_path=folder)
    lately.add_to(demo, NOW)
    app = Flask("shop", instance_path=folder)
    app.config.update(demo.config)
    adroll = AdRoll(clock=lambda: NOW)
    adroll.init_app(app)
    adroll.dashboard(app, access=lambda: True, operator=lambda: True)
    return app


@pytest.fixture(scope="module")
def address(shop: Flask) -> Iterator[str]:
    """Where the dashboard is."""
    with serving(shop) as port:
        yield f"http://127.0.0.1:{port}/adroll-dashboard/"


def path_of(name: str) -> str:
    return "" if name == PAGES[0].name else name


@pytest.mark.parametrize("name", [page.name for page in PAGES])
def test_a_page_is_whole_for_everybody(name: str, address: str, view: View) -> None:
    view.page.goto(address + path_of(name))
    assert view.cut() == []
    view.assert_whole()


@pytest.mark.skipif("PICTURES" not in os.environ, reason="PICTURES=1 takes them")
@pytest.mark.parametrize("name", [page.name for page in PAGES])
def test_pictures_for_the_documentation(name: str, address: str, new_context: NewContext) -> None:
    # Width, pixels of the tallest picture, colours, and how the file's name ends.
    ways = [(1280, 1800, "light", "")]
    if name == PAGES[0].name:
        ways += [(1280, 1800, "dark", "-dark"), (390, 844, "light", "-narrow")]
        # The README's, and the site's first page: down to the circle.
        ways += [(1280, 1090, "light", "-top"), (1280, 1090, "dark", "-top-dark")]
    for width, tallest, scheme, of in ways:
        size = {"width": width, "height": 900}
        page = new_context(viewport=size, color_scheme=scheme, locale="en-GB").new_page()
        page.goto(address + path_of(name))
        height = min(page.evaluate("document.documentElement.scrollHeight"), tallest)
        clip: FloatRect = {"x": 0, "y": 0, "width": width, "height": height}
        page.screenshot(path=PICTURES / f"dashboard-{name}{of}.png", full_page=True, clip=clip)


def test_it_is_used_by_keyboard_alone(address: str, page: Page) -> None:
    page.goto(address)
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("To the content")
    expect(page.locator(":focus")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    while page.locator(":focus").inner_text() != "13 months":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("period=year"))
    expect(page.locator("[aria-current=true]")).to_have_text("13 months")


def test_without_javascript_it_is_the_same(address: str, new_context: NewContext) -> None:
    page = new_context(java_script_enabled=False).new_page()
    page.goto(address)
    expect(page.locator("h1")).to_contain_text("wait for a decision")
    page.select_option("#event", "addToCart")
    page.get_by_text("Other days").click()
    page.get_by_role("button", name="Show these days").click()
    assert "event=addToCart" in page.url
    assert "period=days" in page.url
    expect(page.locator("#way header p")).to_contain_text("addToCart")
    expect(page.locator("#fresh")).to_be_hidden()


def test_a_choice_needs_no_button_where_scripts_run(address: str, page: Page) -> None:
    page.goto(address)
    page.select_option("#event", "all")
    page.wait_for_url(re.compile("event=all"))


def test_a_day_is_chosen_by_its_date(address: str, page: Page) -> None:
    page.goto(address)
    day = (datetime.fromtimestamp(NOW, UTC) - timedelta(days=5)).date()
    page.get_by_text("Other days").click()
    for field in ("From", "to"):
        page.get_by_label(field, exact=True).fill(f"{day}")
    page.get_by_role("button", name="Show these days").click()
    expect(page.locator("#way header p")).to_contain_text(f"{day.day} {day:%b %Y}")
    expect(page.locator("#plot-time .bucket")).to_have_count(24)
    expect(page.get_by_label("From", exact=True)).to_have_value(f"{day}")


def test_it_keeps_itself_fresh_or_says_it_does_not(address: str, page: Page, shop: Flask) -> None:
    page.goto(f"{address}?period=day")
    page.locator("#over-time summary").click()
    before = page.locator("#way .stage td.number").first.inner_text()
    page.evaluate("window.stays = true")
    visits.report(shop, "never before")
    page.evaluate("dispatchEvent(new Event('adroll-dashboard-refresh'))")
    now = page.locator("#way .stage td.number").first
    expect(now).to_have_text(str(int(before) + 1))
    assert page.evaluate("window.stays"), "the page was not loaded again"
    expect(page.locator("#over-time details")).to_have_attribute("open", "")
    expect(page.locator("#fresh")).to_have_text("live")
    page.route("**/adroll-dashboard/**", lambda route: route.abort())
    page.evaluate("dispatchEvent(new Event('adroll-dashboard-refresh'))")
    expect(page.locator("#fresh")).to_contain_text("not up to date")


def test_the_pointer_shows_what_a_bar_stands_for(address: str, page: Page) -> None:
    page.goto(f"{address}?period=month")
    tip = page.locator(".tip")
    expect(tip).to_be_hidden()
    bar = page.locator("#plot-time .bucket").nth(20)
    bar.scroll_into_view_if_needed()
    bar.hover()
    expect(tip).to_contain_text("delivered: ")
    assert (
        page.locator("#plot-time tbody tr").nth(20).locator("th").inner_text() in tip.inner_text()
    )
    page.locator("h1").hover()
    expect(tip).to_be_hidden()
