"""The first page: its sentence, the way to AdRoll in figures, and each loss with its reason."""

import re
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest
from jinja2 import Environment, PackageLoader

from adroll_flask import report_conversion
from adroll_flask._version import DOCS_URL
from adroll_flask.dashboard import figures
from adroll_flask.dashboard.figures import count, decimal, money, percent, short
from adroll_flask.events.names import BITS
from adroll_flask.findings.finding import MEANINGS
from tests.support import ROOT
from tests.support.dashboard_shop import DELIVERED, WHERE

from .conftest import DAY, HOUR, Shop


def test_the_way_adds_up_and_has_values_by_currency(shop: Shop) -> None:
    shop.happened("delivered", 6, value="10 EUR", delay=2.0)
    shop.happened("delivered", 2, value="5.5 CHF", delay=2.0, ago=DAY)
    shop.happened("suppressed", 3, reason="consent_refused")
    shop.happened("duplicate", value="10 EUR")
    shop.happened("dead", 2, reason="refused", value="20 EUR")
    shop.happened("delivered", 50, name="addToCart", delay=1.0)
    found = shop.json()
    way = {one["name"]: one for one in found["way"]}
    assert found["reported"] == 14 == sum(one["events"] for one in found["way"])
    assert way["delivered"]["values"] == [["EUR", "60"], ["CHF", "11"]]
    assert way["dead"]["values"] == [["EUR", "40"]]
    assert way["delivered"]["share"] == pytest.approx(8 / 14)
    assert found["health"]["share"] == 0.8
    assert found["health"]["word"] == "good"


def test_each_loss_has_a_reason_and_who_can_change_it(shop: Shop) -> None:
    """What can still be delivered is told first."""
    shop.happened("suppressed", 90, reason="consent_refused")
    shop.happened("suppressed", 20, reason="consent_unknown")
    shop.happened("invalid", 2, reason="invalid:currency")
    shop.happened("dead", reason="refused")
    shop.happened("delivered", 40, delay=1.0)
    losses = shop.json()["losses"]
    assert all(loss["title"] and loss["advice"] for loss in losses)
    assert losses[0]["title"] == "The shop reported a wrong currency"
    reasons = [loss["reason"] for loss in losses]
    assert reasons == ["invalid:currency", "refused", "consent_unknown", "consent_refused"]
    assert "AdRoll&#39;s words name what it does not take." in shop.html()
    assert shop.html().count("do this first") == 1


def test_how_many_orders_did_not_arrive_is_a_sentence(shop: Shop) -> None:
    """A repeated report is no order of its own, and what is not paid is not missing."""
    shop.happened("delivered", 1740, delay=1.0)
    shop.happened("suppressed", 195, reason="consent_refused")
    shop.happened("dead", 3, reason="refused")
    shop.happened("duplicate", 11)
    shop.happened("cancelled", 1, reason="cancelled")
    found = shop.json()
    assert (found["answer"]["missed"], found["answer"]["known"]) == (198, 1938)
    assert found["answer"]["sentence"] == (
        "198 of 1,938 orders did not reach AdRoll: 195 not to be reported and 3 that could not be"
        " delivered."
    )
    assert found["answer"]["beside"] == (
        "Beside these: 1 is cancelled, or never released; 11 reports came again, by a reload or a"
        " retry, and count once."
    )
    assert {loss["reason"] for loss in found["losses"]} == {
        "consent_refused",
        "refused",
        "cancelled",
    }


def test_the_sentence_says_too_that_all_arrived(shop: Shop) -> None:
    assert shop.json()["answer"]["sentence"] == ""
    shop.happened("delivered", delay=1.0)
    assert shop.json()["answer"]["sentence"] == "The one order reached AdRoll."
    shop.happened("delivered", 6, delay=1.0)
    assert shop.json()["answer"]["sentence"] == "Every one of 7 orders reached AdRoll."


