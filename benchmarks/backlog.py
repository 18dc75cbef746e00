"""What delivery costs while events pile up: memory and time, with 1,000 and a million waiting.

    python -m benchmarks.backlog [--events 1000000] [--json figures.json]

A SQLite outbox is filled with copies of one reported order. Then the delivery loop runs in a
process of its own, for as many requests at 1,000 waiting events as at a million, with AdRoll up (a
local server in another process), refusing connections, and answering 503; its peak memory is the
kernel's ``VmHWM``. Pauses are left out, so that a loop that may not send comes by as often as one
that may. A million events take about 2 GB of disk in the folder for temporary files.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import random
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask

from adroll_flask import AdRoll, report_conversion
from adroll_flask.delivery import pauses_and_stops
from adroll_flask.delivery.deliverer import Deliverer
from adroll_flask.delivery.transport import RequestsTransport
from adroll_flask.outbox.model import Outcome, new_id
from benchmarks import sink

FEW = 1_000
#: Requests of 100 events that both backlogs have enough of.
BATCHES = 10
#: Requests to a server that takes none.
TRIES = 100
ORDER = "order-{:07}"
#: Rows of one transaction while filling.
_CHUNK = 50_000


# The shop


def make_shop(folder: Path, api_url: str = "http://127.0.0.1:9/api") -> Flask:
    app = Flask("backlog", instance_path=str(folder))
    app.config.update(
        SECRET_KEY="backlog",
        ADROLL_ADVERTISABLE_EID="SANDBOXADVERTISABLE01X",
        ADROLL_PIXEL_EID="SANDBOXPIXEL0000000001",
        ADROLL_ACCESS_TOKEN="sandbox-token",
        ADROLL_API_URL=api_url,
        ADROLL_DELIVERY="worker",
        ADROLL_LINGER=0,
        ADROLL_OUTBOX_URL=f"sqlite:///{folder}/outbox.sqlite",
        ADROLL_OUTBOX_MAX_BYTES=0,
    )
    AdRoll(app)
    return app


def outbox_of(app: Flask) -> Any:
    return app.extensions["adroll"].outbox


class Unhurt(random.Random):
    """Jitter that always takes the shortest pause: none."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


class Counted:
    """The network; after so many requests the loop is told to stop, as by SIGTERM."""

    def __init__(self, requests: int, stop: threading.Event) -> None:
        self._network = RequestsTransport()
        self._left = requests
        self._stop = stop

    def send(self, *request: Any) -> Any:
        self._left -= 1
        if self._left <= 0:
            self._stop.set()
        return self._network.send(*request)


def make_deliverer(app: Flask, transport: Any = None) -> Deliverer:
    runtime = app.extensions["adroll"]
    pauses_and_stops.LEAST_PAUSE = 0.0
    return Deliverer(
        runtime.outbox,
        runtime.settings,
        runtime.counters,
        transport=transport,
        rng=Unhurt(),
        poll=0.01,
    )


# Filling


