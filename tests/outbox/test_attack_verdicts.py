"""Releases and cancellations find their order, and are counted once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from adroll_flask import cancel_conversion, release_conversion, report_conversion
from adroll_flask.cli.commands import commands
from adroll_flask.sandbox import running
from tests.conftest import AppMaker
from tests.support.shops import Shop, orders

SHOP, STAGING = "https://shop.example", "https://staging.example"


def request_at(app: Flask, host: str) -> Any:
    return app.test_request_context(
        "/?adct=click-1", base_url=host, environ_base={"REMOTE_ADDR": "203.0.113.9"}
    )


def listed(app: Flask) -> list[tuple[str, bool]]:
    """State of each event, and whether it goes out as a dry run."""
    done = app.test_cli_runner().invoke(commands, ["outbox", "list", "--json"])
    assert done.exit_code == 0, done.output
    return [(row["state"], bool(row["dry_run"])) for row in json.loads(done.output)]


@pytest.mark.parametrize(
    ("held_at", "released_at"),
    [(SHOP, SHOP), (SHOP, STAGING), (SHOP, None), (STAGING, STAGING), (STAGING, None)],
)
def test_a_release_finds_its_hold_of_a_host_that_is_listed_or_not(
    held_at: str, released_at: str | None, make_app: AppMaker
) -> None:
    app = make_app(ADROLL_HOSTS=("shop.example",))
    with request_at(app, held_at):
        assert report_conversion(order_id="1", value=1, currency="EUR", hold=True).status == "held"
    context = app.app_context() if released_at is None else request_at(app, released_at)
    with context:
        assert release_conversion("1").status == "released"

    assert listed(app) == [("waiting", held_at == STAGING)]


@pytest.mark.parametrize("held_at", [SHOP, STAGING])
def test_a_cancellation_finds_its_hold_of_a_host_that_is_listed_or_not(
    held_at: str, make_app: AppMaker
) -> None:
    app = make_app(ADROLL_HOSTS=("shop.example",))
    with request_at(app, held_at):
        report_conversion(order_id="1", value=1, currency="EUR", hold=True)
    with request_at(app, STAGING):
        assert cancel_conversion("1").status == "cancelled"

    assert [state for state, _ in listed(app)] == ["cancelled"]


@pytest.mark.slow
def test_a_cancellation_that_comes_too_late_is_counted_once_an_order(tmp_path: Path) -> None:
    with running(strict=True) as sandbox:
        shop = Shop(tmp_path / "shop").at(sandbox)
        shop.report("order:1-3")
        shop.adroll("worker", "--once")
        assert orders(sandbox) == ["1", "2", "3"]
        # The provider's webhook comes again, and to another process.
        shop.report("cancel:1-2")
        shop.report("cancel:1 cancel:1")
        shop.adroll("worker", "--once")
        shop.report("cancel:2")
        shop.adroll("worker", "--once")

        told = shop.as_json("history", "--since", "24h")
        assert [row["events"] for row in told if row["outcome"] == "too_late"] == [2]
