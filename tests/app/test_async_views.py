"""``async def`` views: every public function works in them as in others."""

import asyncio
from typing import Any

from flask import Flask, request

import adroll_flask
from adroll_flask import AdRoll, current_visitor, report_conversion
from adroll_flask.testing import reports
from tests.conftest import AppMaker
from tests.support.visits import ORDER


async def buy(order: str, **fields: Any) -> str:
    await asyncio.sleep(0)
    return report_conversion(**{**ORDER, "order_id": order, **fields}).status


def with_views(adroll: AdRoll, app: Flask) -> Flask:
    @adroll.identity
    def who() -> dict[str, str] | None:
        user = request.headers.get("X-User")
        return {"user_id": user} if user else None

    @app.get("/page")
    async def page() -> str:
        await asyncio.sleep(0)
        return f"<html><head></head><body>{current_visitor().adct}</body></html>"

    app.add_url_rule("/buy/<order>", "buy", buy, methods=["POST"])

    @app.post("/all")
    async def all_at_once() -> list[str]:
        adroll_flask.identify(email="ada@example.com", user_id="17")
        by_token = buy("by token", visitor=current_visitor().token())
        # asyncio.to_thread() hands the context on, as asyncio's documentation says.
        in_thread = asyncio.to_thread(asyncio.run, buy("in a thread"))
        tasks = (buy(str(number)) for number in range(5))
        return await asyncio.gather(by_token, in_thread, *tasks)

    return app


def test_views_their_tasks_and_threads_have_visitor_snippet_and_reports(make_app: AppMaker) -> None:
    adroll = AdRoll()
    app = with_views(adroll, make_app(adroll))
    client = app.test_client()
    client.environ_base["REMOTE_ADDR"] = "203.0.113.7"
    page = client.get("/page?adct=click123")
    assert "<body>click123</body>" in page.text
    assert page.text.count("data-adroll") == 1
    assert "adroll_visitor=" in "".join(page.headers.getlist("Set-Cookie"))
    with reports(app) as reported:
        assert client.post("/buy/asked", headers={"X-User": "42"}).text == "queued"
        assert client.post("/all").get_json() == ["queued"] * 7
        assert client.post("/buy/1").text == "duplicate"
    users = {event.order_id: event.user_id for event in reported}
    known = dict.fromkeys(("in a thread", *"01234"), "17")
    assert users == {"asked": "42", "by token": None, **known}
    assert {event.adct for event in reported} == {"click123"}
