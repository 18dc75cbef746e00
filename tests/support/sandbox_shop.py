"""A shop's outbox and deliverer against a real sandbox over real sockets, with a clock to move."""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adroll_flask.counters import Counters
from adroll_flask.delivery.client import Client, RequestsTransport, Response, Timeouts
from adroll_flask.delivery.deliverer import Deliverer
from adroll_flask.outbox import NewEvent, new_id, open_outbox
from adroll_flask.sandbox import ACCESS_TOKEN, ADVERTISABLE_EID, PIXEL_EID
from adroll_flask.settings import Settings

DAY = 86_400.0
SHORT = Timeouts(connect=0.4, read=0.4, total=0.6)


class Clock:
    """A shop's time: two days behind, so that a test may let days pass."""

    def __init__(self) -> None:
        self.now = time.time() - 2 * DAY

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Longest(random.Random):
    """Jitter that always takes the longest."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Watched:
    """The network, with a note of every request: its order ids, or ``trial``."""

    def __init__(self) -> None:
        self.inner = RequestsTransport()
        self.requests: list[list[str] | str] = []

    def send(
        self, url: str, headers: Mapping[str, str], body: bytes, timeout: Timeouts
    ) -> Response:
        events = json.loads(gzip.decompress(body))
        orders = [event.get("event_attributes", {}).get("order_id") for event in events]
        self.requests.append("trial" if "dry_run=true" in url and orders == [None] else orders)
        return self.inner.send(url, headers, body, timeout)


def purchase(order: str, **changes: Any) -> dict[str, Any]:
    return {
        "advertisable_eid": ADVERTISABLE_EID,
        "pixel_eid": PIXEL_EID,
        "event_name": "purchase",
        "page_location": "https://shop.example/thanks",
        "ip": "203.0.113.9",
        "conversion_value": "59.90",
        "currency": "EUR",
        "identifiers": {"adct": "click-canary"},
        "event_attributes": {"order_id": order},
    } | changes


def new_event(order: str, now: float, **changes: Any) -> NewEvent:
    return NewEvent(
        id=new_id(now),
        name="purchase",
        advertisable_eid=ADVERTISABLE_EID,
        dry_run=False,
        key=order,
        payload=json.dumps(purchase(order, **changes), separators=(",", ":")).encode(),
        occurred_at=now,
    )


class Shop:
    """One process of a shop."""

    def __init__(
        self,
        folder: Path,
        api_url: str,
        *,
        clock: Any = None,
        timeouts: Timeouts = SHORT,
        **changes: Any,
    ) -> None:
        values: dict[str, Any] = {
            "advertisable_eid": ADVERTISABLE_EID,
            "pixel_eid": PIXEL_EID,
            "access_token": ACCESS_TOKEN,
            "secret_key": ("key",),
            "api_url": api_url,
            "linger": 0.05,
        }
        self.settings = Settings(**(values | changes))
        self.clock = clock or Clock()
        self.counters = Counters()
        self.network = Watched()
        self.outbox = open_outbox(
            self.settings, folder=str(folder), clock=self.clock, counters=self.counters
        )
        client = Client(self.settings, self.network, clock=self.clock, timeouts=timeouts)
        self.deliverer = Deliverer(
            self.outbox,
            client,
            self.settings,
            self.counters,
            clock=self.clock,
            rng=Longest(),
            monotonic=self.clock,
        )

    def report(self, *orders: str, **changes: Any) -> None:
        for order in orders:
            if isinstance(self.clock, Clock):
                self.clock.now += 0.001
            self.outbox.put(new_event(order, self.clock(), **changes))

    def rows(self) -> dict[str, Any]:
        return {row.key or "": row for row in self.outbox.admin.list(limit=10_000)}

    def facts(self) -> dict[str, tuple[str, bool]]:
        """State and unsure mark by order id."""
        return {key: (row.state, row.unsure) for key, row in sorted(self.rows().items())}

    def close(self) -> None:
        self.network.inner.close()
        self.outbox.close()
