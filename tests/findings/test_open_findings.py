"""Each thing that can be wrong: made by the public way, seen in all views, ended, and gone."""

import html
import itertools
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from adroll_flask import AdRoll, prometheus, report_conversion, report_event, signals
from adroll_flask.events.event import Event
from adroll_flask.findings.rules import Moment, open_findings
from adroll_flask.outbox import ingest, schema
from adroll_flask.outbox.clocks import this_host
from adroll_flask.outbox.model import OutboxFailed
from adroll_flask.sandbox import running
from tests.conftest import ADVERTISABLE, PIXEL, AppMaker, Caplog, Patch
from tests.support import PATIENCE, visits
from tests.support.dashboard_shop import DELIVERED, WHERE, DashboardShop
from tests.support.delivery_kit import OK, NoAnswer, Response
from tests.support.outbox_engines import damage, database

HOUR, DAY = 3600.0, 86_400.0
#: Nobody does anything about it.
GOOD = {"hint", "ok"}


@pytest.fixture
def shop(make_app: AppMaker) -> DashboardShop:
    return DashboardShop(make_app)


def check(shop: DashboardShop) -> tuple[list[dict[str, Any]], int]:
    result = visits.invoke(shop.app, "check", "--json")
    return json.loads(result.output)["findings"], result.exit_code


def scraped(shop: DashboardShop) -> str:
    registry = CollectorRegistry()
    registry.register(prometheus.AdRollCollector(shop.app))
    return generate_latest(registry).decode()


def metrics(shop: DashboardShop) -> set[tuple[str, str]]:
    lines = scraped(shop).splitlines()
    parts = [line.split('"') for line in lines if line.startswith("adroll_findings{")]
    return {(part[1], part[3]) for part in parts}


def seen(shop: DashboardShop, code: str, *says: str, **values: Any) -> dict[str, Any]:
    """The finding *code*, which is in each view alike, says these words and has these *values*."""
    found = looked_for(shop, code)
    assert found is not None, code
    assert [words for words in says if words not in found["sentence"]] == [], found["sentence"]
    assert {name: found[name] for name in values} == values
    return found


def is_gone(shop: DashboardShop, code: str) -> bool:
    """Whether the finding *code* is in none of the views."""
    return looked_for(shop, code) is None


def looked_for(shop: DashboardShop, code: str) -> dict[str, Any] | None:
    checked, exit_code = check(shop)
    overview = shop.json("overview")
    problems = shop.json("problems")["findings"]
    ours = [one for one in checked if one["code"] == code]
    if not ours:
        assert all(one["code"] != code for one in (*overview["findings"], *problems))
        assert all(labels[0] != code for labels in metrics(shop))
        return None
    [found] = ours
    [same] = [one for one in overview["findings"] if one["code"] == code]
    assert {**same, "sentence": ""} == {**found, "sentence": ""}
    severity = found["severity"]
    assert (code, severity) in metrics(shop)
    if severity not in GOOD:
        assert [one["code"] for one in problems].count(code) == 1
    level = {"error": "bad", "warning": "warn"}
    worst = overview["findings"][0]
    assert overview["verdict"]["level"] in (level.get(worst["severity"], "good"), "idle")
    assert exit_code == any(one["severity"] == "error" for one in checked)
    return found


def test_a_shop_where_all_is_well_has_none(shop: DashboardShop) -> None:
    assert shop.json("overview")["verdict"]["level"] == "idle"
    [said] = shop.json("overview")["findings"]
    assert said["code"] == "nothing-reported"
    assert said in check(shop)[0]
    shop.deliver("1001")
    assert open_findings(Moment(shop.runtime, look=False)) == [], "nobody can look for reports"
    shop.report("1002", gpc=True)  # a visitor's no
    assert shop.json("overview")["findings"] == []
    assert shop.json("overview")["verdict"]["sentence"].startswith("Yes. The one order ")
    assert check(shop)[1] == 0
    assert metrics(shop) == set()


@pytest.mark.parametrize(
    ("config", "code", "severity"),
    [
        ({"ADROLL_ENABLED": False}, "disabled", "error"),
        ({"ADROLL_ACCESS_TOKEN": None}, "account-missing", "error"),
        ({"ADROLL_DRY_RUN": True}, "dry-run", "warning"),
    ],
)
def test_a_setting_keeps_conversions_back(
    make_app: AppMaker, config: dict[str, Any], code: str, severity: str
) -> None:
    shop = DashboardShop(make_app, **config)
    seen(shop, code)
    assert not shop.runtime.outbox.exists(), "looking makes nothing"
    if config.get("ADROLL_ENABLED") is not False:
        shop.report("1001")
    seen(shop, code, severity=severity)
    assert is_gone(DashboardShop(make_app), code)


@pytest.mark.parametrize(
    ("reason", "who"), [("http_401", "marketer and developer"), ("http_404", "developer")]
)
def test_adroll_refuses_everything(shop: DashboardShop, reason: str, who: str) -> None:
    shop.report("1001", value="59.90")
    shop.destination.stop(reason, "print")
    shop.now += 3 * HOUR
    says = ("for 3 hours", " 1 event waits; none is lost.")
    seen(shop, "delivery-stopped", *says, who=who, values=[["EUR", "59.9"]], events=1)
    shop.destination.resume()
    assert is_gone(shop, "delivery-stopped")


def test_a_clock_of_which_adroll_says_that_it_is_ahead(shop: DashboardShop) -> None:
    shop.report("1001")
    shop.destination.stop("http_400_to_everything", "print")
    shop.destination.failed("http_400: [0].timestamp: must not lie in the future")
    seen(shop, "clock-wrong")
    assert is_gone(shop, "delivery-stopped")


