"""A shop with types: what mypy --strict sees of adroll_flask."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from flask import Flask, redirect, request
from flask.typing import ResponseReturnValue

from adroll_flask import AdRoll, Receipt, current_visitor, release_conversion, report_conversion


@dataclass(frozen=True)
class Line:
    """One line of an order."""

    sku: str
    unit_price: Decimal
    count: int


@dataclass(frozen=True)
class Order:
    """An order that is placed and not paid yet."""

    number: str
    email: str
    lines: tuple[Line, ...]

    @property
    def total(self) -> Decimal:
        return sum((line.unit_price * line.count for line in self.lines), Decimal(0))


def create_app(config: dict[str, object] | None = None) -> Flask:
    """The shop."""
    app = Flask(__name__)
    app.config.from_prefixed_env()
    app.config.update(config or {})
    adroll = AdRoll(app)

    @adroll.identity
    def who() -> dict[str, str] | None:
        user = request.headers.get("X-User")
        return {"user_id": user} if user else None

    @app.get("/")
    def home() -> str:
        came = "an ad" if current_visitor().adct else "elsewhere"
        return f"<!doctype html><html><head></head><body>You came from {came}.</body></html>"

    @app.post("/orders/<number>")
    def place(number: str) -> ResponseReturnValue:
        line = Line("mug", Decimal("29.95"), 2)
        order = Order(number, request.form["email"], (line,))
        hold(order)
        return redirect("/", 303)

    @app.post("/paid/<number>")
    def paid(number: str) -> ResponseReturnValue:
        return {"released": bool(release_conversion(number))}

    return app


def hold(order: Order) -> Receipt:
    """Report *order* when it is placed; the payment's webhook releases it."""
    return report_conversion(
        order_id=order.number,
        value=order.total,
        currency="EUR",
        email=order.email,
        products=order.lines,
        product_map={"product_id": "sku", "price": "unit_price", "quantity": "count"},
        hold=True,
    )
