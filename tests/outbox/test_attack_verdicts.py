"""Releases and cancellations find their order, whichever host of the site says them."""

import json
from typing import Any

import pytest
from flask import Flask

from adroll_flask import cancel_conversion, release_conversion, report_conversion
from adroll_flask.cli.commands import commands
from tests.conftest import AppMaker

SHOP, STAGING = "https://shop.example", "https://staging.example"


def request_at(app: Flask, host: str | None) -> Any:
    if host is None:
        return app.app_context()
    return app.test_request_context(
        "/?adct=click-1", base_url=host, environ_base={"REMOTE_ADDR": "203.0.113.9"}
    )


@pytest.mark.parametrize(
    ("held_at", "decided_at"),
    [(SHOP, SHOP), (SHOP, STAGING), (SHOP, None), (STAGING, STAGING), (STAGING, None)],
)
def test_a_verdict_finds_its_hold(held_at: str, decided_at: str | None, make_app: AppMaker) -> None:
    app = make_app(ADROLL_HOSTS=("shop.example",))
    with request_at(app, held_at):
        for order in ("1", "2"):
            receipt = report_conversion(order_id=order, value=1, currency="EUR", hold=True)
            assert receipt.status == "held"
    with request_at(app, decided_at):
        assert release_conversion("1").status == "released"
        assert cancel_conversion("2").status == "cancelled"

    done = app.test_cli_runner().invoke(commands, ["outbox", "list", "--json"])
    listed = {row["key"]: (row["state"], bool(row["dry_run"])) for row in json.loads(done.output)}
    dry = held_at == STAGING
    assert listed == {"1": ("waiting", dry), "2": ("cancelled", dry)}