def test_delivery_begins_with_the_send_test_that_was_taken(shop: DashboardShop) -> None:
    """AdRoll has put the token in order: the next question would come within five minutes."""
    assert shop.runtime.thread.stop(PATIENCE)
    shop.adroll.judge = Response(401, {}, b"")
    shop.report("1001")
    shop.runtime.deliverer.drain()
    seen(shop, "delivery-stopped")
    visits.invoke(shop.app, "send-test", code=1)
    seen(shop, "delivery-stopped")
    shop.adroll.judge = OK
    visits.invoke(shop.app, "send-test", code=0)
    assert is_gone(shop, "delivery-stopped")
    shop.runtime.deliverer.drain()
    assert set(shop.states().values()) == {"delivered"}


def test_a_send_test_of_another_token_ends_no_stop(shop: DashboardShop) -> None:
    shop.report("1001")
    shop.destination.stop("http_401", "another configuration's")
    visits.invoke(shop.app, "send-test", code=0)
    seen(shop, "delivery-stopped")


def test_adroll_is_away_or_asked_to_wait(shop: DashboardShop) -> None:
    shop.deliver("1001")
    shop.destination.failed("connect_timeout")
    says = "out of reach: the last request failed (connect_timeout)"
    seen(shop, "request-failed", says, severity="warning")
    shop.report("1002")
    shop.now += 2 * HOUR
    shop.destination.failed("connect_timeout")
    shop.destination.pause(30)
    seen(shop, "request-failed", severity="error")  # for more than an hour
    shop.destination.succeeded()
    assert is_gone(shop, "request-failed")
    shop.destination.pause(60)
    seen(shop, "delivery-paused", severity="hint")
    shop.now += 61
    assert is_gone(shop, "delivery-paused")


@pytest.mark.parametrize("delivery", ["thread", "worker"])
def test_nobody_delivers_is_known_within_a_minute(make_app: AppMaker, delivery: str) -> None:
    shop = DashboardShop(make_app, ADROLL_DELIVERY=delivery)
    shop.runtime.thread.start()
    assert shop.runtime.thread.stop(PATIENCE)  # and it is not started again
    shop.report("1001", value="59.90")
    shop.now += 59
    assert is_gone(shop, "nobody-delivers")
    shop.now += 2
    says = "1 event waits, and nobody has tried to send it for 1 minute"
    found = seen(shop, "nobody-delivers", says, severity="error", events=1)
    assert found["values"] == [["EUR", "59.9"]]
    assert "flask adroll worker" in found["todo"]
    assert shop.runtime.outbox.queue.claim(ADVERTISABLE, begin=True)  # by one that is killed
    shop.now += 119
    assert is_gone(shop, "nobody-delivers"), "its lease has not ended long enough"
    shop.now += 2
    seen(shop, "nobody-delivers")
    shop.settle(o1001=DELIVERED)
    assert is_gone(shop, "nobody-delivers")
    shop.now += DAY
    assert is_gone(shop, "nobody-delivers"), "nothing is due"


def test_where_adroll_answers_nobody_is_sent_to_look_at_the_network(shop: DashboardShop) -> None:
    shop.destination.failed("http_429: too many requests")
    found = seen(shop, "request-failed", "AdRoll takes nothing at present", severity="warning")
    assert "(http_429: too many requests)" in found["sentence"]
    assert "out of reach" not in found["sentence"]
    assert "Internet" not in found["todo"]


def test_an_outage_after_which_nobody_is_there_any_more_is_no_outage(shop: DashboardShop) -> None:
    """It was said for 16 minutes that all is sent within half a minute of AdRoll's return."""
    assert shop.runtime.thread.stop(PATIENCE)
    shop.adroll.judge = NoAnswer("refused", sure=True)
    shop.report("1001")
    shop.runtime.deliverer.drain(until=0.0)
    seen(shop, "request-failed")
    shop.now += 91  # AdRoll is asked every half a minute
    seen(shop, "nobody-delivers", events=1)
    assert is_gone(shop, "request-failed"), "nobody has asked"
    shop.runtime.deliverer.drain(until=0.0)
    seen(shop, "request-failed")
    assert is_gone(shop, "nobody-delivers")
    shop.adroll.judge = OK
    shop.now += 91
    shop.runtime.deliverer.drain()
    assert is_gone(shop, "nobody-delivers")
    assert is_gone(shop, "request-failed")


def test_a_stop_that_nobody_tries_to_end_is_both(shop: DashboardShop) -> None:
    assert shop.runtime.thread.stop(PATIENCE)
    shop.adroll.judge = Response(401, {}, b"")
    shop.report("1001")
    shop.runtime.deliverer.drain(until=0.0)
    shop.now += 61
    shop.runtime.deliverer.drain(until=0.0)
    seen(shop, "delivery-stopped")
    assert is_gone(shop, "nobody-delivers")
    shop.now += 400
    seen(shop, "nobody-delivers")
    seen(shop, "delivery-stopped")


def test_a_backlog_that_is_worked_off_is_no_finding(shop: DashboardShop) -> None:
    for order in range(120):
        shop.report(f"{order}")
    shop.now += 3 * HOUR
    assert shop.runtime.outbox.queue.claim(ADVERTISABLE)
    assert is_gone(shop, "nobody-delivers")


def test_twenty_reports_that_died_are_an_error_whatever_the_day_was(shop: DashboardShop) -> None:
    shop.deliver(*(f"{order}" for order in range(80)))
    answers: list[Callable[[Any], Any]] = [lambda event: event.no_such_field]
    shop.extension.before_report(lambda event: answers[-1](event))
    shop.now += 1  # ids of one millisecond have no order once their count begins anew
    for order in range(20):
        shop.report(f"d{order}")
    seen(shop, "reports-die", "20 could not be delivered: The site's own before_report")
    answers.append(lambda event: event)
    shop.now += 1
    shop.deliver(*(f"e{order}" for order in range(11)))
    assert is_gone(shop, "reports-die")