def test_a_hold_that_nobody_released_is_no_loss_to_adroll(shop: Shop) -> None:
    shop.happened("delivered", 2, delay=1.0)
    shop.happened("expired", reason="hold_expired")
    shop.happened("expired", reason="too_old")
    shop.happened("unused", 3, reason="release")
    found = shop.json()
    assert {loss["reason"] for loss in found["losses"]} == {"hold_expired", "too_old"}
    assert found["health"]["could"] == 3
    way = {one["name"]: one["events"] for one in found["way"]}
    assert (way["unreleased"], way["dead"]) == (1, 1)


# -- is it working? ------------------------------------------------------------------------------


def test_an_outbox_that_cannot_be_read_says_so(shop: Shop) -> None:
    shop.happened("delivered", delay=1.0)
    shop.runtime.outbox.close()
    place = shop.runtime.outbox.place
    for path in place.parent.glob(f"{place.name}*"):
        path.unlink()
    place.mkdir()
    answer = shop.client.get("/adroll-dashboard/")
    assert answer.status_code == 503
    assert "The outbox cannot be read" in answer.text


# -- dry runs, and what was sent again -----------------------------------------------------------


def test_dry_runs_are_no_orders(new_shop: Callable[..., Shop]) -> None:
    """The plot drew them, on a page that says that they are not in its figures."""
    shop = new_shop(ADROLL_DRY_RUN=True)
    shop.happened("delivered", 9, delay=1.0)
    shop.happened("dry_run", 500, reason="delivered")
    shop.happened("dry_run", 40, reason="dead:refused")
    shop.report("1001", hold=True)
    shop.report("1002")
    found = shop.json(period="days")
    assert (found["reported"], found["dry_runs"], found["held"]["events"]) == (9, 540, 0)
    assert found["health"]["share"] == 1.0
    assert [(step["delivered"], step["open"]) for step in found["steps"]][-1] == (9, 0)
    assert found["today"]["sentence"].startswith("9 orders so far today")
    assert "540 dry runs are not in these figures" in shop.html()


# -- what people ask -----------------------------------------------------------------------------


def test_days_weeks_and_months_are_of_the_shops_time_zone(new_shop: Callable[..., Shop]) -> None:
    """A Wednesday, 15:03 UTC; in Auckland it is Thursday, 04:03."""
    shop = new_shop(ADROLL_TIME_ZONE="Pacific/Auckland")
    shop.happened("delivered", ago=3 * HOUR, delay=1.0)
    shop.happened("delivered", ago=5 * HOUR, delay=1.0)
    shop.happened("delivered", ago=3.6 * DAY, delay=1.0)
    assert [step["delivered"] for step in shop.json(period="days")["steps"][-2:]] == [1, 1]
    assert shop.json(period="week")["reported"] == 2
    assert shop.json(period="last-week")["reported"] == 1
    assert "Times are Pacific/Auckland." in shop.html()


def test_any_days_can_be_asked_for_and_what_is_none_is_refused(shop: Shop) -> None:
    for days in range(20):
        shop.happened("delivered", ago=days * DAY, delay=1.0)
    day = time.strftime("%Y-%m-%d", time.gmtime(shop.now - 10 * DAY))
    found = shop.json(since=day, until=day)
    assert found["reported"] == shop.json(until=day)["reported"] == 1
    assert shop.json(since=day)["reported"] == 11
    assert shop.html(since=day, until=day).count(f'value="{day}"') == 2
    assert shop.html().count('type="date" name="since" value=""') == 1
    assert "orders" in shop.html(until="9999-12-31"), "a day that no calendar reaches"
    before = time.strftime("%Y-%m-%d", time.gmtime(shop.now - 11 * DAY))
    assert len(shop.json(since=before, until=day)["steps"]) == 48, "two days, by the hour"
    for wrong in ("yesterday", "2031-01-01", "1999-01-01"):
        answer = shop.client.get(f"{WHERE}overview.json", query_string={"since": wrong})
        assert answer.status_code == 400
        assert "since=2026-11-01" in answer.text


