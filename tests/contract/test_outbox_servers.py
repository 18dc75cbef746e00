"""PostgreSQL and MariaDB: restarts, silence, forks, announcements, clocks that differ."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from outbox_engines import Bench, wait_until
from relay import Relay

from adroll_flask.outbox import Outbox, OutboxFailed, Outcome


@pytest.fixture
def relay(server: Bench) -> Iterator[Relay]:
    url = sa.make_url(server.url or "")
    relay = Relay((url.host or "", url.port or 0))
    yield relay
    for outbox in server.opened:
        outbox.close()
    relay.cut()


@pytest.fixture
def outbox(server: Bench, relay: Relay) -> Outbox:
    url = sa.make_url(server.url or "").set(port=relay.port)
    return server.open(outbox_url=url.render_as_string(hide_password=False))


def keys(outbox: Outbox) -> list[str]:
    found: list[str] = []
    while claim := outbox.claim():
        found += [event.key or "" for event in claim.events]
    return sorted(found)


def test_a_lost_connection_is_replaced_without_a_word(
    server: Bench, relay: Relay, outbox: Outbox
) -> None:
    outbox.put(server.event("1"))
    assert keys(outbox) == ["1"]
    relay.cut()
    relay.mend()

    put = outbox.put(server.event("2"))

    assert (put.status, put.spilled) == ("queued", None)
    assert keys(outbox) == ["2"]


def test_while_the_server_is_away_reports_spill_and_workers_wait(
    server: Bench, relay: Relay, outbox: Outbox
) -> None:
    outbox.put(server.event("1"))
    relay.cut()

    put = [outbox.put(server.event(key)).spilled for key in ("1", "2", "3")]

    assert put == ["unavailable"] * 3
    for work in (outbox.claim, outbox.destination, outbox.waiting, outbox.housekeep):
        with pytest.raises(OutboxFailed) as caught:
            work()
        assert caught.value.reason == "unavailable"
    relay.mend()
    assert keys(outbox) == ["1", "2", "3"]
    assert server.counters.get("event_duplicate", "spilled") == 1
    assert not server.spill.exists()


def test_where_no_worker_is_on_the_host_reports_bring_the_spill_back(
    server: Bench, relay: Relay, outbox: Outbox
) -> None:
    outbox.put(server.event("1"))
    relay.cut()
    outbox.put(server.event("2"))
    relay.mend()

    def back() -> bool:
        outbox.put(server.event())
        return not server.spill.exists()

    assert wait_until(back)
    assert {row.key for row in outbox.list()} >= {"1", "2"}


def test_a_server_that_hangs_costs_one_report_two_seconds_and_the_next_none(
    server: Bench, relay: Relay, outbox: Outbox
) -> None:
    outbox.put(server.event("1"))
    relay.mute()

    began = time.monotonic()
    assert outbox.put(server.event("2")).spilled == "unavailable"
    first = time.monotonic() - began
    began = time.monotonic()
    assert outbox.put(server.event("3")).spilled == "unavailable"

    assert first < 4
    assert time.monotonic() - began < 0.5


def test_a_settling_whose_connection_is_lost_settles_once(
    server: Bench, relay: Relay, outbox: Outbox
) -> None:
    outbox.put(server.event("1"))
    claim = outbox.claim()
    assert claim is not None
    outbox.begin_sending(claim)
    relay.cut()
    relay.mend()

    assert outbox.settle(claim, [Outcome(id=claim.events[0].id, kind="delivered")]) == 1
    assert outbox.counts()["delivered"] == 1


def test_a_report_does_not_wait_for_a_locked_table(server: Bench, outbox: Outbox) -> None:
    outbox.put(server.event("1"))
    with server.sql().connect() as connection:
        if server.engine == "postgresql":
            connection.execute(sa.text("LOCK TABLE adroll_event IN ACCESS EXCLUSIVE MODE"))
        else:
            connection.execute(sa.text("LOCK TABLES adroll_event WRITE"))
        began = time.monotonic()
        put = outbox.put(server.event("2"))
        took = time.monotonic() - began
        if server.engine == "mariadb":
            connection.execute(sa.text("UNLOCK TABLES"))

    assert put.spilled == "locked"
    assert took < 2.5
    assert keys(outbox) == ["1", "2"]


def test_a_forked_child_leaves_the_parent_s_connections_alone(
    server: Bench, outbox: Outbox
) -> None:
    outbox.put(server.event("parent"))
    outbox.wait_for_work(0.01)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            outbox.wait_for_work(0.01)
            outbox.put(server.event("child"))
            status = 0 if outbox.waiting() == 2 else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0

    assert outbox.put(server.event("parent again")).spilled is None
    assert keys(outbox) == ["child", "parent", "parent again"]


def test_leases_follow_the_server_s_clock_and_not_the_host_s(server: Bench) -> None:
    fast, slow = server.open(), server.open()
    fast._clock = lambda: time.time() + 600  # type: ignore[attr-defined]
    slow._clock = lambda: time.time() - 600  # type: ignore[attr-defined]
    slow.put(server.event("1"))

    assert fast.claim(lease=60) is not None
    assert slow.claim() is None
    fast.put(server.event("2"))
    claim = slow.claim()
    assert claim is not None
    assert abs(claim.claimed_at - time.time()) < 60


def test_a_report_wakes_an_idle_worker_of_another_host(server: Bench) -> None:
    if server.engine != "postgresql":
        pytest.skip("MariaDB has no NOTIFY; workers ask again")
    worker, shop = server.open(), server.open()
    shop.put(server.event())
    woken = threading.Event()

    def idle() -> None:
        worker.wait_for_work(20)
        woken.set()

    thread = threading.Thread(target=idle)
    thread.start()
    listening = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN adroll_outbox'"
    )
    with server.sql().connect() as connection:
        # Within one transaction pg_stat_activity would stay as it was first seen.
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        assert wait_until(lambda: bool(connection.scalar(listening)))
    time.sleep(0.2)

    shop.put(server.event())

    assert woken.wait(5)
    thread.join()


def test_a_worker_that_cannot_listen_asks_again(
    server: Bench, relay: Relay, outbox: Outbox
) -> None:
    outbox.wait_for_work(0.01)
    relay.cut()

    began = time.monotonic()
    outbox.wait_for_work(0.3)
    outbox.wait_for_work(0.3)
    took = time.monotonic() - began

    assert 0.25 < took < 3
    relay.mend()
    outbox.put(server.event("1"))
    outbox.wait_for_work(0.01)
    assert keys(outbox) == ["1"]


def test_nothing_of_the_url_s_password_is_shown(server: Bench) -> None:
    url = sa.make_url(server.url or "").set(username="nobody", password="s3cret-pw")
    outbox = server.open(outbox_url=url.set(port=1).render_as_string(hide_password=False))

    with pytest.raises(OutboxFailed) as caught:
        outbox.claim()

    assert "s3cret" not in repr(outbox) + str(caught.value) + repr(caught.value.__cause__)


def test_workers_drain_a_backlog_once_while_reports_come_in(server: Bench) -> None:
    shop = server.open()
    for n in range(200):
        shop.put(server.event(str(n)))
    delivered: list[str] = []
    stop = threading.Event()

    def work(worker: Outbox) -> None:
        while True:
            last = stop.is_set()
            claim = worker.claim(limit=20)
            if claim is None:
                if last:
                    return
                continue
            ours = worker.begin_sending(claim)
            delivered.extend(ours)
            worker.settle(claim, [Outcome(id=id, kind="delivered") for id in ours])

    threads = [threading.Thread(target=work, args=(server.open(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(200, 300):
        shop.put(server.event(str(n)))
    stop.set()
    for thread in threads:
        thread.join()

    assert len(delivered) == len(set(delivered)) == 300
    assert shop.counts()["delivered"] == 300