def test_a_success_that_names_errors_is_told_for_a_day(shop: DashboardShop) -> None:
    shop.adroll.judge = Response(200, {}, b'{"errors": [{"message": "no such product"}]}')
    shop.report("1001")
    shop.runtime.deliverer.drain()
    story = visits.invoke(shop.app, "outbox", "find", "1001").output
    assert "Delivered, AdRoll's answer named errors" in story
    seen(shop, "accepted-with-errors", "AdRoll took 1 event", severity="warning", events=1)
    shop.now += 2 * DAY
    shop.deliver("1002")
    assert is_gone(shop, "accepted-with-errors")


def test_a_visitors_no_is_no_failed_delivery(shop: DashboardShop) -> None:
    for order in "1234":
        shop.report(order, hold=True, user_id="42")
    assert visits.invoke(shop.app, "forget", "--user-id", "42").output == "4 events erased\n"
    assert is_gone(shop, "reports-die")
    assert "died: 4" not in visits.invoke(shop.app, "check", "--since", "1h", "--json").output
    told = visits.invoke(shop.app, "reconcile", "-", input="order_id\n1\n2\n3\n4\n", code=0)
    name = "The visitor said no, or asked to be forgotten"
    assert f"4 were not to be reported: {name}" in told.output
    [row, *_] = shop.runtime.outbox.lookups.list()
    for page in (shop.html(), shop.html("orders", event=row.id), shop.html("orders")):
        assert name in page


def test_a_dead_letter_that_could_be_sent_is_one_however_old(shop: DashboardShop) -> None:
    shop.bury("1001", "1002")
    shop.deliver(*(f"{order}" for order in range(40)))
    shop.now += 60 * DAY
    shop.deliver("today")
    says = "2 events wait for a decision: AdRoll refused"
    found = seen(shop, "dead-letters", says, events=2, values=[["EUR", "119.8"]])
    shop.press("problems/drop", problem=found["key"], until=shop.now, sure="yes")
    assert is_gone(shop, "dead-letters")
    shop.bury("1003", reason="too_large", error="http_413")
    seen(shop, "dead-letters", severity="hint")  # it can only be dropped


def test_dead_letters_that_nobody_decides_on_are_told_of_before_they_go(
    make_app: AppMaker, caplog: Caplog
) -> None:
    shop = DashboardShop(make_app, ADROLL_DEDUPE_DAYS=3)
    shop.bury("1001", "1002")
    shop.bury("1003", reason="too_large", error="http_413")  # which can only be dropped
    shop.now += 75 * DAY
    assert is_gone(shop, "dead-letters-ending")
    shop.now += DAY + HOUR
    says = "2 events that could still be sent are given up soon, the first on 23 Feb 2027"
    found = seen(shop, "dead-letters-ending", says, events=2, values=[["EUR", "119.8"]])
    assert found["severity"] == "warning"
    [its] = [one for one in shop.json("problems")["open"] if one["reason"] == "refused"]
    shop.press("problems/drop", problem=its["id"], until=shop.now, sure="yes")
    assert is_gone(shop, "dead-letters-ending")

    shop.bury("1004")
    shop.now += 90 * DAY + HOUR
    for _ in range(91 * 24):  # housekeeping follows a clock by an hour a minute
        shop.now += 60
        shop.runtime.outbox.admin.keep_house()
    assert is_gone(shop, "dead-letters-ending")
    assert is_gone(shop, "dead-letters")
    assert "explain dead-letters-ending" in caplog.text
    said = visits.invoke(shop.app, "outbox", "find", "1004", code=0).output
    assert "Given up: AdRoll refused what the event says: http_400: currency: no such" in said
    assert "Given up for good, never sent" in said
    page = html.unescape(shop.client.get(shop.post("orders/find", order="1004").location).text)
    assert "Given up, never sent: nobody decided within 90 days" in page
    assert "AdRoll refused what the event says: http_400: currency: no such" in page
    assert "refused: http_400" not in page, "a code of ours"
    told = visits.invoke(shop.app, "history", "--by", "reason", "--since", "200d").output
    assert "given_up     0        2" in told
    dead = shop.runtime.outbox.lookups.list("dead")[0].id
    visits.invoke(shop.app, "outbox", "drop", dead, code=0)
    shop.deliver("1004")


def test_lost_reports_are_one_for_seven_days(shop: DashboardShop) -> None:
    shop.deliver("1001")
    for _ in range(120):
        shop.runtime.outbox.note_failure("purchase", "disk_full")
    shop.runtime.outbox.tell_failures()  # as the thread beside the requests does
    shop.deliver("1002")
    lost = seen(shop, "event-lost", "120 reports were lost. The disk")
    assert lost["command"] == f"df -h {shop.runtime.outbox.folder}"
    assert "This message stays for seven days after the last loss" in lost["todo"]
    [row] = [one for one in shop.json()["losses"] if one["reason"] == "disk_full"]
    assert row["is_open"]
    shop.now += 8 * DAY
    assert is_gone(shop, "event-lost")
    losses = shop.json(period="last-month")["losses"]
    [row] = [one for one in losses if one["reason"] == "disk_full"]
    assert not row["is_open"]


def sell_as_always(shop: DashboardShop, orders: int = 17) -> None:
    """So many orders at noon of each day of five weeks until yesterday."""
    visits.began_long_ago(shop.app)
    shop.now -= DAY + 2 * HOUR  # one o'clock: what was reported lately has come
    noon = shop.now - shop.now % DAY + 12 * HOUR
    for day in range(35):
        for number in range(orders):
            at = noon - day * DAY + number
            visits.report(shop.app, f"{day}-{number}", timestamp=at)
    shop.runtime.deliverer.drain()
    shop.now += DAY + 2 * HOUR


