"""The shop's own list of paid orders: what was never reported is known without an upload."""

import json
import sqlite3
import threading
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import current_app

from adroll_flask import AdRollMiddleware, ConfigurationError, cancel_conversion
from tests.conftest import AppMaker, Caplog, Patch
from tests.support import dashboard_shop, eventually, in_a_child, visits
from tests.support.forking import forks_amid_threads

from .test_open_findings import check, is_gone, seen

HOUR, DAY = 3600.0, 86_400.0


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class PayingShop(dashboard_shop.DashboardShop):
    """A shop that lists its paid orders."""

    def __init__(self, make_app: AppMaker, *, is_new: bool = False, **config: Any) -> None:
        super().__init__(make_app, **config)
        self.paid: list[dict[str, Any]] = []
        self.asked: list[tuple[datetime, datetime]] = []
        self.fault: Exception | None = None
        if not is_new:
            visits.began_long_ago(self.app)

        @self.extension.paid_orders
        def paid(since: datetime, until: datetime) -> Any:
            assert current_app.name
            self.asked.append((since, until))
            if self.fault is not None:
                raise self.fault
            return [one for one in self.paid if since <= one["at"] <= until]

    def pay(self, order: str, group: str = "card", ago: float = HOUR, value: str = "10") -> None:
        self.paid.append(
            {"order_id": order, "value": value, "currency": "EUR", "group": group}
            | {"at": at(self.now - ago)}
        )

    def look(self) -> None:
        """What whoever delivers does now and then."""
        before = len(self.asked)
        self.runtime.paid_orders.look()
        for thread in threading.enumerate():
            if thread.name == "adroll-paid-orders":
                assert thread.daemon, "a process ends without it"
                thread.join()
        assert len(self.asked) <= before + 1


@pytest.fixture
def shop(make_app: AppMaker) -> PayingShop:
    shop = PayingShop(make_app)
    shop.deliver("1001")
    shop.pay("1001")
    return shop


def test_orders_never_reported_are_told_with_number_money_and_group(shop: PayingShop) -> None:
    for order in range(36):
        shop.pay(f"p{order}", "paypal", ago=HOUR * (order + 1), value="12.50")
        if order >= 3:
            shop.report(f"p{order}")
    shop.report("refused", gpc=True)
    shop.pay("refused")
    shop.look()
    says = "3 paid orders of the last 14 days were never reported, all with “paypal”."
    seen(
        *(shop, "never-reported", says),
        events=3,
        values=[["EUR", "37.50"]],
        severity="error",  # more than a twentieth
    )
    for order in range(3):
        shop.report(f"p{order}")
    shop.settle(**{f"op{order}": dashboard_shop.DELIVERED for order in range(36)})
    shop.now += 2 * HOUR
    shop.look()
    assert is_gone(shop, "never-reported")


def test_where_a_no_is_not_remembered_nobody_calls_its_order_never_reported(
    make_app: AppMaker,
) -> None:
    """It was an error for ever, and the advice reported the visitors who had said no."""
    shop = PayingShop(make_app, ADROLL_REMEMBER_SUPPRESSED=False)
    shop.deliver("1001")
    for order in ("1001", "1002", "1003", "1004"):
        shop.pay(order)
    for order in ("1002", "1003", "1004"):
        shop.report(order, gpc=True)
    shop.look()
    says = "3 paid orders of the last 14 days were never reported, or their visitors said no"
    found = seen(shop, "never-reported", says, severity="warning")
    assert "Do not import them" in found["todo"]
    assert shop.json("overview", period="days")["health"]["could"] == 1


def test_the_overview_counts_them_in_the_span_in_which_they_were_paid(shop: PayingShop) -> None:
    for order in range(7):
        shop.pay(f"p{order}", "paypal", ago=DAY * order + 60 * 20, value="12.50")
    shop.look()
    page = shop.html("", period="days")
    assert "1 of 8 orders reached AdRoll; 7 were never reported by the shop." in page
    assert "do this first</span><br>The shop never reported a paid order" in page
    assert "87.50 EUR" in page
    for event in ("purchase", "all"):
        health = shop.json("overview", period="days", event=event)["health"]
        assert (health["delivered"], health["could"], health["word"]) == (1, 8, "poor")
    day = f"{at(shop.now - 3 * DAY):%Y-%m-%d}"
    page = shop.html("", since=day, until=day)
    assert "0 of 1 orders reached AdRoll; 1 was never reported by the shop." in page


