"""Worker processes drain an outbox on a server while they and the server are killed.

``python -m benchmarks.drain --events 200000``; ``--calm 1 2 4`` measures undisturbed workers.

The workers are ``flask adroll worker``; the sink notes every order that it takes. All workers are
killed while their requests hang, the database in the middle, single workers later; some events
are reported beside that. In the end every event must have arrived, and those that arrived twice
must carry the mark *unsure*. Prints a line of JSON per run; exit code 1: not so.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from flask import Flask

from adroll_flask import AdRoll
from adroll_flask.outbox.model import NewEvent, new_id
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.settings import Settings
from benchmarks.servers import ENGINES, Server, server
from tests.support.chaos import verdict

ROOT = Path(__file__).resolve().parents[1]

EID, PIXEL = "SANDBOXADVERTISABLE01X", "SANDBOXPIXEL0000000001"
STATES = ("waiting", "claimed", "sending", "delivered", "dead")
_ORDER = re.compile(rb'"order_id":"(\w+)"')


def create_app() -> Flask:
    """The workers' app: configured by the environment, with a lease that a test can wait for."""
    app = Flask("drain", instance_path=os.environ["DRAIN_FOLDER"])
    app.config.update(SECRET_KEY="drain", ADROLL_DELIVERY="worker", ADROLL_LINGER=0.05)
    app.config.from_prefixed_env()
    AdRoll(app)
    deliverer = app.extensions["adroll"].deliverer
    deliverer.lease = float(os.environ["DRAIN_LEASE"])
    return app


class Sink(ThreadingHTTPServer):
    """Takes everything; with :attr:`open` cleared it takes a request and does not answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.seen: Counter[str] = Counter()
        #: When, how many events, and the connection's port.
        self.requests: list[tuple[float, int, int]] = []
        self.hanging = 0
        self.open = threading.Event()
        self.open.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a killed worker hangs up in the middle


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        orders = [order.decode() for order in _ORDER.findall(gzip.decompress(body))]
        sink = self.server
        with sink.lock:
            sink.requests.append((time.time(), len(orders), self.client_address[1]))
            sink.seen.update(orders)
            sink.hanging += not sink.open.is_set()
        sink.open.wait(10)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def running_sink() -> Any:
    sink = Sink()
    threading.Thread(target=sink.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield sink
    finally:
        sink.open.set()
        sink.shutdown()
        sink.server_close()


class Workers:
    """``flask adroll worker`` processes.

    :param more: environment variables for them.
    """

    def __init__(self, url: str, api_url: str, folder: Path, lease: float, **more: str) -> None:
        self._folder = folder
        self._environ = os.environ | {
            "DRAIN_FOLDER": str(folder),
            "DRAIN_LEASE": str(lease),
            "FLASK_ADROLL_OUTBOX_URL": url,
            "FLASK_ADROLL_API_URL": api_url,
            "FLASK_ADROLL_ADVERTISABLE_EID": EID,
            "FLASK_ADROLL_PIXEL_EID": PIXEL,
            "FLASK_ADROLL_ACCESS_TOKEN": "sandbox-token",
            **more,
        }
        self.all: list[subprocess.Popen[bytes]] = []
        self.spent = 0.0

    def start(self, count: int = 1, *arguments: str) -> None:
        command = [sys.executable, "-m", "flask", "--app", "benchmarks.drain"]
        with (self._folder / "workers.log").open("ab") as log:
            for _ in range(count):
                self.all.append(
                    subprocess.Popen(
                        [*command, "adroll", "worker", *arguments],
                        env=self._environ,
                        cwd=ROOT,
                        stdout=log,
                        stderr=log,
                    )
                )

    def kill(self, count: int) -> int:
        for worker in self.all[:count]:
            self.spent += cpu(worker.pid)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        del self.all[:count]
        return count

    def close(self) -> list[int]:
        """End them as an operator does; returns their exit codes."""
        self.spent += sum(cpu(worker.pid) for worker in self.all)
        for worker in self.all:
            worker.send_signal(signal.SIGCONT)
        for worker in self.all:
            # One that was begun a moment ago does not know the signal yet, and would die of it.
            wait_for(partial(ended_or_hears_sigterm, worker), 60, "a worker that began")
            worker.terminate()
        codes = []
        for worker in self.all:
            try:
                codes.append(worker.wait(20))
            except subprocess.TimeoutExpired:
                worker.kill()
                codes.append(worker.wait())
        self.all = []
        return codes


def ended_or_hears_sigterm(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has a handler for it (proc(5), ``SigCgt``), or has ended."""
    if process.poll() is not None:
        return True
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def cpu(pid: int) -> float:
    """Seconds of CPU time that a process has had."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.02)


def payload(order: str) -> bytes:
    wire = {
        "advertisable_eid": EID,
        "pixel_eid": PIXEL,
        "event_name": "purchase",
        "page_location": "https://shop.example/thanks",
        "ip": "203.0.113.9",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0",
        "conversion_value": "59.90",
        "currency": "EUR",
        "identifiers": {"adct": "click-123", "email_sha256": "0" * 64},
        "event_attributes": {"order_id": order},
        "products": [{"product_id": "mug", "price": "29.95", "quantity": "2"}],
    }
    return json.dumps(wire, separators=(",", ":")).encode()


_FILL = (
    "INSERT INTO adroll_event (id, event_name, advertisable_eid, dry_run, dedupe_key, payload,"
    " occurred_at, queued_at, due_at)"
    " VALUES (:id, 'purchase', :eid, 0, :key, :payload, :at, :at, :at)"
)


def new_event(order: str) -> NewEvent:
    now = time.time()
    return NewEvent(new_id(now), "purchase", EID, False, order, payload(order), now)


def fill(url: str, orders: list[str]) -> None:
    """Put events in as rows, many at a time: reporting is not what is measured."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    for start in range(0, len(orders), 2_000):
        rows = [
            {
                "id": one.id,
                "eid": one.advertisable_eid,
                "key": one.key,
                "payload": one.payload,
                "at": one.occurred_at,
            }
            for one in map(new_event, orders[start : start + 2_000])
        ]
        with engine.begin() as connection:
            connection.execute(sa.text(_FILL), rows)


