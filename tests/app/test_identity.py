"""Capture, cookies, session and caches, through Flask's test client."""

import re
from typing import Any

import pytest
from flask import Flask, Response, redirect
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from adroll_flask import AdRoll, current_visitor
from tests.app.conftest import Either, Later
from tests.conftest import PAGE, AppMaker

A = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"


B = "00000000000000000000000000000b0b-1700000000000"


def cookies(response: TestResponse) -> dict[str, str]:
    """Set-Cookie lines by name."""
    return {line.partition("=")[0]: line for line in response.headers.getlist("Set-Cookie")}


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
    assert set_.keys() == {"__Host-adroll_visitor", "__adroll_fpc"}
    fpc = set_["__adroll_fpc"]
    assert re.match(r"__adroll_fpc=[0-9a-f]{32}-[0-9]{13}; ", fpc)
    for part in ("Domain=shop.test", "Max-Age=31536000", "SameSite=Lax", "Path=/", "Secure"):
        assert part in fpc
    assert "HttpOnly" not in fpc
    record = set_["__Host-adroll_visitor"]
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=Lax"} <= {*record.split("; ")}
    assert "Domain" not in record
    assert response.headers["Cache-Control"] == "private"
    found = cookies(app.test_client().get("/", base_url="http://localhost"))
    assert found.keys() == {"adroll_visitor", "__adroll_fpc"}
    assert not any("Secure" in line or "Domain" in line for line in found.values())


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
@pytest.mark.parametrize("adroll", [AdRoll(), Later(lambda app: app.after_request(lambda it: it))])
def test_on_others_it_does_and_leaves_caching_alone(
    make_app: AppMaker, adroll: AdRoll, control: Any, then: str
) -> None:
    headers = {} if control is None else {"Cache-Control": control}
    app = make_app(adroll)
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
        begun.update(adroll_identity={"user_id": "7"}, basket=1)
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
