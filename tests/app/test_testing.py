"""The helpers that a site's own tests use."""

import io
import re
import sys
import threading
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask

from adroll_flask import (
    AdRoll,
    cancel_conversion,
    release_conversion,
    report_conversion,
    report_event,
)
from adroll_flask.sandbox import running
from adroll_flask.testing import Reported, reports
from tests.app.conftest import forget
from tests.conftest import AppMaker, Capsys, Patch
from tests.support.visits import ORDER, at, report, visit


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return shop(make_app, ADROLL_DELIVERY="thread")


def shop(make_app: AppMaker, **config: Any) -> Flask:
    app = make_app(**config)
    for path, call in (
        ("buy", lambda: report_conversion(**ORDER).status),
        ("bad", lambda: report_event("signup").status),  # type: ignore[arg-type]
        ("forget", forget),
    ):
        app.add_url_rule(f"/{path}", path, call, methods=["POST"])
    return app


def test_what_a_view_reports_is_collected_and_reaches_neither_outbox_nor_thread(app: Flask) -> None:
    before = set(threading.enumerate())
    with reports(app) as reported:
        assert app.test_client().post("/buy").text == "queued"
        assert app.test_client().post("/buy").text == "duplicate"
    assert reported.one("purchase").order_id == "1001"
    assert [event.event_name for event in reported] == ["purchase"]
    assert len(reported) == 1
    with pytest.raises(AssertionError, match=r"0 events named 'addToCart'.*reported: purchase"):
        reported.one("addToCart")
    assert "outbox" not in vars(app.extensions["adroll"])
    assert before.issuperset(threading.enumerate())


def test_whoever_asks_to_be_forgotten_is_not_among_the_reported(app: Flask) -> None:
    leaving = app.test_client()
    leaving.set_cookie("__adroll_fpc", "46d41c62e88bb2e267c1e15314bb8837-1667065540836")
    with reports(app) as reported:
        leaving.post("/buy")
        report(app, "1002")
        assert len(reported) == 2
        leaving.post("/forget")
    assert [event.order_id for event in reported] == ["1002"]


def test_what_is_held_is_reported_once_it_is_released_unless_it_is_cancelled(app: Flask) -> None:
    with reports(app) as reported, app.app_context():
        report(app, hold=True)
        with pytest.raises(AssertionError, match="held: 1"):
            reported.one("purchase")
        assert (len(reported), reported.held[0].order_id) == (0, "1001")
        release_conversion("1001", value="5.00")
        assert (reported.held, str(reported.one("purchase").value)) == ([], "5.00")
        cancel_conversion("1001")
        assert (len(reported), reported.cancelled) == (0, ["1001"])
        release_conversion("2")  # before they are reported
        cancel_conversion("3")
        assert report(app, "2", hold=True).status == "held"
        report(app, "3")
        assert [event.order_id for event in reported] == ["2"]


def test_a_wrong_event_raises_in_the_view_or_is_listed(app: Flask, make_app: AppMaker) -> None:
    with reports(app), pytest.raises(ValueError, match="event_name"):
        app.test_client().post("/bad")
    app = shop(make_app, ADROLL_STRICT=False)
    with reports(app) as reported:
        assert app.test_client().post("/bad").text == "invalid"
    assert len(reported) == 0
    assert reported.dead_letters[0].name == "signup"


def test_the_fixture_uses_the_suites_app(app: Flask, reported: Reported) -> None:
    app.test_client().post("/buy")
    assert reported.one("purchase").value is not None
    reported.clear()
    assert app.test_client().post("/buy").text == "queued"


def test_a_visitor_without_cookies_is_not_the_programmers_fault_a_script_is(app: Flask) -> None:
    assert app.test_client().post("/buy").text == "invalid"
    with app.app_context(), pytest.raises(ValueError, match="visitor"):
        report_conversion(**ORDER, ip="203.0.113.7", page_location="https://a.test/")


# -- ``ADROLL_DEBUG``: what a shop's terminal says of its events ----------------------------------


def test_each_report_is_a_line_without_personal_data(make_app: AppMaker, capsys: Capsys) -> None:
    adroll = AdRoll()
    with running() as sandbox:
        app = make_app(adroll, ADROLL_DEBUG=True, **at(sandbox))
        queued = report(app, email="canary@example.com")
        report(app)
        held = report(app, "1002", hold=True)
        report(app, "1003", value="much")
        with visit(app, gpc=True):
            report_event("pageView")
        runtime = app.extensions["adroll"]
        assert runtime.outbox.queue.waiting(), "another thread may be at the journal"
        runtime.deliverer.drain()
    said = capsys.readouterr().err
    lines = [line.removeprefix("AdRoll: ") for line in said.splitlines()]
    assert lines[0].startswith(f"purchase 1001; 59.90 EUR; queued {queued.id}; ")
    assert lines[0].endswith("adct, email_sha256, email_md5; missing: first_party_cookie, user_id")
    assert lines[1].startswith(f"purchase 1001; 59.90 EUR; duplicate {queued.id}; reported before")
    assert lines[2].startswith(f"purchase 1002; 59.90 EUR; held {held.id}; ")
    assert lines[3].startswith("purchase 1003; invalid ")
    assert "value: takes " in lines[3]
    assert lines[4] == "pageView; suppressed; consent_gpc"
    assert lines[5:] == [f"purchase; delivered {queued.id}"]
    assert not {"canary", "click123"} & set(re.split(r"\W", said))
    disabled = {"ADROLL_DEBUG": True, "ADROLL_ENABLED": False}
    for config, told in ((disabled, "AdRoll: pageView; suppressed; disabled\n"), ({}, "")):
        with visit(make_app(**config)):
            report_event("pageView")
        assert capsys.readouterr().err == told


@pytest.mark.parametrize("stream", ["none", "closed", "unread"])
def test_a_report_needs_no_standard_error(
    stream: str, make_app: AppMaker, monkeypatch: Patch
) -> None:
    closed = io.StringIO()
    closed.close()
    unread = Mock(**{"write.side_effect": BrokenPipeError})
    streams = {"none": None, "closed": closed, "unread": unread}
    monkeypatch.setattr(sys, "stderr", streams[stream])
    assert report(make_app(ADROLL_DEBUG=True, ADROLL_STRICT=False)).status == "queued"
