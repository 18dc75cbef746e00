"""A shop's outbox and an AdRoll that does as a test says, without a network."""

import gzip
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from adroll_flask import counters, settings
from adroll_flask.accounts import Account as Account
from adroll_flask.delivery.deliverer import Deliverer
from adroll_flask.delivery.thread import DeliveryThread
from adroll_flask.delivery.transport import NoAnswer as NoAnswer
from adroll_flask.delivery.transport import Response as Response
from adroll_flask.outbox.model import NewEvent, new_id
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.signals import event_rejected
from tests.support.outbox_engines import EID as EID
from tests.support.outbox_engines import Clock as Clock
from tests.support.outbox_engines import shown

PIXEL = "PIXEL00000000000000001"
#: Of the record of the visitor whose orders these are.
RECORD_ID = "0a" * 12
START = 1_700_000_000.0

Reply = Response | NoAnswer
OK = Response(200, {}, b'{"results": {}}')


def refusal(status: int, *entries: dict[str, Any], **headers: str) -> Response:
    body = json.dumps({"errors": list(entries) or [{"message": "no", "code": "bad"}]}).encode()
    return Response(status, {k.replace("_", "-"): v for k, v in headers.items()}, body)


class Most(random.Random):
    """Jitter that always takes the longest."""

    def uniform(self, a: float, b: float) -> float:
        return b


class AdRoll:
    """A transport; *judge* is its answer, or gives it for order ids and whether they are dry."""

    def __init__(self, judge: Callable[[list[str], bool], Reply] | Reply = OK) -> None:
        self.judge = judge
        self.requests: list[list[str]] = []
        self.trials: list[dict[str, Any]] = []
        self.urls: list[str] = []
        self.taken: list[str] = []
        self.wires: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        #: Of the last request.
        self.headers: Mapping[str, str] = {}

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        try:
            events = json.loads(gzip.decompress(body))
        except ValueError:  # one event of it is damaged
            return refusal(400)
        dry = "dry_run=true" in url
        orders = [event.get("event_attributes", {}).get("order_id", "?") for event in events]
        self.urls.append(url)
        self.headers = headers
        self.tokens.append(headers["Authorization"])
        if orders == ["?"] and dry:
            self.trials.append(events[0])
        else:
            self.requests.append(orders)
        answer = self.judge(orders, dry) if callable(self.judge) else self.judge
        if isinstance(answer, NoAnswer):
            raise answer
        if 200 <= answer.status < 300:
            self.taken += [order for order in orders if order != "?"]
            self.wires += events
        return answer

    @property
    def sizes(self) -> list[int]:
        return [len(request) for request in self.requests]


class Shop:
    """One process: an outbox, a client, a deliverer."""

    def __init__(
        self,
        folder: Path,
        adroll: Any = None,
        *,
        orders: int = 0,
        clock: Any = None,
        rng: random.Random | None = None,
        **changes: Any,
    ) -> None:
        """*orders* are reported already, ``o001`` and on; *changes* are settings."""
        values: dict[str, Any] = {
            "advertisable_eid": EID,
            "pixel_eid": PIXEL,
            "access_token": "canary-token",
            "secret_key": ("key",),
            "linger": 0.05,
        }
        self.settings = settings.Settings(**(values | changes))
        self.clock = clock or Clock(START)
        self.adroll = adroll or AdRoll()
        self.counters = counters.Counters()
        self.ended: list[tuple[str, str | None, str]] = []
        self.outbox = Outbox(
            self.settings, folder=str(folder), clock=self.clock, counters=self.counters
        )
        self.deliverer = Deliverer(
            self.outbox,
            self.settings,
            self.counters,
            transport=self.adroll,
            clock=self.clock,
            announce=self._ended,
            rng=rng or Most(),
            monotonic=self.clock,
        )

        self.report(*(f"o{number:03}" for number in range(1, orders + 1)))

    def _ended(self, signal: object, *, id: str, reason: str = "", **_: Any) -> None:
        row = self.outbox.lookups.show(id)
        kind = "dead" if signal is event_rejected else "delivered"
        self.ended.append((kind, row.key if row else None, reason))

    def report(self, *orders: str, dry_run: bool = False, **changes: Any) -> None:
        """Put purchases; each a millisecond after the one before."""
        for order in orders:
            if isinstance(self.clock, Clock):
                self.clock.now += 0.001
            wire = {
                "advertisable_eid": self.settings.advertisable_eid,
                "pixel_eid": self.settings.pixel_eid,
                "event_name": "purchase",
                "identifiers": {"adct": "click-canary"},
                "event_attributes": {"order_id": order},
            } | changes
            wire = {name: value for name, value in wire.items() if value is not None}
            payload = json.dumps(wire, separators=(",", ":")).encode()
            self.put(order, payload, wire.get("advertisable_eid") or "", dry_run)

    def put(self, order: str, payload: bytes, account: str = EID, dry_run: bool = False) -> None:
        """Put an event as it is given."""
        now = self.clock()
        event = NewEvent(new_id(now), "purchase", account, dry_run, order, payload, now)
        event.record_id = RECORD_ID
        self.outbox.put(event)

    def rows(self) -> dict[str, Any]:
        """Every event that is there, by order id."""
        return {row.key or "": row for row in self.outbox.lookups.list(limit=10_000)}

    def payload(self, order: str) -> bytes | None:
        return shown(self.outbox, self.rows()[order].id).payload

    def states(self) -> dict[str, str]:
        return {key: row.state for key, row in sorted(self.rows().items())}

    def stopped(self) -> str | None:
        return self.outbox.destination(EID).state().stopped

    def thread(self) -> DeliveryThread:
        """A thread beside requests, not yet started."""
        return DeliveryThread(lambda: self.deliverer, self.counters, self.settings.delivery)

    def step(self, *, after: float = 0.0) -> int:
        """One step, *after* so many seconds."""
        if after:
            self.clock.sleep(after)
        return self.deliverer.drain(until=0.0)

    def drain(self, *, after: float) -> int:
        """Steps until nothing is due, *after* so many seconds."""
        self.clock.sleep(after)
        return self.deliverer.drain()

    def steps(self, count: int, seconds: float = 0.0) -> None:
        for _ in range(count):
            self.deliverer.drain(until=0.0)
            self.clock.sleep(seconds)


def orders(count: int, first: int = 1) -> list[str]:
    return [f"o{number:03}" for number in range(first, first + count)]
