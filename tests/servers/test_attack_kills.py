"""Kills of what the other proofs leave alive: uWSGI's workers, database servers, a broker."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from adroll_flask.sandbox import RunningSandbox, running
from benchmarks import servers as databases
from tests.servers.test_celery import Worker, rows_in
from tests.support import PATIENCE as MOMENT
from tests.support import lacking
from tests.support.outbox_engines import wait_until
from tests.support.shops import Shop, orders
from tests.support.wsgi_servers import PATIENCE, Server, serving, uwsgi

pytestmark = pytest.mark.slow


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with running(strict=True) as one:
        yield one


def buy(server: Server, order: str) -> bool:
    """Whether the order was acknowledged; a worker that is killed answers nothing."""
    with suppress(OSError, HTTPException, urllib.error.URLError):
        return server.buy(order) == "queued"
    return False


@pytest.mark.parametrize("options", [("--threads=2",), ("--enable-threads", "--lazy-apps")])
def test_no_kill_of_uwsgis_workers_loses_an_order(
    options: tuple[str, ...], sandbox: RunningSandbox, tmp_path: Path
) -> None:
    chance = random.Random(7)
    acknowledged, kills = [], 0
    with serving(uwsgi(*options), tmp_path, sandbox.api_url) as server:
        sandbox.fault(latency=0.05)  # so that kills meet requests
        for number in range(160):
            order = f"order-{number}"
            if buy(server, order):
                acknowledged.append(order)
            if number % 12 == 11:
                with suppress(ProcessLookupError, OSError, HTTPException):
                    os.kill(int(server.ask("/")["pid"]), signal.SIGKILL)
                    kills += 1
                time.sleep(chance.uniform(0, 0.2))
        assert kills >= 8
        assert len(acknowledged) >= 100, server.log
        sandbox.clear_faults()
        shop = Shop(tmp_path).at(sandbox)
        # What was being sent waits until its lease ends.
        assert wait_until(lambda: set(acknowledged) <= set(orders(sandbox)), PATIENCE), server.log
        assert wait_until(lambda: shop.as_json("outbox")["counts"]["waiting"] == 0, PATIENCE)
    # How a server stops is shown elsewhere: this one ends by the last kill of all.
    rows = {row.key: row for row in rows_in(tmp_path).values()}
    doubled = [order for order, count in Counter(orders(sandbox)).items() if count > 1]
    assert all(rows[order].unsure for order in doubled)


@pytest.mark.parametrize("engine", databases.ENGINES)
def test_a_database_server_that_is_killed_delays_orders_and_loses_none(
    engine: str, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    if why := databases.missing(engine):
        lacking(why)
    with databases.server(engine) as database:
        shop = Shop(tmp_path / "shop").at(sandbox, outbox_url=database.url, linger=0.05)
        told, last = [], 0
        with (
            shop.running("worker", log=tmp_path / "worker.log") as worker,
            shop.reporting() as reporter,
        ):

            def report(count: int) -> None:
                nonlocal last
                told.extend(reporter.report(f"order:{last + 1}-{last + count}"))
                last += count

            report(20)
            assert wait_until(lambda: len(orders(sandbox)) >= 20, PATIENCE)
            for _ in range(3):
                sandbox.fault(latency=0.3, times=2)
                report(20)
                time.sleep(0.3)  # amid taking in, claiming or settling
                database.kill()
                began = time.monotonic()
                report(20)
                assert time.monotonic() - began < 30, "no report waits for the database"
                database.start()
            assert wait_until(lambda: len(set(orders(sandbox))) >= last, PATIENCE)
            assert worker.poll() is None
        assert set(told) == {"queued"}
        counts = Counter(orders(sandbox))
        assert len(counts) == last == 140
        assert wait_until(lambda: shop.as_json("outbox")["counts"]["waiting"] == 0, PATIENCE)
        unsure = {
            row["key"] for row in shop.as_json("outbox", "list", "--limit", "1000") if row["unsure"]
        }
        doubled = {order for order, count in counts.items() if count > 1}
        assert doubled <= unsure


@contextmanager
def redis(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A broker of this test's own, which keeps what it has on its disk."""
    command = ["redis-server", "--port", str(port), "--dir", str(folder), "--appendonly", "yes"]
    process = subprocess.Popen([*command, "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
    try:

        def answers() -> bool:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            return False

        assert wait_until(answers, MOMENT)
        yield process
    finally:
        process.kill()
        process.wait()


def test_kills_of_celerys_broker_and_children_lose_no_order(
    sandbox: RunningSandbox, tmp_path: Path
) -> None:
    import shutil

    if shutil.which("redis-server") is None:
        lacking("redis-server is not installed")
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = int(free.getsockname()[1])
    broker = f"redis://127.0.0.1:{port}/0"
    (folder := tmp_path / "redis").mkdir()
    (shop_folder := tmp_path / "shop").mkdir()
    shop = Shop(shop_folder).at(sandbox)
    with redis(folder, port):
        worker = Worker(shop_folder, broker, sandbox.api_url, every=1.0)
    try:
        told = []
        with shop.reporting() as reporter:
            for kill in range(3):
                told += reporter.report(f"order:{kill * 20 + 1}-{kill * 20 + 10}")  # no broker
                with redis(folder, port):
                    worker.start_again_if_it_ended()
                    told += reporter.report(f"order:{kill * 20 + 11}-{kill * 20 + 20}")
                    time.sleep(2.0)  # beat asks each second
                    worker.kill_children()
        assert set(told) == {"queued"}
        wanted = {str(number) for number in range(1, 61)}

        def all_arrived() -> bool:
            worker.start_again_if_it_ended()
            return wanted <= set(orders(sandbox))

        with redis(folder, port):
            assert wait_until(all_arrived, PATIENCE), worker.log
            rows = rows_in(shop_folder)
            doubled = [order for order, count in Counter(orders(sandbox)).items() if count > 1]
            assert all(rows[order].unsure for order in doubled)
            worker.clean_up()
    finally:
        with suppress(Exception):
            worker.clean_up()
