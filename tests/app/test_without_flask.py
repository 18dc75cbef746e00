"""The package's functions under the middleware, in Flask's contexts, and outside of everything."""

from __future__ import annotations

import hashlib
import logging
import logging.config
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client

from adroll_flask import (
    AdRoll,
    AdRollMiddleware,
    ConfigurationError,
    Visitor,
    cancel_conversion,
    current_visitor,
    forget_visitor,
    identify,
    release_conversion,
    report_conversion,
    report_event,
    reset_identity,
)
from adroll_flask.testing import reports
from tests.conftest import AppMaker
from tests.support.django_shop import django
from tests.support.reported_events import kept

WSGI = Callable[..., Iterable[bytes]]


Wrap = Callable[..., AdRollMiddleware]


ORDER: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}


BUYER = {"REMOTE_ADDR": "203.0.113.7"}


TEXT = [("Content-Type", "text/plain")]


def shop(function: Callable[[], object]) -> WSGI:
    """A WSGI app that calls *function* in each request and answers with what it returned."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        said = function()
        start_response("200 OK", TEXT)
        return [str(said).encode()]

    return app


# -- under the middleware ------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/order", "/checkout", "/export"])
def test_a_django_view_a_signal_s_receiver_and_a_stream_report(wrap: Wrap, path: str) -> None:
    middleware = wrap(django())
    answer = Client(middleware).get(f"{path}?adct=click123", environ_overrides=BUYER)
    assert answer.text.split()[-1] == "queued"
    [event] = kept(middleware)
    assert event["ip"] == "203.0.113.7"
    assert event["identifiers"]["adct"] == "click123"
    assert path in event["page_location"]


def test_django_s_view_sees_the_visitor_and_its_page_varies(wrap: Wrap) -> None:
    answer = Client(wrap(django())).get("/who?adct=click123", environ_overrides=BUYER)
    assert answer.text == "click123"
    assert "Cookie" in answer.headers["Vary"]


def test_identify_is_for_the_request_and_reset_ends_it(wrap: Wrap) -> None:
    steps: list[str] = []

    def view() -> None:
        if not steps:
            identify(email="jo@example.com", user_id=7)
            report_event("pageView")
            reset_identity()
        steps.append(report_event("pageView").status)

    middleware = wrap(shop(view))
    client = Client(middleware)
    client.get("/?adct=click123", environ_overrides=BUYER)
    client.get("/?adct=click123", environ_overrides=BUYER)
    first, *others = [event["identifiers"] for event in kept(middleware)]
    assert first["email_sha256"] == hashlib.sha256(b"jo@example.com").hexdigest()
    assert first["user_id"] == "7"
    assert len(others) == 2
    assert all("email_sha256" not in one and "user_id" not in one for one in others)


def test_the_identity_function_takes_the_environ(wrap: Wrap) -> None:
    def who(environ: dict[str, Any]) -> dict[str, Any]:
        return {"user_id": environ["REMOTE_USER"]}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        report_conversion(**ORDER)
        environ["adroll.report"]("pageView")
        start_response("200 OK", TEXT)
        return [b""]

    middleware = wrap(app, identity=who)
    Client(middleware).get("/?adct=c", environ_overrides=BUYER | {"REMOTE_USER": "ann"})
    assert [event["identifiers"]["user_id"] for event in kept(middleware)] == ["ann", "ann"]


def test_before_report_takes_one_function_or_several(wrap: Wrap) -> None:
    asked: list[str] = []

    def first(event: Any) -> Any:
        asked.append("first")
        return event.replace(value="10.00")

    def second(event: Any) -> Any:
        asked.append(str(event.value))
        return event

    app = shop(lambda: report_conversion(**ORDER).status)
    middleware = wrap(app, before_report=[first, second])
    assert Client(middleware).get("/?adct=c", environ_overrides=BUYER).text == "queued"
    assert asked == ["first", "10.00"]
    other = wrap(app, before_report=lambda event: None)
    assert Client(other).get("/?adct=c", environ_overrides=BUYER).text == "suppressed"


def test_forget_visitor_takes_the_cookies_back(wrap: Wrap) -> None:
    views = iter([lambda: "", forget_visitor])
    client = Client(wrap(shop(lambda: next(views)())))
    client.get("/?adct=click123", environ_overrides=BUYER)
    assert client.get_cookie("adroll_visitor") is not None
    client.get("/")
    assert client.get_cookie("adroll_visitor") is None


def test_after_the_response_nothing_of_it_is_left(wrap: Wrap) -> None:
    def stream(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b"one"
        yield b"two"

    body = wrap(stream)({**BUYER_ENVIRON}, lambda *_: lambda data: None)
    chunks = iter(body)
    assert next(chunks) == b"one"
    with pytest.raises(ConfigurationError):
        report_conversion(**ORDER)
    assert b"".join(chunks) == b"two"
    body.close()  # type: ignore[attr-defined]


BUYER_ENVIRON: dict[str, Any] = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/",
    "SERVER_NAME": "shop.test",
    "SERVER_PORT": "80",
    "wsgi.url_scheme": "http",
}


def test_a_flask_app_under_the_middleware_alone_reports_by_the_middleware(wrap: Wrap) -> None:
    app = Flask("shop")
    app.add_url_rule("/buy", "buy", lambda: report_conversion(**ORDER).status)
    middleware = wrap(app.wsgi_app)
    assert Client(middleware).get("/buy?adct=c", environ_overrides=BUYER).text == "queued"
    assert len(kept(middleware)) == 1


def test_in_a_flask_app_with_both_the_extension_counts(wrap: Wrap, make_app: AppMaker) -> None:
    app = make_app()
    app.add_url_rule("/buy", "buy", lambda: report_conversion(**ORDER).status)
    middleware = wrap(app.wsgi_app)
    assert Client(middleware).get("/buy?adct=c", environ_overrides=BUYER).text == "queued"
    assert (len(kept(app)), len(kept(middleware))) == (1, 0)


# -- outside of everything -----------------------------------------------------------------


def production(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a server; to be called in the test, since pytest says at each of its phases."""
    for name in ("PYTEST_CURRENT_TEST", "FLASK_DEBUG", "ADROLL_STRICT", "FLASK_ADROLL_STRICT"):
        monkeypatch.delenv(name, raising=False)


