"""A visitor with fifty tabs that open at once, each with a click of its own."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from typing import Any

from flask import Flask

from adroll_flask import current_visitor, report_conversion
from tests.conftest import AppMaker

TABS = 50
ADDRESS = {"REMOTE_ADDR": "203.0.113.7"}
SITE = "https://shop.example"


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
        answer = client.open(path, base_url=SITE, headers=headers, environ_base=ADDRESS, **more)
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


def test_of_fifty_clicks_the_one_that_came_last_is_reported(make_app: AppMaker) -> None:
    app = make_app()
    browser = Browser(app)
    for tab in range(TABS):
        browser.ask(f"/?adct=click-{tab}")
    # The kit of the tab before it is late. (Of those before that the record knows nothing.)
    browser.ask(
        "/_adroll/identity",
        method="POST",
        json={"adct": f"click-{TABS - 2}"},
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    record = browser.jar["adroll_visitor"]
    assert len(record) <= 450, "it does not grow with clicks"
    with app.test_request_context("/", headers={"Cookie": f"adroll_visitor={record}"}):
        assert current_visitor().adct == f"click-{TABS - 1}"
