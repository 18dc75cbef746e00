"""Visitors without a browser: tokens, no visitor at all, and a no that came later."""

import hashlib
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request
from flask.testing import FlaskClient
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user

import adroll_flask
from adroll_flask import (
    AdRoll,
    current_visitor,
    forget_visitor,
    identify,
    report_conversion,
    report_event,
)
from tests.app.conftest import forget
from tests.conftest import AppMaker, Caplog, Patch
from tests.support.visits import ORDER, VISIT, kept, visit

BUYER = "203.0.113.7"
BASE = "https://shop.test"
HASHES = {"email_sha256", "email_md5"}


PROVIDER = "198.51.100.9"


AGENT = {"User-Agent": "Mozilla/5.0 (X11)"}


def token_of(app: Flask) -> str:
    with visit(app):
        return current_visitor().token()


def webhook(app: Flask, **headers: str) -> Any:
    return app.test_request_context(
        "/webhook",
        base_url="https://hooks.test",
        method="POST",
        headers={"User-Agent": "Stripe/1.0", **headers},
        environ_base={"REMOTE_ADDR": PROVIDER},
    )


def test_no_visitor_means_nothing_from_the_current_request(make_app: AppMaker) -> None:
    app = make_app(ADROLL_STRICT=False)
    with webhook(app, Cookie="__adroll_fpc=46d41c62e88bb2e267c1e15314bb8837-1667065540836"):
        identify(email="provider@example.com", user_id="provider")
        receipt = report_conversion(visitor=None, email="ann@example.com", **ORDER)
    assert receipt.status == "invalid"
    assert "page_location" in receipt.reason
    [event] = kept(app)
    text = json.dumps(event)
    for value in (PROVIDER, "Stripe", "hooks.test", "46d41c62", "provider"):
        assert value not in text


def test_expired_forged_and_empty_are_three_texts(make_app: AppMaker) -> None:
    now = [1_750_000_000.0]
    app = make_app(AdRoll(clock=lambda: now[0]))
    token = token_of(app)
    now[0] += 91 * 86_400
    for given, error, says in (
        (token, adroll_flask.TokenExpiredError, "expired"),
        (token[:-1], adroll_flask.TokenForgedError, "not signed"),
        ("", adroll_flask.TokenEmptyError, "empty.*visitor=None"),
        (" \n", adroll_flask.TokenEmptyError, "empty.*visitor=None"),
    ):
        with app.app_context(), pytest.raises(error, match=says) as caught:
            report_conversion(visitor=given, **ORDER)
        assert isinstance(caught.value, adroll_flask.TokenError)
    # Beside an address the expired one is as good as none; a forged one is an error all the same.
    with app.app_context():
        assert report_conversion(visitor=token, email="ann@example.com", **ORDER)
        with pytest.raises(adroll_flask.TokenForgedError):
            report_conversion(visitor=token[:-1], email="ann@example.com", **ORDER)


#: What a token is by the time of the order, and what is said beside it.
TOKENS: dict[str, Callable[[str], str]] = {
    "expired": str,
    "older than a no is known": str,
    "forged": lambda token: f"x{token}",
    "cut": lambda token: token[:-9],
    "empty": lambda token: "",
}
BESIDE: list[dict[str, Any]] = [{"email": "ann@example.com"}, {"user_id": 42}, {}]


