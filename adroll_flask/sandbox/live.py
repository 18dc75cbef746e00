"""The live view: a page, and the stream of events that it shows."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from operator import itemgetter

from flask import Blueprint, Response, abort, render_template, request

from . import local_only
from .parts import Sandbox
from .state import SandboxState

_ASSETS = {
    "live.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "ad.css": "text/css; charset=utf-8",
}
# Everything on the page comes from the sandbox itself and no event is ever read as HTML.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_AT_ONCE = 200
_BREATH = 0.15
_HEARTBEAT = 15.0
_MOST_VIEWERS = 24


def blueprint(sandbox: Sandbox) -> Blueprint:
    routes = Blueprint("live", __name__)
    folder = files("adroll_flask.sandbox") / "assets"
    viewers = threading.BoundedSemaphore(_MOST_VIEWERS)

    @routes.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @routes.get("/")
    def page() -> str:
        return render_template("live.html", account=sandbox.account, shop_url=sandbox.shop_url)

    @routes.get("/assets/<name>")
    def asset(name: str) -> Response:
        if name not in _ASSETS:
            abort(404)
        return Response((folder / name).read_bytes(), content_type=_ASSETS[name])

    @routes.get("/live")
    def stream() -> Response:
        if not local_only.is_own_page(request.headers.get("Sec-Fetch-Site")):
            abort(403)
        if not viewers.acquire(blocking=False):
            abort(503)
        response = Response(_stream(sandbox), content_type="text/event-stream")
        response.call_on_close(viewers.release)
        return response

    return routes


def _stream(sandbox: Sandbox) -> Iterator[bytes]:
    yield b"retry: 1000\n\n"
    state = sandbox.state
    last_revision = generation = version = -1
    while not state.closed:
        with state.changed:
            reset = generation != state.generation
            generation = state.generation
            events = state.events(after=-1 if reset else last_revision)
            last_revision = state.revision
            version = state.version
            news = {
                "reset": reset,
                "events": sorted(events, key=itemgetter("revision"))[-_AT_ONCE:],
                "totals": state.totals(),
                "meter": state.meter(),
                "faults": sandbox.faults.list(),
            }
        # Sent outside the lock: a viewer that does not read must not hold up the API.
        yield f"data: {json.dumps(news)}\n\n".encode()
        while not _changed(state, version):
            yield b": still here\n\n"
        # Events come in bursts: one message for each burst, not one for each event.
        time.sleep(_BREATH)


def _changed(state: SandboxState, version: int) -> bool:
    with state.changed:
        return state.changed.wait_for(
            lambda: state.closed or state.version != version, timeout=_HEARTBEAT
        )
