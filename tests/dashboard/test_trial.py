"""Test: a made-up event is sent, what ``check`` finds, the last dry runs."""

from __future__ import annotations

import csv
import io

import pytest

from adroll_flask.checks.send_test import keep_result, send_test_event
from adroll_flask.cli.commands import commands
from tests.conftest import AppMaker
from tests.support.dashboard_shop import DashboardShop, answering


@pytest.fixture
def shop(make_app: AppMaker) -> DashboardShop:
    return DashboardShop(make_app)


def test_a_test_event_goes_out_as_a_dry_run_and_the_answer_is_told(shop: DashboardShop) -> None:
    answer = shop.post("test/send", event="purchase")
    assert answer.status_code == 200
    assert "AdRoll takes this event" in answer.text
    [url] = shop.adroll.urls
    assert url.endswith("dry_run=true")
    assert shop.adroll.tokens == ["Token a-token"]
    assert "a-token" not in answer.text
    assert shop.states() == {}


def test_adrolls_words_are_told(shop: DashboardShop) -> None:
    body = b'{"errors": [{"message": "unknown <b>advertisable</b>", "code": "E1"}]}'
    shop.adroll.judge = answering(401, body)
    text = shop.post("test/send", event="pageView").text
    assert "401" in text
    assert "unknown &lt;b&gt;advertisable&lt;/b&gt; (E1)" in text
    assert "The address, the account or the token is at fault" in text


def test_an_event_that_is_none_is_not_sent(shop: DashboardShop) -> None:
    assert shop.press("test/send", event="purchased") == "There is no such event."
    assert shop.adroll.urls == []


def test_without_an_account_nothing_is_sent(make_app: AppMaker) -> None:
    shop = DashboardShop(make_app, ADROLL_ACCESS_TOKEN=None)
    assert "ADROLL_ACCESS_TOKEN not set: nothing was sent." in shop.post("test/send").text
    assert shop.adroll.urls == []


def test_what_check_finds_is_shown_the_worst_first(make_app: AppMaker) -> None:
    shop = DashboardShop(make_app, ADROLL_ACCESS_TOKEN=None, SECRET_KEY="short")
    findings = shop.json("test")["findings"]
    levels = [finding["level"] for finding in findings]
    assert levels == sorted(levels, key=["error", "warning", "info", "ok"].index)
    assert findings[0]["subject"] == "ADROLL_ACCESS_TOKEN"
    assert "is short enough to be guessed" in shop.html("test")
    rows = list(csv.DictReader(io.StringIO(shop.html("test.csv"))))
    assert [row["subject"] for row in rows] == [finding["subject"] for finding in findings]


def test_looking_asks_no_endpoint_of_the_site_and_keeps_its_reports(shop: DashboardShop) -> None:
    """In a process that serves visitors a check must not put their reports aside."""
    asked: list[str] = []

    @shop.app.before_request
    def note() -> None:
        from flask import request

        asked.append(request.path)

    shop.html("test")
    assert asked == ["/adroll-dashboard/test"]


def test_the_last_dry_runs_are_listed(make_app: AppMaker) -> None:
    shop = DashboardShop(make_app, ADROLL_DRY_RUN=True)
    shop.report("1001")
    shop.take_in()
    [one] = shop.json("test")["dry_runs"]
    assert (one["order"], one["state"]) == ("1001", "waiting")
    assert "1001" in shop.html("test")
    real = DashboardShop(make_app)
    real.report("1001")
    real.take_in()
    assert real.json("test")["dry_runs"] == []


def test_what_adroll_answered_is_kept(shop: DashboardShop) -> None:
    assert shop.json("test")["trials"] == []
    shop.post("test/send", event="purchase")
    shop.now += 60.0
    shop.adroll.judge = answering(401, b'{"errors": [{"message": "unknown <b>account</b>"}]}')
    shop.post("test/send", event="pageView")
    newest, older = shop.json("test")["trials"]
    assert (newest["name"], newest["good"]) == ("pageView", False)
    assert (newest["answer"], older["answer"]) == ("401", "200")
    assert newest["words"] == "unknown <b>account</b>"
    assert newest["at"] == older["at"] + 60.0
    assert (older["name"], older["good"]) == ("purchase", True)
    assert "unknown &lt;b&gt;account&lt;/b&gt;" in shop.html("test")


def test_twenty_of_them_are_kept(shop: DashboardShop) -> None:
    trials = shop.runtime.outbox.trials
    for number in range(25):
        trials.keep("purchase", good=True, answer=f"200 {number}", words="")
    kept = [trial.answer for trial in trials.newest(100)]
    assert kept == [f"200 {number}" for number in range(24, 4, -1)]


def test_an_outbox_that_takes_nothing_does_not_keep_the_answer_back(shop: DashboardShop) -> None:
    place = shop.runtime.outbox_place
    place.mkdir(parents=True)
    result = send_test_event(shop.runtime, "purchase")
    assert result.ok
    assert keep_result(shop.runtime, "purchase", result) is False


def test_the_commands_trial_is_kept_where_there_is_an_outbox(shop: DashboardShop) -> None:
    run = shop.app.test_cli_runner().invoke
    assert run(commands, ["send-test"]).exit_code == 0
    assert shop.runtime.may_have_events() is False, "a trial makes no outbox"
    shop.report("1001")
    shop.take_in()
    assert run(commands, ["send-test", "--event", "addToCart"]).exit_code == 0
    assert [trial["name"] for trial in shop.json("test")["trials"]] == ["addToCart"]