@pytest.mark.parametrize("beside", BESIDE, ids=str)
@pytest.mark.parametrize("asks", [False, True], ids=["no consent asked", "consent asked"])
@pytest.mark.parametrize("kind", TOKENS)
def test_an_order_with_a_useless_token_goes_by_what_else_is_said(
    make_app: AppMaker, kind: str, asks: bool, beside: dict[str, Any]
) -> None:
    """A late invoice, a renewal after 90 days, a column that was too short."""
    now = [1_750_000_000.0]
    consent = {"ADROLL_CONSENT": lambda _request: True} if asks else {}
    app = make_app(AdRoll(clock=lambda: now[0]), ADROLL_STRICT=False, **consent)
    token = TOKENS[kind](token_of(app))
    now[0] += 400 * 86_400 if kind.startswith("older") else 91 * 86_400
    with webhook(app):
        place: dict[str, Any] = {"page_location": f"{BASE}/account", "ip": BUYER}
        receipt = report_conversion(visitor=token, **place, **ORDER, **beside)

    is_read = kind == "expired"  # and so the answer that is in it
    if not beside or (asks and not is_read):
        assert (receipt.status, receipt.reason[:8]) == ("invalid", "visitor:")
        assert kept(app)[0].get("identifiers", {}) == {}
        return
    assert receipt.status == "queued"
    assert receipt.reason.startswith("visitor left out: the token")
    [event] = kept(app)
    identifiers = event["identifiers"]
    assert identifiers.pop("first_party_cookie").endswith("-1577836800000"), "derived"
    assert identifiers.keys() == ({"user_id"} if "user_id" in beside else HASHES)
    assert app.extensions["adroll"].counters.get("field_dropped", "visitor") == 1


@pytest.mark.parametrize("says", ["in the token", "since then"])
def test_the_no_of_an_expired_token_s_visitor_counts(make_app: AppMaker, says: str) -> None:
    now, answer = [1_750_000_000.0], [says != "in the token"]
    asked = AdRoll(clock=lambda: now[0])
    app = make_app(asked, ADROLL_STRICT=False, ADROLL_CONSENT=lambda _request: answer[0])
    app.add_url_rule("/token", "token", lambda: current_visitor().token())
    client = app.test_client()
    client.get("/?adct=click123", base_url=BASE)
    token = client.get("/token", base_url=BASE).text
    answer[0] = False
    client.get("/", base_url=BASE)
    now[0] += 91 * 86_400
    with webhook(app):
        receipt = report_conversion(visitor=token, email="ann@example.com", **ORDER)

    assert receipt.status == ("suppressed" if says == "in the token" else "queued")
    assert kept(app) == []


def test_a_buyer_whose_browser_keeps_no_cookies_is_known_by_their_address(
    make_app: AppMaker,
) -> None:
    app = make_app()
    with app.test_request_context("/buy", method="POST", **VISIT):
        assert report_conversion(email="ann@example.com", **ORDER).status == "queued"
    [event] = kept(app)
    assert event["identifiers"].keys() == {"first_party_cookie", *HASHES}


def test_a_visitor_taken_out_of_a_request_keeps_its_agent(make_app: AppMaker) -> None:
    app = make_app()
    with app.test_request_context("/?adct=click123", headers=AGENT, **VISIT):
        visitor = current_visitor()
    with webhook(app):
        report_conversion(visitor=visitor, **ORDER)
    [event] = kept(app)
    assert event["user_agent"] == "Mozilla/5.0 (X11)"


def test_a_withdrawal_stops_a_token_that_comes_back_after_months(make_app: AppMaker) -> None:
    now = [1_750_000_000.0]
    app = make_app(AdRoll(clock=lambda: now[0]))
    tokens = []

    @app.get("/signup")
    def signup() -> str:
        tokens.append(current_visitor().token(max_age=timedelta(days=365)))
        return "<head></head>"

    app.add_url_rule("/forget", "forget", forget)
    client = app.test_client()
    client.get("/signup?adct=click123", base_url="https://shop.test")
    client.get("/forget", base_url="https://shop.test")
    outbox = app.extensions["adroll"].outbox
    outbox.ingest.take_in()
    now[0] += 300 * 86_400
    outbox.admin.keep_house()
    with webhook(app):
        report_conversion(visitor=tokens[0], **ORDER)
    assert kept(app) == []


