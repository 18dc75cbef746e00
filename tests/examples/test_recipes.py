"""The recipes of docs/recipes.md, as a site would write them, and the site's tests of them."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, abort, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from adroll_flask import AdRoll, current_visitor, report_conversion, report_event
from adroll_flask.events import app_location
from adroll_flask.testing import reports
from tests.conftest import AppMaker

ADDRESS = {"REMOTE_ADDR": "203.0.113.7"}


# -- a payment webhook ---------------------------------------------------------------------

WEBHOOK_SECRET = b"whsec"


def signed(payload: bytes) -> str:
    return hmac.new(WEBHOOK_SECRET, payload, hashlib.sha256).hexdigest()


def test_a_payment_webhook_reports_with_a_stored_token(make_app: AppMaker) -> None:
    app = make_app()
    payments: dict[str, dict[str, str]] = {}

    @app.post("/pay")
    def pay() -> dict[str, str]:
        payments["pi_1"] = {"adroll": current_visitor().token()}
        return {"payment": "pi_1"}

    @app.post("/webhook")
    def paid() -> tuple[str, int]:
        if not hmac.compare_digest(request.headers["Payment-Signature"], signed(request.data)):
            abort(400)
        intent = json.loads(request.data)
        receipt = report_conversion(
            visitor=intent["metadata"]["adroll"],
            order_id=intent["id"],
            value=Decimal(intent["amount"]) / 100,
            currency=intent["currency"],
        )
        return receipt.status, 200

    browser = app.test_client()
    browser.get("/?adct=click123", base_url="https://shop.test", environ_base=ADDRESS)
    browser.post("/pay", base_url="https://shop.test", environ_base=ADDRESS)

    body = json.dumps(
        {"id": "pi_1", "amount": 5990, "currency": "eur", "metadata": payments["pi_1"]}
    ).encode()
    provider = app.test_client(use_cookies=False)
    with reports(app) as reported:
        for expected in ("queued", "duplicate"):  # providers deliver a webhook more than once
            answer = provider.post(
                "/webhook",
                data=body,
                headers={"Payment-Signature": signed(body), "User-Agent": "Provider/1.0"},
                environ_base={"REMOTE_ADDR": "198.51.100.1"},
            )
            assert answer.text == expected
    purchase = reported.one("purchase")
    assert purchase.order_id == "pi_1"
    assert purchase.value == Decimal("59.90")
    assert purchase.currency == "EUR"
    assert purchase.adct == "click123"
    assert purchase.ip == "203.0.113.7"
    assert purchase.page_location == "https://shop.test/"
    assert purchase.user_agent is None


# -- a mobile back end ---------------------------------------------------------------------


def test_a_mobile_back_end_reports_with_a_gaid(make_app: AppMaker) -> None:
    app = make_app()
    device = {
        "device_os": "Android",
        "device_type": "phone",
        "package_app_name": "com.example.shop",
        "package_app_version": "14.1.3",
    }

    @app.post("/api/orders")
    def order() -> tuple[dict[str, str], int]:
        data = request.get_json()
        receipt = report_conversion(
            order_id=data["order"],
            value=data["total"],
            currency="USD",
            device_id=data["gaid"],
            page_location=app_location("shop.example", **device),
            **device,  # type: ignore[typeddict-item]
        )
        return {"report": receipt.status}, 201

    with reports(app) as reported:
        answer = app.test_client().post(
            "/api/orders",
            json={"order": 7, "total": "12.00", "gaid": "38400000-8cf0-11bd-b23e-10b96e40000d"},
            environ_base=ADDRESS,
        )
    assert answer.get_json() == {"report": "queued"}
    purchase = reported.one("purchase")
    assert purchase.device_id == "38400000-8cf0-11bd-b23e-10b96e40000d"
    assert purchase.device_os == "Android"
    assert purchase.page_location.startswith("https://shop.example")
    # The API wants a click id or a cookie; this one is derived from the device, always the same.
    assert purchase.first_party_cookie is not None
    with reports(app) as again:
        app.test_client().post(
            "/api/orders",
            json={"order": 8, "total": "1.00", "gaid": "38400000-8cf0-11bd-b23e-10b96e40000d"},
            environ_base=ADDRESS,
        )
    assert again.one("purchase").first_party_cookie == purchase.first_party_cookie


# -- a B2B site ----------------------------------------------------------------------------


def test_a_b2b_site_reports_demo_requests_and_trials(make_app: AppMaker) -> None:
    app = make_app()

    @app.post("/demo")
    def demo() -> str:
        report_event("demoRequest", email=request.form["email"])
        return "thanks"

    @app.post("/trial")
    def trial() -> str:
        report_event("signupTrial", email=request.form["email"], user_id=17)
        return "welcome"

    client = app.test_client()
    client.get("/?adct=click123")
    with reports(app) as reported:
        client.post("/demo", data={"email": "Jo@Example.com"}, environ_base=ADDRESS)
        client.post("/trial", data={"email": "Jo@Example.com"}, environ_base=ADDRESS)
    asked, signed_up = reported.one("demoRequest"), reported.one("signupTrial")
    assert asked.email_sha256 == (hashlib.sha256(b"jo@example.com").hexdigest(),)
    assert asked.email == ()
    assert signed_up.user_id == "17"
    assert asked.adct == signed_up.adct == "click123"


# -- a Flask-SQLAlchemy shop ---------------------------------------------------------------


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Order(db.Model):  # type: ignore[name-defined,misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[Decimal]
    lines: Mapped[list[Line]] = relationship()


class Line(db.Model):  # type: ignore[name-defined,misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("order.id"))
    sku: Mapped[str]
    unit_price: Mapped[Decimal]
    count: Mapped[int]


@pytest.fixture
def shop(make_app: AppMaker, tmp_path: Path) -> Iterator[Flask]:
    url = f"sqlite:///{tmp_path / 'shop.sqlite'}"
    app = make_app(SQLALCHEMY_DATABASE_URI=url, ADROLL_OUTBOX_URL=url)
    db.init_app(app)
    with app.app_context():
        db.create_all()
        app.extensions["adroll"].outbox.create_tables()
    yield app
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


@pytest.mark.filterwarnings("ignore:Dialect sqlite:sqlalchemy.exc.SAWarning")
def test_a_flask_sqlalchemy_shop_passes_its_rows_in_its_own_transaction(shop: Flask) -> None:
    @shop.post("/buy")
    def buy() -> str:
        order = Order(
            total=Decimal("59.90"),
            lines=[Line(sku="mug", unit_price=Decimal("29.95"), count=2)],
        )
        db.session.add(order)
        db.session.flush()
        receipt = report_conversion(
            session=db.session,
            order_id=order.id,
            value=order.total,
            currency="EUR",
            products=order.lines,
            product_map={"product_id": "sku", "price": "unit_price", "quantity": "count"},
        )
        if request.form.get("fail"):
            db.session.rollback()
        else:
            db.session.commit()
        return receipt.status

    client = shop.test_client()
    client.get("/?adct=click123")
    outbox = shop.extensions["adroll"].outbox
    assert client.post("/buy", data={"fail": "1"}, environ_base=ADDRESS).text == "queued"
    assert outbox.waiting() == 0  # rolled back with the order
    assert client.post("/buy", environ_base=ADDRESS).text == "queued"
    [row] = outbox.list("waiting")
    event = json.loads(outbox.show(row.id).payload)
    assert event["event_attributes"]["products"] == [
        {"product_id": "mug", "price": "29.95", "quantity": 2}
    ]


# -- staff orders --------------------------------------------------------------------------


def test_before_report_drops_staff_orders(make_app: AppMaker) -> None:
    adroll = AdRoll()
    app = make_app(adroll)

    @adroll.before_report
    def no_staff(event: Any) -> Any:
        return None if request.headers.get("X-Staff") else event

    @app.post("/buy")
    def buy() -> str:
        return report_conversion(order_id=1, value=5, currency="EUR").status

    client = app.test_client()
    client.get("/?adct=click123")
    with reports(app) as reported:
        staff = client.post("/buy", headers={"X-Staff": "1"}, environ_base=ADDRESS)
        assert staff.text == "suppressed"
        assert client.post("/buy", environ_base=ADDRESS).text == "queued"
    assert len(reported) == 1
