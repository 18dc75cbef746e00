"""docs/how-to/several-shops.md, as it stands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from adroll_flask import AdRoll, release_conversion, report_conversion
from adroll_flask.testing import reports
from tests.support.pages import Page


def test_accounts_by_host_and_names_for_two_shops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRENCH_TOKEN", "s3cret")
    app = Flask("shop", instance_path=str(tmp_path))
    app.config.update(TESTING=True, SECRET_KEY="secret", ADROLL_DELIVERY="worker")
    with Page("docs/how-to/several-shops.md") as page:
        page.run("One app, an account for each host", app=app, os=os)
        page.run("Two shops on one host", app=app)
        AdRoll(app)
        order: dict[str, Any] = {"order_id": "1002", "value": 5, "currency": "EUR", "hold": True}
        with reports(app) as reported, app.app_context():
            report_conversion(
                **order, adct="click123", ip="203.0.113.9", page_location="https://shop.fr/"
            )
            page.run("Orders that are paid later", release_conversion=release_conversion)
        assert reported.one("purchase").advertisable_eid == "FRENCHADVERTISABLE0001"
        client = app.test_client()
        client.get("/?adct=click123")
        assert client.get_cookie("wine_visitor") is not None
