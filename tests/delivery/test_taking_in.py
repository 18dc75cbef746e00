"""Where others deliver, the thread takes into the outbox what its process reports."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from adroll_flask.delivery.thread import DeliveryThread as Thread
from adroll_flask.outbox import OutboxFailed
from tests.conftest import Caplog, Patch
from tests.support import PATIENCE, in_a_child
from tests.support.delivery_kit import Shop, orders
from tests.support.outbox_engines import wait_until
from tests.support.patching import replace_method


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path, delivery="worker")


@pytest.fixture
def thread(shop: Shop) -> Iterator[Thread]:
    thread = shop.thread()
    yield thread
    assert thread.stop(PATIENCE)


def count(shop: Shop) -> int:
    """What is in the database, which looking does not fill."""
    if not shop.outbox.database.exists():
        return 0
    query = "SELECT count(*) FROM adroll_event"
    return int(shop.outbox.database.read(lambda tx: tx.rows(query))[0][0])


def report(shop: Shop, thread: Thread, *names: str) -> None:
    for name in names:
        shop.report(name)
        thread.nudge()


def test_reports_are_taken_in_and_none_is_sent(shop: Shop, thread: Thread) -> None:
    report(shop, thread, *orders(20))
    assert wait_until(lambda: count(shop) == 20)
    report(shop, thread, "o100")
    assert wait_until(lambda: count(shop) == 21)
    assert shop.adroll.urls == []


def test_what_a_process_that_died_left_behind_comes_too(shop: Shop, thread: Thread) -> None:
    assert in_a_child(lambda: shop.report("of the dead"))
    report(shop, thread, "of the living")
    assert wait_until(lambda: count(shop) == 2)


def test_a_forked_child_takes_in_by_itself(shop: Shop, thread: Thread) -> None:
    report(shop, thread, "o001")
    assert wait_until(lambda: count(shop) == 1)

    def takes_in() -> bool:
        report(shop, thread, "o002")
        return wait_until(lambda: count(shop) == 2)

    assert in_a_child(takes_in)
    report(shop, thread, "o003")
    assert wait_until(lambda: count(shop) == 3)


def test_no_fault_ends_it(shop: Shop, thread: Thread, monkeypatch: Patch, caplog: Caplog) -> None:
    problems: list[Exception] = [OutboxFailed("locked"), ValueError("canary")]
    take_in = shop.outbox.queue.take_in

    def flaky() -> int:
        if problems:
            raise problems.pop(0)
        return take_in()

    replace_method(monkeypatch, shop.outbox.queue, "take_in", flaky)
    monkeypatch.setattr("adroll_flask.delivery.deliverer._LONGEST_TROUBLE", 0.02)
    with caplog.at_level(logging.ERROR, "adroll_flask"):
        report(shop, thread, "o001")
        assert wait_until(lambda: count(shop) == 1)
    assert shop.counters.get("delivery_error", "error") == 1
    assert shop.counters.get("delivery_error", "locked") == 1
    assert caplog.text.count("pauses for") == 1
    assert "canary" not in caplog.text


def test_the_end_takes_in_what_is_left(shop: Shop) -> None:
    thread = shop.thread()
    report(shop, thread, "o001")
    assert wait_until(lambda: count(shop) == 1)
    shop.report("o002")
    assert thread.stop(PATIENCE)
    assert count(shop) == 2


def test_what_nobody_delivers_is_said(shop: Shop, thread: Thread, caplog: Caplog) -> None:
    shop.report("o001")
    shop.clock.sleep(1000)
    thread.nudge()
    assert wait_until(lambda: "have been waiting for 17 minutes" in caplog.text)
