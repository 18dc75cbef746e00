"""The demo shop's made-up year: the same each time, and whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from demo_app import lately, past

NOW = 1_795_619_000.0


def test_a_year_has_its_stories_and_comes_once(
    make_shop: Callable[..., Flask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lately, "HOURS", 8)  # one by one; of a day and more it takes the longer
    shop = make_shop()
    lately.add_to(shop, NOW)
    runtime = shop.extensions["adroll"]
    months = runtime.outbox.lookups.history(NOW - past.OPEN * 86_400, ("at", "outcome"), hours=168)
    delivered = [row for row in months if row.outcome == "delivered"]
    assert len(delivered) > 50
    by_outcome = {
        row.outcome: row.events
        for row in runtime.outbox.lookups.history(NOW - past.OPEN * 86_400, ("outcome",))
    }
    assert by_outcome["delivered"] > 100_000
    assert set(by_outcome) >= {"suppressed", "duplicate", "dead", "invalid"}
    # What was lost can be looked up, and so can what is held.
    dead = runtime.outbox.lookups.list("dead")
    assert {row.reason for row in dead} == {"refused", "invalid:currency"}
    assert all(row.attempt_log for row in dead if row.reason == "refused")
    assert runtime.outbox.lookups.list("held")
    assert runtime.outbox.queue.waiting() == 0
    lately.add_to(shop, NOW)
    again = runtime.outbox.lookups.history(NOW - past.OPEN * 86_400, ("outcome",))
    assert {row.outcome: row.events for row in again} == by_outcome


def test_the_same_hours_give_the_same_figures(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        with sqlite3.connect(tmp_path / name) as connection:
            columns = "hour, slot, event_name, outcome, reason, identifiers, currency"
            sums = ", ".join(["events", "value", *(f"delay_{n}" for n in range(10))])
            connection.execute(f"CREATE TABLE adroll_history ({columns}, {sums})")
            stops = "advertisable_eid, began_at, ended_at, reason"
            connection.execute(f"CREATE TABLE adroll_stop ({stops})")
        past.write(tmp_path / name, NOW, orders_a_day=10.0)
        with sqlite3.connect(tmp_path / name) as connection:
            found.append(connection.execute("SELECT * FROM adroll_history").fetchall())
    assert found[0] == found[1]
    assert len(found[0]) > 5000
