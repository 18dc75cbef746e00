"""Fewer events than the shop usually reports: told by its own hours of the week, and once."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from adroll_flask.outbox.model import Watched
from adroll_flask.outbox.too_few import watched
from benchmarks.too_few import KNOWN, Shop, wrong_alarms
from tests.conftest import Patch
from tests.support.outbox_engines import EID, Bench, Outbox

HOUR = 3600
#: A Friday, noon, in hours since the epoch.
NOON = 1_800_014_400 // HOUR
MIDNIGHT = NOON - 12


def by_day(per_hour: int = 5, *, days: int = 35, until: int = NOON) -> dict[int, int]:
    """A shop that sells from 8 to 20 o'clock: its nights are pauses of 13 hours."""
    hours = range(until - days * 24, until)
    return {hour: per_hour for hour in hours if 8 <= hour % 24 < 20}


ALWAYS = dict.fromkeys(range(NOON - 35 * 24, NOON), 9)
#: One sale a day, at noon.
RARE = {NOON - day * 24: 1 for day in range(35)}


@pytest.mark.parametrize(
    ("by_hour", "later", "level"),
    [
        # Fewer than chance explains, though a night is a longer pause; and none for longer than it.
        (by_day(), 1, ""),
        (by_day(), 3, "low"),
        (by_day(), 13, "low"),
        (by_day(), 14, "silent"),
        (ALWAYS, 1, ""),
        (ALWAYS, 2, "silent"),
        # A shop that sells one a day is not missed on the first day.
        *((RARE, hours, "") for hours in (24, 100)),
        (RARE, 12 * 24, "silent"),
        # It goes on until an event comes, however long.
        *((by_day(), days * 24, "silent") for days in (1, 10, 27, 29, 60, 85)),
        # Some came today, and not what usually comes by noon.
        (by_day(until=MIDNIGHT) | {NOON - 3: 1}, 0, "low"),
        (by_day(until=MIDNIGHT) | {NOON - 1: 17}, 0, ""),
        # What is new or rare is not watched.
        (by_day(days=20), 500, ""),
        ({NOON - day * 24: 1 for day in range(19)}, 500, ""),
        ({}, 0, ""),
    ],
)
def test_too_few_is_told_by_the_shops_own_hours(
    by_hour: dict[int, int], later: int, level: str
) -> None:
    found = watched("purchase", EID, by_hour, (NOON + later) * HOUR)
    assert (found.level if found else "") == level