PERSONAL: dict[str, Any] = {
    "email": "ann@example.com",
    "user_id": "user-4711",
    "adct": "click123",
    "first_party_cookie": "46d41c62e88bb2e267c1e15314bb8837-1667065540836",
    "device_id": "cdda802e-fb9c-47ad-9866-0794d394c912",
    "ip": BUYER,
    "user_agent": "Mozilla/5.0 (X11)",
    "page_location": "https://shop.test/thanks?adct=click123",
    "keywords": "ann of 5th avenue",
    "external_data": {"name": "Ann"},
}


@pytest.mark.parametrize("visitor", ["", "nonsense", 7])
def test_without_consent_no_dead_letter_has_identifiers(make_app: AppMaker, visitor: Any) -> None:
    app = make_app(ADROLL_STRICT=False, ADROLL_CONSENT=lambda request: True)
    with webhook(app):
        receipt = report_conversion(
            visitor=visitor, products=[{"product_id": "mug"}], **ORDER, **PERSONAL
        )
    assert receipt.status == "invalid"
    [event] = kept(app)
    assert event.pop("identifiers", {}) == {}
    assert event.keys() <= {
        *("advertisable_eid", "pixel_eid", "event_name", "timestamp"),
        *("conversion_value", "currency", "event_attributes"),
    }
    assert event["event_attributes"] == {"order_id": "1001", "products": [{"product_id": "mug"}]}
    app = make_app(ADROLL_STRICT=False)  # nobody asks for consent here
    with webhook(app):
        report_conversion(visitor=visitor, **ORDER, **PERSONAL)
    assert kept(app)[0]["identifiers"]["adct"] == "click123"


@pytest.mark.parametrize(
    ("headers", "reason"), [({"Sec-GPC": "1"}, "consent_gpc"), ({}, "consent_refused")]
)
def test_a_no_stops_its_token(make_app: AppMaker, headers: dict[str, str], reason: str) -> None:
    answer = [True]
    app = make_app(ADROLL_CONSENT=lambda request: answer[0])
    app.add_url_rule("/token", "token", lambda: current_visitor().token())

    @app.post("/thanks")
    def thanks() -> dict[str, str]:
        receipt = report_conversion(visitor=request.form["token"], ip=BUYER, **ORDER)
        return {"status": receipt.status, "reason": receipt.reason}

    client = app.test_client()
    client.get("/?adct=click123", base_url="https://shop.test")
    token = client.get("/token", base_url="https://shop.test").text
    answer[0] = bool(headers)
    told = client.post(
        "/thanks", base_url="https://shop.test", headers=headers, data={"token": token}
    ).get_json()
    assert told == {"status": "suppressed", "reason": reason}
    assert kept(app) == []


@pytest.mark.parametrize("cookie", ["", "__adroll_fpc=somebody-else"])
def test_a_no_of_somebody_else_s_request_does_not(make_app: AppMaker, cookie: str) -> None:
    answer = [True]
    app = make_app(ADROLL_CONSENT=lambda request: answer[0])
    token = token_of(app)
    answer[0] = False
    with webhook(app, Cookie=cookie):
        assert report_conversion(visitor=token, **ORDER).status == "queued"


def test_a_forgotten_visitor_is_not_reported_by_an_older_copy(make_app: AppMaker) -> None:
    app = make_app()

    @app.post("/forget")
    def forget() -> dict[str, str]:
        visitor = current_visitor()
        adroll_flask.forget_visitor()
        receipt = report_conversion(visitor=visitor, ip=BUYER, **ORDER)
        return {"status": receipt.status, "reason": receipt.reason}

    client = app.test_client()
    client.get("/?adct=click123", base_url="https://shop.test")
    told = client.post("/forget", base_url="https://shop.test").get_json()
    assert told == {"status": "suppressed", "reason": "forgotten"}


# -- whose event it is: the call's word, the site's identity function, identify(), and a logout ---


MD5 = hashlib.md5(b"ann@example.com").hexdigest()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def app(make_app: AppMaker, adroll: AdRoll) -> Flask:
    return with_views(make_app(adroll))


def search(**said: Any) -> str:
    return report_event("productSearch", keywords="mug", **said).status