def of_state(shop: PayingShop, state: str) -> list[dict[str, Any]]:
    """The findings on paid orders that nobody released: those that are held, or ended."""
    its = [one for one in check(shop)[0] if one["code"] == "paid-not-released"]
    return [one for one in its if one["command"].endswith(state)]


def test_an_order_that_is_paid_yet_held_is_told_until_it_is_released(shop: PayingShop) -> None:
    """It stood among what did not arrive, and nobody who did not ask was told."""
    for order in ("1002", "1003", "unpaid", "just-paid"):
        shop.report(order, hold=True)
    for order in ("1002", "1003"):
        shop.pay(order, "paypal", value="12.50")
    shop.pay("just-paid", ago=60)
    assert is_gone(shop, "paid-not-released")
    shop.look()
    says = "2 paid orders of the last 14 days are still held here as unpaid, all with “paypal”."
    values: dict[str, Any] = {"events": 2, "values": [["EUR", "25.00"]], "page": "orders"}
    found = seen(shop, "paid-not-released", says, severity="warning", **values)
    assert "flask adroll outbox release ORDER" in found["todo"]
    assert is_gone(shop, "never-reported")
    rest = shop.post("orders/missing", format="page").text
    assert "2 are held until they are released · <b>25.00 EUR</b>" in rest
    visits.invoke(shop.app, "outbox", "release", "1002", code=0)  # without a comparison
    seen(shop, "paid-not-released", events=1, values=[["EUR", "12.50"]])
    with shop.app.app_context():
        cancel_conversion("1003")
    assert is_gone(shop, "paid-not-released"), "the shop took it back"
    shop.now += 2 * HOUR
    shop.look()  # what was just paid is not any more
    says = "1 paid order of the last 14 days is still held"
    seen(shop, "paid-not-released", says, events=1)


def test_the_advised_release_takes_the_id_as_the_shops_list_writes_it(shop: PayingShop) -> None:
    """The page Orders named #1002, and the command knew no such order."""
    shop.report("1002", hold=True)
    shop.pay("#1002")
    shop.look()
    seen(shop, "paid-not-released", events=1)
    visits.invoke(shop.app, "outbox", "release", "#1002", code=0)
    assert is_gone(shop, "paid-not-released")


def test_a_paid_order_whose_hold_has_ended_is_told_until_it_is_reported(shop: PayingShop) -> None:
    for order in ("1002", "1003", "1004"):
        shop.report(order, hold=True)
        shop.pay(order, value="12.50", ago=1)
    shop.now += 4 * DAY
    shop.look()
    assert [one["events"] for one in of_state(shop, "held")] == [3]
    shop.now += 3 * DAY + HOUR
    for _ in range(7 * 24 + 2):  # housekeeping follows a clock by an hour a minute
        shop.now += 60
        shop.runtime.outbox.admin.keep_house()
    shop.runtime.paid_orders.compare(3)  # which keeps what is older
    says = (
        "3 paid orders of the last 14 days were held here as unpaid until the hold ended, and are"
        " not sent, all with “card”."
    )
    values = [["EUR", "37.50"]]
    seen(shop, "paid-not-released", says, events=3, values=values, severity="error")
    shop.runtime.paid_orders.compare(14)
    assert [one["events"] for one in of_state(shop, "cancelled")] == [3]
    ids = {row.key: row.id for row in shop.runtime.outbox.lookups.list("cancelled")}
    visits.invoke(shop.app, "outbox", "drop", ids["1002"], code=0)
    row = {"order_id": "1002", "value": "12.50", "currency": "EUR", "user_id": "u1"}
    row |= {"ip": "198.51.100.7", "page_location": "https://shop.test/"}
    visits.invoke(shop.app, "import", "-", input=json.dumps(row), code=0)
    assert [one["events"] for one in of_state(shop, "cancelled")] == [2], "no list was compared"
    shop.runtime.paid_orders.compare(14)
    assert [one["events"] for one in of_state(shop, "cancelled")] == [2]
    assert is_gone(shop, "never-reported")
    visits.invoke(shop.app, "outbox", "cancel", "1003", code=0)
    shop.runtime.paid_orders.compare(14)
    assert [one["events"] for one in of_state(shop, "cancelled")] == [2], "nothing is held"
    visits.invoke(shop.app, "outbox", "drop", ids["1003"], code=0)
    shop.runtime.paid_orders.compare(14)
    assert [one["events"] for one in of_state(shop, "cancelled")] == [1]
    seen(shop, "never-reported", events=1)


