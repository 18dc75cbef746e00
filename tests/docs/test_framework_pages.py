"""The pages for sites on other frameworks than Flask, each with the framework itself."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from adroll_flask.testing import reports
from tests.support.pages import Page, Shell

BUYER = {"REMOTE_ADDR": "203.0.113.7"}


def test_any_wsgi_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = {
        "/var/lib/shop": str(tmp_path / "lib"),
        "postgresql://adroll@db/adroll": f"sqlite:///{tmp_path / 'adroll.sqlite'}",
        "ADROLL_ADVERTISABLE_EID=…": "ADROLL_ADVERTISABLE_EID=ADVERTISABLE0000000001",
        "ADROLL_PIXEL_EID=…": "ADROLL_PIXEL_EID=PIXEL00000000000000001",
        "ADROLL_ACCESS_TOKEN=…": "ADROLL_ACCESS_TOKEN=a-token",
    }
    env = {"ADROLL_ACCESS_TOKEN": "a-token", "ADROLL_SECRET_KEY": "a long random text"}
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    with (
        Shell(tmp_path, env, replace) as shell,
        Page("docs/how-to/wsgi.md", shell) as page,
    ):
        page.run("Around your app")
        page.run("Report an order")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.chdir(tmp_path)
        wsgi = importlib.import_module("shop.wsgi")
        try:
            names: dict[str, Any] = {name: getattr(wsgi, name) for name in ("app", "account")}
            names["AdRollMiddleware"] = wsgi.AdRollMiddleware
            with_identity = page.run("Who is logged in", **names)["application"]
            with_proxy = page.run("Around other middleware", **names)["application"]
            page.run("Outside of a request")
            wsgi.application.runtime.outbox.close()
        finally:
            for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
                del sys.modules[name]
        page.run("Commands")
    for application, middleware, sent, expected in (
        (wsgi.application, wsgi.application, {}, ("203.0.113.7", None)),
        (with_identity, with_identity, {"REMOTE_USER": "ann"}, ("203.0.113.7", "ann")),
        (
            with_proxy,
            with_proxy.app,
            {"HTTP_X_FORWARDED_FOR": "203.0.113.9"},
            ("203.0.113.9", None),
        ),
    ):
        browser = Client(application)
        page_of = browser.get("/?adct=click123", environ_overrides=BUYER)
        assert "data-adroll" in page_of.text
        with reports(middleware) as reported:
            browser.post("/orders", environ_overrides={**BUYER, **sent})
        purchase = reported.one("purchase")
        assert (purchase.adct, purchase.ip, purchase.user_id) == ("click123", *expected)
