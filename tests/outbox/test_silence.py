"""Too few of an event for the time of day: told once, by hours that are alike, and of no event."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from adroll_flask.outbox import Outbox
from adroll_flask.outbox.silence import LOOKS_BACK, Silence, find_silence, told
from tests.support.outbox_engines import Bench

HOUR = 3600
#: A Friday, noon.
NOON = 1_800_014_400 // HOUR
assert time.gmtime(NOON * HOUR)[3] == 12

#: One o'clock UTC, when Europe's clocks are put forward, and back.
CHANGE = {
    1: int(datetime(2027, 3, 28, 1, tzinfo=UTC).timestamp()) // HOUR,
    -1: int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp()) // HOUR,
}


def by_day(per_hour: int = 50, *, weeks: int = 6, until: int = NOON) -> dict[int, int]:
    """A shop that sells from 8 to 20 o'clock."""
    return {hour: per_hour for hour in range(until - weeks * 168, until) if 8 <= hour % 24 < 20}


def without(hours: dict[int, int], begin: int, end: int = NOON + 1000) -> dict[int, int]:
    return {hour: 0 if begin <= hour < end else number for hour, number in hours.items()}


def test_a_shop_that_sells_as_usual_is_not_silent() -> None:
    assert find_silence("purchase", by_day(), NOON * HOUR) is None


def test_silence_is_told_with_its_beginning_and_what_is_usual() -> None:
    found = find_silence("purchase", without(by_day(), NOON - 2), NOON * HOUR)
    assert found is not None
    assert (found.name, found.since, found.delivered) == ("purchase", (NOON - 2) * HOUR, 0)
    assert found.usual == 100
    assert told(found).startswith("too few purchase events reach AdRoll: none since ")
    assert told(found).endswith(" 10:00 UTC, where 100 are usual")


def test_half_is_too_few_where_many_are_usual() -> None:
    sales = by_day(400)
    sales |= {NOON - 1: 200}
    found = find_silence("purchase", sales, NOON * HOUR)
    assert found is not None
    assert (found.since, found.delivered) == ((NOON - 1) * HOUR, 200)


@pytest.mark.parametrize("hour", [*range(20, 24), *range(9)])
def test_there_is_no_alarm_at_night_in_a_shop_that_sells_by_day(hour: int) -> None:
    now = NOON - 12 + hour
    assert find_silence("purchase", by_day(until=now), now * HOUR) is None


def test_there_is_none_in_a_new_shop() -> None:
    for days in range(21):
        sales = {hour: n for hour, n in by_day().items() if hour >= NOON - 24 * days - 12}
        assert find_silence("purchase", without(sales, NOON - 3), NOON * HOUR) is None, days
    assert find_silence("purchase", {}, NOON * HOUR) is None
    older = by_day(weeks=4)
    assert find_silence("purchase", without(older, NOON - 3), NOON * HOUR) is not None


def test_a_sale_in_one_of_the_weeks_is_not_what_is_usual() -> None:
    sales = by_day()
    for hour in range(NOON - 168 - 36, NOON - 168 + 36):
        sales[hour] = 4 * sales.get(hour, 0)
    assert find_silence("purchase", sales, NOON * HOUR) is None


@pytest.mark.parametrize("shift", [-1, 1])
def test_summer_time_does_not_make_an_alarm(shift: int) -> None:
    """The shop's day begins and ends an hour earlier or later, in the hours of UTC."""
    change = CHANGE[shift]
    sales = by_day(400, until=change)
    for hour in range(change, change + 240):
        sales[hour] = 400 if 8 <= (hour + shift) % 24 < 20 else 0
    for now in range(change, change + 240):
        seen = {hour: number for hour, number in sales.items() if hour < now}
        assert find_silence("purchase", seen, now * HOUR) is None, now - change


def test_an_alarm_ends_with_its_cause() -> None:
    sales = without(by_day(400), NOON - 4, NOON - 1)
    assert find_silence("purchase", without(sales, NOON - 1), NOON * HOUR) is not None
    assert find_silence("purchase", sales, NOON * HOUR) is None


def test_it_goes_on_while_the_silence_does() -> None:
    begin = NOON - 12
    sales = by_day(until=begin)
    for hour in range(begin + 12, begin + 14 * 24, 7):
        assert find_silence("purchase", sales, hour * HOUR) is not None, hour - begin


# -- in an outbox ----------------------------------------------------------------------------


def fill(bench: Bench, per_hour: int = 100, *, silent: int = 0, name: str = "purchase") -> None:
    """Deliveries of a month, by the hour, but for the last *silent* hours."""
    now = int(bench.execute(TIME[bench.engine])[0][0]) if bench.engine != "sqlite" else bench.now()
    present = int(now // HOUR)
    delays = ", ".join(f"delay_{number}" for number in range(10))
    values = [
        {"hour": hour, "name": name, "number": per_hour}
        for hour in range(present - int(LOOKS_BACK // HOUR) - 1, present + 1 - silent)
    ]
    with bench.sql().begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO adroll_history (hour, slot, event_name, outcome, reason, identifiers,"
                f" currency, events, value, {delays}) VALUES (:hour, 0, :name, 'delivered', '', 1,"
                f" 'EUR', :number, 0{', 0' * 10})"
            ),
            values,
        )


def move(bench: Bench, hours: int) -> None:
    """What happened, happened *hours* later."""
    bench.execute("UPDATE adroll_history SET hour = -(hour + :hours)", hours=hours)
    bench.execute("UPDATE adroll_history SET hour = -hour")


TIME = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "mariadb": "SELECT UNIX_TIMESTAMP()",
}


def test_silence_is_found_in_the_history_and_told_to_one_process(
    bench: Bench, outbox: Outbox
) -> None:
    outbox.housekeeping.create_tables()
    fill(bench, silent=8)
    fill(bench, name="addToCart")

    (silence,) = outbox.figures.silences()

    assert isinstance(silence, Silence)
    assert (silence.name, silence.delivered) == ("purchase", 0)
    others = [bench.open() for _ in range(3)]
    told = [other.figures.note_silences() for other in (outbox, *others)]
    assert [len(one) for one in told] == [1, 0, 0, 0]


def test_a_silence_that_ended_and_begins_again_is_told_again(sqlite: Bench) -> None:
    outbox = sqlite.open()
    outbox.housekeeping.create_tables()
    fill(sqlite, silent=8)
    assert len(outbox.figures.note_silences()) == 1
    move(sqlite, 8)
    assert outbox.figures.note_silences() == ()
    move(sqlite, -8)
    assert outbox.figures.note_silences() == (), "on the edge"
    move(sqlite, 8)
    sqlite.clock.now += 4 * HOUR
    move(sqlite, 4)
    assert outbox.figures.note_silences() == ()
    move(sqlite, -8)
    assert len(outbox.figures.note_silences()) == 1


def test_what_waits_for_adroll_is_not_missing(sqlite: Bench) -> None:
    outbox = sqlite.open()
    outbox.housekeeping.create_tables()
    fill(sqlite, silent=8)
    sqlite.clock.now -= 9 * HOUR
    outbox.put(sqlite.event("1001"))
    outbox.queue.take_in()
    sqlite.clock.now += 9 * HOUR
    assert outbox.figures.silences() == ()
