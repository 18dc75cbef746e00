"""An older copy that is put in the outbox's place sends nothing that its original has sent."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.support.outbox_engines import Bench, Outbox, deliver


def copied(bench: Bench) -> Callable[[float], None]:
    """Copy all tables; puts the copy in the place of the original, which went on for *seconds*."""
    tables = sa.MetaData()
    tables.reflect(bench.sql())
    with bench.sql().begin() as connection:
        rows = {
            table: [dict(row) for row in connection.execute(table.select()).mappings()]
            for table in tables.sorted_tables
        }

    def put_back(seconds: float) -> None:
        bench.clock.now += 1.0  # a server has its own
        with bench.sql().begin() as connection:
            for table, of_table in rows.items():
                connection.execute(table.delete())
                if of_table:
                    connection.execute(table.insert(), of_table)
        note = "UPDATE adroll_meta SET value = :at WHERE name = 'noted'"
        bench.execute(note, at=repr(bench.now() - seconds))

    return put_back


@pytest.fixture
def put_back(bench: Bench, outbox: Outbox) -> Callable[[float], None]:
    """An outbox that has sent what waits in its copy, with one event in the inbox."""
    bench.insert(outbox, "1")
    bench.insert(outbox, "held", held_for=86_400.0)
    with Session(bench.sql()) as session:
        outbox.put(bench.event("2"), session=session)
        session.commit()
    outbox.admin.keep_house()
    put_back = copied(bench)
    outbox.admin.keep_house()
    assert deliver(outbox) == ["1", "2"]
    return put_back


@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize("by", ["claim", "intake", "housekeeping", "command"])
def test_what_waits_in_an_older_copy_rests_whoever_put_it_there(
    bench: Bench, outbox: Outbox, put_back: Callable[[float], None], is_new: bool, by: str
) -> None:
    put_back(600.0)
    process = bench.open() if is_new else outbox
    bench.report(process, "3")
    if by == "intake":
        assert process.queue.waiting() == 1
    if by == "housekeeping":
        process.admin.keep_house()
    if by == "command":
        assert process.admin.restored() == 3, "the site reported before it was said"

    assert deliver(process) == ([] if by == "command" else ["3"])

    rows = {row.key: (row.state, row.reason, row.unsure) for row in process.lookups.list()}
    rests = ("dead", "restored", True)
    assert (rows["1"], rows["2"], rows["held"][0]) == (rests, rests, "held")
    [(begin, end)] = process.lookups.knowledge().gaps
    assert begin < end <= bench.now()
    bench.report(process, "4")
    assert [*deliver(outbox), *deliver(process)] == ["4"], "it is told once"


def test_a_database_that_has_lost_its_last_minutes_is_none(
    bench: Bench, outbox: Outbox, put_back: Callable[[float], None]
) -> None:
    """A server that took another's place would let all rest that waits, for a person to look at."""
    put_back(200.0)
    assert deliver(bench.open()) == ["1", "2"]
    assert outbox.lookups.knowledge().gaps == ()


def test_another_outbox_in_its_place_is_told_once(
    bench: Bench, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """A volume that was not mounted, a database that was dropped: nothing else tells in time."""
    bench.insert(outbox, "1")
    outbox.admin.keep_house()
    assert "outbox-is-another" not in caplog.text
    bench.execute("UPDATE adroll_meta SET value = 'another' WHERE name = 'outbox_id'")
    process = bench.open()
    process.admin.keep_house()
    process.admin.keep_house()
    assert caplog.text.count("outbox-is-another") == 1
