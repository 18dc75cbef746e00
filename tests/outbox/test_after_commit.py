"""What waits for a commit: for the outermost one, and with one listener a session."""

import gc
import tracemalloc
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from adroll_flask.outbox.inbox import after_commit


@pytest.fixture
def session() -> Iterator[Session]:
    engine = sa.create_engine("sqlite://")
    with Session(engine) as session:
        session.execute(sa.text("SELECT 1"))
        yield session
    engine.dispose()


@pytest.fixture
def done() -> list[str]:
    return []


def test_an_action_runs_once_after_the_commit(session: Session, done: list[str]) -> None:
    after_commit(session, lambda: done.append("one"))
    session.flush()
    assert done == []
    session.commit()
    assert done == ["one"]
    session.execute(sa.text("SELECT 1"))
    session.commit()
    assert done == ["one"]


def test_a_released_savepoint_is_no_commit(session: Session, done: list[str]) -> None:
    with session.begin_nested():
        after_commit(session, lambda: done.append("inner"))
    assert done == []
    session.commit()
    assert done == ["inner"]


def test_a_rollback_takes_back_a_released_savepoint_too(session: Session, done: list[str]) -> None:
    with session.begin_nested(), session.begin_nested():
        after_commit(session, lambda: done.append("inner"))
    session.rollback()
    session.execute(sa.text("SELECT 1"))
    session.commit()
    assert done == []


def test_a_savepoint_rolled_back_takes_its_own_actions(session: Session, done: list[str]) -> None:
    after_commit(session, lambda: done.append("before"))
    savepoint = session.begin_nested()
    after_commit(session, lambda: done.append("within"))
    with session.begin_nested():
        after_commit(session, lambda: done.append("released within"))
    savepoint.rollback()
    after_commit(session, lambda: done.append("after"))
    session.commit()
    assert done == ["before", "after"]


def test_a_session_closed_without_a_commit_runs_nothing(session: Session, done: list[str]) -> None:
    after_commit(session, lambda: done.append("one"))
    session.close()
    session.execute(sa.text("SELECT 1"))
    session.commit()
    assert done == []


@pytest.mark.parametrize("sessions", ["one long session", "a session each"])
def test_many_reports_leave_no_memory(session: Session, done: list[str], sessions: str) -> None:
    def report(session: Session) -> None:
        session.execute(sa.text("SELECT 1"))
        after_commit(session, lambda: done.append("x"))
        session.commit()

    def grown_by(reports: int) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(reports):
            if sessions == "one long session":
                report(session)
            else:
                with Session(session.get_bind()) as own:
                    report(own)
        assert len(done) == reports
        done.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    grown_by(100)
    grown = grown_by(400)
    tracemalloc.stop()
    assert grown < 100_000, grown
