"""AdRollMiddleware around any WSGI app, under both lint middlewares."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from flask import Flask, redirect
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.test import Client
from werkzeug.wsgi import ClosingIterator

from adroll_flask import AdRoll, AdRollMiddleware, ConfigurationError, Visitor
from adroll_flask.testing import reports
from tests.conftest import PAGE, AppMaker
from tests.support.django_shop import django

WSGI = Callable[..., Iterable[bytes]]
ORDER: dict[str, Any] = {"order_id": "1001", "value": "59.90", "currency": "EUR"}
HTML = [("Content-Type", "text/html; charset=utf-8")]


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
        text = response.get_data(as_text=True)
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


PICTURE = [("Content-Type", "image/png"), ("Content-Length", "4")]


def picture(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", PICTURE)
    return [b"\x89PNG"]


def test_a_picture_costs_neither_a_look_at_the_cookies_nor_a_question_for_consent(
    wrap: Callable[..., AdRollMiddleware],
) -> None:
    asked: list[object] = []
    middleware = wrap(picture, consent=asked.append)
    # wsgiref's validator prints the environ, which is a look at the visitor.
    client = checked(middleware, LintMiddleware)
    client.set_cookie("adroll_visitor", "forged")
    assert client.get("/logo.png", buffered=True).data == b"\x89PNG"
    assert asked == []
    assert middleware.runtime.counters.snapshot() == {}


def test_consent_is_asked_once_where_the_app_looks_at_the_visitor(
    wrap: Callable[..., AdRollMiddleware],
) -> None:
    asked: list[object] = []

    def consent(request: object) -> bool:
        asked.append(request)
        return True

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        visitor = environ["adroll.visitor"]
        assert isinstance(visitor, Visitor)
        assert visitor
        assert visitor == Visitor(
            adct=visitor.adct,
            adct_at=visitor.adct_at,
            adct_source="url",
            host="shop.test",
            ip=None,
            consent=True,
            user_agent=environ.get("HTTP_USER_AGENT"),
        )
        start_response("200 OK", HTML)
        return [PAGE.encode(), visitor.token().encode()]

    client = Client(wrap(app, consent=consent))
    assert b"data-adroll" in client.get("/?adct=click123", base_url="http://shop.test").data
    assert len(asked) == 1


@LINTS
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("path", ["/", "/logo.png"])
def test_a_consent_function_that_raises_breaks_neither_a_page_nor_a_picture(
    wrap: Callable[..., AdRollMiddleware],
    lint: Callable[[Any], Any],
    strict: bool,
    path: str,
) -> None:
    seen: list[bool] = []

    def consent(request: object) -> bool:
        raise LookupError

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/":
            return picture(environ, start_response)
        seen.append(bool(environ["adroll.visitor"]))
        seen.append(bool(environ["adroll.report"]("purchase", **ORDER)))
        return plain(environ, start_response)

    client = checked(wrap(app, consent=consent, strict=strict), lint)
    response = client.get(f"{path}?adct=click123", buffered=True)
    assert response.status_code == 200
    assert "Set-Cookie" not in response.headers
    if path == "/":
        assert seen == [False, False]
        assert response.data.count(b"data-adroll") == 1
    else:
        assert response.data == b"\x89PNG"


@LINTS
@pytest.mark.parametrize("app", [plain, generator, writer, picture])
@pytest.mark.parametrize("fault", ["Records.read", "DeliveryThread.start"])
def test_a_fault_of_ours_leaves_every_response_as_the_site_made_it(
    wrap: Callable[..., AdRollMiddleware],
    lint: Callable[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    app: WSGI,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError

    seen: list[Visitor] = []

    def looking(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        seen.append(environ["adroll.visitor"])
        assert not seen[0].adct or fault == "DeliveryThread.start"
        return app(environ, start_response)

    place = "visitor.cookies" if fault == "Records.read" else "delivery.thread"
    monkeypatch.setattr(f"adroll_flask.{place}.{fault}", broken)
    middleware = wrap(looking, strict=False)
    with checked(middleware, lint).get("/?adct=click123") as response:
        assert response.status_code == 200
        data = response.data
    if fault == "Records.read":
        assert data == (b"\x89PNG" if app is picture else PAGE.encode())
        assert middleware.runtime.counters.get("visitor_unread", "fault") > 0
    else:
        assert (b"data-adroll" in data) == (app is not picture)
        assert middleware.runtime.counters.get("delivery_error", "not_started") == 1


@LINTS
def test_reports_are_taken_until_the_response_is_closed(
    wrap: Callable[..., AdRollMiddleware], lint: Callable[[Any], Any]
) -> None:
    class Body:
        def __init__(self, environ: dict[str, Any]) -> None:
            self.report = environ["adroll.report"]
            self.visitor = environ["adroll.visitor"]

        def __iter__(self) -> Iterator[bytes]:
            yield PAGE.encode()
            self.report("purchase", **ORDER, visitor=self.visitor)

        def close(self) -> None:
            self.report("pageView")

    def app(environ: dict[str, Any], start_response: Any) -> Body:
        start_response("200 OK", HTML)
        return Body(environ)

    middleware = wrap(app)
    client = checked(middleware, lint)
    with reports(middleware) as reported:
        response = client.get(
            "/?adct=click123",
            buffered=True,
            headers={"User-Agent": "a browser"},
            environ_overrides={"REMOTE_ADDR": "203.0.113.7"},
        )
        assert response.data.count(b"data-adroll") == 1
        response.close()
    assert reported.one("purchase").adct == "click123"
    assert reported.one("pageView").adct == "click123"


def test_a_dispatcher_within_the_app_does_not_move_our_endpoints(
    wrap: Callable[..., AdRollMiddleware],
) -> None:
    mounted = DispatcherMiddleware(plain, {"/blog": plain})
    client = Client(wrap(mounted, cached_paths=["/blog/cached"]))
    page = client.get("/blog/post?adct=click123").text
    url = page[page.index('src="') + 5 :].partition('"')[0]
    assert url.startswith("/_adroll/kit.")
    assert client.get(url).status_code == 200
    assert "Set-Cookie" not in client.get("/blog/cached?adct=click124").headers


def test_our_endpoints_answer_before_the_app(wrap: Callable[..., AdRollMiddleware]) -> None:
    def guard(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("302 Found", [("Location", "http://localhost/login")])
        return []

    client = Client(LintMiddleware(wrap(guard)))
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
    mounted = DispatcherMiddleware(plain, {"/shop": wrap(plain)})
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
    assert sorted(names) == ["__adroll_fpc", "adroll_visitor"]


def test_a_file_is_left_alone(wrap: Callable[..., AdRollMiddleware], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGE)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [*HTML, ("Content-Length", str(len(PAGE)))])
        return environ["wsgi.file_wrapper"](path.open("rb"))  # type: ignore[no-any-return]

    client = Client(wrap(app))
    with client.get("/", environ_overrides={"wsgi.file_wrapper": FileWrapper}) as response:
        assert response.get_data(as_text=True) == PAGE


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
        lambda *_: lambda data: None,
    )
    with pytest.raises(LookupError):
        list(body)
    cast("ClosingIterator", body).close()
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
            lambda *_: lambda data: None,
        )
    )
    first = next(body)
    assert first.startswith(b"<html>")
    assert served == [0]


def test_misspelt_arguments_are_told_in_the_words_that_were_typed(
    wrap: Callable[..., AdRollMiddleware],
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        wrap(plain, befor_report=None, pixel="sometimes", Acces_Token="x")
    text = str(caught.value)
    assert "befor_report: there is no such argument; did you mean before_report?" in text
    assert "Acces_Token: there is no such argument; did you mean access_token?" in text
    assert "pixel: takes" in text
    assert "ADROLL_" not in text


def test_a_missing_secret_key_raises_in_strict_mode_and_is_told_once_in_production(
    wrap: Callable[..., AdRollMiddleware], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match="secret_key"):
        wrap(plain, secret_key=None)
    wrap(plain, secret_key=None, enabled=False)
    middleware = wrap(plain, secret_key=None, strict=False)
    for _ in range(3):
        assert Client(middleware).get("/").status_code == 200
    [record] = [record for record in caplog.records if "secret_key" in record.getMessage()]
    assert "ADROLL" not in record.getMessage()
    assert middleware.runtime.counters.get("secret_key_missing") == 1


def test_a_switched_off_middleware_is_not_there(wrap: Callable[..., AdRollMiddleware]) -> None:
    response = Client(wrap(plain, enabled=False)).get("/?adct=click123")
    assert response.get_data(as_text=True) == PAGE
    assert "Set-Cookie" not in response.headers


# -- other frameworks ----------------------------------------------------------------------


# Bottle and Pyramid are served by the shops of their pages (tests/docs/test_typed_pages.py).
def test_django_is_served_as_wsgi_has_it(wrap: Callable[..., AdRollMiddleware]) -> None:
    middleware = wrap(django())
    client = Client(LintMiddleware(middleware))
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
    assert response.location == "/login"
    assert "adroll_visitor" in response.headers.getlist("Set-Cookie")[0]
