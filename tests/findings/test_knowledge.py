"""Of which times an outbox knows: what was paid at others is unknown, never "never reported"."""

import json
from pathlib import Path
from typing import Any

import pytest

from adroll_flask import report_conversion
from tests.cli.test_go_live import codes
from tests.conftest import AppMaker, Patch
from tests.support import dashboard_shop, visits

from .test_open_findings import is_gone, seen
from .test_paid_orders import PayingShop

DAY = 86_400

HOUR = 3600.0


def lose_the_disk(shop: PayingShop) -> None:
    """What a deploy does on a host whose disk does not outlive it."""
    shop.runtime.outbox.close()
    place, folder = shop.runtime.outbox.place, shop.runtime.outbox.folder
    for path in (*place.parent.glob(f"{place.name}*"), *folder.glob("*")):
        path.unlink()


@pytest.fixture
def shop(make_app: AppMaker) -> PayingShop:
    """A shop whose four orders AdRoll has, and whose disk is gone since."""
    shop = PayingShop(make_app)
    shop.runtime.outbox._recent._events.clear()
    for order in ("1001", "1002", "1003", "1004"):
        shop.deliver(order)
        shop.pay(order, value="59.90", ago=2 * HOUR)
    shop.runtime.outbox._recent._events.clear()  # as a new process
    lose_the_disk(shop)
    shop.report("2001")
    shop.pay("2001", value="59.90", ago=0)
    shop.now += HOUR
    shop.runtime.paid_orders.compare(14)
    return shop


def test_after_the_disk_is_gone_older_orders_are_unknown_and_told_as_such(shop: PayingShop) -> None:
    """They were "never reported", and the advice sold them twice."""
    said = "4 orders of the shop's list of paid orders were paid before"
    found = seen(shop, "outbox-new", said, severity="warning", events=4)
    assert found["values"] == [["EUR", "239.60"]]
    assert "Do not import them" in found["todo"]
    assert is_gone(shop, "never-reported")
    began = shop.json()["began"]
    assert began == "2026-11-25T15:03:20Z"
    assert "This outbox knows what was reported since" in shop.html()
    assert "4 are unknown here" in shop.post("orders/missing", format="page").text
    answer = shop.post("orders/find", order="1001")
    assert "It is unknown here" in answer.text
    assert "never reported</h2>" not in answer.text
    said = visits.invoke(shop.app, "outbox", "find", "1001", code=1).output
    assert said.startswith("1001: It is unknown here. No event has this id")
    shop.pay("3001", ago=0)
    shop.now += 2 * HOUR
    said = visits.invoke(shop.app, "outbox", "find", "3001", code=1).output
    assert said == "3001: It was paid and never reported\n"
    shop.now += 15 * DAY
    shop.runtime.paid_orders.compare(14)
    assert is_gone(shop, "outbox-new")


def test_reconcile_and_its_rest_take_no_unknown_order_for_a_missing_one(
    shop: PayingShop, tmp_path: Path
) -> None:
    rest = tmp_path / "rest.csv"
    now = shop.now - 60
    paid = f"order;at;total\n1001;{now - 5 * HOUR};59.90\n1002;;59.90\n3001;{now};1\n"
    options = ("--column", "time=at", "--rest", str(rest), "--json")
    found = json.loads(visits.invoke(shop.app, "reconcile", "-", *options, input=paid).output)
    assert (found["unknown"], found["missing"], found["lost_per_cent"]) == (2, 1, 100.0)
    ids = [line.split(",")[0] for line in rest.read_text().splitlines()]
    assert ids == ["order_id", "3001", "2001"], "the last is not in the list"
    shop.now += 90 * DAY  # an order without a time may not be older any more
    found = json.loads(visits.invoke(shop.app, "reconcile", "-", *options, input=paid).output)
    assert (found["missing"], found["unknown"]) == (1, 2)
    assert len(rest.read_text().splitlines()) == 3, "what is too old to be known is not sent again"


def line(order: str, at: float | None) -> str:
    row = {"order_id": order, "value": "1", "currency": "EUR", "user_id": "u1"}
    row |= {"ip": "198.51.100.7", "page_location": "https://shop.test/"}
    return json.dumps(row | ({} if at is None else {"timestamp": str(at)}))


