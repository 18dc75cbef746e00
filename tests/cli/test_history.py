"""``flask adroll history``, ``outbox find`` and the filters of ``outbox list``."""

import json
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask

from adroll_flask.cli.console import since_when
from tests.cli.conftest import DELIVERED, Run
from tests.conftest import AppMaker
from tests.support.visits import invoke, report, settle

# -- history -------------------------------------------------------------------------------


def test_history_shows_a_day_with_values_and_how_long_it_took(shop: Flask, run: Run) -> None:
    heading, day = run("history").output.splitlines()
    assert heading.split("  ")[0] == "day"
    assert heading.split()[1:4] == ["delivered", "dead", "suppressed"]
    assert day.split()[1:4] == ["1", "1", "1"]
    assert "median" in heading
    assert "<" in day
    assert day.endswith("59.90 EUR")


def test_history_by_reason_and_by_identifier(shop: Flask, run: Run) -> None:
    lines = [line.split() for line in run("history", "--by", "reason").output.splitlines()]
    assert lines[0][:4] == ["reason", "delivered", "dead", "suppressed"]
    assert ["refused", "0", "1", "0"] in lines
    assert ["consent_gpc", "0", "0", "1"] in lines
    lines = [line.split() for line in run("history", "--by", "event").output.splitlines()]
    assert lines[1][:4] == ["purchase", "1", "1", "1"]
    told = run("history", "--by", "identifier").output.splitlines()
    assert any(line.startswith("adct ") and line.endswith("59.90 EUR") for line in told)


def test_days_and_hours_are_those_of_the_shops_zone(make_app: AppMaker) -> None:
    zone = ZoneInfo("Pacific/Kiritimati")  # fourteen hours before UTC
    app = make_app(ADROLL_TIME_ZONE="Pacific/Kiritimati")
    report(app, "1001")
    settle(app, o1001=DELIVERED)
    at = app.extensions["adroll"].outbox.lookups.list()[0].occurred_at
    local = datetime.fromtimestamp(at, zone)

    def told(*arguments: str) -> Any:
        return json.loads(invoke(app, "history", *arguments).output)

    [day] = told("--json")
    assert (day["day"], day["events"], float(day["value"])) == (f"{local:%Y-%m-%d}", 1, 59.9)
    [hour] = told("--by", "hour", "--json")
    assert hour["hour"] == f"{local:%Y-%m-%d %H:00}"
    assert told("--since", f"{local:%Y-%m-%d}", "--json") == [day]


def test_a_span_that_is_none_is_refused(run: Run) -> None:
    assert "7d" in run("history", "--since", "soon", code=2).output
    assert since_when("7d", 8 * 86_400) == 86_400
    assert since_when("1970-01-02", 0) == 86_400


# -- find ----------------------------------------------------------------------------------


def test_find_tells_an_orders_life_without_the_visitors_values(shop: Flask, run: Run) -> None:
    result = run("outbox", "find", "1002", code=0)
    words = ["happened", "reported", "attempt, http_400", "dead letter: refused", "carried"]
    places = [result.output.index(word) for word in words]
    assert places == sorted(places)
    assert "no such product" in result.output
    assert "click123" not in result.output
    assert "203.0.113.7" not in result.output


def test_find_says_why_an_order_was_not_reported(shop: Flask, run: Run) -> None:
    assert "suppressed: consent_gpc" in run("outbox", "find", "#1004").output
    report(shop, "1005", value="free of charge")
    assert "dead letter: invalid:value" in run("outbox", "find", "1005").output
    assert "unknown here" in run("outbox", "find", "9999", code=1).output


@pytest.mark.parametrize("typed", ["1003", " 1003 ", "#1003", "Order 1003", "Order #1003"])
def test_find_reads_an_id_as_people_write_it(shop: Flask, run: Run, typed: str) -> None:
    assert run("outbox", "find", typed, code=0).output.startswith("purchase ")


# -- list ----------------------------------------------------------------------------------


def test_a_list_may_begin_with_the_newest(shop: Flask, run: Run) -> None:
    lines = run("outbox", "list", "--newest").output.splitlines()
    end = lines[0].index(" key") + len(" key")
    assert [line[:end].split()[-1] for line in lines] == ["key", "1003", "1002", "1001"]
