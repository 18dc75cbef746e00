"""``flask adroll reconcile``: each paid order of a list is accounted for."""

import csv
import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from flask import Flask

from adroll_flask import AdRoll, cancel_conversion, release_conversion
from tests.cli.conftest import DELIVERED, Run
from tests.conftest import AppMaker
from tests.support import eventually, least_memory, visits
from tests.support.outbox_engines import NewEvent


@pytest.fixture
def shop(shop: Flask) -> Flask:
    visits.report(shop, "1009")
    visits.settle(shop, o1009=DELIVERED)
    visits.report(shop, "1010", value="free of charge")
    return shop


LIST = """Order no.;Total;Currency;Paid at;payment_method
1001;59,90 €;EUR;{now};card
1001;59,90 €;EUR;{now};card
1002;59.90;EUR;{now};card
1003;79.90;EUR;{now};card
1004;59.90;EUR;{now};card
1005;59.90;EUR;{now};invoice
1006;59.90;EUR;{now};invoice
1007;59.90;EUR;{now};card
1008;59.90;EUR;2019-03-01;card
1010;59.90;EUR;{now};card
1011;1;EUR;{before};card
"""
STATUSES = (
    *("duplicate", "dead", "waiting", "suppressed", "missing", "missing", "missing"),
    *("not_listed", "dead", "missing"),
)


def test_each_order_is_accounted_for(shop: Flask, run: Run, tmp_path: Path) -> None:
    rest, now = tmp_path / "rest.csv", shop.extensions["adroll"].clock()
    listed = LIST.format(now=now + 60, before=now - 60)
    options = ("--column", "order_id=Order no.", "--group", "payment_method", "--rest", str(rest))
    result = run("reconcile", "-", *options, input=listed, code=1)
    for said in (
        "1 of 10 paid orders reached AdRoll",
        "1 waits to be sent",
        "1 was not to be reported: The visitor's browser says no",
        "1 was given up: AdRoll refused what the event says; see outbox list --dead",
        "4 were never reported: 2 with payment_method 'invoice', 2 with payment_method 'card'",
        "1 is unknown here: paid before this outbox began, while SECRET_KEY was another, or longer"
        " ago than it keeps orders",
        "1 line repeats an order of the list",
        "1 was reported with another value than the list's",
        "1 was reported and is not in the list",
    ):
        assert said in result.output, result.output
    rows = {row["order_id"]: row for row in csv.DictReader(io.StringIO(rest.read_text()))}
    statuses = {order: row["status"] for order, row in rows.items()}
    # Of 1008, of 2019, nobody knows: it is not to be sent again.
    written = [str(order) for order in range(1001, 1012) if order != 1008]
    assert statuses == dict(zip(written, STATUSES, strict=True))
    why = "AdRoll refused what the event says: http_400: no such product"
    assert (rows["1002"]["why"], rows["1002"]["reason"]) == (why, "refused")
    assert rows["1004"]["why"].startswith("The visitor's browser says no for all sites")
    assert rows["1004"]["reason"] == "consent_gpc"
    assert rows["1003"]["reported"] == "59.90 EUR"
    assert rows["1011"]["time"] < rows["1009"]["time"] < rows["1003"]["time"]
    assert "value" in rows["1010"]["why"]


@pytest.mark.parametrize(("currency", "differs"), [("EUR", False), ("eur", False), ("CHF", True)])
def test_another_currency_is_another_value(
    shop: Flask, run: Run, currency: str, differs: bool
) -> None:
    listed = f"order_id,value,currency\n1009,59.90,{currency}\n"
    output = run("reconcile", "-", input=listed, code=None).output
    assert ("reported with another value" in output) == differs, output


def test_what_is_held_or_was_cancelled_is_told_from_what_waits(app: Flask, run: Run) -> None:
    """A held order stood there as one that will be sent."""
    for order, hold in (("1", 3600.0), ("2", 3600.0), ("3", 3600.0), ("4", 0.01)):
        assert visits.report(app, order, hold=hold)
    with app.app_context():
        release_conversion("2")
        cancel_conversion("3")
    orders = "order_id\n1\n2\n3\n4\n"
    result = run("reconcile", "-", "--json", input=orders, code=0)
    sums = json.loads(result.output)
    assert (sums["held"], sums["waiting"], sums["cancelled"]) == (2, 1, 1)
    eventually(app.extensions["adroll"].outbox.admin.keep_house)
    result = run("reconcile", "-", input=orders, code=1)  # it was paid, and will not arrive
    for said in (
        "1 waits to be sent",
        "1 is held until it is released; release them with outbox release",
        "1 was cancelled: The shop took it back",
        "1 was cancelled: Held as unpaid, and nobody released or cancelled it in time",
    ):
        assert said in result.output, result.output


def test_an_account_s_own_order_is_told_before_one_without_account(app: Flask, run: Run) -> None:
    visits.report(app, "1")
    outbox = app.extensions["adroll"].outbox
    [row] = outbox.lookups.list()
    outbox.put(NewEvent("f" * 32, "purchase", "", False, row.key, b"{}", 0.0, dead=("x", "")))
    assert json.loads(run("reconcile", "-", "--json", input="order_id\n1\n").output)["waiting"] == 1


