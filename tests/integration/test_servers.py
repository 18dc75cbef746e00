"""A shop under real gunicorn workers: what goes in comes out at AdRoll, once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gunicorn.workers import SUPPORTED_WORKERS

from adroll_flask.outbox import open_outbox
from adroll_flask.sandbox import RunningSandbox, running
from adroll_flask.settings import Settings

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
WORKERS = 2
ORDERS = 40
CLIENTS = 4
#: Seconds; for a machine that has much else to do.
PATIENCE = 60.0

SERVERS = {
    "sync": ["--worker-class=sync"],
    "sync with --preload": ["--worker-class=sync", "--preload"],
    "gthread": ["--worker-class=gthread", "--threads=4"],
    "gevent": ["--worker-class=gevent"],
    # gunicorn had this worker up to its version 25.
    "eventlet": ["--worker-class=eventlet"],
}


class Server:
    """One gunicorn."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self.url = self._wait_for_url()

    def _wait_for_url(self) -> str:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self._process.poll() is None:
            found = re.search(r"Listening at: (http://\S+)", self.log)
            if found:
                return found[1]
            time.sleep(0.02)
        raise AssertionError(f"gunicorn did not start:\n{self.log}")

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(self, path: str, method: str = "GET") -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def buy(self, order: str) -> dict[str, Any]:
        return self.ask(f"/orders/{order}", "POST")

    def wait_until_all_deliver(self) -> None:
        """Until each worker was met and has a delivery thread that runs."""
        delivering: set[int] = set()
        until = time.monotonic() + PATIENCE
        with ThreadPoolExecutor(CLIENTS) as clients:
            while len(delivering) < WORKERS:
                assert time.monotonic() < until, f"only {delivering} deliver:\n{self.log}"
                # Several at once: one client alone may meet the same worker all the time.
                for said in clients.map(self.ask, ["/"] * CLIENTS):
                    if said["delivers"]:
                        delivering.add(said["pid"])

    def stop(self) -> float:
        """Stop gracefully; returns the seconds that it took."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE) == 0, self.log
        return time.monotonic() - began

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextmanager
def gunicorn(options: list[str], folder: Path, api_url: str) -> Iterator[Server]:
    log = folder / "gunicorn.log"
    command = [
        *(sys.executable, "-m", "gunicorn", "server_shop:make_shop()"),
        *("--bind=127.0.0.1:0", f"--workers={WORKERS}", "--graceful-timeout=10"),
        *(f"--chdir={HERE}", "--no-control-socket", *options),
    ]
    if "--no-control-socket" not in _help():
        command.remove("--no-control-socket")
    environ = os.environ | {"SHOP_FOLDER": str(folder), "FLASK_ADROLL_API_URL": api_url}
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environ, stderr=out, text=True)
    server = None
    try:
        server = Server(process, log)
        yield server
    finally:
        if server is not None:
            server.close()
        elif process.poll() is None:
            process.kill()
            process.wait()


def _help() -> str:
    from gunicorn.config import Config

    return Config().parser().format_help()


@pytest.fixture(scope="module")
def adroll() -> Iterator[RunningSandbox]:
    with running() as sandbox:
        yield sandbox


def left_in(folder: Path) -> int:
    outbox = open_outbox(Settings(), folder=folder)
    try:
        return outbox.waiting()
    finally:
        outbox.close()


@pytest.mark.parametrize("kind", SERVERS)
def test_every_order_arrives_once_and_a_restart_delivers_what_a_stop_left(kind, adroll, tmp_path):
    options = SERVERS[kind]
    if kind not in (*SUPPORTED_WORKERS, "sync with --preload"):
        pytest.skip(f"this gunicorn has no {kind} worker")
    adroll.reset()
    orders = [f"order-{number}" for number in range(ORDERS)]
    doubled = [*orders, *orders[::8]]  # reloads of the thank-you page
    with gunicorn(options, tmp_path, adroll.api_url) as server:
        with ThreadPoolExecutor(CLIENTS) as clients:
            statuses = Counter(said["status"] for said in clients.map(server.buy, doubled))
        assert statuses == {"queued": ORDERS, "duplicate": len(doubled) - ORDERS}, server.log
        server.wait_until_all_deliver()
        adroll.wait(ORDERS, timeout=PATIENCE)

        # AdRoll takes nothing; the server stops all the same, and quickly.
        adroll.fault(status=503, headers={"Retry-After": "1"})
        for number in range(10):
            server.buy(f"late-{number}")
        took = server.stop()
        assert took < 9, "the exit waits 2 s for what is in flight, not for gunicorn's patience"
        assert left_in(tmp_path) == 10

    # Started again, a request that sells nothing is enough.
    adroll.clear_faults()
    with gunicorn(options, tmp_path, adroll.api_url) as server:
        server.ask("/")
        adroll.wait(ORDERS + 10, timeout=PATIENCE)
        server.stop()
    arrived = Counter(purchase["order_id"] for purchase in adroll.purchases())
    assert arrived == dict.fromkeys([*orders, *(f"late-{n}" for n in range(10))], 1)
    assert left_in(tmp_path) == 0