def test_in_development_it_raises_with_the_way_out() -> None:
    for call in (
        lambda: report_conversion(**ORDER),
        lambda: report_event("pageView"),
        lambda: identify(user_id=7),
        reset_identity,
        current_visitor,
        forget_visitor,
    ):
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert "app.app_context()" in str(caught.value)
        assert "AdRollMiddleware" in str(caught.value)
        assert "there is no app here" in str(caught.value)


def test_in_production_it_is_a_failed_receipt_and_a_log_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    production(monkeypatch)
    receipt = report_conversion(**ORDER, email="ann@example.com")
    assert receipt.status == "failed"
    assert not receipt
    assert "app.app_context()" in receipt.reason
    identify(user_id=7)
    reset_identity()
    assert current_visitor() == Visitor()
    forget_visitor()
    assert len(caplog.records) == 5
    assert all(record.levelname == "ERROR" for record in caplog.records)
    assert "ann@" not in caplog.text


def test_the_environment_says_what_development_is(monkeypatch: pytest.MonkeyPatch) -> None:
    production(monkeypatch)
    for name, value, raises in (
        ("FLASK_DEBUG", "1", True),
        ("FLASK_ADROLL_STRICT", "true", True),
        ("ADROLL_STRICT", "True", True),
        ("ADROLL_STRICT", "false", False),
        ("ADROLL_STRICT", "nonsense", False),
    ):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            if raises:
                with pytest.raises(ConfigurationError):
                    report_conversion(**ORDER)
            else:
                assert report_conversion(**ORDER).status == "failed"


