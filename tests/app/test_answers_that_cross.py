"""Two answers to one browser cross: neither undoes what the other one knows."""

from __future__ import annotations

import pytest
from flask import Flask
from werkzeug.http import parse_cookie
from werkzeug.test import TestResponse

from adroll_flask import report_conversion
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
