"""One way to report an order each: ours, its peers, and a bare insert into SQLite.

Run as a program, it is one of them in a process of its own that does what it is told, a line of
JSON at a time: ``python -m benchmarks.reporters adroll_flask http://127.0.0.1:PORT FOLDER``.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from flask import Flask, request

from benchmarks.visits import AGENT, IP, ask

ADVERTISABLE_EID = "SANDBOXADVERTISABLE01X"
PIXEL_EID = "SANDBOXPIXEL0000000001"
COOKIE = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"
SECRET_KEY = "a key for the benchmark"
PAGE = "https://shop.example/checkout?step=pay"
#: The variable that names another database for our outbox.
OUTBOX = "BENCHMARK_OUTBOX_URL"
#: In-memory queues are enlarged: with their defaults of 10,000 peers drop what comes after.
QUEUE = 100_000


def products() -> list[dict[str, Any]]:
    return [
        {"product_id": "mug", "price": "29.95", "quantity": 1, "category": "kitchen"},
        {"product_id": "pot", "price": "29.95", "quantity": 1, "category": "kitchen"},
    ]


def properties(order: str) -> dict[str, Any]:
    """What every peer is told of an order."""
    return {
        "order_id": order,
        "value": "59.90",
        "currency": "EUR",
        "email": "ada@shop.example",
        "products": products(),
    }


class Reporter(Protocol):
    """A way to report orders."""

    def explicit(self, order: str) -> None:
        """Report with everything given."""

    def in_view(self, order: str) -> None:
        """Report with what the request tells of the visitor."""

    def flush(self) -> None:
        """Return once everything was sent."""


class AdRollFlask:
    """Durable: committed to an outbox on disk before the call returns."""

    def __init__(self, app: Flask, url: str, folder: Path, delivery: str = "thread") -> None:
        from adroll_flask import AdRoll, report_conversion

        app.config.update(
            ADROLL_ADVERTISABLE_EID=ADVERTISABLE_EID,
            ADROLL_PIXEL_EID=PIXEL_EID,
            ADROLL_ACCESS_TOKEN="sandbox-token",
            ADROLL_API_URL=f"{url}/api",
            ADROLL_DELIVERY=delivery,
        )
        if OUTBOX in os.environ:
            app.config["ADROLL_OUTBOX_URL"] = os.environ[OUTBOX]
        self._adroll = AdRoll(app)
        self._app = app
        self._report = report_conversion
        self._context = app.app_context()

    def explicit(self, order: str) -> None:
        receipt = self._report(
            **properties(order),
            adct="click-123",
            first_party_cookie=COOKIE,
            ip=IP,
            user_agent=AGENT,
            page_location=PAGE,
        )
        assert receipt, receipt

    def in_view(self, order: str) -> None:
        receipt = self._report(**properties(order))
        assert receipt, receipt

    def flush(self) -> None:
        with self._app.app_context():
            while self._adroll.flush(timeout=30.0):
                pass

    def start(self) -> None:
        """Begin to deliver what lies there, as the first request of a process does."""
        self._app.extensions["adroll"].begin()


class PostHog:
    def __init__(self, app: Flask, url: str, folder: Path) -> None:
        from posthog import Posthog

        self._client = Posthog("key", host=url, max_queue_size=QUEUE, flush_interval=0.5)

    def explicit(self, order: str) -> None:
        self._capture(order, IP, AGENT, PAGE, COOKIE)

    def in_view(self, order: str) -> None:
        self._capture(order, *_of_request())

    def _capture(self, order: str, ip: Any, agent: Any, page: Any, cookie: Any) -> None:
        told = {**properties(order), "$ip": ip, "$user_agent": agent, "$current_url": page}
        self._client.capture(
            "purchase", distinct_id=cookie, properties={**told, "adct": "click-123"}
        )

    def flush(self) -> None:
        self._client.flush()


class Segment:
    def __init__(self, app: Flask, url: str, folder: Path) -> None:
        from segment.analytics.client import Client

        self._client = Client("key", host=url, max_queue_size=QUEUE)

    def explicit(self, order: str) -> None:
        self._track(order, IP, AGENT, PAGE, COOKIE)

    def in_view(self, order: str) -> None:
        self._track(order, *_of_request())

    def _track(self, order: str, ip: Any, agent: Any, page: Any, cookie: Any) -> None:
        self._client.track(
            anonymous_id=cookie,
            event="purchase",
            properties={**properties(order), "adct": "click-123"},
            context={"ip": ip, "userAgent": agent, "page": {"url": page}},
        )

    def flush(self) -> None:
        self._client.flush()


class Snowplow:
    def __init__(self, app: Flask, url: str, folder: Path) -> None:
        from snowplow_tracker import AsyncEmitter, Subject, Tracker
        from snowplow_tracker.events import SelfDescribing
        from snowplow_tracker.self_describing_json import SelfDescribingJson

        self._kinds = Subject, SelfDescribing, SelfDescribingJson
        parts = urlsplit(url)
        self._emitter = AsyncEmitter(
            str(parts.hostname), port=parts.port, batch_size=100, buffer_capacity=QUEUE
        )
        self._tracker = Tracker("shop", emitters=self._emitter, encode_base64=False)

    def explicit(self, order: str) -> None:
        self._track(order, IP, AGENT, PAGE, COOKIE)

    def in_view(self, order: str) -> None:
        self._track(order, *_of_request())

    def _track(self, order: str, ip: Any, agent: Any, page: Any, cookie: Any) -> None:
        subject_of, event_of, json_of = self._kinds
        subject = subject_of().set_ip_address(ip).set_useragent(agent).set_network_user_id(cookie)
        data = {**properties(order), "page": page, "adct": "click-123"}
        described = json_of("iglu:com.shop/purchase/jsonschema/1-0-0", data)
        self._tracker.track(event_of(described, event_subject=subject))

    def flush(self) -> None:
        self._emitter.sync_flush()


class BareInsert:
    """The floor: JSON into a kept WAL connection, committed; nothing is checked or sent."""

    def __init__(self, app: Flask, url: str, folder: Path) -> None:
        self._connection = sqlite3.connect(
            folder / "bare.sqlite", isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(
            "CREATE TABLE event (id INTEGER PRIMARY KEY, key TEXT UNIQUE, payload BLOB)"
        )

    def explicit(self, order: str) -> None:
        told = {**properties(order), "ip": IP, "agent": AGENT, "page": PAGE, "cookie": COOKIE}
        self._connection.execute(
            "INSERT INTO event (key, payload) VALUES (?, ?)", (order, json.dumps(told))
        )

    in_view = explicit

    def flush(self) -> None:
        pass


class Synchronous:
    """A call to the API within the request, on a kept connection."""

    def __init__(self, app: Flask, url: str, folder: Path) -> None:
        import requests

        self._session = requests.Session()
        self._url = f"{url}/api"

    def explicit(self, order: str) -> None:
        self._session.post(self._url, json=[properties(order)], timeout=10)

    in_view = explicit

    def flush(self) -> None:
        pass


class Nothing:
    """The bare app."""

    def __init__(self, app: Flask, url: str, folder: Path) -> None:
        pass

    def explicit(self, order: str) -> None:
        pass

    in_view = explicit

    def flush(self) -> None:
        pass


KINDS: dict[str, Callable[[Flask, str, Path], Reporter]] = {
    "adroll_flask": AdRollFlask,
    "PostHog": PostHog,
    "Segment": Segment,
    "Snowplow": Snowplow,
    "bare insert": BareInsert,
    "synchronous": Synchronous,
    "bare app": Nothing,
}


def _of_request() -> tuple[Any, Any, Any, Any]:
    return (
        request.remote_addr,
        request.headers.get("User-Agent"),
        request.url,
        request.cookies.get("__adroll_fpc"),
    )


def make(kind: str, url: str, folder: Path) -> tuple[Flask, Reporter]:
    """A shop's app and its way to report."""
    folder.mkdir(parents=True, exist_ok=True)
    app = Flask("shop", instance_path=str(folder))
    app.config["SECRET_KEY"] = SECRET_KEY
    return app, KINDS[kind](app, url, folder)


