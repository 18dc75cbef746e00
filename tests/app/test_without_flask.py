"""The package's functions under the middleware, in Flask's contexts, and outside of everything."""

import hashlib
import logging
import logging.config
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from contextvars import copy_context
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.test import Client, create_environ
from werkzeug.utils import redirect
from werkzeug.wrappers import Response
from werkzeug.wsgi import ClosingIterator

import adroll_flask
from adroll_flask.logs import get_logger
from adroll_flask.testing import reports
from tests.app.conftest import Wrap
from tests.conftest import PAGE, AppMaker, Caplog, Patch
from tests.support.asgi import as_wsgi
from tests.support.visits import ORDER, kept

WSGI = Callable[..., Iterable[bytes]]
Lint = Callable[[Any], Any]


BUYER = {"REMOTE_ADDR": "203.0.113.7"}


TEXT = [("Content-Type", "text/plain")]


def shop(function: Callable[[], object]) -> WSGI:
    """A WSGI app that calls *function* in each request and answers with what it returned."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        said = function()
        start_response("200 OK", TEXT)
        return [str(said).encode()]

    return app


def flask_shop(function: Callable[[], object]) -> WSGI:
    """The same as a Flask app that has sessions, but no AdRoll."""
    app = Flask("shop")
    app.secret_key = "a key for tests"
    app.add_url_rule("/", "index", lambda: str(function()))
    return app.wsgi_app


# -- under the middleware ------------------------------------------------------------------


@pytest.mark.parametrize("make", [shop, flask_shop])
def test_identify_is_for_the_request_and_reset_ends_it(wrap: Wrap, make: Any) -> None:
    asked: list[None] = []

    def view() -> None:
        if not asked:
            adroll_flask.identify(email="jo@example.com", user_id=7)
            adroll_flask.report_event("pageView")
            adroll_flask.reset_identity()
        adroll_flask.report_event("pageView")
        if not asked:
            adroll_flask.identify(user_id=8)
        asked.append(None)

    client = Client(middleware := wrap(make(view)))
    with reports(middleware) as reported:
        for _ in range(2):
            client.get("/?adct=click123", environ_overrides=BUYER)
    hashed = hashlib.sha256(b"jo@example.com").hexdigest()
    known = [(event.user_id, event.email_sha256) for event in reported]
    assert known == [("7", hashed), (None, None), (None, None)]


def test_before_report_takes_one_function_or_several(wrap: Wrap) -> None:
    app = shop(lambda: adroll_flask.report_conversion(**ORDER).status)
    both = [lambda event: event.replace(value="10.00"), lambda event: event.replace(currency="USD")]
    with reports(middleware := wrap(app, before_report=both)) as reported:
        Client(middleware).get("/?adct=c", environ_overrides=BUYER)
    event = reported.one("purchase")
    assert (str(event.value), event.currency) == ("10.00", "USD")
    other = wrap(app, before_report=lambda event: None)
    assert Client(other).get("/?adct=c", environ_overrides=BUYER).text == "suppressed"


def test_a_stream_does_not_wait_for_its_end_nor_leave_its_visitor_to_others(
    wsgi_wrap: Wrap,
) -> None:
    served: list[bytes] = []

    def stream(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HTML)
        for part in (b"<html><head></head>", b"<body>", b"one", b"two"):
            served.append(part)
            yield part

    body = wsgi_wrap(stream)(create_environ("/", "http://shop.test"), lambda *_: lambda data: None)
    chunks = iter(body)
    assert next(chunks).startswith(b"<html>")
    assert len(served) == 1
    with pytest.raises(adroll_flask.ConfigurationError):
        adroll_flask.report_conversion(**ORDER)
    assert b"".join(chunks).endswith(b"<body>onetwo")
    body.close()


def test_two_requests_at_once_keep_apart(wrap: Wrap) -> None:
    both = threading.Barrier(2, timeout=30)

    def view() -> str | None:
        both.wait()
        adct = adroll_flask.current_visitor().adct
        both.wait()  # neither request is over before the other has looked
        return adct

    middleware = wrap(shop(view))

    def ask(adct: str) -> str:
        return Client(middleware).get(f"/?adct={adct}", environ_overrides=BUYER).text

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(ask, ("one", "two"))) == ["one", "two"]


def test_in_a_flask_app_with_both_the_extension_counts(wsgi_wrap: Wrap, make_app: AppMaker) -> None:
    app = make_app()
    app.add_url_rule("/buy", "buy", lambda: adroll_flask.report_conversion(**ORDER).status)
    middleware = wsgi_wrap(app.wsgi_app)
    client = Client(middleware)
    assert client.get("/buy?adct=c", environ_overrides=BUYER).text == "queued"
    assert (len(kept(app)), len(kept(middleware))) == (1, 0)
    page = Client(middleware).get("/?adct=c")
    assert page.text.count("data-adroll") == 1
    assert len(page.headers.getlist("Set-Cookie")) == 2


@pytest.mark.parametrize("visit", ["/", "/moved?adct=click1"])
def test_of_two_around_one_app_the_inner_one_counts(wsgi_wrap: Wrap, visit: str) -> None:
    app = Flask("shop")
    app.add_url_rule("/", "index", lambda: PAGE)
    app.add_url_rule("/moved", "moved", lambda: redirect("/"))
    visited = Client(wsgi_wrap(wsgi_wrap(app.wsgi_app))).get(visit)
    names = [line.partition("=")[0] for line in visited.headers.getlist("Set-Cookie")]
    assert names == ["adroll_visitor", "__adroll_fpc"]
    assert visited.text.count("data-adroll") == (visited.status_code == 200)
    refused = Client(wsgi_wrap(wsgi_wrap(app.wsgi_app, consent=lambda _: False))).get(visit)
    assert "Set-Cookie" not in refused.headers


@pytest.mark.parametrize("apps", [1, 2], ids=["its own app", "another app"])
@pytest.mark.parametrize("path", ["/", "/?adct=c"])
def test_a_request_that_a_view_makes_takes_nothing_from_its_page(
    wsgi_wrap: Wrap, path: str, apps: int
) -> None:
    app = Flask("shop")
    served = [wsgi_wrap(app.wsgi_app) for _ in range(apps)]
    asked = Client(served[-1])
    app.add_url_rule("/part", "part", lambda: "<p>A</p>")
    app.add_url_rule("/", "index", lambda: PAGE + asked.get("/part", "http://stock").text)
    page = Client(served[0]).get(path)
    assert len(page.headers.getlist("Set-Cookie")) == 2
    assert page.text.count("data-adroll") == 1


@pytest.mark.parametrize("bridge", ["a2wsgi:WSGIMiddleware", "asgiref.wsgi:WsgiToAsgi"])
def test_under_a_bridge_from_asgi_the_extension_counts_too(
    asgi_wrap: Wrap, make_app: AppMaker, bridge: str
) -> None:
    module, _, name = bridge.partition(":")
    bridged = getattr(pytest.importorskip(module), name)
    app = make_app()
    app.add_url_rule("/buy", "buy", lambda: adroll_flask.report_conversion(**ORDER).status)
    middleware = asgi_wrap(bridged(app.wsgi_app))
    client = Client(as_wsgi(middleware))
    assert client.get("/buy?adct=c", environ_overrides=BUYER).text == "queued"
    assert (len(kept(app)), len(kept(middleware))) == (1, 0)
    page = Client(as_wsgi(middleware)).get("/?adct=c")
    assert page.text.count("data-adroll") == 1
    assert len(page.headers.getlist("Set-Cookie")) == 2


# -- outside of everything -----------------------------------------------------------------


def production(monkeypatch: Patch) -> None:
    """As on a server; to be called in the test, since pytest says at each of its phases."""
    for name in ("PYTEST_CURRENT_TEST", "FLASK_DEBUG", "ADROLL_STRICT", "FLASK_ADROLL_STRICT"):
        monkeypatch.delenv(name, raising=False)


ABOUT_VISITORS: list[Callable[[], object]] = [
    lambda: adroll_flask.identify(user_id=7),
    adroll_flask.reset_identity,
    adroll_flask.current_visitor,
    adroll_flask.forget_visitor,
]


def test_in_development_it_raises_with_the_way_out(make_app: AppMaker) -> None:
    for call in (
        lambda: adroll_flask.report_conversion(**ORDER),
        lambda: adroll_flask.report_event("pageView"),
        lambda: adroll_flask.release_conversion("1001"),
        *ABOUT_VISITORS,
    ):
        with pytest.raises(adroll_flask.ConfigurationError, match="there is no app here") as caught:
            call()
        assert "app.app_context()" in str(caught.value)
        assert "AdRollMiddleware" in str(caught.value)
    app = make_app()
    for call in ABOUT_VISITORS:
        with app.app_context(), pytest.raises(adroll_flask.ConfigurationError, match="no request"):
            call()


def test_in_production_it_is_a_failed_receipt(
    make_app: AppMaker, caplog: Caplog, monkeypatch: Patch
) -> None:
    production(monkeypatch)
    receipt = adroll_flask.report_conversion(**ORDER, email="ann@example.com")
    assert (receipt.status, bool(receipt)) == ("failed", False)
    assert "app.app_context()" in receipt.reason
    for context in (nullcontext(), make_app(ADROLL_STRICT=False).app_context()):
        with context:
            said = [call() for call in ABOUT_VISITORS]
        assert said == [None, None, adroll_flask.Visitor(), None]
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 9
    assert "ann@" not in caplog.text


@pytest.mark.parametrize(
    ("name", "value", "raises"),
    [
        ("FLASK_DEBUG", "1", True),
        ("FLASK_ADROLL_STRICT", "true", True),
        ("ADROLL_STRICT", "True", True),
        ("ADROLL_STRICT", "false", False),
        ("ADROLL_STRICT", "nonsense", False),
    ],
)
def test_the_environment_says_what_development_is(
    monkeypatch: Patch, name: str, value: str, raises: bool
) -> None:
    production(monkeypatch)
    monkeypatch.setenv(name, value)
    with pytest.raises(adroll_flask.ConfigurationError) if raises else nullcontext():
        assert adroll_flask.report_conversion(**ORDER).status == "failed"


def test_a_flask_app_without_the_extension_is_told_so(monkeypatch: Patch) -> None:
    production(monkeypatch)
    app = Flask("shop")
    with app.app_context():
        receipt = adroll_flask.report_conversion(**ORDER)
    assert receipt.status == "failed"
    assert "init_app" in receipt.reason
    for name in ("testing", "debug"):
        setattr(app, name, True)
        with app.app_context(), pytest.raises(adroll_flask.ConfigurationError, match="init_app"):
            adroll_flask.report_conversion(**ORDER)
        setattr(app, name, False)


def test_a_function_that_needs_the_extension_is_named() -> None:
    adroll = adroll_flask.AdRoll()
    calls: dict[str, Callable[[], object]] = {
        "flush": adroll.flush,
        "reconcile": lambda: adroll.reconcile([]),
        "counters": adroll.counters,
    }
    for name, call in calls.items():
        told = f"^{name}: this app has no AdRoll; call AdRoll"
        with (
            Flask("shop").app_context(),
            pytest.raises(adroll_flask.ConfigurationError, match=told),
        ):
            call()


# -- where there is no request, no Flask, or no WSGI at all; other people's logging ---------------


#: Pages that are the same whatever is asked.
plain = Response(PAGE, mimetype="text/html")
picture = Response(b"\x89PNG", mimetype="image/png")


@pytest.mark.parametrize(("call", "left"), [("adroll.release", 1), ("adroll.cancel", 0)])
def test_the_environ_decides_on_an_order_that_is_held(wrap: Wrap, call: str, left: int) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["adroll.report"]("purchase", **ORDER, hold=True)
        environ[call]("1001")
        return plain(environ, start_response)

    with reports(middleware := wrap(app)) as reported:
        Client(middleware).get("/?adct=c1", environ_overrides=BUYER)
    assert (len(reported), reported.held) == (left, [])


def test_a_task_reports_and_releases_in_the_middlewares_context(wrap: Wrap) -> None:
    middleware = wrap(plain)
    at: dict[str, Any] = {"ip": "203.0.113.7", "page_location": "https://shop.example/"}
    with reports(middleware) as reported, middleware.context():
        held = adroll_flask.report_conversion(**ORDER, **at, adct="click123", hold=True)
        assert held.status == "held"
        assert adroll_flask.release_conversion("1001").id == held.id
        with pytest.raises(adroll_flask.ConfigurationError, match="no request here"):
            adroll_flask.identify(user_id="1")
    assert reported.one("purchase").order_id == "1001"
    with pytest.raises(adroll_flask.ConfigurationError, match=r"with middleware\.context\(\):"):
        adroll_flask.report_conversion(**ORDER)


def test_its_folder_stays_where_a_server_changes_to_another(
    wrap: Wrap, tmp_path: Path, monkeypatch: Patch
) -> None:
    """As uWSGI does for ``chdir2``, and a daemon."""
    monkeypatch.chdir(tmp_path)
    middleware = wrap(plain, folder="data")
    monkeypatch.chdir(tmp_path.parent)
    at: dict[str, Any] = {"ip": "203.0.113.7", "page_location": "https://shop.example/"}
    with middleware.context():
        assert adroll_flask.report_conversion(**ORDER, **at, adct="click123")
    assert list((tmp_path / "data" / "adroll-journal").iterdir())


def test_its_context_may_be_left_in_another_context_than_it_was_entered(wrap: Wrap) -> None:
    """FastAPI runs the two halves of a ``def`` dependency with ``yield`` so."""
    context = wrap(plain).context()
    copy_context().run(context.__enter__)
    copy_context().run(context.__exit__, None, None, None)


@pytest.mark.parametrize("name", ["ADROLL_ENABLED", "FLASK_ADROLL_ENABLED"])
def test_switched_off_by_environment(name: str, monkeypatch: Patch, wrap: Wrap) -> None:
    monkeypatch.setenv(name, "False")
    assert adroll_flask.report_conversion(**ORDER).reason == "disabled"
    assert adroll_flask.cancel_conversion("1001").status == "suppressed"
    adroll_flask.identify(user_id="1")
    middleware = wrap(plain)
    assert not middleware.runtime.settings.enabled
    with middleware.context():
        assert adroll_flask.report_conversion(**ORDER).reason == "disabled"
        released = adroll_flask.release_conversion("1001")
        assert (released.status, released.reason) == ("suppressed", "disabled")
    assert wrap(plain, enabled=True).runtime.settings.enabled


class Asgi:
    extensions: dict[str, Any] = {}  # noqa: RUF012

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("never served")


def test_an_app_of_the_other_protocol_is_refused_with_what_takes_it(wsgi_wrap: Wrap) -> None:
    async def function(_scope: Any, _receive: Any, _send: Any) -> None: ...

    app: Any
    takes = pytest.raises(adroll_flask.ConfigurationError, match=r"AdRollASGIMiddleware.* takes it")
    for app in (Asgi(), function, adroll_flask.AdRollASGIMiddleware(Asgi(), secret_key="k" * 32)):
        with takes:
            adroll_flask.AdRollMiddleware(app)
    with takes:
        adroll_flask.AdRoll(Asgi())  # type: ignore[arg-type]
    for app in (plain, Flask("shop"), lambda scope: function):
        told = rf"none \({type(app).__module__}\): a WSGI app takes AdRollMiddleware.* Flask"
        with pytest.raises(adroll_flask.ConfigurationError, match=told):
            adroll_flask.AdRollASGIMiddleware(app)
    middleware: Any = wsgi_wrap(plain)
    for called in ((), (object(), object())):  # as servers of ASGI 2 and 3 call
        with pytest.raises(adroll_flask.ConfigurationError, match=r"called by an ASGI server"):
            middleware({"type": "lifespan"}, *called)


class SiteLogger(logging.Logger):
    """As a site gives it to ``logging.setLoggerClass``."""


def test_no_logging_of_a_site_silences_us(caplog: Caplog, stack: ExitStack) -> None:
    logging.getLogger("adroll_flask.named-by-the-site").disabled = True
    stack.callback(logging.setLoggerClass, logging.getLoggerClass())
    logging.setLoggerClass(SiteLogger)
    assert isinstance(get_logger("adroll_flask.of-the-sites-class"), SiteLogger)
    names = [
        f"adroll_flask.{name}" for name in ("reporting", "named-by-the-site", "of-the-sites-class")
    ]
    ours, other = [get_logger(name) for name in names], logging.getLogger("somebody.else")
    logging.config.dictConfig({"version": 1})
    assert other.disabled
    for logger in ours:
        logger.error("a 401, say, of %s", logger.name)
        assert f"a 401, say, of {logger.name}" in caplog.text
    for one in logging.root.manager.loggerDict.values():
        one.disabled = False  # type: ignore[union-attr]


# -- adRollMiddleware around any WSGI app, under both lint middlewares ----------------------------


HTML = [("Content-Type", "text/html; charset=utf-8")]


def checked(middleware: adroll_flask.AdRollMiddleware, lint: Lint) -> Client:
    """A client that sees every breach of PEP 3333 on both sides of the middleware."""
    middleware._app = lint(middleware._app)
    return Client(lint(middleware))


#: The two do not stand each other's input stream, so each goes alone.
LINTS = pytest.mark.parametrize("lint", [LintMiddleware, validator])


def generator(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", HTML)
    for start in range(0, len(PAGE), 7):
        yield PAGE[start : start + 7].encode()


def writer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    write = start_response("200 OK", HTML)
    write(PAGE[:20].encode())
    write(PAGE[20:60].encode())
    return [PAGE[60:].encode()]


@LINTS
@pytest.mark.parametrize("app", [plain, generator, writer])
def test_a_page_gets_one_snippet_and_cookies(wsgi_wrap: Wrap, app: WSGI, lint: Lint) -> None:
    client = checked(wsgi_wrap(app), lint)
    with client.get("/?adct=click123", base_url="https://shop.test") as response:
        text = response.get_data(as_text=True)
        assert text.count("data-adroll") == 1
        assert text.replace(snippet(text), "") == PAGE
        lines = response.headers.getlist("Set-Cookie")
        assert [line.partition("=")[0] for line in lines] == [
            "__Host-adroll_visitor",
            "__adroll_fpc",
        ]
        if "Content-Length" in response.headers:
            assert int(response.headers["Content-Length"]) == len(response.data)


def snippet(page: str) -> str:
    start = page.index("<script async")
    return page[start : page.index("</script>", start) + 9]


def test_a_picture_costs_no_look_at_cookies_and_no_question_for_consent(wrap: Wrap) -> None:
    asked: list[object] = []
    middleware = wrap(picture, consent=asked.append)
    client = Client(middleware)
    client.set_cookie("adroll_visitor", "forged")
    assert client.get("/logo.png", buffered=True).data == b"\x89PNG"
    assert asked == []
    assert middleware.runtime.counters.snapshot() == {}


def test_consent_is_asked_once_where_the_app_looks_at_the_visitor(wrap: Wrap) -> None:
    asked: list[object] = []

    def consent(request: object) -> bool:
        asked.append(request)
        return True

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        visitor = environ["adroll.visitor"]
        assert isinstance(visitor, adroll_flask.Visitor)
        assert visitor
        assert (visitor.adct_source, visitor.host, visitor.consent) == ("url", "shop.test", True)
        start_response("200 OK", HTML)
        return [PAGE.encode(), visitor.token().encode()]

    client = Client(wrap(app, consent=consent))
    assert b"data-adroll" in client.get("/?adct=click123", base_url="http://shop.test").data
    assert len(asked) == 1


@LINTS
def test_reports_are_taken_until_the_close(wsgi_wrap: Wrap, lint: Lint) -> None:
    def chunks() -> Iterator[bytes]:
        yield PAGE.encode()
        adroll_flask.report_conversion(**ORDER)

    def close() -> None:
        adroll_flask.report_event("pageView")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", HTML)
        return ClosingIterator(chunks(), close)

    middleware = wsgi_wrap(app)
    client = checked(middleware, lint)
    agent = {"User-Agent": "a browser"}
    with reports(middleware) as reported:
        response = client.get("/export?adct=click123", headers=agent, environ_overrides=BUYER)
        assert response.data.count(b"data-adroll") == 1
        response.close()
    for name in ("purchase", "pageView"):
        event = reported.one(name)
        assert (event.adct, event.ip) == ("click123", "203.0.113.7")
        assert "/export" in event.page_location


def test_switched_off_its_calls_are_there_until_the_close(wrap: Wrap) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HTML)
        yield str(bool(environ["adroll.visitor"])).encode()
        yield environ["adroll.visitor"].token().encode()
        yield environ["adroll.report"]("purchase", **ORDER).reason.encode()
        for call in ("adroll.release", "adroll.cancel"):
            assert environ[call]("1001") == adroll_flask.report_conversion(**ORDER)

    response = Client(wrap(app, enabled=False)).get("/?adct=click123", buffered=True)
    assert response.text == "Falsedisabled"


@pytest.mark.parametrize("prefix", ["", "/shop"])
def test_our_endpoints_are_where_we_are_mounted(wrap: Wrap, prefix: str) -> None:
    mounted = DispatcherMiddleware(plain, {"/blog": plain})
    ours = wrap(mounted, cached_paths=[f"{prefix}/blog/cached"])
    client = Client(DispatcherMiddleware(plain, {"/shop": ours}) if prefix else ours)
    page = client.get(f"{prefix}/blog/post?adct=click123").text
    url = page[page.index('src="') + 5 :].partition('"')[0]
    assert url.startswith(f"{prefix}/_adroll/kit.")
    assert client.get(url).status_code == 200
    assert f'data-identity="{prefix}/_adroll/identity"' in page
    assert "Set-Cookie" not in client.get(f"{prefix}/blog/cached?adct=click124").headers


def test_our_endpoints_answer_before_the_app(wrap: Wrap) -> None:
    client = Client(LintMiddleware(wrap(redirect("http://localhost/login"))))
    told = client.post("/_adroll/identity", json={}, headers={"Sec-Fetch-Site": "same-origin"})
    assert told.status_code == 204
    assert client.get_cookie("adroll_visitor") is not None
    assert client.get("/_adroll/kit.0123456789abcdef.js").status_code == 200
    assert client.get("/_adrollish").status_code == 302


def test_a_file_is_left_alone(wsgi_wrap: Wrap, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGE)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [*HTML, ("Content-Length", str(len(PAGE)))])
        return environ["wsgi.file_wrapper"](path.open("rb"))  # type: ignore[no-any-return]

    client = Client(wsgi_wrap(app))
    with client.get("/", environ_overrides={"wsgi.file_wrapper": FileWrapper}) as response:
        assert response.get_data(as_text=True) == PAGE


@pytest.mark.parametrize("html", [True, False])
def test_close_is_passed_on_once_also_when_the_app_raises(wsgi_wrap: Wrap, html: bool) -> None:
    closed: list[str] = []

    def chunks() -> Iterator[bytes]:
        yield from (PAGE.encode(), b"more")
        raise LookupError

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", HTML if html else TEXT)
        return ClosingIterator(chunks(), lambda: closed.append("closed"))

    shop, environ = wsgi_wrap(app), create_environ("/", "http://shop.test")
    raised: Any = shop(environ, lambda *_: lambda data: None)
    with pytest.raises(LookupError):
        list(raised)
    raised.close()
    left: Any = shop(environ, lambda *_: lambda data: None)
    assert [(b"data-adroll" in next(left)), next(left)] == [html, b"more"]
    assert closed == ["closed"]
    left.close()
    assert closed == ["closed", "closed"]


@LINTS
@pytest.mark.parametrize("is_sent", [False, True])
def test_a_later_error_page_replaces_the_first(wsgi_wrap: Wrap, lint: Lint, is_sent: bool) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", HTML)
        if is_sent:
            write(b"the first")
        try:
            raise RuntimeError
        except RuntimeError:
            start_response("500 Internal Server Error", HTML, sys.exc_info())
        return [PAGE.encode()]

    # A server that has sent the first one's headers raises it (PEP 3333).
    with pytest.raises(RuntimeError) if is_sent else nullcontext():
        response = checked(wsgi_wrap(app), lint).get("/", buffered=True)
        assert response.status_code == 500
        assert response.data.count(b"data-adroll") == 1


def test_misspelt_arguments_are_told_in_the_words_that_were_typed(wrap: Wrap) -> None:
    with pytest.raises(adroll_flask.ConfigurationError) as caught:
        wrap(plain, befor_report=None, pixel="sometimes", Acces_Token="x")
    text = str(caught.value)
    assert "befor_report: there is no such argument; did you mean before_report?" in text
    assert "Acces_Token: there is no such argument; did you mean access_token?" in text
    assert "pixel: takes" in text
    assert "ADROLL_" not in text


def test_a_missing_secret_key_raises_or_is_told_once(wrap: Wrap, caplog: Caplog) -> None:
    with pytest.raises(adroll_flask.ConfigurationError, match="secret_key"):
        wrap(plain, secret_key=None)
    wrap(plain, secret_key=None, enabled=False)
    middleware = wrap(plain, secret_key=None, strict=False)
    for _ in range(3):
        assert Client(middleware).get("/").status_code == 200
    [record] = [record for record in caplog.records if "secret_key" in record.getMessage()]
    assert "ADROLL" not in record.getMessage()
    assert middleware.runtime.counters.get("secret_key_missing") == 1
