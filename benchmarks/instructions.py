"""Instructions that a request costs, counted by valgrind's callgrind: the same on any day.

``python -m benchmarks.instructions`` (``--short``: without the peers). Each shop answers a few
requests, and then more; the difference is divided by that of the numbers, so that what happens
once falls out. What is done by the clock is counted apart: the thread that answers is told from
those beside it, and taking in and delivery are counted in a process that can start no thread, in
batches of all that was reported.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from flask import redirect
from werkzeug.wrappers import Response

from benchmarks import reporters
from benchmarks.page import make_app, page_of
from benchmarks.side_by_side import Sink
from benchmarks.visits import AGENT, HOST, IP, ask, cookies_of

#: Budgets are for one version of Python: each does the same work in others.
VERSION = (3, 11)
BUDGETS = Path(__file__).with_suffix(".toml")

#: Requests before a count, and of the two counts. Of many, since a collection of garbage falls into
#: one of some fifty requests.
WARM, FEW, MANY = 12, 5, 205
#: Orders that one claim takes, nearly.
A_CLAIM = 95
#: More than are counted.
VISITORS = 230
PEERS = ("Segment", "PostHog")
#: Seconds in which a thread that has anything to do begins it.
_STILL = 2.0
#: Ticks of the processor's time that a thread takes in a second, under valgrind, to look whether
#: there is anything to do; one that has something takes a hundred where it gets them.
_IDLE = 10
#: So often it is looked at most: a thread may be busy for as long as the process lives.
_LONGEST = 20


class Counted(NamedTuple):
    """Instructions of the thread that answers, and of all others."""

    own: float
    beside: float


class Route(NamedTuple):
    method: str
    path: str
    visitor: str  #: ``known`` to the process from the request before, ``another``, or ``new``


ROUTES = {
    "JSON": Route("GET", "/json", "known"),
    "page": Route("GET", "/page/48", "known"),
    "page of another visitor": Route("GET", "/page/48", "another"),
    "new visitor's page": Route("GET", "/page/48", "new"),
    "order": Route("POST", "/checkout", "known"),
    "order of another visitor": Route("POST", "/checkout", "another"),
}


def budgets() -> dict[str, float]:
    """What we may add to a bare shop's requests, in thousands of instructions, by name."""
    table: dict[str, float] = tomllib.loads(BUDGETS.read_text())
    return table


def lower(found: dict[str, float]) -> None:
    """Let nothing cost more than was *found*."""
    text = BUDGETS.read_text()
    for name, most in budgets().items():
        line = f'"{name}" = {min(most, found[name]):.0f}'
        text = re.sub(rf'^"{re.escape(name)}" = \d+', line, text, flags=re.MULTILINE)
    BUDGETS.write_text(text)


def missing() -> str | None:
    """Why nothing can be counted here, or ``None``."""
    lacking = [name for name in ("valgrind", "vgdb") if shutil.which(name) is None]
    return f"{' and '.join(lacking)} is not installed" if lacking else None


# -- under callgrind -----------------------------------------------------------------------


