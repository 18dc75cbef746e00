"""The first page: its sentence, the way to AdRoll in figures, and each loss with its reason."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest
from jinja2 import Environment, PackageLoader

from adroll_flask import report_conversion
from adroll_flask._version import DOCS_URL
from adroll_flask.dashboard import formats
from adroll_flask.dashboard.formats import count, decimal, money, percent, short
from adroll_flask.events.names import BITS
from adroll_flask.findings.finding import MEANINGS
from tests.conftest import Patch
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


def test_the_currency_of_most_orders_comes_first(shop: Shop) -> None:
    shop.happened("delivered", value="1500 JPY")
    shop.happened("delivered", 8, value="25 EUR")
    [delivered] = [one for one in shop.json()["way"] if one["name"] == "delivered"]
    assert delivered["values"] == [["EUR", "200"], ["JPY", "1500"]]


def test_each_loss_has_a_reason_and_who_can_change_it(shop: Shop) -> None:
    """What is open is told first."""
    shop.happened("suppressed", 90, reason="consent_refused")
    shop.happened("suppressed", 20, reason="consent_unknown")
    shop.report("1001", currency="EURO")
    shop.report("1002", currency="EURO")
    shop.bury("1003")
    shop.happened("delivered", 40, delay=1.0)
    losses = shop.json()["losses"]
    assert all(loss["title"] and loss["advice"] for loss in losses)
    assert losses[0]["title"] == "The shop reported a wrong currency"
    reasons = [loss["reason"] for loss in losses]
    assert reasons == ["invalid:currency", "refused", "consent_unknown", "consent_refused"]
    assert shop.html().count("do this first") == 1


def test_headline_circle_and_table_count_the_same_of_one_span(shop: Shop) -> None:
    """All 109 had arrived, nobody had to do anything, and 29 of 138 had not arrived."""
    shop.happened("delivered", 109, delay=1.0, value="10 EUR")
    shop.happened("suppressed", 29, reason="consent_unknown")
    shop.happened("delivered", 500, delay=1.0, ago=20 * DAY)
    found, page = shop.json(), shop.html()
    assert found["verdict"]["sentence"] == "Yes. All 109 orders reached AdRoll."
    assert (found["health"]["delivered"], found["health"]["could"]) == (109, 109)
    said = "29 are not to be reported: the visitor or the site said no."
    assert said in found["answer"]["beside"]
    assert found["way"][-1]["events"] == 109
    assert "do this first" not in page
    assert "Nobody has to do anything" in page
    assert ">of 109 orders</text>" in page
    month = shop.json(since="2026-11-01")
    assert month["verdict"]["sentence"] == "Yes. All 609 orders reached AdRoll."


def test_what_was_refused_and_is_over_asks_for_nothing(shop: Shop) -> None:
    shop.happened("delivered", 106, delay=1.0)
    shop.bury("1001", "1002", "1003")
    assert shop.json()["verdict"]["level"] == "bad"
    page = shop.html()
    assert "do this first" in page
    assert "In the time that this page shows: <b>106 of 109 orders reached AdRoll; 3 could" in page
    shop.press("problems/drop", **shop.open_problem(), sure="yes")
    found, page = shop.json(), shop.html()
    assert found["verdict"]["level"] == "good"
    assert found["verdict"]["sentence"] == (
        "Nothing is open now. 106 of 109 orders reached AdRoll; 3 could not be delivered."
    )
    [loss] = [one for one in found["losses"] if one["way"] == "dead"]
    assert (loss["events"], loss["is_open"], loss["who"]) == (3, False, "")
    assert "it is over" in loss["advice"]
    assert "do this first" not in page
    assert "Nobody has to do anything" in page


def test_nothing_is_over_while_not_all_dead_letters_are_looked_at(
    shop: Shop, monkeypatch: Patch
) -> None:
    """Behind 2,000 newer ones it waited for a decision, and "it is over" said the page."""
    for module in ("findings.rules", "dashboard.overview"):
        monkeypatch.setattr(f"adroll_flask.{module}.MOST_DEAD", 2)
    shop.bury("1001")
    shop.now += 1
    shop.bury("1002", "1003", reason="too_old")
    [loss] = [one for one in shop.json()["losses"] if one["reason"] == "refused"]
    assert "it is over" not in loss["advice"]


def test_how_many_orders_did_not_arrive_is_a_sentence(shop: Shop) -> None:
    """A repeated report is no order of its own, and what is not paid is not missing."""
    assert shop.json()["answer"]["sentence"] == "No event of this time was to reach AdRoll."
    shop.happened("delivered", delay=1.0)
    assert shop.json()["answer"]["sentence"] == "The one order reached AdRoll."
    shop.happened("delivered", 1739, delay=1.0)
    shop.happened("suppressed", 195, reason="consent_refused")
    shop.happened("dead", 3, reason="refused")
    shop.happened("duplicate", 11)
    shop.happened("cancelled", 1, reason="cancelled")
    found = shop.json()
    assert (found["health"]["delivered"], found["health"]["could"]) == (1740, 1743)
    assert found["answer"]["sentence"] == (
        "1,740 of 1,743 orders reached AdRoll; 3 could not be delivered."
    )
    assert found["answer"]["beside"] == (
        "195 are not to be reported: the visitor or the site said no. 1 was cancelled, or held and"
        " never released. 11 are reloads or retries and count once."
    )
    assert {loss["reason"] for loss in found["losses"]} == {
        "consent_refused",
        "refused",
        "cancelled",
    }


def test_not_all_have_reached_adroll_while_one_is_on_the_way(shop: Shop) -> None:
    """All 14 orders reached AdRoll, the page said, and two more waited."""
    shop.report("1001")
    assert shop.json()["answer"]["sentence"] == (
        "No order is known to have reached AdRoll: 1 is on the way."
    )
    shop.happened("delivered", 14, delay=1.0)
    assert shop.json()["verdict"]["sentence"] == (
        "Yes. 14 orders reached AdRoll, and 1 is on the way."
    )
    shop.happened("dead", 2, reason="unsure")
    assert shop.json()["answer"]["sentence"] == (
        "14 orders reached AdRoll, 1 is on the way, and 2 may have arrived."
    )


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
    assert (found["reported"], found["apart"]["dry_run"], found["held"]["events"]) == (9, 540, 0)
    assert found["health"]["share"] == 1.0
    assert [(step["delivered"], step["open"]) for step in found["steps"]][-1] == (9, 0)
    assert "Not in these figures: 540 dry runs." in shop.html()


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
    assert "The page shows 7 days instead" in text


def test_what_is_held_is_told_apart_and_of_the_span(shop: Shop) -> None:
    shop.happened("delivered", 4, delay=1.0)
    with shop.app.test_request_context("/?adct=click", environ_base={"REMOTE_ADDR": "203.0.113.7"}):
        report_conversion(order_id="1", value="12.50", currency="EUR", hold=True)
    found = shop.json()
    assert (found["held"]["events"], found["held"]["values"]) == (1, [["EUR", "12.5"]])
    assert found["reported"] == 4
    assert "1 is held until the shop says that it is paid (12.50 EUR)" in shop.html()
    assert shop.json(period="last-month")["held"]["events"] == 0


def test_what_is_usual_is_known_after_three_weeks(shop: Shop) -> None:
    usual: list[bool] = []
    for week, number in enumerate((38, 36, 40, 44, 41)):
        shop.happened("delivered", number, ago=week * 7 * DAY + 6 * HOUR, delay=1.0)
        steps = shop.json(period="today")["steps"]
        usual.append(any(step["usual"] is not None for step in steps))
    assert usual == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("period", "labels"),
    [
        (
            "today",
            {
                "yesterday until 15:00": (20, ["EUR", "200", 0.5]),
                "the same weekday 1 week before until 15:00": (40, ["EUR", "400", -0.25]),
            },
        ),
        (
            "yesterday",
            {
                "the day before": (10, ["EUR", "100", 5.0]),
                "the same weekday 1 week before": (30, ["EUR", "300", 1.0]),
            },
        ),
        ("days", {"the 7 days before until 18 Nov, 15:00": (70, ["EUR", "700", 5 / 7])}),
    ],
)
def test_money_and_orders_stand_beside_the_time_before(
    shop: Shop, period: str, labels: dict[str, Any]
) -> None:
    """It is 15:03; what happened at 20:00 is of the day, and not of its part until now."""
    shop.happened("delivered", 30, value="10 EUR", ago=3 * HOUR, delay=1.0)
    shop.happened("delivered", 20, value="10 EUR", ago=DAY + 3 * HOUR, delay=1.0)
    shop.happened("delivered", 40, value="10 EUR", ago=19 * HOUR, delay=1.0)
    shop.happened("delivered", 10, value="10 EUR", ago=2 * DAY + 3 * HOUR, delay=1.0)
    shop.happened("delivered", 20, value="10 EUR", ago=6 * DAY + 3 * HOUR, delay=1.0)
    shop.happened("delivered", 40, value="10 EUR", ago=7 * DAY + 3 * HOUR, delay=1.0)
    shop.happened("delivered", 30, value="10 EUR", ago=8 * DAY + 3 * HOUR, delay=1.0)
    if period == "days":
        assert shop.json()["beside"] == [], "the time before is not known whole"
    shop.happened("delivered", 1, ago=16 * DAY, delay=1.0)
    beside = shop.json(period=period)["beside"]
    assert {one["label"]: (one["events"], *one["values"]) for one in beside} == {
        label: (events, [currency, value, None if change is None else pytest.approx(change)])
        for label, (events, (currency, value, change)) in labels.items()
    }
    page = shop.html(period=period)
    for label in labels:
        assert page.count(f">{label}:</span>") == 2, "of money and of orders"


def test_a_running_hour_is_compared_with_no_part_of_another(shop: Shop) -> None:
    """At 15:03 a twentieth of yesterday's next hour was counted, to the cent."""
    shop.happened("delivered", ago=16 * DAY, delay=1.0)
    shop.happened("delivered", 30, value="10.01 EUR", ago=HOUR, delay=1.0)
    shop.happened("delivered", 5, value="10 EUR", delay=1.0)
    shop.happened("delivered", 20, value="10.01 EUR", ago=DAY + HOUR, delay=1.0)
    shop.happened("delivered", 7, value="10 EUR", ago=DAY, delay=1.0)
    found = shop.json(period="today")
    assert found["way"][-1]["events"] == 35
    beside = {one["label"]: one for one in found["beside"]}
    today = beside["of these until 15:00"]
    assert (today["events"], today["values"]) == (30, [["EUR", "300.3", None]])
    yesterday = beside["yesterday until 15:00"]
    assert (yesterday["events"], yesterday["change"]) == (20, 0.5)
    assert yesterday["values"] == [["EUR", "200.2", 0.5]]
    shop.now -= 15 * HOUR  # three minutes past midnight
    assert shop.json(period="today")["beside"] == [], "no hour of the day is over"


