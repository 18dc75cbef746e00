"""AdRollMiddleware around any WSGI app, under both lint middlewares."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from flask import Flask, redirect
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.test import Client

from adroll_flask import AdRoll, AdRollMiddleware, ConfigurationError, Visitor
from adroll_flask.testing import reports
from tests.conftest import ADVERTISABLE, PAGE, PIXEL, AppMaker

WSGI = Callable[..., Iterable[bytes]]
ORDER: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}
HTML = [("Content-Type", "text/html; charset=utf-8")]


@pytest.fixture
def wrap(tmp_path: Path) -> Iterator[Callable[..., AdRollMiddleware]]:
    made: list[AdRollMiddleware] = []

    def wrap(app: WSGI, **settings: Any) -> AdRollMiddleware:
        values: dict[str, Any] = {
            "advertisable_eid": ADVERTISABLE,
            "pixel_eid": PIXEL,
            "access_token": "a-token",
            "secret_key": "a key for tests",
            "delivery": "worker",
            "strict": True,
            "folder": str(tmp_path / f"folder{len(made)}"),
        }
        middleware = AdRollMiddleware(app, **(values | settings))
        made.append(middleware)
        return middleware

    yield wrap
    for middleware in made:
        middleware.runtime.outbox.close()


def checked(middleware: AdRollMiddleware, lint: Callable[[Any], Any]) -> Client:
    """A client that sees every breach of PEP 3333 on both sides of the middleware."""
    middleware._app = lint(middleware._app)
    return Client(lint(middleware))


#: The two do not stand each other's input stream, so each goes alone.
LINTS = pytest.mark.parametrize("lint", [LintMiddleware, validator])


def plain(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [*HTML, ("Content-Length", str(len(PAGE)))])
    return [PAGE.encode()]


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
def test_a_page_gets_the_snippet_once_and_cookies(
    wrap: Callable[..., AdRollMiddleware], app: WSGI, lint: Callable[[Any], Any]
) -> None:
    client = checked(wrap(app), lint)
    with client.get("/?adct=click123", base_url="https://shop.test") as response:
        text = response.text
        assert text.count("data-adroll") == 1
        assert text.replace(snippet(text), "") == PAGE
        lines = response.headers.getlist("Set-Cookie")
        assert [line.partition("=")[0] for line in lines] == ["adroll_visitor", "__adroll_fpc"]
        if "Content-Length" in response.headers:
            assert int(response.headers["Content-Length"]) == len(response.data)


def snippet(page: str) -> str:
    start = page.index("<script async")
    return page[start : page.index("</script>", start) + 9]


def test_the_wrapped_app_sees_the_visitor_and_reports(
    wrap: Callable[..., AdRollMiddleware],
) -> None:
    seen: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ["adroll.visitor"])
        if environ["REQUEST_METHOD"] == "POST":
            seen.append(environ["adroll.report"]("purchase", **ORDER))
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b"{}"]

    middleware = wrap(app)
    client = Client(middleware)
    client.get("/?adct=click123")
    with reports(middleware) as reported:
        client.post("/buy", environ_overrides={"REMOTE_ADDR": "203.0.113.7"})
    assert isinstance(seen[0], Visitor)
    assert seen[1].adct == "click123"
    assert seen[2].status == "queued"
    purchase = reported.one("purchase")
    assert purchase.adct == "click123"
    assert purchase.ip == "203.0.113.7"


def test_our_endpoints_answer_before_the_app(wrap: Callable[..., AdRollMiddleware]) -> None:
    def guard(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("302 Found", [("Location", "http://localhost/login")])
        return []

    client = Client(LintMiddleware(wrap(guard)))  # type: ignore[arg-type]
    response = client.post(
        "/_adroll/identity",
        data=json.dumps({"adct": "click123"}),
        content_type="application/json",
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert response.status_code == 204
    assert client.get_cookie("adroll_visitor") is not None
    assert client.get("/_adroll/kit.0123456789abcdef.js").status_code == 200
    assert client.get("/_adroll/identity").status_code == 405
    assert client.get("/_adrollish").status_code == 302


def test_mounted_under_a_prefix(wrap: Callable[..., AdRollMiddleware]) -> None:
    mounted = DispatcherMiddleware(plain, {"/shop": wrap(plain)})  # type: ignore[arg-type]
    client = Client(mounted)
    page = client.get("/shop/").text
    assert 'src="/shop/_adroll/kit.' in page
    url = page[page.index('src="') + 5 :].partition('"')[0]
    assert client.get(url).status_code == 200


def test_stacked_with_the_extension_by_mistake_there_is_one_snippet(
    wrap: Callable[..., AdRollMiddleware], make_app: AppMaker
) -> None:
    app = make_app()
    app.wsgi_app = wrap(app.wsgi_app)  # type: ignore[method-assign]
    response = app.test_client().get("/?adct=click123")
    assert response.data.count(b"data-adroll") == 1
    names = [line.partition("=")[0] for line in response.headers.getlist("Set-Cookie")]
    assert sorted(names) == ["__adroll_fpc", "adroll_visitor", "session"]


def test_a_file_is_left_alone(wrap: Callable[..., AdRollMiddleware], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGE)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [*HTML, ("Content-Length", str(len(PAGE)))])
        return environ["wsgi.file_wrapper"](path.open("rb"))  # type: ignore[no-any-return]

    client = Client(wrap(app))
    with client.get("/", environ_overrides={"wsgi.file_wrapper": FileWrapper}) as response:
        assert response.text == PAGE


@pytest.mark.parametrize("html", [True, False])
def test_close_is_passed_on_once_also_when_the_app_raises(
    wrap: Callable[..., AdRollMiddleware], html: bool
) -> None:
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"<html><head>"
            raise LookupError

        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start_response: Any) -> Body:
        start_response("200 OK", HTML if html else [("Content-Type", "text/plain")])
        return Body()

    body = wrap(app)(
        {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/",
            "SERVER_NAME": "shop.test",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "http",
        },
        lambda *_: lambda data: None,  # type: ignore[arg-type]
    )
    with pytest.raises(LookupError):
        list(body)
    body.close()  # type: ignore[attr-defined]
    assert closed == [True]


@LINTS
def test_an_error_page_after_start_response_replaces_the_first(
    wrap: Callable[..., AdRollMiddleware], lint: Callable[[Any], Any]
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", HTML)
        try:
            raise LookupError
        except LookupError:
            import sys

            start_response("500 Internal Server Error", HTML, sys.exc_info())
        return [PAGE.encode()]

    response = checked(wrap(app), lint).get("/", buffered=True)
    assert response.status_code == 500
    assert response.data.count(b"data-adroll") == 1


def test_the_first_bytes_of_a_stream_do_not_wait_for_its_end(
    wrap: Callable[..., AdRollMiddleware],
) -> None:
    served: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HTML)
        for number, part in enumerate((b"<html><head></head>", b"<body>", b"one", b"two")):
            served.append(number)
            yield part

    body = iter(
        wrap(app)(
            {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": "/",
                "SERVER_NAME": "shop.test",
                "SERVER_PORT": "80",
                "wsgi.url_scheme": "http",
            },
            lambda *_: lambda data: None,  # type: ignore[arg-type]
        )
    )
    first = next(body)
    assert first.startswith(b"<html>")
    assert served == [0]


def test_settings_are_checked_by_name(wrap: Callable[..., AdRollMiddleware]) -> None:
    with pytest.raises(ConfigurationError, match="ADROLL_PIXLE"):
        wrap(plain, pixle="none")


def test_a_switched_off_middleware_is_not_there(wrap: Callable[..., AdRollMiddleware]) -> None:
    response = Client(wrap(plain, enabled=False)).get("/?adct=click123")
    assert response.text == PAGE
    assert "Set-Cookie" not in response.headers


# -- other frameworks ----------------------------------------------------------------------


def django() -> WSGI:
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def index(request: HttpRequest) -> HttpResponse:
        return HttpResponse(PAGE)

    def buy(request: HttpRequest) -> HttpResponse:
        receipt = request.environ["adroll.report"]("purchase", **ORDER)  # type: ignore[attr-defined]
        return HttpResponse(receipt.status, content_type="text/plain")

    if not settings.configured:
        settings.configure(
            SECRET_KEY="x",
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=type("urls", (), {"urlpatterns": [path("", index), path("buy", buy)]}),
            MIDDLEWARE=["django.middleware.http.ConditionalGetMiddleware"],
        )
        django.setup()
    return WSGIHandler()  # type: ignore[no-any-return]


def bottle() -> WSGI:
    from bottle import Bottle, request, response

    app = Bottle()
    app.route("/", callback=lambda: PAGE)

    def buy() -> str:
        receipt = request.environ["adroll.report"]("purchase", **ORDER)
        response.content_type = "text/plain"
        return str(receipt.status)

    app.route("/buy", method="POST", callback=buy)
    return app  # type: ignore[no-any-return]


def pyramid() -> WSGI:
    import warnings

    with warnings.catch_warnings():
        # Pyramid 2.0 imports pkg_resources, which setuptools has deprecated.
        warnings.simplefilter("ignore")
        from pyramid.config import Configurator
        from pyramid.response import Response

        def index(request: Any) -> Any:
            return Response(PAGE)

        def buy(request: Any) -> Any:
            receipt = request.environ["adroll.report"]("purchase", **ORDER)
            return Response(receipt.status, content_type="text/plain")

        with Configurator() as config:
            config.add_route("index", "/")
            config.add_route("buy", "/buy")
            config.add_view(index, route_name="index")
            config.add_view(buy, route_name="buy")
            return config.make_wsgi_app()  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [django, bottle, pyramid])
def test_real_frameworks_are_served(
    wrap: Callable[..., AdRollMiddleware], make: Callable[[], WSGI]
) -> None:
    middleware = wrap(make())
    client = Client(LintMiddleware(middleware))  # type: ignore[arg-type]
    landing = client.get("/?adct=click123")
    assert landing.data.count(b"data-adroll") == 1
    with reports(middleware) as reported:
        answer = client.post("/buy", environ_overrides={"REMOTE_ADDR": "203.0.113.7"})
    assert answer.text == "queued"
    assert reported.one("purchase").adct == "click123"


def test_a_conditional_get_of_django_stays_one(wrap: Callable[..., AdRollMiddleware]) -> None:
    client = Client(wrap(django()))
    client.get("/")
    tag = client.get("/").headers["ETag"]
    assert tag.startswith('W/"')
    again = client.get("/", headers={"If-None-Match": tag})
    assert again.status_code == 304
    assert again.headers["ETag"] == tag


def test_the_extension_and_a_redirecting_guard_work_as_flask_has_it(make_app: AppMaker) -> None:
    app: Flask = make_app(AdRoll())

    @app.before_request
    def guard() -> Any:
        return redirect("/login")

    response = app.test_client().get("/?adct=click123")
    assert response.status_code == 302
    assert "adroll_visitor" in response.headers.getlist("Set-Cookie")[0]