def test_a_paid_order_that_was_a_dry_run_is_told_until_it_is_reported(make_app: AppMaker) -> None:
    """The command reconcile called it lost, and check and dashboard had nothing to say."""
    shop = PayingShop(make_app, ADROLL_HOSTS=("www.shop.test",))
    shop.deliver("1001", "1002")
    shop.report("1003", gpc=True)  # a no is one there, too
    for order in ("1001", "1002", "1003"):
        shop.pay(order)
    shop.look()
    says = "2 paid orders of the last 14 days were dry runs, all with “card”."
    found = seen(shop, "never-reported", says, values=[["EUR", "20"]])
    assert "flask adroll import" in found["todo"]
    row = {"value": "10", "currency": "EUR", "user_id": "u1", "ip": "198.51.100.7"}
    row |= {"page_location": "https://www.shop.test/"}
    text = "\n".join(json.dumps(row | {"order_id": order}) for order in ("1001", "1002"))
    assert "2 queued" in visits.invoke(shop.app, "import", "-", input=text, code=0).output
    shop.runtime.paid_orders.compare(3)
    assert is_gone(shop, "never-reported")


def test_all_are_counted_of_more_than_are_named(shop: PayingShop, monkeypatch: Patch) -> None:
    monkeypatch.setattr("adroll_flask.reporting.paid_orders._ALONE", 2)
    for order in ("1002", "1003", "1004", "1005"):
        shop.report(order, hold=True)
        shop.pay(order, "", value="1" * 70)
    shop.look()
    said = "4 paid orders of the last 14 days are still held here as unpaid."
    seen(shop, "paid-not-released", said)
    with shop.app.app_context():
        cancel_conversion("1002")
    seen(shop, "paid-not-released", events=3)


def test_it_asks_once_an_hour_for_three_days_and_once_a_day_for_fourteen(shop: PayingShop) -> None:
    shop.now += 0.25
    for _ in range(25):
        shop.look()
        shop.look()
        shop.now += HOUR
    days = [round((until - since).total_seconds() / DAY) for since, until in shop.asked]
    assert len(days) == 25
    assert [day > 5 for day in days].count(True) == 2
    assert {day for day in days if day <= 5} <= {2, 3}
    assert {since.time() for since, _ in shop.asked} == {time()}, "whole days"


def test_a_list_that_has_other_ids_than_the_reports_have_is_told_as_such(
    make_app: AppMaker,
) -> None:
    """Its orders were "never reported", and who followed the advice reported them once more."""
    shop = PayingShop(make_app)
    for number in range(5):
        shop.now += 60
        shop.deliver(f"2026-{number}")
        shop.pay(f"{number}", ago=0)
    shop.now += HOUR
    shop.look()
    says = "5 paid orders of the last 14 days were never reported under their ids, all with “card”,"
    found = seen(shop, "never-reported", f"{says} and 5 reported ones are not in the list.")
    assert found["todo"].startswith("See first whether they are the same orders.")


def test_where_the_first_day_has_some_nobody_knows_since_when(shop: PayingShop) -> None:
    """Problems said "since" the day at which the list of paid orders begins."""
    for days in (2, 12):
        shop.pay(f"p{days}", "paypal", ago=days * DAY)
    shop.look()
    says = "2 paid orders of the last 14 days were never reported"
    assert seen(shop, "never-reported", says)["since"] is not None
    shop.pay("p13", "paypal", ago=13 * DAY)
    shop.runtime.paid_orders.compare(14)
    said = "At least 3 paid orders of the last 14 days were never reported, all with “paypal”."
    seen(shop, "never-reported", said, since=None)
    assert said in shop.html("problems")


