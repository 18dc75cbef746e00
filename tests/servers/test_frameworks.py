"""Shops on Bottle and Pyramid, with ``AdRollMiddleware`` around them.

Django: ``tests/docs/test_framework_pages.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from adroll_flask import AdRollMiddleware, current_visitor, report_conversion
from tests.conftest import ADVERTISABLE, PAGE, PIXEL
from tests.support.reported_events import kept

BUYER = {"REMOTE_ADDR": "203.0.113.7"}


def wrapped(app: Any, folder: Path) -> AdRollMiddleware:
    return AdRollMiddleware(
        app,
        advertisable_eid=ADVERTISABLE,
        pixel_eid=PIXEL,
        access_token="a-token",
        secret_key="a long random text",
        delivery="worker",
        strict=True,
        folder=str(folder),
    )


def bottle_shop() -> Any:
    bottle = pytest.importorskip("bottle")
    app = bottle.Bottle()
    app.route("/", callback=lambda: PAGE)
    app.route("/who", callback=lambda: current_visitor().adct or "nobody")

    def buy() -> str:
        return report_conversion(order_id="1", value="1.00", currency="EUR").status

    app.route("/buy", callback=buy)
    return app


def pyramid_shop() -> Any:
    config = pytest.importorskip("pyramid.config").Configurator()
    response = pytest.importorskip("pyramid.response").Response

    def view(path: str, function: Any) -> None:
        config.add_route(path, f"/{path}".replace("/index", "/"))
        config.add_view(lambda request: response(function()), route_name=path)

    view("index", lambda: PAGE)
    view("who", lambda: current_visitor().adct or "nobody")
    view("buy", lambda: report_conversion(order_id="1", value="1.00", currency="EUR").status)
    return config.make_wsgi_app()


@pytest.mark.parametrize("shop", [bottle_shop, pyramid_shop])
def test_a_visitor_of_a_bottle_or_pyramid_shop_is_known_at_the_purchase(
    shop: Any, tmp_path: Path
) -> None:
    middleware = wrapped(shop(), tmp_path)
    try:
        client = Client(middleware)
        page = client.get("/?adct=click123", environ_overrides=BUYER)
        assert "data-adroll" in page.text
        assert client.get("/who", environ_overrides=BUYER).text == "click123"
        assert client.get("/buy", environ_overrides=BUYER).text == "queued"
        assert client.get("/buy", environ_overrides=BUYER).text == "duplicate"
        [event] = kept(middleware)
        assert event["identifiers"]["adct"] == "click123"
        assert event["ip"] == "203.0.113.7"
    finally:
        middleware.runtime.outbox.close()
