"""What the sandbox had is the sandbox's: nowhere does it count as AdRoll's, in neither mode."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest

from adroll_flask import AdRoll, prometheus, report_conversion
from adroll_flask.sandbox import RunningSandbox
from tests.conftest import ADVERTISABLE, AppMaker
from tests.support import visits

FRENCH = {"advertisable_eid": "FRENCHADVERTISABLE0001", "pixel_eid": "FRENCHPIXEL00000000001"}
HOSTS = ("shop.test", "shop.fr")


def a_site(make_app: AppMaker, **config: Any) -> Flask:
    """A shop of two accounts, whose staff may look."""
    extension = AdRoll()
    french = FRENCH | {"access_token": "another"}
    app = make_app(extension, ADROLL_ACCOUNTS={"shop.fr": french}, ADROLL_STRICT=False, **config)
    extension.dashboard(app, access=lambda: True)
    return app


@pytest.fixture
def tried(make_app: AppMaker, sandbox: RunningSandbox) -> Flask:
    """A site in whose two shops somebody bought, while AdRoll was the sandbox."""
    config = {"ADROLL_SANDBOX": sandbox.url, "ADROLL_API_URL": sandbox.api_url}
    app = a_site(make_app, **config)
    for host in HOSTS:
        visit = visits.VISIT | {"base_url": f"https://{host}"}
        with app.test_request_context("/?adct=click1", **visit):
            assert report_conversion(**visits.ORDER | {"order_id": "1"})
    app.extensions["adroll"].deliverer.drain()
    return app


@pytest.fixture
def live(make_app: AppMaker, tried: Flask) -> Iterator[Flask]:
    """The same site with AdRoll in the sandbox's place."""
    place = tried.extensions["adroll"].outbox.place
    app = a_site(make_app, ADROLL_OUTBOX_URL=f"sqlite:///{place}")
    yield app
    app.extensions["adroll"].outbox.close()


def overview(app: Flask, **query: str) -> dict[str, Any]:
    found = app.test_client().get("/adroll-dashboard/overview.json", query_string=query)
    told: dict[str, Any] = found.get_json()
    return told


def test_each_account_has_one_of_its_own_in_the_sandbox(
    tried: Flask, sandbox: RunningSandbox
) -> None:
    """Two shops' orders "1" were one there, and the second one was lost."""
    taken = {one["event"]["advertisable_eid"] for one in sandbox.events()}
    assert len(sandbox.events()) == len(taken) == 2
    assert not taken & {ADVERTISABLE, FRENCH["advertisable_eid"]}
    settings = tried.extensions["adroll"].settings
    assert taken == {settings.account_of(host).advertisable_eid for host in HOSTS}
    assert settings.shops[settings.account_of("shop.fr").advertisable_eid or ""] == ("shop.fr",)
    found = overview(tried)
    assert "reached the sandbox" in found["verdict"]["sentence"]
    assert (found["health"]["delivered"], set(found["apart"].values())) == (2, {0})
    page = tried.test_client().get("/adroll-dashboard/").text
    assert "that the sandbox should have reached it" in page


def test_what_the_sandbox_accepted_is_told_apart_after_going_live(live: Flask) -> None:
    found = overview(live)
    assert (found["reported"], found["health"]["delivered"]) == (0, 0)
    assert found["apart"] == {"dry_run": 0, "sandbox": 2, "adroll": 0}
    assert found["verdict"]["level"] != "good"
    page = live.test_client().get("/adroll-dashboard/").text
    assert "Not in these figures: 2 events of the sandbox." in page
    assert live.test_client().get("/adroll-dashboard/orders").text.count(">sandbox</span>") == 2
    [row] = json.loads(visits.invoke(live, "history", "--json", code=0).output)
    assert (row["outcome"], row["events"]) == ("sandbox", 2)
    registry = CollectorRegistry()
    registry.register(prometheus.AdRollCollector(live))
    metrics = generate_latest(registry).decode()
    assert metrics.count('outcome="sandbox",reason="delivered",shop="SANDBOX') == 2
    assert 'outcome="delivered"' not in metrics
    compared = visits.invoke(live, "reconcile", "-", "--json", input="order\n1\n").output
    assert "delivered" not in json.loads(compared), "AdRoll never had it"
    assert "2 events of the sandbox" in visits.invoke(live, "go-live").output


def test_the_page_of_an_order_says_who_had_it(tried: Flask, live: Flask) -> None:
    """Of an order of the sandbox it said that AdRoll had it."""
    for app, tags, told in ((tried, 0, False), (live, 2, True)):
        client = app.test_client()
        listed = client.get("/adroll-dashboard/orders.json").get_json()["newest"]
        page = client.get(f"/adroll-dashboard/orders?event={listed[0]['id']}").text
        assert page.count('<span class="tag">sandbox</span>') == tags
        assert ("The sandbox had the event. AdRoll does not have it." in page) == told
        assert "AdRoll has it" not in page


def test_commands_say_who_had_an_order(tried: Flask, live: Flask) -> None:
    """Of the sandbox's orders they said what they say of AdRoll's."""
    compared = visits.invoke(tried, "reconcile", "-", input="order\n1\n", code=0).output
    assert "1 of 1 paid order reached the sandbox" in compared
    for app, said in (
        (tried, "The sandbox has it, in AdRoll's place."),
        (live, "The sandbox had the event. AdRoll does not have it."),
    ):
        assert visits.invoke(app, "outbox", "find", "1", code=0).output.count(said) == 2


def test_an_order_of_the_sandbox_is_reported_to_adroll_as_any_other(live: Flask) -> None:
    assert visits.report(live, "1").status == "queued"
    live.extensions["adroll"].outbox.lookups.take_in_all()
    states = [row.state for row in live.extensions["adroll"].outbox.lookups.list()]
    assert sorted(states) == ["delivered", "delivered", "waiting"]


def test_what_adroll_has_is_told_apart_in_the_sandbox(make_app: AppMaker, live: Flask) -> None:
    """A developer's copy of the real outbox."""
    visits.report(live, "2")
    visits.settle(live, o2={"kind": "delivered"})
    place = live.extensions["adroll"].outbox.place
    again = a_site(make_app, ADROLL_OUTBOX_URL=f"sqlite:///{place}", ADROLL_SANDBOX=True)
    found = overview(again)
    assert (found["health"]["delivered"], found["apart"]["adroll"]) == (2, 1)


def test_what_was_counted_before_an_account_was_set_is_counted_as_its(make_app: AppMaker) -> None:
    app = make_app(ADROLL_ADVERTISABLE_EID=None, ADROLL_STRICT=False)
    visits.report(app, gpc=True)
    outbox = app.extensions["adroll"].outbox
    outbox.lookups.take_in_all()
    for _ in range(2):
        outbox.queue.adopt(ADVERTISABLE)
    [row] = outbox.lookups.history(0, ("advertisable_eid", "outcome"))
    assert (row.advertisable_eid, row.outcome, row.events) == (ADVERTISABLE, "suppressed", 1)