def test_an_import_of_unknown_orders_waits_for_somebody_to_say_so(shop: PayingShop) -> None:
    old, new = shop.now - 10 * HOUR, shop.now - 60
    for at in (old, None):
        text = line("4001", new) + "\n" + line("4002", at)
        for options in ((), ("--check",)):
            result = visits.invoke(shop.app, "import", "-", *options, input=text, code=1)
            assert "1 order of the file may be with AdRoll already" in result.output
        assert "4001" not in shop.states()
    visits.invoke(shop.app, "import", "-", input=line("4001", new), code=0)
    visits.invoke(shop.app, "import", "-", "--although-unknown", input=line("4002", old), code=0)
    assert {shop.states()[order] for order in ("4001", "4002")} == {"waiting"}


def test_an_import_of_orders_whose_keys_are_gone_waits_as_well(make_app: AppMaker) -> None:
    """A list of the year sold again what had been delivered more than ninety days ago."""
    shop = dashboard_shop.DashboardShop(make_app)
    shop.deliver("1001")
    then = shop.now
    shop.now += 100 * DAY
    for _ in range(100 * 24 + 2):  # housekeeping follows a clock by an hour a minute
        shop.now += 60
        shop.runtime.outbox.admin.keep_house()
    assert shop.states() == {}
    result = visits.invoke(shop.app, "import", "-", input=line("1001", then), code=1)
    assert "1 order of the file may be with AdRoll already" in result.output
    for order, options in (("1001", ("--although-unknown",)), ("1002", ())):
        at = then if options else shop.now - DAY
        text = line(order, at)
        assert "1 queued" in visits.invoke(shop.app, "import", "-", *options, input=text).output


def test_a_new_user_imports_what_was_sold_before(make_app: AppMaker) -> None:
    shop = dashboard_shop.DashboardShop(make_app)
    for order in ("1", "2"):
        text = line(order, shop.now - 10 * DAY)
        visits.invoke(shop.app, "import", "-", input=text, code=0)
    assert shop.states() == {"1": "waiting", "2": "waiting"}


def test_a_reload_of_an_old_order_rests_where_it_can_be_known(shop: PayingShop) -> None:
    shop.report("1001")  # the shop's own list has it
    shop.report("5001", timestamp=shop.now - 10 * HOUR)  # the report itself says when
    shop.report("6001")
    states = shop.states()
    assert [states[order] for order in ("1001", "5001", "6001")] == ["dead", "dead", "waiting"]
    seen(shop, "dead-letters", "2 events wait for a decision: It was paid before this outbox began")
    visits.invoke(shop.app, "outbox", "retry", "--reason", "before_outbox", code=0)
    assert is_gone(shop, "dead-letters")


def test_older_cookies_are_a_sign_of_an_older_outbox(make_app: AppMaker) -> None:
    shop = dashboard_shop.DashboardShop(make_app)

    @shop.app.post("/buy")
    def buy() -> str:
        return report_conversion(**visits.ORDER | {"order_id": "1002"}).status

    shop.now -= 3 * DAY
    shop.client.get("/?adct=click123", base_url="https://shop.test")
    shop.now += 3 * DAY
    shop.deliver("1001")
    shop.runtime.outbox.measure()
    assert is_gone(shop, "outbox-new")
    assert shop.client.post("/buy", base_url="https://shop.test").text == "queued"
    shop.runtime.outbox.measure()
    seen(shop, "outbox-new", "visitors bring cookies of ours that are older")


def test_a_copy_knows_nothing_of_the_time_since_it_was_made(shop: PayingShop) -> None:
    shop.now += 5 * HOUR
    visits.invoke(shop.app, "outbox", "restored", code=0)
    shop.pay("7001", ago=2 * HOUR)
    shop.now += HOUR
    shop.pay("7002", ago=HOUR / 2)
    shop.runtime.paid_orders.compare(14)
    told = shop.runtime.paid_orders.sums_by_kind()
    assert [sum(one.events for one in told[kind]) for kind in ("unknown", "missing")] == [5, 1]


@pytest.mark.parametrize("timed", [True, False])
def test_what_a_copy_holds_and_the_original_released_is_unknown_not_to_be_released(
    make_app: AppMaker, timed: bool
) -> None:
    """It was "still held", and the advised release sold the order twice."""
    shop = PayingShop(make_app)
    for order in ("1001", "1002"):
        shop.report(order, hold=True)
    shop.now += DAY
    visits.invoke(shop.app, "outbox", "restored", code=0)  # the original has released 1001 by now
    shop.pay("1001", ago=2 * HOUR)
    shop.report("1003", hold=True)
    shop.now += HOUR
    for order in ("1002", "1003"):
        shop.pay(order, ago=HOUR / 2)
    shop.runtime.paid_orders.compare(14)
    seen(shop, "paid-not-released", "2 paid orders")
    times = {str(one["order_id"]): one["at"].isoformat() if timed else "" for one in shop.paid}
    paid = "order,time\n" + "\n".join(f"{order},{time}" for order, time in times.items())
    for state in ("held", "cancelled"):
        found = json.loads(visits.invoke(shop.app, "reconcile", "-", "--json", input=paid).output)
        assert (found.get(state), found["unknown"]) == ((2, 1) if timed else (1, 2))
        if timed:
            break
        shop.now += 8 * DAY  # longer than a hold
        for _ in range(8 * 24):  # housekeeping follows a clock by an hour a minute
            shop.now += 60
            shop.runtime.outbox.admin.keep_house()
    shop.runtime.outbox._recent._events.clear()  # as a new process
    shop.report("1001")  # a reload
    assert shop.states()["1001"] == ("dead" if timed else "cancelled")


