"""Under uWSGI: where a thread may be started, and what the log says where it may not.

Real uWSGI: tests/servers/test_servers.py. Threads can be off before its version 2.0.27 only,
and it forks past Python: those states are played here by the module that it gives to apps.
"""

import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from flask import Flask

from adroll_flask import report_conversion
from adroll_flask.delivery.thread import may_start_threads
from tests.conftest import Caplog, Patch

MakeApp = Callable[..., Flask]
Under = Callable[..., None]


class Uwsgi(ModuleType):
    """What an app sees of uWSGI."""

    def __init__(self, *, worker: int = 0, mule: int = 0, threads: int = 1) -> None:
        super().__init__("uwsgi")
        self.has_threads = threads
        self.worker_id = lambda: worker
        self.mule_id = lambda: mule


@pytest.fixture
def under(monkeypatch: Patch) -> Callable[..., None]:
    def be(**what: int) -> None:
        monkeypatch.setitem(sys.modules, "uwsgi", Uwsgi(**what))

    return be


@pytest.fixture
def shop(make_app: MakeApp) -> Flask:
    app = make_app(ADROLL_DELIVERY="thread")

    @app.post("/orders")
    def buy() -> dict[str, Any]:
        status = report_conversion(order_id="1", value="9.90", currency="EUR", adct="c").status
        return {"status": status, "runs": app.extensions["adroll"].thread.alive}

    return app


def test_threads_are_started_under_other_servers() -> None:
    assert "uwsgi" not in sys.modules
    assert may_start_threads()


@pytest.mark.parametrize("process", [{"worker": 1}, {"worker": 2}, {"mule": 1}])
def test_threads_are_started_in_workers_and_mules(under: Under, process: dict[str, int]) -> None:
    under(**process)
    assert may_start_threads()


def test_an_order_before_the_fork_is_kept_and_starts_no_thread(under: Under, shop: Flask) -> None:
    under()
    assert shop.test_client().post("/orders").json == {"status": "queued", "runs": False}
    assert shop.extensions["adroll"].outbox.queue.waiting() == 1


def test_where_threads_are_off_events_wait(under: Under, shop: Flask, caplog: Caplog) -> None:
    under(worker=1, threads=0)
    client = shop.test_client()
    with caplog.at_level(logging.WARNING, "adroll_flask"):
        assert client.post("/orders").json == {"status": "queued", "runs": False}
        client.post("/orders")
    assert shop.extensions["adroll"].outbox.queue.waiting() == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "enable-threads = true, or run flask adroll worker" in caplog.text


def test_who_runs_threads_is_told_nothing(under: Under, shop: Flask, caplog: Caplog) -> None:
    under(worker=1)
    with caplog.at_level(logging.WARNING, "adroll_flask"):
        shop.test_client().get("/")
    assert caplog.records == []
