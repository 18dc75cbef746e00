"""How long an order of one account takes to AdRoll while AdRoll hangs for another account.

``python -m benchmarks.accounts`` reports 40 orders of account B, one a second, with delivery in a
thread beside them: first while AdRoll answers for both accounts, then while each request of
account A hangs until its time-out (15 s). An order counts from the report to its arrival.
"""

from __future__ import annotations

import argparse
import gzip
import re
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from flask import Flask

from adroll_flask import AdRoll, report_conversion

A: Final = "ACCOUNTAADVERTISABLE01"
B: Final = "ACCOUNTBADVERTISABLE01"
_PIXEL: Final = "ACCOUNTSPIXEL000000001"
_ORDER: Final = re.compile(rb'"order_id":"(B-[^"]+)"')
#: Longer than a request is waited for.
_HANGS: Final = 60.0


class _AdRoll(ThreadingHTTPServer):
    """Takes what is sent, and hangs for account A where it is told to."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hangs = threading.Event()
        self.ends = threading.Event()
        self.connections = 0
        self.arrived: dict[str, float] = {}

    def get_request(self) -> tuple[socket.socket, Any]:
        self.connections += 1
        return super().get_request()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _AdRoll

    def do_POST(self) -> None:
        body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        now = time.monotonic()
        if A in self.path and self.server.hangs.is_set():
            self.server.ends.wait(_HANGS)
            return
        for order in _ORDER.findall(body):
            self.server.arrived[order.decode()] = now
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def _serving() -> Iterator[_AdRoll]:
    adroll = _AdRoll()
    threading.Thread(target=adroll.serve_forever, daemon=True).start()
    try:
        yield adroll
    finally:
        adroll.ends.set()
        adroll.shutdown()
        adroll.server_close()


def _shop(adroll: _AdRoll, folder: str) -> Flask:
    app = Flask(__name__, instance_path=folder)
    app.config.update(
        SECRET_KEY="benchmark",
        ADROLL_ADVERTISABLE_EID=A,
        ADROLL_PIXEL_EID=_PIXEL,
        ADROLL_ACCESS_TOKEN="token-a",
        ADROLL_ACCOUNTS={
            "b.example": {
                "advertisable_eid": B,
                "pixel_eid": _PIXEL,
                "access_token": "token-b",
            }
        },
        ADROLL_API_URL=f"http://127.0.0.1:{adroll.server_port}/api",
    )
    AdRoll(app)
    return app


def latencies(*, hangs: bool, orders: int, pause: float) -> tuple[list[float], int]:
    """Seconds from the report of each order of B to its arrival, and how many connections it took.

    :param hangs: whether AdRoll hangs for A.
    """
    with _serving() as adroll, tempfile.TemporaryDirectory() as folder:
        if hangs:
            adroll.hangs.set()
        app = _shop(adroll, folder)
        reported: dict[str, float] = {}
        for number in range(orders):
            for account in "AB":
                order = f"{account}-{number}"
                with app.test_request_context(base_url=f"https://{account.lower()}.example"):
                    reported[order] = time.monotonic()
                    report_conversion(
                        order_id=order,
                        value="1.00",
                        currency="EUR",
                        visitor=None,
                        ip="203.0.113.7",
                        user_agent="benchmark",
                        email="someone@example.com",
                        page_location=f"https://{account.lower()}.example/thanks",
                    )
            time.sleep(pause)
        until = time.monotonic() + 30
        # Where it hangs for A, that has a connection of its own.
        while time.monotonic() < until and (
            len(adroll.arrived) < orders or adroll.connections < 1 + hangs
        ):
            time.sleep(0.05)
        adroll.ends.set()
        app.extensions["adroll"].thread.stop()
        taken = [at - reported[order] for order, at in adroll.arrived.items()]
        if len(taken) < orders:
            raise SystemExit(f"{orders - len(taken)} orders of B did not arrive")
        return taken, adroll.connections


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--orders", type=int, default=40)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two orders")
    options = parser.parse_args()
    print("An order of B, from report to arrival, seconds: median, worst; connections in all")
    for what, hangs in (("AdRoll answers for A", False), ("AdRoll hangs for A", True)):
        seconds, connections = latencies(hangs=hangs, orders=options.orders, pause=options.pause)
        median, worst = statistics.median(seconds), max(seconds)
        print(f"  {median:6.2f}  {worst:6.2f}  {connections:4}  {what}", flush=True)


if __name__ == "__main__":
    main()
