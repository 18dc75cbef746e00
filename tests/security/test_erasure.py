"""Who asks to be forgotten is, wherever the events are and whatever state they are in."""

import logging
import sqlite3
import time
from typing import Any

import pytest

from adroll_flask import report_conversion
from tests.conftest import Caplog
from tests.support import eventually, visits
from tests.support.sites import ADDRESS, HOST, MakeSite, Site

EMAIL = "ann@example.com"
COOKIE = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"
GAID = "cdda802e-fb9c-47ad-9866-0794d394c912"
OTHER = "0123456789abcdef0123456789abcdef-1667065540999"


@pytest.fixture
def shop(make_flask_site: MakeSite) -> Site:
    return make_flask_site()


def report(site: Site, order: str, *, cookie: str = COOKIE, **fields: Any) -> str:
    with site.app.test_request_context(
        base_url=f"https://{HOST}",
        environ_base={"REMOTE_ADDR": ADDRESS},
        headers={"Cookie": f"__adroll_fpc={cookie}"},
    ):
        sound: dict[str, Any] = {"order_id": order, "value": "59.90", "currency": "EUR"}
        return report_conversion(**(sound | fields)).status


def orders(site: Site) -> set[str]:
    return {event["event_attributes"]["order_id"] for event in site.events()}


def forget(site: Site, *options: str) -> str:
    return visits.invoke(site.app, "forget", *options, code=0).output


@pytest.mark.parametrize(
    "option",
    [
        ("--email", EMAIL),
        ("--email", " ANN@example.com "),
        ("--user-id", "4711"),
        ("--cookie", COOKIE),
        ("--cookie", COOKIE.replace("-", "-s2-") + "-"),
        ("--click-id", "click1"),
        ("--device-id", GAID.upper()),
    ],
    ids=" ".join,
)
def test_a_request_by_mail_is_met_and_nothing_is_left_on_the_disk(
    shop: Site, option: tuple[str, str], caplog: Caplog
) -> None:
    ann = {"email": EMAIL, "user_id": "4711", "adct": "click1", "device_id": GAID}
    report(shop, "1", **ann)
    report(shop, "2", **ann, currency="no money")
    report(shop, "3", email="bob@example.com", user_id="4712", cookie=OTHER)

    with caplog.at_level(logging.INFO, "adroll_flask"):
        caplog.clear()
        said = forget(shop, *option)

    assert "2 events erased" in said
    assert shop.counts["event_forgotten"] == 2
    assert orders(shop) == {"3"}
    (line,) = [record.getMessage() for record in caplog.records]
    name = option[0].strip("-").replace("-", " ")
    assert f"2 events erased on request, by {name} (" in line
    assert option[1].strip() not in line + said
    assert OTHER in shop.stored()
    assert COOKIE not in shop.stored()


def test_an_order_of_the_forgotten_is_not_reported_again_by_a_reload(shop: Site) -> None:
    assert report(shop, "1", email=EMAIL) == "queued"
    forget(shop, "--email", EMAIL)

    assert report(shop, "1", email=EMAIL) == "duplicate"
    assert orders(shop) == set()


@pytest.mark.parametrize("how", ["withdraw", "forget"])
def test_a_broken_outbox_is_no_fault_of_who_withdraws(shop: Site, how: str) -> None:
    shop.browser.set_cookie("__adroll_fpc", COOKIE, domain=HOST)
    shop.get("/?adct=click1")
    shop.get("/buy")
    shop.runtime.outbox.queue.waiting()
    blocker = sqlite3.connect(shop.outbox_file, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")

    began = time.monotonic()
    answer = shop.tell({"consent": False}) if how == "withdraw" else shop.get("/forget")
    assert time.monotonic() - began < 4  # the database's own patience is 5 s: nobody waits for it

    blocker.execute("ROLLBACK")
    blocker.close()
    assert answer.status_code in (200, 204)
    assert shop.cookie("__adroll_fpc") is None
    # What the request could not wait for is done beside it: a no is not lost.
    eventually(lambda: "event_forgotten" in shop.counts)
    assert shop.counts["event_forgotten"] == 1