class Backlog:
    """A shop's outbox that is filled up to a number of waiting events.

    The first event is reported; the others are its rows with their own ids, keys, times and order
    numbers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        #: Two hours ago, a millisecond after each other: old enough to be due, and in order.
        self._began = time.time() - 7200
        self.app = make_shop(folder)
        with self.app.app_context():
            receipt = report_conversion(
                order_id=ORDER.format(0),
                value="77.91",
                currency="EUR",
                email="ann@shop.example",
                user_id="customer-42",
                adct="c" * 100,
                first_party_cookie="46d41c62e88bb2e267c1e15314bb8837-1667065540836",
                ip="203.0.113.9",
                user_agent="Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
                " Chrome/140.0.0.0 Safari/537.36",
                page_location="https://shop.example/checkout/thanks?step=3",
                products=[
                    {"product_id": id, "price": "25.97", "quantity": 1, "category": "Kitchen"}
                    for id in ("mug-blue", "mug-red", "plate-deep")
                ],
            )
        assert receipt, receipt
        assert self.outbox.queue.waiting() == 1  # taken in from the journal
        with closing(self._connect()) as connection:
            rows = connection.execute("SELECT * FROM adroll_event")
            self._columns = [column[0] for column in rows.description]
            self._model: list[Any] = list(rows.fetchone())

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.folder / "outbox.sqlite", isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -200000")
        return connection

    @property
    def outbox(self) -> Any:
        return outbox_of(self.app)

    @property
    def payload_bytes(self) -> int:
        payload: bytes = self._model[self._columns.index("payload")]
        return len(payload)

    def fill(self, waiting: int) -> int:
        """Add events until *waiting* wait; returns how many were added."""
        missing: int = waiting - self.outbox.queue.waiting()
        names, marks = ", ".join(self._columns), ", ".join("?" * len(self._columns))
        insert = f"INSERT INTO adroll_event ({names}) VALUES ({marks})"
        rows = self._rows(missing)
        with closing(self._connect()) as connection:
            while chunk := list(itertools.islice(rows, _CHUNK)):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(insert, chunk)
                connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert self.outbox.queue.waiting() == waiting
        return missing

    def _rows(self, count: int) -> Iterator[list[Any]]:
        model = dict(zip(self._columns, self._model, strict=True))
        old, payload = model["dedupe_key"].encode(), model["payload"]
        place = {name: self._columns.index(name) for name in self._columns}
        for number in itertools.islice(self._numbers, count):
            at = self._began + number * 0.001
            id, key = new_id(at), ORDER.format(number)
            row = list(self._model)
            # A number that was given before would meet the place that its delivered row moved to.
            row[place["seq"]] = model["seq"] + number
            row[place["id"]], row[place["dedupe_key"]] = id, key
            row[place["payload"]] = payload.replace(old, key.encode())
            for name in ("occurred_at", "queued_at", "due_at"):
                row[place[name]] = at
            yield row

    def close(self) -> None:
        self.outbox.close()


# AdRoll, up and down


class _Handler(sink.Handler):
    def do_POST(self) -> None:
        if not self.path.startswith("/busy"):
            super().do_POST()
            return
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Sink(sink.Sink):
    def __init__(self) -> None:
        super().__init__(0)
        self.RequestHandlerClass = _Handler


@dataclass
class Server:
    """The sink in another process, and a port at which nobody listens."""

    port: int
    closed_port: int
    ways: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.ways = {
            "up": f"http://127.0.0.1:{self.port}/api",
            "refused": f"http://127.0.0.1:{self.closed_port}/api",
            "503": f"http://127.0.0.1:{self.port}/busy",
        }

    def seen(self) -> dict[str, int]:
        """What came since the last time that this was asked."""
        url = f"http://127.0.0.1:{self.port}/"
        with urllib.request.urlopen(url, timeout=10) as answer:
            seen: dict[str, int] = json.load(answer)
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=10).close()
        return seen


@contextmanager
def server() -> Iterator[Server]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.backlog", "--sink"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout
            yield Server(int(process.stdout.readline()), closed.getsockname()[1])
        finally:
            process.kill()
            process.communicate()


# Measuring


def memory(name: str) -> float:
    """MB of this process: ``VmRSS`` now, ``VmHWM`` at the most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


def deliver(folder: Path, api_url: str, requests: int) -> dict[str, Any]:
    """The delivery loop, until so many requests were made; run in a process of its own."""
    logging.getLogger("adroll_flask").setLevel(logging.CRITICAL)
    app = make_shop(folder, api_url)
    stop = threading.Event()
    deliverer = make_deliverer(app, Counted(requests, stop))
    before = memory("VmRSS")
    deliverer.run(stop)
    # What the loop does once a minute.
    outbox_of(app).admin.keep_house()
    outbox_of(app).queue.oldest_due()
    outbox_of(app).close()
    return {"before": before, "peak": memory("VmHWM")}


