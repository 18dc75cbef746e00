"""Hold, release, cancel: from a view to AdRoll."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client

from adroll_flask import (
    AdRollMiddleware,
    ConfigurationError,
    EventError,
    Receipt,
    cancel_conversion,
    forget_visitor,
    release_conversion,
    report_conversion,
    report_event,
)
from adroll_flask.cli.commands import commands
from adroll_flask.outbox import Outcome
from adroll_flask.testing import reports
from tests.conftest import ADVERTISABLE, AppMaker

ORDER: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}
ADDRESS = {"REMOTE_ADDR": "203.0.113.7"}
PLACE = "https://shop.test/checkout"
WHO: dict[str, Any] = {"adct": "c1", "ip": "203.0.113.7", "page_location": PLACE}


def shop(make_app: AppMaker, hold: Any = True, **config: Any) -> Flask:
    app = make_app(**config)

    @app.post("/checkout")
    def checkout() -> dict[str, Any]:
        receipt = report_conversion(**ORDER, hold=hold, email="jo@example.com")
        return {"status": receipt.status, "reason": receipt.reason, "true": bool(receipt)}

    return app


def buy(app: Flask) -> dict[str, Any]:
    browser = app.test_client()
    browser.get("/?adct=click123", base_url="https://shop.test", environ_base=ADDRESS)
    answer = browser.post("/checkout", base_url="https://shop.test", environ_base=ADDRESS)
    told: dict[str, Any] = answer.get_json()
    return told


def waiting(app: Flask, state: Any = "waiting") -> list[dict[str, Any]]:
    outbox = app.extensions["adroll"].outbox
    rows = [outbox.lookups.show(row.id) for row in outbox.lookups.list(state)]
    return [json.loads(row.payload) for row in rows]


def test_an_order_is_held_at_checkout_and_sent_when_it_is_paid(make_app: AppMaker) -> None:
    app = shop(make_app)

    assert buy(app) == {"status": "held", "reason": "", "true": True}
    assert waiting(app) == []
    with app.app_context():  # the payment provider's webhook: no browser is near
        receipt = release_conversion("1001", value="54.90", products=[{"product_id": 5}])

    assert (receipt.status, receipt.reason, bool(receipt)) == ("released", "", True)
    assert app.extensions["adroll"].counters.get("release_kept") == 1
    (sent,) = waiting(app)
    assert (sent["identifiers"]["adct"], sent["ip"]) == ("click123", "203.0.113.7")
    assert "email_sha256" in sent["identifiers"]
    attributes = sent["event_attributes"]
    assert (attributes["products"][0]["product_id"], attributes["order_id"]) == ("5", "1001")
    assert Decimal(str(sent["conversion_value"])) == Decimal("54.90")


def test_a_release_may_say_the_time_of_the_payment(make_app: AppMaker) -> None:
    app = shop(make_app)
    buy(app)
    (held,) = waiting(app, "held")
    with app.app_context():
        release_conversion("1001", at="release")
        (sent,) = waiting(app)
        assert sent["timestamp"] > held["timestamp"]


def test_a_receipt_says_where_this_process_knows_no_hold(make_app: AppMaker) -> None:
    app = shop(make_app)
    with app.app_context():
        for decide, status in ((release_conversion, "released"), (cancel_conversion, "cancelled")):
            receipt: Receipt = decide("77")
            assert receipt.status == status
            assert receipt.id is None
            assert receipt.reason == (
                "no hold of this order was seen by this process; applied when it is found"
            )
    assert not Receipt(None, "cancelled")


@pytest.mark.parametrize("kind", ["release", "cancel"])
def test_a_slip_of_the_typists_decides_on_no_later_order(make_app: AppMaker, kind: str) -> None:
    """`outbox cancel` of a number that was not there yet forgot the order that came to have it."""
    app = shop(make_app)
    runner = app.test_cli_runner()
    slip = runner.invoke(commands, ["outbox", kind, "1001"])
    assert slip.exit_code == 1
    assert not app.extensions["adroll"].outbox.exists(), "looking makes no file"
    buy(app)
    app.extensions["adroll"].outbox.queue.take_in()
    assert app.extensions["adroll"].outbox.lookups.counts()["held"] == 1


def test_of_a_hold_that_became_a_dead_letter_it_is_said_where_to_look(make_app: AppMaker) -> None:
    """Nobody knew the visitor: no click id, no cookie."""
    app = shop(make_app, ADROLL_STRICT=False)
    with app.app_context():
        receipt = report_conversion(**ORDER, hold=True, ip="203.0.113.7", page_location=PLACE)
    assert receipt.status == "invalid"
    run = partial(app.test_cli_runner().invoke, commands)
    said = run(["outbox", "release", "1001"])
    assert said.exit_code == 1
    assert "flask adroll outbox find 1001 says what is known of it" in said.output
    assert "visitor: takes a click id" in run(["outbox", "find", "1001"]).output


def test_what_has_been_delivered_takes_no_other_value(make_app: AppMaker) -> None:
    app = shop(make_app)
    buy(app)
    outbox = app.extensions["adroll"].outbox
    with app.app_context():
        release_conversion("1001")
    claim = outbox.queue.claim(ADVERTISABLE, begin=True)
    outbox.queue.settle(claim, [Outcome(id=one.id, kind="delivered") for one in claim.events])
    runner = app.test_cli_runner()
    plain = runner.invoke(commands, ["outbox", "release", "1001"])
    assert plain.exit_code == 0
    assert plain.output.startswith("1001: delivered at ")
    changed = runner.invoke(commands, ["outbox", "release", "1001", "--value", "1.00"])
    assert changed.exit_code == 1
    assert "too late for another value or currency" in changed.output


@pytest.mark.parametrize("how", ["outbox", "site's own tests"])
def test_a_receipt_says_what_this_process_decided_before(make_app: AppMaker, how: str) -> None:
    """A webhook can log that money came for an order that was cancelled."""
    app = shop(make_app)
    with reports(app) if how != "outbox" else nullcontext(), app.app_context():
        buy(app)
        decided = [release_conversion("1001"), release_conversion("1001")]
        decided += [cancel_conversion("1001"), cancel_conversion("1001")]
        decided += [release_conversion("1001")]
    assert [(receipt.status, receipt.reason) for receipt in decided] == [
        ("released", ""),
        ("released", "released before"),
        ("cancelled", "released before; too late if it has been sent"),
        ("cancelled", "cancelled before"),
        ("released", "cancelled before; it is not sent"),
    ]
    assert len({receipt.id for receipt in decided}) == 1


@pytest.mark.parametrize("hold", [0, -1, "2 days", 10**9, timedelta(days=8)])
def test_a_hold_that_is_wrong_raises_in_strict_and_holds_in_production(
    make_app: AppMaker, hold: Any
) -> None:
    with pytest.raises(EventError, match="hold"):
        buy(shop(make_app, hold))
    app = shop(make_app, hold, ADROLL_STRICT=False)
    assert buy(app)["status"] == "held"


@pytest.mark.parametrize("hold", [None, False])
def test_no_hold_is_no_hold(make_app: AppMaker, hold: Any) -> None:
    assert buy(shop(make_app, hold))["status"] == "queued"


def test_only_a_purchase_with_an_order_id_can_be_held(make_app: AppMaker) -> None:
    app = make_app()
    with app.app_context(), pytest.raises(EventError, match="hold"):
        report_event("signupTrial", hold=True, **WHO)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"value": "5,9,0"}, "value"),
        ({"currency": "EURO"}, "currency"),
        ({"products": [{"price": 5}]}, "products"),
        ({"at": "payment"}, "at"),
    ],
)
def test_a_wrong_change_raises_in_strict_and_is_left_out_in_production(
    make_app: AppMaker, arguments: dict[str, Any], field: str
) -> None:
    app = shop(make_app)
    with app.app_context(), pytest.raises(EventError, match=field):
        release_conversion("1001", **arguments)
    app = shop(make_app, ADROLL_STRICT=False)
    buy(app)
    with app.app_context():
        receipt = release_conversion("1001", **arguments)
    assert receipt.status == "released"
    assert receipt.reason.startswith(field)
    assert len(waiting(app)) == 1


def test_a_release_that_does_not_fit_its_hold_is_a_dead_letter(make_app: AppMaker) -> None:
    app = make_app(ADROLL_STRICT=False)
    with app.app_context():
        report_conversion(order_id="1", hold=True, **WHO)
        release_conversion("1", value="5.00")  # no currency, then or now
    (row,) = app.extensions["adroll"].outbox.lookups.list("dead")
    assert row.reason == "invalid:release"
    assert "currency" in row.error


def test_a_wrong_order_id_is_told(make_app: AppMaker) -> None:
    app = make_app(ADROLL_STRICT=False)
    with app.app_context():
        assert release_conversion("").status == "invalid"
        assert cancel_conversion(5.5).status == "invalid"  # type: ignore[arg-type]


def test_without_an_app_the_way_out_is_told() -> None:
    with pytest.raises(ConfigurationError, match="release_conversion"):
        release_conversion("1001")


def test_a_visitor_who_says_no_after_the_hold_is_erased(make_app: AppMaker) -> None:
    app = shop(make_app)

    @app.post("/no")
    def no() -> str:
        forget_visitor()
        return ""

    browser = app.test_client()
    browser.get("/?adct=click123", base_url="https://shop.test", environ_base=ADDRESS)
    browser.post("/checkout", base_url="https://shop.test", environ_base=ADDRESS)
    browser.post("/no", base_url="https://shop.test", environ_base=ADDRESS)
    with app.app_context():
        release_conversion("1001")

    assert waiting(app) == []
    assert app.extensions["adroll"].outbox.lookups.counts()["held"] == 0


def test_consent_is_asked_at_the_hold(make_app: AppMaker) -> None:
    app = shop(make_app, ADROLL_CONSENT=lambda request: False)
    assert buy(app)["status"] == "suppressed"
    assert app.extensions["adroll"].outbox.lookups.counts()["held"] == 0


def test_the_middleware_releases_by_functions_and_by_its_environ(tmp_path: Any) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        if path == "/buy":
            environ["adroll.report"]("purchase", **ORDER, hold=True)
        elif path == "/pay":
            environ["adroll.release"]("1001")
        elif path == "/no":
            environ["adroll.cancel"]("1001")
        elif path == "/pay-by-function":
            release_conversion("1001", value="1.00")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    wrapped = AdRollMiddleware(
        application, secret_key="k", folder=str(tmp_path), strict=True, delivery="worker"
    )
    for path, left in (("/pay", 1), ("/pay-by-function", 1), ("/no", 0)):
        with reports(wrapped) as reported:
            client = Client(wrapped)
            client.get("/buy?adct=c1", environ_overrides=ADDRESS)
            assert len(reported) == 0
            assert [event.order_id for event in reported.held] == ["1001"]
            client.get(path)
            assert len(reported) == left
            assert reported.held == []


def test_a_site_s_own_tests_see_what_is_held(make_app: AppMaker) -> None:
    app = shop(make_app)
    with reports(app) as reported, app.app_context():
        buy(app)
        assert len(reported) == 0
        with pytest.raises(AssertionError, match="held: 1"):
            reported.one("purchase")
        assert reported.held[0].order_id == "1001"
        release_conversion("1001", value="5.00")
        assert reported.one("purchase").value == Decimal("5.00")
        assert reported.held == []
        cancel_conversion("1001")
        assert len(reported) == 0
        assert reported.cancelled == ["1001"]


def test_the_site_s_tests_take_a_release_that_comes_first(make_app: AppMaker) -> None:
    app = shop(make_app)
    with reports(app) as reported, app.app_context():
        release_conversion("1001")
        assert buy(app)["status"] == "held"
        assert len(reported) == 1


def test_a_worker_quicker_than_the_command_s_words(
    make_app: AppMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had the event before `release` looked again, and the page of holds was wrong then."""
    app = shop(make_app)
    buy(app)
    runtime = app.extensions["adroll"]
    runtime.outbox.queue.take_in()
    decide = runtime.reporter.decide

    def released(*args: Any) -> Receipt:
        receipt: Receipt = decide(*args)
        runtime.outbox.queue.take_in()
        assert runtime.outbox.queue.claim(ADVERTISABLE, begin=True)
        return receipt

    monkeypatch.setattr(runtime.reporter, "decide", released)
    said = app.test_cli_runner().invoke(commands, ["outbox", "release", "1001"])
    assert (said.exit_code, said.output) == (0, "1001: will be sent\n")


