"""How long one event takes from a call's values to its JSON, with two products.

python -m benchmarks.events
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median

from adroll_flask.events.build import EventDefaults, build, recheck, wire_bytes
from adroll_flask.events.user_agent import describe

AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/120.0.0.0 Safari/537.36"
)
CONTEXT = EventDefaults(
    advertisable_eid="ADVERTISABLE0000000001",
    pixel_eid="PIXEL00000000000000001",
    now=1667065540.836,
    page_location="https://shop.example/thanks?order=1001&utm_source=x",
    ip="203.0.113.9",
    user_agent=AGENT,
    adct="click123",
    first_party_cookie="46d41c62e88bb2e267c1e15314bb8837-1667065540836",
)
FIELDS = {
    "order_id": "1001",
    "value": "59.90",
    "currency": "EUR",
    "email": "ada@example.com",
    "user_id": "42",
    "products": [
        {"product_id": name, "price": "29.95", "quantity": 2, "category": "kitchen"}
        for name in ("mug", "pot")
    ],
}


def microseconds(work: Callable[[], object], rounds: int = 300, calls: int = 30) -> list[float]:
    """The time of one call in each of *rounds*, fastest first."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(calls):
            work()
        taken.append((time.process_time() - start) / calls * 1e6)
    return sorted(taken)


def main() -> None:
    event = build("purchase", FIELDS, CONTEXT, strict=True).event
    wire = event.wire()
    works: dict[str, Callable[[], object]] = {
        "build (event, JSON, deduplication key)": lambda: build(
            "purchase", FIELDS, CONTEXT, strict=True
        ),
        "  of which the user agent (ua-parser)": lambda: describe(AGENT),
        "  of which the JSON": lambda: wire_bytes(event),
        "a hook's event, checked again": lambda: recheck(event),
        "json.dumps of the same object": lambda: json.dumps(wire),
    }
    for name, work in works.items():
        taken = microseconds(work)
        print(f"{name:42} {taken[0]:6.1f} µs fastest {median(taken):6.1f} µs median")


if __name__ == "__main__":
    main()