@pytest.mark.parametrize("key", ["former key", "another key"])
def test_with_another_key_an_order_of_who_said_no_is_unknown_not_missing(
    make_app: AppMaker, key: str
) -> None:
    """It was "never reported", and the advice sold it."""
    former = PayingShop(make_app, SECRET_KEY="former key")
    former.report("1001", gpc=True)
    url = f"sqlite:///{former.runtime.outbox.place}"
    shop: Any = PayingShop(make_app, SECRET_KEY=key, ADROLL_OUTBOX_URL=url)
    shop.now = former.now + 3 * HOUR
    for order, hours in (("1001", 3.1), ("1002", 3.1), ("1003", 2.0)):
        shop.pay(order, ago=hours * HOUR)
    shop.runtime.paid_orders.compare(14)
    told = shop.runtime.paid_orders.sums_by_kind()
    is_other = key != "former key"
    unknown, missing = (sum(one.events for one in told[kind]) for kind in ("unknown", "missing"))
    assert (unknown, missing) == ((2, 1) if is_other else (0, 2))
    shop.report("2001")
    text = line("1002", shop.now - 3.1 * HOUR)
    result = visits.invoke(shop.app, "import", "-", input=text, code=int(is_other))
    assert ("said no under another SECRET_KEY" in result.output) == is_other
    shop.report("1002")
    assert shop.states()["1002"] == "waiting", "its own report is no import"
    result = visits.invoke(shop.app, "import", "-", input=line("1003", shop.now - HOUR), code=0)
    assert "1 queued" in result.output


HOSTS: dict[str, dict[str, str]] = {
    "Heroku": {"DYNO": "web.1"},
    "Cloud Run": {"K_SERVICE": "shop"},
    "AWS Fargate or App Runner": {"AWS_EXECUTION_ENV": "AWS_ECS_FARGATE"},
    "Fly": {"FLY_APP_NAME": "shop"},
}


@pytest.mark.parametrize("host", HOSTS)
def test_a_disk_that_goes_with_the_next_deploy_is_told_before_the_first_order(
    make_app: AppMaker, monkeypatch: Patch, tmp_path: Path, host: str
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 0 0:1 / / rw - overlay overlay rw\n")
    monkeypatch.setattr("adroll_flask.outbox.location.MOUNTS", mounts)
    app = make_app()
    assert "disk-not-kept" not in codes(visits.invoke(app, "check", "--json"))
    for name, value in HOSTS[host].items():
        monkeypatch.setenv(name, value)
    found = codes(visits.invoke(app, "check", "--json"))["disk-not-kept"]
    assert (found["severity"], host in found["sentence"]) == ("warning", True)
    mounts.write_text(mounts.read_text() + f"2 1 8:1 / {tmp_path} rw - ext4 /dev/vdb rw\n")
    assert "disk-not-kept" not in codes(visits.invoke(app, "check", "--json")), "a volume"


def test_an_empty_list_of_paid_orders_is_told_while_orders_are_delivered(
    make_app: AppMaker,
) -> None:
    shop: Any = PayingShop(make_app)
    shop.look()
    assert is_gone(shop, "paid-orders-empty"), "nothing was sold"
    shop.now -= DAY
    shop.deliver("1001", "1002")
    shop.now += DAY
    shop.deliver("1003")
    shop.now += 2 * DAY
    shop.look()
    seen(shop, "paid-orders-empty", "3 orders were delivered", severity="warning")
    shop.deliver("1004")
    seen(shop, "paid-orders-empty", "4 orders were delivered", events=4)
    # The function is corrected: its process ends, and another one begins.
    place = shop.runtime.outbox.place
    restarted: Any = PayingShop(make_app, ADROLL_OUTBOX_URL=f"sqlite:///{place}")
    restarted.now = shop.now + 120
    restarted.pay("1001", ago=3 * DAY)
    restarted.look()
    assert is_gone(restarted, "paid-orders-empty")
