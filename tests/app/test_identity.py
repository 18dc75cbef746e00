"""Capture, cookies, session and caches, through Flask's test client."""

import re
from typing import Any

import pytest
from flask import Flask, Request, Response, jsonify, redirect, session
from flask.sessions import SessionInterface, SessionMixin
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from adroll_flask import current_visitor
from adroll_flask.visitor.record import COOKIE_LIFE
from tests.app.conftest import Either, Later
from tests.conftest import PAGE, AppMaker

A = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"


B = "00000000000000000000000000000b0b-1700000000000"


def cookies(response: TestResponse) -> dict[str, str]:
    """Set-Cookie lines by name, less the session's, which only carries the mirror."""
    lines = response.headers.getlist("Set-Cookie")
    return {line.partition("=")[0]: line for line in lines if not line.startswith("session=")}


def value(client: FlaskClient, name: str, **where: Any) -> str | None:
    cookie = client.get_cookie(name, **where)
    return None if cookie is None else cookie.value


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    app = make_app()

    @app.get("/json")
    def as_json() -> dict[str, int]:
        return {"n": 1}

    @app.get("/go")
    def go() -> Response:
        return redirect("/")  # type: ignore[return-value]

    return app


def test_a_first_page_view_gets_both_cookies(app: Flask) -> None:
    response = app.test_client().get("/", base_url="https://shop.test")
    set_ = cookies(response)
    assert set_.keys() == {"adroll_visitor", "__adroll_fpc"}
    fpc = set_["__adroll_fpc"]
    assert re.match(r"__adroll_fpc=[0-9a-f]{32}-[0-9]{13}; ", fpc)
    for part in ("Domain=shop.test", f"Max-Age={COOKIE_LIFE}", "SameSite=Lax", "Path=/", "Secure"):
        assert part in fpc
    assert "HttpOnly" not in fpc
    for part in ("Domain=shop.test", "HttpOnly", "Secure"):
        assert part in set_["adroll_visitor"]
    assert response.headers["Cache-Control"] == "private"
    found = cookies(app.test_client().get("/", base_url="http://localhost"))
    assert found.keys() == set_.keys()
    assert not any("Secure" in line or "Domain" in line for line in found.values())


