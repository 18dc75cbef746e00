"""An event that has stopped coming: told once, by the event's own pauses, until it comes again."""

import pytest
import sqlalchemy as sa

from adroll_flask.outbox import lookups
from adroll_flask.outbox.history import watch
from adroll_flask.outbox.model import OrderKey, Silence, Verdict
from adroll_flask.outbox.outbox import Outbox
from tests.conftest import Patch
from tests.support.outbox_engines import EID, Bench

HOUR = 3600
#: A Friday, noon, in hours since the epoch.
NOON = 1_800_014_400 // HOUR


def by_day(per_hour: int = 5, *, days: int = 28, until: int = NOON) -> dict[int, int]:
    """A shop that sells from 8 to 20 o'clock: its nights are pauses of 13 hours."""
    hours = range(until - days * 24, until)
    return {hour: per_hour for hour in hours if 8 <= hour % 24 < 20}


ALWAYS = dict.fromkeys(range(NOON - 28 * 24, NOON), 9)


@pytest.mark.parametrize(
    ("by_hour", "later", "silent"),
    [
        # One and a half of the longest pause, which is a night.
        (by_day(), 19, False),
        (by_day(), 20, True),
        # Three hours at least.
        (ALWAYS, 3, False),
        (ALWAYS, 4, True),
        # It goes on until an event comes, however long.
        *((by_day(), days * 24, True) for days in (1, 10, 27, 29, 60)),
        (by_day() | {NOON + 60 * 24: 1}, 60 * 24 + 1, False),
        # What is new or rare is not watched.
        (by_day(days=6), 500, False),
        ({NOON - day * 24: 1 for day in range(19)}, 500, False),
        ({}, 0, False),
    ],
)
def test_an_event_is_silent_after_its_own_pauses(
    by_hour: dict[int, int], later: int, silent: bool
) -> None:
    found = watch("purchase", by_hour, (NOON + later) * HOUR)
    assert (found is not None and found.is_silent) == silent


def test_the_pause_of_an_outage_is_forgotten_after_four_weeks() -> None:
    sales = {hour: n for hour, n in by_day(days=60).items() if not 40 < (NOON - hour) / 24 < 45}
    found = watch("purchase", sales, NOON * HOUR)
    assert found is not None
    assert (found.longest_pause, found.alarm_after) == (13 * HOUR, 19.5 * HOUR)


# -- in an outbox ----------------------------------------------------------------------------


def fill(bench: Bench, per_hour: int = 100, *, silent: int = 0, name: str = "purchase") -> None:
    """Deliveries of a month, by the hour, but for the last *silent* hours."""
    present = int(bench.now() // HOUR)
    delays = ", ".join(f"delay_{number}" for number in range(10))
    values = [
        {"hour": hour, "name": name, "number": per_hour}
        for hour in range(present - 28 * 24, present + 1 - silent)
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


def silences(outbox: Outbox) -> list[Silence]:
    return [one for one in outbox.lookups.watched() if one.is_silent]


def test_silence_is_found_and_told_to_one_process(bench: Bench, outbox: Outbox) -> None:
    outbox.database.create_tables()
    fill(bench, silent=8)
    fill(bench, name="addToCart")

    (silence,) = silences(outbox)

    assert (silence.name, silence.longest_pause) == ("purchase", HOUR)
    assert [one.name for one in outbox.lookups.watched()] == ["addToCart", "purchase"]
    others = [bench.open() for _ in range(3)]
    told = [other.lookups.note_silences() for other in (outbox, *others)]
    assert [len(one) for one in told] == [1, 0, 0, 0]


def test_a_silence_that_ended_and_begins_again_is_told_again(sqlite: Bench, outbox: Outbox) -> None:
    outbox.database.create_tables()
    fill(sqlite, silent=8)
    assert len(outbox.lookups.note_silences()) == 1
    assert outbox.lookups.note_silences() == ()
    move(sqlite, 8)
    assert outbox.lookups.note_silences() == ()
    move(sqlite, -8)
    assert len(outbox.lookups.note_silences()) == 1


@pytest.mark.parametrize("ago", [0, 48 * HOUR])
def test_what_was_reported_lately_has_come(
    bench: Bench, outbox: Outbox, ago: int, monkeypatch: Patch
) -> None:
    """So have telephone orders that are imported once a week, and orders that are paid later."""
    outbox.database.create_tables()
    fill(bench, silent=8)
    assert len(silences(outbox)) == 1
    held_for = 90_000.0 if ago else None
    fill(bench, name="addToCart")
    bench.insert(outbox, "1", name="addToCart")
    bench.insert(outbox, "1000")
    bench.execute("UPDATE adroll_event SET queued_at = queued_at - :ago", ago=9 * HOUR)
    outbox.decide(Verdict(bench.now(), "release", OrderKey(EID, False, "purchase", "to come")))
    # A longer wait is silence, a decision is no event, and the hours count as well.
    assert [one.name for one in silences(outbox)] == ["purchase"]
    monkeypatch.setattr(lookups, "_MOST_NEW", 2)
    bench.insert(outbox, "1001", occurred_at=bench.now() - ago, held_for=held_for)
    assert silences(outbox) == []
