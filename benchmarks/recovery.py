"""How long it takes until AdRoll's return is noticed: the first event after an outage.

``python -m benchmarks.recovery`` lets real workers with a real outbox live through outages on a
clock that jumps: 90 s, 10 min, 1 h, 1 day. ``--real`` waits through outages of 15 s of a sandbox
over real sockets, with an order reported in the middle of each.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flask import Flask

from adroll_flask import AdRoll, report_conversion
from adroll_flask.counters import Counters
from adroll_flask.delivery.deliverer import POLL, Deliverer
from adroll_flask.delivery.transport import NoAnswer, Response
from adroll_flask.outbox.model import NewEvent, new_id
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.sandbox import ACCESS_TOKEN, ADVERTISABLE_EID, PIXEL_EID, RunningSandbox, running
from adroll_flask.settings import Settings

#: Length of an outage in seconds, and how many of them are lived through.
LENGTHS: Final = {
    "90 s": (90.0, 60),
    "10 min": (600.0, 20),
    "1 h": (3600.0, 6),
    "1 day": (86400.0, 1),
}
#: What a worker meets in an outage; the last one until its time-out, 5 s and 15 s.
FAULTS: Final = ("refused", "http_503", "http_502", "hangs")
_HANGS: Final = 20.0
#: Times of return that are tried on each outage.
_RETURNS: Final = 100


@dataclass
class _World:
    """A clock, and an AdRoll that is away."""

    fault: str
    now: float = 1_700_000_000.0
    asked: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        self.asked.append(self.now)
        if self.fault == "refused":
            raise NoAnswer("refused", sure=True)
        if self.fault == "hangs":
            self.now += _HANGS
            raise NoAnswer("read_timeout", sure=False)
        return Response(int(self.fault.removeprefix("http_")), {}, b"")


def questions(length: float, fault: str, *, workers: int = 3, seed: int = 1) -> list[float]:
    """When requests began, in seconds from the outage's begin, until one began after *length*.

    :param workers: processes that share the outbox.
    """
    world = _World(fault)
    began = world.now
    settings = Settings(
        advertisable_eid=ADVERTISABLE_EID,
        pixel_eid=PIXEL_EID,
        access_token=ACCESS_TOKEN,
        secret_key=("key",),
    )
    with tempfile.TemporaryDirectory() as folder:
        shops = []
        for number in range(workers):
            counters = Counters()
            outbox = Outbox(settings, folder=folder, clock=world, counters=counters)
            deliverer = Deliverer(
                outbox,
                settings,
                counters,
                transport=world,
                clock=world,
                rng=random.Random(f"{seed} {number}"),
                monotonic=world,
            )
            shops.append((outbox, deliverer))
        for number in range(300):
            shops[0][0].put(
                NewEvent(
                    id=new_id(world.now + number / 1000),
                    name="purchase",
                    advertisable_eid=ADVERTISABLE_EID,
                    dry_run=False,
                    key=str(number),
                    payload=b"{}",
                    occurred_at=world.now,
                )
            )
        wakes = [world.now + number * POLL / workers for number in range(workers)]
        while not world.asked or world.asked[-1] - began < length:
            turn = wakes.index(min(wakes))
            world.now = max(world.now, wakes[turn])
            step = shops[turn][1].step(threading.Event())
            wakes[turn] = world.now + (POLL if step.pause is None else step.pause)
        for outbox, _ in shops:
            outbox.close()
    return [asked - began for asked in world.asked]


def delays(length: float, fault: str, *, outages: int = 1, workers: int = 3) -> list[float]:
    """Seconds from AdRoll's return to the first question that it answers, in order.

    An order follows a trial that is answered at once. AdRoll returns at any time in the outage's
    last tenth, so that one outage shows many returns.
    """
    found: list[float] = []
    rng = random.Random(f"{length} {fault}")
    for seed in range(outages):
        asked = questions(length, fault, workers=workers, seed=seed)
        for _ in range(_RETURNS):
            back = rng.uniform(0.9 * length, length)
            found.append(next(begin for begin in asked if begin >= back) - back)
    return sorted(found)


def _percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


def simulated() -> Iterator[str]:
    for name, (length, outages) in LENGTHS.items():
        for fault in FAULTS:
            found = delays(length, fault, outages=outages)
            yield (
                f"{name:>7}, {fault:>8}: median {statistics.median(found):5.1f} s,"
                f" p90 {_percentile(found, 0.9):5.1f} s, p99 {_percentile(found, 0.99):5.1f} s,"
                f" at most {found[-1]:5.1f} s"
            )


REAL: Final[Mapping[str, Mapping[str, Any]]] = {
    "503": {"status": 503},
    "502 after taking": {"status": 502, "take": True},
    "resets": {"reset": "before"},
    "hanging": {"hang": 60},
}


def real_run(sandbox: RunningSandbox, fault: Mapping[str, Any], seconds: float) -> float:
    """Seconds from the end of an outage to the arrival of an order reported in its middle."""
    sandbox.reset()
    # The delivery thread goes on to the end of the process, and writes there.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        app = Flask(__name__, instance_path=folder)
        app.config.update(
            SECRET_KEY="benchmark",
            ADROLL_ADVERTISABLE_EID=ADVERTISABLE_EID,
            ADROLL_PIXEL_EID=PIXEL_EID,
            ADROLL_ACCESS_TOKEN=ACCESS_TOKEN,
            ADROLL_API_URL=sandbox.api_url,
        )
        AdRoll(app)

        def order(number: str) -> None:
            with app.test_request_context("/?adct=c1", environ_base={"REMOTE_ADDR": "192.0.2.7"}):
                assert report_conversion(order_id=number, value="1.00", currency="USD")

        def arrived() -> set[str]:
            return {record["order_id"] for record in sandbox.purchases()}

        order("before")
        _until(lambda: "before" in arrived(), 30)
        sandbox.fault(**fault)
        time.sleep(seconds / 3)
        order("first")
        time.sleep(seconds / 3)
        order("second")
        time.sleep(seconds / 3)
        sandbox.clear_faults()
        back = time.monotonic()
        _until(lambda: "second" in arrived(), 120)
        took = time.monotonic() - back
        _until(lambda: "first" in arrived(), 120)
        return took


def _until(condition: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.02)


def real(runs: int = 3, seconds: float = 15.0) -> Iterator[str]:
    with running() as sandbox:
        for name, fault in REAL.items():
            took = [real_run(sandbox, fault, seconds) for _ in range(runs)]
            said = ", ".join(f"{one:.1f}" for one in took)
            yield f"{seconds:g} s of {name}: arrived {said} s after its end"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--real", action="store_true", help="wait through outages of a sandbox")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    for line in real() if options.real else simulated():
        print(line, flush=True)


if __name__ == "__main__":
    main()
