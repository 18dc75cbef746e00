"""Ours beside its peers, in one run: what a call costs, how fast events leave, what is lost.

``python -m benchmarks.side_by_side`` (``--short``, ``--only PART,PART``, ``--json FILE``).
Every way to report runs in a process of its own and they take turns in short rounds, so that
whatever else the machine does hits all of them. Figures are medians over the
rounds; a fastest round says what is left of them on a machine of one's own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import make_url

from benchmarks.reporters import OUTBOX, Visitors
from benchmarks.servers import ENGINES, missing, server

HERE = Path(__file__).resolve().parent
OURS = "adroll_flask"
BARE = "bare insert"
PEERS = ("PostHog", "Segment", "Snowplow")


class Sink:
    """The local server that takes what is sent, in a process of its own."""

    def __init__(self) -> None:
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sink", str(self._port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self._port = int(self._process.stdout.readline())

    def stop(self) -> None:
        """Go away: connections are refused."""
        assert self._process
        assert self._process.stdout
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def forget(self) -> None:
        self._ask("DELETE")

    def seen(self) -> dict[str, int]:
        told: dict[str, int] = self._ask("GET")
        return told

    def _ask(self, method: str) -> Any:
        request = urllib.request.Request(f"{self.url}/seen", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def wait(self, orders: int, seconds: float) -> dict[str, int]:
        """Wait until so many came, or nothing new for *seconds*."""
        last, until = -1, 0.0
        while True:
            seen = self.seen()
            if seen["orders"] >= orders:
                return seen
            if seen["orders"] != last:
                last, until = seen["orders"], time.monotonic() + seconds
            if time.monotonic() > until:
                return seen
            time.sleep(0.1)


class Process:
    """One way to report in a process of its own; see reporters.py."""

    def __init__(self, kind: str, url: str, folder: Path, outbox: str | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.reporters", kind, url, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ({OUTBOX: outbox} if outbox else {}),
        )

    def do(self, what: str, **told: Any) -> Any:
        self.tell(what, **told)
        return self.hear()

    def tell(self, what: str, **told: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": what, **told}) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()


@contextmanager
def processes(kinds: tuple[str, ...], sink: Sink) -> Iterator[dict[str, Process]]:
    with tempfile.TemporaryDirectory() as folder:
        made = {kind: Process(kind, sink.url, Path(folder) / kind) for kind in kinds}
        try:
            yield made
        finally:
            for process in made.values():
                process.kill()


def per_call(
    what: str, gap: float, count: int, rounds: int, sink: Sink, kinds: tuple[str, ...]
) -> dict[str, Any]:
    """Microseconds of one call: median, fastest round, 99th and 99.9th percentile."""
    times: dict[str, list[list[int]]] = {kind: [] for kind in (*kinds, BARE)}
    with processes((*kinds, BARE), sink) as made:
        for process in made.values():
            process.do(what, count=50, gap=0.0)  # whatever is loaded with the first ones
            process.do("flush")
        for _ in range(rounds):
            for kind, process in made.items():
                times[kind].append(process.do(what, count=count, gap=gap))
                process.do("flush")
    return {kind: percentiles(taken) for kind, taken in times.items()}


def quiet(pauses: dict[float, int], sink: Sink, peers: tuple[str, ...]) -> dict[str, Any]:
    """A report in a view after each of some *pauses*, as many times as each says; all wait at once.

    Most shops are this one: whatever was made for the order before is gone or old.
    """
    found: dict[str, Any] = {}
    with processes((*peers, BARE), sink) as made:
        for process in made.values():
            process.do("views", count=50, gap=0.0)
            process.do("flush")
        for pause, count in pauses.items():
            for process in made.values():
                process.tell("views", count=count, gap=pause)
                time.sleep(0.013)  # they report in turns, not at once
            times = {kind: percentiles([process.hear()]) for kind, process in made.items()}
            found[f"after {pause:g} s"] = times
    return found


def percentiles(rounds: list[list[int]]) -> dict[str, float]:
    """Microseconds, of the nanoseconds of each call in each round."""
    together = sorted(time for one in rounds for time in one)
    return {
        "median": median(map(median, rounds)) / 1000,
        "fastest": min(median(one) for one in rounds) / 1000,
        "p99": together[len(together) * 99 // 100] / 1000,
        "p99.9": together[len(together) * 999 // 1000] / 1000,
    }


def databases(count: int, rounds: int, sink: Sink) -> dict[str, Any]:
    """A call of ours with each database behind it, and with servers that answer nothing."""
    with ExitStack() as stack:
        urls: dict[str, str | None] = {"SQLite": None}
        for engine in ENGINES:
            if (why := missing(engine)) is not None:
                print(f"without {engine}: {why}")
                continue
            urls[engine] = stack.enter_context(server(engine)).url
            # It takes connections, as a proxy in front of a server that is gone does.
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))
            hanging = make_url(urls[engine] or "").set(port=silent.getsockname()[1])
            urls[f"{engine}, hangs"] = hanging.render_as_string(hide_password=False)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = {}
        for number, (name, url) in enumerate(urls.items()):
            made[name] = Process(OURS, sink.url, folder / str(number), url)
            stack.callback(made[name].kill)
        times: dict[str, list[list[int]]] = {name: [] for name in made}
        for name, process in made.items():
            first = process.do("calls", count=1, gap=0.0)
            process.do("calls", count=49, gap=0.0)
            times[f"{name}, the first"] = [first]
        for _ in range(rounds):
            for name, process in made.items():
                times[name].append(process.do("calls", count=count, gap=0.002))
        return {name: percentiles(taken) for name, taken in times.items()}


def burst(count: int, rounds: int, sink: Sink, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Events a second from the first call until the last one is at the sink, and memory."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            with processes((kind,), sink) as made:
                made[kind].do("calls", count=20, gap=0.0)
                made[kind].do("flush")
                sink.forget()
                told = made[kind].do("burst", count=count)
                told["arrived"] = sink.wait(count + 20, 2.0)["orders"] - 20
                found[kind].append(told)
    return {
        kind: {
            "per_second": median(count / told["sent"] for told in taken),
            "reported_per_second": median(count / told["reported"] for told in taken),
            "memory": median(told["memory"] for told in taken),
            "more_memory": median(told["memory"] - told["memory_before"] for told in taken),
            "lost": sum(count - int(told["arrived"]) for told in taken),
        }
        for kind, taken in found.items()
    }


def outage(seconds: float, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Of orders that are reported while nobody listens, how many arrive after it."""
    orders = 40
    with tempfile.TemporaryDirectory() as folder:
        sinks = {kind: Sink() for kind in kinds}
        made = {kind: Process(kind, sinks[kind].url, Path(folder) / kind) for kind in kinds}
        try:
            for process in made.values():
                process.do("calls", count=1, gap=0.0)
                process.do("flush")
            for own in sinks.values():
                own.stop()
            for process in made.values():
                process.tell("calls", count=orders, gap=seconds / orders)
            for process in made.values():
                process.hear()
            for own in sinks.values():
                own.start()
            return {
                kind: {"arrived": own.wait(orders, 20.0)["orders"], "of": orders}
                for kind, own in sinks.items()
            }
        finally:
            for process in made.values():
                process.kill()
            for own in sinks.values():
                own.stop()


