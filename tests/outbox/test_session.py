"""session=: an event in the shop's own transaction, with the order it tells of."""

import contextlib
import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from adroll_flask.errors import ConfigurationError
from adroll_flask.outbox.outbox import Outbox, after_commit
from tests.support.outbox_engines import EID, Bench, claimed, status, told


@pytest.fixture
def ready(bench: Bench, outbox: Outbox) -> Outbox:
    outbox.database.create_tables()
    return outbox


def test_an_event_is_committed_with_the_order(bench: Bench, ready: Outbox) -> None:
    assert not ready.queue.claim(EID)  # what follows is news
    with Session(bench.sql()) as session:
        id = ready.put(bench.event("1001"), session=session)
        if bench.engine != "sqlite":
            assert bench.open().queue.waiting() == 0
        session.commit()

    assert [event.id for event in claimed(ready).events] == [id]


def test_an_event_is_rolled_back_with_the_order(bench: Bench, ready: Outbox) -> None:
    with Session(bench.sql()) as session:
        ready.put(bench.event("1001"), session=session)
        session.rollback()

    assert ready.queue.waiting() == 0
    assert status(ready, bench.event("1001")) == "queued"


def test_a_duplicate_does_not_poison_the_transaction(bench: Bench, ready: Outbox) -> None:
    bench.open().put(bench.event("1001", digest="a"))
    ready.ingest.take_in()
    with Session(bench.sql()) as session:
        session.execute(sa.text("UPDATE adroll_meta SET value = value"))

        said = [
            status(ready, bench.event(key, digest="b"), session=session)
            for key in ("1001", "1002", "1002")
        ]

        assert said == ["queued"] * 3  # only what is taken in can tell
        session.commit()
    assert ready.queue.waiting() == 2
    assert bench.counters.get("event_duplicate") == 2
    assert bench.counters.get("event_duplicate", "another_value") == 1
    assert [row.digest for row in ready.lookups.list() if row.key == "1001"] == ["a"]
    assert told(ready, "outcome", "reason")["duplicate", "another_value"] == 1
    with Session(bench.sql()) as session:
        assert status(ready, bench.event("1002"), session=session) == "duplicate"


def test_a_savepoint_rolled_back_takes_the_event_with_it(bench: Bench, ready: Outbox) -> None:
    with Session(bench.sql()) as session:
        session.execute(sa.text("UPDATE adroll_meta SET value = value"))
        with session.begin_nested() as savepoint:
            ready.put(bench.event("1001"), session=session)
            savepoint.rollback()
        ready.put(bench.event("1002"), session=session)
        session.commit()
        assert [status(ready, bench.event(key)) for key in ("1001", "1002")] == [
            "queued",
            "duplicate",
        ]


def test_another_database_s_session_is_refused(bench: Bench, ready: Outbox, tmp_path: Path) -> None:
    other = sa.create_engine(f"sqlite:///{tmp_path / 'shop.sqlite'}")
    with Session(other) as session, pytest.raises(ConfigurationError) as caught:
        ready.put(bench.event("1001"), session=session)
    other.dispose()

    assert caught.value.key == "ADROLL_OUTBOX_URL"
    assert "another" in str(caught.value)


def test_a_database_that_only_looks_like_it_is_refused(bench: Bench, ready: Outbox) -> None:
    kept = bench.execute("SELECT value FROM adroll_meta WHERE name = 'outbox_id'")[0][0]
    with Session(bench.sql()) as session:
        # As seen through a forwarded port or another search path.
        session.execute(sa.text("UPDATE adroll_meta SET value = 'x' WHERE name = 'outbox_id'"))
        with pytest.raises(ConfigurationError, match="another"):
            ready.put(bench.event("1001"), session=session)
        session.rollback()
        assert status(ready, bench.event("1001"), session=session) == "queued"
    assert len(kept) == 32


def test_another_way_to_the_same_database_is_taken(server: Bench) -> None:
    outbox = server.open()
    outbox.database.create_tables()
    url = sa.make_url(server.url or "")
    there = {"host": url.host, "port": url.port}  # as a pooler or an alias leads there
    named = sa.create_engine(url.set(host="pooler.shop.example", port=6432), connect_args=there)
    with Session(named) as session:
        assert status(outbox, server.event("1001"), session=session) == "queued"
    named.dispose()


def test_a_missing_table_is_not_made_in_the_shop_s_transaction(fresh: Bench) -> None:
    outbox = fresh.open()
    with Session(fresh.sql()) as session:
        with pytest.raises(ConfigurationError, match="flask adroll outbox create-table"):
            outbox.put(fresh.event("1001"), session=session)
        assert session.execute(sa.text("SELECT 1")).scalar() == 1, "not poisoned"
    assert "adroll_event" not in sa.inspect(fresh.sql()).get_table_names()


@pytest.mark.parametrize("session", ["a text", 1, object()])
def test_what_is_no_session_is_refused(bench: Bench, ready: Outbox, session: object) -> None:
    with pytest.raises(ConfigurationError, match="session"):
        ready.put(bench.event(), session=session)


def test_the_database_s_errors_carry_no_visitor_s_values(bench: Bench, ready: Outbox) -> None:
    with Session(bench.sql()) as session:
        ready.put(bench.event("1000"), session=session)
        session.rollback()
    bench.execute("ALTER TABLE adroll_inbox RENAME TO adroll_inbox_gone")
    try:
        with Session(bench.sql()) as session, pytest.raises(sa.exc.DBAPIError) as caught:
            ready.put(bench.event("order-1001", payload=b"ann@example.com"), session=session)
    finally:
        bench.execute("ALTER TABLE adroll_inbox_gone RENAME TO adroll_inbox")

    assert "ann@example.com" not in str(caught.value) + repr(caught.value)
    assert "order-1001" not in str(caught.value)
    assert not caught.value.params


# -- what waits for the commit, the outermost one, with one listener a session ---------------------


@pytest.fixture
def session() -> Iterator[Session]:
    engine = sa.create_engine("sqlite://")
    with Session(engine) as session:
        session.execute(sa.text("SELECT 1"))
        yield session
    engine.dispose()


def test_an_action_runs_once_after_the_outermost_commit(session: Session) -> None:
    done: list[str] = []
    after_commit(session, lambda: done.append("outer"))
    session.flush()
    with session.begin_nested():
        after_commit(session, lambda: done.append("inner"))
    assert done == [], "a released savepoint is no commit"
    session.commit()
    assert done == ["outer", "inner"]
    session.execute(sa.text("SELECT 1"))
    session.commit()
    assert done == ["outer", "inner"]


@pytest.mark.parametrize("end", ["rollback", "close"])
def test_a_session_that_ends_otherwise_runs_nothing(session: Session, end: str) -> None:
    done: list[str] = []
    after_commit(session, lambda: done.append("outer"))
    with session.begin_nested(), session.begin_nested():
        after_commit(session, lambda: done.append("inner"))
    getattr(session, end)()
    session.execute(sa.text("SELECT 1"))
    session.commit()
    assert done == []


@pytest.mark.parametrize("sessions", ["one long session", "a session each"])
def test_hundreds_of_reports_leave_no_memory_behind(session: Session, sessions: str) -> None:
    done: list[str] = []

    def grown_by(reports: int) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(reports):
            is_long = sessions == "one long session"
            with contextlib.nullcontext(session) if is_long else Session(session.get_bind()) as own:
                own.execute(sa.text("SELECT 1"))
                after_commit(own, done.append, "x")
                own.commit()
        assert len(done) == reports
        done.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    grown_by(100)
    grown = grown_by(400)
    tracemalloc.stop()
    assert grown < 100_000, grown
