"""What of a response changes with the snippet, and which responses are left alone."""

from __future__ import annotations

import gzip
import io
import json
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, abort, render_template_string, request, send_file, session
from flask.testing import FlaskClient
from flask_compress import Compress
from flask_wtf.csrf import CSRFProtect
from requests.structures import CaseInsensitiveDict
from werkzeug import Response as WerkzeugResponse
from werkzeug.http import parse_cookie
from werkzeug.test import Client, TestResponse

import adroll_flask
from adroll_flask import (
    AdRoll,
    current_visitor,
    report_conversion,
    visitor_identified,
)
from adroll_flask.page.snippet import tags_in
from adroll_flask.visitor.visitors import Visitors
from tests.app.conftest import Either, Later, Wrap, forget
from tests.conftest import PAGE, AppMaker, Caplog, Patch
from tests.support.visits import ORDER, VISIT, kept


def serve(app: Flask, **kwargs: Any) -> None:
    app.add_url_rule("/page", "page", lambda: Response(PAGE, **kwargs), methods=["GET", "POST"])


def untouched(app: Flask) -> dict[str, int]:
    counts = app.extensions["adroll"].counters.snapshot()
    return {name: n for name, n in counts.items() if name.startswith("page_untouched")}


def broken(*_: object, **__: object) -> Any:
    raise LookupError


@pytest.mark.parametrize(
    "kind", ["text/html", "Text/HTML; Charset=UTF-8", "text/html;charset=latin-1"]
)
def test_the_page_changes_by_the_snippet_alone(make_app: AppMaker, kind: str) -> None:
    app = make_app()
    serve(app, content_type=kind)
    response = app.test_client().get("/page")
    start = response.text.index("<script")
    tag = response.text[start : response.text.index("</script>") + 9]
    assert response.text.replace(tag, "") == PAGE
    assert response.text.index(tag) + len(tag) == response.text.index("</head>")
    assert int(response.headers["Content-Length"]) == len(response.data)


PROXIED = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize("headers", [PROXIED, [*PROXIED.items()], CaseInsensitiveDict(PROXIED)])
@pytest.mark.parametrize("followed", [True, False])
def test_a_page_with_the_headers_of_another_server_s_answer_is_one(
    make_app: AppMaker, headers: Any, followed: bool
) -> None:
    def proxied(response: Response) -> Response:
        if request.path == "/proxied":
            response.headers = headers
        return response

    app = make_app(Later(lambda app: app.after_request(proxied)) if followed else AdRoll())
    app.add_url_rule("/proxied", "proxied", lambda: proxied(Response(PAGE)))
    client = app.test_client()
    assert client.get("/proxied?adct=click123").text.count("data-adroll") == 1
    assert client.get("/who").get_json()["adct"] == "click123"


#: What is left alone, and why, as it is counted; what is no page is not.
LEFT_ALONE: list[tuple[str, dict[str, Any]]] = [
    ("status", {"status": 204}),
    ("status", {"status": 206}),
    ("status", {"status": 302, "headers": {"Location": "/"}}),
    ("encoded", {"headers": {"Content-Encoding": "gzip"}}),
    ("attachment", {"headers": {"Content-Disposition": "attachment; filename=a.html"}}),
    ("charset", {"content_type": "text/html; charset=utf-16"}),
    *(("", {"content_type": kind}) for kind in ("application/xhtml+xml", "text/plain")),
    *(("", {"content_type": kind}) for kind in ("text/htmlx", "image/svg+xml")),
]


@pytest.mark.parametrize(("why", "kwargs"), LEFT_ALONE)
def test_hands_off(make_app: AppMaker, why: str, kwargs: dict[str, Any]) -> None:
    app = make_app()
    serve(app, **kwargs)
    assert b"data-adroll" not in app.test_client().get("/page").data
    assert untouched(app) == ({f"page_untouched:{why}": 1} if why else {})


