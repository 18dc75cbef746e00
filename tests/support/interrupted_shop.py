"""A shop whose calls a time limit ends at any moment: ``python -m tests.support.interrupted_shop``.

A signal's handler raises in one report after the other, at a random moment of each. Another thread
reports in between, as other requests do: it must never stand. In the end each order has to be in
the outbox once, whether its first call was ended or not.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

from flask import Flask

from adroll_flask import AdRoll, report_conversion
from tests.support import PATIENCE

#: Interrupted calls between two looks whether other threads can report.
_LOOK_EVERY = 20
#: Seconds within which most calls are: what comes later interrupts none.
_LONGEST = 0.0008


class Limit(Exception):
    """A site's own time limit."""


def strike(_signal: int, _frame: FrameType | None) -> None:
    raise Limit


def main(folder: str, interruptions: int) -> None:
    app = Flask("shop", instance_path=folder)
    app.config.update(
        SECRET_KEY="k" * 32,
        ADROLL_ADVERTISABLE_EID="ADVERTISABLE0000000001",
        ADROLL_PIXEL_EID="PIXEL00000000000000001",
        ADROLL_ACCESS_TOKEN="a-token",
        ADROLL_STRICT=False,
        ADROLL_DELIVERY="worker",
        ADROLL_OUTBOX_MAX_BYTES=0,
    )
    AdRoll(app)
    outbox = app.extensions["adroll"].outbox
    rng = random.Random(interruptions)

    def buy(order: str) -> str:
        with app.test_request_context(
            "/?adct=click123", environ_base={"REMOTE_ADDR": "203.0.113.7"}
        ):
            receipt = report_conversion(order_id=order, value="9.90", currency="EUR")
            return str(receipt.status)

    signal.signal(signal.SIGALRM, strike)
    assert buy("first") == "queued"
    struck, orders = 0, 1
    with ThreadPoolExecutor(1) as others:
        while struck < interruptions:
            order = f"o{orders}"
            orders += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00001, _LONGEST))
                status = buy(order)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Limit:
                struck += 1
                status = ""
            if not status:  # the buyer tries again, at another worker thread now and then
                if struck % _LOOK_EVERY == 0:
                    status = others.submit(buy, order).result(PATIENCE)
                else:
                    status = buy(order)
            assert status in ("queued", "duplicate"), status
        signal.setitimer(signal.ITIMER_REAL, 0)
    outbox.ingest.take_in_all()
    counts = outbox.lookups.counts()
    assert counts["waiting"] == orders, f"{counts} of {orders} orders"
    print(f"{struck} calls interrupted, {orders} orders, each there once", flush=True)
    # A thread that stands would keep the interpreter.
    assert threading.main_thread().is_alive()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder")
    arguments.add_argument("--interruptions", type=int, default=2000)
    given = arguments.parse_args()
    main(given.folder, given.interruptions)
    sys.exit()
