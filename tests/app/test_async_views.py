"""``async def`` views: every public function works in them as in others."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request

import adroll_flask
from adroll_flask import AdRoll, Receipt, current_visitor, report_conversion
from adroll_flask.testing import reports
from tests.conftest import AppMaker
from tests.support.visits import ORDER, VISIT


def buy(order: str, **fields: Any) -> str:
    return report_conversion(**{**ORDER, "order_id": order, **fields}).status


#: What the app's view calls, by its address.
CALLS: dict[str, Callable[[], object]] = {
    "report": lambda: buy(request.form["order"]),
    "identify": lambda: adroll_flask.identify(email="ada@example.com", user_id="17"),
    "token": lambda: current_visitor().token(),
    "webhook": lambda: buy("by token", visitor=request.form["token"]),
}


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

    @app.post("/<name>")
    async def view(name: str) -> str:
        await asyncio.sleep(0)
        return str(CALLS[name]())

    @app.post("/all")
    async def all_at_once() -> list[str]:
        async def one(order: int) -> Receipt:
            await asyncio.sleep(0)
            return report_conversion(**{**ORDER, "order_id": order})

        # asyncio.to_thread() hands the context on, as asyncio's documentation says.
        in_thread = asyncio.to_thread(report_conversion, **ORDER)
        return [receipt.status for receipt in await asyncio.gather(in_thread, *map(one, range(5)))]

    return app


@pytest.fixture
def client(app: Flask) -> Any:
    client = app.test_client()
    client.environ_base.update(VISIT["environ_base"])
    client.get("/page?adct=click123")
    return client


def test_the_page_has_the_visitor_the_cookies_and_the_snippet(app: Flask) -> None:
    page = app.test_client().get("/page?adct=click123")
    assert "<body>click123</body>" in page.text
    assert page.text.count("data-adroll") == 1
    assert "adroll_visitor=" in "".join(page.headers.getlist("Set-Cookie"))


def test_functions_for_views_work(app: Flask, client: Any) -> None:
    def call(name: str, user: str = "", **form: str) -> str:
        return str(client.post(f"/{name}", data=form, headers={"X-User": user}).text)

    with reports(app) as reported:
        token = call("token")
        call("identify")
        statuses = [call("report", order=one) for one in ("known", "known")]
        statuses += [call("report", "42", order="asked"), call("webhook", token=token)]
    assert statuses == ["queued", "duplicate", "queued", "queued"]
    users = {event.order_id: event.user_id for event in reported}
    assert users == {"known": "17", "asked": "42", "by token": None}
    assert {event.adct for event in reported} == {"click123"}


def test_tasks_and_threads_of_one_view_report_for_its_visitor(app: Flask, client: Any) -> None:
    with reports(app) as reported:
        assert client.post("/all").get_json() == ["queued"] * 6
    assert {event.adct for event in reported} == {"click123"}
