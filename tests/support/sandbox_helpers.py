"""Events that are in order until a test spoils them, and a client that sends them."""

import copy
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from flask import Flask
from werkzeug.test import TestResponse

from adroll_flask.sandbox import ACCESS_TOKEN as ACCESS_TOKEN
from adroll_flask.sandbox import ADVERTISABLE_EID as ADVERTISABLE_EID
from adroll_flask.sandbox import PIXEL_EID as PIXEL_EID
from adroll_flask.sandbox.parts import Sandbox

NOW = 1_700_000_000.0
COOKIE = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"

#: Every field of the API at once, all in order.
FULL: dict[str, Any] = {
    "advertisable_eid": ADVERTISABLE_EID,
    "pixel_eid": PIXEL_EID,
    "event_name": "purchase",
    "page_location": "https://shop.test/thanks?order=1001",
    "ip": "94.130.12.7",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
    "timestamp": 1_699_999_999.25,
    "conversion_value": "123.45",
    "currency": "EUR",
    "identifiers": {
        "adct": "click123",
        "first_party_cookie": COOKIE,
        "email": "ann@shop.test",
        "email_sha256": "a" * 64,
        "email_md5": "c" * 32,
        "device_id": "6D92078A-8246-4BA4-AE5B-76104861E7DC",
        "user_id": "customer-42",
    },
    "event_attributes": {
        "order_id": "1001",
        "user_id": "customer-42",
        "total": "123.45",
        "keywords": "blue mug",
        "products": [
            {
                "product_id": "mug",
                "product_group": "kitchen",
                "price": "41.15",
                "quantity": 3,
                "category": "Mugs",
            }
        ],
    },
    "external_data": '{"campaign": 7}',
    "device_os": "iOS",
    "device_type": "phone",
    "package_app_name": "com.example.App",
    "package_app_version": "14.1.3",
}
#: What is required and nothing else.
LEAST: dict[str, Any] = {
    "advertisable_eid": ADVERTISABLE_EID,
    "pixel_eid": PIXEL_EID,
    "event_name": "pageView",
    "page_location": "https://shop.test/",
    "ip": "94.130.12.7",
    "identifiers": {"adct": "click123"},
}


def full() -> dict[str, Any]:
    return copy.deepcopy(FULL)


def purchase(order: str, **changes: Any) -> dict[str, Any]:
    return {
        **copy.deepcopy(LEAST),
        "event_name": "purchase",
        "event_attributes": {"order_id": order},
        **changes,
    }


def spoiled(path: str, value: Any) -> dict[str, Any]:
    """A full event in which one field, given by its path, is another."""
    event = full()
    place: Any = event
    *way, last = path.replace("[", ".").replace("]", "").split(".")
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[int(last) if last.isdigit() else last] = value
    return event


@dataclass
class Api:
    """Posts to the event API as a correct client would, save for what a test changes."""

    sandbox: Sandbox
    open: Callable[..., TestResponse]

    @classmethod
    def of(cls, app: Flask) -> Self:
        return cls(app.extensions["adroll_sandbox"], app.test_client().open)

    def post(
        self, body: Any, *, query: Any = None, headers: Any = None, packed: bool = False, **to: str
    ) -> TestResponse:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent: dict[str, str | None] = {
            "Authorization": f"Token {ACCESS_TOKEN}",
            "Content-Type": "application/json",
        }
        if packed:
            data = gzip.compress(data)
            sent["Content-Encoding"] = "gzip"
        sent.update(headers or {})
        return self.open(
            **{"path": "/api", "method": "POST", **to},
            query_string={"advertisable": ADVERTISABLE_EID} if query is None else query,
            data=data,
            headers={name: value for name, value in sent.items() if value is not None},
        )

    def fields(self, event: Any) -> list[str]:
        """The paths of the fields for which an event is rejected, without its place."""
        answer = self.post([event])
        if answer.status_code == 200:
            return []
        assert answer.status_code == 400, answer.get_data(as_text=True)
        return [
            error["field"].removeprefix("[0]").lstrip(".") for error in answer.get_json()["errors"]
        ]
