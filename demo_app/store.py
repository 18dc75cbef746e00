"""What outlives a visit: orders, newsletter readers and demo requests, in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import cast

from flask import current_app

from . import cart, catalogue

_TABLES = """
CREATE TABLE IF NOT EXISTS orders
    (id TEXT PRIMARY KEY, email TEXT NOT NULL, lines TEXT NOT NULL, paid_at REAL NOT NULL,
    currency TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS readers (email TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS demo_requests (email TEXT, company TEXT NOT NULL, covers TEXT NOT NULL);
"""
_ORDERS = "SELECT id, email, lines, paid_at, currency FROM orders"


@dataclass(frozen=True, slots=True)
class Order:
    """A placed order."""

    id: str
    email: str
    lines: tuple[cart.Line, ...]
    paid_at: float
    currency: str = catalogue.CURRENCY

    @property
    def total(self) -> Decimal:
        return cart.total(self.lines)

    @property
    def products(self) -> list[dict[str, str | int]]:
        """The lines as the events' ``products`` take them."""
        return [line.for_adroll() for line in self.lines]


class Store:
    """The shop's database.

    :param path: the SQLite file; it is made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._transaction() as db:
            db.executescript(_TABLES)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path, timeout=10)
        try:
            with db:
                yield db
        finally:
            db.close()

    def place(self, order_id: str, email: str, lines: Sequence[cart.Line]) -> Order:
        """Keep the order and return it; sent a second time, return the first."""
        self.keep([Order(order_id, email, tuple(lines), time.time())])
        order = self.order(order_id)
        assert order is not None  # noqa: S101 - kept two lines above
        return order

    def keep(self, orders: Iterable[Order]) -> None:
        """Keep *orders*, without those whose number is there already."""
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO orders VALUES (?, ?, ?, ?, ?)", map(_row, orders))

    def order(self, order_id: str) -> Order | None:
        """The order of that number, or ``None``."""
        with self._transaction() as db:
            rows = db.execute(f"{_ORDERS} WHERE id = ?", (order_id,)).fetchall()
        return _order(rows[0]) if rows else None

    def paid_between(self, since: float, until: float) -> list[Order]:
        """The orders that were paid then, seconds since the epoch; here that is when they came."""
        with self._transaction() as db:
            rows = db.execute(f"{_ORDERS} WHERE paid_at BETWEEN ? AND ?", (since, until)).fetchall()
        return [_order(row) for row in rows]

    def subscribe(self, email: str) -> bool:
        """Put *email* on the newsletter's list; false when it is there already."""
        with self._transaction() as db:
            added = db.execute("INSERT OR IGNORE INTO readers VALUES (?)", (email.lower(),))
            return added.rowcount == 1

    def ask_for_demo(self, email: str, company: str, covers: str) -> None:
        """Note a request for a table demo."""
        with self._transaction() as db:
            db.execute("INSERT INTO demo_requests VALUES (?, ?, ?)", (email, company, covers))


def _row(order: Order) -> tuple[str, str, str, float, str]:
    packed = json.dumps([[line.product.id, line.quantity] for line in order.lines])
    return order.id, order.email, packed, order.paid_at, order.currency


def _order(row: tuple[str, str, str, float, str]) -> Order:
    id, email, packed, paid_at, currency = row
    lines = (
        cart.Line(product, quantity)
        for product_id, quantity in json.loads(packed)
        if (product := catalogue.find(product_id)) is not None
    )
    return Order(id, email, tuple(lines), paid_at, currency)


def current_store() -> Store:
    """The store of the app that handles this request."""
    return cast(Store, current_app.extensions["store"])