def peak(backlog: Backlog, server: Server, way: str, requests: int) -> float:
    """MB that the delivery loop has at the most; checks that it did what it should."""
    before = backlog.outbox.queue.waiting()
    server.seen()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.backlog", "--deliver"),
            *(str(backlog.folder), server.ways[way], str(requests)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    backlog.outbox.destination("SANDBOXADVERTISABLE01X").succeeded()
    sent = 100 * requests if way == "up" else 0
    seen = server.seen()
    assert (seen["orders"], seen["twice"]) == (sent, 0), seen
    assert backlog.outbox.queue.waiting() == before - sent
    return float(json.loads(done.stdout)["peak"])


def peaks(backlog: Backlog, server: Server, events: int, *, long: int = 0) -> dict[str, float]:
    """Peak memory with *events* waiting, by what AdRoll does and how often it is asked.

    :param long: requests of one more run with AdRoll up.
    """
    found = {}
    backlog.fill(events)
    for way, requests in (("refused", TRIES), ("503", TRIES), ("up", BATCHES), ("up", long)):
        if requests:
            found[f"{way}, {requests} requests"] = peak(backlog, server, way, requests)
    return found


def times(backlog: Backlog, server: Server, events: int, rounds: int = 7) -> dict[str, Any]:
    """Milliseconds of a claim of 100 and of a whole step, median and least."""
    backlog.fill(events)
    outbox = backlog.outbox
    app = make_shop(backlog.folder, server.ways["up"])
    deliverer = make_deliverer(app)
    took: dict[str, list[float]] = {"claim": [], "step": []}
    for number in range(rounds + 2):
        seconds, claim = timed(outbox.queue.claim)
        assert len(claim.events) == 100
        outbox.queue.settle(
            claim, [Outcome(ids=[event.id for event in claim.events], kind="return")]
        )
        step, delivered = timed(partial(deliverer.drain, until=0.0))
        assert delivered == 100
        if number >= 2:
            took["claim"].append(seconds)
            took["step"].append(step)
    outbox_of(app).close()
    return {
        name: {"median": statistics.median(all_) * 1000, "least": min(all_) * 1000}
        for name, all_ in took.items()
    }


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


@contextmanager
def backlog_in_a_folder() -> Iterator[Backlog]:
    # Whoever makes the journal's next file may still be at it.
    with tempfile.TemporaryDirectory(prefix="adroll-", ignore_cleanup_errors=True) as folder:
        backlog = Backlog(Path(folder))
        try:
            yield backlog
        finally:
            backlog.close()


def measure(many: int, long: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        one = stack.enter_context(server())
        backlog = stack.enter_context(backlog_in_a_folder())
        for events in (FEW, many):
            seconds, added = timed(partial(backlog.fill, events))
            size = (backlog.folder / "outbox.sqlite").stat().st_size
            figures[f"{events:,}"] = {
                "filling": {"events": added, "seconds": seconds, "file_mb": size / 1e6},
                "times": times(backlog, one, events),
                "peaks": peaks(backlog, one, events, long=long if events > FEW else 0),
            }
        figures["payload_bytes"] = backlog.payload_bytes
    return figures


def show(figures: dict[str, Any]) -> None:
    levels = [level for level in figures if level != "payload_bytes"]
    print(f"an event: {figures['payload_bytes']} bytes of JSON")
    for level in levels:
        filling = figures[level]["filling"]
        print(
            f"filled up to {level}: {filling['events']:,} rows in {filling['seconds']:.1f} s,"
            f" the file has {filling['file_mb']:,.0f} MB"
        )
    print(f"\n{'waiting':<34}" + "".join(f"{level:>16}" for level in levels))
    for name in ("claim", "step"):
        shown = [figures[level]["times"][name] for level in levels]
        cells = "".join(f"{one['median']:>9.1f} / {one['least']:>4.1f}" for one in shown)
        print(f"{name + ', ms, median / least':<34}{cells}")
    for name in figures[levels[-1]]["peaks"]:
        found = [figures[level]["peaks"].get(name) for level in levels]
        cells = "".join(" " * 16 if one is None else f"{one:>16.1f}" for one in found)
        print(f"{'peak MB: ' + name:<34}{cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--long", type=int, default=300, help="requests of the longest run")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--deliver", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sink:
        with _Sink() as one:
            print(one.server_port, flush=True)
            one.serve_forever()
    elif options.deliver:
        folder, url, requests = options.deliver
        print(json.dumps(deliver(Path(folder), url, int(requests))))
    else:
        figures = measure(options.events, options.long)
        show(figures)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
