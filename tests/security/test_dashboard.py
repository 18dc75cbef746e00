"""The dashboard from outside: who may look, who may act, and what others' texts do to its pages."""

import csv
import io
import itertools
import re
from typing import Any

import pytest
from flask_wtf import CSRFProtect
from werkzeug.test import TestResponse

from adroll_flask import AdRoll
from adroll_flask.dashboard.mounting import PAGES
from adroll_flask.visitor.signing import Signer
from tests.conftest import AppMaker
from tests.support import least_memory
from tests.support.dashboard_shop import WHERE, DashboardShop, answering

ACTIONS = [f"{page.name}/{name}" for page in PAGES for name in page.actions]
QUESTIONS = [f"{page.name}/{name}" for page in PAGES for name in page.questions]
#: A text that a page, a script, an attribute, a URL or a spreadsheet might run.
EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{1234567*7654321}}{%25x%25}"


@pytest.fixture
def shop(make_app: AppMaker) -> DashboardShop:
    shop = DashboardShop(make_app)
    shop.bury("1001")
    return shop


def everything(shop: DashboardShop) -> dict[str, str]:
    """All that the dashboard shows, by address: pages, JSON, CSV, and what they lead to."""
    found: dict[str, str] = {}
    todo = [f"{WHERE}{page.name if place else ''}" for place, page in enumerate(PAGES)]
    while todo:
        address = todo.pop()
        if address in found or "/assets/" in address:
            continue
        answer = shop.client.get(address)
        found[address] = answer.text
        if answer.mimetype == "text/html":
            links = re.findall(r'href="([^"#]+)"', answer.text)
            todo += [link.replace("&amp;", "&") for link in links if link.startswith("/")]
    return found


def form_of(shop: DashboardShop) -> dict[str, Any]:
    """What the forms of the one problem send, and those of the other pages."""
    form = {**shop.open_problem(), "sure": "yes", "event": "purchase"}
    return {**form, "order": "1001", "token": shop.token("orders")}


def untouched(shop: DashboardShop) -> bool:
    return shop.states() == {"1001": "dead"} and shop.adroll.urls == []


# -- who may look, who may act ---------------------------------------------------------------------


def test_without_access_nothing_is_shown_and_nothing_done(shop: DashboardShop) -> None:
    form, addresses = form_of(shop), list(everything(shop))
    rules = [rule.rule for rule in shop.app.url_map.iter_rules() if rule.rule.startswith(WHERE)]
    assert len(addresses) > 15
    assert len(rules) > 15
    shop.may_look = False
    for address in (*addresses, *(rule for rule in rules if "<" not in rule)):
        answers = [shop.client.get(address), shop.client.post(address)]
        assert 403 in {answer.status_code for answer in answers}, address
        assert {answer.status_code for answer in answers} <= {403, 405}, address
        assert not any("1001" in answer.text or "<nav" in answer.text for answer in answers)
    for action in (*ACTIONS, *QUESTIONS):
        answer = shop.post(action, **form)
        assert answer.status_code == 403, action
        assert "1001" not in answer.text
    assert untouched(shop)


def test_who_may_look_has_no_buttons_and_may_not_act(shop: DashboardShop) -> None:
    form = form_of(shop)
    shop.may_act = False
    pages = everything(shop)
    for action in ACTIONS:
        assert not [one for one, text in pages.items() if f'action="{WHERE}{action}"' in text]
        answer = shop.post(action, **form)
        assert answer.status_code == 403
        assert "operator= says no" in answer.text
    assert untouched(shop)


def test_without_operator_nobody_acts(make_app: AppMaker, adroll: AdRoll) -> None:
    app = make_app(adroll)
    adroll.dashboard(app, access=lambda: True)
    client = app.test_client()
    assert client.get(f"{WHERE}problems").headers.getlist("Set-Cookie") == []
    for action in ACTIONS:
        answer = client.post(WHERE + action, headers={"Sec-Fetch-Site": "same-origin"})
        assert answer.status_code == 403


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
def test_no_method_but_post_acts(shop: DashboardShop, method: str) -> None:
    form = form_of(shop)
    for action in (*ACTIONS, *QUESTIONS):
        answer: TestResponse = getattr(shop.client, method)(
            WHERE + action,
            query_string=form,
            data=None if method in ("get", "head") else form,
            headers={"Sec-Fetch-Site": "same-origin", "X-HTTP-Method-Override": "POST"},
        )
        assert answer.status_code in ((303,) if method in ("get", "head") else (405, 200)), action
    assert untouched(shop)


