"""The first page: its sentence, the way to AdRoll in figures, and each loss with its reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adroll_flask.outbox import NewEvent, new_id

from .conftest import DAY, HOUR, Shop


def new_event(shop: Shop, order: str, digest: str = "10 EUR") -> NewEvent:
    return NewEvent(
        id=new_id(shop.now),
        name="purchase",
        advertisable_eid="ADVERTISABLE0000000001",
        dry_run=False,
        key=order,
        payload=b'{"event_name": "purchase"}',
        occurred_at=shop.now,
        digest=digest,
    )


def test_the_way_adds_up_and_has_values_by_currency(shop: Shop) -> None:
    shop.happened("delivered", 6, value="10 EUR", delay=2.0)
    shop.happened("delivered", 2, value="5.5 CHF", delay=2.0, ago=DAY)
    shop.happened("suppressed", 3, reason="consent_refused")
    shop.happened("duplicate", value="10 EUR")
    shop.happened("dead", 2, reason="refused", value="20 EUR")
    shop.happened("delivered", 50, name="addToCart", delay=1.0)
    found = shop.json()
    way = {one["name"]: one for one in found["way"]}
    assert found["reported"] == 14 == sum(one["events"] for one in found["way"])
    assert way["delivered"]["values"] == [["EUR", "60"], ["CHF", "11"]]
    assert way["dead"]["values"] == [["EUR", "40"]]
    assert way["delivered"]["share"] == pytest.approx(8 / 14)
    assert found["health"]["share"] == 0.8
    assert found["health"]["word"] == "good"


def test_each_loss_has_a_reason_and_who_can_change_it(shop: Shop) -> None:
    shop.happened("suppressed", 3, reason="consent_unknown")
    shop.happened("invalid", 2, reason="invalid:currency")
    shop.happened("dead", reason="refused")
    losses = shop.json()["losses"]
    assert all(loss["title"] and loss["advice"] for loss in losses)
    assert losses[0]["title"] == "The shop reported a wrong currency"
    assert "AdRoll&#39;s words name what it does not take." in shop.html()


def test_what_can_still_be_delivered_is_told_first(shop: Shop) -> None:
    shop.happened("suppressed", 90, reason="consent_refused")
    shop.happened("suppressed", 20, reason="consent_unknown")
    shop.happened("dead", 2, reason="refused")
    shop.happened("delivered", 40, delay=1.0)
    reasons = [loss["reason"] for loss in shop.json()["losses"]]
    assert reasons == ["refused", "consent_unknown", "consent_refused"]
    assert shop.html().count("do this first") == 1


def test_how_many_orders_did_not_arrive_is_a_sentence(shop: Shop) -> None:
    """A repeated report is no order of its own, and what is not paid is not missing."""
    shop.happened("delivered", 1740, delay=1.0)
    shop.happened("suppressed", 195, reason="consent_refused")
    shop.happened("dead", 3, reason="refused")
    shop.happened("duplicate", 11)
    shop.happened("cancelled", 1, reason="cancelled")
    found = shop.json()
    assert (found["answer"]["missed"], found["answer"]["known"]) == (198, 1938)
    assert found["answer"]["sentence"] == (
        "198 of 1,938 orders did not reach AdRoll: 195 not to be reported and 3 that could not be"
        " delivered."
    )
    assert found["answer"]["beside"] == (
        "Beside these: 1 is cancelled, or never released; 11 reports came again, by a reload or a"
        " retry, and count once."
    )
    assert {loss["reason"] for loss in found["losses"]} == {
        "consent_refused",
        "refused",
        "cancelled",
    }


def test_the_sentence_says_too_that_all_arrived(shop: Shop) -> None:
    assert shop.json()["answer"]["sentence"] == ""
    shop.happened("delivered", delay=1.0)
    assert shop.json()["answer"]["sentence"] == "The one order reached AdRoll."
    shop.happened("delivered", 6, delay=1.0)
    assert shop.json()["answer"]["sentence"] == "Every one of 7 orders reached AdRoll."


def test_a_hold_that_nobody_released_is_no_loss_to_adroll(shop: Shop) -> None:
    shop.happened("delivered", 2, delay=1.0)
    shop.happened("expired", reason="hold_expired")
    shop.happened("expired", reason="too_old")
    found = shop.json()
    assert found["health"]["could"] == 3
    way = {one["name"]: one["events"] for one in found["way"]}
    assert (way["unreleased"], way["dead"]) == (1, 1)


def test_what_waits_is_on_the_way(shop: Shop) -> None:
    shop.runtime.outbox.put(new_event(shop, "1001"))
    shop.runtime.outbox.put(new_event(shop, "1002", "12.50 EUR"))
    way = {one["name"]: one for one in shop.json()["way"]}
    assert way["waiting"]["events"] == 2
    assert way["waiting"]["values"] == [["EUR", "22.5"]]


def test_steps_are_whole_and_hold_every_event_once(shop: Shop) -> None:
    for hours in range(0, 300, 7):
        shop.happened("delivered", ago=hours * HOUR, delay=1.0)
    for period in ("day", "week", "month", "year"):
        found = shop.json(period=period)
        inside = [hours for hours in range(0, 300, 7) if shop.now - hours * HOUR >= found["begin"]]
        assert sum(step["delivered"] for step in found["steps"]) == len(inside), period
        assert found["reported"] == len(inside)


def test_sums_that_are_kept_are_those_of_a_fresh_look(
    shop: Shop, new_shop: Callable[..., Shop]
) -> None:
    """As the clock goes on, over the ends of hours, days and weeks."""
    for _ in range(40):
        shop.happened("delivered", 3, value="1 EUR", delay=2.0)
        shop.happened("suppressed", reason="consent_gpc")
        for period in ("day", "week", "month", "year"):
            kept = shop.json(period=period)
            fresh = _fresh(shop, period)
            assert kept == fresh
        shop.now += 5.3 * HOUR


def _fresh(shop: Shop, period: str) -> object:
    """The same page of another process over the same outbox."""
    from flask import Flask

    from adroll_flask.dashboard import mount

    other = Flask("other")
    mount(other, shop.runtime, access=lambda: True)
    return other.test_client().get(f"/adroll-dashboard/overview.json?period={period}").get_json()


# -- is it working? ------------------------------------------------------------------------------


def sentence(shop: Shop) -> str:
    return str(shop.json()["verdict"]["sentence"])


def test_yes(shop: Shop) -> None:
    shop.happened("delivered", 12, delay=1.0)
    verdict = shop.json()["verdict"]
    assert (verdict["level"], verdict["todo"], verdict["who"]) == ("good", "", "")
    assert verdict["sentence"].startswith("Yes. All 12 orders of the last 24 hours")


def test_nothing_yet(shop: Shop) -> None:
    assert sentence(shop) == "Nothing was reported yet."


def test_silent_since_yesterday(shop: Shop) -> None:
    shop.happened("delivered", 30, delay=1.0, ago=3 * DAY)
    assert sentence(shop).startswith("It is silent")


def test_too_few_for_the_time_of_day(shop: Shop) -> None:
    for hour in range(24 * 30, 5, -1):
        if 6 <= (shop.now // HOUR - hour) % 24 <= 20:
            shop.happened("delivered", 40, ago=hour * HOUR, delay=1.0)
    verdict = shop.json()["verdict"]
    assert verdict["sentence"].startswith("No: too few purchase events reach AdRoll: none since")
    assert (verdict["level"], verdict["who"]) == ("bad", "developer")


def test_yes_but(shop: Shop) -> None:
    shop.happened("delivered", 99, delay=1.0)
    shop.happened("dead", reason="refused")
    assert sentence(shop).startswith("Yes, but 1 of 100 orders")


def test_not_fully(shop: Shop) -> None:
    shop.happened("delivered", 9, delay=1.0)
    shop.happened("invalid", reason="invalid:currency")
    assert sentence(shop).startswith("Not fully: 1 of 10 events")


def test_a_refused_token_is_the_marketers_and_the_developers(shop: Shop) -> None:
    shop.runtime.outbox.put(new_event(shop, "1001"))
    shop.runtime.outbox.destination.hold("http_401", "print")
    shop.now += 3 * HOUR
    verdict = shop.json()["verdict"]
    assert verdict["sentence"].startswith("No: AdRoll has refused the access token for 3 hours.")
    assert "1 event waits; none is lost." in verdict["sentence"]
    assert verdict["who"] == "marketer and developer"


def test_while_adroll_is_away_it_is_adrolls(shop: Shop) -> None:
    shop.happened("delivered", 9, delay=1.0)
    shop.runtime.outbox.destination.failed("http_503")
    verdict = shop.json()["verdict"]
    assert (verdict["level"], verdict["who"]) == ("warn", "AdRoll")


def test_nobody_delivers(shop: Shop) -> None:
    shop.runtime.outbox.put(new_event(shop, "1001"))
    shop.json()  # takes it in
    shop.now += 2 * HOUR
    verdict = shop.json()["verdict"]
    assert verdict["sentence"].startswith("No: nobody delivers.")
    assert verdict["command"] == "flask adroll worker"


def test_a_missing_setting_is_named(new_shop: Callable[..., Shop]) -> None:
    shop = new_shop(ADROLL_ACCESS_TOKEN=None)
    assert sentence(shop).startswith("No: ADROLL_ACCESS_TOKEN is not set")


def test_a_full_disk_is_told_first(shop: Shop) -> None:
    shop.happened("delivered", 9, delay=1.0)
    shop.happened("failed", 2, reason="disk_full")
    assert sentence(shop).startswith("No: 2 reports were lost")


def test_an_outbox_that_cannot_be_read_says_so(shop: Shop) -> None:
    shop.happened("delivered", delay=1.0)
    shop.runtime.outbox.close()
    place = shop.runtime.outbox_place
    for path in place.parent.glob(f"{place.name}*"):
        path.unlink()
    place.mkdir()
    answer = shop.client.get("/adroll-dashboard/")
    assert answer.status_code == 503
    assert "The outbox cannot be read" in answer.text


# -- dry runs, and what was sent again -----------------------------------------------------------


def test_dry_runs_are_no_orders(shop: Shop) -> None:
    shop.happened("delivered", 9, delay=1.0)
    shop.happened("dry_run", 500, reason="delivered")
    shop.happened("dry_run", 40, reason="dead:refused")
    found = shop.json()
    assert (found["reported"], found["dry_runs"]) == (9, 540)
    assert found["health"]["share"] == 1.0
    assert sum(step["delivered"] for step in found["steps"]) == 9
    assert found["verdict"]["sentence"].startswith("Yes. All 9 orders")
    assert "540 dry runs are not in these figures" in shop.html()


def test_where_all_is_a_dry_run_the_sentence_says_so(new_shop: Callable[..., Shop]) -> None:
    shop = new_shop(ADROLL_DRY_RUN=True)
    assert sentence(shop) == "This is a dry run: AdRoll checks what is sent, and forgets it."
    shop.happened("dry_run", 3, reason="delivered")
    verdict = shop.json()["verdict"]
    assert verdict["sentence"].startswith("This is a dry run: AdRoll checked 3 events")
    assert (verdict["page"], verdict["who"]) == ("test", "developer")
    assert "To the page Test" in shop.html()