@pytest.mark.parametrize(
    ("day", "until"), [(1, "1 Nov, 10:00"), (20, "20 Nov, 10:00"), (31, "1 Dec, 00:00")]
)
def test_this_month_stands_beside_last_month_on_any_day(shop: Shop, day: int, until: str) -> None:
    """On the first of a month, too. October had orders each day, and November."""
    shop.now = datetime(2026, 12, day, 10, 0, tzinfo=UTC).timestamp()
    for ago in range(110):
        shop.happened("delivered", 2, value="5 EUR", ago=ago * DAY + HOUR, delay=1.0)
    found = shop.json(period="month")
    month = {one["label"]: one for one in found["beside"]}
    assert found["way"][-1]["events"] == 2 * day
    assert month[f"last month until {until}"]["events"] == 2 * min(day, 30)
    before = shop.json(period="last-month")["beside"]
    assert [(one["label"], one["events"]) for one in before] == [
        ("the month before", 62),
        ("the same weekdays 5 weeks before", 60),
    ]
    shop.happened("delivered", 8, ago=DAY, delay=1.0)
    assert shop.json(period="yesterday")["way"][-1]["events"] == 10


def test_orders_with_a_click_id_are_counted_with_their_money(shop: Shop) -> None:
    click = BITS["adct"] | BITS["email_sha256"]
    shop.happened("delivered", 41, identifiers=click, value="10 EUR", delay=1.0)
    shop.happened("delivered", 68, identifiers=BITS["email_sha256"], value="9 EUR", delay=1.0)
    shop.happened("dead", 5, identifiers=click, reason="refused")
    shop.happened("delivered", 7, identifiers=click, name="addToCart", delay=1.0)
    clicked = shop.json()["clicked"]
    assert (clicked["events"], clicked["values"]) == (41, [["EUR", "410"]])
    tile = shop.html().partition('id="clicked-title"')[2].partition("</section>")[0]
    for said in (
        "<span>41</span> <small>of 109</small>",
        "410.00 EUR",
        "orders?carries=adct",
        "of all time",
    ):
        assert said in tile


