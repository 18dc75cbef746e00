"""The demo shop, its customers, and what it reports."""

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from demo_app import create_app


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    config = {"TESTING": True, "ADROLL_DELIVERY": "worker"}
    return create_app(config, instance_path=str(tmp_path / "instance"))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """The browser of a customer who has looked at the first page."""
    client = app.test_client()
    client.get("/")
    return client
