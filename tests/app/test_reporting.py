"""From a view to the outbox: receipts, deduplication, what is kept of a bad event."""

import io
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import pytest
import sqlalchemy as sa
from blinker import Signal
from flask import Flask
from markupsafe import Markup
from sqlalchemy.orm import Session

import adroll_flask
from adroll_flask import (
    AdRoll,
    EventError,
    Receipt,
    identify,
    release_conversion,
    report_conversion,
)
from tests.app.conftest import Either, forget
from tests.conftest import ADVERTISABLE, PIXEL, AppMaker, Caplog, Patch
from tests.support import PATIENCE, delivery_kit, eventually
from tests.support.visits import ORDER, VISIT, invoke, kept, report, settle, visit


def test_a_purchase_is_kept_with_all_that_is_known(app: Flask) -> None:
    order = ORDER | {"email": "Jo@Example.com "}
    app.add_url_rule("/buy", "buy", lambda: report_conversion(**order).status, methods=["POST"])
    client = app.test_client()
    client.get("/?adct=click123", base_url="https://shop.test")
    cookie = client.get_cookie("__adroll_fpc", domain="shop.test")
    assert cookie is not None
    answer = client.post("/buy?step=3", headers={"User-Agent": "Agent/1.0"}, **VISIT)
    assert answer.text == "queued"
    assert not {"Vary", "Set-Cookie"} & {*answer.headers.keys()}, "the session is not touched"
    [event] = kept(app)
    assert event["event_name"] == "purchase"
    assert event["advertisable_eid"] == ADVERTISABLE
    assert event["pixel_eid"] == PIXEL
    assert event["page_location"] == "https://shop.test/buy?step=3"
    assert event["ip"] == "203.0.113.7"
    assert event["user_agent"] == "Agent/1.0"
    assert event["conversion_value"] == "59.90"
    assert event["currency"] == "EUR"
    assert event["identifiers"]["adct"] == "click123"
    assert event["identifiers"]["first_party_cookie"] == cookie.value
    assert "email" not in event["identifiers"]
    assert event["event_attributes"]["order_id"] == "1001"


@pytest.mark.parametrize("part", ["handler", "filter", "factory", "streams"])
def test_a_sites_logging_that_raises_costs_no_order(
    part: str, make_app: AppMaker, stack: ExitStack, monkeypatch: Patch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("outside of a request")

    stack.callback(logging.setLogRecordFactory, logging.getLogRecordFactory())
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    handler = logging.StreamHandler(io.StringIO())
    stack.callback(logging.root.removeHandler, handler)
    logging.root.addHandler(handler)
    if part == "handler":
        handler.emit = refuse  # type: ignore[method-assign]
    elif part == "filter":
        handler.addFilter(refuse)
    elif part == "factory":
        logging.setLogRecordFactory(refuse)
    else:
        handler.stream.close()
        errors.close()
    assert report(make_app(ADROLL_STRICT=False), email="no address").status == "queued"
    if part == "factory":
        assert "email left out" in handler.stream.getvalue()
    elif part != "streams":
        assert "outside of a request" in errors.getvalue()


class Failing:
    """What a site's own code makes, and fails to."""

    def fail(self, *_: object) -> Any:
        raise LookupError("ann@example.com")

    __index__ = __iter__ = __getattr__ = fail


class FailingDict(dict[str, Any]):
    get = items = Failing.fail


def failing_rows() -> Iterator[dict[str, Any]]:
    yield {"product_id": "mug"}
    raise LookupError


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("products", Failing),
        ("products", failing_rows),
        ("products", lambda: [Failing()]),
        ("products", lambda: [FailingDict(product_id="mug")]),
        ("products", lambda: {"product_id": Failing()}),
        ("user_id", Failing),
        ("total", Failing),
        ("external_data", lambda: FailingDict(a=1)),
        ("hold", lambda: 10**400),
    ],
)
def test_a_field_whose_own_code_fails_costs_no_order(
    make_app: AppMaker, field: str, make: Callable[[], Any]
) -> None:
    app = make_app(ADROLL_STRICT=False)
    assert report(app, **{field: make()})
    assert kept(app, "held" if field == "hold" else "waiting")


