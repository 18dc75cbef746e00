"""How-to pages whose code runs here as it stands."""

from __future__ import annotations

import time
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
from adroll_flask.testing import reports
from tests.conftest import AppMaker
from tests.support import PATIENCE
from tests.support.outbox_engines import database, missing, require
from tests.support.pages import Page

HTML = "<!doctype html><html><head></head><body>Shop</body></html>"
ADDRESS = {"REMOTE_ADDR": "203.0.113.7"}


def bare(tmp_path: Any, **config: Any) -> Flask:
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True, SECRET_KEY="k" * 32, ADROLL_DELIVERY="worker", **config)
    app.add_url_rule("/", "home", lambda: HTML)
    return app


def test_the_policies_of_the_page_let_kit_and_pixel_through(tmp_path: Any) -> None:
    with Page("docs/how-to/content-security-policy.md") as page:
        for section, has_nonce in (("A list of hosts", False), ("A nonce", True)):
            app = bare(tmp_path / section)
            page.run(section, app=app)
            AdRoll(app)
            answer = app.test_client().get("/")
            policy = answer.headers["Content-Security-Policy"]
            nonce = answer.text.partition('nonce="')[2].partition('"')[0]
            assert bool(nonce) == has_nonce
            allowed = (
                f"'nonce-{nonce}'" if has_nonce else "https://s.adroll.com https://d.adroll.com"
            )
            assert allowed in policy


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


def test_each_currency_is_reported_as_it_was_paid(tmp_path: Any) -> None:
    app = bare(tmp_path)
    with Page("docs/how-to/currencies.md") as page:
        page.run(app=app, report_conversion=report_conversion)
    AdRoll(app)
    client = app.test_client()
    client.get("/?adct=click123")
    with reports(app) as reported:
        for currency in ("eur", "usd", "jpy"):
            client.post(f"/checkout/{currency}", environ_base=ADDRESS)
    assert [(str(one.value), one.currency) for one in reported.named("purchase")] == [
        ("59.90", "EUR"),
        ("64.00", "USD"),
        ("9800", "JPY"),
    ]


def test_our_addresses_take_another_name(tmp_path: Any) -> None:
    app = bare(tmp_path)
    with Page("docs/how-to/blockers.md") as page:
        page.run(app=app)
    AdRoll(app)
    client = app.test_client()
    text = client.get("/").text
    assert "_adroll" not in text
    assert client.get(text.partition('src="')[2].partition('"')[0]).status_code == 200
    for path, status in (("/assets/visit/identity", 200), ("/_adroll/identity", 404)):
        told = client.post(path, json={"adct": "click1"}, headers={"Sec-Fetch-Site": "same-origin"})
        assert told.status_code in (status, 204 if status == 200 else status)


def test_on_a_disk_that_does_not_last_a_report_is_committed_in_the_database(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("postgresql", {"postgresql": missing("postgresql")})
    app = bare(tmp_path)
    with database("postgresql") as url:
        monkeypatch.setenv("DATABASE_URL", url.replace("postgresql+psycopg://", "postgres://"))
        with Page("docs/how-to/deploy/ephemeral-disks.md") as page:
            page.run(app=app)
        AdRoll(app)
        outbox = app.extensions["adroll"].outbox
        outbox.database.create_tables()
        with app.app_context():
            receipt = report_conversion(
                order_id="1001", value="9", currency="EUR", adct="click1", ip="203.0.113.7",
                page_location="https://shop.example/",
            )  # fmt: skip
        assert receipt.status == "queued"
        assert not list(tmp_path.rglob("*.journal")), "the disk has nothing that could be lost"
        until = time.monotonic() + PATIENCE  # the thread may be about to take it in
        while outbox.queue.waiting() != 1 and time.monotonic() < until:
            time.sleep(0.05)
        assert outbox.queue.waiting() == 1
        outbox.close()


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


def make_past(tmp_path: Any) -> Flask:
    app = Flask("past", instance_path=str(tmp_path / "past"))
    app.config.update(TESTING=True, SECRET_KEY="k" * 32)
    return app


def test_a_sites_own_tests_run_as_the_page_has_them(make_app: AppMaker, tmp_path: Any) -> None:
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
        past = make_past(tmp_path)
        page.run("A shop with a past", app=past)
        tests = page.run(reports=reports)
    days = past.extensions["adroll"].outbox.lookups.history(0, ("at", "outcome"), hours=24)
    assert sum(day.events for day in days if day.outcome == "delivered") == 28
    assert len({day.at for day in days}) > 5
    found = [test for name, test in tests.items() if name.startswith("test_")]
    assert len(found) == 3
    for test in found:
        test(app, app.test_client())


def test_what_the_sample_posts_by_hand_is_reported(tmp_path: Any) -> None:
    app = bare(tmp_path)
    with Page("docs/how-to/migrate.md") as page:
        names = page.run(app=app, request=request, report_conversion=report_conversion)
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

    bought = {"product_id": "507f1f77", "sku": "mug", "name": "Mug", "price": 29.95, "quantity": 2}
    segments = {"order_id": "1002", "total": 64.9, "revenue": 59.9, "currency": "EUR"}
    with reports(app) as reported, app.test_request_context("/", environ_base=ADDRESS):
        names["order_completed"](segments | {"products": [bought]})
    ordered = reported.one("purchase")
    assert (ordered.order_id, str(ordered.value)) == ("1002", "64.90")
    assert [(p.product_id, p.quantity) for p in ordered.products] == [("mug", 2)]
