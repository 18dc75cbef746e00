"""The ad, and the click that leads from it to the shop with a fresh click id."""

from __future__ import annotations

import re
import secrets
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from flask import Blueprint, Response, abort, render_template, request

from . import local_only, value_checks
from .parts import Sandbox

_SCHEME = re.compile(r"https?://", re.IGNORECASE)


def blueprint(sandbox: Sandbox) -> Blueprint:
    routes = Blueprint("ad", __name__)

    def destination() -> str:
        to = request.args.get("to", sandbox.shop_url)
        if to != sandbox.shop_url and not may_lead_to(to, sandbox.hosts):
            abort(
                Response(
                    "The ad leads to this machine, .test and .example names, and configured hosts"
                    " only.\n",
                    status=400,
                    content_type="text/plain; charset=utf-8",
                )
            )
        return to

    @routes.get("/ad")
    def page() -> Response:
        to = destination()
        response = Response(render_template("ad.html", click="/click?" + urlencode({"to": to})))
        response.headers["Cache-Control"] = "no-store"
        return response

    @routes.get("/click")
    def click() -> Response:
        to = destination()
        # Both cases, digits and signs: what changes any of them on the way does not match.
        adct = "Sbx." + secrets.token_urlsafe(15)
        sandbox.state.add_click(adct, to)
        return Response(
            status=302,
            headers={"Location": with_click_id(to, adct), "Cache-Control": "no-store"},
        )

    return routes


def may_lead_to(url: str, hosts: frozenset[str]) -> bool:
    """Say whether a click may lead there: to this machine, test names, or configured hosts.

    Anything else would make the sandbox an open redirect.
    """
    # urlsplit and browsers differ over backslashes, controls and credentials, so none may be there.
    if not _SCHEME.match(url) or value_checks.url(url) or "\\" in url:
        return False
    parts = urlsplit(url)
    return "@" not in parts.netloc and local_only.is_local_name(parts.hostname or "", hosts)


def with_click_id(url: str, adct: str) -> str:
    """Put ``adct`` into a URL's query in place of one that is there."""
    parts = urlsplit(url)
    kept = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "adct"]
    query = urlencode([*kept, ("adct", adct)])
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", query, parts.fragment))