def test_an_event_that_stopped_coming_is_told_and_signalled_once(
    shop: DashboardShop, caplog: Caplog
) -> None:
    sell_as_always(shop)
    shop.now -= 4 * HOUR  # eleven o'clock
    assert is_gone(shop, "reports-silent")
    shop.now += 4 * HOUR
    says = ("No order since ", "there are usually 17 orders")
    found = seen(shop, "reports-silent", *says, severity="error")
    assert found["since"] == shop.now - shop.now % HOUR - 26 * HOUR
    assert found["todo"].startswith("If the shop is closed today, all is well. Else place an order")
    last = "24 Nov 2026 at 13:00 UTC (the end of the hour in which the last one came); in"
    assert shop.json()["verdict"]["sentence"].startswith(f"No order since {last}")
    assert ">none since then</td>" in shop.html("problems")
    metrics = {one.name: one for one in prometheus.AdRollCollector(shop.app).collect()}
    [sample] = metrics["adroll_event_silent_seconds"].samples
    assert (sample.labels, sample.value > 24 * HOUR) == ({"event": "purchase"}, True)
    told: list[str] = []

    def hear(_: object, name: str, **_values: object) -> None:
        told.append(name)

    deliverer = shop.runtime.deliverer
    with signals.reports_silent.connected_to(hear, shop.app):
        deliverer._silent_from = 0.0  # it may have looked before
        deliverer.look()
        replace(deliverer).look()  # as another process does
    assert told == ["purchase"]
    assert "no order since" in caplog.text
    assert shop.runtime.counters.get("reports_silent", "purchase") == 1
    shop.deliver("again")
    assert is_gone(shop, "reports-silent")


def test_an_account_that_this_site_has_left_is_not_missed(
    shop: DashboardShop, make_app: AppMaker
) -> None:
    """For thirteen weeks the answer was "No order since", while orders came to the new account."""
    sell_as_always(shop)
    config: dict[str, Any] = {"ADROLL_OUTBOX_URL": f"sqlite:///{shop.runtime.outbox.place}"}
    config["ADROLL_JOURNAL_FOLDER"] = str(shop.runtime.outbox.folder)
    moved = DashboardShop(make_app, ADROLL_ADVERTISABLE_EID="NEWADVERTISABLE0000001", **config)
    moved.now = shop.now
    assert is_gone(moved, "reports-silent")
    lookups = [one.runtime.outbox.lookups for one in (moved, shop, moved, shop)]
    told = [[event.name for event in one.note_silences()] for one in lookups]
    assert told == [[], ["purchase"], [], []], "an app that shares the outbox still misses its own"
    seen(shop, "reports-silent")


def test_an_import_of_todays_orders_does_not_hide_that_the_site_is_silent(
    shop: DashboardShop,
) -> None:
    """Nor does it while they wait, nor when they are delivered."""
    sell_as_always(shop)
    order = {"value": "9.90", "currency": "EUR", "ip": "198.51.100.7", "user_id": "u1"}
    order |= {"page_location": "https://shop.test/"}
    orders = [order | {"order_id": f"t{n}", "timestamp": shop.now - n * HOUR} for n in range(40)]
    text = "\n".join(map(json.dumps, orders))
    visits.invoke(shop.app, "import", "-", input=text, code=0)
    seen(shop, "reports-silent", "No order since ", severity="error")
    shop.runtime.deliverer.drain()
    seen(shop, "reports-silent", "No order since ", severity="error")
    assert is_gone(shop, "reports-low")
    shop.deliver("again")
    assert is_gone(shop, "reports-silent")


def test_fewer_orders_than_usual_are_told_until_as_many_come_again(shop: DashboardShop) -> None:
    """It was green for as long as one order came in one and a half times the longest night."""
    sell_as_always(shop)
    shop.deliver("few")
    said = "1 order so far today; on a Wednesday by 15:03 there are usually 17 orders."
    seen(shop, "reports-low", said, severity="warning", since=None)
    assert said in shop.html()
    assert is_gone(shop, "reports-silent")
    shop.deliver(*(f"again-{number}" for number in range(14)))
    assert is_gone(shop, "reports-low")


def test_a_full_disk_is_seen_while_it_is_full(shop: DashboardShop, monkeypatch: Patch) -> None:
    shop.deliver("1001")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=0))
        found = seen(shop, "event-lost", "The disk is full: what is reported now is lost.")
    assert found["command"].startswith("df -h ")
    assert is_gone(shop, "event-lost")


def test_a_journal_that_may_not_be_written_is_seen_while_it_is_so(
    shop: DashboardShop, monkeypatch: Patch
) -> None:
    """What it refuses is counted only once it takes something again."""
    shop.deliver("1001")
    folder, access = shop.runtime.outbox.folder, os.access
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: path != folder and access(path, mode))
        said = f"{folder} may not be written by this user. If the app runs as this user, reports "
        seen(shop, "folder-not-writable", said, "are lost", severity="error")
    assert is_gone(shop, "folder-not-writable")


def test_what_a_full_disk_costs_is_seen_beside_the_outbox_that_it_stops(
    shop: DashboardShop, monkeypatch: Patch
) -> None:
    shop.deliver("1001")

    def fail(*_: object) -> None:
        raise OutboxFailed("disk_full", "database or disk is full")

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=0))
    monkeypatch.setattr(type(shop.runtime.outbox.database), "read", fail)
    monkeypatch.setattr(type(shop.runtime.outbox.database), "write", fail)
    overview: Any = shop.client.get("/adroll-dashboard/overview.json").json
    codes = [one["code"] for one in overview["findings"]]
    assert codes == [one["code"] for one in check(shop)[0] if one["severity"] == "error"]
    assert sorted(codes) == ["event-lost", "outbox-unavailable"]
    assert overview["verdict"]["code"] == codes[0]
    page = shop.client.get("/adroll-dashboard/").text
    assert "what is reported now is lost" in page
    assert "has no room left on its disk" in page


def test_hosts_that_no_account_is_for(make_app: AppMaker, caplog: Caplog) -> None:
    eids = {"advertisable_eid": ADVERTISABLE, "pixel_eid": PIXEL, "access_token": "x"}
    unset = dict.fromkeys(["ADROLL_ADVERTISABLE_EID", "ADROLL_PIXEL_EID", "ADROLL_ACCESS_TOKEN"])
    shop = DashboardShop(make_app, **unset, ADROLL_ACCOUNTS={"shop.fr": eids})
    shop.report("1001")
    shop.now += 3 * DAY
    seen(shop, "other-account", "1 event of hosts that ADROLL_ACCOUNTS does not list waits")
    shop.runtime.deliverer.look()
    assert "explain nobody-delivers" in caplog.text
    assert ADVERTISABLE in visits.invoke(shop.app, "send-test", code=0).output  # a host's account
    visits.invoke(shop.app, "outbox", "drop", "--advertisable", "", code=0)
    assert is_gone(shop, "other-account")


