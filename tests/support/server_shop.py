"""A small shop for real servers, configured by the environment; imported by servers and Celery."""

import os
import time
from pathlib import Path

from flask import Flask, Response, current_app, jsonify

from adroll_flask import AdRoll, report_conversion


def _clock() -> float:
    """The machine's, ahead by the seconds in ``$SHOP_CLOCK``, a file, where there is one."""
    ahead = os.environ.get("SHOP_CLOCK")
    return time.time() + (float(Path(ahead).read_text()) if ahead else 0.0)


def make_shop() -> Flask:
    """A shop on the outbox in ``$SHOP_FOLDER`` that reports to ``$FLASK_ADROLL_API_URL``."""
    app = Flask("shop", instance_path=os.environ["SHOP_FOLDER"])
    app.config.update(
        SECRET_KEY="a key for tests",
        ADROLL_ADVERTISABLE_EID="SANDBOXADVERTISABLE01X",
        ADROLL_PIXEL_EID="SANDBOXPIXEL0000000001",
        ADROLL_ACCESS_TOKEN="sandbox-token",
        ADROLL_LINGER=0.05,
    )
    app.config.from_prefixed_env()
    AdRoll(app, clock=_clock)

    @app.post("/orders/<order>")
    def buy(order: str) -> Response:
        receipt = report_conversion(order_id=order, value="9.90", currency="EUR", adct="click-1")
        return jsonify(pid=os.getpid(), status=receipt.status)

    @app.get("/")
    def about() -> Response:
        runtime = current_app.extensions["adroll"]
        delivers = runtime.settings.delivery == "thread" and runtime.thread.alive
        return jsonify(pid=os.getpid(), delivers=delivers)

    if early := os.environ.get("SHOP_EARLY_ORDER"):
        # As shops do that warm up while they are loaded.
        app.test_client().post(f"/orders/{early}")
    return app
