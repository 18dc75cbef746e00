"""Kills a shop's processes at random and checks that no order is lost and none doubled unmarked.

``python tests/chaos.py --kills 500``

Reporters put orders into one outbox and write down each one that was acknowledged; one of them
delivers beside that in a thread, others leave it to a worker. All of them are killed with SIGKILL
at random moments, some while a request of theirs hangs at AdRoll (the sandbox, in this process),
and started again at once. In the end every acknowledged order must have arrived, and those that
arrived twice must carry the mark *unsure*. Prints a summary as JSON; exit code 1: not so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "integration"))

#: Seconds. A request takes at most 2.2 here, a lease is longer.
LEASE = 3.0


def verdict(
    acknowledged: Iterable[str], arrived: Mapping[str, int], rows: Mapping[str, Any]
) -> list[str]:
    """What is wrong: each order that is missing, doubled without a mark, or dead."""
    wrong = [f"{order}: acknowledged and lost" for order in acknowledged if not arrived.get(order)]
    for order, count in arrived.items():
        row = rows.get(order)
        if row is None:
            wrong.append(f"{order}: arrived and is not in the outbox")
        elif count > 1 and not row.unsure:
            wrong.append(f"{order}: arrived {count} times without a mark")
        elif count > row.attempts:
            wrong.append(f"{order}: arrived {count} times in {row.attempts} requests")
    wrong += [f"{key}: is {row.state}" for key, row in rows.items() if row.state != "delivered"]
    return wrong


# The children


def make_shop(folder: Path, api_url: str) -> Any:
    from sandbox_shop import Shop, Timeouts

    from adroll_flask.delivery import Deliverer

    shop = Shop(folder, api_url, clock=time.time, timeouts=Timeouts(0.5, 1.0, 1.2))
    shop.deliverer = Deliverer(
        shop.outbox,
        shop.deliverer._gate._client,
        shop.settings,
        shop.counters,
        rng=random.Random(),
        lease=LEASE,
        poll=0.2,
    )
    return shop


def report(folder: Path, api_url: str, name: str, *, delivers: bool) -> None:
    """Report orders until killed; an order is acknowledged once ``put`` has returned."""
    from adroll_flask.thread import DeliveryThread

    shop = make_shop(folder, api_url)
    thread = DeliveryThread(shop.deliverer) if delivers else None
    log = os.open(folder / f"{name}.acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    parent = os.getppid()
    number = 0
    while os.getppid() == parent:
        order = f"{name}-{number}"
        shop.report(order)
        os.write(log, f"{order}\n".encode())
        if number % 10 == 0:
            shop.report(order)  # a reload of the thank-you page
        if thread is not None:
            thread.nudge()
        number += 1
        time.sleep(random.uniform(0.0, 0.03))


def work(folder: Path, api_url: str) -> None:
    """Deliver until killed."""
    import threading

    shop = make_shop(folder, api_url)
    threading.Thread(target=shop.deliverer.run, args=(threading.Event(),), daemon=True).start()
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.2)


def nursery(folder: Path, api_url: str) -> None:
    """Forks children on demand: Python's start would take longer than their lives."""
    import logging

    import sandbox_shop  # noqa: F401 - imported before the forks

    import adroll_flask.outbox.claims
    import adroll_flask.thread  # noqa: F401

    logging.getLogger("adroll_flask").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        kind, name = line.split()
        pid = os.fork()
        if pid == 0:
            random.seed(f"{name}{time.time()}")
            try:
                if kind == "worker":
                    work(folder, api_url)
                else:
                    report(folder, api_url, name, delivers=kind == "both")
            except BaseException:
                (folder / f"{name}.crashed").write_text(traceback.format_exc())
            finally:
                os._exit(0)
        print(pid, flush=True)


# The test


