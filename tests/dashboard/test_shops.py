"""Several shops over one outbox: each is looked at alone, on every page and in every command."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from adroll_flask import prometheus, report_conversion
from tests.conftest import ADVERTISABLE, AppMaker
from tests.support import visits
from tests.support.dashboard_shop import DELIVERED, REFUSED, WHERE, DashboardShop, answering

from .conftest import Shop

FRENCH = "FRENCHADVERTISABLE0001"
#: The account of its own that the shop for France has.
ACCOUNTS = {
    "shop.fr": {"advertisable_eid": FRENCH, "pixel_eid": "FRENCHPIXEL00000000001"}
    | {"access_token": "another"}
}
#: What became of each shop's orders.
ORDERS = {"shop.test": ("1", "2", "3"), "shop.fr": ("1", "4")}


class Shops(DashboardShop):
    """A site with a shop of its own for France; the outbox has both shops' orders."""

    def __init__(self, make_app: AppMaker, **config: Any) -> None:
        config |= {"ADROLL_ACCOUNTS": ACCOUNTS, "ADROLL_HOSTS": ["shop.test", "shop.fr"]}
        super().__init__(make_app, **config)
        for host, orders in ORDERS.items():
            visit = visits.VISIT | {"base_url": f"https://{host}"}
            for order in orders:
                with self.app.test_request_context("/?adct=click1", **visit):
                    assert report_conversion(**visits.ORDER | {"order_id": order})
        ends: dict[str, dict[str, Any]] = {}
        for orders in ORDERS.values():
            ends |= {f"o{order}": REFUSED if order == "4" else DELIVERED for order in orders}
        for eid in (ADVERTISABLE, FRENCH):
            visits.settle(self.app, eid, **ends)

    def command(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        return json.loads(visits.invoke(self.app, *arguments, "--json").output)


@pytest.fixture
def shops(make_app: AppMaker) -> Shops:
    return Shops(make_app)


@pytest.fixture
def any_shops(any_outbox: dict[str, str], make_app: AppMaker) -> Iterator[Shops]:
    """The same on each engine."""
    shops = Shops(make_app, **any_outbox)
    yield shops
    shops.runtime.outbox.close()


def test_each_page_is_of_all_shops_or_of_one(any_shops: Shops) -> None:
    shops, counts = any_shops, {}
    for shop in ("", "shop.test", "shop.fr"):
        found = shops.json(shop=shop)
        listed = shops.json("orders", shop=shop)["newest"]
        carried = shops.json("match-quality", shop=shop)["delivered"]
        wrong = sum(one["events"] for one in shops.json("problems", shop=shop)["open"])
        counts[shop] = (found["reported"], len(listed), carried, wrong)
    assert counts == {"": (5, 5, 4, 1), "shop.test": (3, 3, 3, 0), "shop.fr": (2, 2, 1, 1)}
    assert shops.json(shop="shop.test")["verdict"]["level"] == "good"
    assert shops.json(shop="shop.fr")["verdict"]["code"] == "dead-letters"
    for page in ("", "orders", "match-quality", "problems"):
        html = shops.html(page, shop="shop.fr")
        assert 'aria-current="true">shop.fr</a>' in html
        assert f"{WHERE}orders?shop=shop.fr" in html, "links lead to the same shop"
        assert FRENCH not in html


def test_what_is_wrong_with_the_whole_site_is_wrong_with_each_shop(shops: Shops) -> None:
    """The page of a shop said "Yes" while the disk that both have took no report."""
    assert shops.json(shop="shop.test")["verdict"]["level"] == "good"
    for host, eid in (("shop.test", ADVERTISABLE), ("shop.fr", FRENCH)):
        shops.runtime.outbox.note_failure("purchase", "disk_full", account=eid)
        shops.runtime.outbox.tell_failures()
        for shop in ("", "shop.test", "shop.fr"):
            verdict = shops.json(shop=shop)["verdict"]
            assert (verdict["level"], verdict["code"]) == ("bad", "event-lost"), (host, shop)
        findings = shops.command("check", "--shop", host)["findings"]
        assert [one["code"] for one in findings].count("event-lost") == 1
    codes = [one["code"] for one in shops.json("problems", shop="shop.test")["findings"]]
    assert codes == ["event-lost"], "the French dead letter is none of this shop's"


def test_of_a_shop_that_is_not_there_no_figures_are_shown(shops: Shops) -> None:
    for page in ("", "overview.json", "orders"):
        answer = shops.app.test_client().get(f"{WHERE}{page}?shop=shop.de")
        assert answer.status_code == 404
        assert "shop.de" in answer.text


def test_a_site_with_one_shop_has_no_choice_of_shops(shop: DashboardShop) -> None:
    assert 'aria-label="Shop"' not in shop.html()


def test_an_order_of_who_said_no_counts_for_the_shop_of_its_page(shops: Shops) -> None:
    visit = visits.VISIT | {"base_url": "https://shop.fr", "headers": {"Sec-GPC": "1"}}
    with shops.app.test_request_context("/buy", **visit):
        assert not report_conversion(**visits.ORDER | {"order_id": "5"})
    for shop, suppressed in (("", 1), ("shop.test", 0), ("shop.fr", 1)):
        way = {step["name"]: step["events"] for step in shops.json(shop=shop)["way"]}
        assert way["suppressed"] == suppressed, shop


def test_an_order_is_found_in_the_shop_that_is_looked_at(shops: Shops) -> None:
    """Two shops that count from 1 have an order 1 each."""
    assert len(shops.command("outbox", "find", "1")["events"]) == 2
    [event] = shops.command("outbox", "find", "1", "--shop", "shop.fr")["events"]
    assert event["advertisable_eid"] == FRENCH
    found = shops.post("orders/find?shop=shop.fr", order="1")
    assert found.status_code == 303
    assert "shop=shop.fr" in found.location


def test_where_all_shops_are_looked_at_an_order_names_its_shop(shops: Shops) -> None:
    """Two orders 1 were alike, and a stop was nobody's."""
    named = {(one["order"], one["shop"]) for one in shops.json("orders")["newest"]}
    assert {("1", "shop.test"), ("1", "shop.fr")} <= named
    html = shops.html("orders")
    assert html.count('<span class="tag">shop.fr</span>') == 2
    assert '<span class="tag">shop.fr</span>' not in shops.html("orders", shop="shop.fr")
    assert '<span class="tag">shop.fr</span>' in shops.post("orders/find", order="1").text


def test_where_all_shops_are_looked_at_a_stop_names_its_shop(shops: Shops) -> None:
    shops.runtime.outbox.destination(FRENCH).stop("http_401", "print")
    assert shops.json("problems")["destination"]["shop"] == "shop.fr"
    assert ", shop.fr</dd>" in shops.html("problems")
    assert ", shop.fr</dd>" not in shops.html("problems", shop="shop.fr")


def test_where_all_shops_are_looked_at_what_is_watched_names_its_shop(make_app: AppMaker) -> None:
    shops = Shop(make_app, ADROLL_ACCOUNTS=ACCOUNTS, ADROLL_HOSTS=["shop.test", "shop.fr"])
    for hours in range(1, 35 * 24, 6):
        for eid in (ADVERTISABLE, FRENCH):
            shops.happened("delivered", ago=hours * 3600.0, delay=1.0, advertisable_eid=eid)
    watched = [one["shop"] for one in shops.json("problems")["watched"]]
    assert sorted(watched) == ["shop.fr", "shop.test"]
    assert '<span class="tag">shop.fr</span>' in shops.html("problems")


def test_commands_are_of_one_shop(any_shops: Shops, tmp_path: Any) -> None:
    shops = any_shops
    french = ("--shop", "shop.fr")
    assert shops.command("outbox", *french)["counts"]["delivered"] == 1
    assert shops.command("outbox")["counts"]["delivered"] == 4
    assert len(shops.command("outbox", "list", *french)) == 2
    sums = shops.command("history", "--by", "event", *french)
    assert {one["outcome"]: one["events"] for one in sums} == {"delivered": 1, "dead": 1}
    visits.began_long_ago(shops.app)
    paid = tmp_path / "paid.csv"
    paid.write_text("order\n1\n2\n4\n")
    of_shop = shops.command("reconcile", str(paid), "--tolerance", "100", *french)
    assert (of_shop["delivered"], of_shop["dead"], of_shop["missing"]) == (1, 1, 1)
    for shop, codes in (("shop.fr", {"dead-letters"}), ("shop.test", set())):
        listed = shops.command("check", "--shop", shop)["findings"]
        assert {one["code"] for one in listed} & {"dead-letters", "reports-die"} == codes
    wrong = visits.invoke(shops.app, "history", "--shop", "shop.frr", code=2).output
    assert "shop.frr is no host of a shop; there are: shop.test, shop.fr" in wrong


@pytest.mark.parametrize(("host", "eid"), [("shop.fr", FRENCH), ("shop.test", ADVERTISABLE)])
def test_send_test_tries_the_shop_that_is_named(shops: Shops, host: str, eid: str) -> None:
    result = shops.command("send-test", "--shop", host)
    assert result["ok"]
    assert f"advertisable={eid}&" in result["request"]["url"]


def test_a_refused_send_test_names_the_shops_own_settings(shops: Shops) -> None:
    """It named those of the account of all other hosts."""
    shops.adroll.judge = answering(401, b"no such token")
    for host, settings in (
        ("shop.fr", ('ADROLL_ACCOUNTS["shop.fr"]["advertisable_eid"]', '["access_token"]')),
        ("shop.test", ("ADROLL_ADVERTISABLE_EID", "ADROLL_ACCESS_TOKEN")),
    ):
        result = shops.command("send-test", "--shop", host)
        assert not result["ok"]
        assert all(name in result["meaning"] for name in settings), result["meaning"]
    assert "{" not in visits.invoke(shops.app, "explain", "http_401").output


def test_the_life_of_an_order_names_its_shop(shops: Shops) -> None:
    told = visits.invoke(shops.app, "outbox", "find", "1", code=0).output
    for host in ORDERS:
        assert f", order 1, 59.90 EUR, {host}\n" in told


def test_a_finding_names_the_shops_own_setting(shops: Shops) -> None:
    """It named the account by its EID, and the setting of another account."""
    shops.runtime.outbox.destination(FRENCH).stop("http_401", "print")
    shops.runtime.outbox.destination(ADVERTISABLE).stop("http_404", "print")
    findings = {one["key"]: one for one in shops.json()["findings"] if one["subject"] == "delivery"}
    assert "token of shop.fr" in findings[FRENCH]["sentence"]
    assert 'ADROLL_ACCOUNTS["shop.fr"]["access_token"] takes it' in findings[FRENCH]["todo"]
    assert findings[FRENCH]["command"] == "flask adroll send-test --shop shop.fr"
    assert "of shop.test" in findings[ADVERTISABLE]["sentence"]
    assert "ADROLL_ADVERTISABLE_EID" in findings[ADVERTISABLE]["todo"]
    assert shops.json(shop="shop.test")["verdict"]["key"] == ADVERTISABLE
    shops.runtime.outbox.destination(FRENCH).resume()
    shops.runtime.outbox.destination(ADVERTISABLE).resume()
    assert all(one["code"] == "dead-letters" for one in shops.json()["findings"])


def test_one_stopped_account_among_several_is_that_shops_finding(shops: Shops) -> None:
    """The other shop is well: its page, its command and its label say nothing of it."""
    shops.runtime.outbox.destination(FRENCH).stop("http_401", "print")
    for shop, verdict in (("", FRENCH), ("shop.fr", FRENCH), ("shop.test", "")):
        its = shops.json(shop=shop)
        assert its["verdict"]["key"] == verdict
        stopped = [one["shop"] for one in its["findings"] if one["code"] == "delivery-stopped"]
        assert stopped == (["shop.fr"] if verdict else [])
    listed = shops.command("check", "--shop", "shop.test")["findings"]
    assert "delivery-stopped" not in {one["code"] for one in listed}


def test_metrics_have_the_shop_where_there_are_several(shops: Shops, shop: DashboardShop) -> None:
    def metrics(app: Any) -> str:
        registry = CollectorRegistry()
        registry.register(prometheus.AdRollCollector(app))
        return generate_latest(registry).decode()

    shops.runtime.outbox.destination(FRENCH).stop("http_401", "print")
    place = shops.runtime.outbox.place
    place.with_name(f"{place.name}.corrupt-1").touch()
    text = metrics(shops.app)
    for line in (
        'adroll_events_total{event="purchase",outcome="delivered",reason="",shop="shop.fr"} 1.0',
        'adroll_events_total{event="purchase",outcome="delivered",reason="",shop="shop.test"} 3.0',
        'adroll_destination_stopped{reason="http_401",shop="shop.fr"} 1.0',
        'adroll_destination_failures{shop="shop.test"} 0.0',
        'adroll_findings{code="delivery-stopped",severity="error",shop="shop.fr"} 1.0',
        'adroll_findings{code="dead-letters",severity="warning",shop="shop.fr"} 1.0',
        'adroll_findings{code="outbox-corrupt",severity="error",shop=""} 1.0',
    ):
        assert line in text
    assert FRENCH not in text
    shop.deliver("1001")
    assert "shop=" not in metrics(shop.app)
