"""Several workers on one PostgreSQL: a rate that they share; and what a driver is missed with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adroll_flask.errors import ConfigurationError
from adroll_flask.outbox import Outbox
from adroll_flask.settings import Settings
from benchmarks import drain
from benchmarks.servers import missing, server
from tests.support import PATIENCE, lacking


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Any]:
    if why := missing("postgresql"):
        lacking(why)
    with server("postgresql") as one:
        yield one


@pytest.fixture
def sink() -> Iterator[Any]:
    with drain.running_sink() as one:
        yield one


@pytest.fixture
def outbox(postgresql: Any, tmp_path: Path) -> Iterator[Any]:
    one = drain.outbox_at(postgresql.url, tmp_path)
    one.database.create_tables()
    yield one
    one.close()


@pytest.mark.slow
def test_two_workers_together_keep_the_rate(
    postgresql: Any, outbox: Any, sink: Any, tmp_path: Path
) -> None:
    drain.fill(postgresql.url, [f"rate{number}" for number in range(2_000)])
    settings = {"FLASK_ADROLL_MAX_REQUESTS_PER_SECOND": "4"}
    crew = drain.Workers(postgresql.url, sink.url, tmp_path, 60.0, **settings)
    crew.start(2)
    try:
        drain.wait_for(lambda: len(sink.seen) == 2_000, PATIENCE, "all arrive")
    finally:
        assert crew.close() == [0, 0]
    times = sorted(at for at, _, _ in sink.requests)
    assert len(times) == 20
    assert len({port for *_, port in sink.requests}) == 2, "both workers sent"
    # A place every quarter of a second; what a loaded machine adds on the way may shorten a gap.
    assert times[-1] - times[0] >= 19 / 4 - 0.2
    for first, sixth in zip(times, times[5:], strict=False):
        assert sixth - first >= 5 / 4 - 0.3


@pytest.mark.parametrize(
    ("url", "module", "install"),
    [
        ("postgresql://shop@db/shop", "psycopg", "pip install 'adroll-flask[postgresql]'"),
        ("postgresql+psycopg://shop@db/shop", "psycopg", "pip install 'adroll-flask[postgresql]'"),
        ("mysql://shop@db/shop", "pymysql", "pip install 'adroll-flask[mysql]'"),
        ("mariadb+pymysql://shop@db/shop", "pymysql", "pip install 'adroll-flask[mysql]'"),
        ("postgresql+psycopg2://shop@db/shop", "psycopg2", "install psycopg2"),
    ],
)
def test_a_missing_driver_is_an_error_that_says_what_to_install(
    url: str, module: str, install: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError) as caught:
        Outbox(Settings(outbox_url=url), folder=tmp_path)
    assert "driver is not installed" in str(caught.value)
    assert install in str(caught.value)