#: By which libraries ask for a part of a page; to a cache between they are nothing.
LIBRARIES_ASK = [
    {"HX-Request": "true"},
    {"X-Requested-With": "XMLHttpRequest"},
    {"X-PJAX": "true"},
    {"Turbo-Frame": "x"},
]
#: How browsers tell that no document is asked for: a service worker's fetch, too.
SCRIPTS_ASK = [
    *LIBRARIES_ASK,
    {"Sec-Fetch-Dest": "empty", "Sec-Purpose": "prefetch"},
    {"Sec-Fetch-Dest": "document", "Sec-Purpose": "prefetch;prerender"},
    {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors"},
    {"Sec-Fetch-Dest": "image"},
]


@pytest.mark.parametrize("headers", SCRIPTS_ASK)
def test_a_cacheable_page_is_one_whoever_asks(make_app: AppMaker, headers: dict[str, str]) -> None:
    app = make_app(ADROLL_CACHED_PATHS=["/"])
    serve(app, headers={"Cache-Control": "public, max-age=60"})
    client = app.test_client(use_cookies=False)
    for path in ("/page", "/"):
        usual = client.get(path, headers={"Sec-Fetch-Dest": "document"})
        asked = client.get(path, headers=headers)
        assert "data-adroll" in asked.text
        assert asked.text == usual.text
        assert "Set-Cookie" not in asked.headers
        assert asked.headers.get("Vary") == usual.headers.get("Vary")


def test_a_page_that_is_fetched_ahead_gives_a_new_visitor_a_cookie(make_app: AppMaker) -> None:
    """Without one, what its view reports would be invalid."""
    headers = {"Sec-Fetch-Dest": "document", "Sec-Purpose": "prefetch"}
    assert "Set-Cookie" in make_app().test_client().get("/", headers=headers).headers


def test_a_page_that_an_app_shows_in_itself_is_one_like_any_other(make_app: AppMaker) -> None:
    """Android's WebView names its app in each request: shops are opened in Instagram, too."""
    headers = {"X-Requested-With": "com.instagram.android", "Sec-Fetch-Dest": "document"}
    page = make_app().test_client().get("/", headers=headers)
    assert "data-adroll" in page.text
    cookies = page.headers.getlist("Set-Cookie")
    assert {one.partition("=")[0] for one in cookies} == {"adroll_visitor", "__adroll_fpc"}


@pytest.mark.parametrize("headers", SCRIPTS_ASK)
def test_a_page_takes_the_snippet_by_its_body_and_no_cookie_where_none_is_shown(
    make_app: AppMaker, headers: dict[str, str]
) -> None:
    part = "<div>3 mugs</div>"
    app = make_app()
    app.add_url_rule("/part", "part", lambda: Response(part))
    client = app.test_client()
    # Asked for before the kit's answer came, answered after it, which it must not undo.
    client.set_cookie("__adroll_fpc", A)
    whole = client.get("/", headers=headers)
    assert ("data-adroll" in whole.text) is (headers not in LIBRARIES_ASK)
    assert client.get("/part", headers=headers).text == part
    assert untouched(app) == {"page_untouched:fragment": 1 + (headers in LIBRARIES_ASK)}
    for response in (whole, client.get("/favicon.ico", headers=headers)):
        assert "Set-Cookie" not in response.headers
        assert "Cache-Control" not in response.headers
    frame = client.get("/", headers={"Sec-Fetch-Dest": "iframe"})
    assert "data-adroll" in frame.text
    assert "adroll_visitor" in frame.headers["Set-Cookie"]


def tagged(page: str = PAGE) -> Response:
    """A page as a view makes it that answers conditional requests and those for a range."""
    response = Response(page, headers={"Digest": "sha-256=x"})
    response.add_etag()
    response.make_conditional(request, accept_ranges=True, complete_length=len(page))
    return response


def test_head_tells_what_get_tells(make_app: AppMaker) -> None:
    app = make_app()
    app.add_url_rule("/tagged", "tagged", tagged)
    app.add_url_rule("/part", "part", lambda: tagged("<p>3 mugs"))
    app.add_url_rule("/stream", "stream", lambda: Response(iter([PAGE]), headers={"ETag": '"a"'}))
    client = app.test_client()
    for path in ("/", "/tagged", "/part", "/stream"):
        client.get(path)
        with client.head(path) as head, client.get(path) as get:
            for response in (head, get):
                response.headers.pop("Date", None)  # a second may pass between the two
            assert dict(head.headers) == dict(get.headers)
            assert head.data == b""
    assert untouched(app) == {"page_untouched:head": 4, "page_untouched:fragment": 2}


def test_head_without_a_body_tells_what_get_tells(wrap: Wrap) -> None:
    def site(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        headers = [("Content-Type", "text/html; charset=utf-8"), ("ETag", '"a"')]
        headers += [("Content-Length", str(len(PAGE))), ("Accept-Ranges", "bytes")]
        start_response("200 OK", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [PAGE.encode()]

    client = Client(wrap(site))
    head, get = client.head("/").headers, client.get("/").headers
    assert "Content-Length" not in head
    for name in ("ETag", "Accept-Ranges", "Content-Type"):
        assert head[name] == get[name]
    assert (head["ETag"], head["Accept-Ranges"]) == ('W/"a"', "none")


def test_what_gets_no_snippet_comes_in_ranges(make_app: AppMaker) -> None:
    app = make_app()

    @app.get("/<path>")
    def part(path: str) -> WerkzeugResponse:
        current_visitor()
        if path == "file":
            return send_file(io.BytesIO(PAGE.encode()), mimetype="text/html")
        headers = {"Content-Disposition": "attachment"} if path == "load" else {}
        kind = "text/plain" if path == "text" else "text/html"
        response = Response(PAGE, mimetype=kind, headers=headers)
        return response.make_conditional(request, accept_ranges=True, complete_length=len(PAGE))

    client = app.test_client()
    for path in ("/text", "/load", "/file"):
        with client.get(path) as whole:
            assert b"data-adroll" not in whole.data
        with client.get(path, headers={"Range": "bytes=3-4"}) as asked:
            assert (asked.status_code, asked.data) == (206, PAGE[3:5].encode())
            assert asked.headers["Accept-Ranges"] == "bytes"


def test_injection_can_be_switched_off(make_app: AppMaker) -> None:
    response = make_app(ADROLL_INJECT=False).test_client().get("/")
    assert response.text == PAGE
    assert "Set-Cookie" in response.headers


def test_a_page_that_has_the_snippet_is_not_given_a_second_one(make_app: AppMaker) -> None:
    app = make_app()
    source = "<!doctype html><html><head>{{ adroll_snippet() }}</head><body></body></html>"
    app.add_url_rule("/own", "own", lambda: render_template_string(source))
    assert app.test_client().get("/own").text.count("data-adroll") == 1
    assert untouched(app) == {"page_untouched:present": 1}


@pytest.mark.parametrize("nonce", [broken, lambda: b"bytes", None])
def test_a_snippet_that_cannot_be_made_costs_a_template_nothing(
    make_app: AppMaker, nonce: Callable[[], Any] | None
) -> None:
    app = make_app(ADROLL_STRICT=False, ADROLL_CSP_NONCE=nonce)
    # Where there is no request, a task writes a mail.
    with app.app_context() if nonce is None else app.test_request_context("/"):
        assert render_template_string("{{ adroll_snippet() }}.") == "."
    assert untouched(app) == {"page_untouched:fault": 1}


TCF: dict[str, Any] = {"ADROLL_CONSENT": "tcf"}


@pytest.mark.parametrize(
    ("config", "told", "asks"),
    [
        ({}, {}, False),
        ({"ADROLL_HONOR_GPC": False}, {"gpc": "0"}, False),
        ({"ADROLL_CONSENT": "gpp"}, {"consent": "gpp"}, True),
        ({"ADROLL_CONSENT": "tcf"}, {"consent": "tcf"}, True),
        (TCF | {"ADROLL_TCF_VENDOR": 131}, {"consent": "tcf", "tcf": "131:1,7"}, True),
        (TCF | {"ADROLL_TCF_PURPOSES": [1, 3]}, {"consent": "tcf", "tcf": "130:1,3"}, True),
    ],
)
def test_the_tag_follows_the_settings(
    make_app: AppMaker, config: dict[str, Any], told: dict[str, str], asks: bool
) -> None:
    client = make_app(**config).test_client()
    [tag] = tags_in(client.get("/").text)
    names = [name for name in ("gpc", "consent", "tcf") if f"data-{name}" in tag]
    assert {name: tag[f"data-{name}"] for name in names} == told
    assert (b"__tcfapi" in client.get(tag["src"]).data) == asks


DIGESTS = {"Content-MD5": "x", "Digest": "x", "Repr-Digest": "x"}


@pytest.mark.parametrize(
    ("kind", "etag", "stays"), [("text/html", 'W/"abc"', {}), ("image/png", '"abc"', DIGESTS)]
)
def test_a_conditional_get_that_would_have_been_a_304_stays_one(
    make_app: AppMaker, kind: str, etag: str, stays: dict[str, str]
) -> None:
    def page() -> WerkzeugResponse:
        response = Response(PAGE, mimetype=kind, headers={"ETag": '"abc"', **DIGESTS})
        return response.make_conditional(request)

    app = make_app()
    app.add_url_rule("/page", "page", page)
    client = app.test_client()
    client.get("/")
    first = client.get("/page").headers
    assert first["ETag"] == etag
    assert {name: first[name] for name in DIGESTS if name in first} == stays
    again = client.get("/page", headers={"If-None-Match": etag})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", etag)
    assert "Set-Cookie" not in again.headers


def test_a_page_compressed_before_us_is_left_alone(make_app: AppMaker, caplog: Caplog) -> None:
    app = make_app(COMPRESS_MIN_SIZE=1)
    Compress(app)  # registered later, so that it runs first
    client = app.test_client()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            response = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    said = [record for record in caplog.records if "compressed before" in record.getMessage()]
    assert len(said) == 1
    assert "init_app after" in said[0].getMessage()
    assert untouched(app) == {"page_untouched:encoded": 2}


def test_a_page_compressed_after_us_carries_the_snippet(make_app: AppMaker) -> None:
    app = make_app(Later(Compress), COMPRESS_MIN_SIZE=1)
    response = app.test_client().get("/", headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert b"data-adroll" in gzip.decompress(response.data)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["snippet.Snippet.tag", "placement.Placer.feed"])
def test_a_fault_of_ours_leaves_the_page_as_the_site_made_it(
    either: Either, monkeypatch: Patch, stream: bool, fault: str
) -> None:
    monkeypatch.setattr(f"adroll_flask.page.{fault}", broken)
    app, client, runtime = either()
    app.add_url_rule("/page", "page", lambda: iter([PAGE[:40], PAGE[40:]]) if stream else PAGE)
    with client.get("/page") as response:
        assert (response.status_code, response.get_data(as_text=True)) == (200, PAGE)
    assert runtime.counters.get("page_untouched", "fault") == 1


def test_a_thread_that_cannot_start_costs_no_page(either: Either, monkeypatch: Patch) -> None:
    monkeypatch.setattr("adroll_flask.delivery.thread.DeliveryThread.start", broken)
    _, client, runtime = either()
    assert client.get("/").text.count("data-adroll") == 1
    assert runtime.counters.get("delivery_error", "not_started") == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: request.environ.get("adroll.visitor", current_visitor()).adct,
        lambda: adroll_flask.identify(user_id=7),
        adroll_flask.forget_visitor,
    ],
)
def test_a_visitor_who_cannot_be_read_is_an_unknown_one(
    either: Either, monkeypatch: Patch, call: Callable[[], object]
) -> None:
    monkeypatch.setattr("adroll_flask.visitor.visitors.Visitors.read", broken)
    app, client, runtime = either()
    app.add_url_rule("/call", "call", lambda: str(call()))
    assert client.get("/call?adct=click123").text == "None"
    assert runtime.counters.get("visitor_unread", "fault") > 0


def test_a_no_of_an_unread_visitor_stands(make_app: AppMaker, monkeypatch: Patch) -> None:
    faults, read = iter([broken]), Visitors.read

    def once(visitors: Visitors, header: str, *, secure: bool) -> Any:
        return next(faults, read)(visitors, header, secure=secure)

    app = make_app(ADROLL_STRICT=False)
    app.add_url_rule("/no", "no", forget)
    monkeypatch.setattr("adroll_flask.visitor.visitors.Visitors.read", once)
    assert "Set-Cookie" not in app.test_client().get("/no?adct=click123").headers
    assert app.extensions["adroll"].counters.get("visitor_unread", "fault") == 1


def test_an_error_s_page_has_nothing_of_the_page_that_it_replaces(make_app: AppMaker) -> None:
    def failing(response: Response) -> Response:
        if response.status_code == 200:
            abort(500)
        return response

    def oops(_: object) -> tuple[str, int, dict[str, str]]:
        return repr(current_visitor()), 500, {"Content-Type": "text/plain"}

    heard: list[object] = []
    app = make_app(Later(lambda app: app.after_request(failing)), PROPAGATE_EXCEPTIONS=False)
    app.register_error_handler(500, oops)
    with visitor_identified.connected_to(lambda _, visitor: heard.append(visitor), app):
        response = app.test_client().get("/")
    assert (response.status_code, heard) == (500, [])
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("after", [False, True])
def test_a_response_that_a_site_sends_to_everybody_carries_nobody_s_cookie(
    make_app: AppMaker, after: bool
) -> None:
    app = make_app(Later(lambda app: app.after_request(lambda same: same)) if after else AdRoll())
    sent_to_all = Response(PAGE)
    app.add_url_rule("/page", "page", lambda: sent_to_all)
    visitors = {app.test_client().get("/page").headers["Set-Cookie"] for _ in range(3)}
    assert len(visitors) == 3
    known = app.test_client()
    known.get("/")
    again = known.get("/page")
    assert again.headers.getlist("Set-Cookie") == []
    assert (again.text.count("data-adroll"), "Cache-Control" in again.headers) == (1, False)
    assert (sent_to_all.data, "Set-Cookie" in sent_to_all.headers) == (PAGE.encode(), False)


def test_what_one_visitor_takes_back_is_on_no_response_that_everybody_gets(
    make_app: AppMaker,
) -> None:
    """The session alone knows the visitor, who says no; the redirect itself takes nothing."""
    app = make_app(Later(lambda app: app.after_request(lambda same: same)))
    sent_to_all = Response(status=303, headers={"Location": "/"}, content_type="text/html")
    app.add_url_rule("/go", "go", lambda: sent_to_all)

    @app.get("/cart")
    def cart() -> str:
        session["cart"] = "mug"
        return PAGE

    client = app.test_client()
    client.get("/cart?adct=click1")
    for name in ("adroll_visitor", "__adroll_fpc"):
        client.delete_cookie(name)
    said_no = client.get("/go", headers={"Sec-GPC": "1"})
    assert said_no.headers["Cache-Control"] == "private"
    assert "Set-Cookie" in said_no.headers, "the session is saved without the copy"
    assert "Cache-Control" not in sent_to_all.headers
    assert "Set-Cookie" not in sent_to_all.headers


def test_what_a_site_keeps_of_a_response_after_us_has_nobody_s_cookie(make_app: AppMaker) -> None:
    """A cache of the site's own, as recipes for Flask have it, keeps whole responses by path."""
    pages: dict[str, bytes] = {}

    def store(response: Response) -> Response:
        pages.setdefault(request.path, pickle.dumps(response))
        return response

    def stored() -> Any:
        return pickle.loads(pages[request.path]) if request.path in pages else None

    # Flask calls these in reverse order.
    app = make_app(Later(lambda app: app.after_request(store)))
    app.before_request(stored)
    serve(app)
    ann, bob, cyd = (app.test_client() for _ in range(3))
    of_ann = ann.get("/").headers.getlist("Set-Cookie")
    bob.get("/page")
    page = bob.get("/")
    assert (page.text.count("data-adroll"), page.headers.getlist("Set-Cookie")) == (1, [])
    of_cyd = cyd.get("/").headers.getlist("Set-Cookie")
    assert (len(of_ann), len(of_cyd), set(of_ann) & set(of_cyd)) == (2, 2, set())


def test_two_apps_in_one_request_have_a_visitor_each(make_app: AppMaker) -> None:
    """The first to look decided for both: a click was lost, or who had said no was reported."""
    other = make_app(SECRET_KEY="the other's", ADROLL_CONSENT=lambda _request: False)
    app = make_app()
    other.add_url_rule("/buy", "buy", lambda: report_conversion(**ORDER).status)

    def enters_the_other() -> str:
        with other.app_context():
            assert report_conversion(**ORDER).status == "suppressed"
        return PAGE

    def asks_the_other() -> str:
        assert current_visitor().adct == "click-1"
        answer = Response.from_app(other, {**request.environ, "PATH_INFO": "/buy"})
        assert answer.get_data(as_text=True) == "suppressed"
        return report_conversion(**ORDER).status

    app.add_url_rule("/enters", "enters", enters_the_other)
    app.add_url_rule("/asks", "asks", asks_the_other)
    client = app.test_client()
    client.get("/enters?adct=click-1", **VISIT)
    assert client.get("/asks", **VISIT).text == "queued"
    assert [event["identifiers"]["adct"] for event in kept(app)] == ["click-1"]


def test_a_fault_in_the_last_look_gives_the_page(make_app: AppMaker, monkeypatch: Patch) -> None:
    after = Later(lambda app: app.after_request(lambda response: response))
    app = make_app(after, ADROLL_STRICT=False)
    monkeypatch.setattr("adroll_flask.runtime.put_cookies", broken)
    response = app.test_client().get("/")
    assert (response.status_code, response.text.count("data-adroll")) == (200, 1)
    assert untouched(app) == {"page_untouched:fault": 1}


# -- ``POST {prefix}/identity`` and the kit's file ------------------------------------------------


A = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"


SAME = {"Sec-Fetch-Site": "same-origin"}


def tell(client: FlaskClient, data: Any, **kwargs: Any) -> TestResponse:
    body = data if isinstance(data, bytes) else json.dumps(data)
    options: dict[str, Any] = {"content_type": "application/json", "headers": SAME} | kwargs
    return client.post("/_adroll/identity", data=body, **options)


def test_what_the_kit_tells_is_kept(app: Flask) -> None:
    client = app.test_client()
    tell(client, {})  # a visitor of a cached page has no cookie yet
    seen = client.get("/who").get_json()
    assert (seen["adct"], seen["first_party_cookie_source"]) == (None, "server")
    response = tell(client, {"adct": "a b", "first_party_cookie": A})
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Cache-Control"] == "no-store"
    seen = client.get("/who").get_json()
    assert (seen["adct"], seen["adct_source"]) == ("a+b", "kit"), "a plus sign is no space"
    assert (seen["first_party_cookie"], seen["first_party_cookie_source"]) == (A, "pixel")
    assert "Set-Cookie" not in tell(client, {"first_party_cookie": A}).headers, "told again"
    client.get("/?adct=c+d")
    assert client.get("/who").get_json()["adct"] == "c+d"


def test_what_the_kit_tells_is_kept_where_the_site_looks_at_each_content_type(
    make_app: AppMaker,
) -> None:
    app = make_app()

    @app.after_request
    def secure(response: Response) -> Response:
        if response.content_type.startswith("text/html"):
            response.headers["X-Frame-Options"] = "DENY"
        return response

    client = app.test_client()
    assert tell(client, {"adct": "click123"}).status_code == 204
    assert client.get("/who").get_json()["adct"] == "click123"
    assert client.options("/_adroll/identity").status_code == 204


@pytest.mark.parametrize("csrf_first", [True, False])
def test_the_endpoint_is_exempt_from_csrf_protection(make_app: AppMaker, csrf_first: bool) -> None:
    app = make_app(Later(CSRFProtect) if csrf_first else AdRoll())
    if not csrf_first:
        CSRFProtect(app)
    app.add_url_rule("/form", "form", lambda: "ok", methods=["POST"])
    client = app.test_client()
    assert client.post("/form").status_code == 400
    assert tell(client, {"adct": "click123"}).status_code == 204


def test_with_a_consent_callable_the_endpoint_answers_its_state(make_app: AppMaker) -> None:
    answer: list[bool | None] = [None]
    client = make_app(ADROLL_CONSENT=lambda request: answer[0]).test_client()
    response = tell(client, {})
    assert (response.status_code, response.get_json()) == (200, {"consent": None})
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers
    answer[0] = False
    assert tell(client, {"adct": "click123"}).get_json() == {"consent": False}
    assert client.get_cookie("adroll_visitor") is None
    answer[0] = True
    assert tell(client, {"adct": "click123"}).get_json() == {"consent": True}
    assert client.get_cookie("adroll_visitor") is not None


# -- the kit -------------------------------------------------------------------------------


def test_the_tag_leads_to_the_kit(app: Flask) -> None:
    client = app.test_client()
    url = client.get("/").text.partition('src="')[2].partition('"')[0]
    response = client.get(url)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in response.headers
    again = client.get(url, headers={"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304
    missing = client.get("/_adroll/kit.0123456789abcdef.js?adct=click123")
    assert (b"<script" in missing.data, "Set-Cookie" in missing.headers) == (False, False)


@pytest.mark.parametrize("by", ["session", "after_request"])
def test_no_cache_keeps_the_kit_with_a_cookie_of_the_site_s(make_app: AppMaker, by: str) -> None:
    def begin() -> None:
        session["cart"] = "1001"

    def remember(response: Response) -> Response:
        response.set_cookie("cart", "1001")
        return response

    app = make_app()
    if by == "session":
        app.before_request(begin)
    else:
        app.after_request(remember)
    [tag] = tags_in(app.test_client().get("/").text)
    kit = app.test_client().get(tag["src"])
    assert "Set-Cookie" in kit.headers
    assert kit.headers["Cache-Control"] == "private, max-age=31536000, immutable"


def test_the_page_is_the_same_for_a_yes_a_no_and_no_answer(make_app: AppMaker) -> None:
    app = make_app(ADROLL_CONSENT=lambda request: {"1": True, "0": False}.get(request.args["said"]))
    pages = {app.test_client().get(f"/?adct=click123&said={said}").data for said in ("1", "0", "")}
    assert len(pages) == 1
    assert b"data-adroll" in pages.pop()


@pytest.mark.parametrize(
    ("nonce", "tag"),
    [("bm9uY2U=", '<script nonce="bm9uY2U=" async src='), ('"><script>', "<script async src=")],
)
def test_a_nonce_goes_with_the_tag_in_its_form(make_app: AppMaker, nonce: str, tag: str) -> None:
    page = make_app(ADROLL_CSP_NONCE=lambda: nonce).test_client().get("/").text
    assert (page.count(tag), page.count("<script")) == (1, 1)


@pytest.mark.parametrize("kind", ["host_matching", "subdomain_matching"])
def test_the_endpoints_are_on_each_host_that_pages_are_on(kind: str) -> None:
    app = Flask("shop", static_folder=None, **{kind: True})  # type: ignore[arg-type]
    app.config.update(SECRET_KEY="a key for tests", SERVER_NAME="shop.test")
    AdRoll(app)
    for host in ("shop.test", "www.shop.test"):
        kit = app.test_client().get("/_adroll/kit.js", base_url=f"http://{host}")
        assert kit.status_code == 200


# -- two answers to one browser cross: neither undoes what the other one knows --------------------


#: What browsers say of a link on a page of the same origin.
LINK = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def page(app: Flask, cookies: str = "", path: str = "/") -> TestResponse:
    headers = LINK | ({"Cookie": cookies} if cookies else {})
    return app.test_client(use_cookies=False).get(path, headers=headers, **VISIT)


def told(app: Flask, cookies: str = "", **message: str) -> TestResponse:
    """The answer to the kit of a page that came from a cache."""
    headers = {"Origin": "https://shop.test", "Cookie": cookies}
    client = app.test_client(use_cookies=False)
    answer = client.post("/_adroll/identity", json=message, headers=headers, **VISIT)
    assert answer.status_code == 204, answer.text
    return answer


def buy(app: Flask, cookies: str) -> str:
    client = app.test_client(use_cookies=False)
    return client.post("/buy", headers={"Cookie": cookies}, **VISIT).text


def add_checkout(app: Flask) -> None:
    app.add_url_rule("/buy", "buy", lambda: report_conversion(**ORDER).status, methods=["POST"])


def jar(*answers: TestResponse) -> str:
    """What the browser sends after these answers, which came in this order."""
    kept: dict[str, str] = {}
    for answer in answers:
        for line in answer.headers.getlist("Set-Cookie"):
            kept.update(parse_cookie(line.partition(";")[0]).items())
    return "; ".join(f"{name}={value}" for name, value in kept.items())


@pytest.mark.parametrize("page_last", [True, False], ids=["the page last", "the kit's last"])
def test_a_click_told_while_a_page_loads_is_kept(make_app: AppMaker, page_last: bool) -> None:
    app = make_app()
    add_checkout(app)
    # Neither request had a cookie: both were under way before the other was answered.
    answers = [told(app, adct="click-1"), page(app)]
    cookies = jar(*(answers if page_last else reversed(answers)))
    assert buy(app, cookies) == "queued"
    (event,) = kept(app)
    assert event["identifiers"]["adct"] == "click-1"


def test_who_has_no_kit_is_known_from_the_page_after_it(make_app: AppMaker) -> None:
    app = make_app()
    first = page(app)
    second = page(app, jar(first))
    assert [name in jar(first) for name in ("adroll_visitor", "__adroll_fpc")] == [False, True]
    assert "adroll_visitor" in jar(second)
    assert jar(first) in jar(first, second), "it is the same cookie"
