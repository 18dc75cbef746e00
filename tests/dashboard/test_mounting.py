"""The dashboard in an app: who may look, what its responses say, and what they leave alone."""

import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from zoneinfo import ZoneInfo

import pytest
from flask import Flask, abort, redirect
from flask.testing import FlaskClient

from adroll_flask import AdRoll, AdRollMiddleware, ConfigurationError
from adroll_flask.cli.commands import commands, local_app
from adroll_flask.dashboard import mounting
from adroll_flask.dashboard.periods import PERIODS
from demo_app import create_app, lately
from tests.conftest import AppMaker
from tests.support import visits
from tests.support.dashboard_shop import WHERE, DashboardShop

from .conftest import DAY, HOUR, Shop


@pytest.fixture
def mounted(make_app: AppMaker) -> Callable[..., FlaskClient]:
    """Makes an app with a dashboard; returns its client."""

    def make(access: Any = lambda: True, **options: Any) -> FlaskClient:
        adroll = AdRoll()
        app = make_app(adroll, **options.pop("config", {}))
        adroll.dashboard(app, access=access, **options)
        return app.test_client()

    return make


def test_what_cannot_be_mounted_says_why(make_app: AppMaker) -> None:
    adroll = AdRoll()
    app = make_app(adroll)
    for nobody in (None, True, "staff"):
        with pytest.raises(ConfigurationError, match="access= has to be a function"):
            adroll.dashboard(app, access=nobody)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="dashboard: this app has no AdRoll; call"):
        adroll.dashboard(Flask("another"), access=lambda: True)
    with Flask("another").app_context():
        for call, ask in (
            ("reconcile", lambda: adroll.reconcile([])),
            ("counters", adroll.counters),
        ):
            with pytest.raises(ConfigurationError, match=f"{call}: this app has no AdRoll; call"):
                ask()
    assert app.test_client().get(WHERE).status_code == 404
    another = make_app(adroll)
    adroll.dashboard(another, access=lambda: True)
    with pytest.raises(ConfigurationError, match="already"):
        adroll.dashboard(another, access=lambda: True, url_prefix="/another")


def test_an_app_of_several_hosts_has_it_at_each(tmp_path: Path) -> None:
    app = Flask("shop", static_folder=None, host_matching=True, instance_path=str(tmp_path))
    app.config.update(SECRET_KEY="a key for tests", ADROLL_DELIVERY="worker")
    AdRoll(app).dashboard(app, access=lambda: True)
    client = app.test_client()
    for host in ("http://a.test", "http://b.test:8000"):
        addresses = re.findall(r'(?:href|src)="(/[^"]+)"', client.get(WHERE, base_url=host).text)
        assert len(addresses) > 5
        for address in addresses:
            with client.get(address, base_url=host) as answer:
                assert answer.status_code == 200, address


def test_access_is_asked_at_each_request(mounted: Callable[..., FlaskClient]) -> None:
    answers: list[Any] = [True, False, None, redirect("/login")]
    client = mounted(lambda: answers.pop(0))
    assert client.get(WHERE).status_code == 200
    assert client.get(WHERE).status_code == 403
    assert client.get(f"{WHERE}overview.json").status_code == 403
    to_login = client.get(WHERE)
    assert (to_login.status_code, to_login.location) == (302, "/login")


async def _later() -> bool:
    return True


def test_what_only_looks_like_a_yes_is_none(mounted: Callable[..., FlaskClient]) -> None:
    """``access=lambda: user.is_staff``, where ``is_staff`` is a method that was to be called."""
    answers = {"function": lambda: _later, "coroutine": _later, "str": lambda: "no"}
    for kind, access in {**answers, "object": object}.items():
        page = mounted(access).get(WHERE)
        assert page.status_code == 403
        assert f"it gave a {kind}" in page.text
    assert mounted(lambda: abort(401)).get(WHERE).status_code == 401


def test_an_error_of_the_site_is_not_the_outbox_s(mounted: Callable[..., FlaskClient]) -> None:
    fails = Mock(side_effect=ConfigurationError("ADROLL_CONSENT", "is the site's"))
    with pytest.raises(ConfigurationError, match="is the site's"):
        mounted(fails).get(WHERE)


def test_a_page_allows_its_own_files_alone(mounted: Callable[..., FlaskClient]) -> None:
    """No tag, no cookie: who looks at the dashboard is no visitor."""
    answer = mounted().get(f"{WHERE}?adct=click123")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert answer.headers["X-Robots-Tag"] == "noindex"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    text = answer.text.replace("http://localhost", "")
    for unwanted in ("style=", "<style", "<script>", "http://", "data-adroll"):
        assert unwanted not in text


def test_files_are_kept_by_the_browser(mounted: Callable[..., FlaskClient]) -> None:
    client = mounted()
    for name, kind in (("dashboard.css", "css"), ("dashboard.js", "javascript")):
        address = f"{WHERE}assets/{name}"
        answer = client.get(address, buffered=True)
        assert kind in answer.headers["Content-Type"]
        known = {"If-None-Match": answer.headers["ETag"]}
        assert client.get(address, headers=known, buffered=True).status_code == 304
    assert client.get(f"{WHERE}assets/layout.html").status_code == 404


