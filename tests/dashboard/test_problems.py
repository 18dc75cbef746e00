"""Problems: dead letters by cause, sent again or dropped in bulk, and the destination's state."""

import csv
import io
import itertools
import json
import re
from datetime import UTC, datetime
from html import unescape
from types import SimpleNamespace
from typing import Any

import pytest

from adroll_flask.dashboard import problems
from adroll_flask.dashboard.page import for_lookers
from adroll_flask.findings import finding
from adroll_flask.outbox.model import Attempt
from tests.conftest import AppMaker, Caplog, Patch
from tests.support import eventually
from tests.support.dashboard_shop import DELIVERED, NOW, DashboardShop
from tests.support.visits import invoke

DAY = 86_400.0


def test_a_shop_without_problems_says_so(shop: DashboardShop) -> None:
    shop.bury("1001")
    shop.runtime.outbox.admin.forget(lambda wire: True)
    assert shop.json("problems")["open"] == [], "what was forgotten is none"
    assert "No open problems" in shop.html("problems")


def test_dead_letters_of_one_cause_are_one_problem(any_shop: DashboardShop) -> None:
    any_shop.bury("1001", "1002", error="http_400: products.0.price: takes a decimal")
    any_shop.bury("1003", error="http_400: products.7.price: takes a decimal")
    any_shop.bury("1005", error="http_400: currency: unknown")
    any_shop.report("1004", currency="EURO")
    found = {one["title"]: one for one in any_shop.json("problems")["open"]}
    assert {title: one["events"] for title, one in found.items()} == {
        "AdRoll refused the event's products.price": 3,
        "AdRoll refused the event's currency": 1,
        "The shop reported a wrong currency": 1,
    }
    refused = found["AdRoll refused the event's products.price"]
    assert refused["words"] == "http_400: products.7.price: takes a decimal"
    assert refused["names"] == {"purchase": 3}
    assert refused["first"] <= refused["last"]
    assert sum(refused["days"]) == 3
    page = any_shop.html("problems")
    assert "AdRoll&#39;s words:" in page
    assert "3</strong> events" in page


def test_one_field_is_set_in_all_of_them_and_then_they_are_sent(any_shop: DashboardShop) -> None:
    for order in ("1001", "1002"):
        any_shop.report(order, currency="EURO")
    form = {**any_shop.open_problem(), "field": "currency"}
    said = any_shop.press("problems/retry", **form, value="still none")
    assert said.startswith("0 events will be sent again; 2 events not: fix it first")
    assert any_shop.press("problems/retry", **form, value="EUR") == "2 events will be sent again."
    # The order's id is the key again, and what is sent is right.
    assert any_shop.states() == {"1001": "waiting", "1002": "waiting"}
    any_shop.runtime.deliverer.flush(5)
    assert sorted(any_shop.adroll.taken) == ["1001", "1002"]
    assert {wire["currency"] for wire in any_shop.adroll.wires} == {"EUR"}


def test_what_cannot_be_set_in_all_of_them_says_the_command_that_corrects_each(
    shop: DashboardShop,
) -> None:
    shop.report("1001", ip="nowhere")
    shop.bury("1002", error="http_422: [0].event_attributes.products.0.price: takes a decimal")
    places = {}
    for one in shop.json("problems")["open"]:
        page = shop.html("problems", problem=one["id"])
        assert 'name="field"' not in page
        [id] = set(re.findall("flask adroll outbox (?:show --full|fix) ([a-z0-9]+)", page))
        places[one["elsewhere"]] = id
        event = json.loads(invoke(shop.app, "outbox", "show", "--full", id).output)["event"]
        event["ip"] = "203.0.113.7"
        invoke(shop.app, "outbox", "fix", id, "-", input=json.dumps(event), code=0)
    assert places.keys() == {"products.price", "ip"}
    assert {*shop.states().values()} == {"waiting"}