class Shop:
    """A shop that is asked as a server would ask it.

    :param kind: one of ``benchmarks.page.KINDS``; a way to report of
        :data:`benchmarks.reporters.KINDS`; or ours whose orders wait for a worker: ``worker``, and
        ``alone``, from which on the process can start no thread.
    """

    def __init__(self, kind: str, folder: Path, sink: str) -> None:
        self._cookies = _cookies(folder, "session" if kind == "session" else "adroll")
        self._number = time.time_ns() // 1000
        self._others = 0
        own = folder / kind
        own.mkdir()
        self._reporter: Any = None
        if kind in reporters.KINDS:
            self.app = make_app("bare", str(own))
            self._reporter = reporters.KINDS[kind](self.app, sink, own)
        elif kind in ("worker", "alone"):
            if kind == "alone":
                threading.Thread.start = _no_thread  # type: ignore[assignment,method-assign]
            self.app = make_app("bare", str(own))
            self._reporter = reporters.AdRollFlask(self.app, sink, own, "worker")
        else:
            self.app = make_app(kind, str(own))

        @self.app.post("/checkout")
        def checkout() -> Response:
            if self._reporter is not None:
                self._reporter.in_view(f"order-{self._number}")
            return redirect("/thanks", 303)

        if kind == "adroll":
            # The first request starts a thread, which looks for orders: there are none here.
            start, threading.Thread.start = threading.Thread.start, _no_thread  # type: ignore[assignment,method-assign]
            ask(self.app, "/json")
            threading.Thread.start = start  # type: ignore[method-assign]

    def ask(self, route: Route) -> None:
        """One request."""
        self._number += 1
        cookies = ""
        if route.visitor == "another":
            self._others += 1
            cookies = self._cookies[self._others]
        elif route.visitor == "known":
            cookies = self._cookies[0]
        ask(self.app, route.path, method=route.method, cookies=cookies)

    def take_in(self) -> None:
        """Have the outbox take in what was reported: to count what waits is to take it in."""
        with self.app.app_context():
            self.app.extensions["adroll"].flush(0.0)

    def deliver(self) -> None:
        """Claim, send and settle what waits."""
        from adroll_flask.cli.commands import commands

        done = self.app.test_cli_runner().invoke(commands, ["worker", "--once"])
        assert " 0 waiting" in done.output, done.output


class AsgiShop:
    """A shop below :class:`AdRollASGIMiddleware`, or bare, that awaits nothing: so what is counted
    is without an event loop, and without a framework.

    :param kind: ``asgi`` or ``asgi bare``.
    """

    def __init__(self, kind: str, folder: Path, sink: str) -> None:
        from adroll_flask import AdRollASGIMiddleware, report_conversion

        self._cookie = _cookies(folder, "adroll")[0]
        self._number = time.time_ns() // 1000
        page = page_of(48_000).encode()

        async def shop(scope: Any, _receive: Any, send: Any) -> None:
            kind, body = b"text/html; charset=utf-8", page
            if scope["path"] == "/json":
                kind, body = b"application/json", b'{"id": 1, "name": "mug", "price": "29.95"}'
            elif scope["path"] == "/checkout" and self.app is not shop:
                report_conversion(**reporters.properties(f"order-{self._number}"))
            headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        self.app: Any = shop
        if kind == "asgi":
            self.app = AdRollASGIMiddleware(
                shop,
                advertisable_eid=reporters.ADVERTISABLE_EID,
                pixel_eid=reporters.PIXEL_EID,
                access_token="sandbox-token",
                api_url=f"{sink}/api",
                delivery="worker",
                secret_key="a key for the benchmark",
                folder=str(folder / "asgi"),
            )

    def ask(self, route: Route) -> None:
        """One request, as uvicorn hands it over."""
        self._number += 1
        headers = [
            (b"host", HOST.encode()),
            (b"user-agent", AGENT.encode()),
            (b"accept", b"text/html,application/xhtml+xml"),
            (b"sec-fetch-dest", b"document"),
        ]
        if route.visitor != "new":
            headers.append((b"cookie", self._cookie.encode()))
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": route.method,
            "scheme": "https",
            "path": route.path,
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": (IP, 50_000),
            "server": (HOST, 443),
        }
        with suppress(StopIteration):
            self.app(scope, None, _take).send(None)


async def _take(_message: object) -> None:
    """A server's ``send``."""


def _no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def _wait() -> None:
    """Return when the threads beside this one do no more than to look for work."""
    used, threads = _used_beside()
    for _ in range(_LONGEST):
        time.sleep(_STILL)
        before, (used, threads) = used, _used_beside()
        if used - before <= _IDLE * _STILL * threads:
            return


def _used_beside() -> tuple[int, int]:
    """The ticks of the processor's time that all threads but the main one have had; how many."""
    used = threads = 0
    for path in Path("/proc/self/task").iterdir():
        if path.name != str(os.getpid()):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            used += int(fields[11]) + int(fields[12])
            threads += 1
    return used, threads


