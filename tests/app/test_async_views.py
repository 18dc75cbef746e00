"""``async def`` views: every public function works in them as in others."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request

import adroll_flask
from adroll_flask import (
    AdRoll,
    Receipt,
    cancel_conversion,
    current_visitor,
    forget_visitor,
    identify,
    release_conversion,
    report_conversion,
    report_event,
    reset_identity,
)
from adroll_flask.testing import reports
from tests.conftest import AppMaker

ADDRESS = {"REMOTE_ADDR": "203.0.113.7"}
ORDER: dict[str, Any] = {"order_id": "1001", "value": "5.00", "currency": "EUR"}


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    adroll = AdRoll()
    app = make_app(adroll)

    @adroll.identity
    def who() -> dict[str, str] | None:
        user = request.headers.get("X-User")
        return {"user_id": user} if user else None

    @app.get("/page")
    async def page() -> str:
        await asyncio.sleep(0)
        return "<html><head></head><body>" + (current_visitor().adct or "") + "</body></html>"

    @app.post("/buy/<order>")
    async def buy(order: str) -> str:
        await asyncio.sleep(0)
        return report_conversion(**{**ORDER, "order_id": order}).status

    @app.post("/cart")
    async def cart() -> str:
        await asyncio.sleep(0)
        return report_event("addToCart", products=[{"product_id": "mug", "price": "5"}]).status

    @app.post("/login")
    async def login() -> str:
        await asyncio.sleep(0)
        identify(email="ada@example.com", user_id="17")
        return "hello"

    @app.post("/logout")
    async def logout() -> str:
        await asyncio.sleep(0)
        reset_identity()
        return "bye"

    @app.post("/forget")
    async def forget() -> str:
        await asyncio.sleep(0)
        forget_visitor()
        return "forgotten"

    @app.get("/token")
    async def token() -> str:
        await asyncio.sleep(0)
        return current_visitor().token()

    @app.post("/webhook")
    async def webhook() -> str:
        await asyncio.sleep(0)
        return report_conversion(**ORDER, visitor=request.form["token"]).status

    @app.post("/hold/<order>")
    async def hold(order: str) -> str:
        await asyncio.sleep(0)
        return report_conversion(**{**ORDER, "order_id": order}, hold=True).status

    @app.post("/release/<order>")
    async def release(order: str) -> str:
        await asyncio.sleep(0)
        return release_conversion(order, value="4.00", currency="EUR").status

    @app.post("/cancel/<order>")
    async def cancel(order: str) -> str:
        await asyncio.sleep(0)
        return cancel_conversion(order).status

    return app


@pytest.fixture
def client(app: Flask) -> Any:
    client = app.test_client()
    client.environ_base.update(ADDRESS)
    client.get("/page?adct=click123")
    return client


def test_the_page_has_the_visitor_the_cookies_and_the_snippet(app: Flask) -> None:
    page = app.test_client().get("/page?adct=click123", environ_base=ADDRESS)
    assert "<body>click123</body>" in page.text
    assert page.text.count("data-adroll") == 1
    assert "adroll_visitor=" in "".join(page.headers.getlist("Set-Cookie"))


def test_conversions_and_other_events_are_reported(app: Flask, client: Any) -> None:
    with reports(app) as reported:
        statuses = [client.post(path).text for path in ("/cart", "/buy/1", "/buy/1", "/buy/2")]
    assert statuses == ["queued", "queued", "duplicate", "queued"]
    assert reported.one("addToCart").adct == "click123"
    assert [event.order_id for event in reported if event.event_name == "purchase"] == ["1", "2"]


def test_identify_reset_and_the_identity_function(app: Flask, client: Any) -> None:
    with reports(app) as reported:
        client.post("/login")
        client.post("/buy/1")
        client.post("/logout")
        client.post("/buy/2")
        client.post("/buy/3", headers={"X-User": "42"})
    known, unknown, asked = list(reported)
    assert (known.user_id, bool(known.email_sha256)) == ("17", True)
    assert (unknown.user_id, unknown.email_sha256) == (None, None)
    assert asked.user_id == "42"


def test_a_token_goes_out_and_comes_in(app: Flask, client: Any) -> None:
    token = client.get("/token").text
    with reports(app) as reported:
        # The token has no page; the site's front page stands for it.
        answer = app.test_client().post("/webhook", data={"token": token})
    assert answer.text == "queued"
    assert reported.one("purchase").adct == "click123"


def test_orders_are_held_released_and_cancelled(app: Flask, client: Any) -> None:
    with reports(app) as reported:
        statuses = [
            client.post(path).text
            for path in ("/hold/1", "/hold/2", "/release/1", "/cancel/2", "/release/2")
        ]
    assert statuses[:4] == ["held", "held", "released", "cancelled"]
    purchase = reported.one("purchase")
    assert (purchase.order_id, str(purchase.value)) == ("1", "4.00")
    assert purchase.adct == "click123"
    assert len(reported.cancelled) == 1


def test_every_function_for_views_is_called_in_an_async_one() -> None:
    source = Path(__file__).read_text()
    functions = [name for name in adroll_flask.__all__ if name[0].islower()]
    functions = [name for name in functions if inspect.isfunction(getattr(adroll_flask, name))]
    assert len(functions) == 8
    for name in functions:
        assert re.search(rf"async def \w+\([^)]*\)[^@]*\b{name}\(", source), name


def test_a_visitor_is_forgotten_with_what_waits(app: Flask, client: Any) -> None:
    client.post("/buy/1")
    assert app.extensions["adroll"].outbox.queue.waiting() == 1
    assert client.post("/forget").text == "forgotten"
    assert client.get("/page").text.count("click123") == 0


def test_tasks_of_one_view_report_for_its_visitor(make_app: AppMaker) -> None:
    app = make_app()

    @app.post("/all")
    async def all_at_once() -> list[str]:
        async def one(order: int) -> Receipt:
            await asyncio.sleep(0)
            return report_conversion(**{**ORDER, "order_id": order})

        return [receipt.status for receipt in await asyncio.gather(*map(one, range(5)))]

    client = app.test_client()
    client.get("/?adct=click123", environ_base=ADDRESS)
    with reports(app) as reported:
        assert client.post("/all", environ_base=ADDRESS).get_json() == ["queued"] * 5
    assert {event.adct for event in reported} == {"click123"}


def test_a_thread_of_an_async_view_reports_for_its_visitor(make_app: AppMaker) -> None:
    app = make_app()

    @app.post("/thread")
    async def in_thread() -> str:
        # asyncio.to_thread() hands the context on, as asyncio's documentation says.
        receipt = await asyncio.to_thread(report_conversion, **ORDER)
        return receipt.status

    client = app.test_client()
    client.get("/?adct=click123", environ_base=ADDRESS)
    with reports(app) as reported:
        assert client.post("/thread", environ_base=ADDRESS).text == "queued"
    assert reported.one("purchase").adct == "click123"


def test_async_hooks_of_the_site_do_not_get_in_the_way(make_app: AppMaker) -> None:
    app = make_app()
    seen: list[str | None] = []

    @app.before_request
    async def before() -> None:
        seen.append(current_visitor().adct)

    @app.after_request
    async def after(response: Any) -> Any:
        seen.append(current_visitor().adct)
        return response

    page = app.test_client().get("/?adct=click123", environ_base=ADDRESS)
    assert page.text.count("data-adroll") == 1
    assert seen == ["click123", "click123"]
