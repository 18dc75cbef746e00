"""What a signal's handler or a green thread's timeout raises is the site's, wherever it strikes."""

import gc
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import soft_timeout_sighandler
from flask import Flask

from adroll_flask import AdRoll, event_queued, report_conversion, testing
from tests.app.conftest import Either
from tests.conftest import PAGE, AppMaker, Patch
from tests.support import PATIENCE, interrupted, ran
from tests.support.visits import ORDER, report, visit


class Limit(Exception):
    """A site's own time limit, of the kind that `except Exception` catches."""


class LateLimit(TimeoutError):
    """What many write in a handler of SIGALRM; an OSError, too."""


@contextmanager
def handled(handler: Callable[..., object]) -> Iterator[Callable[[], None]]:
    """*handler* handles a signal; what is given sends it, and the handler runs at once."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield lambda: signal.raise_signal(signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)


def limit(_signal: int, _frame: FrameType | None) -> None:
    raise Limit


def deep_limit(*given: object) -> None:
    def tell() -> None:
        raise Limit

    tell()


@pytest.fixture
def app(make_app: AppMaker, adroll: AdRoll) -> Flask:
    """As in production, where faults are logged and not raised."""
    return make_app(adroll, ADROLL_STRICT=False)


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("where", ["identity", "before_report", "a receiver", "a product"])
@pytest.mark.parametrize(
    ("handler", "error"),
    [(limit, Limit), (deep_limit, Limit), (soft_timeout_sighandler, SoftTimeLimitExceeded)],
)
def test_a_time_limit_in_a_function_of_the_site_s_ends_the_call(
    app: Flask,
    adroll: AdRoll,
    where: str,
    hides: bool,
    handler: Callable[..., object],
    error: type[Exception],
) -> None:
    with handled(handler) as strike:

        def function(*_: object, **__: object) -> None:
            try:
                strike()
            except error:
                if hides:  # as a library does that has errors of its own
                    raise LookupError from None
                raise

        line: Any = {"product_id": "mug"}
        if where == "a receiver":
            event_queued.connect(function, app)
        elif where == "a product":
            line = type("Line", (), line | {"price": property(function)})()
        else:
            getattr(adroll, where)(function)
        with pytest.raises(error):
            report(app, products=[line])
    assert app.extensions["adroll"].outbox.lookups.counts()["dead"] == 0


@pytest.mark.parametrize("setting", ["consent", "csp_nonce", "access_token"])
def test_a_time_limit_in_a_function_of_the_settings_is_raised(either: Either, setting: str) -> None:
    with handled(limit) as strike:
        app, client, runtime = either(**{setting: lambda *_: strike()})
        app.testing = True

        @app.get("/buy")
        def buy() -> str:
            assert report_conversion(**ORDER).status == "queued"
            return PAGE

        def buy_and_deliver() -> None:
            client.get("/buy?adct=click123", environ_base={"REMOTE_ADDR": "203.0.113.7"})
            runtime.deliverer.step(threading.Event())

        with pytest.raises(Limit):
            buy_and_deliver()


@pytest.mark.parametrize("error", [Limit, LateLimit])
def test_it_is_raised_and_no_lock_stays(app: Flask, adroll: AdRoll, error: type[Exception]) -> None:
    counters = app.extensions["adroll"].counters
    adroll.before_report(lambda event: event)

    def elsewhere(order: str) -> str:
        receipt = other_thread.submit(report, app, order).result()
        return str(receipt.status)

    moments = 0
    with ThreadPoolExecutor(1) as other_thread, visit(app):
        assert elsewhere("0") == "queued"
        for moment in interrupted.at_each_moment(
            lambda moment: report_conversion(**ORDER | {"order_id": f"a{moment}"}), error
        ):
            moments = moment
            assert elsewhere(f"b{moment}") == "queued"
            assert elsewhere(f"a{moment}") in ("queued", "duplicate")
    assert moments > 100
    assert not [name for name in counters.snapshot() if "failed" in name]


def test_a_time_limit_that_strikes_while_an_event_is_written_is_not_swallowed(app: Flask) -> None:
    """Below Python, too, where each question for an amount's text looks for signals."""
    with testing.reports(app) as events:
        report(app, products=[{"product_id": "mug", "price": "9.90"}])
    event = events.one("purchase")

    def write() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0003)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            wire = event.wire()
            assert wire["conversion_value"] == "59.90"
            assert wire["event_attributes"]["products"][0]["price"] == "9.90"

    gc.disable()  # out of what it calls (Hypothesis's callback, finalizers) no exception comes
    try:
        with handled(limit):
            for _ in range(500):
                with pytest.raises(Limit):
                    write()
    finally:
        gc.enable()


def test_what_the_site_was_handling_is_not_raised(app: Flask, monkeypatch: Patch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise LookupError("a fault of ours")

    monkeypatch.setattr(app.extensions["adroll"].outbox, "put", broken)
    with handled(limit) as strike:
        try:
            strike()
        except Limit:
            assert report(app).status == "failed"


@pytest.mark.parametrize(
    "interruptions", [1_000, pytest.param(100_000, marks=pytest.mark.slow, id="many")]
)
def test_no_report_waits_for_what_an_interrupted_one_had(
    tmp_path: Path, interruptions: int
) -> None:
    """In a process of its own, which its parent would see stand."""
    program = (sys.executable, "-m", "tests.support.interrupted_shop", str(tmp_path))
    last = ran(*program, "--interruptions", str(interruptions)).splitlines()[-1]
    assert re.fullmatch(rf"{interruptions} calls interrupted, \d+ orders, each there once", last)


GREEN = """
import gevent.monkey; gevent.monkey.patch_all()
import sys, time, gevent
from flask import Flask
from adroll_flask import AdRoll, report_conversion

app = Flask("shop", instance_path=sys.argv[1])
app.config.update(SECRET_KEY="k", ADROLL_STRICT=False, ADROLL_DELIVERY="worker")
adroll = AdRoll(app)
adroll.before_report(lambda event: time.sleep(30))

def shop():
    with app.test_request_context("/?adct=c", environ_base={"REMOTE_ADDR": "203.0.113.7"}):
        with gevent.Timeout(0.05):
            return report_conversion(order_id="1", value="1", currency="EUR").status

try:
    print(gevent.spawn(shop).get())
except BaseException as problem:
    print(type(problem).__name__)
"""


def test_a_green_thread_s_timeout_is_the_site_s(tmp_path: Any) -> None:
    said = ran(sys.executable, "-W", "ignore", "-c", GREEN, tmp_path)
    assert said == "Timeout\n"