@cache
def _cookies(folder: Path, kind: str) -> list[str]:
    found: list[str] = json.loads((folder / f"{kind}.cookies").read_text())
    return found


def write_cookies(folder: Path) -> None:
    """The cookies of visitors who clicked an ad and have seen a page."""
    for kind in ("session", "adroll"):
        app = make_app(kind, str(folder))
        found = [cookies_of(app, f"/page/2?adct=click-{number}") for number in range(VISITORS)]
        (folder / f"{kind}.cookies").write_text(json.dumps(found))


def serve(folder: Path, sink: str) -> None:
    """Do what standard input says, a line of JSON at a time."""
    logging.disable(logging.CRITICAL)
    shops: dict[str, Any] = {}
    for line in sys.stdin:
        told = json.loads(line)
        kind = told["kind"]
        match told["do"]:
            case "open":
                made = AsgiShop if kind.startswith("asgi") else Shop
                shops[kind] = made(kind, folder, sink)
            case "freeze":
                # Else a collection of all that was imported falls into one of two counts.
                gc.collect()
                gc.freeze()
            case "take in":
                shops[kind].take_in()
            case "deliver":
                shops[kind].deliver()
            case "wait":
                _wait()
            case name:
                for _ in range(told["count"]):
                    shops[kind].ask(ROUTES[name])
        print(flush=True)


# -- beside it -----------------------------------------------------------------------------


