"""Both ends of summer time, days of 23 and 25 hours, and a leap second, in the shop's zone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from adroll_flask.cli.commands import commands

from .conftest import DAY, HOUR, Shop

BERLIN = ZoneInfo("Europe/Berlin")
#: A time, Berlin's, of a Sunday on which clocks change, and how many hours that day has.
CHANGES = {
    "spring, that day": ("2026-03-29T12:00", 23),
    "spring, amid the gap": ("2026-03-29T03:30", 23),
    "spring, the night after": ("2026-03-30T00:30", 23),
    "autumn, that day": ("2026-10-25T12:00", 25),
    "autumn, the hour that comes twice": ("2026-10-25T02:30", 25),
    "autumn, the night after": ("2026-10-26T00:30", 25),
}
NewShop = Callable[..., Shop]


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def each_hour(shop: Shop, hours: int) -> None:
    for ago in range(hours):
        shop.happened("delivered", ago=ago * HOUR, delay=1.0)


def history(shop: Shop, *arguments: str) -> list[dict[str, Any]]:
    said = shop.app.test_cli_runner().invoke(commands, ["history", "--json", *arguments])
    assert said.exit_code == 0, said.output
    found: list[dict[str, Any]] = json.loads(said.output)
    return found


@pytest.mark.parametrize("when", CHANGES)
def test_the_last_24_hours_are_24_each_with_its_own_bar(new_shop: NewShop, when: str) -> None:
    shop = new_shop(ADROLL_TIME_ZONE="Europe/Berlin")
    shop.now = at(CHANGES[when][0]) + 60
    each_hour(shop, 30)
    steps = shop.json(period="day")["steps"]
    begins = [step["at"] for step in steps]
    assert len(set(begins)) == len(begins) == 24
    assert {later - begin for begin, later in pairwise(begins)} == {3600}
    assert [step["delivered"] for step in steps] == [1] * 24


@pytest.mark.parametrize("when", CHANGES)
def test_every_step_has_its_events_once(new_shop: NewShop, when: str) -> None:
    shop = new_shop(ADROLL_TIME_ZONE="Europe/Berlin")
    shop.now = at(CHANGES[when][0]) + 60
    each_hour(shop, 24 * 16)
    hours = [shop.now - ago * HOUR for ago in range(24 * 16)]
    for period in ("days", "week", "last-week", "month", "last-month", "year"):
        found = shop.json(period=period)
        begin, end = found["begin"], found["end"]
        inside = sum(begin <= hour - hour % 3600 < end for hour in hours)
        assert sum(step["delivered"] for step in found["steps"]) == inside, period
        assert shop.html(period=period)


@pytest.mark.parametrize("when", CHANGES)
def test_a_day_of_23_or_25_hours_has_all_of_them(new_shop: NewShop, when: str) -> None:
    shop = new_shop(ADROLL_TIME_ZONE="Europe/Berlin")
    hours = CHANGES[when][1]
    sunday = "2026-03-29" if hours == 23 else "2026-10-25"
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
def test_what_is_usual_is_the_same_hour_by_the_clock_on_the_wall(
    new_shop: NewShop, when: str
) -> None:
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
    assert (found["today"]["number"], found["today"]["usual"]) == (10, 10)
    week = shop.json(period="days")["steps"]
    assert {step["usual"] for step in week if step["usual"] is not None} == {10}


def test_a_leap_second_is_a_second(new_shop: NewShop) -> None:
    """POSIX counts it twice, or smears it: 23:59:60 has the number of the midnight after it."""
    shop = new_shop()
    shop.now = datetime(2017, 1, 1, tzinfo=UTC).timestamp()  # the last one there was
    for ago in (-1.0, 0.0, 0.5, 1.0):
        shop.happened("delivered", ago=ago, delay=1.0)
    shop.now += 60
    days = {row["day"]: row["events"] for row in history(shop, "--since", "2016-12-31")}
    assert days == {"2016-12-31": 2, "2017-01-01": 2}
