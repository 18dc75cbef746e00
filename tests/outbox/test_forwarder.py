"""Where others deliver, a thread of the shop takes its reports into the outbox's server."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from adroll_flask.counters import Counters
from adroll_flask.outbox import Outbox, OutboxFailed
from adroll_flask.outbox.forwarder import Forwarder
from tests.support.outbox_engines import Bench, wait_until
from tests.support.relay import Relay
from tests.support.sites import Clock, configuration, flask_site


@pytest.fixture
def shop(server: Bench, relay: Relay) -> Outbox:
    server.open().housekeeping.create_tables()
    url = sa.make_url(server.url or "").set(port=relay.port)
    return server.open(delivery="worker", outbox_url=url.render_as_string(hide_password=False))


def rows(bench: Bench) -> int:
    return int(bench.execute("SELECT count(*) FROM adroll_event")[0][0])


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "adroll-forward"]


def test_reports_appear_on_the_server_by_themselves(server: Bench, shop: Outbox) -> None:
    for order in range(20):
        shop.put(server.event(str(order)))
    assert wait_until(lambda: rows(server) == 20, 20)

    shop.put(server.event("20"))
    assert wait_until(lambda: rows(server) == 21, 20)

    worker = server.open()  # of another host
    claim = worker.queue.claim()
    assert claim is not None
    assert len(claim.events) == 21


def test_where_this_process_delivers_there_is_no_such_thread(server: Bench) -> None:
    before = len(threads())
    server.open(delivery="thread").put(server.event("1"))
    assert len(threads()) == before


def test_nothing_is_started_before_the_first_report(shop: Outbox) -> None:
    before = len(threads())
    shop.load()
    assert shop.queue.waiting() == 0
    assert len(threads()) == before


def test_a_report_does_not_wait_for_the_forwarder_whose_server_hangs(
    server: Bench, relay: Relay, shop: Outbox
) -> None:
    shop.put(server.event("0"))
    assert wait_until(lambda: rows(server) == 1, 20)
    relay.mute()
    shop.put(server.event("1"))  # on which the forwarder hangs now

    began = time.monotonic()
    for order in range(2, 52):
        assert shop.put(server.event(str(order))).status == "queued"
    took = time.monotonic() - began

    assert took < 5, "50 appends: a wait of a second for each would be 50"
    relay.cut()
    relay.restore()
    assert wait_until(lambda: rows(server) == 52, 40)


def test_what_a_server_that_was_down_could_not_take_comes_later(
    server: Bench, relay: Relay, shop: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    relay.cut()
    with caplog.at_level(logging.ERROR, "adroll_flask"):
        for order in range(5):
            shop.put(server.event(str(order)))
        assert wait_until(lambda: server.counters.get("forward_error", "unavailable") >= 2, 20)
    assert caplog.text.count("wait in the journal") == 1, "told once, not with each try"

    relay.restore()

    assert wait_until(lambda: rows(server) == 5, 40)
    shop.put(server.event("5"))
    assert wait_until(lambda: rows(server) == 6, 20)


def test_what_a_process_that_died_left_behind_comes_too(server: Bench, shop: Outbox) -> None:
    child = os.fork()
    if child == 0:
        try:
            server.open(delivery="thread").put(server.event("of the dead"))
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert rows(server) == 0

    shop.put(server.event("of the living"))

    assert wait_until(lambda: rows(server) == 2, 20)


def test_a_forked_child_forwards_by_itself(server: Bench, shop: Outbox) -> None:
    shop.put(server.event("parent"))
    assert wait_until(lambda: rows(server) == 1, 20)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            shop.put(server.event("child"))
            alone = server.open()
            status = 0 if wait_until(lambda: alone.admin.counts()["waiting"] == 2, 20) else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0

    shop.put(server.event("parent again"))
    assert wait_until(lambda: rows(server) == 3, 20)


def test_an_outbox_that_is_closed_has_no_thread_until_the_next_report(
    server: Bench, shop: Outbox
) -> None:
    before = len(threads())
    shop.put(server.event("1"))
    assert len(threads()) == before + 1

    shop.close()
    assert wait_until(lambda: len(threads()) == before)

    shop.put(server.event("2"))
    assert wait_until(lambda: rows(server) == 2, 20)


def test_who_waits_on_postgresql_is_told_of_what_was_forwarded(server: Bench, shop: Outbox) -> None:
    if server.engine != "postgresql":
        pytest.skip("MariaDB has no NOTIFY; workers ask again")
    worker = server.open(delivery="thread")
    woken = threading.Event()

    def idle() -> None:
        worker.bell.wait(30)
        woken.set()

    thread = threading.Thread(target=idle)
    thread.start()
    listening = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN adroll_outbox'"
        " AND application_name = :name"
    )
    name = sa.make_url(server.url or "").query["application_name"]
    with server.sql().connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        assert wait_until(lambda: bool(connection.scalar(listening, {"name": name})), 20)

    shop.put(server.event("1"))

    assert woken.wait(20)
    thread.join()


def test_a_fault_of_any_kind_does_not_end_it() -> None:
    problems: list[Exception] = [ValueError("x"), OutboxFailed("locked")]
    done = threading.Event()

    def take_in() -> int:
        if problems:
            raise problems.pop(0)
        done.set()
        return 0

    counters = Counters()
    forwarder = Forwarder(take_in, counters, lambda: None)
    forwarder.tell()

    assert done.wait(20)
    forwarder.stop()
    assert counters.get("forward_error", "error") == 1
    assert counters.get("forward_error", "locked") == 1


# -- its end ---------------------------------------------------------------------------------------


@pytest.fixture
def make_forwarder() -> Callable[[Callable[[], int]], Forwarder]:
    return lambda take_in: Forwarder(take_in, Counters(), lambda: None)


def test_no_thread_is_left_of_an_outbox_that_was_closed(tmp_path: Path) -> None:
    before = set(threads())
    site = flask_site(tmp_path, Clock(), configuration({"delivery": "worker"}))
    site.get("/?adct=click1")
    site.get("/buy")
    assert len(set(threads()) - before) == 1

    site.runtime.outbox.close()

    assert set(threads()) <= before
    assert site.runtime.outbox.queue.waiting() == 1


def test_a_report_after_the_end_begins_another_thread(
    make_forwarder: Callable[[Callable[[], int]], Forwarder],
) -> None:
    looked = threading.Semaphore(0)

    def take_in() -> int:
        looked.release()
        return 0

    forwarder = make_forwarder(take_in)
    for _ in range(2):
        forwarder.tell()
        assert looked.acquire(timeout=20)
        forwarder.stop()
    forwarder.stop()  # once more does no harm


def test_the_end_cuts_a_pause_after_a_failure_short(
    make_forwarder: Callable[[Callable[[], int]], Forwarder],
) -> None:
    failed = threading.Event()

    def take_in() -> int:
        failed.set()
        raise OSError("the database is away")

    before = set(threads())
    forwarder = make_forwarder(take_in)
    forwarder.tell()
    assert failed.wait(20)

    forwarder.stop()

    assert set(threads()) <= before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_waits_for_what_the_thread_imports() -> None:
    loading, loaded = threading.Event(), threading.Event()

    def load() -> None:
        loading.set()
        loaded.wait(1.0)
        loaded.set()

    forwarder = Forwarder(lambda: 0, Counters(), load)
    forwarder.tell()
    assert loading.wait(20)

    # What is half imported in the parent stays locked in the child for good.
    pid = os.fork()
    if pid == 0:
        os._exit(0 if loaded.is_set() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    forwarder.stop()