@pytest.mark.parametrize("page", ["", "match-quality"])
@pytest.mark.parametrize("days", [("2026-11-20", "2026-11-10"), ("2027-01-01", ""), ("x", "")])
def test_days_that_are_no_span_are_told(shop: Shop, page: str, days: tuple[str, str]) -> None:
    """A page without navigation said "Bad Request"."""
    shop.happened("delivered", 3, delay=1.0)
    text = shop.html(page, since=days[0], until=days[1])
    assert re.search(r'<p class="notice bad" role="status">From and to take days', text)
    assert f'name="since" value="{days[0]}"' in text
    assert f'name="until" value="{days[1]}"' in text
    assert f"The page shows {'this month' if page else '7 days'} instead" in text


def test_what_is_held_now_is_told_apart_from_the_span(shop: Shop) -> None:
    shop.happened("delivered", 4, delay=1.0)
    with shop.app.test_request_context("/?adct=click", environ_base={"REMOTE_ADDR": "203.0.113.7"}):
        report_conversion(order_id="1", value="12.50", currency="EUR", hold=True)
    for period in ("days", "last-month"):
        found = shop.json(period=period)
        assert (found["held"]["events"], found["held"]["values"]) == (1, [["EUR", "12.5"]])
    assert shop.json()["reported"] == 4
    assert "1 is held now, until the shop says that it is paid (12.50 EUR)" in shop.html()


def test_today_is_compared_with_the_same_weekday(shop: Shop) -> None:
    assert shop.json()["today"] is None
    usual: list[bool] = []
    for week, number in enumerate((38, 36, 40, 44, 41)):
        shop.happened("delivered", number, ago=week * 7 * DAY + 6 * HOUR, delay=1.0)
        if week:
            shop.happened("delivered", 99, ago=week * 7 * DAY - 6 * HOUR, delay=1.0)
        shop.happened("delivered", 70, ago=week * 7 * DAY + 3 * DAY, delay=1.0)
        steps = shop.json(period="day")["steps"]
        usual.append(any(step["usual"] is not None for step in steps))
    assert usual == [False, False, False, True, True], "three weeks say what is usual"
    today = shop.json()["today"]
    assert today["sentence"] == (
        "38 orders so far today; on a Wednesday by 15:03 it is usually 36 to 44."
    )
    assert today["sentence"] in shop.html()
    assert shop.json(period="year")["today"] == today, "whatever span the page shows"


def test_who_may_only_look_has_a_message_and_no_setting(new_shop: Callable[..., Shop]) -> None:
    shop = new_shop(ADROLL_ACCESS_TOKEN=None)
    shop.may_act = False
    before, _, message = shop.html().partition('<pre id="message-text-verdict"')
    assert "ADROLL_ACCESS_TOKEN" not in before
    for part in ("ADROLL_ACCESS_TOKEN", "#account-missing", "http://localhost/adroll-dashboard/"):
        assert part in message.partition("</pre>")[0]
    shop.may_act = True
    assert "ADROLL_ACCESS_TOKEN" in shop.html().partition('<pre id="message-text-verdict"')[0]


def test_the_tab_says_how_many_problems_are_open(new_shop: Callable[..., Shop]) -> None:
    assert 'class="badge"' not in new_shop().html()
    shop = new_shop(ADROLL_ACCESS_TOKEN=None, ADROLL_DRY_RUN=True)
    assert '<span class="badge" aria-label="2 open">2</span>' in shop.html("orders")


def test_who_only_looks_reads_no_names_of_settings(shop: Shop) -> None:
    for outcome, reason in (name.split("/") for name in MEANINGS if name.count("/") == 1):
        if outcome in ("suppressed", "expired", "dead", "failed", "invalid") and reason != "*":
            shop.happened(outcome, reason=reason)
    assert "ADROLL_HONOR_GPC" in shop.html()
    shop.may_act = False
    table = shop.html().partition('id="losses"')[2].partition("</table>")[0]
    assert "ADROLL_" not in table
    assert "flask adroll" not in table
    assert "Leave it: in many places it is the law&#39;s no." in table
    assert "A developer of the shop can change it." in table


