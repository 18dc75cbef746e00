"""Sums of the history hold what a shop of any size sells."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from pathlib import Path

import pytest

from adroll_flask.sandbox import running
from tests.support.outbox_engines import database, require
from tests.support.shops import Shop, orders


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    ["sqlite", "postgresql", "mariadb"],
)
def test_an_hour_of_the_largest_orders_arrives_and_is_counted(
    engine: str, lacking: dict[str, str | None], tmp_path: Path
) -> None:
    """12,000 orders of 900,000,000,000: in a currency of small units that is no joke."""
    require(engine, lacking)
    count, value = 12_000, 900_000_000_000
    with contextlib.ExitStack() as stack:
        sandbox = stack.enter_context(running(keep=20_000))
        shop = Shop(tmp_path / "shop").at(sandbox)
        if engine != "sqlite":
            shop = shop.but(outbox_url=stack.enter_context(database(engine)))
        told = shop.but(delivery="thread", access_token=None).report(f"order:1-{count}@{value}")
        assert told == ["queued"] * count

        said = shop.adroll("worker", "--once")

        assert len(orders(sandbox)) == count, said
        # Two hours, where the first of them had begun.
        rows = shop.as_json("history", "--since", "24h")
        assert sum(row["events"] for row in rows) == count
        assert all(Decimal(row["value"]) > 0 for row in rows)
