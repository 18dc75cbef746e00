"""A small shop that uses ``adroll_flask`` as any shop would.

``python -m demo_app`` starts it together with AdRoll's sandbox.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask

from adroll_flask import AdRoll
from adroll_flask.sandbox import ACCESS_TOKEN, ADVERTISABLE_EID, PIXEL_EID

from . import shop
from .same_origin import is_this_machine, refuse_foreign_forms
from .store import Store, current_store

adroll = AdRoll()


@adroll.paid_orders
def paid(since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
    """The shop's own list, so that the dashboard knows of an order that was never reported."""
    for order in current_store().paid_between(since.timestamp(), until.timestamp()):
        at = datetime.fromtimestamp(order.paid_at, UTC)
        told = {"order_id": order.id, "value": order.total, "currency": order.currency}
        yield told | {"at": at, "group": "card"}


def create_app(
    config: Mapping[str, Any] | None = None, *, instance_path: str | None = None
) -> Flask:
    """The shop, set up for the sandbox on this machine.

    :param config: goes over the defaults and over ``FLASK_*`` from the environment.
    :param instance_path: the folder of the shop's databases; by default Flask's own.

    >>> create_app({"ADROLL_DRY_RUN": True}).test_client().get("/").status
    '200 OK'
    """
    app = Flask(__name__, instance_path=instance_path)
    app.config.from_mapping(
        SECRET_KEY="nothing of worth is signed with this",  # noqa: S106 - the shop is a demo
        SESSION_COOKIE_SAMESITE="Lax",
        ADROLL_ADVERTISABLE_EID=ADVERTISABLE_EID,
        ADROLL_PIXEL_EID=PIXEL_EID,
        ADROLL_ACCESS_TOKEN=ACCESS_TOKEN,
        ADROLL_API_URL="http://127.0.0.1:5001/api",
        ADROLL_PIXEL_URL="http://127.0.0.1:5001/j/{advertisable_eid}/roundtrip.js",
    )
    app.config.from_prefixed_env()
    app.config.from_mapping(config)

    folder = Path(app.instance_path)
    folder.mkdir(parents=True, exist_ok=True)
    app.extensions["store"] = Store(folder / "shop.sqlite")

    app.before_request(refuse_foreign_forms)
    app.register_blueprint(shop.pages)
    adroll.init_app(app)
    # A shop with a login asks it here: access=lambda: current_user.is_staff
    adroll.dashboard(app, access=is_this_machine, operator=is_this_machine)
    return app
