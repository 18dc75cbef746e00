"""The commands as they are typed, on the app of a test."""

from collections.abc import Callable

import pytest
from click.testing import Result
from flask import Flask

from tests.conftest import AppMaker
from tests.support.outbox_engines import Attempt
from tests.support.visits import began_long_ago, invoke, report, settle

Run = Callable[..., Result]

DELIVERED = {"kind": "delivered"}
DEAD = {
    "kind": "dead",
    "reason": "refused",
    "error": "http_400: no such product",
    "asked": Attempt(0.0, "content", 400, "http_400: no such product", False),
}


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app(ADROLL_STRICT=False, ADROLL_DELIVERY="worker")


@pytest.fixture
def run(app: Flask) -> Run:
    return lambda *arguments, **kwargs: invoke(app, *arguments, **kwargs)


@pytest.fixture
def shop(app: Flask) -> Flask:
    """One order was delivered, one refused, one waits, and of one the visitor said no."""
    for order in ("1001", "1002", "1003"):
        report(app, order)
    report(app, " 1004 ", gpc=True)  # spaces around an id are none of it
    settle(app, o1001=DELIVERED, o1002=DEAD)
    began_long_ago(app)
    return app