def test_events_of_an_account_that_nobody_serves(shop: DashboardShop, make_app: AppMaker) -> None:
    shop.deliver("1001")
    place, other = shop.runtime.outbox.place, "SANDBOXSANDBOXSANDBOX1"
    config = {"ADROLL_OUTBOX_URL": f"sqlite:///{place}", "ADROLL_ADVERTISABLE_EID": other}
    config["ADROLL_JOURNAL_FOLDER"] = str(shop.runtime.outbox.folder)
    neighbour = make_app(AdRoll(clock=lambda: shop.now), **config)
    event = visits.report(neighbour, "9")
    assert metrics(shop) == set()  # which takes in the account's first event as it looks
    visits.settle(neighbour)
    assert is_gone(shop, "other-account")  # another app may be about to take it
    shop.now += 61
    seen(shop, "other-account", f"1 event of the account {other}")
    assert is_gone(shop, "nobody-delivers"), "no process of this account could deliver it"
    destination = shop.runtime.outbox.destination(other)
    destination.seen()  # another app's worker, in the same folder
    assert is_gone(shop, "other-account")
    shop.now += 61
    seen(shop, "other-account")
    destination.failed("http_503")  # another app's thread
    assert is_gone(shop, "other-account")
    destination.stop("unauthorized", "x")
    destination.failed("401")
    assert is_gone(shop, "delivery-stopped"), "which is no trouble of ours"
    assert "adroll_destination_stopped{" not in scraped(shop), "an alert on it would never end"
    shop.now += 61
    seen(shop, "other-account", severity="warning")  # another app may ask every five minutes
    shop.now += 300
    seen(shop, "other-account", severity="error")
    shop.destination.stop("http_401", "x")
    found = seen(shop, "delivery-stopped", events=0)
    assert "wait" not in found["sentence"], "nothing that the token could send"
    assert shop.runtime.outbox.admin.drop([event.id]).events == 1
    assert is_gone(shop, "other-account")


def buy(
    shop: DashboardShop, address: str, chain: str = "", host: str = "shop.test", **fields: Any
) -> None:
    """A visitor's order, whose request has *address* and the ``X-Forwarded-For`` *chain*."""
    headers = {"X-Forwarded-For": chain} if chain else {}
    with shop.app.test_request_context(
        "/?adct=click123",
        base_url=f"https://{host}",
        headers=headers,
        environ_base={"REMOTE_ADDR": address},
    ):
        report_conversion(**(visits.ORDER | {"order_id": next(NUMBERS)} | fields))
    shop.take_in()


#: Of orders whose numbers nobody looks at.
NUMBERS = map(str, itertools.count(5000))


@pytest.mark.parametrize(
    ("address", "says", "values"),
    [
        ("10.0.0.5", "have a private or loopback address", [["EUR", "179.7"]]),
        ("::1", "have a private or loopback address", [["EUR", "179.7"]]),
        # A Unix socket has none: AdRoll takes no such event.
        ("", "have no address of a visitor", []),
    ],
)
def test_three_of_twenty_orders_with_the_proxys_address_are_one(
    shop: DashboardShop, address: str, says: str, values: Any
) -> None:
    for number in range(17):
        buy(shop, f"198.51.100.{number}")
    for _ in range(2):
        buy(shop, address)
    buy(shop, "10.0.0.5", ip="198.51.100.77")  # the call says it
    assert is_gone(shop, "proxy-address")

    buy(shop, address)

    told = seen(shop, "proxy-address", f"3 of the last 20 orders {says}", events=3, values=values)
    assert (told["severity"], "ProxyFix(app.wsgi_app, x_for=1" in told["todo"]) == ("error", True)
    if not address:
        assert "ProxyFix" in seen(shop, "dead-letters")["todo"]
    for number in range(18):
        buy(shop, f"198.51.100.{number}")
    assert is_gone(shop, "proxy-address")


def test_twenty_orders_of_one_address_whose_forwarded_one_differs_are_one(
    shop: DashboardShop,
) -> None:
    for number in range(20):
        assert is_gone(shop, "proxy-address")
        buy(shop, "198.51.100.9", f"203.0.113.{number}")
    told = seen(shop, "proxy-address", "All of the last 20 orders have the same address", events=20)
    assert told["severity"] == "error"
    kept = json.dumps([row.sender for row in shop.runtime.outbox.lookups.list()])
    assert "198.51" not in kept
    assert "203.0" not in kept
    buy(shop, "198.51.100.10", "203.0.113.77, 198.51.100.10")  # as ProxyFix leaves it
    assert is_gone(shop, "proxy-address")


@pytest.mark.parametrize(
    "chains",
    [
        ["", "203.0.113.66"],  # a single forged header
        ["203.0.113.66"],  # one visitor forges all
        ["203.0.113.66, 198.51.100.9", "203.0.113.67, 198.51.100.9", "198.51.100.9"],
    ],
)
def test_what_a_visitor_forges_is_none(shop: DashboardShop, chains: list[str]) -> None:
    for number in range(20):
        buy(shop, "198.51.100.9", chains[-1] if number == 7 else chains[number % len(chains) - 1])
    assert is_gone(shop, "proxy-address")


