"""Pages that scripts fetch: which take the snippet, by the real requests of those who ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response

from adroll_flask import current_visitor
from adroll_flask.sandbox import RunningSandbox
from tests.support import ROOT, eventually, lacking
from tests.support.page_shop import PageShop
from tests.support.pages import blocks
from tests.support.serving import serving
from tests.support.sites import described

MODULES = ROOT / "docs" / "node_modules"
HTMX, TURBO = "htmx.org/dist/htmx.min.js", "@hotwired/turbo/dist/turbo.es2017-umd.js"
JQUERY, PJAX = "jquery/dist/jquery.min.js", "jquery-pjax/jquery.pjax.js"
#: A library's files, how it asks for a page, and the header by which it does.
LIBRARIES = {
    "htmx": ([HTMX], "void htmx.ajax('GET', '/whole', '#place')", "HTTP_HX_REQUEST"),
    "a frame of Turbo": (
        [TURBO],
        "void (document.querySelector('turbo-frame').src = '/whole')",
        "HTTP_TURBO_FRAME",
    ),
    "pjax": (
        [JQUERY, PJAX],
        "void $.pjax({url: '/whole', container: '#place', timeout: 0})",
        "HTTP_X_PJAX",
    ),
    "jQuery": ([JQUERY], "void $.get('/whole')", "HTTP_X_REQUESTED_WITH"),
}
WHOLE = "<!doctype html><html><head><title>Whole</title></head><body>Mugs</body></html>"
[KEEPS_PAGES] = [block.code for block in blocks("docs/how-to/service-workers.md")]
PASSES_ON = """
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => event.respondWith(fetch(event.request)));
"""


@dataclass
class Fetched:
    """A site, and what it was asked for."""

    url: str
    #: By path and query: the request, the headers of its answer, and its body.
    answers: dict[str, tuple[dict[str, Any], dict[str, str], bytes]] = field(default_factory=dict)

    def answer(self, path: str) -> tuple[dict[str, Any], dict[str, str], bytes]:
        eventually(lambda: path in self.answers)
        return self.answers[path]


@pytest.fixture
def site_with(adroll: RunningSandbox, tmp_path: Path) -> Callable[..., Any]:
    """Serves a page with the scripts of a library."""

    @contextmanager
    def serve(*files: str, worker: str = "") -> Iterator[Fetched]:
        if not (MODULES / HTMX).is_file():
            lacking("no npm packages: make docs brings them")
        origin = adroll.url_at("adroll.example")
        pixel = {"ADROLL_PIXEL_URL": origin + "/j/{advertisable_eid}/roundtrip.js"}
        shop = PageShop(tmp_path, adroll, pixel | {"ADROLL_DELIVERY": "worker"})
        shop.start()
        add_pages(shop.app, files, worker)
        site = Fetched("")
        with serving(noting(shop.app, site)) as port:
            # A service worker needs a secure context, as this address is one.
            site.url = f"http://127.0.0.1:{port}"
            yield site

    return serve


def add_pages(app: Flask, files: tuple[str, ...], worker: str) -> None:
    scripts = "".join(f"<script src='/npm/{file}'></script>" for file in files)
    register = "<script>navigator.serviceWorker.register('/worker.js')</script>" if worker else ""
    page = (
        f"<!doctype html><html><head><title>Shop</title>{scripts}{register}</head>"
        "<body><div id=place></div><turbo-frame id=place2></turbo-frame></body></html>"
    )

    def javascript(text: str) -> Response:
        return Response(text, mimetype="text/javascript")

    app.view_functions["home"] = lambda: page
    app.add_url_rule("/whole", "whole", lambda: WHOLE)
    app.add_url_rule("/npm/<path:f>", "npm", lambda f: javascript((MODULES / f).read_text()))
    app.add_url_rule("/worker.js", "worker", lambda: javascript(worker))
    app.add_url_rule("/who", "who", lambda: described(current_visitor()), methods=["POST"])


def noting(app: Flask, site: Fetched) -> Any:
    def wrapped(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sent: dict[str, str] = {}

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            sent.update(headers)
            return start_response(status, headers, *rest)

        answer = app.wsgi_app(environ, start)
        body = b"".join(answer)
        query = environ.get("QUERY_STRING", "")
        asked = environ["PATH_INFO"] + (f"?{query}" if query else "")
        asked = asked.partition("?_pjax")[0]
        site.answers.setdefault(asked, (environ, sent, body))
        return [body]

    return wrapped


@pytest.mark.parametrize("name", LIBRARIES)
def test_what_a_library_asks_for_is_left_alone(name: str, site_with: Any, page: Any) -> None:
    files, ask, header = LIBRARIES[name]
    with site_with(*files) as site:
        page.goto(site.url)
        page.evaluate(ask)
        environ, headers, body = site.answer("/whole")
        assert environ.get(header)
        assert body == WHOLE.encode()
        assert "Set-Cookie" not in headers
        if name == "pjax":
            # It goes to a page that is a whole one. A browser that is closed amid that may not end.
            page.wait_for_function("document.title == 'Whole'")


def test_a_page_that_turbo_goes_to_has_the_snippet_once_and_runs_it_once(
    site_with: Any, page: Any
) -> None:
    with site_with(TURBO) as site:
        page.goto(site.url)
        page.evaluate("void (window.before = true)")
        page.evaluate("void Turbo.visit('/whole')")
        _, headers, body = site.answer("/whole")
        page.wait_for_function("document.title == 'Whole'")
        assert body.count(b"data-adroll") == 1
        assert "Set-Cookie" not in headers
        assert page.evaluate("window.before") is True
        assert page.evaluate("document.querySelectorAll('script[data-adroll]').length") == 1


def test_a_page_that_a_service_worker_kept_brings_the_click_in(site_with: Any, page: Any) -> None:
    with site_with(worker=KEEPS_PAGES) as site:
        page.goto(site.url)
        page.wait_for_function("navigator.serviceWorker.controller")
        page.goto(f"{site.url}/?adct=click123")
        assert page.evaluate("document.querySelectorAll('script[data-adroll]').length") == 1
        assert "/?adct=click123" not in site.answers, "the server has not seen the landing"
        who = "(() => fetch('/who', {method: 'POST'}).then((one) => one.json()))"
        eventually(lambda: page.evaluate(who)["adct"] == "click123")


def test_a_page_that_a_service_worker_passes_on_is_one_like_any_other(
    site_with: Any, page: Any
) -> None:
    with site_with(worker=PASSES_ON) as site:
        page.goto(site.url)
        page.wait_for_function("navigator.serviceWorker.controller")
        page.goto(f"{site.url}/?adct=click123")
        environ, headers, _ = site.answer("/?adct=click123")
        assert environ["HTTP_SEC_FETCH_DEST"] == "empty"
        assert "Set-Cookie" in headers