def test_another_account_s_orders_and_stop_are_none_of_this_list(app: Flask, run: Run) -> None:
    """The sandbox's orders were "reported and not in the list", and a left account's stop was
    given as the reason for which an order waits."""
    visits.report(app, "1")
    outbox = app.extensions["adroll"].outbox
    [row] = outbox.lookups.list()
    other = "OTHERADVERTISABLE00001"
    outbox.put(NewEvent("f" * 32, "purchase", other, False, "9", b"{}", row.occurred_at))
    outbox.destination(other).stop("http_401", "x")
    at = row.occurred_at
    listed = f"order_id,time\n1,{at - 9}\n1,{at + 9}\n"
    compared = run("reconcile", "-", "--rest", "-", "--json", input=listed).output
    assert '"not_listed"' not in compared
    assert "http_401" not in compared


def test_a_tolerance_decides_the_exit_code(shop: Flask, run: Run) -> None:
    orders = "order_id\n1001\n1003\n1004\n1005\n"  # 1004 was not to be reported
    run("reconcile", "-", input=orders, code=1)
    run("reconcile", "-", "--tolerance", "30", input=orders, code=1)
    run("reconcile", "-", "--tolerance", "34", input=orders, code=0)


def test_times_may_be_milliseconds(shop: Flask, run: Run, tmp_path: Path) -> None:
    """They were taken for seconds, of the year 57000, and no order for one that is not listed."""
    now = int(shop.extensions["adroll"].clock())
    times = {"1001": (now - 60) * 1000, "1003": (now + 60) * 1000}  # as JavaScript has them
    times["\ud83d"] = now * 1000  # half of a pair, which its JSON may hold, too
    lines = "".join(json.dumps({"id": order, "time": at}) + "\n" for order, at in times.items())
    options = ("--json", "--rest", str(tmp_path / "rest.csv"))
    assert json.loads(run("reconcile", "-", *options, input=lines).output)["not_listed"] == 1


@pytest.mark.parametrize("time", ["202311142131", "20231114213159", "1700000000000000", "9" * 20])
def test_digits_of_a_date_are_no_milliseconds(shop: Flask, run: Run, time: str) -> None:
    """They were read as of 1976, when no order is remembered, or of the year 2612."""
    output = run("reconcile", "-", input=f"order_id,time\n7777,{time}\n", code=1).output
    assert "1 was never reported" in output
    assert "no times that can be read" in output


def test_without_order_ids_no_order_is_called_missing(run: Run) -> None:
    result = run("reconcile", "-", input="Beleg,Summe\n1001,1\n", code=1)
    assert "Beleg, Summe" in result.output
    assert "--column" in result.output
    assert "order-list" in result.output


def test_a_suppressed_order_leaves_a_hash_and_nothing_of_the_visitor(shop: Flask) -> None:
    outbox = shop.extensions["adroll"].outbox
    rows = outbox.database.read(lambda tx: tx.rows("SELECT * FROM adroll_mark"))
    ((hashed, reason, at, until),) = rows
    assert reason == "consent_gpc"
    assert 390 < (until - at) / 86_400 < 401  # 13 months
    assert "1004" not in hashed
    assert len(hashed) == 32


def test_suppressed_orders_are_not_remembered_where_the_site_says_so(make_app: AppMaker) -> None:
    app = make_app(ADROLL_REMEMBER_SUPPRESSED=False, ADROLL_DELIVERY="worker")
    visits.began_long_ago(app)
    visits.report(app, "1001")
    visits.report(app, "1004", gpc=True)
    told = visits.invoke(app, "reconcile", "-", "--json", input="order_id\n1001\n1004\n").output
    assert {"waiting": 1, "missing": 1}.items() <= json.loads(told).items()


def test_memory_stays_the_same_however_long_the_list_is(shop: Flask) -> None:
    def compare() -> None:
        rows = ({"order_id": f"{n}", "value": "1.00", "by": f"{n}"} for n in range(3_000))
        with shop.app_context():
            compared = AdRoll().reconcile(rows, group="by")
            for _ in compared:
                pass
            assert len(compared.groups) == 51, "and what is of none of them"

    # The orders alone, kept, would be three times as much.
    assert least_memory(compare) < 1_000_000


@pytest.mark.parametrize("value", [Decimal("1E+3"), 0.1 + 0.2, Decimal("19.999"), "5.004"])
def test_a_number_is_compared_as_it_was_reported(app: Flask, value: object) -> None:
    visits.report(app, value=value)
    with app.app_context():
        [order] = AdRoll().reconcile([visits.ORDER | {"value": value}])
    assert (order.status, order.reported) == ("waiting", "")


def test_amounts_are_read_as_shops_write_them(app: Flask) -> None:
    written = {
        "59.90": ("59.90", "59,90 €"),
        "1234.50": ("1.234,50", "$1,234.50"),
        "1234": ("1,234", "1234"),
    }
    for amount, texts in written.items():
        visits.report(app, amount, value=amount)
        listed = [visits.ORDER | {"order_id": amount, "value": text} for text in texts]
        for one in listed:
            with app.app_context():
                [order] = AdRoll().reconcile([one])
            assert (order.status, order.reported) == ("waiting", "")
