"""Two answers to one browser cross: neither undoes what the other one knows."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from typing import Any

import pytest
from flask import Flask
from werkzeug.http import parse_cookie
from werkzeug.test import TestResponse

from adroll_flask import current_visitor, report_conversion
from tests.conftest import AppMaker
from tests.support.reported_events import kept

SITE = {"base_url": "https://shop.test", "environ_base": {"REMOTE_ADDR": "203.0.113.7"}}


#: What browsers say of a link on a page of the same origin.
LINK = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def told(app: Flask, adct: str) -> TestResponse:
    """The answer to the kit of a page that came from a cache."""
    answer = app.test_client().post(
        "/_adroll/identity", json={"adct": adct}, headers={"Origin": "https://shop.test"}, **SITE
    )
    assert answer.status_code == 204, answer.text
    return answer


def page(app: Flask, cookies: str = "") -> TestResponse:
    headers = LINK | ({"Cookie": cookies} if cookies else {})
    return app.test_client(use_cookies=False).get("/", headers=headers, **SITE)


def jar(*answers: TestResponse) -> str:
    """What the browser sends after these answers, which came in this order."""
    kept: dict[str, str] = {}
    for answer in answers:
        for line in answer.headers.getlist("Set-Cookie"):
            kept.update(parse_cookie(line.partition(";")[0]).items())
    return "; ".join(f"{name}={value}" for name, value in kept.items())


@pytest.mark.parametrize("page_last", [True, False], ids=["the page last", "the kit's last"])
def test_a_click_that_the_kit_tells_while_the_next_page_loads_is_kept(
    make_app: AppMaker, page_last: bool
) -> None:
    app = make_app()
    app.add_url_rule(
        "/buy",
        "buy",
        lambda: report_conversion(order_id="1", value="5", currency="EUR").status,
        methods=["POST"],
    )
    # Neither request had a cookie: both were under way before the other was answered.
    answers = [told(app, "click-1"), page(app)]
    cookies = jar(*(answers if page_last else reversed(answers)))

    buyer = app.test_client(use_cookies=False)
    assert buyer.post("/buy", headers={"Cookie": cookies}, **SITE).text == "queued"

    (event,) = kept(app)
    assert event["identifiers"]["adct"] == "click-1"


def test_who_has_no_kit_is_known_from_the_page_after_it(make_app: AppMaker) -> None:
    app = make_app()
    first = page(app)
    assert "adroll_visitor" not in jar(first)
    assert "__adroll_fpc" in jar(first)

    second = page(app, jar(first))

    assert "adroll_visitor" in jar(second)
    assert jar(first) in jar(first, second), "it is the same cookie"


# -- a visitor with fifty tabs that open at once, each with a click of its own --------------------


TABS = 50


ADDRESS = {"REMOTE_ADDR": "203.0.113.7"}


SHOP = "https://shop.example"


class Browser:
    """What fifty tabs share: a jar, in which the answer that comes last wins."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = threading.Lock()
        self.jar: dict[str, str] = {}

    def ask(self, path: str, *, jar: dict[str, str] | None = None, **more: Any) -> Any:
        with self._lock:
            sent = dict(self.jar) if jar is None else jar
        client = self._app.test_client(use_cookies=False)
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in sent.items())}
        headers |= more.pop("headers", {})
        answer = client.open(path, base_url=SHOP, headers=headers, environ_base=ADDRESS, **more)
        with self._lock:
            for line in answer.headers.getlist("Set-Cookie"):
                for name, morsel in SimpleCookie(line).items():
                    self.jar[name] = morsel.value
        return answer


def test_fifty_tabs_at_once_are_one_visitor_with_the_last_click_and_one_order(
    make_app: AppMaker,
) -> None:
    app = make_app(ADROLL_STRICT=False)

    @app.post("/thanks")
    def thanks() -> str:
        return report_conversion(order_id="1001", value="59.90", currency="EUR").status

    browser = Browser(app)
    at_once = threading.Barrier(TABS, timeout=30)

    def first(tab: int) -> int:
        at_once.wait()
        return int(browser.ask(f"/?adct=click-{tab}", jar={}).status_code)

    def tell(tab: int) -> int:
        """The kit of a tab whose page came from a cache."""
        at_once.wait()
        told = {"adct": f"click-{tab}", "first_party_cookie": browser.jar["__adroll_fpc"]}
        headers = {"Sec-Fetch-Site": "same-origin"}
        return int(
            browser.ask("/_adroll/identity", method="POST", json=told, headers=headers).status_code
        )

    def buy(_tab: int) -> str:
        at_once.wait()
        return str(browser.ask("/thanks", method="POST").text)

    with ThreadPoolExecutor(TABS) as tabs:
        assert set(tabs.map(first, range(TABS))) == {200}
        # The cookies of one answer belong together only as far as the jar keeps them: the next
        # page makes the two one again.
        browser.ask("/")
        assert set(tabs.map(tell, range(TABS))) == {204}
        browser.ask("/")
        statuses = Counter(tabs.map(buy, range(TABS)))
    assert statuses.keys() <= {"queued", "duplicate"}
    assert statuses["queued"] >= 1
    runtime = app.extensions["adroll"]
    runtime.outbox.queue.take_in(patience=10.0)
    [row] = runtime.outbox.lookups.list()
    assert row.key == "1001"
    with app.test_request_context(
        "/", headers={"Cookie": f"adroll_visitor={browser.jar['adroll_visitor']}"}
    ):
        visitor = current_visitor()
    assert visitor.adct is not None
    assert visitor.adct.startswith("click-")
    assert visitor.first_party_cookie == browser.jar["__adroll_fpc"]
    counters = runtime.counters
    assert counters.get("record_ignored", "forged") == 0