def test_who_may_only_look_has_a_message_and_no_setting(new_shop: Callable[..., Shop]) -> None:
    shop = new_shop(ADROLL_ACCESS_TOKEN=None)
    shop.may_act = False
    before, _, message = shop.html().partition('<pre id="message-text-verdict"')
    assert "ADROLL_ACCESS_TOKEN" not in before
    for part in (
        "ADROLL_ACCESS_TOKEN",
        "explain account-missing",
        "http://localhost/adroll-dashboard/",
    ):
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
    assert "Nothing may be sent: in many places the law says so." in table
    assert "A developer of the shop can change it." in table


def test_a_time_of_which_most_was_sent_late_is_told(shop: Shop) -> None:
    shop.happened("delivered", 18, ago=3 * DAY, delay=3 * HOUR)
    shop.happened("delivered", 2, ago=2 * DAY, delay=3 * HOUR)
    steps = shop.json(period="days")["steps"]
    assert [step["shade"] for step in steps] == ["", "", "", "late", "", "", ""]
    page = shop.html(period="days")
    assert page.count('class="place late"') == 1
    told = (
        r">.* Nov 2026, 00:00 to .*, 00:00: 18 events of that time were sent an hour or "
        r"more later. AdRoll took nothing, or nobody delivered for a time, or the shop "
    )
    assert re.search(told, page)


