"""``flask adroll history``, ``outbox find`` and the filters of ``outbox list``."""

import json
import re
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask

from adroll_flask.cli.commands import commands
from tests.cli.conftest import DELIVERED, Run
from tests.conftest import AppMaker
from tests.support.visits import invoke, report, settle

# -- history -------------------------------------------------------------------------------


def test_history_shows_a_day_with_values_and_how_long_it_took(shop: Flask, run: Run) -> None:
    heading, day = run("history").output.splitlines()
    assert heading.split("  ")[0] == "day"
    assert heading.split()[1:4] == ["delivered", "dead", "suppressed"]
    assert day.split()[1:4] == ["1", "1", "1"]
    assert day.endswith("59.90 EUR")
    [delivered] = [row for row in json.loads(run("history", "--json").output) if any(row["delays"])]
    assert (delivered["outcome"], delivered["events"]) == ("delivered", 1)
    assert float(delivered["value"]) == 59.9
    assert 1 <= delivered["median_seconds"] <= delivered["p95_seconds"]


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


def test_a_span_that_is_none_is_refused(shop: Flask, run: Run) -> None:
    assert "7d" in run("history", "--since", "soon", code=2).output
    assert len(run("history", "--since", "1970-01-02").output.splitlines()) == 2


# -- find ----------------------------------------------------------------------------------


def test_find_tells_an_orders_life_without_the_visitors_values(shop: Flask, run: Run) -> None:
    result = run("outbox", "find", "1002", code=0)
    refused = "Given up: AdRoll refused what the event says: http_400: "
    words = ["Happened", "Reported", "AdRoll was asked, http_400", refused, "carried"]
    places = [result.output.index(word) for word in words]
    assert places == sorted(places)
    assert "no such product" in result.output
    assert "click123" not in result.output
    assert "203.0.113.7" not in result.output


def test_what_the_output_s_encoding_lacks_is_written_in_another_way(app: Flask) -> None:
    """A file on Windows and a terminal in Latin-1 have few letters."""
    report(app, "zamówienie-ł")
    result = app.test_cli_runner(charset="latin-1").invoke(commands, ["outbox", "list"])
    assert result.exit_code == 0, result.exception
    assert "zamówienie-\\u0142" in result.output


def test_find_says_why_an_order_was_not_reported(shop: Flask, run: Run) -> None:
    """It printed codes."""
    said = "suppressed: The visitor's browser says no for all sites (Global Privacy Control)"
    assert said in run("outbox", "find", "#1004").output
    [of_programs] = json.loads(run("outbox", "find", "1004", "--json").output)["suppressed"]
    assert of_programs.endswith("  suppressed: consent_gpc")
    report(shop, "1005", value="free of charge")
    said = "Given up: The shop reported a wrong value: takes"
    assert said in run("outbox", "find", "1005").output
    [of_programs] = json.loads(run("outbox", "find", "1005", "--json").output)["events"]
    assert of_programs["reason"] == "invalid:value"
    assert "unknown here" in run("outbox", "find", "9999", code=1).output


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("01003", "1003"),
        ("1003-A", "1003"),
        ("#WC-1003", "1003"),
        ("77", "0077"),
        ("79", "2026-79"),
        ("88", "Invoice 88/B"),
        ("inv-88", "Invoice 88/B"),
        ("abcdex", "abcdef"),
        ("1004", ""),  # a visitor's no: it is known
        ("1000", ""),
        ("103", ""),
        ("10030", ""),
        ("2026-78", ""),
    ],
)
def test_find_offers_only_an_order_that_can_have_been_meant(
    shop: Flask, run: Run, typed: str, meant: str
) -> None:
    """Of a number it offered numbers of other orders, which say nothing of it."""
    for order in ("0077", "Invoice 88/B", "abcdef", "2026-79"):
        report(shop, order)
    result = run("outbox", "find", typed)
    offered = re.findall(r"Did you mean (.*)\?", result.output)
    assert offered == ([meant] if meant else [])
    of_programs = json.loads(run("outbox", "find", typed, "--json").output)
    assert of_programs.get("alike", []) == offered


@pytest.mark.parametrize("typed", ["1003", " 1003 ", "#1003", "Order 1003", "Order #1003"])
def test_find_reads_an_id_as_people_write_it(shop: Flask, run: Run, typed: str) -> None:
    told = run("outbox", "find", typed, code=0).output
    assert told.startswith("purchase ")
    assert [line for line in told.splitlines() if not line.strip()] == []


# -- list ----------------------------------------------------------------------------------


def test_a_list_says_why_in_words(shop: Flask, run: Run) -> None:
    """The codes are for programs: --json has them."""
    settle(shop, o1003={"kind": "retry", "error": "connect_timeout", "delay": 60.0})
    report(shop, "1005", hold=True)
    run("outbox", "cancel", "1005", code=0)
    rows = {row["key"]: row for row in json.loads(run("outbox", "list", "--json").output)}
    listed = run("outbox", "list").output
    for order, says, error, reason in (
        ("1003", "AdRoll's server did not answer in time. Nothing was sent", "connect_timeout", ""),
        ("1002", "AdRoll refused what the event says: http_400: ", "http_400: ", "refused"),
        ("1005", "The shop took it back", "", "cancelled"),
    ):
        assert f"  {says}" in next(line for line in listed.splitlines() if order in line)
        assert (rows[order]["error"][: len(error)], rows[order]["reason"]) == (error, reason)


def test_a_list_may_begin_with_the_newest(shop: Flask, run: Run) -> None:
    lines = run("outbox", "list", "--newest").output.splitlines()
    end = lines[0].index(" key") + len(" key")
    assert [line[:end].split()[-1] for line in lines] == ["key", "1003", "1002", "1001"]