def test_adrolls_words_stand_where_the_text_speaks_of_them(shop: DashboardShop) -> None:
    words = "http_422: [0].event_attributes.products.0.price: takes a decimal"
    shop.bury("1001", error=words)
    for text in (shop.html(), shop.html("problems"), invoke(shop.app, "check").output):
        without_messages = re.sub("(?s)<pre.*?</pre>", "", text)
        assert unescape(without_messages).count(words) == 1


def test_what_came_after_the_page_was_shown_is_not_touched(
    shop: DashboardShop, caplog: Caplog
) -> None:
    shop.bury("1001")
    form = shop.open_problem()
    shop.now += 60.0
    shop.bury("1002")
    with caplog.at_level("INFO", "adroll_flask.dashboard"):
        assert shop.press("problems/retry", **form) == "1 event will be sent again."
    assert "AdRoll dashboard: 1 dead letters sent again, 0 not" in caplog.messages
    assert shop.states() == {"1001": "waiting", "1002": "dead"}


def test_what_the_shop_keeps_back_is_told_apart(shop: DashboardShop) -> None:
    shop.bury("1001")
    shop.extension.before_report(lambda _event: None)
    said = shop.press("problems/retry", **shop.open_problem())
    assert said == "0 events will be sent again; 1 event kept back by before_report."


def test_a_solved_problem_is_open_no_more(any_shop: DashboardShop, caplog: Caplog) -> None:
    any_shop.bury("1001", "1002")
    form = any_shop.open_problem()
    with caplog.at_level("INFO", "adroll_flask.dashboard"):
        assert any_shop.press("problems/drop", **form, sure="yes") == "2 events dropped."
    assert "AdRoll dashboard: 2 dead letters dropped" in caplog.messages
    assert any_shop.states() == {}
    assert "This problem is solved" in any_shop.html("problems", problem=form["problem"])


@pytest.mark.parametrize("given", [{}, {"currency": "EURO"}])
def test_a_hold_that_failed_cannot_be_sent_from_here(
    shop: DashboardShop, given: dict[str, Any]
) -> None:
    @shop.extension.before_report
    def broken(_event: Any) -> Any:
        raise LookupError

    shop.report("1001", hold=True, **given)
    [one] = shop.json("problems")["open"]
    page = shop.html("problems", problem=one["id"])
    assert "Drop 1 event" in page
    assert not one["can_retry"]
    assert "again</button>" not in page
    form = {**shop.open_problem(), "field": "currency", "value": "EUR"}
    assert "nobody has said that it is paid" in shop.press("problems/retry", **form)
    assert shop.runtime.outbox.lookups.counts()["dead"] == 1


def test_one_press_works_on_a_bounded_number(shop: DashboardShop, monkeypatch: Patch) -> None:
    monkeypatch.setattr("adroll_flask.dashboard.problems._AT_ONCE", 2)
    shop.bury("1001", "1002", "1003")
    said = shop.press("problems/drop", **shop.open_problem(), sure="yes")
    assert said == "2 events dropped; 1 event left: press the button again."
    assert len(shop.states()) == 1