def test_the_answer_about_orders_is_no_no_where_another_event_stays_away(shop: Shop) -> None:
    assert shop.json("problems")["watched"] == []
    for hours in range(100, 35 * 24, 6):
        shop.happened("delivered", ago=hours * HOUR, delay=1.0, name="formFill")
    found = shop.json()
    assert found["verdict"]["code"] == "reports-silent"
    assert found["verdict"]["sentence"].startswith("Look at this: No formFill event since ")
    assert "order" not in found["findings"][0]["todo"], "nobody finds by one why no form is told"
    [watched] = shop.json("problems")["watched"]
    assert (watched["name"], watched["longest_pause"]) == ("formFill", 6 * HOUR)
    assert "Longest pause in 13 weeks" in shop.html("problems")


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_todays_bar_has_what_waits_and_is_held(new_shop: Callable[..., Shop], zone: str) -> None:
    shop = new_shop(ADROLL_TIME_ZONE=zone)
    for order in ("1001", "1002", "1003"):
        shop.report(order)
    shop.settle(o1001=DELIVERED, o1002={"kind": "dead", "reason": "unsure"})
    shop.report("1004", hold=True)
    found = shop.json(period="days")
    bar = found["steps"][-1]
    assert (bar["delivered"], bar["open"]) == (1, 3)
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
    """A hold of 23:40 stood in the next day's bar."""
    shop = new_shop(ADROLL_TIME_ZONE=zone)
    today = datetime.fromtimestamp(shop.now, ZoneInfo(zone)).replace(hour=0, minute=0, second=0)
    for order, minutes in (("yesterday", -20), ("first", 5), ("second", 10), ("third", 70)):
        shop.now = today.timestamp() + minutes * 60
        shop.report(order, hold=True)
    found = shop.json(period="days")
    assert [step["open"] for step in found["steps"]][-2:] == [1, 3]
    day = f"{today:%Y-%m-%d}"
    assert sum(step["open"] for step in shop.json(since=day, until=day)["steps"]) == 3


def test_what_may_have_arrived_is_no_loss(shop: Shop) -> None:
    """After damage of the outbox, events that AdRoll had were told as not delivered."""
    shop.happened("delivered", 6, delay=1.0)
    shop.happened("dead", 1, reason="refused")
    shop.happened("dead", 3, reason="restored")
    shop.happened("dead", 1, reason="unsure")
    found = shop.json()
    assert found["answer"]["sentence"] == "6 of 7 orders reached AdRoll; 1 could not be delivered."
    assert "4 may have arrived; nobody knows." in found["answer"]["beside"]
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
    templates.globals["number"] = formats
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
        assert size <= formats.axis_end(plot) <= max(4, 2.1 * size)
        assert formats.axis_end(plot) % 4 == 0


def test_an_axis_has_twelve_labels_at_most_and_five_on_a_phone() -> None:
    for steps, wide, on_a_phone in ((5, 5, 5), (12, 12, 4), (24, 12, 4), (28, 10, 5)):
        classes = [text.get("class") for text in drawn([1.0] * steps).iter("text")]
        assert classes.count("major") == on_a_phone
        assert classes.count("major") + classes.count("minor") == wide


def test_a_line_has_a_gap_where_nothing_is_known() -> None:
    plot = drawn([0.5, 0.5, None, 1.0, None], are_lines=True)
    line, dots = (path.get("d") for path in plot.iter("path"))
    assert line == "M100.0,100.0L300.0,100.0M700.0,0.0"
    assert dots == "M700.0,0.0h0"


# -- which identifiers events carry, the next step, and how fresh deliveries are ------------------


COOKIE = BITS["first_party_cookie"]


EMAIL = BITS["email_sha256"] | BITS["email_md5"]


def test_shares_are_of_what_was_delivered(shop: Shop) -> None:
    assert "Nothing was delivered in this time." in shop.html("match-quality")
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
        "orders carry 1.8 of the 2 identifiers that they could; the e-mail is missing in 25 %."
    )
    assert (found["freshness"]["median"], found["freshness"]["most"]) == (5, 300)
    page = shop.html("match-quality")
    assert "half within 5 seconds, 95 % within 5 minutes" in page
    head, *lines = shop.html("match-quality.csv").splitlines()
    assert head == "event,delivered,identifier,share"
    assert "purchase,4,email,0.7500" in lines
    message = page.partition('<pre id="message-text-next"')[2].partition("</pre>")[0]
    for part in ("Say who is logged in", "docs/how-to/flask-login.md", "http://localhost"):
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
    # The advice is by the span that the page shows, as all of it.
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
    assert found["steps"][1]["at"] - found["steps"][0]["at"] == 7 * DAY