@pytest.mark.parametrize(
    ("config", "host", "is_one"),
    [
        ({"DEBUG": True, "ADROLL_STRICT": None}, "shop.test", False),
        ({"ADROLL_SANDBOX": True}, "localhost", False),
        ({"ADROLL_SANDBOX": True}, "shop.test", True),
        # nginx without proxy_set_header Host: the app sees its own name.
        ({}, "127.0.0.1", True),
    ],
)
def test_a_developers_own_machine_is_none(
    make_app: AppMaker, config: dict[str, Any], host: str, is_one: bool
) -> None:
    shop = DashboardShop(make_app, **config)
    for _ in range(20):
        buy(shop, "127.0.0.1", host=host)
    codes = {one["code"] for one in check(shop)[0]}
    assert ("proxy-address" in codes) == is_one


def test_a_consent_function_that_fails(make_app: AppMaker) -> None:
    answers: list[Callable[[], bool]] = [lambda: bool(1 / 0)]
    shop = DashboardShop(make_app, ADROLL_CONSENT=lambda _request: answers[0]())
    shop.report("1001")
    seen(shop, "consent-unknown", events=1)
    shop.now += 2 * DAY
    answers[0] = lambda: True
    shop.deliver("1002")
    assert is_gone(shop, "consent-unknown")


@pytest.mark.parametrize("hears_yes", [False, True])
def test_a_new_shop_whose_orders_are_all_suppressed_is_told(
    make_app: AppMaker, hears_yes: bool
) -> None:
    """It had no usual number to fall short of: neither check nor the dashboard said anything."""
    answers = [hears_yes]
    shop = DashboardShop(make_app, ADROLL_CONSENT=lambda _request: answers[0])
    lets_through: list[bool] = []

    @shop.extension.before_report
    def forgets_to_return(event: Event) -> Event | None:
        return event if lets_through else None

    for order in range(19):
        shop.report(f"{order}")
    assert is_gone(shop, "all-suppressed")
    shop.report("19")
    found = seen(shop, "all-suppressed", "None of 20 events “purchase”", key="purchase", events=20)
    assert ("return event" if hears_yes else "hear the yes") in found["todo"]
    assert shop.json("overview")["verdict"]["level"] == "warn"
    answers[0] = True
    lets_through.append(True)
    shop.report("20")
    assert is_gone(shop, "all-suppressed")


def test_a_site_that_leaves_one_kind_of_event_out_is_not_told(make_app: AppMaker) -> None:
    shop = DashboardShop(make_app)

    @shop.extension.before_report
    def orders_alone(event: Event) -> Event | None:
        return event if event.event_name == "purchase" else None

    for _ in range(20):
        with shop.app.test_request_context("/", **visits.VISIT):
            assert report_event("addToCart").status == "suppressed"
    seen(shop, "all-suppressed", "None of 20 events “addToCart”", key="addToCart", events=20)
    shop.report("1001")
    assert is_gone(shop, "all-suppressed")
    shop.deliver("1002")
    assert is_gone(shop, "all-suppressed")


def test_orders_that_go_out_as_dry_runs_are_told_for_a_day(make_app: AppMaker) -> None:
    """The real site had another host than ADROLL_HOSTS: no sale counted, and nobody was told."""
    shop = DashboardShop(make_app, ADROLL_HOSTS=("shop.example", "www.shop.test"))
    shop.deliver("1001", "1002")
    assert is_gone(shop, "host-not-listed"), "one or two are somebody's trial"
    shop.deliver("1003")
    says = "3 orders of the last 24 hours were dry runs"
    seen(shop, "host-not-listed", says, severity="warning", values=[["EUR", "179.7"]])
    shop.now += 2 * DAY
    shop.deliver("1004")
    assert is_gone(shop, "host-not-listed")


def test_holds_that_nobody_ended(shop: DashboardShop) -> None:
    shop.deliver("1001")
    shop.report("1002", hold=True)
    assert shop.json("overview")["findings"] == [], "an unpaid hold in time is none"
    shop.now += 7 * DAY + HOUR
    for _ in range(7 * 24 + 2):  # housekeeping follows a clock by an hour a minute
        shop.now += 60
        shop.runtime.outbox.admin.keep_house()
    [loss] = shop.json("overview", period="last-month")["losses"]
    assert (loss["reason"], loss["who"]) == ("hold_expired", "developer")


def test_an_address_at_which_no_outbox_can_be_is_told_once_by_every_view(
    make_app: AppMaker,
) -> None:
    shop = DashboardShop(make_app, ADROLL_OUTBOX_URL="sqlite:///outbox.db?timeout=3")
    said = "the address of the outbox takes no options after a SQLite file's name"
    [found] = [one for one in check(shop)[0] if one["severity"] == "error"]
    assert (found["code"], found["sentence"]) == ("outbox-url", f"Nothing is reported: {said}.")
    assert ("outbox-url", "error") in metrics(shop)
    answer = shop.client.get("/adroll-dashboard/")
    assert answer.status_code == 503
    assert said in html.unescape(answer.text)


def dated(
    shop: DashboardShop, ahead: float, body: bytes = b'{"results": {}}'
) -> Callable[..., Any]:
    """What AdRoll answers where the shop's clock is *ahead* of its own."""
    return lambda *_: Response(200, {"date": formatdate(shop.now - ahead, usegmt=True)}, body)


@pytest.mark.parametrize(
    ("ahead", "severity", "says"),
    [
        (3600.0, "error", "1 hour ahead of AdRoll's"),
        (-3600.0, "error", "1 hour behind AdRoll's"),
        (120.0, "warning", "2 minutes ahead of AdRoll's"),
        (-90.0, "warning", "1.5 minutes behind AdRoll's"),
    ],
)
def test_a_host_whose_clock_is_not_adrolls(
    shop: DashboardShop, ahead: float, severity: str, says: str
) -> None:
    assert shop.runtime.thread.stop(PATIENCE)
    shop.adroll.judge = dated(shop, ahead)

    def deliver(order: str) -> None:
        shop.report(order)
        shop.runtime.deliverer.drain()

    deliver("1001")
    assert is_gone(shop, "clock-wrong"), "one answer may be anybody's"
    deliver("1002")
    seen(shop, "clock-wrong", f"The clock of the host {this_host()} is", says, severity=severity)
    shop.adroll.judge = dated(shop, 0.0)
    deliver("1003")
    deliver("1004")
    assert is_gone(shop, "clock-wrong")


