"""A Flask app that a page's code is put into, and a sandbox that it delivers to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from adroll_flask import AdRoll
from adroll_flask.sandbox import RunningSandbox, running
from tests.conftest import PAGE
from tests.support import PATIENCE, visits

SITE = visits.VISIT
ADDRESS: dict[str, str] = SITE["environ_base"]
AGENT = {"User-Agent": "Mozilla/5.0 (X11) Firefox/145.0"}


@dataclass
class PageShop:
    """What a page takes as given: an app; and AdRoll, as far as the sandbox is it."""

    folder: Path
    sandbox: RunningSandbox
    config: dict[str, Any] = field(default_factory=dict)
    app: Flask = field(init=False)
    adroll: AdRoll = field(init=False)

    def __post_init__(self) -> None:
        self.app = Flask("shop", instance_path=str(self.folder))
        given = {"TESTING": True, "SECRET_KEY": "a key for tests", "ADROLL_STRICT": None}
        self.app.config.update(visits.at(self.sandbox) | given | self.config)
        self.adroll = AdRoll()
        self.app.add_url_rule("/", "home", lambda: PAGE)

    def start(self) -> None:
        """Begin, once the page's settings are there."""
        self.adroll.init_app(self.app)

    def browser(self, path: str = "/?adct=click123") -> FlaskClient:
        """A visitor who came by an ad."""
        client = self.app.test_client()
        client.environ_base.update(ADDRESS)
        client.get(path, base_url=SITE["base_url"], headers=AGENT)
        return client

    def sold(self) -> list[tuple[str, Decimal, str | None]]:
        """What AdRoll has: order, value and click of each purchase, once all is sent."""
        with self.app.app_context():
            assert self.adroll.flush(PATIENCE) == 0
        return [
            (
                str(sale["order_id"]),
                Decimal(str(sale["event"]["conversion_value"])),
                sale["event"]["identifiers"].get("adct"),
            )
            for sale in self.sandbox.purchases()
        ]

    def held(self) -> list[str | None]:
        """The orders that are held."""
        outbox = self.app.extensions["adroll"].outbox
        outbox.ingest.take_in()
        return [row.key for row in outbox.lookups.list("held")]


@contextmanager
def page_shop(folder: Path, **config: Any) -> Iterator[PageShop]:
    """A shop whose instance folder is *folder*."""
    with running() as sandbox:
        shop = PageShop(folder, sandbox, config)
        try:
            yield shop
        finally:
            if "adroll" in shop.app.extensions:
                shop.app.extensions["adroll"].thread.stop()
                shop.app.extensions["adroll"].outbox.close()
