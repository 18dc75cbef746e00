"""Each account has its own turn: what becomes of one neither stops nor delays another."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accounts import latencies
from tests.conftest import Caplog
from tests.support import PATIENCE, eventually
from tests.support.delivery_kit import (
    EID,
    OK,
    Account,
    AdRoll,
    NoAnswer,
    Reply,
    Response,
    Shop,
    orders,
    refusal,
)

OTHER = "OTHERADVERTISABLE00001"
OTHER_PIXEL = "OTHERPIXEL000000000001"
FRANCE = {
    "shop.fr": Account(
        advertisable_eid=OTHER, pixel_eid=OTHER_PIXEL, access_token="canary-other-token"
    )
}


class Accounts(AdRoll):
    """An AdRoll that answers for each account as it is told, and holds requests of one."""

    def __init__(self, **answers: Reply) -> None:
        super().__init__(lambda _orders, _dry: self.answers[self.urls[-1].partition("=")[2][:22]])
        self.answers: dict[str, Reply] = {EID: OK, OTHER: OK}
        self.lets_go = threading.Event()
        self.lets_go.set()
        self.holds = False
        self.lock = threading.Lock()
        self.on_send: Callable[[str], None] = lambda _url: None

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        self.on_send(url)
        if OTHER in url and not self.lets_go.is_set():
            self.holds = True
            assert self.lets_go.wait(PATIENCE)
            self.holds = False
        with self.lock:
            return super().send(url, headers, body)

    def has_taken(self, order: str) -> bool:
        return order in self.taken

    def of(self, account: str) -> list[list[str]]:
        """The requests of one account, without trials."""
        urls = [url for url in self.urls if "dry_run" not in url]
        return [r for r, url in zip(self.requests, urls, strict=True) if account in url]


def both(folder: Path, **changes: Any) -> tuple[Shop, Accounts]:
    adroll = Accounts()
    return Shop(folder, adroll, accounts=FRANCE, **changes), adroll


def report_other(shop: Shop, *names: str) -> None:
    shop.report(*names, advertisable_eid=OTHER, pixel_eid=OTHER_PIXEL)


def test_each_account_s_events_go_with_its_own_eid_and_token(tmp_path: Path) -> None:
    shop, adroll = both(tmp_path)
    shop.report("o001")
    report_other(shop, "f001")
    shop.report("o002")

    assert shop.step() == 3

    assert adroll.of(EID) == [["o001", "o002"]]
    assert adroll.of(OTHER) == [["f001"]]
    assert dict(zip((url[-22:] for url in adroll.urls), adroll.tokens, strict=True)) == {
        EID: "Token canary-token",
        OTHER: "Token canary-other-token",
    }


def test_events_of_an_account_not_ours_wait_and_delay_nobody(tmp_path: Path) -> None:
    before = Shop(tmp_path, Accounts(), advertisable_eid=OTHER, pixel_eid=OTHER_PIXEL)
    before.report("f001")
    shop = Shop(tmp_path, Accounts(), clock=before.clock, orders=3)
    for _ in range(5):
        shop.deliverer.drain()
        shop.clock.sleep(100)

    assert shop.adroll.requests == [orders(3)]
    assert shop.deliverer.flush(1.0) == 0, "what is not ours is not waited for"
    row = shop.rows()["f001"]
    assert (row.state, row.attempts, row.unsure) == ("waiting", 0, False)
    assert row.advertisable_eid == OTHER


@pytest.mark.parametrize(
    "answer", [refusal(401), refusal(400), refusal(503), NoAnswer("reset", sure=False)]
)
def test_what_adroll_refuses_of_one_account_stops_no_other(tmp_path: Path, answer: Reply) -> None:
    shop, adroll = both(tmp_path)
    adroll.answers[OTHER] = answer
    for number in range(10):
        shop.report(f"o{number}")
        report_other(shop, f"f{number}")
        shop.step()
        shop.clock.sleep(1)

    assert [len(request) for request in adroll.of(EID)] == [1] * 10
    assert len(adroll.of(OTHER)) <= 3
    assert shop.stopped() is None
    assert shop.outbox.destination(EID).state().failures == 0
    assert shop.outbox.destination(OTHER).state().failures > 0

    adroll.answers[OTHER] = OK
    for _ in range(20):
        shop.drain(after=300)
    assert sorted(set(adroll.taken)) == sorted(set(shop.rows()))


def test_a_backlog_of_one_account_holds_up_no_order_of_another(tmp_path: Path) -> None:
    shop, adroll = both(tmp_path)
    shop.report(*orders(500))
    report_other(shop, "f001")
    shop.step()
    shop.step()
    assert "f001" in adroll.taken
    assert len(adroll.taken) < 300


@contextmanager
def delivering(shop: Shop, by: str) -> Iterator[Callable[[], object]]:
    """Somebody delivers meanwhile; gives what a report tells them."""
    if by == "thread":
        thread = shop.thread()
        thread.start()
        yield thread.nudge
        assert thread.stop(PATIENCE)
        return
    stop = threading.Event()
    worker = threading.Thread(target=shop.deliverer.run, args=(stop,))
    worker.start()
    yield shop.outbox.wake_up.wake
    stop.set()
    worker.join(PATIENCE)
    assert not worker.is_alive()


def accounts_under_way() -> list[str]:
    return [
        one.name[-22:] for one in threading.enumerate() if one.name.startswith("adroll-account")
    ]


@pytest.mark.parametrize("by", ["thread", "worker"])
def test_while_adroll_holds_a_request_of_one_account_orders_of_another_arrive(
    tmp_path: Path, by: str
) -> None:
    shop, adroll = both(tmp_path)
    adroll.lets_go.clear()
    report_other(shop, "f001")
    with delivering(shop, by) as nudge:
        eventually(lambda: adroll.holds)
        for order in ("o001", "o002", "o003"):
            shop.report(order)
            nudge()
            eventually(partial(adroll.has_taken, order))
        assert adroll.holds
        eventually(lambda: accounts_under_way() == [OTHER])
        adroll.lets_go.set()
        eventually(lambda: "f001" in adroll.taken)
        eventually(lambda: accounts_under_way() == [])
        report_other(shop, "f002")
        nudge()
        eventually(lambda: "f002" in adroll.taken)
    assert set(shop.states().values()) == {"delivered"}


def test_a_drain_works_off_one_account_s_backlog_while_adroll_holds_another(
    tmp_path: Path,
) -> None:
    shop, adroll = both(tmp_path)
    adroll.lets_go.clear()
    report_other(shop, "f001")
    shop.report(*orders(350))
    drain = threading.Thread(target=shop.deliverer.drain)
    drain.start()
    eventually(lambda: adroll.holds and len(adroll.taken) == 350)
    assert drain.is_alive(), "what has begun is waited for"
    adroll.lets_go.set()
    drain.join(PATIENCE)
    assert set(shop.states().values()) == {"delivered"}


def test_a_worker_that_is_told_to_stop_lets_each_request_under_way_finish(tmp_path: Path) -> None:
    shop, adroll = both(tmp_path)
    adroll.lets_go.clear()
    report_other(shop, "f001")
    stop = threading.Event()
    worker = threading.Thread(target=shop.deliverer.run, args=(stop,))
    worker.start()
    eventually(lambda: adroll.holds)
    stop.set()
    shop.outbox.wake_up.wake()
    adroll.lets_go.set()
    worker.join(PATIENCE)
    assert shop.states() == {"f001": "delivered"}


def test_who_has_nothing_due_has_no_thread(tmp_path: Path) -> None:
    shop, adroll = both(tmp_path)
    begun: list[str] = []

    def seen(_url: str) -> None:
        begun.extend(accounts_under_way())

    adroll.on_send = seen
    shop.report(*orders(3))
    shop.deliverer.drain()
    assert begun == [], "one account alone needs none"
    report_other(shop, "f001")
    shop.report("o004")
    shop.deliverer.drain()
    assert sorted(set(begun)) == sorted([EID, OTHER])


def test_a_fault_of_one_account_delays_no_other(tmp_path: Path, caplog: Caplog) -> None:
    shop, adroll = both(tmp_path)
    adroll.answers[OTHER] = None  # type: ignore[assignment]
    report_other(shop, "f001")
    with delivering(shop, "thread") as nudge:
        eventually(lambda: "Delivery to AdRoll pauses: " in caplog.text)
        for order in ("o001", "o002"):
            shop.report(order)
            nudge()
            eventually(partial(adroll.has_taken, order))


def test_the_log_names_the_account_of_several(tmp_path: Path, caplog: Caplog) -> None:
    shop, adroll = both(tmp_path)
    adroll.answers[OTHER] = refusal(401)
    report_other(shop, "f001")
    with caplog.at_level(logging.WARNING, "adroll_flask"):
        shop.step()
        adroll.answers[OTHER] = OK
        shop.step(after=61)
    refused, again = (record.getMessage() for record in caplog.records)
    assert refused.startswith(f"AdRoll refuses everything for account {OTHER} (http_401")
    assert again.startswith(f"AdRoll takes a trial event for account {OTHER} again: the stop has")


def test_an_account_without_a_token_waits(tmp_path: Path, caplog: Caplog) -> None:
    france = {"shop.fr": Account(advertisable_eid=OTHER, pixel_eid=OTHER_PIXEL)}
    shop = Shop(tmp_path, Accounts(), accounts=france, orders=1)
    report_other(shop, "f001")
    shop.steps(3)
    assert shop.states() == {"f001": "waiting", "o001": "delivered"}
    [said] = [text for text in caplog.messages if "not set" in text]
    assert f"the access_token of {OTHER} in ADROLL_ACCOUNTS not set" in said
    assert shop.counters.get("delivery_stopped", "not_configured") == 1
    assert shop.deliverer.flush(0.1) == 1, "it is ours all the same"


def test_where_each_host_has_its_account_none_is_needed_for_all(tmp_path: Path) -> None:
    none: Any = dict.fromkeys(("advertisable_eid", "pixel_eid", "access_token"))
    shop = Shop(tmp_path, Accounts(), accounts=FRANCE, **none)
    report_other(shop, "f001")
    assert shop.step() == 1


def test_the_benchmark_takes_the_time_of_each_order_of_the_other_account() -> None:
    seconds, connections = latencies(hangs=True, orders=2, pause=0.0)
    assert len(seconds) == 2
    assert connections >= 2