@pytest.mark.parametrize("bound", ["events", "seconds"])
def test_one_press_sends_a_bounded_number_again(
    shop: DashboardShop, monkeypatch: Patch, bound: str
) -> None:
    """1,000 events, or what five seconds take: a request of the site is not to last longer."""
    assert (problems._AT_ONCE, problems._SECONDS) == (1000, 5.0)
    if bound == "events":
        monkeypatch.setattr(problems, "_AT_ONCE", 2)
    else:
        seconds = itertools.count(0.0, 2.0)
        monkeypatch.setattr(problems, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    shop.bury("1001", "1002", "1003")
    said = shop.press("problems/retry", **shop.open_problem())
    assert said == "2 events will be sent again; 1 event left: press the button again."
    assert sorted(shop.states().values()) == ["dead", "waiting", "waiting"]


@pytest.mark.parametrize("delivery", ["sync", "thread"])
def test_what_is_sent_again_by_a_press_is_delivered_without_more(
    make_app: AppMaker, delivery: str
) -> None:
    """Nobody reports then: without being told, "sync" would wait for the next report, and so would
    a process whose thread has not begun."""
    shop = DashboardShop(make_app)
    shop.bury("1001")
    place, folder = shop.runtime.outbox.place, shop.runtime.outbox.folder
    its = {"ADROLL_OUTBOX_URL": f"sqlite:///{place}", "ADROLL_JOURNAL_FOLDER": str(folder)}
    other = DashboardShop(make_app, ADROLL_DELIVERY=delivery, **its)
    other.now = shop.now
    assert other.press("problems/retry", **other.open_problem()) == "1 event will be sent again."
    eventually(lambda: other.states() == {"1001": "delivered"})


def test_a_form_that_is_wrong_does_nothing(shop: DashboardShop) -> None:
    shop.bury("1001")
    for action, form, told in (
        ("drop", {}, "Nothing was dropped"),
        *(
            ("drop", {"until": until, "sure": "yes"}, "0 events dropped.")
            for until in ("", "soon", "nan", "-1")
        ),
        ("retry", {"field": "ip", "value": "192.0.2.1"}, "There is no such field."),
    ):
        assert shop.press(f"problems/{action}", **shop.open_problem() | form).startswith(told)
        assert shop.states() == {"1001": "dead"}


def test_the_destinations_last_answer_is_told(shop: DashboardShop) -> None:
    shop.report("1001")
    shop.destination.stop("http_401", "print")
    shop.destination.failed("http_401: no such token")
    told = shop.json("problems")["destination"]
    assert told["token"] == "set"
    page = shop.html("problems")
    assert page.count("AdRoll has refused the access token") == 1
    assert "http_401: no such token" in page


def test_an_answer_that_did_not_come_is_told_in_words(shop: DashboardShop) -> None:
    """The page said "reset", which is a name of ours."""
    words = "The connection ended before AdRoll answered. It may have the events"
    asked = Attempt(shop.now, "unsure", None, "reset", True)
    shop.bury("1001", error="reset", asked=asked)
    shop.destination.failed("reset")
    assert f"<dd>{words}, " in shop.html("problems")
    [order] = shop.json("orders")["newest"]
    assert f'<span class="said">{words}</span>' in shop.html("orders", event=order["id"])


@pytest.mark.parametrize("reason", ["unsure", "restored", "before_outbox"])
def test_what_adroll_may_have_is_sent_again_by_who_says_that_it_has_not(
    shop: DashboardShop, reason: str
) -> None:
    """One press sold all of them twice; the command asks for their ids or their reason."""
    shop.bury("1001", reason=reason)
    form = shop.open_problem()
    assert "AdRoll does not have it" in shop.html("problems", problem=form["problem"])
    assert "tick the box" in shop.press("problems/retry", **form)
    assert shop.states() == {"1001": "dead"}
    assert shop.press("problems/retry", **form, sure="yes") == "1 event will be sent again."


def test_who_only_looks_reads_no_code() -> None:
    """A marketer read ``app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)``."""
    assert for_lookers(finding.SHARED["proxy_fix"]) == for_lookers("")


def test_its_csv_has_a_line_a_problem_and_a_line_an_event(shop: DashboardShop) -> None:
    for days, order in ((40, "1001"), (2, "1002"), (2, "1003")):
        shop.now = NOW - days * DAY
        shop.bury(order)
    shop.now = NOW
    [one] = shop.json("problems")["open"]
    assert one["days"] == [0] * 27 + [2, 0, 0], "those of the last month"
    [line] = csv.DictReader(io.StringIO(shop.html("problems.csv")))
    assert (line["reason"], line["events"]) == ("refused", "3")
    assert line["first"].startswith("2026-10-16T")
    events = csv.DictReader(io.StringIO(shop.html("problems.csv", problem=one["id"])))
    assert sorted(event["order"] for event in events) == ["1001", "1002", "1003"]


def test_what_was_sent_again_is_lost_on_no_page(any_shop: DashboardShop) -> None:
    """On a dashboard that keeps the sums of hours that are over, too."""
    any_shop.bury("1001", "1002")
    health = any_shop.json("overview")["health"]
    assert (health["delivered"], health["could"]) == (0, 2)
    any_shop.now += 2 * 3600.0  # a any_shop on a server has the server's clock
    any_shop.json("overview")
    any_shop.press("problems/retry", **any_shop.open_problem())
    any_shop.settle(o1001=DELIVERED, o1002=DELIVERED)
    found = any_shop.json("overview")
    assert (found["health"]["delivered"], found["health"]["could"]) == (2, 2)
    assert found["losses"] == []


def test_a_dry_run_is_no_problem_of_the_shops(make_app: AppMaker) -> None:
    shop = DashboardShop(make_app, ADROLL_DRY_RUN=True)
    shop.bury("1001")
    assert shop.json("problems")["open"] == []


def test_who_only_looks_has_messages_for_the_developer_and_no_commands(shop: DashboardShop) -> None:
    shop.bury("1001", error="http_400: products.0.price: takes a decimal")
    [problem] = shop.json("problems")["open"]
    shop.may_act = False
    for page in (shop.html("problems"), shop.html("problems", problem=problem["id"])):
        messages = re.findall(r'<pre id="message-text.*?</pre>', page, re.DOTALL)
        assert len(messages) == 1
        assert "flask adroll outbox" in messages[0]
        rest = page.replace(messages[0], "")
        assert "flask adroll" not in rest
        assert "operator=" not in rest
    assert "Orders: 1001\nAdRoll&#39;s words: http_400: products.0.price: takes" in messages[0]
    shop.may_act = True
    assert "flask adroll send-test" in shop.html("problems")


def test_a_message_says_how_many_orders_it_does_not_list(shop: DashboardShop) -> None:
    shop.bury(*(f"{order}" for order in range(1001, 1024)))
    [problem] = shop.json("problems")["open"]
    shop.may_act = False
    page = shop.html("problems", problem=problem["id"])
    [listed] = re.findall(r"^Orders: (.*)$", page, re.MULTILINE)
    assert len(listed.split(", ")) == 20
    assert listed.endswith(" and 3 more events")


def test_a_problems_days_have_their_own_names_in_any_zone(make_app: AppMaker) -> None:
    shop = DashboardShop(make_app, ADROLL_TIME_ZONE="America/New_York")
    shop.bury("1001")
    [problem] = shop.json("problems")["open"]
    day = f"{datetime.fromtimestamp(problem['last'], UTC):%d %b %Y}".lstrip("0")
    table = shop.html("problems", problem=problem["id"]).partition("<table>")[2]
    assert re.findall(r"(\d+ \w+ \d{4})</th><td class=\"number\">1<", table) == [day]


def test_who_may_only_look_reads_no_code_but_in_the_message_to_a_developer(
    make_app: AppMaker,
) -> None:
    shop = DashboardShop(make_app)
    shop.extension.paid_orders(lambda _since, _until: [])
    shop.deliver("1001")
    for may_act in (True, False):
        shop.may_act = may_act
        assert ('<pre class="code"' in shop.html("match-quality")) == may_act
        assert ("@adroll.paid_orders" in shop.html("orders")) == may_act


@pytest.mark.parametrize("name", sorted(finding.TABLE))
def test_who_may_only_look_reads_whole_sentences_and_no_command(name: str) -> None:
    entry = finding.TABLE[name]
    text = re.sub(r"\{(\w+)\}", lambda word: entry.get(word[1], "…"), entry.get("todo", ""))
    shown = for_lookers(text)
    assert not re.search(r"flask adroll|ADROLL_|sudo|timedatectl|`", shown)
    assert shown.endswith((".", "?", "…"))
    assert shown in text or shown == for_lookers("")