@pytest.mark.parametrize("sunday", ["2026-03-29", "2026-10-25"])
def test_no_order_is_forgotten_after_clocks_changed(make_app: AppMaker, sunday: str) -> None:
    shop = PayingShop(make_app, ADROLL_TIME_ZONE="Europe/Berlin")
    midnight = datetime.fromisoformat(sunday).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    shop.now = midnight.replace(hour=22).timestamp()
    shop.deliver("1001")
    group = "банковский перевод, by invoice, " * 3  # a long name is shortened
    for day in range(14):
        # 12:00 of each day, whatever its length.
        noon = (midnight.replace(hour=12) - timedelta(days=day)).timestamp()
        shop.pay(f"missing-{day}", group, ago=shop.now - noon)
    shop.look()
    for known in (14, 14, 13):  # the hourly look at three days, past midnight
        seen(shop, "never-reported", f"“{group[:30]}", events=known)
        shop.now += 1.25 * HOUR
        shop.look()


def test_a_failing_function_is_a_finding(shop: PayingShop, caplog: Caplog) -> None:
    shop.fault = ZeroDivisionError("ann@example.com")
    shop.look()
    found = seen(shop, "paid-orders-failed", "it raised ZeroDivisionError")
    assert "paid orders cannot be compared" in caplog.text
    assert "ann@example.com" not in caplog.text + str(found)
    shop.fault = None
    shop.now += 2 * HOUR
    shop.look()
    assert is_gone(shop, "paid-orders-failed")


def lost(shop: PayingShop) -> list[str]:
    """The reasons of the lost reports that are told."""
    return [one["key"] for one in check(shop)[0] if one["code"] == "event-lost"]


@forks_amid_threads
def test_a_fork_waits_for_a_comparison(shop: PayingShop, monkeypatch: Patch) -> None:
    """SQLite's own locks were taken in the child, and it stood at its first use of SQLite."""
    is_at_work = threading.Event()
    is_over = threading.Event()

    class Slow(sqlite3.Connection):
        def execute(self, *statement: Any) -> sqlite3.Cursor:
            is_at_work.set()
            is_over.wait(0.002)
            done = super().execute(*statement)
            is_at_work.clear()
            return done

    connect: Any = sqlite3.connect
    monkeypatch.setattr(
        sqlite3,
        "connect",
        lambda at, **how: connect(at, **({} if at else {"factory": Slow}), **how),
    )

    def compare() -> None:
        with shop.app.app_context():
            while not is_over.is_set():
                list(shop.extension.reconcile({"order_id": f"{number}"} for number in range(250)))

    thread = threading.Thread(target=compare)
    thread.start()
    try:
        assert all(in_a_child(lambda: not is_at_work.is_set()) for _ in range(20))
    finally:
        is_over.set()
        thread.join()


def test_lost_orders_are_told_by_the_shops_own_list_once_it_was_compared(shop: PayingShop) -> None:
    """They stayed an error for a week, whatever was imported, and counted twice as missing."""
    for order in range(3):
        shop.pay(f"p{order}", ago=0)
        shop.runtime.outbox.note_failure("purchase", "disk_full")
    shop.runtime.outbox.note_failure("addToCart", "read_only")
    shop.runtime.outbox.tell_failures()
    shop.take_in()
    assert lost(shop) == ["disk_full", "read_only"]
    assert "that the shop never reported are unknown here" in shop.html()
    shop.now += 4 * HOUR
    assert lost(shop) == ["disk_full", "read_only"], "no list was compared since"
    shop.look()
    assert "that the shop never reported are known for the last 14 days" in shop.html()
    assert lost(shop) == ["read_only"], "no list tells of other events"
    seen(shop, "never-reported")
    overview = shop.json("overview", period="days")
    assert overview["health"]["could"] == 4
    assert "1 of 4 orders reached AdRoll; 3 were never reported by the shop." in str(overview)
    assert (
        "3 were lost on this host: the shop's list tells which are missing still."
        in overview["answer"]["beside"]
    )
    for order in range(3):
        shop.report(f"p{order}")
    shop.settle(**{f"op{order}": dashboard_shop.DELIVERED for order in range(3)})
    shop.runtime.paid_orders.compare(3)
    assert is_gone(shop, "never-reported")
    assert shop.json("overview", period="days")["health"]["word"] == "great"
    shop.fault = ZeroDivisionError()
    shop.runtime.paid_orders.compare(3)
    assert lost(shop) == ["disk_full", "read_only"], "nobody knows what is missing"


