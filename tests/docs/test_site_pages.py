"""README and the pages about what stands around a shop: front ends, trackers, the dashboard."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, redirect
from flask_login import LoginManager, UserMixin, login_user

from adroll_flask import AdRoll
from adroll_flask.sandbox import running
from adroll_flask.testing import reports
from tests.conftest import PAGE, AppMaker
from tests.support import ROOT
from tests.support.pages import ENV, SHOP, Page, Shell
from tests.support.serving import serving

ADDRESS = {"REMOTE_ADDR": "203.0.113.7"}
API: dict[str, Any] = {"base_url": "https://api.shop.example", "environ_base": ADDRESS}
WWW = "https://www.shop.example"


def save_order(*_data: object) -> SimpleNamespace:
    return SimpleNamespace(
        id="1001",
        total="59.90",
        currency="EUR",
        email="jo@example.com",
        user_id="42",
        products=[{"product_id": "mug", "price": "29.95", "quantity": 2}],
    )


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app.py").write_text(SHOP)
    with running(strict=True) as sandbox:
        account = sandbox.account
        replace = {
            # With this very Python, so that make installs nothing.
            "make demo": f"make --directory {ROOT} VENV={sys.prefix} "
            f"--assume-old={sys.prefix}/.demo demo",
            "ADVERTISABLE_EID=…": f"ADVERTISABLE_EID={account.advertisable_eid}",
            "PIXEL_EID=…": f"PIXEL_EID={account.pixel_eid}",
            "ACCESS_TOKEN=…": f"ACCESS_TOKEN={account.access_token}",
        }
        env = {"FLASK_ADROLL_API_URL": sandbox.api_url}
        for key, value in {**ENV, "FLASK_TESTING": "true"}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("FLASK_ADROLL_JOURNAL_FOLDER", str(tmp_path / "journal"))
        monkeypatch.setenv("FLASK_ADROLL_OUTBOX_URL", f"sqlite:///{tmp_path / 'outbox.sqlite'}")
        with Shell(tmp_path, env, replace) as shell, Page("README.md", shell) as page:
            app = page.run("adroll_flask", save_order=save_order, __name__="shop")["app"]
            page.run()
        assert sandbox.events()
    client = app.test_client()
    client.get("/?adct=click123", **API)
    with reports(app) as reported:
        assert client.post("/checkout", **API).status_code == 303
    purchase = reported.one("purchase")
    assert (purchase.order_id, purchase.currency) == ("1001", "EUR")
    assert purchase.email_sha256 is not None
    assert [reason for reason in shell.untyped.values() if "environment" not in reason] == []


def test_front_ends(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SHOP)
    env = {**ENV, "FLASK_ADROLL_ORIGINS": f'["{WWW}"]'}
    same, other = (Flask(name, instance_path=str(tmp_path / name)) for name in ("same", "other"))
    for app in (same, other):
        app.config.update(TESTING=True, SECRET_KEY="k" * 32, ADROLL_DELIVERY="worker")
    with Shell(tmp_path, env) as shell, Page("docs/how-to/front-ends.md", shell) as page:
        names = page.run("Another host of the same site", app=same, save_order=save_order)
        names = page.run(
            "Another domain, or a page that may set no cookies", **{**names, "app": other}
        )
    other.config["ADROLL_ORIGINS"] = same.config["ADROLL_ORIGINS"]
    for app in (same, other):
        AdRoll(app)
    headers = {"Origin": WWW, "User-Agent": "Mozilla/5.0 (X11) Firefox/145.0"}
    word: dict[str, Any] = {"adct": "click123"}

    browser = same.test_client()
    told = browser.post("/_adroll/identity", json=word, headers=headers, **API)
    assert told.status_code < 300
    for sent, kept in (
        (f"{WWW}/checkout", f"{WWW}/checkout"),
        ("https://evil.example/", "https://api.shop.example/orders"),
    ):
        with reports(same) as reported:
            answer = browser.post("/orders", json={"page": sent}, headers=headers, **API)
        assert answer.headers["Access-Control-Allow-Origin"] == WWW
        purchase = reported.one("purchase")
        assert (purchase.adct, purchase.page_location) == ("click123", kept)

    without_cookies = other.test_client(use_cookies=False)
    asked = {**word, "token": True}
    token = without_cookies.post("/_adroll/identity", json=asked, headers=headers, **API).json
    assert token is not None
    order = {"page": f"{WWW}/checkout", "adroll": token["token"]}
    with reports(other) as reported:
        without_cookies.post("/orders", json=order, headers=headers, **API)
    purchase = reported.one("purchase")
    assert (purchase.adct, purchase.user_agent) == ("click123", headers["User-Agent"])
    assert purchase.email_sha256 is not None
    assert purchase.user_id == "42"


def test_where_click_ids_get_lost(tmp_path: Path) -> None:
    # Flask looks for templates beside the app's module.
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "consent.html").write_text("{{ target|safe }}")
    languages, asking = (Flask(name, root_path=str(tmp_path)) for name in ("languages", "asking"))
    languages.add_url_rule("/<lang>/", "home", lambda lang: PAGE)
    asking.add_url_rule("/", "home", lambda: PAGE)
    (tmp_path / "app.py").write_text(SHOP)
    shop, tracker = Flask("without AdRoll"), Flask("tracker")
    shop.add_url_rule("/mugs", "mugs", lambda: PAGE)
    with serving(shop) as shop_port:
        mugs = f"http://localhost:{shop_port}/mugs"
        tracker.add_url_rule("/c/123", "click", lambda: redirect(mugs))
        with serving(tracker) as tracker_port:
            replace = {
                "https://track.example": f"http://127.0.0.1:{tracker_port}",
                "https://www.shop.example/mugs": mugs,
            }
            with (
                Shell(tmp_path, dict(ENV), replace) as shell,
                Page("docs/how-to/click-trackers.md", shell) as page,
            ):
                page.run("Where click ids get lost")
                page.run("A choice of language", app=languages)
                page.run("Consent and age pages", app=asking)
    # Names of url_for()'s own arguments, and one that comes twice.
    query = "adct=click123&lang=fr&x=1&x=2&endpoint=y&_external=1"
    assert languages.test_client().get(f"/?{query}").location == f"/en/?{query}"
    asked = asking.test_client().get(f"/?{query}")
    assert asked.location == f"/consent?{query}"
    assert asking.test_client().get(asked.location).text == f"/?{query}"


class Account(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    def __init__(self, id: str) -> None:
        self.id = id
        self.is_staff = id != "customer"
        self.is_admin = id == "admin"


def test_the_dashboard(make_app: AppMaker, tmp_path: Path) -> None:
    adroll = AdRoll()
    app = make_app(adroll)
    manager = LoginManager(app)
    manager.user_loader(Account)
    app.add_url_rule("/login/<id>", "login", lambda id: str(login_user(Account(id))))
    (tmp_path / "app.py").write_text(SHOP)
    with (
        Shell(tmp_path, dict(ENV)) as shell,
        Page("docs/how-to/dashboard.md", shell) as page,
    ):
        page.run(adroll=adroll, app=app)
    seen = {}
    for who in ("nobody", "customer", "staff", "admin"):
        browser = app.test_client()
        if who != "nobody":
            browser.get(f"/login/{who}", **API)
        answer = browser.get("/adroll-dashboard/problems", **API)
        refused = browser.post("/adroll-dashboard/problems/drop", **API)
        seen[who] = (answer.status_code, "operator= says no" in refused.text)
    assert seen["staff"][0] == seen["admin"][0] == 200
    assert seen["nobody"][0] == seen["customer"][0] == 403
    assert (seen["staff"][1], seen["admin"][1]) == (True, False)
