"""session=: an event in the shop's own transaction, with the order it tells of."""

import asyncio
import contextlib
import gc
import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from adroll_flask import ConfigurationError
from adroll_flask.outbox.inbox import after_commit
from adroll_flask.outbox.schema import ELSEWHERE, create_tables
from tests.conftest import Caplog
from tests.support.outbox_engines import EID, Bench, Outbox, a_user, claimed, database, status, told


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
        session.execute(sa.text("UPDATE adroll_meta SET value = value"))
        with session.begin_nested():  # a savepoint that is released is no commit
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


def test_an_async_session_is_refused_with_the_way_out(sqlite: Bench) -> None:
    pytest.importorskip("aiosqlite")
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    outbox, event = sqlite.open(), sqlite.event("1001")
    outbox.database.create_tables()

    async def buy() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{sqlite.path}")
        async with AsyncSession(engine) as session:
            with pytest.raises(ConfigurationError, match=r"await session\.run_sync\("):
                outbox.put(event, session=session)
            await session.run_sync(lambda sync: outbox.put(event, session=sync))
            await session.commit()
        await engine.dispose()

    asyncio.run(buy())
    assert [one.id for one in claimed(outbox).events] == [event.id]


@pytest.fixture
def twin(server: Bench) -> Iterator[sa.Engine]:
    """Another outbox's database, which looks like this one's."""
    with database(server.engine) as url:
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        with engine.begin() as connection:
            create_tables(connection)
        yield engine
        engine.dispose()


def elsewhere(outbox: Outbox) -> bool:
    return bool(outbox.lookups.notes(ELSEWHERE))


def test_a_database_that_only_looks_like_it_is_refused(
    server: Bench, twin: sa.Engine, caplog: Caplog
) -> None:
    """Also where it is of an address that leads to the same server."""
    url = sa.make_url(server.url or "").set(host="localhost")
    outbox = server.open(outbox_url=url.render_as_string(hide_password=False))
    outbox.database.create_tables()
    with Session(twin) as session:
        outbox.put(server.event("1001"), session=session)
    outbox.measure()

    with Session(twin) as session:
        with pytest.raises(ConfigurationError, match="another"):
            outbox.put(server.event("1002"), session=session)
        assert session.execute(sa.text("SELECT count(*) FROM adroll_inbox")).scalar() == 0
    with Session(server.sql()) as session:
        assert status(outbox, server.event("1003"), session=session) == "queued"
        session.commit()
    caplog.clear()
    outbox.measure()
    assert not caplog.messages
    with Session(server.sql()) as session:
        assert status(outbox, server.event("1004"), session=session) == "queued"


def test_where_ours_is_not_known_the_entry_goes_and_is_compared_later(
    server: Bench, twin: sa.Engine, caplog: Caplog
) -> None:
    outbox = server.open()
    outbox.database.create_tables()
    with Session(twin) as session:
        assert status(outbox, server.event("1001"), session=session) == "queued"
        session.commit()
        assert session.execute(sa.text("SELECT count(*) FROM adroll_inbox")).scalar() == 1
        assert not elsewhere(outbox)

        with caplog.at_level(logging.ERROR, "adroll_flask"):
            outbox.measure()

        assert "session-elsewhere" in caplog.text
        assert elsewhere(outbox)
        with pytest.raises(ConfigurationError, match="another"):
            outbox.put(server.event("1002"), session=session)


def test_a_session_that_may_not_look_keeps_its_transaction(server: Bench) -> None:
    outbox = server.open()
    outbox.database.create_tables()
    server.execute("ALTER TABLE adroll_meta RENAME COLUMN value TO hidden")
    try:
        with Session(server.sql()) as session:
            session.execute(sa.text("DELETE FROM adroll_mark"))
            assert status(outbox, server.event("1001"), session=session) == "queued"
            session.commit()
    finally:
        server.execute("ALTER TABLE adroll_meta RENAME COLUMN hidden TO value")
    assert outbox.queue.waiting() == 1


def test_with_no_connection_left_the_order_is_kept_all_the_same(server: Bench) -> None:
    server.open().database.create_tables()
    with a_user(server, "ALL", most=1) as url:
        outbox = server.open(outbox_url=url)
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        with Session(engine) as session:
            session.execute(sa.text("SELECT 1"))  # the one connection that there is
            assert status(outbox, server.event("1001"), session=session) == "queued"
            session.commit()
        engine.dispose()
        assert outbox.queue.waiting() == 1
        outbox.close()


def test_a_large_transaction_of_the_shop_s_own_file_keeps_nobody_waiting(
    sqlite: Bench, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE orders (content BLOB)"))
        create_tables(connection)
    outbox = sqlite.open(outbox_url=url)
    with Session(engine) as session:
        session.execute(sa.text("PRAGMA cache_size = 2"))
        for _ in range(20):  # more than its cache has room for: SQLite locks the file at once
            session.execute(sa.text("INSERT INTO orders VALUES (zeroblob(100000))"))
        assert status(outbox, sqlite.event("1001"), session=session) == "queued"
        session.commit()
    engine.dispose()
    assert outbox.queue.waiting() == 1


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