def test_a_stop_an_outage_and_nobody_who_delivers_are_told_apart(shop: Shop) -> None:
    for days in (2, 3, 4):
        shop.happened("delivered", 18, ago=days * DAY, delay=3 * HOUR)
    destination = shop.destination
    shop.now -= 5 * DAY
    destination.failed("http_503")
    shop.now += 300
    destination.succeeded()
    assert shop.runtime.outbox.lookups.stops(DAY) == (), "some minutes are no outage"
    shop.now += DAY - 300
    destination.failed("http_503")
    shop.now += 2 * HOUR
    destination.succeeded()
    shop.now += 2 * DAY - 2 * HOUR
    destination.stop("http_401", "print")
    destination.failed("http_401")
    shop.now += 2 * HOUR
    destination.resume()
    shop.now += 2 * DAY - 2 * HOUR
    steps = shop.json(period="days")["steps"]
    assert [step["shade"] for step in steps] == ["", "", "away", "late", "stopped", "", ""]
    page = shop.html(period="days")
    assert page.count('class="place late"') == 1
    for said in (
        r"AdRoll was away: .*, 15:03 to .*, 17:03 \(2 hours\)\. 18 events of that time were sent",
        r"AdRoll refused everything: .*, 15:03 to .*, 17:03 \(2 hours\)\. 18 events of that time",
        r">.* Nov 2026, 00:00 to .*, 00:00: 18 events of that time were sent an hour or "
        r"more later. No outage is known: nobody delivered for a time, or the shop reported or ",
    ):
        assert re.search(said, page)


def test_the_answer_about_orders_is_no_no_where_another_event_stays_away(shop: Shop) -> None:
    assert shop.json()["watched"] == []
    for hours in range(100, 28 * 24, 6):
        shop.happened("delivered", ago=hours * HOUR, delay=1.0, name="formFill")
    found = shop.json()
    assert found["verdict"]["code"] == "reports-silent"
    assert found["verdict"]["sentence"].startswith("Look at this: No formFill event since ")
    assert "order" not in found["findings"][0]["todo"], "nobody finds by one why no form is told"
    [watched] = found["watched"]
    assert (watched["name"], watched["longest_pause"]) == ("formFill", 6 * HOUR)
    assert "Longest pause in four weeks" in shop.html()


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_todays_bar_and_sentence_are_alike(new_shop: Callable[..., Shop], zone: str) -> None:
    """Held orders were in the sentence and not in the bar, nor was what waits."""
    shop = new_shop(ADROLL_TIME_ZONE=zone)
    for order in ("1001", "1002", "1003"):
        shop.report(order)
    shop.settle(o1001=DELIVERED, o1002={"kind": "dead", "reason": "unsure"})
    shop.report("1004", hold=True)
    found = shop.json(period="days")
    bar = found["steps"][-1]
    assert (bar["delivered"], bar["open"]) == (1, 3)
    assert found["today"]["sentence"].startswith("4 orders so far today")
    last = shop.json(period="day")["steps"][-1]
    assert (last["delivered"], last["open"]) == (1, 3)
    assert "held, on the way or unsure: 3" in shop.html()
    day = f"{datetime.fromtimestamp(shop.now, ZoneInfo(zone)):%Y-%m-%d}"
    shop.now += DAY
    assert [step["open"] for step in shop.json(period="days")["steps"]][-2:] == [3, 0]
    for span, waiting in (({"period": "day"}, 0), ({"since": day, "until": day}, 1)):
        ways = {one["name"]: one["events"] for one in shop.json(**span)["way"]}
        assert ways["waiting"] == waiting, "what waits counts on its own day"


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Asia/Kathmandu"])
def test_an_hour_with_midnight_is_divided_alike(new_shop: Callable[..., Shop], zone: str) -> None:
    """A hold of 23:40 stood in the next day's bar; one of 0:10 was missing in its sentence."""
    shop = new_shop(ADROLL_TIME_ZONE=zone)
    today = datetime.fromtimestamp(shop.now, ZoneInfo(zone)).replace(hour=0, minute=0, second=0)
    for order, minutes in (("yesterday", -20), ("first", 5), ("second", 10), ("third", 70)):
        shop.now = today.timestamp() + minutes * 60
        shop.report(order, hold=True)
    shop.happened("delivered", ago=20 * DAY)  # without any history nothing is said of today
    found = shop.json(period="days")
    assert [step["open"] for step in found["steps"]][-2:] == [1, 3]
    assert found["today"]["sentence"].startswith("3 orders so far today")
    day = f"{today:%Y-%m-%d}"
    assert sum(step["open"] for step in shop.json(since=day, until=day)["steps"]) == 3