def test_an_amount_whose_own_code_fails_is_kept_for_its_fixing(make_app: AppMaker) -> None:
    app = make_app(ADROLL_STRICT=False)
    assert report(app, value=Failing()).status == "invalid"
    assert kept(app, "dead")


def test_a_template_s_markup_is_a_text_as_any(app: Flask) -> None:
    device = "6D92078A-8246-4BA4-AE5B-76104861E7DC"
    assert report(app, email=Markup("e" * 64), device_id=Markup(device))
    [event] = kept(app)
    assert event["identifiers"]["email_sha256"] == "e" * 64


def test_a_host_that_a_proxy_made_malformed_is_told(app: Flask) -> None:
    at: Any = {"headers": {"Host": "shop_app"}, "environ_base": {"REMOTE_ADDR": "203.0.113.7"}}
    with (
        app.test_request_context("/?adct=click123", **at),
        pytest.raises(EventError, match=r"page_location: .* Host is malformed.* proxy_set_header"),
    ):
        report_conversion(**ORDER)


def test_an_invalid_event_raises_in_strict_mode_and_is_not_kept(app: Flask) -> None:
    with pytest.raises(EventError) as caught:
        report(app, value="much")
    assert caught.value.field == "value"
    assert "much" not in str(caught.value)
    assert kept(app) == []


def test_in_production_a_bad_event_is_a_dead_letter(make_app: AppMaker, caplog: Caplog) -> None:
    app = make_app(ADROLL_STRICT=False)
    heard: list[str] = []

    def rejected(_: object, id: str, name: str, reason: str) -> None:
        heard.append(f"{name} {reason}")

    with adroll_flask.event_rejected.connected_to(rejected, app), visit(app):
        receipt = adroll_flask.report_event("add_to_cart")  # type: ignore[arg-type]
        products: Any = ({"product_id": str(at)} for at in range(2))
        report_conversion(order_id="1", value="-1", currency="EUR", products=products)
    assert receipt.status == "invalid"
    assert "addToCart" in receipt.reason
    assert heard == ["add_to_cart invalid:event_name", "purchase invalid:value"]
    _, order = kept(app, "dead")
    assert len(order["event_attributes"]["products"]) == 2, "a generator tells them once"
    assert "dead letter" in caplog.text


def test_a_bad_optional_field_costs_no_purchase(make_app: AppMaker, caplog: Caplog) -> None:
    app = make_app(ADROLL_STRICT=False)
    products = [{"product_id": str(at), "quantity": -1} for at in range(50)]
    receipt = report(app, email="not an address", products=products)
    assert receipt.status == "queued"
    assert "products[0].quantity left out" in receipt.reason
    assert receipt.reason.endswith("; 48 more")
    assert app.extensions["adroll"].counters.get("field_dropped", "email") == 1
    assert "email left out" in caplog.text
    assert "not an address" not in caplog.text


@pytest.mark.parametrize(
    ("referrer", "page"),
    [
        ("https://shop.test/mugs?colour=red", "https://shop.test/mugs?colour=red"),
        ("https://shop.test.evil.example/", "https://shop.test/app/_dash-update-component"),
        ("", "https://shop.test/app/_dash-update-component"),
    ],
)
def test_a_callback_of_dash_is_of_the_page_that_it_is_on(
    app: Flask, referrer: str, page: str
) -> None:
    @app.post("/app/_dash-update-component")
    def callback() -> str:
        return report_conversion(**ORDER, adct="click123").status

    headers = {"Referer": referrer} if referrer else {}
    answer = app.test_client().post("/app/_dash-update-component", headers=headers, **VISIT)
    assert answer.text == "queued"
    assert kept(app)[0]["page_location"] == page