def test_whoever_delivers_asks(shop: PayingShop) -> None:
    shop.pay("p1", "paypal")
    visits.invoke(shop.app, "worker", "--once")  # as cron does
    assert len(shop.asked) == 1
    seen(shop, "never-reported")
    shop.now += 2 * HOUR
    shop.runtime.deliverer.also()
    eventually(lambda: len(shop.asked) == 2)


def test_where_a_report_sends_itself_nobody_asks_and_that_is_told(make_app: AppMaker) -> None:
    shop = PayingShop(make_app, ADROLL_DELIVERY="sync")
    visits.report(shop.app, "held", hold=True)
    seen(shop, "paid-orders-failed", "with ADROLL_DELIVERY='sync' nobody asks for it")
    visits.invoke(shop.app, "worker", "--once", code=0)
    assert is_gone(shop, "paid-orders-failed")
    shop.now += 8 * DAY
    for number in range(8 * 24):  # housekeeping follows a clock by an hour a minute
        shop.now += 60
        visits.report(shop.app, f"{number}")
    assert shop.runtime.outbox.lookups.counts()["held"] == 0, "housekeeping is done all the same"


def test_a_shop_that_never_reported_learns_it_from_its_list(
    make_app: AppMaker, monkeypatch: Patch
) -> None:
    """Without a report there was no outbox, and nobody asked for the list: no more than a hint."""
    monkeypatch.setattr("adroll_flask.delivery.deliverer._HOUSEKEEPING", 0.0)
    shop = PayingShop(make_app, is_new=True)
    for number in (1, 2):
        shop.pay(f"{number}", ago=60.0)
        shop.runtime.deliverer.step(threading.Event())
        eventually(lambda: len(shop.asked) == len(shop.paid))
        eventually(lambda: not shop.runtime.paid_orders.trouble())
        shop.now += 2 * HOUR
    seen(shop, "never-reported", "1 paid order of the last 14 days was never reported")


def test_there_is_one_function_which_under_the_middleware_is_an_argument(shop: PayingShop) -> None:
    with pytest.raises(ConfigurationError):
        shop.extension.paid_orders(lambda _since, _until: [])
    middleware = AdRollMiddleware(lambda _e, _s: [], paid_orders=lambda _since, _until: [])
    assert middleware.runtime.paid_orders.is_known


def test_an_order_lost_just_before_a_span_takes_nothing_from_it(make_app: AppMaker) -> None:
    """A day of Kolkata begins within an hour of the history's."""
    shop = PayingShop(make_app, ADROLL_TIME_ZONE="Asia/Kolkata")
    shop.now += 18.25 * HOUR - shop.now % DAY
    shop.runtime.outbox.note_failure("purchase", "disk_full")
    shop.runtime.outbox.tell_failures()
    shop.now += 6.25 * DAY
    shop.look()
    shop.deliver("1001")
    assert shop.json("overview", period="days")["health"]["could"] == 1


def test_the_answer_says_whether_it_was_compared_with_the_shops_list(
    make_app: AppMaker, shop: PayingShop
) -> None:
    """All orders had reached AdRoll, and nobody had looked which had been paid."""
    assert "not compared with the shop's own list of paid orders yet" in shop.html()
    shop.look()
    found, html = shop.json(period="today"), shop.html(period="today")
    assert found["compared"] == shop.now
    assert "is compared with the shop's own list of paid orders, last on" in html
    bare = dashboard_shop.DashboardShop(make_app)
    bare.deliver("1001")
    assert bare.json(period="today")["compared"] is None
    assert "An order that the shop did not report is unknown here" in bare.html(period="today")
