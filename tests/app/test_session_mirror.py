"""``session["adroll"]``: from the first visit on, or only in sessions that the site has anyway."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, jsonify, session
from flask.testing import FlaskClient

from tests.conftest import AppMaker

SHOP = "http://shop.example"


def shown(client: FlaskClient) -> Any:
    """What a view finds in the session."""
    return client.get("/seen", base_url=SHOP).get_json()


def make_shop(make_app: AppMaker, mode: str) -> Flask:
    app = make_app(ADROLL_SESSION=mode)

    @app.post("/cart")
    def cart() -> Response:
        session["cart"] = 1
        return jsonify(ok=True)

    @app.get("/seen")
    def seen() -> Response:
        return jsonify(session.get("adroll"))

    return app


def test_always_shows_the_visitor_to_views_from_the_second_request_on(make_app: AppMaker) -> None:
    client = make_shop(make_app, "always").test_client()
    client.get("/?adct=click123", base_url=SHOP)
    assert shown(client)["adct"] == "click123"


def test_join_begins_no_session_and_sets_no_vary(make_app: AppMaker) -> None:
    client = make_shop(make_app, "join").test_client()
    first = client.get("/?adct=click123", base_url=SHOP)
    assert client.get_cookie("session", domain="shop.example") is None
    assert client.get_cookie("adroll_visitor", domain="shop.example") is not None
    assert "Cookie" not in first.headers.get("Vary", "")
    assert shown(client) is None


def test_join_shows_the_visitor_as_soon_as_the_site_has_a_session(make_app: AppMaker) -> None:
    client = make_shop(make_app, "join").test_client()
    client.get("/?adct=click123", base_url=SHOP)
    client.post("/cart", base_url=SHOP)
    assert shown(client)["adct"] == "click123"


def test_a_visitor_without_consent_is_not_shown(make_app: AppMaker) -> None:
    app = make_shop(make_app, "join")
    client = app.test_client()
    client.get("/?adct=click123", base_url=SHOP)
    client.post("/cart", base_url=SHOP, headers={"Sec-GPC": "1"})
    assert shown(client) is None


def test_a_session_that_is_only_read_stays_as_it_is(make_app: AppMaker) -> None:
    client = make_shop(make_app, "join").test_client()
    client.post("/cart", base_url=SHOP)
    client.get("/?adct=click123", base_url=SHOP)  # this response writes the record, and joins
    before = client.get_cookie("session", domain="shop.example")
    assert shown(client)["adct"] == "click123"
    assert client.get_cookie("session", domain="shop.example") == before