class _Row(NamedTuple):
    state: str
    unsure: bool
    attempts: int


def rows(url: str) -> dict[str, _Row]:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    query = "SELECT dedupe_key, state, unsure, attempts FROM adroll_event"
    with engine.connect() as connection:
        return {
            str(row[0]): _Row(STATES[row[1]], bool(row[2]), row[3])
            for row in connection.execute(sa.text(query))
        }


def outbox_at(url: str, folder: Path) -> Outbox:
    return Outbox(Settings(outbox_url=url), folder=folder)


def report(outbox: Outbox, count: int, acknowledged: list[str], stop: threading.Event) -> None:
    """Report beside the drain, through the database's death as well."""
    for number in range(count):
        if stop.is_set():
            return
        outbox.put(new_event(f"beside{number}"))
        acknowledged.append(f"beside{number}")
        stop.wait(0.005)


def drain(
    server: Server, events: int, *, beside: int = 500, lease: float = 60.0, workers: int = 4
) -> dict[str, Any]:
    """Drain *events* and *beside* with kills of everything; returns the summary."""
    began = time.monotonic()
    acknowledged = [f"order{number}" for number in range(events)]
    stop = threading.Event()
    kills = 0
    with tempfile.TemporaryDirectory() as name, running_sink() as sink:
        folder = Path(name)
        outbox = outbox_at(server.url, folder)
        outbox.database.create_tables()
        fill(server.url, list(acknowledged))
        crew = Workers(server.url, sink.url, folder, lease)
        reporter = threading.Thread(target=report, args=(outbox, beside, acknowledged, stop))
        total = events + beside
        started = time.monotonic()

        def reach(share: float) -> None:
            wait_for(lambda: len(sink.seen) >= share * events, 600, f"{share:.0%} of the events")

        try:
            crew.start(workers)
            reach(0.2)
            reporter.start()
            sink.open.clear()
            wait_for(lambda: sink.hanging >= workers, 30, "a request of each worker hangs")
            kills += crew.kill(workers)
            sink.open.set()
            crew.start(workers)
            reach(0.4)
            server.kill()
            time.sleep(0.5)
            server.start()
            for share in (0.6, 0.7):
                reach(share)
                kills += crew.kill(1)
                crew.start()
            reporter.join(120)
            wait_for(lambda: len(sink.seen) >= total, 600, "all events arrive")
            wait_for(lambda: not outbox.queue.waiting(), 60 + 2 * lease, "the last leases")
            seconds = time.monotonic() - started
            codes = crew.close()
        finally:
            stop.set()
            crew.close()
        outbox.close()
        found = rows(server.url)
        wrong = verdict(acknowledged, sink.seen, found)
        return {
            "engine": server.engine,
            "events": total,
            "acknowledged": len(acknowledged),
            "arrived": len(sink.seen),
            "arrived_twice": sum(count > 1 for count in sink.seen.values()),
            "marked_unsure": sum(row.unsure for row in found.values()),
            "kills": kills,
            "journal_bytes": outbox.lookups.bytes_waiting(),
            "exit_codes": codes,
            "wrong": wrong[:20],
            "drain_seconds": round(seconds, 1),
            "seconds": round(time.monotonic() - began, 1),
        }