def test_each_page_is_json_and_csv_too(mounted: Callable[..., FlaskClient]) -> None:
    client = mounted()
    answer = client.get(f"{WHERE}overview.json")
    assert json.loads(answer.data)["period"] == "days"
    answer = client.get(f"{WHERE}overview.csv")
    assert answer.mimetype == "text/csv"
    assert 'filename="adroll-overview.csv"' in answer.headers["Content-Disposition"]
    assert answer.text.startswith("event,became,reason")


def test_it_is_where_the_site_wants_it(mounted: Callable[..., FlaskClient]) -> None:
    client = mounted(url_prefix="/staff/adroll/")
    assert 'href="/staff/adroll/assets/dashboard.css' in client.get("/staff/adroll/").text
    assert client.get(WHERE).status_code == 404


# -- no page counts the outbox: each question to it walks an index, or ends at a number of rows ---


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What any SQLite database is asked from now on."""
    found: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(found.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return found


def test_no_page_reads_all_of_the_outbox(asked: list[str], make_app: AppMaker) -> None:
    shop = DashboardShop(make_app)
    shop.deliver("1001")
    shop.bury("1002", "1003")
    shop.report("1004", hold=True)
    shop.report("1005", currency="EURO")
    asked.clear()
    for place, page in enumerate(mounting.PAGES):
        for path in (page.name if place else "", f"{page.name}.json", f"{page.name}.csv"):
            shop.html(path)
    shop.html("problems", problem=shop.json("problems")["open"][0]["id"])
    shop.html("orders", event=shop.json("orders")["newest"][0]["id"])
    for order in ("1002", "1005", "no order"):
        shop.post("orders/find", order=order)
    questions = {one for one in asked if one.startswith("SELECT") and "adroll_event" in one}
    assert len(questions) > 8
    with closing(sqlite3.connect(shop.runtime.outbox.place)) as outbox:
        for question in questions:
            for *_, step in outbox.execute(f"EXPLAIN QUERY PLAN {question}"):
                scans = step.startswith(("SCAN adroll_event", "SCAN e "))
                assert not scans or "LIMIT" in question, f"{question}: {step}"


# -- both ends of summer time, days of 23 and 25 hours, and a leap second, in the shop's zone -----


BERLIN = ZoneInfo("Europe/Berlin")


#: Times, Berlin's, about Sundays on which clocks change: that day, amid the gap or in the hour
#: that comes twice, and the night after.
CHANGES: tuple[str, ...] = ("2026-03-29T12:00", "2026-03-29T03:30", "2026-03-30T00:30")
CHANGES += ("2026-10-25T12:00", "2026-10-25T02:30", "2026-10-26T00:30")


NewShop = Callable[..., Shop]


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def each_hour(shop: Shop, hours: int) -> None:
    for ago in range(hours):
        shop.happened("delivered", ago=ago * HOUR, delay=1.0)


def history(shop: Shop, *arguments: str) -> list[dict[str, Any]]:
    said = visits.invoke(shop.app, "history", "--json", *arguments)
    assert said.exit_code == 0, said.output
    found: list[dict[str, Any]] = json.loads(said.output)
    return found


@pytest.mark.parametrize("when", CHANGES)
def test_24_hours_are_24_and_every_step_has_its_events_once(new_shop: NewShop, when: str) -> None:
    shop = new_shop(ADROLL_TIME_ZONE="Europe/Berlin")
    shop.now = at(when) + 60
    each_hour(shop, 24 * 16)
    steps = shop.json(period="day")["steps"]
    begins = [step["at"] for step in steps]
    assert len(set(begins)) == len(begins) == 24
    assert {later - begin for begin, later in pairwise(begins)} == {3600}
    assert [step["delivered"] for step in steps] == [1] * 24
    hours = [shop.now - ago * HOUR for ago in range(24 * 16)]
    for period in ("day", "days", "week", "last-week", "month", "last-month", "year"):
        found = shop.json(period=period)
        begin, end = found["begin"], found["end"]
        inside = sum(begin <= hour - hour % 3600 < end for hour in hours)
        assert sum(step["delivered"] for step in found["steps"]) == inside, period
        assert found["reported"] == inside
        assert shop.html(period=period)


@pytest.mark.parametrize(("sunday", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_day_of_23_or_25_hours_has_them_all(new_shop: NewShop, sunday: str, hours: int) -> None:
    shop = new_shop(ADROLL_TIME_ZONE="Europe/Berlin")
    shop.now = at(f"{sunday}T23:59") + DAY
    each_hour(shop, 80)
    days = {row["day"]: row["events"] for row in history(shop, "--since", sunday)}
    assert days[sunday] == hours
    by_hour = Counter(row["hour"] for row in history(shop, "--by", "hour", "--since", sunday))
    assert ("2026-03-29 02:00" in by_hour) is False
    steps = shop.json(period="days")["steps"]
    assert [step["delivered"] for step in steps if step["at"] == at(sunday)] == [hours]
    chosen = shop.json(since=sunday, until=sunday)["steps"]
    assert [step["delivered"] for step in chosen] == [1] * hours


@pytest.mark.parametrize("when", ["2026-03-30T14:30", "2026-10-26T14:30"])
def test_what_is_usual_is_the_same_hour_by_the_wall_clock(new_shop: NewShop, when: str) -> None:
    shop = new_shop(ADROLL_TIME_ZONE="Europe/Berlin")
    shop.now = at(when)
    for day in range(36):
        moment = datetime.fromtimestamp(shop.now, BERLIN)
        then = moment.replace(hour=12, minute=10).timestamp() - day * DAY
        local = datetime.fromtimestamp(then, BERLIN).replace(hour=12, minute=10)
        shop.happened("delivered", 9, ago=shop.now - local.timestamp(), delay=1.0)
        first = local.replace(hour=0, minute=10)
        if first.timestamp() < shop.now:
            shop.happened("delivered", 1, ago=shop.now - first.timestamp(), delay=1.0)
    found = shop.json(period="day")
    bars = {step["at"]: (step["delivered"], step["usual"]) for step in found["steps"]}
    noon = datetime.fromtimestamp(shop.now, BERLIN).replace(hour=12, minute=0).timestamp()
    assert bars[noon] == (9, 9)
    today = shop.json(period="today")
    assert today["way"][-1]["events"] == 10
    beside = {one["label"]: one["events"] for one in today["beside"]}
    assert beside["the same weekday 1 week before until 14:00"] == 10
    week = shop.json(period="days")["steps"]
    assert {step["usual"] for step in week if step["usual"] is not None} == {10}


# -- thirteen months of a shop: every page and command works, and none takes long -----------------


#: Seconds of work that a page or command may take: pages take some 40 ms, the hours of a year 1 s.
LONG = 5.0


@pytest.mark.slow
def test_after_a_year_every_page_and_command_works_and_none_is_slow(tmp_path: Path) -> None:
    now = time.time()
    demo = create_app({"ADROLL_DELIVERY": "worker"}, instance_path=str(tmp_path))
    lately.add_to(demo, now)
    shop = create_app(
        {"ADROLL_DELIVERY": "worker", "ADROLL_TIME_ZONE": "Europe/Berlin"},
        instance_path=str(tmp_path),
    )
    client, runner = shop.test_client(), shop.test_cli_runner()
    took: dict[str, float] = {}
    for page in mounting.PAGES:
        for period in PERIODS if "period" in page.arguments else [""]:
            path = f"{WHERE}{'' if page is mounting.PAGES[0] else page.name}?period={period}"
            began = time.process_time()
            answer = client.get(path, environ_base={"REMOTE_ADDR": "127.0.0.1"})
            took[path] = time.process_time() - began
            assert answer.status_code == 200, path
    for command in (
        *(f"history --since 57w --by {by}" for by in ("hour", "day", "event", "reason")),
        *("history --since 57w --by identifier", "check", "outbox", "outbox list"),
    ):
        began = time.process_time()
        said = runner.invoke(commands, command.split())
        took[command] = time.process_time() - began
        assert said.exception is None or isinstance(said.exception, SystemExit), command
        assert "Traceback" not in said.output
    sums = runner.invoke(commands, ["history", "--since", "57w", "--by", "event", "--json"])
    assert sum(row["events"] for row in json.loads(sums.output)) > 10_000
    assert {what: seconds for what, seconds in took.items() if seconds > LONG} == {}


# -- every page over every database that an outbox may be in, and for a site without Flask --------


def test_every_page_is_shown_from_each_engine(any_shop: DashboardShop) -> None:
    any_shop.deliver("1001")
    any_shop.bury("1002")
    any_shop.report("1003")
    for page in mounting.PAGES:
        any_shop.html("" if page is mounting.PAGES[0] else page.name)
        any_shop.json(page.name)
    way = {one["name"]: one["events"] for one in any_shop.json(period="year")["way"]}
    assert (way["delivered"], way["dead"], way["waiting"]) == (1, 1, 1)
    assert any_shop.json("match-quality", period="year")["delivered"] == 1


def test_a_site_without_flask_has_every_page(tmp_path: Path) -> None:
    middleware = AdRollMiddleware(
        lambda _environ, _start: [],
        sandbox=True,
        secret_key="a long random text",
        delivery="worker",
        outbox_url=f"sqlite:///{tmp_path}/outbox.sqlite",
        journal_folder=str(tmp_path),
    )
    client = local_app(middleware.runtime).test_client()
    for page in mounting.PAGES:
        answer = client.get(WHERE + ("" if page is mounting.PAGES[0] else page.name))
        assert answer.status_code == 200, page.name
        assert client.get(f"{WHERE}{page.name}.json").status_code == 200, page.name
