"""Where there is no request, no Flask, or no WSGI at all; other people's logging."""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Callable
from typing import Any

import pytest

from adroll_flask import (
    AdRoll,
    AdRollMiddleware,
    ConfigurationError,
    cancel_conversion,
    identify,
    release_conversion,
    report_conversion,
)
from adroll_flask.testing import reports

ORDER: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}


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