class CountedProcess:
    """A Python program whose instructions are counted: it does what each line of JSON says that it
    is given, and then prints a line.

    :param folder: where what is counted is written.
    :param program: its module and arguments.
    """

    def __init__(self, folder: Path, *program: str | Path) -> None:
        self._out = folder / f"counted-{time.monotonic_ns()}"
        self._part = 0
        self._process = subprocess.Popen(
            [
                *("valgrind", "--tool=callgrind", "--separate-threads=yes", "--quiet"),
                f"--callgrind-out-file={self._out}",
                *(sys.executable, "-m", *program),
            ],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, **what: object) -> None:
        """Have it do *what*."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(what), file=self._process.stdin)
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise RuntimeError(f"the program under valgrind has ended at {what}")

    def counted(self) -> Counted:
        """What was counted since the last time."""
        command = ["vgdb", f"--pid={self._process.pid}", "dump"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        self._part += 1
        own = beside = 0
        for path in self._out.parent.glob(f"{self._out.name}.{self._part}-*"):
            totals = re.search(r"^totals: (\d+)$", path.read_text(), re.M)
            assert totals, path
            if path.name.endswith("-01"):
                own = int(totals[1])
            else:
                beside += int(totals[1])
        return Counted(own, beside)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Counter(CountedProcess):
    """A process of shops whose instructions are counted.

    :param folder: of the cookies; what is counted is written there as well.
    """

    def __init__(self, folder: Path, sink: str) -> None:
        super().__init__(folder, "benchmarks.instructions", "--serve", sink, folder)
        self._opened: set[str] = set()

    def count(self, kind: str, *does: str, many: int = MANY, times: int = 1) -> list[Counted]:
        """Of one request each of *does*: the first is a route's name.

        :param kind: of the shop.
        :param many: requests of the second count.
        :param times: how often all of it is counted: the least counts, since what is done by the
            clock falls into some of them.
        """
        if kind not in self._opened:
            self._opened.add(kind)
            self.do(kind=kind, do="open")
        self._all(kind, does, WARM)
        self.do(kind=kind, do="wait")
        self.do(kind=kind, do="freeze")
        self.counted()
        less, more = (
            [
                Counted(min(one.own for one in each), min(one.beside for one in each))
                for each in zip(*(self._all(kind, does, count) for _ in range(times)), strict=True)
            ]
            for count in (FEW, many)
        )
        return [
            Counted((b.own - a.own) / (many - FEW), (b.beside - a.beside) / (many - FEW))
            for a, b in zip(less, more, strict=True)
        ]

    def _all(self, kind: str, does: tuple[str, ...], count: int) -> list[Counted]:
        found = []
        for do in does:
            self.do(kind=kind, do=do, count=count)
            found.append(self.counted())
        return found


@contextmanager
def counter(folder: Path, sink: str) -> Iterator[Counter]:
    made = Counter(folder, sink)
    try:
        yield made
    finally:
        made.close()


def imported(modules: str) -> float:
    """What it takes to start Python and import *modules*, in thousands."""
    program = (sys.executable, "-c", f"import {modules}")
    valgrind = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
    environ = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(program, env=environ, check=True, timeout=60)  # compiles what is not
    done = subprocess.run(
        (*valgrind, *program), env=environ, capture_output=True, text=True, timeout=300, check=True
    )
    total = re.search(r"Collected : (\d+)", done.stderr)
    assert total, done.stderr
    return int(total[1]) / 1000


def added(folder: Path, sink: str, *, short: bool) -> Iterator[tuple[str, float]]:
    """What we add to a bare shop's requests, in thousands of instructions, name by name.

    :param short: without a bare shop that has a session of its own.
    """
    yield "import, bare", (bare_import := imported("flask"))
    yield "import", imported("flask, adroll_flask") - bare_import
    # Each in a process of its own: what the interpreter has learned of the classes of one shop it
    # would unlearn with each request of the other.
    with counter(folder, sink) as bare_shops, counter(folder, sink) as shops:
        for name, route in ROUTES.items():
            if route.visitor != "another":
                (bare,) = bare_shops.count("bare", name)
                yield f"{name}, bare", bare.own / 1000
            if route.method == "POST":
                (order,) = shops.count("worker", name)
                yield name, (order.own - bare.own) / 1000
                continue
            if not short and route.visitor != "another":
                (one,) = shops.count("session", name)
                yield f"{name}, session", (one.own - bare.own) / 1000
            (one,) = shops.count("adroll", name)
            yield name, (one.own - bare.own) / 1000
        for name in [name for name, route in ROUTES.items() if route.visitor != "another"]:
            (bare,) = bare_shops.count("asgi bare", name)
            (one,) = shops.count("asgi", name)
            yield f"{name}, ASGI", (one.own - bare.own) / 1000
        _, taken_in, delivered = shops.count(
            "alone", "order", "take in", "deliver", many=A_CLAIM, times=3
        )
        yield "order taken in", taken_in.own / 1000
        yield "order delivered", delivered.own / 1000


def beside_peers(folder: Path, sink: str, bare: float) -> dict[str, Counted]:
    """What an order in a view adds where a thread beside it sends, in thousands."""
    found = {}
    for kind in ("adroll_flask", *PEERS):
        with counter(folder, sink) as shops:
            first, then = shops.count(kind, "order", "wait")
            beside = first.beside + then.beside
            found[kind] = Counted(first.own / 1000 - bare, beside / 1000)
    return found


@contextmanager
def prepared() -> Iterator[tuple[Path, str]]:
    """A folder with cookies, and a server that takes what is sent."""
    sink = Sink()
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_cookies(Path(folder))
            yield Path(folder), sink.url
    finally:
        sink.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="without the peers: two minutes")
    parser.add_argument("--lower", action="store_true", help="write what is there as budgets")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.folder, options.serve)
        return
    if why := missing():
        parser.error(f"{why} (Debian: apt-get install valgrind)")
    most = budgets()
    with prepared() as (folder, sink):
        print("What a bare shop's request costs, and what we add, in thousands of instructions")
        found = {}
        for name, one in added(folder, sink, short=options.short):
            found[name] = one
            budget = f"  of {most[name]:6,.0f}" if name in most else ""
            print(f"  {one:7,.0f}  {name:32}{budget}", flush=True)
        if options.lower:
            lower(found)
        if not options.short:
            print("An order in a view with threads beside it: the one that answers, and the others")
            for kind, pair in beside_peers(folder, sink, found["order, bare"]).items():
                print(f"  {pair.own:7,.0f}  {pair.beside:7,.0f}  {kind}", flush=True)


if __name__ == "__main__":
    main()
