"""Fixtures of the outbox's contract: every test runs on every engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adroll_flask.outbox import Outbox
from tests.support.outbox_engines import ENGINES, Bench, database, missing, require


@pytest.fixture(scope="session")
def lacking() -> dict[str, str | None]:
    return {engine: missing(engine) for engine in ENGINES}


@pytest.fixture(scope="session")
def url_of() -> Iterator[Callable[[str], str | None]]:
    """One database on each server for all tests: to make one takes longer than most of them."""
    made: dict[str, str] = {}
    with contextlib.ExitStack() as stack:

        def url_of(engine: str) -> str | None:
            if engine != "sqlite" and engine not in made:
                made[engine] = stack.enter_context(database(engine))
            return made.get(engine)

        yield url_of


@pytest.fixture
def make_bench(
    tmp_path: Path, lacking: dict[str, str | None], url_of: Callable[[str], str | None]
) -> Iterator[Callable[[str], Bench]]:
    with contextlib.ExitStack() as stack:

        def make(engine: str) -> Bench:
            require(engine, lacking)
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
def fresh(request: Any, tmp_path: Path, lacking: dict[str, str | None]) -> Iterator[Bench]:
    """Any engine, with a database that has never held an outbox."""
    require(request.param, lacking)
    with contextlib.ExitStack() as stack:
        url = None
        if request.param != "sqlite":
            url = stack.enter_context(database(request.param))
        bench = Bench(request.param, url, tmp_path)
        stack.callback(bench.close)
        yield bench


@pytest.fixture
def outbox(bench: Bench) -> Outbox:
    return bench.open()
