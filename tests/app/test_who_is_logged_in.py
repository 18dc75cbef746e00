"""Whose event it is: the call's word, the site's identity function, identify(), and a logout."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user

from adroll_flask import (
    AdRoll,
    ConfigurationError,
    EventError,
    identify,
    report_conversion,
    report_event,
    reset_identity,
)
from tests.conftest import AppMaker
from tests.support.reported_events import kept

ORDER: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}
BASE = "https://shop.test"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def app(make_app: AppMaker, adroll: AdRoll) -> Flask:
    return with_views(make_app(adroll))


def with_views(app: Flask) -> Flask:
    @app.post("/say")
    def say() -> str:
        identify(email="said@example.com", user_id="said", device_id=None)
        return ""

    @app.post("/reset")
    def reset() -> str:
        reset_identity()
        return ""

    @app.post("/search")
    def search() -> str:
        return report_event("productSearch", keywords="mug").status

    @app.post("/search-as-ann")
    def search_as() -> str:
        return report_event("productSearch", email="ann@example.com", user_id="ann").status

    @app.post("/search-blank")
    def search_blank() -> str:
        return report_event("productSearch", email="", user_id=None).status

    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return visitor(app)


def visitor(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.get("/?adct=click123", base_url=BASE)
    return client


def post(client: FlaskClient, path: str) -> str:
    address = {"REMOTE_ADDR": "203.0.113.7"}
    return client.post(path, base_url=BASE, environ_base=address).text


def last(app: Flask) -> dict[str, Any]:
    found: dict[str, Any] = kept(app)[-1]["identifiers"]
    return found


def test_the_identity_function_is_asked_at_each_report(
    app: Flask, client: FlaskClient, adroll: AdRoll
) -> None:
    asked: list[dict[str, Any] | None] = [{"email": "Jo@Example.com", "user_id": 7}, None]
    adroll.identity(lambda: asked.pop(0))
    assert post(client, "/search") == "queued"
    assert last(app)["email_sha256"] == sha256("jo@example.com")
    assert last(app)["user_id"] == "7"
    assert post(client, "/search") == "queued"
    assert "email_sha256" not in last(app)
    assert asked == []


def test_the_call_counts_before_the_function_and_that_before_identify(
    app: Flask, client: FlaskClient, adroll: AdRoll
) -> None:
    post(client, "/say")
    post(client, "/search")
    assert last(app)["email_sha256"] == sha256("said@example.com")
    adroll.identity(lambda: {"email": "who@example.com"})
    post(client, "/search")
    assert last(app)["email_sha256"] == sha256("who@example.com")
    assert last(app)["user_id"] == "said"
    post(client, "/search-as-ann")
    assert last(app)["email_sha256"] == sha256("ann@example.com")
    assert last(app)["user_id"] == "ann"
    post(client, "/search-blank")
    assert last(app)["email_sha256"] == sha256("who@example.com")


def test_the_function_is_not_asked_for_a_visitor_of_whom_nothing_may_be_kept(
    make_app: AppMaker,
) -> None:
    adroll, asked = AdRoll(), []
    app = with_views(make_app(adroll, ADROLL_CONSENT=lambda request: None))
    adroll.identity(lambda: asked.append(1))
    assert post(visitor(app), "/search") == "suppressed"
    assert asked == []


def test_the_function_is_not_asked_for_a_visitor_of_a_token(
    app: Flask, client: FlaskClient, adroll: AdRoll
) -> None:
    asked: list[int] = []
    adroll.identity(lambda: asked.append(1))
    with app.test_request_context("/webhook"):
        report_event(
            "productSearch",
            visitor=None,
            adct="c1",
            ip="203.0.113.7",
            page_location="https://shop.test/",
        )
    assert asked == []


@pytest.mark.parametrize("said", ["ann@example.com", {"mail": "ann@example.com"}, 7])
def test_a_function_that_says_something_else_raises_in_strict_mode(
    app: Flask, client: FlaskClient, adroll: AdRoll, said: Any
) -> None:
    adroll.identity(lambda: said)
    with pytest.raises(EventError, match="identity: has to return") as caught:
        post(client, "/search")
    assert "ann@" not in str(caught.value)


def test_a_function_that_raises_costs_no_event_in_production(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    adroll = AdRoll()
    app = with_views(make_app(adroll, ADROLL_STRICT=False))

    @adroll.identity
    def who() -> Mapping[str, Any] | None:
        raise LookupError("ann@example.com")

    assert post(visitor(app), "/search") == "queued"
    assert app.extensions["adroll"].counters.get("identity_failed") == 1
    [record] = [record for record in caplog.records if "identity" in record.getMessage()]
    assert "LookupError" in record.getMessage()
    assert "test_who_is_logged_in.py" in record.getMessage()
    assert "in who" in record.getMessage()
    assert "ann@" not in record.getMessage()


def test_a_second_identity_function_is_an_error(adroll: AdRoll) -> None:
    adroll.identity(lambda: None)
    with pytest.raises(ConfigurationError, match="identity"):
        adroll.identity(lambda: None)


def test_reset_identity_ends_what_identify_said(app: Flask, client: FlaskClient) -> None:
    post(client, "/say")
    post(client, "/reset")
    post(client, "/search")
    assert "email_sha256" not in last(app)
    assert "user_id" not in last(app)
    assert last(app)["adct"] == "click123", "the visitor stays known"


class User(UserMixin):  # type: ignore[misc]
    id = "7"
    email = "jo@example.com"


def test_flask_login_s_logout_ends_what_identify_said(app: Flask) -> None:
    LoginManager(app).user_loader(lambda id: User())

    @app.post("/login")
    def login() -> str:
        login_user(User())
        identify(email=current_user.email, user_id=current_user.id)
        return ""

    @app.post("/logout")
    def logout() -> str:
        logout_user()
        return report_event("productSearch").status

    client = visitor(app)
    post(client, "/login")
    post(client, "/search")
    assert last(app)["user_id"] == "7"
    assert post(client, "/logout") == "queued"
    assert "email_sha256" not in last(app), "in the very request"
    post(client, "/search")
    assert "email_sha256" not in last(app)
    with client.session_transaction(base_url=BASE) as session:
        assert "adroll_identity" not in session


def test_one_app_s_logout_leaves_another_app_alone(app: Flask, make_app: AppMaker) -> None:
    other = make_app()
    LoginManager(other).user_loader(lambda id: User())
    with app.test_request_context("/?adct=c"):
        identify(user_id="said")
        with other.test_request_context("/"):
            logout_user()
        report_conversion(**ORDER, ip="203.0.113.7")
    assert last(app)["user_id"] == "said"


def test_identify_before_consent_is_told_once_with_the_way_out(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    answer: list[bool | None] = [None]
    app = with_views(make_app(ADROLL_CONSENT=lambda request: answer[0]))
    client = visitor(app)
    with caplog.at_level(logging.WARNING, "adroll_flask"):
        post(client, "/say")
        post(client, "/say")
    [record] = [record for record in caplog.records if "identify()" in record.getMessage()]
    assert "@adroll.identity" in record.getMessage()
    assert "said@" not in record.getMessage()
    counters = app.extensions["adroll"].counters
    assert counters.get("identify_ignored", "consent_unknown") == 2
    answer[0] = True
    post(client, "/search")
    assert "email_sha256" not in json.dumps(kept(app))


def test_identify_after_a_no_is_counted_and_not_explained(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    app = with_views(make_app(ADROLL_CONSENT=lambda request: False))
    post(visitor(app), "/say")
    assert not [record for record in caplog.records if "identify()" in record.getMessage()]
    assert app.extensions["adroll"].counters.get("identify_ignored", "consent_refused") == 1


def test_identify_without_a_secret_key_names_the_setting(make_app: AppMaker) -> None:
    app = make_app(SECRET_KEY=None)
    with app.test_request_context("/"), pytest.raises(ConfigurationError, match="SECRET_KEY"):
        identify(user_id="7")


def test_a_missing_secret_key_is_told_once(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(SECRET_KEY=None)
    for _ in range(3):
        assert app.test_client().get("/").status_code == 200
    [record] = [record for record in caplog.records if "SECRET_KEY" in record.getMessage()]
    assert record.levelname == "WARNING"
    assert app.extensions["adroll"].counters.get("secret_key_missing") == 1
