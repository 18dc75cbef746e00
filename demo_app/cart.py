"""The cart, kept in the visitor's Flask session."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from flask import session

from . import catalogue

MOST = 20


@dataclass(frozen=True, slots=True)
class Line:
    """So many of one product."""

    product: catalogue.Product
    quantity: int

    @property
    def total(self) -> Decimal:
        return self.product.price * self.quantity

    def for_adroll(self) -> dict[str, str | int]:
        """The line as the events' ``products`` take it."""
        return {
            "product_id": self.product.id,
            "product_group": "tableware",
            "category": self.product.category,
            "price": str(self.product.price),
            "quantity": self.quantity,
        }


def lines() -> list[Line]:
    """What is in the cart; products that are no longer sold are left out."""
    return [
        Line(product, quantity)
        for product_id, quantity in session.get("cart", {}).items()
        if (product := catalogue.find(product_id)) is not None
    ]


def size() -> int:
    """How many pieces are in the cart."""
    return sum(line.quantity for line in lines())


def total(of: Iterable[Line]) -> Decimal:
    """What *of* costs together."""
    return sum((line.total for line in of), Decimal("0.00"))


def put(product: catalogue.Product, quantity: int) -> None:
    """Set how many of *product* are in the cart; 0 takes it out, :data:`MOST` is the most."""
    quantities = dict(session.get("cart", {}))
    quantities[product.id] = min(quantity, MOST)
    session["cart"] = {key: number for key, number in quantities.items() if number > 0}
    # The order's number belongs to what was shown at the checkout; another cart, another order.
    session.pop("order_id", None)


def add(product: catalogue.Product, quantity: int) -> None:
    """Put *quantity* more of *product* into the cart."""
    put(product, session.get("cart", {}).get(product.id, 0) + quantity)


def fix_order_id() -> None:
    """Give the cart the number that its order will have, however often the form is sent."""
    session.setdefault("order_id", f"TC-{secrets.token_hex(4).upper()}")


def close(order_number: str) -> None:
    """Empty the cart; the thank-you page shows the order of that number from now on."""
    session.pop("cart", None)
    session.pop("order_id", None)
    session["last_order"] = order_number
