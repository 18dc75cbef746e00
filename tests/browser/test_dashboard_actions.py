"""Orders, problems and test in Chromium: looked up, compared, fixed, sent again and dropped."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import AppMaker
from tests.support.browsing import NewContext, View
from tests.support.dashboard_shop import DELIVERED, WHERE, DashboardShop, answering
from tests.support.serving import serving
from tests.support.visits import began_long_ago


@pytest.fixture
def shop(make_app: AppMaker) -> DashboardShop:
    """Two delivered orders, three problems, a held order, a visitor who said no."""
    shop = DashboardShop(make_app)
    shop.report("1000", hold=True)
    shop.deliver("1001", "1002")
    shop.bury("1003", "1004")
    unsure: dict[str, Any] = {"reason": "unsure", "error": "read_timeout: no certain answer"}
    shop.bury("1005", **unsure)
    shop.report("1006", currency="EURO")
    shop.report("1007", currency="EURO")
    shop.report("1008", gpc=True)
    began_long_ago(shop.app)
    return shop


@pytest.fixture
def address(shop: DashboardShop) -> Iterator[str]:
    with serving(shop.app) as port:
        yield f"http://127.0.0.1:{port}{WHERE}"


LIST = "order;total;payment\n1001;59,90;card\n1003;59,90;card\n1008;59,90;card\n9999;1,00;invoice\n"


def look_up(page: Page, address: str, order: str) -> None:
    page.goto(f"{address}orders")
    page.get_by_label("The order's id, as the shop has it").fill(order)
    page.get_by_role("button", name="Find the order").click()


def upload_list(page: Page) -> None:
    page.get_by_label("File").set_input_files(
        {"name": "paid.csv", "mimeType": "text/csv", "buffer": LIST.encode()}
    )


def compare(page: Page, address: str) -> None:
    page.goto(f"{address}orders")
    upload_list(page)
    page.get_by_label("Group what is missing by").fill("payment")
    page.get_by_role("button", name="Compare the list").click()


def open_problem(page: Page, address: str, title: str) -> None:
    page.goto(f"{address}problems")
    page.locator("a[id^=problem-dead-letters]").filter(has_text=title).click()


VIEWS: dict[str, Callable[[Page, str], None]] = {
    "life": lambda page, address: look_up(page, address, "1003"),
    "held": lambda page, address: look_up(page, address, "1000"),
    "suppressed": lambda page, address: look_up(page, address, "1008"),
    "never": lambda page, address: look_up(page, address, "9999"),
    "compared": compare,
    "refused": lambda page, address: open_problem(page, address, "AdRoll refused"),
    "invalid": lambda page, address: open_problem(page, address, "The shop reported"),
}


@pytest.mark.parametrize("of", VIEWS)
def test_a_view_is_whole(of: str, shop: DashboardShop, address: str, view: View) -> None:
    shop.adroll.judge = answering(401, b'{"errors": [{"message": "unknown account"}]}')
    VIEWS[of](view.page, address)
    expect(view.page.locator("h1")).to_be_visible()
    assert view.cut() == [] or of in ("refused", "invalid")  # whose tables are wide
    view.assert_whole()


def test_a_message_to_send_on_is_whole(shop: DashboardShop, address: str, view: View) -> None:
    shop.may_act = False
    view.page.goto(f"{address}problems")
    view.assert_whole()
    assert view.cut() == []
    expect(view.page.locator(".message pre").first).to_contain_text("flask adroll explain ")


def test_money_of_two_currencies_fits(shop: DashboardShop, address: str, view: View) -> None:
    for order, value, currency in (("1", "45678.90", "EUR"), ("2", "38765.43", "USD")):
        for end in ("1", "2"):
            shop.report(f"{order}{end}", value=value, currency=currency)
    refused = {"kind": "dead", "reason": "refused"}
    shop.settle(o11=DELIVERED, o21=DELIVERED, o12=refused, o22=refused)
    view.page.goto(f"{address}?period=month")
    expect(view.page.locator(".losses")).to_contain_text("EUR + 38,765.43 USD")
    view.assert_whole()
    assert view.cut() == []


@pytest.fixture(params=[True, False], ids=["scripts", "no-scripts"])
def either(request: Any, new_context: NewContext) -> Page:
    """A page with scripts, and one without."""
    return new_context(java_script_enabled=request.param, locale="en-GB").new_page()


def test_the_rest_of_a_list_is_downloaded(address: str, page: Page) -> None:
    page.goto(f"{address}orders")
    upload_list(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download what did not arrive (CSV)").last.click()
    assert download.value.suggested_filename == "adroll-not-arrived.csv"
    assert "9999,missing" in download.value.path().read_text()


def test_a_problem_is_fixed_and_sent_again_or_dropped(
    either: Page, address: str, shop: DashboardShop
) -> None:
    open_problem(either, address, "The shop reported a wrong currency")
    expect(either.get_by_label("Field")).to_have_value("currency")
    either.get_by_label("Value in all 2").fill("EUR")
    either.get_by_role("button", name="Send 2 events again").click()
    expect(either.locator(".notice")).to_have_text("2 events will be sent again.")
    expect(either.locator("#open")).not_to_contain_text("The shop reported")
    assert (shop.states()["1006"], shop.states()["1007"]) == ("waiting", "waiting")
    open_problem(either, address, "AdRoll refused")
    drop = either.get_by_role("button", name="Drop 2 events")
    drop.click()
    assert shop.states()["1003"] == "dead", "the box was not ticked"
    either.get_by_label("I am sure").check()
    drop.click()
    expect(either.locator(".notice")).to_have_text("2 events dropped.")
    assert "1003" not in shop.states()
