"""``ADROLL_OUTBOX_COMMIT="database"``: committed in the call, in a quarter of a second or not."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.conftest import Patch
from tests.support import eventually
from tests.support.outbox_engines import Bench, Outbox, OutboxFailed, claimed, status
from tests.support.relay import Relay, in_trouble


def direct(bench: Bench, relay: Relay | None = None) -> Outbox:
    url = bench.url
    if relay is not None:
        url = sa.make_url(url or "").set(port=relay.port).render_as_string(hide_password=False)
    given: dict[str, Any] = {} if url is None else {"outbox_url": url}
    outbox = bench.open(outbox_commit="database", **given)
    _ = outbox.database
    if relay is None:
        outbox.database.create_tables()
    return outbox


def rows(bench: Bench) -> int:
    """Entries that are committed."""
    tables = ("adroll_event", "adroll_inbox")
    return sum(int(bench.execute(f"SELECT count(*) FROM {name}")[0][0]) for name in tables)


def in_journal(bench: Bench) -> int:
    return len([*bench.journal.glob("*.journal")])


def commits_in_journal(bench: Bench) -> int:
    counts = bench.counters.snapshot().items()
    return sum(count for name, count in counts if name.startswith("commit_in_journal:"))


@contextmanager
def soon() -> Iterator[None]:
    """A busy machine adds to the quarter of a second; the driver's own bounds are 5 s and more."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 0.25 + 4


def test_a_damaged_line_is_put_aside_as_it_was(sqlite: Bench) -> None:
    outbox = direct(sqlite)
    outbox.put(sqlite.event("1"))
    sqlite.execute("UPDATE adroll_inbox SET line = :line", line=b"broken")

    assert outbox.queue.waiting() == 0
    assert [path.read_bytes() for path in sqlite.journal.glob("*.corrupt")] == [b"broken"]


def test_it_is_committed_when_the_call_returns(bench: Bench, monkeypatch: Patch) -> None:
    monkeypatch.setattr("adroll_flask.outbox.inbox.PATIENCE", 30.0)  # a busy machine
    outbox = direct(bench)

    id = outbox.put(bench.event("1001"))

    assert rows(bench) == 1
    assert in_journal(bench) == 0
    claim = claimed(outbox)
    assert claim.events[0].id == id


def test_where_no_thread_starts_the_journal_takes_it(sqlite: Bench, monkeypatch: Patch) -> None:
    outbox = direct(sqlite)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("no new thread")))
        assert status(outbox, sqlite.event("1")) == "queued"
        assert in_journal(sqlite) == 1
    assert status(outbox, sqlite.event("2")) == "queued"
    assert rows(sqlite) == 1, "and the next is committed in its call"
    assert outbox.queue.waiting() == 2


def test_the_size_bound_holds_here_as_well(bench: Bench, monkeypatch: Patch) -> None:
    monkeypatch.setattr("adroll_flask.outbox.inbox.PATIENCE", 30.0)
    outbox = bench.open(outbox_commit="database", outbox_max_bytes=70_000)
    for _ in range(7):
        outbox.put(bench.event(payload=b"x" * 10_000))
    outbox.measure()

    for how in (None, Session(bench.sql())):
        with pytest.raises(OutboxFailed, match="full"):
            outbox.put(bench.event(), session=how)
    assert (rows(bench), in_journal(bench)) == (7, 0)


def test_many_at_once_all_come_in(sqlite: Bench) -> None:
    outbox = direct(sqlite)
    with sqlite.locked(), ThreadPoolExecutor(30) as pool:
        for n in range(30):
            pool.submit(outbox.put, sqlite.event(str(n)))
    eventually(lambda: sqlite.open().queue.waiting() == 30)


# -- servers in trouble --------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["never used", "in use"])
@pytest.mark.parametrize("trouble", ["hangs", "is locked", "is down"])
def test_trouble_costs_only_a_moment(server: Bench, relay: Relay, trouble: str, state: str) -> None:
    direct(server)
    outbox = direct(server, relay)
    before = 0
    if state == "in use":
        outbox.put(server.event("0"))
        before = 1
        assert outbox.queue.waiting() == 1
    # On a busy machine the first may lie there, too.
    counted = commits_in_journal(server)

    with in_trouble(server, relay, trouble):
        with soon():
            assert status(outbox, server.event("1")) == "queued"
        with nullcontext() if trouble == "is down" else soon():  # where it refuses, each may ask
            for order in range(2, 12):
                assert status(outbox, server.event(str(order))) == "queued"
        with soon(), ThreadPoolExecutor(8) as pool:
            for n in range(8):
                pool.submit(outbox.put, server.event(f"t{n}"))

    assert commits_in_journal(server) - counted == 19
    assert 1 <= in_journal(server) <= 8  # one for each that appended at the same moment
    outbox.close()
    eventually(lambda: server.open().queue.waiting() == before + 19)
    assert server.counters.get("event_duplicate") == 0


def test_a_commit_that_comes_late_doubles_nothing(server: Bench, monkeypatch: Patch) -> None:
    outbox = direct(server)
    outbox.put(server.event("warm"))
    with server.locked():
        id = outbox.put(server.event("1001", digest="5 EUR"))
        assert in_journal(server) == 1

    eventually(lambda: rows(server) == 2)
    assert outbox.queue.waiting() == 2
    assert [row.id for row in outbox.lookups.list() if row.key == "1001"] == [id]
    assert server.counters.get("event_duplicate") == 0
    monkeypatch.setattr("adroll_flask.outbox.inbox.PATIENCE", 30.0)  # a busy machine
    assert status(outbox, server.event("1002")) == "queued"
    assert rows(server) == 3, "and the next is committed in its call again"


def test_a_locked_file_costs_a_quarter_of_a_second(sqlite: Bench) -> None:
    outbox = direct(sqlite)
    with sqlite.locked(), soon():
        assert status(outbox, sqlite.event("1")) == "queued"
        assert status(outbox, sqlite.event("2")) == "queued"

    assert outbox.queue.waiting() == 2


def test_where_neither_takes_it_the_report_fails(sqlite: Bench, monkeypatch: Patch) -> None:
    outbox = direct(sqlite)
    sqlite.journal.write_text("in the way")
    with sqlite.locked(), pytest.raises(OutboxFailed, match="no_folder"):
        outbox.put(sqlite.event("1"))
    sqlite.journal.unlink()