def test_commands_release_and_cancel(make_app: AppMaker) -> None:
    app = shop(make_app)
    buy(app)
    app.extensions["adroll"].outbox.queue.take_in()
    runner = app.test_cli_runner()

    listed = runner.invoke(commands, ["outbox", "list", "--state", "held"])
    assert listed.output.split()[-7:] == ["59.90", "EUR", "0", "1001", "in", "7", "days"]
    wrong = runner.invoke(commands, ["outbox", "release", "1001", "--value", "much"])
    assert wrong.exit_code == 1
    assert "value" in wrong.output
    unknown = runner.invoke(commands, ["outbox", "release", "77"])
    assert unknown.exit_code == 1
    assert "no such order is held here, so nothing was done" in unknown.output
    assert "no hold yet" not in runner.invoke(commands, ["outbox"]).output
    with app.app_context():
        assert release_conversion("77")
    assert "no hold yet 1 verdict" in runner.invoke(commands, ["outbox"]).output

    released = runner.invoke(commands, ["outbox", "release", "1001", "--value", "5.00"])
    assert (released.exit_code, released.output) == (0, "1001: will be sent\n")
    cancelled = runner.invoke(commands, ["outbox", "cancel", "1001"])
    assert (cancelled.exit_code, cancelled.output) == (0, "1001: cancelled\n")
    again = runner.invoke(commands, ["outbox", "release", "1001"])
    assert again.exit_code == 1