def calm(server: Server, events: int, workers: int) -> dict[str, Any]:
    """How many events a second undisturbed workers drain, and who used the CPU meanwhile."""
    with tempfile.TemporaryDirectory() as name, running_sink() as sink:
        folder = Path(name)
        outbox = outbox_at(server.url, folder)
        outbox.database.create_tables()
        crew = Workers(server.url, sink.url, folder, 60.0)
        try:
            # They start first, so that Python's start is not measured.
            crew.start(workers)
            outbox.put(new_event(f"first{time.time_ns()}"))
            wait_for(lambda: sink.seen, 60, "the workers start")
            time.sleep(2)
            pause(server.url, 3600)
            fill(server.url, [f"calm{time.time_ns()}x{number}" for number in range(events)])
            before = _cpu(crew, server)
            pause(server.url, 0)
            wait_for(lambda: len(sink.seen) > events, 600, "all events arrive")
            after = _cpu(crew, server)
        finally:
            crew.close()
        outbox.close()
    taken = [at for at, _, _ in sink.requests[1:]]
    seconds = max(taken) - min(taken)
    used = {who: round((after[who] - before[who]) / seconds, 2) for who in after}
    return {
        "engine": server.engine,
        "workers": workers,
        "events_per_second": round(events / seconds),
        "cpus_used": used,
        "requests": len(taken),
    }


def pause(url: str, seconds: float) -> None:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        statement = sa.text("UPDATE adroll_account SET paused_until = :until")
        connection.execute(statement, {"until": time.time() + seconds if seconds else 0})


def _cpu(crew: Workers, server: Server) -> dict[str, float]:
    return {
        "workers": sum(cpu(worker.pid) for worker in crew.all),
        "database": sum(map(cpu, server.pids)),
        "sink": time.process_time(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--lease", type=float, default=60.0)
    parser.add_argument("--calm", type=int, nargs="+", help="numbers of undisturbed workers")
    options = parser.parse_args()
    failed = False
    for engine in options.engine or ENGINES:
        with server(engine) as one:
            for workers in options.calm or ():
                print(json.dumps(calm(one, options.events, workers)), flush=True)
            if not options.calm:
                summary = drain(one, options.events, lease=options.lease)
                print(json.dumps(summary), flush=True)
                failed |= bool(summary["wrong"])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
