"""Under uWSGI: where a thread may be started, and what the log says where it may not.

Real uWSGI: tests/servers/test_servers.py. Threads can be off before its version 2.0.27 only,
and it forks past Python: those states are played here by the module that it gives to apps.
"""

import sys
from types import ModuleType

import pytest

from adroll_flask import report_conversion
from tests.conftest import AppMaker, Caplog, Patch
from tests.support.visits import invoke


class Uwsgi(ModuleType):
    """What an app sees of uWSGI."""

    def __init__(self, *, worker: int = 0, mule: int = 0, threads: int = 1) -> None:
        super().__init__("uwsgi")
        self.has_threads = threads
        self.worker_id = lambda: worker
        self.mule_id = lambda: mule


PROCESSES = [
    ({"worker": 1}, True),
    ({"mule": 1}, True),
    ({}, False),  # before the fork
    ({"worker": 1, "threads": 0}, False),
]


@pytest.mark.parametrize(("process", "runs"), PROCESSES)
def test_where_threads_are_off_events_wait(
    make_app: AppMaker, monkeypatch: Patch, caplog: Caplog, process: dict[str, int], runs: bool
) -> None:
    app = make_app(ADROLL_DELIVERY="thread")
    runtime = app.extensions["adroll"]
    monkeypatch.setitem(sys.modules, "uwsgi", Uwsgi(**process))
    for order in ("1", "2"):
        app.test_client().get("/")
        with app.test_request_context(environ_base={"REMOTE_ADDR": "203.0.113.9"}):
            told = report_conversion(order_id=order, value="9.90", currency="EUR", adct="c")
        assert (told.status, runtime.thread.alive) == ("queued", runs)
    assert runtime.outbox.queue.waiting() == 2
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == ("threads" in process), "who runs threads is told nothing"
    assert all("enable-threads = true, or run flask adroll worker" in line for line in said)
    checked = invoke(app, "check").output
    assert ("no delivery thread is started" in checked) == ("threads" in process)