#: What a view does, by its address.
CALLS: dict[str, Callable[[], object]] = {
    "say": lambda: identify(email="said@example.com", user_id="said", device_id=None),
    "say-nothing": identify,
    "say-md5": lambda: identify(email=MD5),
    "say-other": lambda: identify(user_id="other"),
    "reset": adroll_flask.reset_identity,
    "search": search,
    "search-as-ann": lambda: search(email="ann@example.com", user_id="ann"),
    "search-blank": lambda: search(email="", user_id=None),
}


def with_views(app: Flask) -> Flask:
    app.add_url_rule("/<name>", "call", lambda name: str(CALLS[name]()), methods=["POST"])
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return visitor(app)


def visitor(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.get("/?adct=click123", base_url=BASE)
    return client


def post(client: FlaskClient, path: str) -> str:
    return client.post(path, **VISIT).text


def last(app: Flask) -> dict[str, Any]:
    found: dict[str, Any] = kept(app)[-1]["identifiers"]
    return found


def test_identity_is_asked_at_each_report(app: Flask, client: FlaskClient, adroll: AdRoll) -> None:
    asked: list[dict[str, Any] | None] = [{"email": "Jo@Example.com", "user_id": 7}, None]
    adroll.identity(lambda: asked.pop(0))
    assert post(client, "/search") == "queued"
    assert last(app)["email_sha256"] == sha256("jo@example.com")
    assert last(app)["user_id"] == "7"
    assert post(client, "/search") == "queued"
    assert "email_sha256" not in last(app)
    assert asked == []


def test_the_call_precedes_the_function(app: Flask, client: FlaskClient, adroll: AdRoll) -> None:
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
    assert len(last(app)["email_md5"]) == 32
    with client.session_transaction(base_url=BASE) as session:
        assert "said@" not in json.dumps(dict(session)), "hashes alone are kept"


def test_who_logs_in_last_has_no_hash_of_the_former(app: Flask, client: FlaskClient) -> None:
    for path in ("/say", "/say-md5", "/search"):
        post(client, path)
    assert last(app)["email_md5"] == MD5
    assert "email_sha256" not in last(app)
    assert last(app)["user_id"] == "said"
    for path in ("/say-other", "/search"):
        post(client, path)
    assert last(app)["user_id"] == "other"
    assert "email_md5" not in last(app), "the address is another user's"
    for path in ("/say", "/search"):
        post(client, path)
    assert (last(app)["user_id"], "email_sha256" in last(app)) == ("said", True)


def test_the_function_is_not_asked_for_who_may_not_be_kept(make_app: AppMaker) -> None:
    adroll, asked = AdRoll(), []
    app = with_views(make_app(adroll, ADROLL_CONSENT=lambda request: None))
    adroll.identity(lambda: asked.append(1))
    assert post(visitor(app), "/search") == "suppressed"
    assert asked == []
    with pytest.raises(adroll_flask.ConfigurationError, match="identity"):
        adroll.identity(lambda: None)  # there is one


def test_a_token_asks_no_function(app: Flask, adroll: AdRoll, caplog: Caplog) -> None:
    asked: list[int] = []
    adroll.identity(lambda: asked.append(1))
    with webhook(app):
        at: dict[str, Any] = {"ip": BUYER, "page_location": "https://shop.test/thanks"}
        assert report_event("productSearch", visitor=None, adct="c1", **at)
    [event] = kept(app)
    assert (event["ip"], event["page_location"]) == (BUYER, at["page_location"])
    assert event["identifiers"] == {"adct": "c1"}
    counters, token = app.extensions["adroll"].counters, token_of(app)
    before = counters.get("identity_not_asked")
    for order, said in (("1", {}), ("2", {}), ("3", {"email": "jo@example.com"})):
        with app.app_context():
            report_conversion(**ORDER | {"order_id": order} | said, visitor=token)
    assert asked == []
    assert counters.get("identity_not_asked") - before == 2
    assert caplog.text.count("pass email= and user_id=") == 1, "an order of nobody is told once"


@pytest.mark.parametrize("said", ["ann@example.com", {"mail": "ann@example.com"}, 7])
def test_a_wrong_answer_is_told(app: Flask, client: FlaskClient, adroll: AdRoll, said: Any) -> None:
    adroll.identity(lambda: said)
    with pytest.raises(adroll_flask.EventError, match="identity: has to return") as caught:
        post(client, "/search")
    assert "ann@" not in str(caught.value)


def test_identify_leaves_the_session_alone_where_it_tells_nothing_new(client: FlaskClient) -> None:
    said = ("say-nothing", "say", "say", "say-nothing")
    changed = ["Set-Cookie" in client.post(f"/{one}", **VISIT).headers for one in said]
    assert changed == [False, True, False, False]


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


def test_who_is_forgotten_is_not_identified_in_the_same_request(make_app: AppMaker) -> None:
    def forgotten() -> Response:
        forget_visitor()
        identify(email="said@example.com")
        return Response("gone", headers={"Cache-Control": "public, max-age=60"})

    app = make_app()
    app.add_url_rule("/forget", "forget", forgotten)
    client = app.test_client()
    client.get("/")
    assert "Set-Cookie" not in client.get("/forget").headers
    assert app.extensions["adroll"].counters.get("identify_ignored", "forgotten") == 1


def test_identify_before_consent_is_told_once_with_help(make_app: AppMaker, caplog: Caplog) -> None:
    answer: list[bool | None] = [None]
    app = with_views(make_app(ADROLL_CONSENT=lambda request: answer[0]))
    client, counters = visitor(app), app.extensions["adroll"].counters
    for answer[0] in (None, None, False):
        post(client, "/say")
    [said] = [said for said in caplog.messages if "identify()" in said]
    assert "@adroll.identity" in said
    assert "said@" not in said
    assert counters.get("identify_ignored", "consent_unknown") == 2
    assert counters.get("identify_ignored", "consent_refused") == 1
    answer[0] = True
    post(client, "/search")
    assert "email_sha256" not in json.dumps(kept(app))


@pytest.mark.parametrize(
    ("said", "forms", "known"),
    [
        ({"email": "n/a", "user_id": 42}, ["md5"], {"user_id": "42"}),
        ({"email": "ann@example.com", "user_id": ""}, ["md5"], {"email_md5": MD5}),
        ({"email": "ann@example.com", "user_id": 0}, [], {"user_id": "0"}),
        ({"email": "ann@example.com"}, ["plain"], {"email_sha256": sha256("ann@example.com")}),
    ],
)
def test_identify_keeps_what_it_can_and_may(
    make_app: AppMaker, said: dict[str, Any], forms: list[str], known: dict[str, str]
) -> None:
    app = make_app(ADROLL_STRICT=False, ADROLL_EMAIL=forms)
    with app.test_request_context("/?adct=c"):
        identify(**said)
        report_conversion(**ORDER, ip="203.0.113.7")
    assert last(app) == {"adct": "c"} | known


def test_no_secret_key_is_told_once_and_by_identify(make_app: AppMaker, caplog: Caplog) -> None:
    app = make_app(SECRET_KEY=None)
    with (
        app.test_request_context("/"),
        pytest.raises(adroll_flask.ConfigurationError, match="SECRET_KEY"),
    ):
        identify(user_id="7")
    for _ in range(3):
        assert app.test_client().get("/").status_code == 200
    [record] = [record for record in caplog.records if "SECRET_KEY" in record.getMessage()]
    assert record.levelname == "WARNING"
    assert app.extensions["adroll"].counters.get("secret_key_missing") == 1


def test_a_flask_login_that_cannot_be_imported_is_none(
    make_app: AppMaker, monkeypatch: Patch, tmp_path: Path
) -> None:
    # As 0.6.2 is with Werkzeug 3.
    (tmp_path / "flask_login.py").write_text("from werkzeug.urls import url_decode")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flask_login")
    assert "data-adroll" in make_app().test_client().get("/").text
