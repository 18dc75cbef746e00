"""What all tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from adroll_flask import AdRoll

pytest_plugins = ["adroll_flask.testing"]

ADVERTISABLE = "ADVERTISABLE0000000001"
PIXEL = "PIXEL00000000000000001"
PAGE = "<!doctype html><html><head><title>Shop</title></head><body>Hello</body></html>"

AppMaker = Callable[..., Flask]


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[AppMaker]:
    """Makes Flask apps with AdRoll on them, each with an outbox of its own and no delivery."""
    made: list[Flask] = []

    def make(adroll: AdRoll | None = None, /, **config: Any) -> Flask:
        app = Flask(f"shop{len(made)}", instance_path=str(tmp_path / f"instance{len(made)}"))
        app.config.update(
            SECRET_KEY="a key for tests",
            TESTING=True,
            ADROLL_ADVERTISABLE_EID=ADVERTISABLE,
            ADROLL_PIXEL_EID=PIXEL,
            ADROLL_ACCESS_TOKEN="a-token",
            ADROLL_API_URL="http://127.0.0.1:9/api",
            ADROLL_DELIVERY="worker",
        )
        app.config.update(config)
        (adroll or AdRoll()).init_app(app)

        @app.get("/")
        def index() -> str:
            return PAGE

        made.append(app)
        return app

    yield make
    for app in made:
        outbox = app.extensions["adroll"]._outbox
        if outbox is not None:
            outbox.close()
