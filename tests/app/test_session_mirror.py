"""``session["adroll"]``: from the first visit on, or only in sessions that the site has anyway."""

from __future__ import annotations

from typing import Any

from flask import Flask, Request, Response, jsonify, session
from flask.sessions import SessionInterface, SessionMixin
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


def test_always_begins_no_session_and_sets_no_vary_by_itself(make_app: AppMaker) -> None:
    client = make_shop(make_app, "always").test_client()
    client.get("/?adct=click123", base_url=SHOP)
    page = client.get("/", base_url=SHOP)
    assert client.get_cookie("session", domain="shop.example") is None
    assert "Cookie" not in page.headers.get("Vary", "")
    assert "Cookie" in client.get("/seen", base_url=SHOP).headers["Vary"]
    assert client.get_cookie("session", domain="shop.example") is None


def test_what_the_site_saves_holds_the_visitor(make_app: AppMaker) -> None:
    app = make_shop(make_app, "always")
    client = app.test_client()
    client.get("/?adct=click123", base_url=SHOP)
    client.post("/cart", base_url=SHOP)
    client.delete_cookie("adroll_visitor", domain="shop.example")
    assert shown(client)["adct"] == "click123"


def test_a_newer_click_is_shown_beside_a_saved_session(make_app: AppMaker) -> None:
    client = make_shop(make_app, "always").test_client()
    client.get("/?adct=click123", base_url=SHOP)
    client.post("/cart", base_url=SHOP)
    client.get("/?adct=click456", base_url=SHOP)
    assert shown(client)["adct"] == "click456"


def test_a_test_s_own_look_into_the_session_sees_the_visitor(make_app: AppMaker) -> None:
    client = make_shop(make_app, "always").test_client()
    client.get("/?adct=click123")
    with client.session_transaction() as kept:
        assert kept["adroll"]["adct"] == "click123"


def test_always_shows_no_visitor_without_consent(make_app: AppMaker) -> None:
    client = make_shop(make_app, "always").test_client()
    client.get("/?adct=click123", base_url=SHOP)
    refused = client.get("/seen", base_url=SHOP, headers={"Sec-GPC": "1"})
    assert refused.get_json() is None


class Kept(dict[str, Any], SessionMixin):
    """A session of the simplest kind: it counts as changed with every request."""


class OnServer(SessionInterface):
    """Sessions that a server keeps."""

    def __init__(self) -> None:
        self.kept = Kept()

    def open_session(self, app: Flask, request: Request) -> Kept:
        return Kept(self.kept) if "session" in request.cookies else Kept()

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if session:
            self.kept = Kept(session)
            response.set_cookie("session", "number")


def test_sessions_of_the_site_s_own_kind_are_begun_with_the_record(make_app: AppMaker) -> None:
    app = make_shop(make_app, "always")
    app.session_interface = OnServer()
    client = app.test_client()
    client.get("/?adct=click123", base_url=SHOP)
    assert shown(client)["adct"] == "click123"


def test_consent_that_looks_into_the_session_finds_it(make_app: AppMaker) -> None:
    app = make_app(
        ADROLL_SESSION="always", ADROLL_CONSENT=lambda _request: session.get("no") is None
    )
    app.add_url_rule("/seen", "seen", lambda: jsonify(session.get("adroll")))
    client = app.test_client()
    client.get("/?adct=click123", base_url=SHOP)
    assert shown(client)["adct"] == "click123"