def kill(sink: Sink, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Of orders whose report returned before a SIGKILL, how many arrive after a restart."""
    orders, found = 40, {}
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            process = Process(kind, sink.url, Path(folder))
            process.do("calls", count=1, gap=0.0)
            process.do("flush")
            sink.forget()
            process.do("calls", count=orders, gap=0.0)
            process.kill()
            process = Process(kind, sink.url, Path(folder))
            process.do("start")
            seen = sink.wait(orders, 10.0)
            process.kill()
            found[kind] = {"arrived": seen["orders"], "of": orders, "twice": seen["twice"]}
    return found


def checkout(seconds: int, rounds: int, sink: Sink, peers: tuple[str, ...]) -> dict[str, Any]:
    """Requests a second of a checkout route under gunicorn, by wrk; see checkout_shop.py."""
    kinds = ("bare app", *peers, "synchronous")
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    latencies: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    arrived: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cookies = write_cookies(Path(folder) / "cookies")
        servers = {kind: Gunicorn(kind, sink.url, Path(folder) / kind, cookies) for kind in kinds}
        try:
            for server in servers.values():
                server.press(1)
            for _ in range(rounds):
                for kind, server in servers.items():
                    sink.forget()
                    rate, answers, latency = server.press(seconds)
                    found[kind].append(rate)
                    latencies[kind].append(latency)
                    if kind in peers:
                        told = sink.wait(answers, 3.0)
                        so_far = arrived.setdefault(kind, {"orders": 0, "lost": 0})
                        so_far["orders"] += answers
                        # An answer that wrk did not wait for reports an order all the same.
                        so_far["lost"] += max(0, answers - told["orders"])
        finally:
            for server in servers.values():
                server.close()
    bare = found["bare app"]
    return {
        kind: {
            "per_second": median(rates),
            "of_bare": median(rate / base for rate, base in zip(rates, bare, strict=True)),
            **{
                name: median(one[name] for one in latencies[kind])
                for name in ("p50", "p99", "p99.9")
            },
            **arrived.get(kind, {}),
        }
        for kind, rates in found.items()
    }


def write_cookies(path: Path, visitors: int = 5_000) -> Path:
    """The ``Cookie`` headers of many visitors, the same for all ways to report."""
    made = Visitors()
    path.write_text("".join(f"{made.cookies(number)}\n" for number in range(visitors)))
    return path


class Gunicorn:
    """A checkout route under two gunicorns, each with one threaded worker, that share a folder.

    (Under one with two workers, it is luck which of them accepts how many connections.)
    """

    def __init__(self, kind: str, url: str, folder: Path, cookies: Path) -> None:
        folder.mkdir(parents=True)
        self._environ = os.environ | {"COOKIES": str(cookies)}
        self._log = folder / "gunicorn.log"
        environ = os.environ | {"KIND": kind, "SINK": url, "FOLDER": str(folder)}
        command = [
            *(sys.executable, "-m", "gunicorn", "benchmarks.checkout_shop:make_app()"),
            *(f"--chdir={HERE.parent}", "--bind=127.0.0.1:0"),
            *("--worker-class=gthread", "--threads=2"),
        ]
        with self._log.open("w") as out:
            self._processes = [subprocess.Popen(command, env=environ, stderr=out) for _ in range(2)]
        until = time.monotonic() + 60
        while (
            len(ports := re.findall(r"Listening at: http://\S+:(\d+)", self._log.read_text())) < 2
        ):
            if time.monotonic() > until:
                raise RuntimeError(self._log.read_text())
            time.sleep(0.05)
        self._environ["PORTS"] = " ".join(ports)
        self._url = f"http://127.0.0.1:{ports[0]}"

    def press(self, seconds: int) -> tuple[float, int, dict[str, float]]:
        """Requests a second, how many were answered, and their percentiles in microseconds."""
        command = [
            *("wrk", "-t2", "-c8", f"-d{seconds}s", "-s", str(HERE / "checkout.lua")),
            f"{self._url}/checkout?step=pay",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=self._environ
        )
        told = json.loads(done.stdout.splitlines()[-1])
        if told["errors"]:
            raise RuntimeError(f"{told}\n{self._log.read_text()}")
        return told["requests"] / told["microseconds"] * 1e6, told["requests"], told

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(60)


# -- the table -----------------------------------------------------------------------------

PARTS = ("calls", "views", "quiet", "databases", "burst", "checkout", "outage", "kill")


def measure(parts: tuple[str, ...], peers: tuple[str, ...], *, short: bool) -> dict[str, Any]:
    """All that was asked for."""
    found: dict[str, Any] = {}
    kinds = (OURS, *peers)
    rounds, count = (3, 60) if short else (15, 200)
    sink = Sink()
    works: dict[str, Callable[[], Any]] = {
        "calls": lambda: {
            "back to back": per_call("calls", 0.0, count, rounds, sink, kinds),
            "2 ms apart": per_call("calls", 0.002, count, rounds, sink, kinds),
        },
        "views": lambda: {
            "back to back": per_call("views", 0.0, count, rounds, sink, kinds),
            "2 ms apart": per_call("views", 0.002, count, rounds, sink, kinds),
        },
        "quiet": lambda: quiet(
            {0.1: 50, 6.0: 3} if short else {0.1: 200, 6.0: 15, 65.0: 5}, sink, kinds
        ),
        "databases": lambda: {"2 ms apart": databases(count, rounds, sink)},
        "burst": lambda: burst(2_000 if short else 20_000, 1 if short else 3, sink, kinds),
        "checkout": lambda: checkout(1 if short else 3, 1 if short else 5, sink, kinds),
        "outage": lambda: outage(3.0 if short else 20.0, kinds),
        "kill": lambda: kill(sink, kinds),
    }
    try:
        for part in parts:
            found[part] = works[part]()
            show({part: found[part]})
    finally:
        sink.stop()
    return found


def show(found: dict[str, Any]) -> None:
    for part, title, wanted in (
        ("calls", "A call with everything given", OURS),
        ("views", "A call in a view", OURS),
        ("quiet", "A call in a view of a quiet shop", "Segment"),
        ("databases", "A call of ours, by the database behind it", "SQLite"),
    ):
        for pace, figures in found.get(part, {}).items():
            base = wanted if wanted in figures else BARE
            print(f"\n{title}, {pace} (µs)")
            print(f"  {'':28}{'median':>9}{'fastest':>9}{'p99':>9}{'p99.9':>9}{f'to {base}':>16}")
            for kind, one in figures.items():
                ratio = one["median"] / figures[base]["median"]
                line = "".join(
                    f"{one[name]:9.1f}" for name in ("median", "fastest", "p99", "p99.9")
                )
                print(f"  {kind:28}{line}{ratio:16.2f}")
    if "burst" in found:
        print("\nA burst, from the first call until the last event is at the sink")
        print(f"  {'':14}{'events/s':>9}{'calls/s':>9}{'MB':>9}{'of it new':>11}{'lost':>7}")
        for kind, one in found["burst"].items():
            print(
                f"  {kind:14}{one['per_second']:9.0f}{one['reported_per_second']:9.0f}"
                f"{one['memory']:9.0f}{one['more_memory']:11.0f}{one['lost']:7d}"
            )
    if "checkout" in found:
        print("\nA checkout route under gunicorn (2 processes, gthread), delivery running")
        heads = ("requests/s", "of bare", "p50 ms", "p99 ms", "p99.9 ms", "orders", "lost")
        print(f"  {'':14}" + "".join(f"{head:>11}" for head in heads))
        for kind, one in found["checkout"].items():
            times = "".join(f"{one[name] / 1000:11.2f}" for name in ("p50", "p99", "p99.9"))
            told = f"{one['orders']:11.0f}{one['lost']:11.0f}" if "orders" in one else ""
            print(f"  {kind:14}{one['per_second']:11.0f}{one['of_bare']:11.3f}{times}{told}")
    for part, title in (
        ("outage", "Reported while nobody listened, arrived after it"),
        ("kill", "Reported before a SIGKILL, arrived after a restart"),
    ):
        if part in found:
            print(f"\n{title}")
            for kind, one in found[part].items():
                print(f"  {kind:14}{one['arrived']:4d} of {one['of']}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="two minutes instead of fourteen")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, comma-separated")
    parser.add_argument("--peers", default=",".join(PEERS), help="peers, comma-separated")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    peers = tuple(filter(None, options.peers.split(",")))
    if "checkout" in options.only and shutil.which("wrk") is None:
        parser.error("the checkout part needs wrk (Debian: apt-get install wrk); see --only")
    found = measure(tuple(options.only.split(",")), peers, short=options.short)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
