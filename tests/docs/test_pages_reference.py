"""The pages of docs/reference/ run."""

from __future__ import annotations

import json
import logging
from decimal import Decimal
from pathlib import Path

import pytest

from adroll_flask import (
    AdRoll,
    event_delivered,
    event_rejected,
    report_conversion,
    report_event,
)
from adroll_flask.signals import reports_silent
from adroll_flask.testing import reports
from tests.conftest import AppMaker
from tests.support.pages import SHOP, Page, Shell
from tests.support.visits import VISIT as BASE


def test_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SHOP)
    env = {"FLASK_SECRET_KEY": "a key"}
    with (
        Shell(tmp_path, env) as shell,
        Page("docs/reference/sandbox.md", shell) as page,
    ):
        page.run()
    assert shell.untyped == {}


def test_signals(make_app: AppMaker, caplog: pytest.LogCaptureFixture) -> None:
    app = make_app()
    app.logger.setLevel(logging.INFO)

    @app.post("/buy")
    def buy() -> str:
        report_conversion(order_id="1001", value="59.90", currency="EUR")
        return ""

    with Page("docs/reference/signals.md") as page:
        # What the page's functions are kept by is their module; here that is this.
        kept = page.run(app=app)
    shop = app.test_client()
    shop.get("/?adct=click123", **BASE)
    for _ in range(2):
        shop.post("/buy", **BASE)
    told = [record.getMessage() for record in caplog.records if record.name == app.logger.name]
    assert told[0] == "a visitor with an ad click"
    assert told[1].startswith("purchase: 2 of 6: adct, first_party_cookie")
    assert told[2] == "purchase not reported: duplicate"
    runtime = app.extensions["adroll"]
    for signal, values in (
        (event_delivered, {"id": "01a2", "name": "purchase", "unsure": True}),
        (event_rejected, {"id": "01a2", "name": "purchase", "reason": "refused"}),
        (
            reports_silent,
            {"name": "purchase", "away": 18_000.0, "longest_pause": 7200.0},
        ),
    ):
        assert signal.receivers
        runtime.announce(signal, **values)
    told = [record.getMessage() for record in caplog.records if record.name == app.logger.name]
    assert told[3:] == [
        "AdRoll has purchase 01a2, perhaps twice",
        "look at it: flask adroll outbox show 01a2 (purchase, refused)",
        "no purchase for 5 h, the longest pause was 2 h",
    ]
    assert kept


def test_counters(make_app: AppMaker) -> None:
    adroll = AdRoll()
    app = make_app(adroll)
    app.test_client().get("/", **BASE)
    with Page("docs/reference/counters.md") as page:
        names = page.run(app=app, adroll=adroll)
    assert names["counts"] == {"page_injected": 1}
    assert names["lost"] == {}


def test_endpoint_and_kit(make_app: AppMaker) -> None:
    with Page("docs/reference/kit.md") as page:
        page.run(app=make_app())


def test_log_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_app: AppMaker) -> None:
    before = {name: logging.getLogger(name) for name in ("adroll_flask", "adroll_flask.audit")}
    kept = {name: (it.level, list(it.handlers), it.propagate) for name, it in before.items()}
    monkeypatch.chdir(tmp_path)
    try:
        with Page("docs/reference/logging.md") as page:
            page.run("Set it up")
            formatter = page.run("Names that stay")["AsJson"]()
        record = logging.makeLogRecord({"msg": "no", "adroll_event": "event-invalid"})
        assert json.loads(formatter.format(record))["event"] == "event-invalid"
        logging.getLogger("adroll_flask.delivery").error("AdRoll refuses everything")
        logging.getLogger("adroll_flask.delivery").warning("not this")
        assert (
            "ERROR adroll_flask.delivery: AdRoll refuses" in (tmp_path / "adroll.log").read_text()
        )
        assert "not this" not in (tmp_path / "adroll.log").read_text()
    finally:
        for name, it in before.items():
            for handler in [*it.handlers]:
                if handler not in kept[name][1]:
                    it.removeHandler(handler)
                    handler.close()
            it.setLevel(kept[name][0])
            it.propagate = kept[name][2]


class Article:
    sku = "mug"
    unit_price = Decimal("29.95")


class Line:
    article = Article
    amount = 2


class Order:
    lines = (Line(),)


class User:
    email = "ada@example.com"
    id = 42


def test_events(make_app: AppMaker) -> None:
    app = make_app()
    names = {
        "user": User,
        "order": Order,
        "client_ip": "203.0.113.9",
        "idfa": "EA7583CD-A667-48BC-B806-42ECB2B48606",
        "report_event": report_event,
        "report_conversion": report_conversion,
    }
    with (
        reports(app) as reported,
        app.test_request_context("/thanks?adct=click123", **BASE),
        Page("docs/reference/events.md") as page,
    ):
        page.run("Events", **names)
        page.run("Products", **names)
        reported.clear()
        page.run("Without a browser", **names)
        assert reported.one("purchase").page_location.startswith("https://app.example.com/?")
        reported.clear()
        page.run("AdRoll's samples", **names)
    assert [event.event_name for event in reported] == [
        *("addToCart", "purchase", "productSearch", "pageView"),
    ]
    assert reported.one("purchase").value == Decimal("123.45")
