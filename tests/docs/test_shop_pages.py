"""The pages about B2B sites and products from a database, run as they stand."""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import request
from flask_sqlalchemy import SQLAlchemy

from adroll_flask import report_conversion, report_event
from adroll_flask.errors import EventError
from tests.support.page_shop import SITE, page_shop
from tests.support.pages import Page, blocks

NAMES: dict[str, Any] = {
    "report_conversion": report_conversion,
    "report_event": report_event,
    "request": request,
}
PRODUCTS = "docs/how-to/products.md"


def test_a_b2b_site_reports_demo_requests_and_trials(tmp_path: Path) -> None:
    with page_shop(tmp_path) as shop, Page("docs/how-to/b2b.md") as page:
        user = SimpleNamespace(id=17, email="jo@example.com")
        page.run(app=shop.app, new_user=lambda _form: user, **NAMES)
        shop.start()
        browser = shop.browser()
        browser.post("/demo", data={"email": "Jo@Example.com"}, **SITE)
        browser.post("/trial", **SITE)
        assert shop.sold() == []
        [asked] = shop.sandbox.accepted("demoRequest")
        [signed_up] = shop.sandbox.accepted("signupTrial")
        known = asked["event"]["identifiers"]
        assert known["email_sha256"] == hashlib.sha256(b"jo@example.com").hexdigest()
        assert signed_up["event"]["identifiers"]["user_id"] == "17"
        assert signed_up["event"]["identifiers"]["adct"] == known["adct"] == "click123"


@pytest.mark.filterwarnings("ignore:Dialect sqlite:sqlalchemy.exc.SAWarning")
def test_a_flask_sqlalchemy_shop_passes_its_rows(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.sqlite"
    with page_shop(tmp_path, ADROLL_OUTBOX_URL=url, SQLALCHEMY_DATABASE_URI=url) as shop:
        db = SQLAlchemy()
        names: dict[str, Any] = {}
        db.init_app(shop.app)

        def cart() -> Any:
            line = names["Line"](sku="mug", unit_price=Decimal("29.95"), count=2)
            return names["Order"](total=Decimal("59.90"), lines=[line])

        with Page(PRODUCTS) as page:
            names.update(page.run(app=shop.app, db=db, order_of_cart=cart, **NAMES))

        @shop.app.post("/one-transaction")
        def one_transaction() -> str:
            order = cart()
            if "fail" in request.form:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(db.session, "commit", db.session.rollback)
                    names["place_in_one_transaction"](order)
            else:
                names["place_in_one_transaction"](order)
            return ""

        shop.start()
        with shop.app.app_context():
            db.create_all()
            shop.app.extensions["adroll"].outbox.database.create_tables()
        assert shop.browser().post("/orders", **SITE).text == "Thank you for order 1!"
        assert shop.sold() == [("1", Decimal("59.90"), "click123")]
        assert shop.sandbox.purchases()[0]["event"]["event_attributes"]["products"] == [
            {"product_id": "mug", "price": "29.95", "quantity": 2}
        ]

        shop.browser().post("/one-transaction", data={"fail": "1"}, **SITE)
        assert len(shop.sold()) == 1  # rolled back with the order
        shop.browser().post("/one-transaction", **SITE)
        assert len(shop.sold()) == 2
        with shop.app.app_context():
            db.session.remove()
            db.engine.dispose()


def test_a_column_that_a_line_lacks_is_named_with_the_nearest(tmp_path: Path) -> None:
    """What the page says of a misspelt name."""
    [mapped] = {found for one in blocks(PRODUCTS) for found in re.findall(r'"(sku)"', one.code)}
    with page_shop(tmp_path) as shop:
        shop.start()
        line = SimpleNamespace(sku="mug")
        with (
            shop.app.test_request_context("/?adct=click123", **SITE),
            pytest.raises(EventError, match=f"did you mean.*{mapped}|{mapped}.*did you mean"),
        ):
            report_event("addToCart", products=[line], product_map={"product_id": "skv"})
