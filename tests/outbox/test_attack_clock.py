"""A clock that is wrong for a moment does not end what was to last for months."""

from __future__ import annotations

from pathlib import Path

import pytest

from adroll_flask.sandbox import running
from tests.support.outbox_engines import wait_until
from tests.support.shops import Shop, orders

DAY = 86_400


@pytest.mark.slow
@pytest.mark.parametrize("kept_house_before", [False, True])
def test_a_clock_a_hundred_days_ahead_takes_neither_keys_nor_holds(
    kept_house_before: bool, tmp_path: Path
) -> None:
    clock = tmp_path / "ahead"
    clock.write_text("0")
    with running(strict=True) as sandbox:
        shop = Shop(tmp_path / "shop", clock=clock).at(sandbox)

        def ended(order: str) -> bool:
            return "expired" in shop.adroll("outbox", "find", order, check=False)

        def let_it_end(order: str) -> None:
            """A hold that is nearly over anyway ends: the worker has kept house."""
            with shop.running("worker"):
                wait_until(lambda: ended(order), 100)

        shop.report("order:1 hold:2")
        shop.adroll("worker", "--once")
        assert orders(sandbox) == ["1"]
        if kept_house_before:
            shop.report("brief:7")
            let_it_end("7")
        shop.report("brief:8")
        shop.adroll("worker", "--once")

        clock.write_text(str(100 * DAY))
        let_it_end("8")
        clock.write_text("0")

        shop.report("order:1 release:2")
        shop.report("order:3")
        with shop.running("worker"):
            assert wait_until(lambda: "3" in orders(sandbox))
            shop.report("order:4")
            assert wait_until(lambda: "4" in orders(sandbox))
        assert orders(sandbox) == ["1", "2", "3", "4"]
