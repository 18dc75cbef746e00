"""``POST {prefix}/identity`` and the kit's file."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from typing import Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from flask_wtf.csrf import CSRFProtect
from werkzeug.http import parse_cookie
from werkzeug.test import TestResponse

from adroll_flask import AdRoll, current_visitor, report_conversion
from tests.conftest import AppMaker
from tests.support.visits import kept

A = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"


SAME = {"Sec-Fetch-Site": "same-origin"}


def tell(client: FlaskClient, data: Any, **kwargs: Any) -> TestResponse:
    body = data if isinstance(data, bytes) else json.dumps(data)
    options: dict[str, Any] = {"content_type": "application/json", "headers": SAME} | kwargs
    return client.post("/_adroll/identity", data=body, **options)


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    app = make_app()

    @app.get("/who")
    def who() -> dict[str, Any]:
        visitor = current_visitor()
        return {
            "adct": visitor.adct,
            "cookie": visitor.first_party_cookie,
            "sources": [visitor.adct_source, visitor.first_party_cookie_source],
        }

    return app


def test_what_the_kit_tells_is_kept(app: Flask) -> None:
    client = app.test_client()
    response = tell(client, {"adct": "click123", "first_party_cookie": A})
    assert response.status_code == 204
    assert response.data == b""
    assert response.headers["Cache-Control"] == "no-store"
    assert client.get("/who").get_json() == {
        "adct": "click123",
        "cookie": A,
        "sources": ["kit", "pixel"],
    }


def test_telling_it_again_sets_nothing(app: Flask) -> None:
    client = app.test_client()
    tell(client, {"first_party_cookie": A})
    assert "Set-Cookie" not in tell(client, {"first_party_cookie": A}).headers


def test_an_empty_word_gives_a_visitor_of_a_cached_page_a_cookie(app: Flask) -> None:
    client = app.test_client()
    assert tell(client, {}).status_code == 204
    assert client.get("/who").get_json()["sources"] == [None, "server"]


def test_a_plus_sign_survives_the_browsers_reading(app: Flask) -> None:
    client = app.test_client()
    tell(client, {"adct": "a b"})
    assert client.get("/who").get_json()["adct"] == "a+b"
    client.get("/?adct=c+d")
    assert client.get("/who").get_json()["adct"] == "c+d"


@pytest.mark.parametrize("csrf_first", [True, False])
def test_the_endpoint_is_exempt_from_csrf_protection(make_app: AppMaker, csrf_first: bool) -> None:
    class Adapted(AdRoll):
        def init_app(self, app: Flask) -> None:
            if csrf_first:
                CSRFProtect(app)
            super().init_app(app)
            if not csrf_first:
                CSRFProtect(app)

    app = make_app(Adapted())
    app.add_url_rule("/form", "form", lambda: "ok", methods=["POST"])
    client = app.test_client()
    assert client.post("/form").status_code == 400
    assert tell(client, {"adct": "click123"}).status_code == 204


def test_with_a_consent_callable_the_endpoint_answers_its_state(make_app: AppMaker) -> None:
    answer: list[bool | None] = [None]
    app = make_app(ADROLL_CONSENT=lambda request: answer[0])
    client = app.test_client()
    response = tell(client, {})
    assert (response.status_code, response.get_json()) == (200, {"consent": None})
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers
    answer[0] = False
    assert tell(client, {"adct": "click123"}).get_json() == {"consent": False}
    assert client.get_cookie("adroll_visitor") is None
    answer[0] = True
    assert tell(client, {"adct": "click123"}).get_json() == {"consent": True}
    assert client.get_cookie("adroll_visitor") is not None


def test_an_answer_from_the_browser_holds_where_the_server_cannot_see_it(
    make_app: AppMaker,
) -> None:
    app = make_app(ADROLL_CONSENT="tcf")
    client = app.test_client()
    client.get("/?adct=click123")
    assert client.get_cookie("adroll_visitor") is None
    tell(client, {"consent": True, "adct": "click123"})
    assert client.get_cookie("adroll_visitor") is not None
    client.delete_cookie("__adroll_fpc")
    client.get("/")
    assert client.get_cookie("__adroll_fpc") is not None


def test_a_withdrawal_takes_cookies_and_session_keys_back(make_app: AppMaker) -> None:
    app = make_app(ADROLL_CONSENT=lambda request: None)
    client = app.test_client()
    tell(client, {"consent": True, "adct": "click123"})
    with client.session_transaction() as kept:
        assert kept["adroll"]["adct"] == "click123"
    assert tell(client, {"consent": False}).status_code == 200
    assert client.get_cookie("adroll_visitor") is None
    assert client.get_cookie("__adroll_fpc") is None
    with client.session_transaction() as kept:
        assert "adroll" not in kept


# -- the kit -------------------------------------------------------------------------------


def kit_url(client: FlaskClient) -> str:
    page = client.get("/").text
    start = page.index('src="') + 5
    return page[start : page.index('"', start)]


def test_the_tag_leads_to_the_kit(app: Flask) -> None:
    client = app.test_client()
    url = kit_url(client)
    response = client.get(url)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in response.headers
    again = client.get(url, headers={"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304


def test_pages_from_before_an_update_still_find_a_kit(app: Flask) -> None:
    response = app.test_client().get("/_adroll/kit.0123456789abcdef.js")
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "public, max-age=300"


def test_the_page_is_the_same_for_a_yes_a_no_and_no_answer(make_app: AppMaker) -> None:
    app = make_app(ADROLL_CONSENT=lambda request: {"1": True, "0": False}.get(request.args["said"]))
    pages = {app.test_client().get(f"/?adct=click123&said={said}").data for said in ("1", "0", "")}
    assert len(pages) == 1
    assert b"data-adroll" in pages.pop()


def test_a_mounted_app_has_its_mount_in_the_tag(app: Flask) -> None:
    page = app.test_client().get("/", base_url="http://localhost/shop/").text
    assert 'src="/shop/_adroll/kit.' in page
    assert 'data-identity="/shop/_adroll/identity"' in page


def test_a_nonce_goes_with_the_tag(make_app: AppMaker) -> None:
    app = make_app(ADROLL_CSP_NONCE=lambda: "bm9uY2U=")
    assert '<script nonce="bm9uY2U=" async src=' in app.test_client().get("/").text


def test_a_nonce_of_another_form_does_not_reach_the_page(make_app: AppMaker) -> None:
    app = make_app(ADROLL_CSP_NONCE=lambda: '"><script>')
    page = app.test_client().get("/").text
    assert page.count("<script") == 1
    assert "nonce" not in page


def test_response_bodies_of_the_endpoints_are_not_dressed(app: Flask) -> None:
    response: Response = app.test_client().get("/_adroll/kit.0123456789abcdef.js")  # type: ignore[assignment]
    assert b"<script" not in response.data


# -- two answers to one browser cross: neither undoes what the other one knows --------------------


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