def test_what_may_have_arrived_is_no_loss(shop: Shop) -> None:
    """After damage of the outbox, events that AdRoll had were told as not delivered."""
    shop.happened("delivered", 6, delay=1.0)
    shop.happened("dead", 1, reason="refused")
    shop.happened("dead", 3, reason="restored")
    shop.happened("dead", 1, reason="unsure")
    found = shop.json()
    assert found["health"]["could"] == 7
    assert found["answer"]["sentence"] == (
        "1 of 7 orders did not reach AdRoll: 1 that could not be delivered."
    )
    assert "4 are unsure, and may have arrived." in found["answer"]["beside"]
    way = {one["name"]: one["events"] for one in found["way"]}
    assert (way["unsure"], way["dead"], found["reported"]) == (4, 1, 11)
    assert sum(step["dead"] for step in found["steps"]) == 1
    assert {loss["reason"] for loss in found["losses"]} == {"refused", "restored", "unsure"}


# -- numbers as people read them, CSV, and where the marks of a plot stand ------------------------


def test_numbers_and_money() -> None:
    assert count(1234567) == "1,234,567"
    assert money(Decimal("1234.5"), "EUR") == "1,234.50 EUR"
    assert money(Decimal(250_000), "") == "250,000"
    assert decimal(4.25) == "4.2"
    assert [short(number) for number in (0, 1500, 20_000_000)] == ["0", "1.5k", "20M"]
    # Only all is all, and only nothing is nothing.
    told = [percent(share) for share in (0.0, 0.00001, 0.8534, 0.99999, 1.0)]
    assert told == ["0 %", "0.1 %", "85.3 %", "99.9 %", "100 %"]


def drawn(*values: list[float | None], are_lines: bool = False) -> ElementTree.Element:
    """The plot of these series, whose tones are ``one``, ``two`` …"""
    series = [{"name": n, "label": tone, "tone": tone} for n, tone in enumerate(("one", "two"))]
    steps = [*zip(*values, strict=True)]
    names = [str(n) for n in range(len(steps))]
    plot = {"steps": steps, "series": series[: len(values)], "labels": names, "full": names}
    plot["are_lines"] = are_lines
    templates = Environment(loader=PackageLoader("adroll_flask.dashboard"), autoescape=True)
    templates.globals["number"] = figures
    templates.filters["written"] = str  # of times, of which there are none here
    macros: Any = templates.get_template("plots.html").module
    return ElementTree.fromstring(macros.plot(plot, "plot", "A plot", "When", str, str))


def test_bars_stand_on_each_other_below_the_axis_and_one_of_a_million_is_seen() -> None:
    bars = [
        [(part.get("y"), part.get("height")) for part in bucket.findall("rect")[1:]]
        for bucket in drawn([250_000, 0, 800_000], [500_000, 600_000, 1]).iter("g")
    ]
    assert bars == [
        [("150.0", "50.0"), ("50.0", "100.0")],
        [("80.0", "120.0")],
        [("40.0", "160.0"), ("38.5", "1.5")],
    ]


def test_the_axis_ends_a_little_above_the_highest_and_has_four_steps() -> None:
    for size in (1, 4, 5, 7, 13, 99, 101, 960, 3777, 12_345, 10**7):
        plot = {"steps": [{"sent": size}], "series": [{"name": "sent"}], "usual": []}
        assert size <= figures.axis_end(plot) <= max(4, 2.1 * size)
        assert figures.axis_end(plot) % 4 == 0


def test_a_line_has_a_gap_where_nothing_is_known() -> None:
    plot = drawn([0.5, 0.5, None, 1.0, None], are_lines=True)
    line, dots = (path.get("d") for path in plot.iter("path"))
    assert line == "M100.0,100.0L300.0,100.0M700.0,0.0"
    assert dots == "M700.0,0.0h0"