def test_names_that_a_shop_makes_up_make_no_counters_without_end(make_app: AppMaker) -> None:
    app = make_app(ADROLL_STRICT=False)
    for number in range(5):
        made_up: dict[str, Any] = {f"colour_{number}": "red"}
        assert report(app, str(number), **made_up).status == "queued"
    assert report(app, "products", products=[{"product_id": "1", "price": "much"}])
    counted = app.extensions["adroll"].counters.snapshot()
    dropped = {name: n for name, n in counted.items() if name.startswith("field_dropped")}
    assert dropped == {"field_dropped:products": 1, "field_dropped:unknown": 5}


ADDRESS = "jo.bloggs@example.com"


@pytest.mark.parametrize(
    "call",
    [
        lambda: report_conversion(order_id="1", value="much", currency="EUR", email=ADDRESS),
        lambda: identify(email=ADDRESS, device_id="not one"),
    ],
    ids=["report", "identify"],
)
def test_an_error_that_is_raised_has_no_address_in_our_frames(
    make_app: AppMaker, call: Callable[[], Any]
) -> None:
    """Error trackers send the variables of each frame along."""
    app = make_app(ADROLL_STRICT=True)
    with visit(app), pytest.raises(EventError) as raised:
        call()
    frames = [frame for frame, _line in traceback.walk_tb(raised.value.__traceback__)]
    ours = [frame for frame in frames if frame.f_globals["__name__"].startswith("adroll_flask")]
    assert ours
    assert ADDRESS not in repr([frame.f_locals for frame in ours])


def test_a_token_states_the_consent_at_its_minting(make_app: AppMaker) -> None:
    answer: list[bool | None] = [None]
    app = make_app(ADROLL_CONSENT=lambda request: answer[0])
    tokens = {}
    for state in (None, True):
        answer[0] = state
        with visit(app):
            tokens[state] = adroll_flask.current_visitor().token()
    with app.app_context():
        receipt = report_conversion(visitor=tokens[None], **ORDER)
        assert (receipt.status, receipt.reason) == ("suppressed", "consent_unknown")
        fields: dict[str, Any] = {"ip": "203.0.113.7", "page_location": "https://shop.test/"}
        assert report_conversion(visitor=tokens[True], **ORDER, **fields).status == "queued"


@pytest.mark.parametrize(
    ("answer", "reason"), [(False, "consent_refused"), (None, "consent_unknown")]
)
def test_without_yes_nothing_is_kept(make_app: AppMaker, answer: bool | None, reason: str) -> None:
    app = make_app(ADROLL_CONSENT=lambda request: answer)
    with visit(app):
        receipt = report_conversion(**ORDER)
        assert not adroll_flask.current_visitor()
    assert (receipt.status, receipt.reason) == ("suppressed", reason)
    assert str(receipt.coverage) == "0 of 7: none"
    assert kept(app) == []


