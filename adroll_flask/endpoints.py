"""Our two endpoints: ``POST {prefix}/identity`` and the kit's file. Request in, response out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from werkzeug.wrappers import Response

from .host_names import why_foreign
from .page.cookies import delete_cookies, write_cookies
from .runtime import Runtime
from .visitor.consent import decide
from .visitor.kit_message import KitMessage, Refused, parse
from .visitor.record import Record
from .visitor.tracked_request import TrackedRequest

#: The longest body that the identity endpoint reads, bytes.
LONGEST_BODY = 2048
#: ``X-AdRoll-Check``, with which ``flask adroll check --url`` asks whose address the app sees.
CHECK_HEADER = "HTTP_X_ADROLL_CHECK"
#: Seconds for which a browser need not ask again; Chromium takes no more.
_PREFLIGHT_AGE = 7200


def answer(tracked: TrackedRequest, runtime: Runtime, name: str) -> Response:
    """What the endpoint *name*, below our prefix, says."""
    takes = ("POST", "OPTIONS") if name == "identity" else ("GET", "HEAD")
    if tracked.method not in takes:
        return Response(status=405, headers={"Allow": ", ".join(takes)})
    if name == "identity":
        return _identity(tracked, runtime)
    file = runtime.snippet.file(tracked, name)
    return _json_response({"error": "there is no such file"}, 404) if file is None else file


def _identity(tracked: TrackedRequest, runtime: Runtime) -> Response:
    """Answer the kit: keep what it tells of the caller's own identity, and give what was written.

    Well-formed: 204, or 200 with the consent's state where ``ADROLL_CONSENT`` is set; else 400,
    403, 413 or 415 with a short JSON error that holds nothing of the input. A front end of
    ``ADROLL_ORIGINS`` may ask (CORS, preflight) and gets a token where it wants one.
    """
    origins = tracked.visitors.settings.origins
    # An origin that is not listed exactly so counts as none.
    origin = tracked.environ.get("HTTP_ORIGIN")
    if origin not in origins:
        origin = None
    if tracked.method == "OPTIONS":
        response = _json_response(None, 204)
        response.headers["Allow"] = "POST, OPTIONS"
        if origin is not None:
            response.headers["Access-Control-Allow-Methods"] = "POST"
            response.headers["Access-Control-Allow-Headers"] = "content-type"
            response.headers["Access-Control-Max-Age"] = str(_PREFLIGHT_AGE)
    else:
        try:
            _allowed_origin(tracked, origin)
            message = parse(_body(tracked), token=bool(origins))
            response = _take_message(tracked, runtime, message, origin)
        except Refused as refused:
            status, why, text = refused.args
            tracked.visitors.counters.add("identity_refused", why)
            response = _json_response({"error": text}, status)
    runtime.conclude(tracked)
    if CHECK_HEADER in tracked.environ:
        response.headers["X-AdRoll-Sender"] = _sender(tracked)
    if origins:
        response.headers["Vary"] = "Origin"
        # flask-cors adds its own headers to every response that does not carry this mark. Browsers
        # refuse an answer with two Access-Control-Allow-Origin.
        response._FLASK_CORS_EVALUATED = True  # type: ignore[attr-defined]
    if origin is not None:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Credentials"] = "true"
    return response


def _sender(tracked: TrackedRequest) -> str:
    """Whose address the app takes for the caller's: a proxy's, or their own (``visitor``)."""
    address = tracked.environ.get("REMOTE_ADDR")
    chain = tracked.environ.get("HTTP_X_FORWARDED_FOR", "").strip()
    if not address or not chain:
        return tracked.sender
    if chain == address:  # it may be private: in the proxy's own network
        return "visitor"
    return tracked.sender if address in chain else "proxy"


def _take_message(
    tracked: TrackedRequest, runtime: Runtime, message: KitMessage, origin: str | None
) -> Response:
    visitors = tracked.visitors
    before = tracked.seen.record
    recorded = before.consent if before is not None and message.consent is None else message.consent
    decision = decide(visitors, tracked.environ, recorded)
    content: dict[str, bool | str | None] = {}
    if visitors.settings.consent is not None:
        content["consent"] = decision.granted
    granted = False if message.consent is False else decision.granted
    record = message.record_of(tracked) if granted else Record()
    if message.token:
        # For the front end to hand on. Of a visitor who said no it holds nothing but the no.
        visitor = tracked.visitor_of(record, granted)
        if origin:
            visitor = replace(visitor, host=urlsplit(origin).netloc)
        content["token"] = visitor.token() if visitors.can_sign else None
    response = _json_response(content, 200) if content else _json_response(None, 204)
    if granted is False and tracked.seen.any:
        delete_cookies(tracked, response.headers)
    tracked.forgotten |= granted is False
    if not granted:
        return response
    unchanged = record == before and tracked.seen.settled(visitors.clock())
    # A browser takes no cookie of another site from a script's request (SameSite=Lax).
    foreign = tracked.environ.get("HTTP_SEC_FETCH_SITE") == "cross-site"
    if visitors.can_sign and not (unchanged or foreign):
        write_cookies(tracked, response.headers, record)
    return response


# -- who may ask -----------------------------------------------------------------------------


def _allowed_origin(tracked: TrackedRequest, listed: str | None) -> None:
    where = tracked.environ.get("HTTP_SEC_FETCH_SITE")
    if listed is not None and where in (None, "same-origin", "same-site", "cross-site"):
        # Browsers set Origin themselves; pages cannot.
        return
    why = why_foreign(tracked.environ, tracked.host)
    if why:
        raise Refused(403, why, "same-origin requests only")


def _body(tracked: TrackedRequest) -> bytes:
    environ = tracked.environ
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # text/plain and forms could be sent from anywhere without a preflight.
        raise Refused(415, "content_type", "Content-Type has to be application/json")
    length = environ.get("CONTENT_LENGTH") or ""
    if length and not (length.isascii() and length.isdigit()):
        raise Refused(400, "length", "Content-Length is malformed")
    # A body in chunks is too long if one byte more than is taken can be read.
    in_chunks = LONGEST_BODY + 1 if environ.get("wsgi.input_terminated") else 0
    size = int(length[:9]) if length else in_chunks
    too_large = Refused(413, "too_large", f"at most {LONGEST_BODY} bytes")
    if length and size > LONGEST_BODY:
        raise too_large
    if not size:
        return b""
    # Flask's request keeps what is read: the site's functions before us may have read it, and those
    # after us may want it.
    request: Any = environ.get("werkzeug.request")
    stream: Any = getattr(request, "stream", environ["wsgi.input"])
    get_data = getattr(request, "get_data", bytes)
    body: bytes = get_data() if length else b""
    body = body or stream.read(size) or get_data()
    if len(body) > LONGEST_BODY:
        raise too_large
    return body


def _json_response(data: object, status: int) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if data is None:
        # With a Content-Type, as Flask gives one to each response: a site's functions rely on that.
        return Response(status=status, headers=headers)
    return Response(json.dumps(data), status, headers, mimetype="application/json")
