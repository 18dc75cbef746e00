"""Every page over every database that an outbox may be in, and for a site without Flask."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adroll_flask import AdRollMiddleware
from adroll_flask.cli.commands import local_app
from adroll_flask.dashboard.mounting import PAGES
from adroll_flask.outbox import NewEvent, Outcome, new_id
from tests.conftest import ADVERTISABLE
from tests.support.outbox_engines import ENGINES, database, missing, require

from .conftest import WHERE, Shop


def reported(shop: Shop, order: str) -> None:
    shop.runtime.outbox.put(
        NewEvent(
            id=new_id(shop.now),
            name="purchase",
            advertisable_eid="ADVERTISABLE0000000001",
            dry_run=False,
            key=order,
            payload=b'{"event_name": "purchase"}',
            occurred_at=shop.now,
            digest="10.50 EUR",
            identifiers=3,
        )
    )


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "sqlite"])
def test_every_page_is_shown_from_a_server(engine: str, new_shop: Callable[..., Shop]) -> None:
    require(engine, {engine: missing(engine)})
    with database(engine) as url:
        shop = new_shop(ADROLL_OUTBOX_URL=url)
        shop.now = time.time()  # a server's clock is its own
        outbox = shop.runtime.outbox
        outbox.database.create_tables()
        for order in ("1001", "1002", "1003"):
            reported(shop, order)
        claim = outbox.queue.claim(ADVERTISABLE, 2)
        assert claim
        first, second = claim.events
        outbox.queue.settle(
            claim,
            [
                Outcome(id=first.id, kind="delivered"),
                Outcome(id=second.id, kind="dead", reason="refused", error="http_422: no"),
            ],
        )
        for page in PAGES:
            shop.html("" if page is PAGES[0] else page.name)
            shop.json(page.name)
        found = shop.json(period="year")
        way = {one["name"]: one["events"] for one in found["way"]}
        assert (way["delivered"], way["dead"], way["waiting"]) == (1, 1, 1)
        quality = shop.json("match-quality", period="year")
        assert quality["delivered"] == 1
        outbox.close()


def test_a_site_without_flask_has_every_page(tmp_path: Path) -> None:
    middleware = AdRollMiddleware(
        lambda _environ, _start: [],
        advertisable_eid="ADVERTISABLE0000000001",
        pixel_eid="PIXEL00000000000000001",
        access_token="a-token",
        secret_key="a long random text",
        delivery="worker",
        outbox_url=f"sqlite:///{tmp_path}/outbox.sqlite",
        journal_folder=str(tmp_path),
    )
    client = local_app(middleware.runtime).test_client()
    for page in PAGES:
        answer = client.get(WHERE + ("" if page is PAGES[0] else page.name))
        assert answer.status_code == 200, page.name
        assert client.get(f"{WHERE}{page.name}.json").status_code == 200, page.name
