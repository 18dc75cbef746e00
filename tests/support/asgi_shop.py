"""The shop of server_shop.py for ASGI servers."""

import json
import os
from typing import Any

from adroll_flask import AdRollASGIMiddleware, report_conversion
from adroll_flask.asgi import Receive, Scope, Send

SALE: dict[str, Any] = {"value": "9.90", "currency": "EUR", "adct": "click-1"}


def make_shop() -> AdRollASGIMiddleware:
    """A shop on the outbox in ``$SHOP_FOLDER`` that reports to ``$FLASK_ADROLL_API_URL``."""

    async def shop(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        told: dict[str, Any] = {"pid": os.getpid(), "delivers": middleware.runtime.thread.alive}
        if scope["path"].startswith("/orders/"):
            order = scope["path"].removeprefix("/orders/")
            told["status"] = report_conversion(order_id=order, **SALE).status
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})

    middleware = AdRollASGIMiddleware(
        shop,
        advertisable_eid="SANDBOXADVERTISABLE01X",
        pixel_eid="SANDBOXPIXEL0000000001",
        access_token="sandbox-token",
        secret_key="a key for tests",
        linger=0.05,
        api_url=os.environ["FLASK_ADROLL_API_URL"],
        folder=os.environ["SHOP_FOLDER"],
    )
    if early := os.environ.get("SHOP_EARLY_ORDER"):
        # As shops do that warm up while they are loaded.
        with middleware.context():
            at: Any = {"ip": "203.0.113.7", "page_location": "https://shop.test/"}
            report_conversion(order_id=early, **SALE, **at)
    return middleware