def test_functions_of_before_report_are_asked_in_turn(app: Flask, adroll: AdRoll) -> None:
    asked: list[str] = []

    @adroll.before_report
    def first(event: Any) -> Any:
        asked.append(f"first {event.value}")
        return None if event.order_id == "test" else event.replace(value="10.00")

    @adroll.before_report
    def second(event: Any) -> Any:
        asked.append(f"second {event.value}")
        return event.replace(currency="USD")

    assert report(app)
    assert callable(first), "what is decorated stays what it is"
    receipt = report(app, "test")
    assert (receipt.status, receipt.reason) == ("suppressed", "before_report")
    assert asked == ["first 59.90", "second 10.00", "first 59.90"]
    [event] = kept(app)
    assert (event["conversion_value"], event["currency"]) == ("10.00", "USD")
    adroll.before_report(lambda event: 1 / 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(ZeroDivisionError):
        report(app, "1002")


def test_each_functions_answer_is_checked_before_the_next(app: Flask, adroll: AdRoll) -> None:
    asked: list[int] = []
    adroll.before_report(lambda event: "an event")  # type: ignore[arg-type,return-value]
    adroll.before_report(lambda event: asked.append(1))
    with pytest.raises(EventError, match="before_report"):
        report(app)
    assert asked == []


@pytest.mark.parametrize("missing", ["order_id", "value"])
def test_a_purchase_without_order_id_or_value_raises_if_strict(app: Flask, missing: str) -> None:
    fields: dict[str, Any] = {name: value for name, value in ORDER.items() if name != missing}
    with visit(app), pytest.raises(EventError, match=f"^{missing}: a purchase takes"):
        report_conversion(**fields)
    with visit(app), pytest.raises(EventError, match=f"did you mean '{missing}'"):
        report_conversion(**fields | {f"{missing}s": "1001"})
    assert kept(app) == []


def test_an_incomplete_purchase_is_kept_and_told_once(make_app: AppMaker, caplog: Caplog) -> None:
    app = make_app(ADROLL_STRICT=False)
    with visit(app):
        for _ in range(3):
            assert report_conversion(value="59.90", currency="EUR").status == "queued"
        assert report_conversion(order_id="1001").status == "queued"
        assert adroll_flask.report_event("addToCart").status == "queued"
    told = [one.getMessage() for one in caplog.records if "without" in one.getMessage()]
    assert ["order_id=" in text or "value=" in text for text in told] == [True, True]
    counters = app.extensions["adroll"].counters
    assert counters.get("purchase_incomplete", "order_id") == 3
    assert counters.get("purchase_incomplete", "value") == 1


@pytest.mark.parametrize(("where", "state"), [("before_report", "dead"), ("identity", "waiting")])
def test_a_function_of_the_site_s_that_fails_is_told_by_its_line(
    make_app: AppMaker, adroll: AdRoll, caplog: Caplog, where: str, state: str
) -> None:
    app = make_app(adroll, ADROLL_STRICT=False)

    def broken(*_: object) -> Any:
        raise LookupError("secret")

    getattr(adroll, where)(broken)
    receipt = report(app)
    [said] = [said for said in caplog.messages if " failed: " in said]
    first, *_, last = said.splitlines()
    assert first.endswith("LookupError")
    assert f"line {broken.__code__.co_firstlineno + 1}, in broken (" in last
    assert __file__ in last
    assert receipt.status == ("queued" if where == "identity" else "invalid")
    assert ("LookupError" in receipt.reason) is (where == "before_report")
    assert "secret" not in said + receipt.reason
    assert app.extensions["adroll"].counters.get("identity_failed", "raised") == (
        where == "identity"
    )
    assert len(kept(app, state)) == 1


def test_a_receiver_that_raises_stops_nobody_and_is_told(app: Flask, caplog: Caplog) -> None:
    def broken(_: object, **__: object) -> None:
        raise RuntimeError

    runtime = app.extensions["adroll"]
    runtime.transport = delivery_kit.AdRoll()
    with (
        adroll_flask.event_queued.connected_to(broken, app),
        adroll_flask.event_delivered.connected_to(broken, app),
    ):
        assert report(app).status == "queued"
        runtime.deliverer.drain()
    counters = runtime.counters
    assert len(runtime.transport.sizes) == 1
    assert counters.get("receiver_failed", "event-queued") == 1
    assert counters.get("receiver_failed", "event-delivered") == 1
    assert counters.get("delivery_error") == 0
    told = [text for text in caplog.messages if text.startswith("a receiver of")]
    assert [text.partition(" failed")[0] for text in told] == [
        f"a receiver of adroll-{name}" for name in ("event-queued", "event-delivered")
    ]


@pytest.mark.parametrize(
    ("pixel", "gone"),
    [
        ("load", {"__ar_v4", "__adroll_consent", "__adroll_consent_params"}),
        ("present", {"__ar_v4"}),
    ],
)
def test_forget_visitor_takes_the_cookies(either: Either, pixel: str, gone: set[str]) -> None:
    app, client, _ = either(pixel=pixel)
    app.add_url_rule("/forget", "forget", forget)
    client.get("/?adct=click123", base_url="https://shop.test")
    names = ("__ar_v4", "__adroll_consent", "__adroll_consent_params", "theme")
    for name in names:
        client.set_cookie(name, "1", domain="shop.test")
    lines = client.get("/forget", base_url="https://shop.test").headers.getlist("Set-Cookie")
    taken = {line.partition("=")[0] for line in lines if "Max-Age=0" in line} & set(names)
    assert taken == gone
    for name in ("__ar_v4", "adroll_visitor", "__adroll_fpc"):  # host-only, and the host's
        assert sum(line.startswith(f"{name}=;") for line in lines) == 2
    # Else browsers keep what has a name with __Secure-.
    assert all("; Secure" in line for line in lines if not line.startswith("session="))


def test_a_failing_outbox_is_told_and_where_no_thread_runs_by_the_next_report(
    make_app: AppMaker, tmp_path: Path, caplog: Caplog
) -> None:
    (tmp_path / "file").write_text("in the way")
    app = make_app(
        ADROLL_STRICT=False,
        ADROLL_JOURNAL_FOLDER=str(tmp_path / "file" / "journal"),
        ADROLL_DELIVERY="sync",
        ADROLL_ACCESS_TOKEN=None,
    )
    receipt = report(app)
    assert (receipt.status, receipt.reason) == ("failed", "no_folder")
    assert "AdRoll event lost" in caplog.text
    assert app.extensions["adroll"].counters.get("event_failed", "no_folder") == 1
    (tmp_path / "file").unlink()
    assert report(app).status == "queued"
    [lost] = app.extensions["adroll"].outbox.lookups.history(0, ("outcome",))
    assert (lost.outcome, lost.events) == ("failed", 1)


def test_a_report_that_the_sites_own_value_ends_is_counted_as_lost(make_app: AppMaker) -> None:
    class Broken:
        def __bool__(self) -> bool:
            raise RuntimeError("the site's database is away")

    app = make_app(ADROLL_STRICT=False)
    receipt = report(app, page_location=Broken())
    assert receipt.status == "failed", receipt
    outbox = app.extensions["adroll"].outbox
    outbox.measure()
    assert [row.events for row in outbox.lookups.history(0, ("outcome",))] == [1]


def test_a_page_does_not_pay_for_a_missing_driver(
    make_app: AppMaker, caplog: Caplog, monkeypatch: Patch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    url = "postgresql://db.invalid/shop"
    app = make_app(ADROLL_STRICT=False, ADROLL_DELIVERY="thread", ADROLL_OUTBOX_URL=url)
    assert "data-adroll" in app.test_client().get("/").text
    eventually(lambda: "adroll-flask[postgresql]" in caplog.text)
    counters = app.extensions["adroll"].counters
    assert counters.get("delivery_error", "not_started") == 1
    assert counters.get("page_untouched", "fault") == 0


@contextmanager
def shops_own(app: Flask, signal: Signal) -> Iterator[tuple[Session, list[object]]]:
    """A visitor's request with a session of the outbox's database, and what *signal* told."""
    outbox = app.extensions["adroll"].outbox
    outbox.database.create_tables()
    engine = sa.create_engine(f"sqlite:///{outbox.place}", poolclass=sa.NullPool)
    told: list[object] = []

    def heard(*_: object, **given: object) -> None:
        told.append(given)

    with visit(app), Session(engine) as session, signal.connected_to(heard, app):
        yield session, told


def test_an_error_of_the_shops_own_transaction_is_the_shops(make_app: AppMaker) -> None:
    app = make_app(ADROLL_STRICT=False)
    with shops_own(app, adroll_flask.event_queued) as (session, told):
        session.execute(sa.text("PRAGMA query_only = ON"))
        with pytest.raises(sa.exc.OperationalError, match="readonly"):
            report_conversion(**ORDER, session=session)
        session.rollback()
        assert report_conversion(**ORDER, session=session)
        assert told == [], "the shop may roll back"
        session.commit()
    assert len(kept(app)) == len(told) == 1


@pytest.mark.parametrize("wrong", ["currency", "before_report"])
def test_an_invalid_event_is_rolled_back(make_app: AppMaker, adroll: AdRoll, wrong: str) -> None:
    app = make_app(adroll, ADROLL_STRICT=False)
    if wrong == "before_report":  # which keeps its key
        adroll.before_report(lambda event: event if event.value == 6 else 1 / 0)  # type: ignore[arg-type,return-value]
    given = ORDER | ({"currency": "EURO"} if wrong == "currency" else {})
    with shops_own(app, adroll_flask.event_rejected) as (session, told):
        assert report_conversion(**given, session=session).status == "invalid"
        session.rollback()
        assert report_conversion(**ORDER | {"value": 6}, session=session).status == "queued"
        session.commit()
        assert told == [], "the shop rolled it back"
    [row] = app.extensions["adroll"].outbox.lookups.list()
    assert (row.state, row.digest) == ("waiting", "6.00 EUR")


def test_two_apps_in_one_process_keep_apart(app: Flask, make_app: AppMaker, adroll: AdRoll) -> None:
    other = make_app()
    assert report(app)
    assert (len(kept(app)), kept(other)) == (1, [])
    with app.app_context():
        assert adroll.flush(timeout=0.1) == 1, "it still waits"
    with pytest.raises(adroll_flask.ConfigurationError, match="already"):
        AdRoll(app)


def test_without_an_account_they_wait_with_one_warning(make_app: AppMaker, caplog: Caplog) -> None:
    app = make_app(ADROLL_ADVERTISABLE_EID=None, ADROLL_PIXEL_EID=None, ADROLL_ACCESS_TOKEN=None)
    warnings = [record for record in caplog.records if "not set" in record.getMessage()]
    assert len(warnings) == 1
    assert "ADROLL_ACCESS_TOKEN" in warnings[0].getMessage()
    assert app.test_client().get("/").status_code == 200
    assert report(app)
    assert app.extensions["adroll"].outbox.queue.waiting() == 1


def test_what_is_committed_stays_where_delivery_is_not_told(app: Flask, monkeypatch: Patch) -> None:
    def broken() -> None:
        raise OSError

    monkeypatch.setattr(app.extensions["adroll"].thread, "nudge", broken)
    assert report(app).status == "queued"
    assert len(kept(app)) == 1
    assert app.extensions["adroll"].counters.get("delivery_error", "not_told") == 1


def test_a_server_that_names_no_client_is_no_missing_argument(make_app: AppMaker) -> None:
    app = make_app(ADROLL_STRICT=False)
    with app.test_request_context("/?adct=c", environ_base={"REMOTE_ADDR": ""}):
        receipt = report_conversion(**ORDER)
    assert receipt.status == "invalid"
    assert "ProxyFix" in receipt.reason


def test_the_same_order_is_queued_once_and_another_value_is_told(
    app: Flask, caplog: Caplog
) -> None:
    counters = app.extensions["adroll"].counters
    first, second = report(app), report(app)
    assert (second.id, second.status, second.reason) == (first.id, "duplicate", "reported before")
    assert counters.get("event_duplicate", "another_value") == 0
    assert "another value" not in caplog.text
    third = report(app, value="1.00")
    assert (third.status, third.id) == ("duplicate", first.id)
    assert len(kept(app)) == 1
    assert counters.get("event_duplicate") == 2
    assert counters.get("event_duplicate", "another_value") == 1
    assert f"reported before with another value, the first stays: {first.id}" in caplog.text


# -- hold, release, cancel: from a view to AdRoll -------------------------------------------------


def test_an_order_is_held_at_checkout_and_sent_when_it_is_paid(make_app: AppMaker) -> None:
    app = make_app()
    receipt = report(app, hold=True, email="jo@example.com")
    assert (receipt.status, receipt.reason, bool(receipt)) == ("held", "", True)
    assert kept(app, "waiting") == []
    [held] = kept(app, "held")
    with app.app_context():  # the payment provider's webhook: no browser is near
        products = [{"product_id": 5}]
        receipt = release_conversion("1001", value="54.90", products=products, at="release")
    assert (receipt.status, receipt.reason, bool(receipt)) == ("released", "", True)
    assert app.extensions["adroll"].counters.get("release_kept") == 1
    (sent,) = kept(app, "waiting")
    assert sent["timestamp"] > held["timestamp"]
    assert (sent["identifiers"]["adct"], sent["ip"]) == ("click123", "203.0.113.7")
    assert "email_sha256" in sent["identifiers"]
    attributes = sent["event_attributes"]
    assert (attributes["products"][0]["product_id"], attributes["order_id"]) == ("5", "1001")
    assert Decimal(str(sent["conversion_value"])) == Decimal("54.90")


@pytest.mark.parametrize(
    ("decide", "status"),
    [(release_conversion, "released"), (adroll_flask.cancel_conversion, "cancelled")],
)
def test_a_receipt_says_where_this_process_knows_no_hold(
    make_app: AppMaker, decide: Callable[[Any], Receipt], status: str
) -> None:
    app = make_app(ADROLL_STRICT=False)
    with app.app_context():
        receipt = decide("77")
        assert (receipt.status, receipt.id, bool(receipt)) == (status, None, status == "released")
        assert receipt.reason.startswith("no hold of this order was seen by this process")
        assert decide("").status == decide(5.5).status == "invalid"
    others: tuple[Any, ...] = ("duplicate", "suppressed", "invalid", "failed", "cancelled")
    assert not any(Receipt(None, status) for status in others)


@pytest.mark.parametrize("kind", ["release", "cancel"])
def test_a_slip_of_the_typists_decides_on_no_later_order(make_app: AppMaker, kind: str) -> None:
    """`outbox cancel` of a number that was not there yet forgot the order that came to have it."""
    app = make_app()
    invoke(app, "outbox", kind, "1001", code=1)
    assert not app.extensions["adroll"].outbox.exists(), "looking makes no file"
    report(app, hold=True)
    app.extensions["adroll"].outbox.ingest.take_in(patience=PATIENCE)
    assert app.extensions["adroll"].outbox.lookups.counts()["held"] == 1


@pytest.mark.parametrize("hold", [0, -1, "2 days", 10**9, timedelta(days=8)])
def test_a_wrong_hold_raises_if_strict_and_holds_elsewhere(make_app: AppMaker, hold: Any) -> None:
    app, lenient = make_app(), make_app(ADROLL_STRICT=False)
    with pytest.raises(EventError, match="hold"):
        report(app, hold=hold)
    with visit(app), pytest.raises(EventError, match="hold"):
        adroll_flask.report_event("signupTrial", hold=True)  # no purchase
    assert report(lenient, hold=hold).status == "held"
    assert report(app, "2", hold=None).status == report(app, "3", hold=False).status == "queued"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"value": "5,9,0"}, "value"),
        ({"currency": "EURO"}, "currency"),
        ({"products": [{"price": 5}]}, "products"),
        ({"at": "payment"}, "at"),
    ],
)
def test_a_wrong_change_is_told(
    make_app: AppMaker, caplog: Caplog, arguments: dict[str, Any], field: str
) -> None:
    app = make_app()
    with app.app_context(), pytest.raises(EventError, match=field):
        release_conversion("1001", **arguments)
    app = make_app(ADROLL_STRICT=False)
    report(app, hold=True)
    with app.app_context():
        receipt = release_conversion("1001", **arguments)
    assert receipt.status == "released"
    assert receipt.reason.startswith(field)
    assert f"purchase (release): {field}" in caplog.text
    assert len(kept(app, "waiting")) == 1