def test_a_known_visitor_is_not_parsed_again(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    client = app.test_client()
    client.get("/")
    client.get("/")

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("work on the hot path")

    monkeypatch.setattr("adroll_flask.visitor.record.Signer.unsign", fail)
    monkeypatch.setattr("adroll_flask.visitor.record.Signer.sign", fail)
    response = client.get("/")
    assert response.status_code == 200
    assert not {"Set-Cookie", "Cache-Control", "Vary"} & {*response.headers.keys()}


@pytest.mark.parametrize(
    "found",
    [
        "Zk3vQ9xYp2Lm8RtWc5HnBd7sJf4GaE6u-1667065540836",
        "46d41c62e88bb2e267c1e15314bb8837",
        "46D41C62E88BB2E267C1E15314BB8837-1667065540836",
        "46d41c62e88bb2e267c1e15314bb8837-a_1730238675",
        A,
        "GA1.2.1234567890.1667065540",
    ],
)
def test_a_cookie_from_before_stays_the_visitors_identity(app: Flask, found: str) -> None:
    client = app.test_client()
    client.set_cookie("__adroll_fpc", found)
    response = client.get("/?adct=click123")
    assert f"__adroll_fpc={found}; " in cookies(response)["__adroll_fpc"]
    seen = client.get("/who").get_json()
    assert (seen["first_party_cookie"], seen["first_party_cookie_source"]) == (found, "browser")
    # Lost by the browser, it comes back from the record.
    client.delete_cookie("__adroll_fpc")
    client.get("/")
    assert value(client, "__adroll_fpc") == found
    same, told = {"Sec-Fetch-Site": "same-origin"}, {"first_party_cookie": found}
    assert client.post("/_adroll/identity", json=told, headers=same).status_code == 204


def test_a_newer_click_replaces_an_older_one(app: Flask) -> None:
    client = app.test_client()
    client.get("/?adct=old")
    client.get("/?adct=new")
    assert client.get("/who").get_json()["adct"] == "new"
    assert "Set-Cookie" not in client.get("/?adct=new").headers, "a reload changes nothing"


@pytest.mark.parametrize("path", ["/go?adct=click123", "/json?adct=click123"])
def test_a_click_is_caught_on_redirects_and_other_gets(app: Flask, path: str) -> None:
    client = app.test_client()
    client.get(path)
    assert client.get("/who").get_json()["adct"] == "click123"


@pytest.mark.parametrize("bad", ["a%20%0d%0aSet-Cookie:x", "x" * 241, "%00", "é"])
def test_a_malformed_click_id_is_counted_and_ignored(app: Flask, bad: str) -> None:
    client = app.test_client()
    assert client.get(f"/?adct={bad}").status_code == 200
    assert client.get("/who").get_json()["adct"] is None
    assert app.extensions["adroll"].counters.get("adct_ignored", "malformed") == 1


def test_a_changed_browser_value_updates_the_record(app: Flask) -> None:
    client = app.test_client()
    client.get("/?adct=click123")
    client.set_cookie("__adroll_fpc", B)
    client.get("/")
    client.delete_cookie("__adroll_fpc")
    client.get("/")
    assert value(client, "__adroll_fpc") == B
    assert client.get("/who").get_json()["adct"] == "click123"


CACHEABLE = [
    {"Cache-Control": "public"},
    {"Expires": "Fri, 01 Jan 2100 00:00:00 GMT"},
    {"CDN-Cache-Control": "max-age=60", "Cache-Control": "no-store"},
]


@pytest.mark.parametrize("headers", CACHEABLE)
def test_on_a_cacheable_page_the_server_sets_nothing(app: Flask, headers: dict[str, str]) -> None:
    app.add_url_rule("/page", "page", lambda: Response(PAGE, headers=headers))
    response = app.test_client().get("/page?adct=click123")
    assert not cookies(response)
    assert "Vary" not in response.headers
    for name, text in headers.items():
        assert response.headers[name] == text
    assert b"data-adroll" in response.data


@pytest.mark.parametrize("header", ["Cache-Control", "X-Accel-Expires", None])
def test_a_page_made_cacheable_after_us_is_cacheable(
    make_app: AppMaker, header: str | None
) -> None:
    def keep(response: Response) -> Response:
        if header is None:
            response.cache_control.max_age = 60
        else:
            response.headers[header] = "60" if header[0] == "X" else "public, max-age=60"
        response.set_cookie("basket", "1")
        return response

    # Flask runs these in reverse order.
    client = make_app(Later(lambda app: app.after_request(keep))).test_client()
    with client.session_transaction() as session:
        session["user"] = "ann"
    response = client.get("/?adct=click123")
    assert [line.partition("=")[0] for line in response.headers.getlist("Set-Cookie")] == ["basket"]
    assert "private" not in response.headers.get("Cache-Control", "")
    assert b"data-adroll" in response.data


@pytest.mark.parametrize(
    ("control", "then"),
    [(None, "private"), *((control, control) for control in ("private, max-age=60", "no-store"))],
)
def test_on_others_it_does_and_leaves_caching_alone(app: Flask, control: Any, then: str) -> None:
    headers = {} if control is None else {"Cache-Control": control}
    app.add_url_rule("/page", "page", lambda: Response(PAGE, headers=headers))
    response = app.test_client().get("/page?adct=click123")
    assert cookies(response).keys() >= {"adroll_visitor", "__adroll_fpc"}
    assert response.headers["Cache-Control"] == then


def test_nothing_is_generated_for_json_or_posts(app: Flask) -> None:
    app.add_url_rule("/form", "form", lambda: PAGE, methods=["POST"])
    client = app.test_client()
    answer = client.get("/json")
    assert not {"Set-Cookie", "Vary"} & {*answer.headers.keys()}
    assert not cookies(client.post("/form?adct=click123"))
    seen = client.get("/who")
    assert seen.get_json()["adct"] is None, "no landing"
    assert seen.headers["Vary"] == "Cookie", "the page depends on it"


def test_global_privacy_control_leaves_no_trace_and_takes_back_what_was_kept(app: Flask) -> None:
    client = app.test_client()
    assert not cookies(client.get("/?adct=click123", headers={"Sec-GPC": "1"}))
    client.get("/?adct=click123")
    with client.session_transaction() as begun:
        begun.update(adroll={"adct": "click123"}, adroll_identity={"user_id": "7"}, basket=1)
    response = client.get("/?adct=click456", headers={"Sec-GPC": "1"})
    # The page itself is the same for everybody; the kit looks at the browser's signal.
    assert b"data-adroll" in response.data
    assert value(client, "adroll_visitor") is None
    assert value(client, "__adroll_fpc") is None
    with client.session_transaction() as kept:
        assert list(kept) == ["basket"]


def test_where_it_is_switched_off_it_does_nothing(either: Either) -> None:
    app, client, _ = either(enabled=False)
    app.add_url_rule("/visitor", "visitor", lambda: repr(current_visitor().token()))
    response = client.get("/?adct=click123")
    assert response.text == PAGE
    assert not cookies(response)
    assert client.get("/_adroll/kit.0123456789abcdef.js").status_code == 404
    assert client.get("/visitor?adct=click123").text == "''", "a checkout keeps it"


# -- ``session["adroll"]``: from the first visit on, or only in sessions that the site has anyway -


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


def test_always_shows_the_visitor_and_begins_no_session_by_itself(make_app: AppMaker) -> None:
    client = make_shop(make_app, "always").test_client()
    client.get("/?adct=click123", base_url=SHOP)
    assert "Cookie" not in client.get("/", base_url=SHOP).headers.get("Vary", "")
    seen = client.get("/seen", base_url=SHOP)
    assert seen.get_json()["adct"] == "click123"
    assert "Cookie" in seen.headers["Vary"]
    assert client.get_cookie("session", domain="shop.example") is None
    client.post("/cart", base_url=SHOP)
    client.get("/?adct=click456", base_url=SHOP)
    assert shown(client)["adct"] == "click456", "a newer click beside a saved session"
    client.post("/cart", base_url=SHOP)
    client.delete_cookie("adroll_visitor", domain="shop.example")
    assert shown(client)["adct"] == "click456", "what the site saved holds the visitor"


def test_join_shows_the_visitor_as_soon_as_the_site_has_a_session(make_app: AppMaker) -> None:
    client = make_shop(make_app, "join").test_client()
    first = client.get("/?adct=click123", base_url=SHOP)
    assert "Cookie" not in first.headers.get("Vary", "")
    assert shown(client) is None
    assert client.get_cookie("session", domain="shop.example") is None
    client.post("/cart", base_url=SHOP)
    before = client.get_cookie("session", domain="shop.example")
    assert shown(client)["adct"] == "click123"
    assert client.get_cookie("session", domain="shop.example") == before, "it was only read"


@pytest.mark.parametrize("mode", ["always", "join"])
def test_a_visitor_without_consent_is_not_shown(make_app: AppMaker, mode: str) -> None:
    client, no = make_shop(make_app, mode).test_client(), {"Sec-GPC": "1"}
    client.get("/?adct=click123", base_url=SHOP)
    client.post("/cart", base_url=SHOP, headers=no)
    assert client.get("/seen", base_url=SHOP, headers=no).get_json() is None


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
