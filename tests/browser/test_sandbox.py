"""The live view and the pixel, in a real browser."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from werkzeug.wrappers import Response

from adroll_flask.sandbox import RunningSandbox, running
from tests.support.browsing import Console, NewContext, wait_in
from tests.support.kit_site import LOADER, METHODS
from tests.support.sandbox_helpers import (
    ACCESS_TOKEN,
    ADVERTISABLE_EID,
    COOKIE,
    FULL,
    LEAST,
    purchase,
)
from tests.support.serving import serving

ASK = "adroll.get_cookie(function (value) { answers.push(value); });"


@pytest.fixture
def adroll() -> Iterator[RunningSandbox]:
    with running() as sandbox:
        yield sandbox


@pytest.fixture
def page(new_context: NewContext) -> Iterator[Page]:
    """A page that puts nothing on the console."""
    context = new_context(viewport={"width": 1360, "height": 900})
    console = Console(context)
    yield context.new_page()
    assert console.lines == []


def send(page: Page, adroll: RunningSandbox, *events: Any, query: str = "?") -> int:
    answer = page.request.post(
        f"{adroll.api_url}{query}advertisable={ADVERTISABLE_EID}",
        data=json.dumps(events),
        headers={"Authorization": f"Token {ACCESS_TOKEN}", "Content-Type": "application/json"},
    )
    return int(answer.status)


def watch(page: Page, adroll: RunningSandbox) -> None:
    page.goto(adroll.url + "/")
    page.wait_for_selector(".link.live")


def test_an_event_appears_with_all_that_is_known_of_it(page: Page, adroll: RunningSandbox) -> None:
    watch(page, adroll)
    expect(page.locator("#empty")).to_be_visible()
    adct = adroll.click("http://shop.test/mug").partition("adct=")[2]
    send(page, adroll, {**FULL, "timestamp": time.time(), "identifiers": {"adct": adct}})
    row = page.locator("#events .row")
    expect(row).to_contain_text("purchase1001")
    expect(row).to_contain_text("123.45 EUR")
    expect(row).to_contain_text("matched by click id")
    expect(row.locator(".seven i.on")).to_have_count(1)
    detail = page.locator("#detail")
    expect(detail.locator(".verdict")).to_contain_text("matched to the ad click of")
    expect(detail.locator(".steps")).to_contain_text("Ad click → shop.test")
    expect(detail.locator(".ids")).to_contain_text(adct)
    expect(detail.locator(".raw")).to_contain_text('"external_data"')
    expect(page.locator("#score")).to_have_text("14 %")
    expect(page.locator("#bars li").first).to_contain_text("100 %")
    assert page.context.cookies() == []


def test_a_rejected_event_says_what_is_wrong(page: Page, adroll: RunningSandbox) -> None:
    watch(page, adroll)
    assert send(page, adroll, {**LEAST, "ip": "x", "currency": "eur"}, purchase("2")) == 400
    expect(page.locator(".row.rejected")).to_contain_text("2 errors")
    expect(page.locator(".row.held_back")).to_contain_text("refused with its batch")
    expect(page.locator("#refused-note")).to_have_text("1 only for its batch")
    page.locator(".row.rejected").click()
    expect(page.locator(".verdict.bad li")).to_have_count(2)
    expect(page.locator("#refused")).to_have_text("2")


def test_what_an_event_holds_is_never_read_as_html(page: Page, adroll: RunningSandbox) -> None:
    bad = '"><img src=x onerror="window.broken=1"><script>window.broken=1</script>&lt;b&gt;'
    event = {
        **purchase(bad),
        "event_name": bad,
        "conversion_value": bad,
        "identifiers": {"adct": bad, bad: bad, "__proto__": bad},
        "external_data": bad,
        bad: {bad: [bad]},
    }
    watch(page, adroll)
    send(page, adroll, event, bad, None, {"event_name": {}, "identifiers": [bad]})
    expect(page.locator(".row")).to_have_count(4)
    for row in page.locator(".row").all():
        row.click()
        expect(page.locator("#detail .raw")).to_be_visible()
    expect(page.locator("#detail h3")).to_contain_text(bad)
    assert page.evaluate("window.broken") is None
    assert page.locator("main img, main script").count() == 0


def test_faults_are_set_and_ended_by_a_click(page: Page, adroll: RunningSandbox) -> None:
    watch(page, adroll)
    page.get_by_role("button", name="503, three times").click()
    expect(page.locator("#health")).to_have_text("failing on demand")
    assert send(page, adroll, LEAST) == 503
    page.get_by_role("button", name="Back to normal").click()
    expect(page.locator("#health")).to_have_text("answering")
    assert send(page, adroll, LEAST) == 200
    page.get_by_role("tab", name="Requests").click()
    rows = page.locator("#requests .row")
    expect(rows).to_have_count(2)
    expect(rows.last).to_contain_text("503")
    page.get_by_role("tab", name="Events").click()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#empty")).to_be_visible()
    assert adroll.events() == []


# -- the pixel ---------------------------------------------------------------------------------


#: Opens a shop whose one page a test writes.
Open = Callable[..., None]


@pytest.fixture
def shop(page: Page, adroll: RunningSandbox) -> Iterator[Open]:
    """On a real server, since Chromium looks at addresses."""
    source = f"{adroll.url_at('adroll.example')}/j/{ADVERTISABLE_EID}/roundtrip.js"
    loader = (LOADER % (METHODS, source)).removesuffix("</script>")
    answer = Response(mimetype="text/html")

    def open_it(before: str = "", after: str = ASK) -> None:
        head = f"<!doctype html><title>Shop</title><script>window.answers = [];{before}</script>"
        answer.set_data(f"{head}{loader}{after}</script>")
        page.goto(f"http://www.shop.test:{port}/mug?adct=click123")

    with serving(answer) as port:
        yield open_it


def held(page: Page) -> list[Any]:
    return [one for one in page.context.cookies() if one["name"] == "__adroll_fpc"]


def answered(page: Page) -> Any:
    page.wait_for_function("answers.length")
    return page.evaluate("answers[0]")


def test_the_pixel_makes_a_cookie_for_a_year(page: Page, shop: Open) -> None:
    shop()
    value = answered(page)
    (cookie,) = held(page)
    assert cookie["value"] == value
    assert len(value.partition("-")[0]) == 32
    assert abs(int(value.partition("-")[2]) / 1000 - time.time()) < 60
    # A leading dot is how a domain cookie is told from a host-only one.
    assert (cookie["domain"], cookie["path"]) == (".www.shop.test", "/")
    assert (cookie["sameSite"], cookie["httpOnly"]) == ("Lax", False)
    assert abs(cookie["expires"] - time.time() - 365 * 86400) < 120
    assert {one["name"] for one in page.context.cookies()} == {"__adroll_fpc", "__ar_v4"}


def wrote(page: Page, value: str, **where: Any) -> None:
    """What the site or another tag wrote before."""
    cookie: Any = {"name": "__adroll_fpc", "value": value, "domain": ".www.shop.test", "path": "/"}
    page.context.add_cookies([cookie | where])


#: What may stand in the cookie, and what the pixel makes of it; what it knows nothing of, it keeps.
WRITTEN = {
    "in order": (COOKIE, COOKIE),
    "of another kind": (f"{COOKIE[:32]}-s2-1667065540836", COOKIE),
    "with a date": (f"{COOKIE[:32]}-2022-10-29T17:45:40.836Z", COOKIE),
}
FOREIGN = (f"{COOKIE[:32]}-a_1730238675", "x", "Zk3vQ9xYp2Lm8RtWc5HnBd7sJf4GaE6u-1667065540836")
WRITTEN |= {f"foreign: {one}": (one, one) for one in FOREIGN}


@pytest.mark.parametrize("what", WRITTEN)
def test_the_pixel_adopts_what_the_site_wrote(
    page: Page, adroll: RunningSandbox, shop: Open, what: str
) -> None:
    written, normal = WRITTEN[what]
    soon = time.time() + 3600
    wrote(page, written, expires=soon)
    shop()
    assert answered(page) == normal
    [cookie] = held(page)
    assert cookie["value"] == normal
    assert cookie["expires"] > soon + 86400
    assert {one["cookie"] for one in adroll.tracked()} <= {normal}


def test_the_loaders_queue_is_taken_over(page: Page, adroll: RunningSandbox, shop: Open) -> None:
    track = (
        'adroll.track("purchase", {order_id: 1001, total: "5"}); adroll.identify_email("a@b.c");'
    )
    shop(after=track + ASK)
    answered(page)
    page.evaluate('adroll.track("addToCart")')
    page.evaluate('adroll.push(["track", ["liveChat"]])')
    page.wait_for_function("performance.getEntriesByType('resource').length >= 1")
    wait_in(page, lambda: len(adroll.tracked()) == 5)
    names = [one["event_name"] for one in adroll.tracked()]
    assert sorted(names) == ["addToCart", "identify_email", "liveChat", "pageView", "purchase"]
    (sale,) = [one for one in adroll.tracked() if one["event_name"] == "purchase"]
    assert (sale["order_id"], sale["cookie"]) == ("1001", page.evaluate("answers[0]"))
    assert sale["page"] == page.url
    assert "a@b.c" not in repr(adroll.tracked())
    # The same order from the server: flagged.
    send(page, adroll, purchase("1001"))
    assert adroll.purchases()[0]["reported_by_pixel_too"] is True


def test_get_cookie_can_be_late(page: Page, adroll: RunningSandbox, shop: Open) -> None:
    number = adroll.fault(path="/j/*", get_cookie="never")
    shop()
    page.wait_for_function("document.cookie.includes('__adroll_fpc')")
    page.wait_for_timeout(100)
    assert page.evaluate("answers.length") == 0
    adroll.clear_faults(number)
    adroll.fault(path="/j/*", get_cookie=0.2)
    page.reload()
    page.wait_for_function("document.cookie.includes('__adroll_fpc')")
    assert len(answered(page)) == 46


#: `say(true, "useractioncomplete")` is the visitor's yes to vendor 130; without the second word it
#: is what the platform knew before.
CMP = """
window.say = function (vendor, eventStatus) {
  listener({gdprApplies: true, eventStatus: eventStatus,
            vendor: {consents: {130: vendor}}, purpose: {consents: {1: true}}}, true);
};
window.__tcfapi = function (command, version, callback) { window.listener = callback; };
"""


def test_the_pixel_waits_for_the_cmp(page: Page, adroll: RunningSandbox, shop: Open) -> None:
    shop(before=CMP)
    page.wait_for_function("typeof listener === 'function'")
    page.evaluate("say(false)")
    page.wait_for_timeout(100)
    assert page.context.cookies() == adroll.tracked() == []
    # What the page says after a no is not heard, not even with a yes that comes later.
    page.evaluate(
        "const done = 'useractioncomplete'; say(false, done); adroll.track('addToCart');"
        "say(true, done); adroll.track('liveChat')"
    )
    page.wait_for_function("document.cookie.includes('__adroll_fpc')")
    wait_in(page, adroll.tracked)
    page.wait_for_timeout(100)
    assert [one["event_name"] for one in adroll.tracked()] == ["liveChat"]
    assert page.evaluate("answers.length") == 0
