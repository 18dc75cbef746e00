"""A shop's outbox and deliverer against a real sandbox over real sockets, with a clock to move."""

import gzip
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adroll_flask.delivery.transport import RequestsTransport, Response
from adroll_flask.delivery.transport import Timeouts as Timeouts
from adroll_flask.sandbox import ACCESS_TOKEN, ADVERTISABLE_EID, PIXEL_EID
from tests.support import delivery_kit

DAY = 86_400.0
SHORT = Timeouts(connect=1.0, read=1.0, total=1.5)


class Watched:
    """The network, with a note of every request: its order ids, or ``trial``."""

    def __init__(self, timeouts: Timeouts) -> None:
        self.inner = RequestsTransport(timeouts)
        self.requests: list[list[str] | str] = []

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        events = json.loads(gzip.decompress(body))
        orders = [event.get("event_attributes", {}).get("order_id") for event in events]
        self.requests.append("trial" if "dry_run=true" in url and orders == [None] else orders)
        return self.inner.send(url, headers, body)


def past() -> delivery_kit.Clock:
    """A clock that is two days behind, so that a test may let days pass."""
    return delivery_kit.Clock(time.time() - 2 * DAY)


class Shop(delivery_kit.Shop):
    """One process of a shop."""

    def __init__(
        self, folder: Path, api_url: str, *, clock: Any = None, timeouts: Any = SHORT, **more: Any
    ) -> None:
        self.network = Watched(timeouts)
        account = {"advertisable_eid": ADVERTISABLE_EID, "pixel_eid": PIXEL_EID}
        super().__init__(
            folder,
            self.network,
            clock=clock or past(),
            **(account | {"access_token": ACCESS_TOKEN, "api_url": api_url} | more),
        )

    def report(self, *orders: str, **changes: Any) -> None:
        sound = {
            "page_location": "https://shop.example/thanks",
            "ip": "203.0.113.9",
            "conversion_value": "59.90",
            "currency": "EUR",
        }
        super().report(*orders, **(sound | changes))

    def facts(self) -> dict[str, tuple[str, bool]]:
        """State and unsure mark by order id."""
        return {key: (row.state, row.unsure) for key, row in sorted(self.rows().items())}

    def close(self) -> None:
        self.network.inner.close()
        self.outbox.close()