def test_a_release_that_does_not_fit_its_hold_is_a_dead_letter(make_app: AppMaker) -> None:
    app = make_app(ADROLL_STRICT=False)
    report(app, value=None, currency=None, hold=True)
    with app.app_context():
        release_conversion("1001", value="5.00")  # no currency, then or now
    lookups = app.extensions["adroll"].outbox.lookups
    (row,) = lookups.list("dead")
    assert row.reason == "invalid:release"
    assert app.extensions["adroll"].counters.get("event_invalid", "release") == 1
    assert "currency" in row.error
    [counted] = lookups.history(0, ("outcome", "reason"))
    assert (counted.outcome, counted.reason, counted.events) == ("invalid", row.reason, 1)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("release held", 0, "now                     waiting"),
        ("release 77", 1, "no such order is held here, so nothing was done"),
        ("release cancelled", 1, "cancelled is cancelled: too late to release it"),
        ("release delivered", 0, "  Delivered\n"),
        ("cancel delivered", 1, "delivered is delivered: too late to cancel it"),
        ("release dead", 1, "flask adroll outbox find dead says what is known of it"),
        ("find dead", 0, "visitor: takes a click id"),
    ],
)
def test_commands_say_what_becomes_of_an_order(
    make_app: AppMaker, command: str, code: int, said: str
) -> None:
    app = make_app(ADROLL_STRICT=False)
    for order in ("held", "cancelled", "delivered"):
        report(app, order, hold=True)
    with app.app_context():
        release_conversion("delivered")
        at = "https://shop.test/checkout"  # nobody knows the visitor: no click id, no cookie
        dead: Any = ORDER | {"order_id": "dead", "hold": True, "page_location": at}
        assert report_conversion(**dead, ip="203.0.113.7").status == "invalid"
    settle(app, odelivered={"kind": "delivered"})
    shown = invoke(app, "outbox", "cancel", "cancelled", "--json", code=0).output
    assert [event["state"] for event in json.loads(shown)["events"]] == ["cancelled"]
    assert said in invoke(app, "outbox", *command.split(), code=code).output


