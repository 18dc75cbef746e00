"""Fixtures of the outbox's contract: every test runs on every engine."""

import contextlib
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adroll_flask.outbox.journal import Journal, JournalFile
from tests.support.journal_kit import line, only_file
from tests.support.outbox_engines import ENGINES, Bench, Outbox, database
from tests.support.relay import Relay

UrlOf = Callable[[str], str | None]
#: What a process asks of the file system, by the names of Python's audit events.
FILE_CALLS = frozenset({"open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.link"})


@pytest.fixture(scope="session")
def url_of() -> Iterator[UrlOf]:
    """One database on each server for all tests: to make one takes longer than most of them."""
    made: dict[str, str] = {}
    with contextlib.ExitStack() as stack:

        def url_of(engine: str) -> str | None:
            if engine != "sqlite" and engine not in made:
                made[engine] = stack.enter_context(database(engine))
            return made.get(engine)

        yield url_of


@pytest.fixture(scope="session")
def file_calls() -> Counter[int]:
    """How often each thread has asked the file system for something."""
    calls: Counter[int] = Counter()

    def count(event: str, _arguments: Any) -> None:
        calls[threading.get_ident()] += event in FILE_CALLS

    sys.addaudithook(count)  # there is no way to take it back
    return calls


@pytest.fixture
def make_bench(
    tmp_path: Path, url_of: Callable[[str], str | None]
) -> Iterator[Callable[[str], Bench]]:
    with contextlib.ExitStack() as stack:

        def make(engine: str) -> Bench:
            bench = Bench(engine, url_of(engine), tmp_path)
            if engine != "sqlite":
                stack.callback(bench.empty)
            stack.callback(bench.close)
            return bench

        yield make


@pytest.fixture(params=ENGINES)
def bench(request: Any, make_bench: Callable[[str], Bench]) -> Bench:
    """Any engine."""
    return make_bench(request.param)


@pytest.fixture
def sqlite(make_bench: Callable[[str], Bench]) -> Bench:
    """SQLite alone."""
    return make_bench("sqlite")


@pytest.fixture(params=ENGINES[1:])
def server(request: Any, make_bench: Callable[[str], Bench]) -> Bench:
    """PostgreSQL and MariaDB."""
    return make_bench(request.param)


@pytest.fixture(params=ENGINES)
def fresh(request: Any, tmp_path: Path) -> Iterator[Bench]:
    """Any engine, with a database that has never held an outbox."""
    with contextlib.ExitStack() as stack:
        url = None
        if request.param != "sqlite":
            url = stack.enter_context(database(request.param))
        bench = Bench(request.param, url, tmp_path)
        stack.callback(bench.close)
        yield bench


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a journal may be made."""
    return tmp_path / "journal"


@pytest.fixture
def finished(folder: Path) -> JournalFile:
    """A file of three entries whose writer is done with it."""
    journal = Journal(folder)
    for text in (b"one", b"two", b"three"):
        journal.append(line(text))
    journal.close()
    return only_file(folder)


@pytest.fixture
def outbox(request: Any) -> Outbox:
    """An outbox on what the test asks for."""
    (name,) = {"bench", "sqlite", "server", "fresh"} & {*request.fixturenames}
    bench: Bench = request.getfixturevalue(name)
    return bench.open()


@pytest.fixture
def relay(server: Bench) -> Iterator[Relay]:
    """What stands between an outbox and its server, and can hang or cut it off."""
    url = sa.make_url(server.url or "")
    relay = Relay((url.host or "", url.port or 0))
    yield relay
    for outbox in server.opened:
        outbox.close()
    relay.cut()


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    """A folder whose owner the test is; root itself may write what is read-only."""
    with tempfile.TemporaryDirectory() as name:
        me = os.geteuid()
        if me == 0:
            os.chown(name, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(me)
