"""What of a response changes with the snippet, and which responses are left alone."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, request, send_file
from flask_compress import Compress
from werkzeug import Request as WerkzeugRequest
from werkzeug import Response as WerkzeugResponse
from werkzeug.test import Client

from adroll_flask import AdRoll, AdRollMiddleware, current_visitor
from tests.conftest import PAGE, AppMaker


def serve(app: Flask, **kwargs: Any) -> None:
    app.add_url_rule("/page", "page", lambda: Response(PAGE, **kwargs), methods=["GET", "POST"])


def untouched(app: Flask) -> dict[str, int]:
    counts = app.extensions["adroll"].counters.snapshot()
    return {name: n for name, n in counts.items() if name.startswith("page_untouched")}


def test_the_page_changes_by_the_snippet_alone(make_app: AppMaker) -> None:
    app = make_app()
    response = app.test_client().get("/")
    start = response.text.index("<script")
    tag = response.text[start : response.text.index("</script>") + 9]
    assert response.text.replace(tag, "") == PAGE
    assert response.text.index(tag) + len(tag) == response.text.index("</head>")
    assert int(response.headers["Content-Length"]) == len(response.data)


LEFT_ALONE: list[tuple[str, dict[str, Any]]] = [
    ("status", {"status": 204}),
    ("status", {"status": 206}),
    ("status", {"status": 302, "headers": {"Location": "/"}}),
    ("encoded", {"headers": {"Content-Encoding": "gzip"}}),
    ("attachment", {"headers": {"Content-Disposition": "attachment; filename=a.html"}}),
    ("charset", {"content_type": "text/html; charset=utf-16"}),
]


@pytest.mark.parametrize(("why", "kwargs"), LEFT_ALONE)
def test_hands_off(make_app: AppMaker, why: str, kwargs: dict[str, Any]) -> None:
    app = make_app()
    serve(app, **kwargs)
    response = app.test_client().get("/page")
    assert b"data-adroll" not in response.data
    assert untouched(app) == {f"page_untouched:{why}": 1}


@pytest.mark.parametrize(
    "kind",
    ["application/xhtml+xml", "application/json", "text/plain", "text/htmlx", "image/svg+xml"],
)
def test_other_types_are_not_looked_at(make_app: AppMaker, kind: str) -> None:
    app = make_app()
    serve(app, content_type=kind)
    assert app.test_client().get("/page").text == PAGE


@pytest.mark.parametrize(
    "kind", ["text/html", "Text/HTML; Charset=UTF-8", "text/html;charset=latin-1"]
)
def test_html_in_any_spelling_is_served(make_app: AppMaker, kind: str) -> None:
    app = make_app()
    serve(app, content_type=kind)
    assert "data-adroll" in app.test_client().get("/page").text


@pytest.mark.parametrize(
    "headers",
    [
        {"HX-Request": "true"},
        {"X-Requested-With": "XMLHttpRequest"},
        {"Turbo-Frame": "x"},
        {"Sec-Fetch-Dest": "empty"},
    ],
)
def test_fragments_are_left_alone(make_app: AppMaker, headers: dict[str, str]) -> None:
    app = make_app()
    response = app.test_client().get("/", headers=headers)
    assert response.text == PAGE
    assert "Set-Cookie" not in response.headers
    assert untouched(app) == {"page_untouched:fragment": 1}


#: By which scripts and prefetches ask; to a cache between they are nothing.
SCRIPTS_ASK = [
    {"HX-Request": "true"},
    {"X-Requested-With": "XMLHttpRequest"},
    {"X-PJAX": "true"},
    {"Turbo-Frame": "x"},
    {"Sec-Fetch-Dest": "empty", "Sec-Purpose": "prefetch"},
    {"Sec-Fetch-Dest": "image"},
]


@pytest.mark.parametrize("headers", SCRIPTS_ASK)
def test_a_page_that_a_shared_cache_may_keep_is_the_same_whoever_asks_first(
    make_app: AppMaker, headers: dict[str, str]
) -> None:
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
    # What is posted is kept by no cache, and stays a fragment.
    assert client.post("/page", headers=headers).text == PAGE


@pytest.mark.parametrize("headers", SCRIPTS_ASK)
def test_a_cacheable_fragment_is_left_alone(make_app: AppMaker, headers: dict[str, str]) -> None:
    part = "<div>3 mugs</div>"
    app = make_app()
    app.add_url_rule("/part", "part", lambda: Response(part, headers={"Cache-Control": "public"}))
    assert app.test_client().get("/part", headers=headers).text == part
    assert untouched(app) == {"page_untouched:fragment": 1}


@pytest.mark.parametrize("dest", ["document", "iframe"])
def test_documents_are_not_fragments(make_app: AppMaker, dest: str) -> None:
    headers = {"Sec-Fetch-Dest": dest}
    assert "data-adroll" in make_app().test_client().get("/", headers=headers).text


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
            assert dict(head.headers) == dict(get.headers)
            assert head.data == b""
    assert untouched(app) == {"page_untouched:head": 4, "page_untouched:fragment": 2}


def test_head_of_an_app_that_sends_no_body_tells_nothing_that_get_would_not(
    wrap: Callable[..., AdRollMiddleware],
) -> None:
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
    assert head["ETag"] == 'W/"a"'


def test_a_page_with_the_snippet_comes_whole_whatever_range_is_asked_for(
    make_app: AppMaker,
) -> None:
    app = make_app()
    app.add_url_rule("/tagged", "tagged", tagged)
    app.add_url_rule("/text", "text", lambda: Response("0123456789", mimetype="text/plain"))
    client = app.test_client()
    whole = client.get("/tagged")
    assert whole.headers.get("Accept-Ranges", "none") == "none"
    for headers in ({}, {"If-Range": whole.headers["ETag"]}):
        asked = client.get("/tagged", headers={"Range": "bytes=40-", **headers})
        assert asked.status_code == 200
        assert asked.data == whole.data
        assert "Content-Range" not in asked.headers


def test_what_gets_no_snippet_comes_in_ranges(make_app: AppMaker) -> None:
    app = make_app()

    def part(text: str, **kwargs: Any) -> Response:
        current_visitor()
        response = Response(text, **kwargs)
        response.make_conditional(request, accept_ranges=True, complete_length=len(text))
        return response

    app.add_url_rule("/text", "text", lambda: part("0123456789", mimetype="text/plain"))
    load = {"Content-Disposition": "attachment"}
    app.add_url_rule("/load", "load", lambda: part(PAGE, headers=load))
    app.add_url_rule(
        "/file", "file", lambda: send_file(io.BytesIO(PAGE.encode()), mimetype="text/html")
    )
    client = app.test_client()
    inner = PAGE[3:5].encode()
    for path, data in (("/text", b"34"), ("/load", inner), ("/file", inner)):
        with client.get(path, headers={"Range": "bytes=3-4"}) as asked:
            assert asked.status_code == 206
            assert asked.data == data
            assert asked.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("validator", ['W/"a"', '"a"'])
def test_no_page_is_joined_from_one_with_the_snippet_and_a_range_without(
    wrap: Callable[..., AdRollMiddleware], validator: str
) -> None:
    """A weak tag never tells that a range fits (RFC 9110, section 13.1.5); Werkzeug takes it."""

    @WerkzeugRequest.application
    def site(request: WerkzeugRequest) -> WerkzeugResponse:
        response = WerkzeugResponse(PAGE, mimetype="text/html", headers={"ETag": '"a"'})
        return response.make_conditional(request, accept_ranges=True, complete_length=len(PAGE))

    client = Client(wrap(site))
    whole = client.get("/")
    assert whole.headers.get("Accept-Ranges", "none") == "none"
    asked = client.get("/", headers={"Range": "bytes=40-", "If-Range": validator})
    if validator.startswith("W/"):
        assert (asked.status_code, asked.data) == (200, whole.data)
    else:  # of a copy that the site itself gave, before AdRoll came
        assert (asked.status_code, asked.data) == (206, PAGE[40:].encode())


def test_a_file_is_left_alone(make_app: AppMaker) -> None:
    app = make_app()
    app.add_url_rule(
        "/file", "file", lambda: send_file(io.BytesIO(PAGE.encode()), mimetype="text/html")
    )
    assert app.test_client().get("/file").text == PAGE


def test_injection_can_be_switched_off(make_app: AppMaker) -> None:
    response = make_app(ADROLL_INJECT=False).test_client().get("/")
    assert response.text == PAGE
    assert "Set-Cookie" in response.headers


def test_a_page_that_has_the_snippet_is_not_given_a_second_one(make_app: AppMaker) -> None:
    from flask import render_template_string

    app = make_app()
    source = "<!doctype html><html><head>{{ adroll_snippet() }}</head><body></body></html>"
    app.add_url_rule("/own", "own", lambda: render_template_string(source))
    assert app.test_client().get("/own").text.count("data-adroll") == 1
    assert untouched(app) == {"page_untouched:present": 1}


@pytest.mark.parametrize(
    ("config", "told", "asks"),
    [
        ({}, {"data-gpc", "data-consent"}, False),
        ({"ADROLL_HONOR_GPC": False}, {"data-consent"}, False),
        ({"ADROLL_CONSENT": "tcf"}, {"data-gpc"}, True),
    ],
)
def test_the_tag_and_its_kit_are_those_of_the_settings(
    make_app: AppMaker, config: dict[str, Any], told: set[str], asks: bool
) -> None:
    client = make_app(**config).test_client()
    page = client.get("/").text
    assert {name for name in ("data-gpc", "data-consent") if name not in page} == told
    kit = client.get(page.partition('src="')[2].partition('"')[0])
    assert (b"__tcfapi" in kit.data) == asks


def test_stale_digests_go_and_a_strong_etag_becomes_weak(make_app: AppMaker) -> None:
    app = make_app()
    digest = hashlib.md5(PAGE.encode()).hexdigest()
    serve(
        app, headers={"ETag": f'"{digest}"', "Content-MD5": "x", "Digest": "x", "Repr-Digest": "x"}
    )
    response = app.test_client().get("/page")
    assert response.headers["ETag"] == f'W/"{digest}"'
    for name in ("Content-MD5", "Digest", "Repr-Digest"):
        assert name not in response.headers


def test_a_conditional_get_that_would_have_been_a_304_stays_one(make_app: AppMaker) -> None:
    app = make_app()

    @app.get("/etag")
    def etag() -> Response:
        response = Response(PAGE)
        response.add_etag()
        return response.make_conditional(request)  # type: ignore[return-value]

    client = app.test_client()
    client.get("/etag")
    tag = client.get("/etag").headers["ETag"]
    assert tag.startswith('W/"')
    again = client.get("/etag", headers={"If-None-Match": tag})
    assert again.status_code == 304
    assert again.data == b""
    assert again.headers["ETag"] == tag
    assert "Set-Cookie" not in again.headers


def test_the_strong_etag_of_a_picture_stays_strong_on_its_304(make_app: AppMaker) -> None:
    app = make_app()

    @app.get("/picture")
    def picture() -> Response:
        response = Response(b"png", mimetype="image/png", headers={"ETag": '"abc"'})
        return response.make_conditional(request)  # type: ignore[return-value]

    again = app.test_client().get("/picture", headers={"If-None-Match": '"abc"'})
    assert again.status_code == 304
    assert again.headers["ETag"] == '"abc"'


def test_a_stream_that_nobody_reads_to_its_end_is_closed_once(
    wrap: Callable[..., AdRollMiddleware],
) -> None:
    class Body:
        closed = 0

        def __iter__(self) -> Body:
            return self

        def __next__(self) -> bytes:
            return PAGE.encode()

        def close(self) -> None:
            self.closed += 1

    body = Body()

    def site(environ: dict[str, Any], start_response: Any) -> Body:
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return body

    response = Client(wrap(site)).get("/")
    chunks = iter(response.response)
    assert b"data-adroll" in next(chunks)
    assert next(chunks) == PAGE.encode()
    response.close()
    del response, chunks
    assert body.closed == 1


def test_a_page_compressed_before_us_is_left_alone_and_the_mend_is_said_once(
    make_app: AppMaker, caplog: pytest.LogCaptureFixture
) -> None:
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
    import gzip

    class Later(AdRoll):
        def init_app(self, app: Flask) -> None:
            Compress(app)
            super().init_app(app)

    app = make_app(Later(), COMPRESS_MIN_SIZE=1)
    response = app.test_client().get("/", headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert b"data-adroll" in gzip.decompress(response.data)


@pytest.mark.parametrize("stream", [True, False])
def test_a_fault_while_placing_gives_the_page_as_it_was(
    make_app: AppMaker, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    app = make_app(ADROLL_STRICT=False)

    def broken(*_: object, **__: object) -> None:
        raise LookupError

    def chunks() -> Iterator[str]:
        for start in range(0, len(PAGE), 9):
            yield PAGE[start : start + 9]

    app.add_url_rule("/page", "page", lambda: chunks() if stream else PAGE)
    monkeypatch.setattr("adroll_flask.page.placement.Placer.feed", broken)
    with app.test_client().get("/page") as response:
        assert response.get_data(as_text=True) == PAGE
    assert untouched(app) == {"page_untouched:fault": 1}