# -- that it comes from our own page ---------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        *({"Sec-Fetch-Site": where} for where in ("cross-site", "same-site", "none", "")),
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        *({"Origin": origin} for origin in ("https://elsewhere.example", "null", "http://[")),
        *({"Origin": f"http://localhost{more}"} for more in (".elsewhere.example", ":8080")),
        {"Referer": "http://localhost/adroll-dashboard/problems"},
        {},
    ],
)
def test_a_post_from_elsewhere_is_refused(shop: DashboardShop, headers: dict[str, str]) -> None:
    """With the right cookie and the right token, as if both had leaked."""
    form = form_of(shop)
    for action in (*ACTIONS, *QUESTIONS):
        answer = shop.client.post(WHERE + action, data=form, headers=headers)
        assert answer.status_code == 403, action
    assert untouched(shop)


def test_an_older_browser_says_where_it_comes_from(shop: DashboardShop) -> None:
    form = form_of(shop)
    headers = {"Origin": "http://localhost"}
    answer = shop.client.post(f"{WHERE}problems/drop", data=form, headers=headers)
    assert answer.status_code == 303
    assert shop.states() == {}


def test_a_token_that_is_none_is_refused(shop: DashboardShop) -> None:
    form, real = form_of(shop), shop.token("orders")
    cookie = shop.client.get_cookie("adroll_dashboard", path=WHERE)
    assert cookie is not None

    def signed(purpose: str, text: str) -> str:
        signer = Signer(["a key for tests"], purpose, clock=shop.runtime.clock)
        return signer.sign(f"{text}{cookie.value}".encode())

    changed = ("A" if real[0] != "A" else "B") + real[1:]
    of_others = (signed("record", "act:"), signed("dashboard", "said:+"))
    for token in ("", real[:-3], changed, *of_others, "x" * 10_000, "\x00\ud7ff\U0001f600"):
        for action in (*ACTIONS, *QUESTIONS):
            answer = shop.post(action, **{**form, "token": token})
            assert answer.status_code == 403, (token, action)
            assert "load it again" in answer.text
    assert untouched(shop)


def test_a_token_of_another_browser_is_refused(shop: DashboardShop) -> None:
    """And one of this browser after half a day."""
    form, client = form_of(shop), shop.client
    shop.client = shop.app.test_client()
    assert shop.post("problems/drop", **form).status_code == 403
    shop.token("orders")  # now this browser has a cookie of its own
    assert shop.post("problems/drop", **form).status_code == 403
    shop.client = client
    shop.now += 12 * 3600 + 2
    assert shop.post("problems/drop", **form).status_code == 403
    assert untouched(shop)


def test_the_form_of_a_first_tab_works_after_a_second_was_opened(shop: DashboardShop) -> None:
    first = shop.token("orders")
    shop.now += 12 * 3600 - 2
    shop.html("orders")
    assert shop.post("orders/find", first, order="1001").status_code == 303


def test_the_cookie_is_for_this_site_and_no_script(shop: DashboardShop) -> None:
    answer = shop.app.test_client().get(f"{WHERE}orders", base_url="https://shop.test")
    [line] = answer.headers.getlist("Set-Cookie")
    for part in ("HttpOnly", "SameSite=Strict", "Secure", f"Path={WHERE}"):
        assert part in line
    assert "Domain" not in line


def test_a_site_with_csrf_protection_lets_it_through(shop: DashboardShop) -> None:
    CSRFProtect(shop.app)
    shop.app.config.update(WTF_CSRF_ENABLED=True, WTF_CSRF_CHECK_DEFAULT=True)
    assert shop.post("problems/drop", **form_of(shop)).status_code == 303


def test_what_an_action_said_is_news_for_some_minutes_and_nobody_elses(shop: DashboardShop) -> None:
    for said in ("All is well", "x" * 5000, shop.token("orders"), EVIL):
        page = shop.html("problems", said=said)
        assert 'class="notice good"' not in page
        assert "All is well" not in page
    address = shop.post("problems/drop", **form_of(shop)).location
    assert "1 event dropped" in shop.client.get(address).text
    shop.now += 600
    assert "1 event dropped" not in shop.client.get(address).text


# -- others' texts ---------------------------------------------------------------------------------


def no_markup(text: str) -> bool:
    return "<script>alert" not in text and "<img src=x" not in text and "9449772114007" not in text