def test_a_shop_of_good_and_bad_weeks_has_no_alarm_on_a_day_like_those_before() -> None:
    def days(of_week: tuple[int, int]) -> dict[int, int]:
        opened = [hour for hour in range(NOON - 35 * 24, NOON) if 8 <= hour % 24 < 20]
        before = {hour: of_week[(NOON + 11 - hour) // (7 * 24) % 2] for hour in opened}
        return {hour: 20 if hour >= MIDNIGHT else number for hour, number in before.items()}

    for of_week, level in (((50, 50), "low"), ((20, 80), "")):
        found = watched("purchase", EID, days(of_week), NOON * HOUR)
        assert found is not None
        assert found.level == level, of_week


def test_it_is_over_once_the_day_is_no_longer_one_of_few() -> None:
    broken = by_day(until=NOON - 3)  # since nine o'clock
    for hours, level in ((0, "low"), (1, ""), (8, "")):
        mended = broken | {NOON + hour: 5 for hour in range(hours)}
        found = watched("purchase", EID, mended, (NOON + hours) * HOUR)
        assert found is not None
        assert found.level == level, hours


def test_a_day_follows_the_clock_on_the_wall() -> None:
    """By UTC the shop opens an hour later from the last Sunday of October on."""
    zone = ZoneInfo("Europe/Berlin")
    opens = datetime(2026, 10, 26, 9, 0, tzinfo=zone).timestamp()
    by_hour = {}
    for hour in range(int(opens) // HOUR - 35 * 24, int(opens) // HOUR):
        here = datetime.fromtimestamp(hour * HOUR, zone).hour
        by_hour[hour] = 60 * (9 <= here < 18)
    for its, level in ((zone, ""), (UTC, "low")):
        found = watched("purchase", EID, by_hour, opens + 120, its)
        assert found is not None
        assert found.level == level


@pytest.mark.parametrize("orders", [5, 30, 300, 5000])
def test_a_shop_of_nights_promotions_and_closed_days_has_no_wrong_alarm(orders: int) -> None:
    """A part of ``python -m benchmarks.too_few``."""
    assert wrong_alarms(Shop(orders, seed=7), KNOWN + 6, looks=1) == (0, 0)


# -- in an outbox ----------------------------------------------------------------------------


def fill(bench: Bench, per_hour: int = 100, *, silent: int = 0, name: str = "purchase") -> None:
    """Deliveries of five weeks, by the hour, but for the last *silent* hours."""
    present = int(bench.now() // HOUR)
    delays = ", ".join(f"delay_{number}" for number in range(10))
    values = [
        {"hour": hour, "name": name, "number": per_hour}
        for hour in range(present - 35 * 24, present + 1 - silent)
    ]
    with bench.sql().begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO adroll_history (hour, slot, advertisable_eid, event_name, outcome,"
                f" reason, identifiers, currency, events, value, {delays}) VALUES (:hour, 0,"
                f" '{EID}', :name, 'delivered', '', 1, 'EUR', :number, 0{', 0' * 10})"
            ),
            values,
        )


def move(bench: Bench, hours: int) -> None:
    """What happened, happened *hours* later."""
    bench.execute("UPDATE adroll_history SET hour = -(hour + :hours)", hours=hours)
    bench.execute("UPDATE adroll_history SET hour = -hour")


def silences(outbox: Outbox) -> list[Watched]:
    return [one for one in outbox.lookups.watched() if one.level == "silent"]


def test_silence_is_found_and_told_to_one_process(bench: Bench, outbox: Outbox) -> None:
    outbox.database.create_tables()
    fill(bench, silent=8)
    fill(bench, name="addToCart")

    (silence,) = silences(outbox)

    assert (silence.name, silence.account, silence.longest_pause) == ("purchase", EID, HOUR)
    assert [one.name for one in outbox.lookups.watched()] == ["addToCart", "purchase"]
    others = [bench.open() for _ in range(3)]
    heard = [other.lookups.note_silences() for other in (outbox, *others)]
    assert [len(one) for one in heard] == [1, 0, 0, 0]


def test_a_silence_that_ended_and_begins_again_is_told_again(sqlite: Bench, outbox: Outbox) -> None:
    outbox.database.create_tables()
    fill(sqlite, silent=8)
    assert len(outbox.lookups.note_silences()) == 1
    assert outbox.lookups.note_silences() == ()
    move(sqlite, 8)
    assert outbox.lookups.note_silences() == ()
    move(sqlite, -8)
    assert len(outbox.lookups.note_silences()) == 1


def test_a_silence_is_told_whatever_the_length_of_its_names(sqlite: Bench, outbox: Outbox) -> None:
    outbox.database.create_tables()
    fill(sqlite, silent=8, name="productSearch")
    sqlite.execute("UPDATE adroll_history SET advertisable_eid = :eid", eid="A" * 40)
    assert len(outbox.lookups.note_silences()) == 1
    assert outbox.lookups.note_silences() == ()


def test_nothing_is_told_while_the_journal_waits(
    sqlite: Bench, outbox: Outbox, monkeypatch: Patch
) -> None:
    """Those that are missed may lie in it."""
    outbox.database.create_tables()
    fill(sqlite, silent=8)
    assert len(silences(outbox)) == 1
    assert len(outbox.lookups.note_silences()) == 1
    outbox.put(sqlite.event("1"))
    with monkeypatch.context() as patch:
        patch.setattr(outbox.lookups, "take_in_all", lambda: None)
        assert outbox.lookups.watched() == ()
        assert outbox.lookups.note_silences() == ()
