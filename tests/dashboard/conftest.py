"""An app with a dashboard over a history that a test writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask.testing import FlaskClient

from adroll_flask import AdRoll
from adroll_flask.outbox.database import Tx
from adroll_flask.outbox.history import Entry, add
from tests.conftest import AppMaker
from tests.support.dashboard_shop import DashboardShop
from tests.support.outbox_engines import ENGINES, database, missing, require

#: A Wednesday, 15:03 UTC.
NOW = 1_795_619_000.0
HOUR, DAY = 3600.0, 86_400.0
WHERE = "/adroll-dashboard/"


class Shop:
    """A site with a dashboard, whose clock the test sets."""

    def __init__(self, make_app: AppMaker, **config: Any) -> None:
        self.now = NOW
        adroll = AdRoll(clock=lambda: self.now)
        self.app = make_app(adroll, **config)
        self.may_look: Any = True
        self.may_act: Any = True
        adroll.dashboard(self.app, access=lambda: self.may_look, operator=lambda: self.may_act)
        self.runtime = self.app.extensions["adroll"]
        self.client: FlaskClient = self.app.test_client()

    def happened(
        self,
        outcome: str,
        events: int = 1,
        *,
        ago: float = 0.0,
        name: str = "purchase",
        reason: str = "",
        identifiers: int = 0,
        value: str = "0 EUR",
        delay: float | None = None,
    ) -> None:
        """Write history: *events* alike, *ago* seconds before now."""
        amount, _, currency = value.partition(" ")
        entry = Entry(
            *(name, outcome, reason, identifiers, currency),
            *(int(float(amount) * 10_000), delay, 1),
        )
        self.now -= ago

        def write(tx: Tx) -> None:
            add(tx, [entry] * events)

        self.runtime.outbox.housekeeping.create_tables()
        self.runtime.outbox._parts.database.write(write)
        self.now += ago

    def json(self, page: str = "overview", **query: str) -> dict[str, Any]:
        """A page's data."""
        answer = self.client.get(f"{WHERE}{page}.json", query_string=query)
        assert answer.status_code == 200
        found: dict[str, Any] = answer.get_json()
        return found

    def html(self, path: str = "", **query: str) -> str:
        """A page."""
        answer = self.client.get(WHERE + path, query_string=query)
        assert answer.status_code == 200
        return answer.text


@pytest.fixture
def new_shop(make_app: AppMaker) -> Callable[..., Shop]:
    """Makes shops: ``new_shop(ADROLL_DRY_RUN=True)``."""
    return lambda **config: Shop(make_app, **config)


@pytest.fixture
def shop(new_shop: Callable[..., Shop]) -> Shop:
    """One shop."""
    return new_shop()


@pytest.fixture(params=ENGINES)
def any_shop(request: Any, make_app: AppMaker) -> Iterator[DashboardShop]:
    """A shop whose visitors buy, on each engine."""
    engine = request.param
    require(engine, {engine: missing(engine)})
    with ExitStack() as stack:
        config = {}
        if engine != "sqlite":
            config["ADROLL_OUTBOX_URL"] = stack.enter_context(database(engine))
        shop = DashboardShop(make_app, **config)
        stack.callback(lambda: shop.runtime.outbox.close())
        yield shop