class Visitors:
    """The cookies of visitors who clicked an ad and have seen the shop's pages before."""

    def __init__(self) -> None:
        from adroll_flask.counters import Counters
        from adroll_flask.settings import Settings
        from adroll_flask.visitor.record import Record
        from adroll_flask.visitor.request_cookies import record_cookie
        from adroll_flask.visitor.visitors import Visitors as Keeper

        settings = Settings()
        # Over HTTPS, as all that is asked here.
        self._name = record_cookie(settings, secure=True)
        # Not the app's own, which would know what it has signed.
        self._records = Keeper(settings, Counters(), keys=(SECRET_KEY,), clock=time.time)
        self._nobody = Record()

    def cookies(self, number: int) -> str:
        """Of another visitor for each *number*: nothing that is kept of one serves the next."""
        cookie = f"{number:032x}{COOKIE[32:]}"
        record = self._nobody.with_adct(f"click-{number}", time.time(), "url")
        signed = self._records.sign(record.with_cookie(cookie, "pixel"))
        return f"session=none; __adroll_fpc={cookie}; theme=dark; {self._name}={signed}"


# -- a process -----------------------------------------------------------------------------


class Child:
    """Does what it is told."""

    def __init__(self, kind: str, url: str, folder: Path) -> None:
        self.app, self.reporter = make(kind, url, folder)
        self.times: list[int] = []
        self.number = time.time_ns() // 1000

        @self.app.post("/checkout")
        def checkout() -> str:
            order = self.order()
            began = time.perf_counter_ns()
            self.reporter.in_view(order)
            self.times.append(time.perf_counter_ns() - began)
            return "thanks"

        self._visitors = Visitors()

    def order(self) -> str:
        self.number += 1
        return f"order-{self.number}"

    def calls(self, count: int, gap: float) -> list[int]:
        report, clock = self.reporter.explicit, time.perf_counter_ns
        times = []
        with self.app.app_context():
            for _ in range(count):
                order = self.order()
                began = clock()
                report(order)
                times.append(clock() - began)
                if gap:
                    time.sleep(gap)
        return times

    def views(self, count: int, gap: float) -> list[int]:
        self.times.clear()
        for _ in range(count):
            cookies = self._visitors.cookies(self.number)
            if gap:
                time.sleep(gap)
            ask(self.app, "/checkout", method="POST", query="step=pay", cookies=cookies)
        return list(self.times)

    def burst(self, count: int) -> dict[str, float]:
        """Report *count* orders as fast as it goes, and have them all sent."""
        self.calls(20, 0.0)
        self.reporter.flush()
        before = _memory()
        began = time.perf_counter()
        self.calls(count, 0.0)
        reported = time.perf_counter() - began
        self.reporter.flush()
        return {
            "reported": reported,
            "sent": time.perf_counter() - began,
            "memory": _memory(),
            "memory_before": before,
        }

    def do(self, told: dict[str, Any]) -> Any:
        match told["do"]:
            case "calls":
                return self.calls(told["count"], told["gap"])
            case "views":
                return self.views(told["count"], told["gap"])
            case "burst":
                return self.burst(told["count"])
            case "start":
                return getattr(self.reporter, "start", lambda: None)()
            case "flush":
                return self.reporter.flush()
        raise ValueError(told["do"])


def _memory() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    child = Child(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    for line in sys.stdin:
        print(json.dumps(child.do(json.loads(line))), flush=True)