def test_a_flask_app_without_the_extension_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    production(monkeypatch)
    app = Flask("shop")
    with app.app_context():
        receipt = report_conversion(**ORDER)
    assert receipt.status == "failed"
    assert "init_app" in receipt.reason
    for name in ("testing", "debug"):
        setattr(app, name, True)
        with app.app_context(), pytest.raises(ConfigurationError, match="init_app"):
            report_conversion(**ORDER)
        setattr(app, name, False)


def test_what_needs_a_visitor_says_so_where_there_is_no_request(make_app: AppMaker) -> None:
    app = make_app()
    for call in (lambda: identify(user_id=7), reset_identity, current_visitor, forget_visitor):
        with app.app_context(), pytest.raises(ConfigurationError, match="no request"):
            call()
    calm = make_app(ADROLL_STRICT=False)
    with calm.app_context():
        identify(user_id=7)
        assert current_visitor() == Visitor()
        forget_visitor()


# -- where there is no request, no Flask, or no WSGI at all; other people's logging ---------------


def app(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def test_a_task_reports_and_releases_in_the_middlewares_context(
    wrap: Callable[..., AdRollMiddleware],
) -> None:
    middleware = wrap(app)
    with reports(middleware) as reported, middleware.context():
        held = report_conversion(
            **ORDER,
            adct="click123",
            ip="203.0.113.7",
            hold=True,
            page_location="https://shop.example/",
        )
        assert held.status == "held"
        assert release_conversion("1001").id == held.id
        with pytest.raises(ConfigurationError, match="no request here"):
            identify(user_id="1")
    assert reported.one("purchase").order_id == "1001"
    with pytest.raises(ConfigurationError, match=r"with middleware\.context\(\):"):
        report_conversion(**ORDER)


@pytest.mark.parametrize("name", ["ADROLL_ENABLED", "FLASK_ADROLL_ENABLED"])
def test_off_in_the_environment_is_off_everywhere(
    name: str, monkeypatch: pytest.MonkeyPatch, wrap: Callable[..., AdRollMiddleware]
) -> None:
    monkeypatch.setenv(name, "False")
    assert report_conversion(**ORDER).reason == "disabled"
    assert cancel_conversion("1001").status == "suppressed"
    identify(user_id="1")
    middleware = wrap(app)
    assert not middleware.runtime.settings.enabled
    with middleware.context():
        assert report_conversion(**ORDER).reason == "disabled"
    assert wrap(app, enabled=True).runtime.settings.enabled


class Asgi:
    extensions: dict[str, Any] = {}  # noqa: RUF012

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("never served")


def test_an_asgi_app_is_refused_with_the_bridge() -> None:
    for make in (AdRoll, AdRollMiddleware):
        quart: Any = Asgi()
        with pytest.raises(ConfigurationError, match=r"ASGI app.*a2wsgi"):
            make(quart)

    async def function(_scope: Any, _receive: Any, _send: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="ASGI"):
        AdRollMiddleware(function)  # type: ignore[arg-type]


def test_an_asgi_server_is_told_so(wrap: Callable[..., AdRollMiddleware]) -> None:
    middleware: Any = wrap(app)
    for called in ((), (object(), object())):  # as ASGI 2 and 3 call
        with pytest.raises(ConfigurationError, match=r"ASGI server.*a2wsgi"):
            middleware({"type": "lifespan"}, *called)


def test_a_sites_dictconfig_does_not_silence_us(caplog: pytest.LogCaptureFixture) -> None:
    names = [name for name in logging.root.manager.loggerDict if name.startswith("adroll_flask")]
    assert "adroll_flask.reporting" in names
    other = logging.getLogger("somebody.else")
    logging.config.dictConfig({"version": 1})
    assert other.disabled
    other.disabled = False
    logging.getLogger("adroll_flask.reporting").error("a 401, say")
    assert "a 401, say" in caplog.text
