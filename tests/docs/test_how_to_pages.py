"""How-to pages whose code runs here as it stands."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask, make_response, render_template_string, request

from adroll_flask import (
    AdRoll,
    current_visitor,
    release_conversion,
    report_conversion,
)
from adroll_flask.checks.policy import policy_findings
from adroll_flask.settings import Settings
from adroll_flask.testing import reports
from tests.conftest import AppMaker
from tests.support.pages import Page

HTML = "<!doctype html><html><head></head><body>Shop</body></html>"
ADDRESS = {"REMOTE_ADDR": "203.0.113.7"}


def bare(tmp_path: Any, **config: Any) -> Flask:
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True, SECRET_KEY="k" * 32, ADROLL_DELIVERY="worker", **config)
    app.add_url_rule("/", "home", lambda: HTML)
    return app


def test_the_policies_of_the_page_let_kit_and_pixel_through(tmp_path: Any) -> None:
    settings = Settings.from_mapping({})
    with Page("docs/how-to/content-security-policy.md") as page:
        for section, has_nonce in (("A list of hosts", False), ("A nonce", True)):
            app = bare(tmp_path / section)
            page.run(section, app=app)
            AdRoll(app)
            answer = app.test_client().get("/")
            policy = answer.headers["Content-Security-Policy"]
            nonce = answer.text.partition('nonce="')[2].partition('"')[0]
            assert bool(nonce) == has_nonce
            found = policy_findings("page", policy, "http://localhost/", nonce, settings)
            assert [finding for finding in found if finding.level != "ok"] == []


def test_pages_that_a_cache_keeps_carry_no_cookie_of_ours(tmp_path: Any) -> None:
    app = bare(tmp_path)
    with Page("docs/how-to/caches.md") as page:
        page.run(
            app=app,
            make_response=make_response,
            render_template=lambda _name: render_template_string(HTML),
        )
    AdRoll(app)
    app.add_url_rule("/cart", "cart", lambda: HTML)
    client = app.test_client()
    for path in ("/mugs?adct=click123", "/?adct=click123"):
        answer = client.get(path)
        assert "data-adroll" in answer.text
        assert "Set-Cookie" not in answer.headers
    assert "adroll_visitor" in client.get("/cart?adct=click123").headers["Set-Cookie"]


def test_a_containers_pixel_is_the_only_one(tmp_path: Any) -> None:
    app = bare(tmp_path, ADROLL_ADVERTISABLE_EID="A" * 22, ADROLL_PIXEL_EID="P" * 22)
    with Page("docs/how-to/google-tag-manager.md") as page:
        page.run(app=app)
    adroll = AdRoll(app)
    assert "roundtrip.js" not in app.test_client().get("/").text
    assert adroll is not None
    assert app.config["ADROLL_PIXEL"] == "present"


COOKIEBOT = "{stamp:'x',necessary:true,preferences:false,statistics:true,marketing:%s,ver:1}"
COOKIEYES = "consentid:x,consent:yes,action:%s,necessary:yes,analytics:no,advertisement:%s"


@pytest.mark.parametrize(
    ("section", "name", "cookie", "expected"),
    [
        ("Cookiebot", "CookieConsent", "", None),
        ("Cookiebot", "CookieConsent", "-1", True),
        ("Cookiebot", "CookieConsent", quote(COOKIEBOT % "true"), True),
        ("Cookiebot", "CookieConsent", quote(COOKIEBOT % "false"), False),
        ("CookieYes", "cookieyes-consent", "", None),
        ("CookieYes", "cookieyes-consent", COOKIEYES % ("", "no"), None),
        ("CookieYes", "cookieyes-consent", COOKIEYES % ("yes", "yes"), True),
        ("CookieYes", "cookieyes-consent", COOKIEYES % ("yes", "no"), False),
    ],
)
def test_consent_platforms_answers_are_understood(
    section: str, name: str, cookie: str, expected: bool | None, tmp_path: Any
) -> None:
    app = bare(tmp_path)
    Page("docs/how-to/consent.md").run(section, app=app)
    asked = SimpleNamespace(cookies={name: cookie} if cookie else {})
    assert app.config["ADROLL_CONSENT"](asked) is expected
    AdRoll(app)
    app.add_url_rule("/buy", "buy", _buy, methods=["POST"])
    client = app.test_client()
    if cookie:
        client.set_cookie(name, cookie)
    client.get("/?adct=click123")
    assert (client.get_cookie("adroll_visitor") is not None) == (expected is True)
    with reports(app) as reported:
        client.post("/buy", environ_base=ADDRESS)
    assert len(reported) == (1 if expected else 0)


def _buy() -> str:
    return report_conversion(order_id="1", value="1", currency="EUR").status


def test_the_settings_of_the_consent_page_are_taken(tmp_path: Any) -> None:
    with Page("docs/how-to/consent.md") as page:
        sections = (
            *("A platform of the TCF", "Cookiebot", "CookieYes"),
            *("Usercentrics without the TCF", "AdRoll's own banner"),
        )
        for number, section in enumerate(sections):
            app = bare(tmp_path / str(number))
            page.run(section, app=app)
            AdRoll(app)
            client = app.test_client()
            client.get("/?adct=click123")
            assert client.get_cookie("adroll_visitor") is None, section


def test_staging_reports_dry_runs(tmp_path: Any) -> None:
    app = bare(tmp_path)
    with Page("docs/how-to/staging.md") as page:
        page.run(app=app)
    AdRoll(app)
    settings = app.extensions["adroll"].settings
    assert settings.is_real("www.shop.example")
    assert not settings.is_real("staging.shop.example")


def test_a_sites_own_tests_run_as_the_page_has_them(make_app: AppMaker) -> None:
    app = make_app()
    app.add_url_rule("/", "home", lambda: HTML)

    @app.post("/checkout")
    def checkout() -> str:
        return report_conversion(order_id="1001", value="59.90", currency="EUR").status

    @app.post("/orders/<number>")
    def order(number: str) -> str:
        return report_conversion(order_id=number, value="10", currency="EUR", hold=True).status

    @app.post("/webhook")
    def webhook() -> str:
        told = request.get_json()
        return release_conversion(told["order"]).status if told["paid"] else ""

    @app.post("/token")
    def token() -> str:
        return current_visitor().token()

    @app.post("/webhook-with-token")
    def with_token() -> str:
        told = request.get_json()
        return report_conversion(
            visitor=told["adroll"], order_id=told["order"], value="1", currency="EUR"
        ).status

    with Page("docs/how-to/testing.md") as page:
        tests = page.run(reports=reports)
    found = [test for name, test in tests.items() if name.startswith("test_")]
    assert len(found) == 3
    for test in found:
        test(app, app.test_client())


def test_what_the_sample_posts_by_hand_is_reported(tmp_path: Any) -> None:
    app = bare(tmp_path)
    with Page("docs/how-to/migrate.md") as page:
        page.run(app=app, request=request, report_conversion=report_conversion)
    assert app.config["ADROLL_PIXEL"] == "present"
    AdRoll(app)
    client = app.test_client()
    client.get("/?adct=click123")
    with reports(app) as reported:
        client.post("/checkout", data={"email": "jo@example.com"}, environ_base=ADDRESS)
    purchase = reported.one("purchase")
    assert purchase.adct == "click123"
    assert purchase.value == Decimal("59.90")
    assert purchase.email_sha256 is not None