def test_a_proxys_page_tells_nothing_of_adrolls_clock(shop: DashboardShop) -> None:
    shop.adroll.judge = dated(shop, 3600.0, b"<html>")
    for order in "123":
        shop.report(order)
        shop.runtime.deliverer.drain()
    assert is_gone(shop, "clock-wrong")


def test_a_past_that_is_played_makes_no_clock_wrong(make_app: AppMaker) -> None:
    """The sandbox's answers had the host's time, whatever clock it was given."""
    now = time.time() - 7 * DAY
    with running(clock=lambda: now) as sandbox:
        app = make_app(AdRoll(clock=lambda: now), ADROLL_DELIVERY="sync", **visits.at(sandbox))
        for order in ("1001", "1002", "1003"):
            visits.report(app, order)
        assert len(sandbox.purchases()) == 3
    findings = json.loads(visits.invoke(app, "check", "--json").output)["findings"]
    assert "clock-wrong" not in [one["code"] for one in findings]


def test_send_test_and_go_live_tell_of_a_wrong_clock(shop: DashboardShop) -> None:
    shop.adroll.judge = dated(shop, -3600.0)
    said = f"The clock of the host {this_host()} is 1 hour behind AdRoll's."
    assert f"clock:  {said}" in visits.invoke(shop.app, "send-test", code=0).output
    told = json.loads(visits.invoke(shop.app, "go-live", "--json", code=1).output)["findings"]
    assert said in [one["sentence"] for one in told if one["code"] == "clock-wrong"]
    shop.adroll.judge = dated(shop, 0.0)
    assert "clock:" not in visits.invoke(shop.app, "send-test", code=0).output
    # Of two answers that do not agree, one may be anybody's.
    differing = iter([dated(shop, 3600.0), dated(shop, 0.0)])
    shop.adroll.judge = lambda *_: next(differing)()
    sent = json.loads(visits.invoke(shop.app, "send-test", "--json", code=0).output)
    assert sent["clock_ahead"] == 0.0


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
@pytest.mark.parametrize(("ahead", "says"), [(3600.0, "ahead of"), (-3600.0, "behind")])
def test_a_host_whose_clock_is_not_the_database_servers(
    make_app: AppMaker, engine: str, ahead: float, says: str
) -> None:
    with database(engine) as url:
        shop = DashboardShop(make_app, ADROLL_OUTBOX_URL=url)
        shop.deliver("1001")
        assert is_gone(shop, "clock-wrong")
        shop.now = time.time() + ahead
        shop.runtime.outbox.clocks.compare(lambda: shop.now)  # as who takes in does each minute
        says = f"The clock of the host {this_host()} is 1 hour {says} the database server's."
        seen(shop, "clock-wrong", says, severity="error")
        shop.now = time.time()
        shop.runtime.outbox.clocks.compare(lambda: shop.now)
        assert is_gone(shop, "clock-wrong")
        shop.runtime.outbox.close()


def test_a_clock_that_is_wrong(shop: DashboardShop) -> None:
    shop.deliver("1001")
    shop.now += HOUR
    shop.report("1002")
    shop.now -= HOUR
    shop.bury(*(f"{order}" for order in range(2001, 2020)))
    seen(shop, "reports-die")
    seen(shop, "clock-wrong", "an event that waits is 1 hour in the future", severity="error")
    assert shop.json("overview")["findings"][0]["code"] == "clock-wrong", "it causes others"
    shop.now += HOUR
    assert is_gone(shop, "clock-wrong")


def test_a_clock_set_right_is_no_finding_once_nothing_early_waits(shop: DashboardShop) -> None:
    """It stayed until the time had come at which its last event was reported."""
    shop.now += 5 * HOUR
    shop.deliver("1001")
    shop.report("1002")
    shop.now -= 5 * HOUR
    seen(shop, "clock-wrong")
    shop.runtime.outbox.admin.keep_house()
    shop.now += 121
    shop.settle(o1002=DELIVERED)
    assert is_gone(shop, "clock-wrong")


def test_a_damaged_database_says_what_is_lost_and_where_it_is(shop: DashboardShop) -> None:
    shop.deliver("1001")
    assert shop.runtime.thread.stop(60)  # which would have the file open while it is replaced
    shop.runtime.outbox.close()
    place = Path(shop.runtime.outbox.place)
    damage(place, "adroll_event")
    shop.deliver("1002")
    found = seen(shop, "outbox-corrupt")
    [old] = place.parent.glob("*.corrupt-*")
    assert str(old) in found["todo"]
    assert str(old) in found["command"]
    os.utime(old, (shop.now, shop.now))
    assert "These figures are not whole" in shop.html("")
    os.utime(old, (shop.now - 2 * DAY, shop.now - 2 * DAY))
    assert "These figures are not whole" not in shop.html("", period="day")
    shop.bury("2001", "2002", "2003", reason="restored")
    assert is_gone(shop, "reports-die"), "these are of the old file"
    assert shop.json("overview")["findings"][0]["code"] == "outbox-corrupt"
    old.unlink()
    assert is_gone(shop, "outbox-corrupt")


def test_a_journal_that_nobody_takes_in(shop: DashboardShop, monkeypatch: Any) -> None:
    shop.deliver("1001")
    assert shop.runtime.thread.stop(60)
    visits.report(shop.app, "1002")
    with monkeypatch.context() as patch:
        patch.setattr(ingest.Ingest, "take_in", lambda *_args, **_more: 0)
        patch.setattr(ingest.Ingest, "take_in_all", lambda _self: None)
        seen(shop, "journal-not-read")
    assert is_gone(shop, "journal-not-read")