def test_an_orders_id_and_adrolls_words_stay_texts(make_app: AppMaker) -> None:
    shop = DashboardShop(make_app)
    shop.adroll.judge = answering(401, b'{"errors": [{"message": "<script>alert(1)</script>"}]}')
    shop.report(EVIL)
    shop.settle(**{f"o{EVIL}": {"kind": "dead", "reason": "refused", "error": EVIL}})
    shop.report("1002", currency=EVIL)
    shop.destination.stop("http_401", "print")
    shop.destination.failed(EVIL)
    pages = everything(shop)
    assert len([address for address in pages if "event=" in address]) >= 2
    html = {address: text for address, text in pages.items() if "<!doctype" in text}
    assert any("&lt;script&gt;alert(1)" in text for text in html.values())
    for address, text in html.items():
        assert no_markup(text), address
    for answer in (
        shop.post("orders/find", order=EVIL),
        shop.post("orders/find", order="<script>alert(1)</script>"),
        shop.upload(f"order,total,{EVIL}\n{EVIL},1,{EVIL}\n", group=EVIL),
        shop.upload("order\n<script>alert(1)</script>\n"),
        shop.upload(f"{EVIL}\n1\n", column=EVIL[:50]),
    ):
        if answer.status_code == 303:
            answer = shop.client.get(answer.location)
        assert answer.status_code == 200
        assert no_markup(answer.text)


@pytest.mark.parametrize("name", [page.name for page in PAGES])
def test_what_the_address_says_stays_a_text(shop: DashboardShop, name: str) -> None:
    path = "" if name == PAGES[0].name else name
    arguments = ("event", "problem", "before", "period", "said", "format")
    for argument in arguments:
        for text in (EVIL, "\x00", "\ud83d", "9" * 5000):
            answer = shop.client.get(
                WHERE + path, query_string={argument: text.encode("utf-8", "replace")}
            )
            assert answer.status_code in (200, 404), (argument, text)
            assert no_markup(answer.text)


def test_no_cell_of_a_csv_is_a_formula(shop: DashboardShop) -> None:
    formula = '=HYPERLINK("https://elsewhere.example";"1001")'
    shop.report(formula)
    shop.settle(**{f"o{formula}": {"kind": "dead", "reason": "refused", "error": "@SUM(1)"}})
    uploaded = shop.upload(f"order,group\n+1,-1\n'{formula}\n".replace("'=", "="), format="csv")
    texts = [text for address, text in everything(shop).items() if ".csv" in address]
    assert "'=HYPERLINK" in "".join(texts)
    for text in (*texts, uploaded.text):
        cells = itertools.chain.from_iterable(csv.reader(io.StringIO(text)))
        assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []


def test_nothing_of_a_visitor_is_on_any_page(make_app: AppMaker) -> None:
    shop = DashboardShop(make_app)
    values: dict[str, Any] = {
        "email": "c4n4ry@example.com",
        "user_id": "user-c4n4ry",
        "device_id": "46d41c62-e88b-42e2-8671-e15314bb8837",
        "external_data": "data-c4n4ry",
    }
    shop.report("1001", **values)
    shop.report("1002", **values | {"currency": "EURO"})
    shop.report("1003", **values, hold=True)
    shop.settle(o1001={"kind": "dead", "reason": "refused", "error": "no"})
    pages = everything(shop)
    found = [
        shop.client.get(answer.location).text
        for answer in (shop.post("orders/find", order=order) for order in ("1001", "1002", "1003"))
    ]
    assert "present" in found[0]
    for text in (*pages.values(), *found):
        for value in ("c4n4ry", "203.0.113.7", values["device_id"], "a-token", "a key for tests"):
            assert value not in text


# -- uploads ---------------------------------------------------------------------------------------


def post_raw(shop: DashboardShop, body: io.BytesIO, length: int | None) -> TestResponse:
    return shop.client.post(
        f"{WHERE}orders/compare",
        input_stream=body,
        content_type="multipart/form-data; boundary=b",
        headers={"Sec-Fetch-Site": "same-origin"},
        environ_overrides={"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
        if length is None
        else {"CONTENT_LENGTH": str(length)},
    )


def test_a_large_list_is_refused_before_it_is_read(shop: DashboardShop) -> None:
    """As is one of unknown length."""
    body = io.BytesIO(b"x" * 1000)
    answer = post_raw(shop, body, 1 << 30)
    assert answer.status_code == 413
    assert "flask adroll takes any size" in answer.text
    assert post_raw(shop, body, None).status_code == 411
    assert body.tell() == 0
    # Other forms take little.
    form = {**form_of(shop), "sure": "yes" * 40_000}
    assert shop.post("problems/drop", **form).status_code == 413
    assert untouched(shop)


def test_an_upload_takes_little_memory(shop: DashboardShop) -> None:
    """A list lies on the disk, and is read line by line."""
    line = b"1002,59.90," + b"x" * 400 + b"\n"
    content = b"order,total,note\n" + line * (2_000_000 // len(line))
    assert shop.upload(content).status_code == 200
    # The body as the test's own client holds it, and as little again.
    assert least_memory(lambda: shop.upload(content)) < 1.5 * len(content)
