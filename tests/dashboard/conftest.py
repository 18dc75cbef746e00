"""An app with a dashboard over a history that a test writes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adroll_flask.outbox.history import add
from adroll_flask.outbox.schema import Tx
from tests.conftest import AppMaker
from tests.support.dashboard_shop import DashboardShop
from tests.support.outbox_engines import ENGINES, Counted, database
from tests.support.visits import began_long_ago

HOUR, DAY = 3600.0, 86_400.0


class Shop(DashboardShop):
    """A site whose history the test writes."""

    def happened(
        self, outcome: str, events: int = 1, *, ago: float = 0.0, value: str = "0 EUR", **more: Any
    ) -> None:
        """Write history: *events* alike, *ago* seconds before now."""
        amount, _, currency = value.partition(" ")
        self.now -= ago
        known: dict[str, Any] = {"at": self.now, "name": "purchase", "outcome": outcome}
        known |= {"value": int(float(amount) * 10_000), "currency": currency}
        entry = Counted(**known | more)

        def write(tx: Tx) -> None:
            add(tx, [entry] * events)

        self.runtime.outbox.database.create_tables()
        self.runtime.outbox.database.write(write)
        self.now += ago


@pytest.fixture
def new_shop(make_app: AppMaker) -> Callable[..., Shop]:
    """Makes shops: ``new_shop(ADROLL_DRY_RUN=True)``."""
    return lambda **config: Shop(make_app, **config)


@pytest.fixture
def shop(new_shop: Callable[..., Shop]) -> Shop:
    """One shop."""
    return new_shop()


@pytest.fixture(params=ENGINES)
def any_outbox(request: Any) -> Iterator[dict[str, str]]:
    """The settings of an outbox, on each engine."""
    if request.param == "sqlite":
        yield {}
        return
    with database(request.param) as url:
        yield {"ADROLL_OUTBOX_URL": url}


@pytest.fixture
def any_shop(any_outbox: dict[str, str], make_app: AppMaker) -> Iterator[DashboardShop]:
    """A shop whose visitors buy, on each engine."""
    shop = DashboardShop(make_app, **any_outbox)
    began_long_ago(shop.app)
    yield shop
    shop.runtime.outbox.close()
