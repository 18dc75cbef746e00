"""``async def`` views: every public function works in them as in others."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
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


def buy(order: str, **fields: Any) -> str:
    return report_conversion(**{**ORDER, "order_id": order, **fields}).status


#: What the app's view calls, by its address.
CALLS: dict[str, Callable[[], object]] = {
    "report_conversion": lambda: buy(request.form["order"]),
    "report_event": lambda: report_event("addToCart", products=[{"product_id": "mug"}]).status,
    "identify": lambda: identify(email="ada@example.com", user_id="17"),
    "reset_identity": reset_identity,
    "current_visitor": lambda: current_visitor().token(),
    "forget_visitor": forget_visitor,
    "release_conversion": lambda: release_conversion("held", value="4.00").status,
    "cancel_conversion": lambda: cancel_conversion("never paid").status,
    "hold": lambda: buy(request.form["order"], hold=True),
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
    client.environ_base.update(ADDRESS)
    client.get("/page?adct=click123")
    return client


def test_the_page_has_the_visitor_the_cookies_and_the_snippet(app: Flask) -> None:
    page = app.test_client().get("/page?adct=click123", environ_base=ADDRESS)
    assert "<body>click123</body>" in page.text
    assert page.text.count("data-adroll") == 1
    assert "adroll_visitor=" in "".join(page.headers.getlist("Set-Cookie"))


def test_every_function_for_views_is_among_the_calls() -> None:
    functions = {name for name in adroll_flask.__all__ if name[0].islower()}
    functions = {name for name in functions if inspect.isfunction(getattr(adroll_flask, name))}
    assert functions - CALLS.keys() == {"app_location"}, "which puts texts together"


def test_every_function_for_views_works(app: Flask, client: Any) -> None:
    def call(name: str, user: str = "", **form: str) -> str:
        return str(client.post(f"/{name}", data=form, headers={"X-User": user}).text)

    with reports(app) as reported:
        token = call("current_visitor")
        assert [call("report_event"), call("hold", order="held")] == ["queued", "held"]
        call("identify")
        statuses = [call("report_conversion", order=one) for one in ("known", "known")]
        call("reset_identity")
        statuses += [call("report_conversion", order="unknown")]
        statuses += [call("report_conversion", "42", order="asked"), call("webhook", token=token)]
        statuses += [call("release_conversion"), call("hold", order="never paid")]
        statuses += [call("cancel_conversion")]
    assert statuses[:5] == ["queued", "duplicate", "queued", "queued", "queued"]
    assert statuses[5:] == ["released", "held", "cancelled"]
    purchases = {event.order_id: event for event in reported.named("purchase")}
    users = {order: event.user_id for order, event in purchases.items()}
    nobody = dict.fromkeys(("unknown", "by token", "held"))
    assert users == {"known": "17", "asked": "42", **nobody}
    assert bool(purchases["known"].email_sha256) > bool(purchases["unknown"].email_sha256)
    assert {event.adct for event in reported} == {"click123"}
    assert str(purchases["held"].value) == "4.00"
    assert reported.cancelled == ["never paid"]


def test_a_visitor_is_forgotten_with_what_waits(app: Flask, client: Any) -> None:
    client.post("/report_conversion", data={"order": "1"})
    assert app.extensions["adroll"].outbox.queue.waiting() == 1
    client.post("/forget_visitor")
    assert app.extensions["adroll"].outbox.queue.waiting() == 0
    assert client.get("/page").text.count("click123") == 0


def test_tasks_and_threads_of_one_view_report_for_its_visitor(app: Flask, client: Any) -> None:
    with reports(app) as reported:
        assert client.post("/all").get_json() == ["queued"] * 6
    assert {event.adct for event in reported} == {"click123"}


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
