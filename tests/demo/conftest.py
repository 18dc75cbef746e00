"""The demo shop, its customers, and what it reports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from demo_app import create_app


@pytest.fixture
def make_shop(tmp_path: Path) -> Callable[..., Flask]:
    """Makes the shop; made twice, it is the same shop after a restart."""

    def make(**config: Any) -> Flask:
        return create_app(
            {"TESTING": True, "ADROLL_DELIVERY": "worker", **config},
            instance_path=str(tmp_path / "instance"),
        )

    return make


@pytest.fixture
def app(make_shop: Callable[..., Flask]) -> Flask:
    return make_shop()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """The browser of a customer who has looked at the first page."""
    client = app.test_client()
    client.get("/")
    return client
