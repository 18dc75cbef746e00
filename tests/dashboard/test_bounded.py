"""No page counts the outbox: each question to it walks an index, or ends at a number of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adroll_flask.dashboard.mounting import PAGES
from adroll_flask.outbox.sqlite import SqliteDatabase
from tests.conftest import AppMaker
from tests.support.dashboard_shop import DashboardShop

Plans = list[tuple[str, list[str]]]


class Explaining:
    """A transaction that asks SQLite for its plan of each question."""

    def __init__(self, tx: Any, plans: Plans) -> None:
        self._tx = tx
        self._plans = plans

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    def rows(self, statement: str, /, **values: Any) -> Any:
        steps = self._tx.rows(f"EXPLAIN QUERY PLAN {statement}", **values)
        self._plans.append((statement, [step[-1] for step in steps]))
        return self._tx.rows(statement, **values)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Plans:
    """What is asked of any SQLite outbox from now on, with SQLite's plans."""
    found: Plans = []
    read = SqliteDatabase.read

    def explained(self: SqliteDatabase, function: Callable[[Any], Any], /) -> Any:
        return read(self, lambda tx: function(Explaining(tx, found)))

    monkeypatch.setattr(SqliteDatabase, "read", explained)
    return found


def test_no_page_reads_all_of_the_outbox(make_app: AppMaker, plans: Plans) -> None:
    shop = DashboardShop(make_app)
    shop.report("1001")
    shop.settle(o1001={"kind": "delivered"})
    shop.bury("1002", "1003")
    shop.report("1004", hold=True)
    shop.report("1005", currency="EURO")
    shop.take_in()
    plans.clear()
    for place, page in enumerate(PAGES):
        path = page.name if place else ""
        for form in ("html", "json", "csv"):
            shop.html(path, format=form)
    shop.html("problems", problem=shop.json("problems")["open"][0]["id"])
    shop.html("orders", event=shop.json("orders")["newest"][0]["id"])
    for order in ("1002", "1005", "no order"):
        shop.post("orders/find", order=order)
    asked = [(statement, step) for statement, steps in plans for step in steps]
    assert len({statement for statement, step in asked if "adroll_event" in step}) > 8
    for statement, step in asked:
        if step.startswith(("SCAN adroll_event", "SCAN e ")):
            assert "LIMIT" in statement, f"{statement}: {step}"


def test_the_test_sees_a_page_that_counts(make_app: AppMaker, plans: Plans) -> None:
    shop = DashboardShop(make_app)
    shop.report("1001")
    shop.runtime.outbox.lookups.counts()
    scans = [step for _, steps in plans for step in steps if step.startswith("SCAN adroll_event")]
    assert scans
