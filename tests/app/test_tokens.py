"""Visitors without a browser: tokens, no visitor at all, and a no that came later."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, request

from adroll_flask import (
    AdRoll,
    EventError,
    TokenEmptyError,
    TokenError,
    TokenExpiredError,
    TokenForgedError,
    current_visitor,
    forget_visitor,
    identify,
    report_conversion,
)
from tests.conftest import AppMaker
from tests.support.reported_events import kept

ORDER: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}
BUYER = "203.0.113.7"
PROVIDER = "198.51.100.9"


def token_of(app: Flask, **environ: Any) -> str:
    with app.test_request_context(
        "/pay?adct=click123", base_url="https://shop.test", environ_base={"REMOTE_ADDR": BUYER}
    ):
        return current_visitor().token()


def webhook(app: Flask, **headers: str) -> Any:
    return app.test_request_context(
        "/webhook",
        base_url="https://hooks.test",
        method="POST",
        headers={"User-Agent": "Stripe/1.0", **headers},
        environ_base={"REMOTE_ADDR": PROVIDER},
    )


def test_no_visitor_means_that_nothing_is_taken_from_the_current_request(
    make_app: AppMaker,
) -> None:
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


def test_no_visitor_and_all_that_the_call_knows_is_an_event(make_app: AppMaker) -> None:
    app = make_app()
    with webhook(app):
        receipt = report_conversion(
            visitor=None,
            ip=BUYER,
            user_agent="Mozilla/5.0 (X11)",
            page_location="https://shop.test/thanks",
            adct="click123",
            **ORDER,
        )
    assert receipt.status == "queued"
    [event] = kept(app)
    assert (event["ip"], event["user_agent"]) == (BUYER, "Mozilla/5.0 (X11)")
    assert event["page_location"] == "https://shop.test/thanks"
    assert event["identifiers"] == {"adct": "click123"}


def test_expired_forged_and_empty_are_three_texts(make_app: AppMaker) -> None:
    now = [1_750_000_000.0]
    app = make_app(AdRoll(clock=lambda: now[0]))
    token = token_of(app)
    now[0] += 91 * 86_400
    texts = set()
    for given, error in (
        (token, TokenExpiredError),
        (token[:-1], TokenForgedError),
        ("", TokenEmptyError),
        (" \n", TokenEmptyError),
    ):
        with app.app_context(), pytest.raises(error) as caught:
            report_conversion(visitor=given, **ORDER)
        assert isinstance(caught.value, TokenError)
        texts.add(str(caught.value))
    assert len(texts) == 3
    assert any("expired" in text for text in texts)
    assert any("not signed" in text for text in texts)
    assert any("empty" in text and "visitor=None" in text for text in texts)


def test_a_token_of_its_own_life_reports_months_later_with_the_visitor_s_agent(
    make_app: AppMaker,
) -> None:
    now = [1_750_000_000.0]
    app = make_app(AdRoll(clock=lambda: now[0]))
    with app.test_request_context(
        "/signup?adct=click123",
        base_url="https://shop.test",
        headers={"User-Agent": "Mozilla/5.0 (X11)"},
        environ_base={"REMOTE_ADDR": BUYER},
    ):
        token = current_visitor().token(max_age=timedelta(days=365), user_agent=True)
    now[0] += 300 * 86_400
    with webhook(app):
        assert report_conversion(visitor=token, **ORDER).status == "queued"
    [event] = kept(app)
    assert (event["ip"], event["user_agent"]) == (BUYER, "Mozilla/5.0 (X11)")
    assert event["page_location"] == "https://shop.test/"
    assert event["timestamp"] == int(now[0])


def test_a_visitor_taken_out_of_a_request_keeps_its_agent(make_app: AppMaker) -> None:
    app = make_app()
    with app.test_request_context(
        "/pay?adct=click123",
        headers={"User-Agent": "Mozilla/5.0 (X11)"},
        environ_base={"REMOTE_ADDR": BUYER},
    ):
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

    @app.post("/forget")
    def forget() -> str:
        forget_visitor()
        return "forgotten"

    client = app.test_client()
    client.get("/signup?adct=click123", base_url="https://shop.test")
    client.post("/forget", base_url="https://shop.test")
    outbox = app.extensions["adroll"].outbox
    outbox.queue.take_in()
    now[0] += 300 * 86_400
    outbox.keep_house()
    with webhook(app):
        report_conversion(visitor=tokens[0], **ORDER)
    assert kept(app) == []


def test_in_production_each_is_a_dead_letter_that_says_which(make_app: AppMaker) -> None:
    app = make_app(ADROLL_STRICT=False)
    with webhook(app):
        forged = report_conversion(visitor="nonsense", **ORDER)
        empty = report_conversion(visitor="", **ORDER)
    assert (forged.status, empty.status) == ("invalid", "invalid")
    assert "not signed" in forged.reason
    assert "empty" in empty.reason
    assert PROVIDER not in json.dumps(kept(app))


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
def test_a_dead_letter_without_consent_holds_no_identifier(
    make_app: AppMaker, visitor: Any
) -> None:
    app = make_app(ADROLL_STRICT=False, ADROLL_CONSENT=lambda request: True)
    with webhook(app):
        receipt = report_conversion(
            visitor=visitor, products=[{"product_id": "mug"}], **ORDER, **PERSONAL
        )
    assert receipt.status == "invalid"
    [event] = kept(app)
    assert event.pop("identifiers", {}) == {}
    assert event.keys() <= {
        "advertisable_eid",
        "pixel_eid",
        "event_name",
        "timestamp",
        "conversion_value",
        "currency",
        "event_attributes",
    }
    assert event["event_attributes"] == {
        "order_id": "1001",
        "products": [{"product_id": "mug"}],
    }


def test_where_no_consent_is_asked_for_a_dead_letter_keeps_what_can_be_sent(
    make_app: AppMaker,
) -> None:
    app = make_app(ADROLL_STRICT=False)
    with webhook(app):
        report_conversion(visitor="nonsense", **ORDER, **PERSONAL)
    [event] = kept(app)
    assert event["identifiers"]["adct"] == "click123"


@pytest.mark.parametrize(
    ("headers", "reason"), [({"Sec-GPC": "1"}, "consent_gpc"), ({}, "consent_refused")]
)
def test_a_no_of_the_browser_s_own_request_stops_its_token(
    make_app: AppMaker, headers: dict[str, str], reason: str
) -> None:
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


def test_a_no_of_somebody_else_s_request_does_not(make_app: AppMaker) -> None:
    answer = [True]
    app = make_app(ADROLL_CONSENT=lambda request: answer[0])
    token = token_of(app)
    answer[0] = False
    with webhook(app):
        assert report_conversion(visitor=token, **ORDER).status == "queued"


def test_a_visitor_who_is_forgotten_in_the_request_is_not_reported_by_an_older_copy(
    make_app: AppMaker,
) -> None:
    app = make_app()

    @app.post("/forget")
    def forget() -> dict[str, str]:
        visitor = current_visitor()
        forget_visitor()
        receipt = report_conversion(visitor=visitor, ip=BUYER, **ORDER)
        return {"status": receipt.status, "reason": receipt.reason}

    client = app.test_client()
    client.get("/?adct=click123", base_url="https://shop.test")
    told = client.post("/forget", base_url="https://shop.test").get_json()
    assert told == {"status": "suppressed", "reason": "forgotten"}


def test_what_is_no_token_at_all_says_what_it_takes(make_app: AppMaker) -> None:
    with make_app().app_context(), pytest.raises(EventError, match="takes a Visitor or the text"):
        report_conversion(visitor=7, **ORDER)  # type: ignore[arg-type]