# -- which identifiers events carry, the next step, and how fresh deliveries are ------------------


COOKIE = BITS["first_party_cookie"]


EMAIL = BITS["email_sha256"] | BITS["email_md5"]


def test_shares_are_of_what_was_delivered(shop: Shop) -> None:
    assert "Nothing was delivered in the last week." in shop.html("match-quality")
    assert shop.json("match-quality")["next"] is None
    shop.happened("delivered", 3, identifiers=COOKIE | EMAIL, delay=3.0)
    shop.happened("delivered", 1, identifiers=COOKIE, delay=100.0)
    shop.happened("duplicate", 9, identifiers=EMAIL)
    found = shop.json("match-quality")
    shares = {one["name"]: one["share"] for one in found["identifiers"]}
    assert found["delivered"] == 4
    assert shares["first_party_cookie"] == 1.0
    assert shares["email"] == 0.75
    assert found["mean"] == pytest.approx(1.75)
    assert found["grade"]["sentence"] == (
        "orders carry 1.8 of the 2 identifiers that they could; the e-mail address is missing in"
        " 25 %."
    )
    assert (found["freshness"]["median"], found["freshness"]["most"]) == (5, 300)
    page = shop.html("match-quality")
    assert "half within 5 seconds, 95 % within 5 minutes" in page
    message = page.partition('<pre id="message-text-next"')[2].partition("</pre>")[0]
    for part in ("Say who is logged in", "flask-login.html#who-it-is", "http://localhost"):
        assert part in message


@pytest.mark.parametrize(
    ("masks", "title"),
    [
        ({COOKIE: 10}, "Give the buyer's e-mail address with each order"),
        ({EMAIL: 8, EMAIL | COOKIE: 2}, "Let AdRoll's pixel set its cookie on every page"),
        ({EMAIL | COOKIE: 10}, "Say who is logged in"),
        ({EMAIL | COOKIE | BITS["user_id"]: 9, EMAIL | COOKIE: 1}, "Nothing"),
        ({COOKIE | BITS["user_id"]: 10}, "Give the buyer's e-mail address with each order"),
    ],
)
def test_the_next_step_adds_most(shop: Shop, masks: dict[int, int], title: str) -> None:
    # The span may be long; the advice is by the last week.
    shop.happened("delivered", 100, identifiers=BITS["user_id"], ago=20 * DAY, delay=1.0)
    for mask, events in masks.items():
        shop.happened("delivered", events, identifiers=mask, delay=1.0)
    assert shop.json("match-quality")["next"]["title"].startswith(title)
    page = shop.html("match-quality").replace("&#39;", "'")
    assert title in page
    assert ("from 2 to 3 identifiers" in page) == ([*masks] == [COOKIE | BITS["user_id"]])
    link = shop.json("match-quality")["next"]["link"]
    if title != "Nothing":
        path, _, part = link.removeprefix(DOCS_URL).partition("#")
        page = (ROOT / "docs" / path).with_suffix(".md").read_text().lower()
        heads = re.findall(r"^##+ (.+)$", page, re.MULTILINE)
        assert part in {re.sub(r"\W+", "-", head).strip("-") for head in heads}


def test_a_step_without_events_has_no_share(shop: Shop) -> None:
    shop.happened("delivered", 200, identifiers=COOKIE, ago=2 * DAY, delay=1.0)
    steps = shop.json("match-quality", period="days")["steps"]
    told = [step["shares"]["first_party_cookie"] for step in steps]
    assert told[-3:] == [1.0, None, None]


def test_few_events_are_shown_by_weeks_since_days_are_noise(shop: Shop) -> None:
    for days in range(14):
        shop.happened("delivered", 3, identifiers=COOKIE, ago=days * DAY, delay=1.0)
    found = shop.json("match-quality", period="month")
    assert found["step"] == "week"
    assert sum(step["events"] for step in found["steps"]) == found["delivered"] == 42
