"""The pixel script, and the beacons that it sends."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from flask import Blueprint, Response, abort, request

from . import value_checks
from .faults import FAULT
from .parts import Sandbox

_MOST_BEACON = 65536
_SCRIPT = "text/javascript; charset=utf-8"
# A transparent GIF of one pixel, for browsers without sendBeacon.
_GIF = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)


def blueprint(sandbox: Sandbox) -> Blueprint:
    routes = Blueprint("pixel", __name__)
    source = (files("adroll_flask.sandbox") / "assets" / "roundtrip.js").read_text("utf-8")

    def _check(eid: str) -> None:
        if sandbox.account.of(eid) is None:
            abort(404)

    @routes.after_request
    def for_any_site(response: Response) -> Response:
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @routes.get("/j/<eid>/roundtrip.js")
    def script(eid: str) -> Response:
        _check(eid)
        fault = request.environ.get(FAULT)
        settings = {
            "eid": eid,
            "origin": request.host_url.rstrip("/"),
            "get_cookie": fault.get_cookie if fault else None,
        }
        return Response(
            source.replace("/*SETTINGS*/{}", json.dumps(settings)),
            content_type=_SCRIPT,
            headers={"Cache-Control": "no-cache"},
        )

    @routes.get("/consent/check/<eid>")
    def consent_check(eid: str) -> Response:
        """Whether the visitor has to be asked, which in reality depends on the country."""
        _check(eid)
        fault = request.environ.get(FAULT)
        required = "true" if fault is not None and fault.consent == "ask" else "false"
        return Response(f"__adroll_sandbox_check({required});", content_type=_SCRIPT)

    @routes.route("/pixel/beacon/<eid>", methods=["GET", "POST"])
    def beacon(eid: str) -> Response:
        _check(eid)
        sent = (
            request.args.get("data", "").encode()
            if request.method == "GET"
            else request.stream.read(_MOST_BEACON + 1)
        )
        sighting = read_beacon(sent)
        if sighting is None:
            abort(400)
        sandbox.state.add_pixel(sighting)
        if request.method == "GET":
            return Response(_GIF, content_type="image/gif")
        return Response(status=204)

    return routes


def read_beacon(sent: bytes) -> dict[str, Any] | None:
    """Read what the pixel says; ``None`` when it is nothing that the pixel would say."""
    if len(sent) > _MOST_BEACON:
        return None
    try:
        message = json.loads(sent)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("kind") not in ("cookie", "track", "identify"):
        return None
    cookie = message.get("cookie")
    page = message.get("page")
    attributes = message.get("attributes")
    # As the browser has it: browsers leave some characters as they are that no URL may hold.
    if not isinstance(page, str) or not page.startswith(("http://", "https://")):
        page = ""
    query = page.partition("#")[0].partition("?")[2]
    click = parse_qs(query).get("adct", [""])[0]
    return {
        "kind": message["kind"],
        "cookie": cookie if value_checks.cookie(cookie) is None else None,
        "adopted": message.get("adopted") is True,
        "page": page or None,
        "adct": click if value_checks.click_id(click) is None else None,
        "name": _bounded(message.get("name")),
        "order_id": _bounded(message.get("order_id")),
        "attributes": attributes if isinstance(attributes, dict) else None,
    }


def _bounded(value: Any) -> str | None:
    return value[:512] if isinstance(value, str) and value else None