class Shop:
    """The processes, each of which is started again when it was killed."""

    KINDS = ("both", "both", "reporter", "worker")

    def __init__(self, folder: Path, api_url: str) -> None:
        self._nursery = subprocess.Popen(
            [sys.executable, __file__, "--nursery", str(folder), api_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._born = 0
        self.children: dict[int, str] = {}
        self.kills = 0
        for kind in self.KINDS:
            self.start(kind)

    def start(self, kind: str) -> None:
        self._born += 1
        assert self._nursery.stdin
        assert self._nursery.stdout
        self._nursery.stdin.write(f"{kind} {kind}{self._born}\n")
        self._nursery.stdin.flush()
        self.children[int(self._nursery.stdout.readline())] = kind

    def kill(self, pid: int, *, again: bool = True) -> None:
        kind = self.children.pop(pid)
        with contextlib.suppress(ProcessLookupError):  # it crashed, which is reported in the end
            os.kill(pid, signal.SIGKILL)
            self.kills += 1
        if again:
            self.start(kind)

    def close(self) -> None:
        for pid in list(self.children):
            self.kill(pid, again=False)
        assert self._nursery.stdin
        self._nursery.stdin.close()
        self._nursery.wait(10)
        assert self._nursery.stdout
        self._nursery.stdout.close()


def pending_faults(sandbox: Any) -> set[int]:
    with urllib.request.urlopen(f"{sandbox.url}/faults", timeout=10) as answer:
        said = json.load(answer)
    return {fault["id"] for fault in (said["faults"] if isinstance(said, dict) else said)}


def set_faults(sandbox: Any, **first: Any) -> int:
    """Every request takes a while, so that kills meet requests; *first* comes before that."""
    sandbox.clear_faults()
    number = sandbox.fault(**first, times=1) if first else 0
    sandbox.fault(latency=0.04)
    return number


def hang_and_kill(sandbox: Any, shop: Shop, rng: random.Random) -> bool:
    """Let a request hang, taken or not, and kill whoever may have sent it."""
    number = set_faults(sandbox, hang=30, take=rng.random() < 0.5)
    until = time.monotonic() + 6.0
    while number in pending_faults(sandbox):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 0.3))
    for pid, kind in list(shop.children.items()):
        if kind != "reporter":
            shop.kill(pid)
    set_faults(sandbox)
    return True


def chaos(kills: int, hangs: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill until both numbers are reached; returns the summary."""
    from adroll_flask.sandbox import running

    rng = random.Random(seed)
    began = time.monotonic()
    with running(keep=1_000_000) as sandbox:
        set_faults(sandbox)
        shop = Shop(folder, sandbox.api_url)
        hung = 0
        try:
            sandbox.wait(20, timeout=30)
            while shop.kills < kills or hung < hangs:
                time.sleep(rng.uniform(0.0, 0.6))
                if hung < hangs and rng.random() < 0.4:
                    hung += hang_and_kill(sandbox, shop, rng)
                else:
                    shop.kill(rng.choice(list(shop.children)))
            sandbox.clear_faults()
            for pid, kind in list(shop.children.items()):
                if kind != "worker":
                    shop.kill(pid, again=False)
            left = drain(folder, sandbox)
        finally:
            shop.close()
        arrived = Counter(record["order_id"] for record in sandbox.purchases())
    acknowledged = [
        line for log in folder.glob("*.acknowledged") for line in log.read_text().splitlines()
    ]
    rows = make_shop(folder, "http://127.0.0.1:1/").rows()
    wrong = [crash.read_text() for crash in folder.glob("*.crashed")]
    wrong += verdict(acknowledged, arrived, rows)
    return {
        "seed": seed,
        "kills": shop.kills,
        "kills_while_hanging": hung,
        "acknowledged": len(acknowledged),
        "arrived": len(arrived),
        "arrived_twice": sum(count > 1 for count in arrived.values()),
        "marked_unsure": sum(row.unsure for row in rows.values()),
        "left": left,
        "wrong": wrong[:20],
        "seconds": round(time.monotonic() - began, 1),
    }


def drain(folder: Path, sandbox: Any) -> int:
    """Let the worker finish; how many events it left."""
    outbox = make_shop(folder, sandbox.api_url).outbox
    until = time.monotonic() + 60
    while (left := outbox.waiting()) and time.monotonic() < until:
        time.sleep(0.1)
    outbox.close()
    return left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--hangs", type=int, help="kills while a request hangs; default: a fifth")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--nursery", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.nursery:
        nursery(Path(options.nursery[0]), options.nursery[1])
        return 0
    hangs = max(1, options.kills // 5) if options.hangs is None else options.hangs
    with tempfile.TemporaryDirectory() as folder:
        summary = chaos(options.kills, hangs, options.seed, Path(folder))
    print(json.dumps(summary, indent=2))
    return 1 if summary["wrong"] or summary["left"] else 0


if __name__ == "__main__":
    sys.exit(main())
