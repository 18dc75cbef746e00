"""Our two doors: ``POST {prefix}/identity`` and the kit's file. Request in, response out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from werkzeug.wrappers import Response

from .cookies import delete_cookies, write_cookies
from .identifiers import accept_adct, normalise_first_party_cookie
from .record import Record

if TYPE_CHECKING:
    from .domains import Domains
    from .exchange import Exchange
    from .snippet import Snippet

#: The longest body that the identity endpoint reads, bytes.
LONGEST_BODY = 2048
#: The name of the kit's file below the prefix.
KIT = re.compile(r"kit\.([0-9a-f]{8,64})\.js\Z")
_KEYS = ("adct", "first_party_cookie", "consent")


class Refused(Exception):
    """A request that the identity endpoint does not take."""

    def __init__(self, status: int, why: str, text: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.text = text


@dataclass(frozen=True, slots=True, repr=False)
class Told:
    """What the kit said, checked."""

    adct: str | None
    first_party_cookie: str | None
    consent: bool | None


@dataclass(frozen=True, slots=True)
class Identified:
    """The identity endpoint's answer and what has to follow from it."""

    response: Response
    #: The record that was written, if any.
    record: Record | None = None
    #: Whose waiting events are to be dropped: the visitor withdrew consent.
    withdrawn: Record | None = None


def identity(exchange: Exchange, domains: Domains) -> Identified:
    """Answer the kit: keep what it tells of the caller's own identity.

    Well-formed: 204, or 200 with the consent's state where ``ADROLL_CONSENT`` is set; else 400,
    403, 413 or 415 with a short JSON error that holds nothing of the input.
    """
    try:
        _same_origin(exchange)
        told = parse(_body(exchange))
    except Refused as refused:
        exchange.site.counters.add("identity_refused", refused.why)
        return Identified(_json({"error": refused.text}, refused.status))
    return _take(exchange, domains, told)


def _take(exchange: Exchange, domains: Domains, told: Told) -> Identified:
    site = exchange.site
    before = exchange.seen.record
    recorded = told.consent
    if recorded is None and before is not None:
        recorded = before.consent
    decision = exchange.decide(recorded)
    answer: dict[str, bool | None] = {"consent": decision.granted or decision.answer}
    asked = site.settings.consent is not None
    response = _json(answer, 200) if asked else _json(None, 204)
    if told.consent is False or not decision.granted:
        withdrawn = None
        if told.consent is False or decision.answer is False:
            if exchange.seen.any:
                withdrawn = exchange.seen.merged
                delete_cookies(exchange, response.headers, domains)
            exchange.forgotten = True
        return Identified(response, withdrawn=withdrawn)
    record = exchange.seen.merged
    now = site.clock()
    if told.adct is not None:
        record = record.with_adct(told.adct, now, "kit")
    if told.first_party_cookie is not None:
        record = record.with_cookie(told.first_party_cookie, "pixel")
    elif record.first_party_cookie is None:
        record = record.with_cookie(exchange.candidate(), "server")
    if told.consent is not None:
        record = replace(record, consent=told.consent)
    unchanged = before is not None and record.same_as(before) and exchange.seen.settled(now)
    if unchanged or not site.records.can_sign:
        return Identified(response)
    write_cookies(exchange, response.headers, domains, record)
    return Identified(response, record=record)


def _same_origin(exchange: Exchange) -> None:
    environ = exchange.environ
    where = environ.get("HTTP_SEC_FETCH_SITE")
    if where is not None:
        # Fetch Metadata: browsers set it themselves, scripts cannot.
        if where != "same-origin":
            raise Refused(403, "cross_site", "same-origin requests only")
        return
    origin = environ.get("HTTP_ORIGIN", "")
    try:
        netloc = urlsplit(origin).netloc.lower()
    except ValueError:
        netloc = ""
    if not netloc or netloc != exchange.host:
        why = "cross_origin" if origin else "no_origin"
        raise Refused(403, why, "same-origin requests only")


def _body(exchange: Exchange) -> bytes:
    environ = exchange.environ
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # text/plain and forms could be sent from anywhere without a preflight.
        raise Refused(415, "content_type", "Content-Type has to be application/json")
    length = environ.get("CONTENT_LENGTH") or ""
    stream = environ["wsgi.input"]
    if length:
        if not length.isdigit():
            raise Refused(400, "length", "Content-Length is malformed")
        if len(length) > 9 or int(length) > LONGEST_BODY:
            raise Refused(413, "too_large", f"at most {LONGEST_BODY} bytes")
        body: bytes = stream.read(int(length))
    elif environ.get("wsgi.input_terminated"):
        body = stream.read(LONGEST_BODY + 1)
    else:
        body = b""
    if len(body) > LONGEST_BODY:
        raise Refused(413, "too_large", f"at most {LONGEST_BODY} bytes")
    return body


def parse(body: bytes) -> Told:
    """The checked content of an identity request.

    :raises Refused: with status 400.

    >>> parse(b'{"adct": "click123"}').adct
    'click123'
    """
    try:
        data = json.loads(body.decode("utf-8"), object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError):
        raise Refused(400, "json", "the body has to be a JSON object, each key once") from None
    if not isinstance(data, dict):
        raise Refused(400, "json", "the body has to be a JSON object, each key once")
    if not data.keys() <= set(_KEYS):
        raise Refused(400, "keys", f"the keys are {', '.join(_KEYS)}")
    consent = data.get("consent")
    if consent is not None and not isinstance(consent, bool):
        raise Refused(400, "consent", "consent has to be true or false")
    return Told(
        adct=_checked(data, "adct", _adct),
        first_party_cookie=_checked(data, "first_party_cookie", normalise_first_party_cookie),
        consent=consent,
    )


def _adct(text: str) -> str | None:
    # A script reads a plus sign in the URL as a space; a click id has none.
    return accept_adct(text.replace(" ", "+"))


def _checked(data: dict[str, Any], key: str, check: Callable[[str], str | None]) -> str | None:
    value = data.get(key)
    if value is None:
        return None
    accepted = check(value) if isinstance(value, str) else None
    if accepted is None:
        raise Refused(400, key, f"{key} is malformed")
    return accepted


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("repeated key")
    return data


def _json(data: object, status: int) -> Response:
    body = b"" if data is None else json.dumps(data).encode()
    response = Response(body, status=status, mimetype="application/json")
    if data is None:
        response.headers.pop("Content-Type", None)
        response.headers.pop("Content-Length", None)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def kit(exchange: Exchange, snippet: Snippet, name: str) -> Response:
    """The kit's file. Any hash is served, for pages that a cache kept from before an update."""
    match = KIT.match(name)
    if match is None:
        return _json({"error": "there is no such file"}, 404)
    response = Response(snippet.kit, mimetype="text/javascript")
    response.headers["Content-Type"] = "text/javascript; charset=utf-8"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.set_etag(snippet.hash)
    if match[1] == snippet.hash:
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    else:
        response.headers["Cache-Control"] = "public, max-age=300"
    response.make_conditional(exchange.environ)
    return response