@pytest.mark.parametrize("kind", ["release", "cancel"])
def test_commands_decide_on_an_order_of_a_host_that_is_not_real(
    make_app: AppMaker, kind: str
) -> None:
    app = make_app(ADROLL_HOSTS=["www.shop.example"])
    report(app, hold=True)
    settle(app)
    invoke(app, "outbox", kind, "1001", code=0)
    state = {"release": "waiting", "cancel": "cancelled"}[kind]
    counts = app.extensions["adroll"].outbox.lookups.counts()
    assert (counts[state], counts["decided"]) == (1, 0), "a real order of that number may come yet"


def test_verdicts_without_a_hold_are_counted(make_app: AppMaker) -> None:
    app = make_app()
    report(app, hold=True)
    assert "no hold yet" not in invoke(app, "outbox").output
    with app.app_context():
        assert release_conversion("77")
    assert "no hold yet 1 verdict" in invoke(app, "outbox").output


def test_where_adroll_is_off_no_command_releases_what_is_held(make_app: AppMaker) -> None:
    """It was sent at once."""
    app = make_app()
    report(app, hold=True)
    outbox = app.extensions["adroll"].outbox
    outbox.ingest.take_in(patience=PATIENCE)
    off = make_app(ADROLL_ENABLED=False, ADROLL_OUTBOX_URL=f"sqlite:///{outbox.place}")
    said = invoke(off, "outbox", "release", "1001", code=1)
    assert "suppressed: disabled" in said.output
    assert outbox.lookups.counts()["held"] == 1