def test_a_journal_that_may_not_be_looked_at_is_told_and_no_bare_error(
    shop: DashboardShop, monkeypatch: Patch
) -> None:
    shop.deliver("1001")
    folder, listdir = shop.runtime.outbox.folder, os.listdir

    def refused(path: Any) -> Any:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refused)
        patch.setattr(os, "access", lambda path, _mode: Path(path) != folder)
        assert "sudo chown" in seen(shop, "outbox-unavailable")["todo"]
    assert is_gone(shop, "outbox-unavailable")


def test_a_network_folder_is_told(shop: DashboardShop, tmp_path: Path, monkeypatch: Patch) -> None:
    """As Linux tells of it; the type is nfs4 for NFS, cifs or smb3 for SMB."""
    (tmp_path / "disk one").mkdir()
    shop.runtime.folder = str(tmp_path / "disk one" / "instance")
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr("adroll_flask.outbox.location.MOUNTS", mounts)
    root = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
    here = str(tmp_path / "disk one").replace(" ", "\\040")
    network = f"40 22 0:35 / {here} rw,relatime shared:9 master:3 - nfs4 10.0.0.1:/x rw\n"
    beside = f"41 22 0:36 / {tmp_path}/disk rw - cifs //nas/x rw\n"
    disk = f"42 22 8:1 / {here} rw - xfs /dev/sda1 rw\n"

    def pointed_out() -> set[str]:
        found = [one for one in check(shop)[0] if one["code"] == "folder-on-network"]
        assert all("nfs4" in one["sentence"] for one in found)
        return {one["subject"] for one in found}

    mounts.write_text(root + network + beside)
    assert pointed_out() == {"ADROLL_JOURNAL_FOLDER", "ADROLL_OUTBOX_URL"}
    mounts.write_text(root + network + disk)  # hidden by what is mounted over it
    assert pointed_out() == set()
    mounts.write_text(root + beside)
    assert pointed_out() == set()
    mounts.unlink()
    assert pointed_out() == set()


def test_a_locked_database_names_who_holds_it(shop: DashboardShop, monkeypatch: Patch) -> None:
    monkeypatch.setattr("adroll_flask.outbox.sqlite.PATIENCE", 0.1)
    shop.deliver("1001")
    assert shop.runtime.thread.stop(60)  # which would have the file open
    shop.runtime.outbox.close()
    place = Path(shop.runtime.outbox.place)
    with closing(sqlite3.connect(place, timeout=PATIENCE)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        [found] = [one for one in check(shop)[0] if one["code"] == "outbox-unavailable"]
        assert time.monotonic() - began < 60
        other.rollback()
    assert f"fuser -v {place}" in found["todo"]


def test_of_two_accounts_only_the_orders_count_that_nobody_sends(make_app: AppMaker) -> None:
    other = "OTHERADVERTISABLE00001"
    account = {"advertisable_eid": other, "pixel_eid": PIXEL, "access_token": "another"}
    accounts = {"shop.fr": account}
    shop = DashboardShop(make_app, ADROLL_DELIVERY="worker", ADROLL_ACCOUNTS=accounts)
    shop.report("1001")
    shop.report("1002", page_location="https://shop.fr/thanks")
    shop.now += 61
    shop.destination.pause(30)

    seen(shop, "nobody-delivers", events=1)


def test_an_outbox_that_cannot_be_read_is_the_worst_in_every_view(shop: DashboardShop) -> None:
    shop.deliver("1001")
    assert shop.runtime.thread.stop(PATIENCE)
    shop.runtime.outbox.close()
    place = Path(shop.runtime.outbox.place)
    for path in place.parent.glob(f"{place.name}*"):
        path.unlink()
    place.mkdir()
    checked, exit_code = check(shop)
    [found] = [one for one in checked if one["code"] == "outbox-unavailable"]
    assert (found["severity"], exit_code) == ("error", 1)
    assert ("outbox-unavailable", "error") in metrics(shop)
    text = scraped(shop)
    assert "adroll_outbox_up 0.0" in text
    assert "metrics_failed" in text
    assert "adroll_events_total" not in text
    for page in ("overview", "problems", "orders", "match-quality"):
        answer = shop.client.get(f"{WHERE}{page}.json")
        assert answer.status_code == 503
        told = answer.get_json()
        assert told["verdict"] == {**told["findings"][0], "level": "bad"}
        # SQLite has several words for it.
        [same] = [one | {"sentence": found["sentence"]} for one in told["findings"]]
        assert same == found
    answer = shop.client.get(WHERE)
    assert answer.status_code == 503
    assert '<section class="card verdict bad"' in answer.text
    assert "The outbox cannot be used: the file" in html.unescape(answer.text)
    place.rmdir()
    assert is_gone(shop, "outbox-unavailable")


def test_a_session_of_another_outbox_is_told_for_a_week(shop: DashboardShop) -> None:
    shop.deliver("1001")
    shop.runtime.outbox.database.write(
        lambda tx: schema.set_meta(tx, schema.ELSEWHERE, repr(shop.now))
    )
    seen(shop, "session-elsewhere", "session=", severity="error", since=shop.now)
    shop.now += 7 * DAY + HOUR
    assert is_gone(shop, "session-elsewhere")


def test_a_file_that_is_not_ours_is_told_until_it_is_mended(shop: DashboardShop) -> None:
    shop.deliver("1001")
    assert shop.runtime.thread.stop(PATIENCE)
    place = shop.runtime.outbox.place
    assert isinstance(place, Path)
    with closing(sqlite3.connect(place)) as connection, connection:
        connection.execute("CREATE TABLE orders (id INTEGER)")
    shop.runtime.outbox.close()
    good = place.read_bytes()
    damage(place, "adroll_event")
    checked = {one["code"]: one for one in check(shop)[0]}
    assert str(place) in checked["outbox-foreign"]["sentence"]
    assert "outbox-foreign" in {code for code, _ in metrics(shop)}
    page = shop.client.get(f"{WHERE}orders")
    assert (page.status_code, "is damaged" in page.text) == (503, True)
    place.write_bytes(good)
    assert is_gone(shop, "outbox-foreign")
