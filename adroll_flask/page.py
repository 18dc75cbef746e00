"""What of ours a response may carry, cookies and snippet, and which headers change with it.

Works on a status, werkzeug's ``Headers`` and bytes, so that both adapters share every rule.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from werkzeug.http import dump_cookie

from .placement import Placer, ascii_compatible, place
from .redaction import describe
from .visitor import COOKIE_LIFE, FIRST_PARTY_COOKIE, RECORD_COOKIE

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

    from .domains import Domains
    from .exchange import Exchange
    from .visitor import Record

_LOG = logging.getLogger("adroll_flask.page")

#: Headers that describe the body's bytes and are wrong once the snippet is in.
_STALE = ("content-md5", "digest", "content-digest", "repr-digest")

#: A response's headers by lower-case name, repeated ones joined. werkzeug's ``Headers`` walks its
#: list, and raises and catches within, for each question; here one walk answers all.
Look = Mapping[str, str]


def look(headers: Headers) -> Look:
    """One look at *headers*, before anything is changed."""
    found: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


@dataclass(frozen=True, slots=True)
class Dressed:
    """What :func:`dress` did to a response."""

    #: The visitor's record that went out with it, if any.
    record: Record | None
    #: Where the body has to go through for the snippet, if it takes one.
    page: Page | None
    #: The visitor refused: what else is kept of the visitor has to go, too.
    taken_back: bool


def dress(
    exchange: Exchange,
    status: int,
    headers: Headers,
    *,
    domains: Domains,
    tag: Callable[[Exchange], bytes],
    whole: bool = True,
) -> Dressed:
    """Change a response's headers as the visitor's state asks, and say what its body needs.

    :param status: the HTTP status code.
    :param headers: changed in place.
    :param tag: returns the snippet for this exchange.
    :param whole: False for a body that is to be left alone, such as a file.
    """
    seen = look(headers)
    html = is_html(seen.get("content-type"))
    record = update_cookies(exchange, headers, seen, domains, html=html)
    refused = html and record is None and exchange.decision.answer is False
    page = None
    if exchange.viewed:
        _vary_by_cookie(headers, seen)
    if status == 304:
        mend_not_modified(exchange, headers)
    elif html and exchange.site.settings.inject:
        if whole:
            page = open_page(exchange, status, headers, seen, tag)
        else:
            exchange.site.counters.add("page_untouched", "passthrough")
    return Dressed(record, page, exchange.forgotten or refused)


def _vary_by_cookie(headers: Headers, seen: Look) -> None:
    vary = seen.get("vary", "")
    names = {name.strip().lower() for name in vary.split(",")}
    if not names & {"cookie", "*"}:
        headers["Vary"] = f"{vary}, Cookie" if vary else "Cookie"


# -- caches --------------------------------------------------------------------------------


def is_shared_cacheable(exchange: Exchange, seen: Look) -> bool:
    """True where a cache between the site and its visitors may keep the response.

    design.md, "Shared-cacheable"; the directives are those of RFC 9111, section 5.2.2.
    """
    if exchange.method not in ("GET", "HEAD"):
        return False
    settings = exchange.site.settings
    if settings.cached_paths:
        path = exchange.path
        if any(fnmatchcase(path, pattern) for pattern in settings.cached_paths):
            return True
    control = seen.get("cache-control")
    if control:
        directives = _directives(control)
        if "no-store" in directives or "private" in directives:
            return False
        if "public" in directives or "s-maxage" in directives:
            return True
        age = directives.get("max-age", "")
        if age.isdigit() and int(age[:12]) > 0:
            return True
    if "cdn-cache-control" in seen or "surrogate-control" in seen:
        return True
    expires = seen.get("expires")
    return expires is not None and _is_future(expires, exchange.site.clock())


def _directives(control: str) -> dict[str, str]:
    directives: dict[str, str] = {}
    for part in control.split(","):
        name, _, value = part.strip().partition("=")
        directives[name.strip().lower()] = value.strip().strip('"')
    return directives


def _is_future(date: str, now: float) -> bool:
    try:
        return parsedate_to_datetime(date).timestamp() > now
    except (ValueError, TypeError, OverflowError):
        # RFC 9111, section 5.3: an invalid date, "0" above all, is in the past.
        return False


# -- cookies -------------------------------------------------------------------------------


def update_cookies(
    exchange: Exchange, headers: Headers, look: Look, domains: Domains, *, html: bool
) -> Record | None:
    """Write the visitor's cookies where something changed and the response may carry them.

    :param html: the response is an HTML page.
    :returns: the record that was written, for the session's mirror.
    """
    clicked = exchange.adct is not None
    if not (html or clicked or exchange.forgotten):
        return None
    decision = exchange.decision
    seen = exchange.seen
    if not decision.granted or exchange.forgotten:
        taken_back = decision.answer is False or exchange.forgotten
        if seen.any and taken_back and not is_shared_cacheable(exchange, look):
            delete_cookies(exchange, headers, domains)
        return None
    now = exchange.site.clock()
    if not clicked and (seen.settled(now) or not exchange.is_document):
        # A fragment's or a picture's answer (an error page is HTML, too) may cross with what the
        # kit tells at the same moment, and would undo it. The next page is soon enough.
        return None
    if not exchange.site.records.can_sign or is_shared_cacheable(exchange, look):
        return None
    record = exchange.record
    if record.first_party_cookie is None and html and exchange.may_generate:
        record = record.with_cookie(exchange.candidate(), "server")
    if record.adct is None and record.first_party_cookie is None:
        return None
    if seen.settled(now) and seen.record is not None and record.same_as(seen.record):
        return None
    write_cookies(exchange, headers, domains, record)
    return record


def write_cookies(exchange: Exchange, headers: Headers, domains: Domains, record: Record) -> None:
    """Set ``adroll_visitor`` and its working copy for the pixel, for a year."""
    settings = exchange.site.settings
    secure = exchange.is_secure if settings.cookie_secure is None else settings.cookie_secure
    hostname = exchange.hostname
    headers.add(
        "Set-Cookie",
        dump_cookie(
            RECORD_COOKIE,
            exchange.site.records.sign(record),
            max_age=COOKIE_LIFE,
            domain=domains.of_record(hostname),
            secure=secure,
            httponly=True,
            samesite="Lax",
        ),
    )
    if record.first_party_cookie is not None:
        headers.add(
            "Set-Cookie",
            dump_cookie(
                FIRST_PARTY_COOKIE,
                record.first_party_cookie,
                max_age=COOKIE_LIFE,
                # The pixel writes domain=<hostname>: the same cookie, not a second one.
                domain=domains.of_page(hostname),
                secure=secure,
                samesite="Lax",
            ),
        )
    _keep_private(headers)


def delete_cookies(exchange: Exchange, headers: Headers, domains: Domains) -> None:
    """Take both cookies back, the host-only and the domain cookie of each name."""
    hostname = exchange.hostname
    page = domains.of_page(hostname)
    wanted = [(RECORD_COOKIE, None), (FIRST_PARTY_COOKIE, None), (FIRST_PARTY_COOKIE, page)]
    wanted += [(RECORD_COOKIE, page), (RECORD_COOKIE, domains.of_record(hostname))]
    for name, domain in dict.fromkeys(wanted):
        headers.add("Set-Cookie", dump_cookie(name, "", max_age=0, expires=0, domain=domain))
    _keep_private(headers)


def _keep_private(headers: Headers) -> None:
    # Promise 4: only where the site had said nothing about caching.
    if "Cache-Control" not in headers and "Expires" not in headers:
        headers["Cache-Control"] = "private"


# -- the snippet ---------------------------------------------------------------------------


def is_html(kind: str | None) -> bool:
    """True where the Content-Type says that the response is HTML."""
    return kind is not None and kind[:9].lower() == "text/html" and kind[9:10] in ("", ";", " ")


def charset_of(kind: str) -> str | None:
    """The charset that the Content-Type names, if it names one."""
    at = kind.lower().find("charset=")
    return kind[at + 8 :].partition(";")[0].strip(" \"'") or None if at >= 0 else None


class Page:
    """Places the snippet into one response; made by :func:`open_page`."""

    def __init__(
        self, exchange: Exchange, headers: Headers, seen: Look, charset: str | None, tag: bytes
    ) -> None:
        self._exchange = exchange
        self._headers = headers
        self._seen = seen
        self._charset = charset
        self._tag = tag

    def whole(self, body: bytes) -> bytes:
        """The page with the snippet, and its headers mended; untouched where it has no place."""
        try:
            body, outcome = place(body, self._tag, charset=self._charset)
        except Exception as problem:
            # Promise 1: the page goes out as the site made it.
            outcome = "fault"
            _LOG.error("AdRoll left a page alone, a fault of adroll_flask: %s", describe(problem))
        if outcome == "injected":
            self._exchange.site.counters.add("page_injected")
            if "content-length" in self._seen:
                self._headers["Content-Length"] = str(len(body))
            _mend(self._headers, self._seen)
        else:
            self._exchange.site.counters.add("page_untouched", outcome)
        return body

    def stream(self, chunks: Iterable[bytes], close: Callable[[], object] | None) -> PlacedStream:
        """*chunks* with the snippet between them; the headers are mended at once."""
        return self.resume(chunks, self.placer(), close)

    def resume(
        self, chunks: Iterable[bytes], placer: Placer, close: Callable[[], object] | None
    ) -> PlacedStream:
        """*chunks* through a *placer* that may have taken bytes already."""
        return PlacedStream(chunks, placer, close, self.count)

    def placer(self) -> Placer:
        """A placer for a body that is yet to come; the headers are mended at once."""
        # Whether the snippet will fit is not known before the first byte goes out.
        self._headers.pop("Content-Length", None)
        _mend(self._headers, self._seen)
        return Placer(self._tag, charset=self._charset)

    def count(self, placer: Placer) -> None:
        """Count what became of a streamed page."""
        outcome = placer.outcome or "closed"
        if outcome == "injected":
            self._exchange.site.counters.add("page_injected")
        else:
            self._exchange.site.counters.add("page_untouched", outcome)


def feed(placer: Placer, chunk: bytes) -> bytes:
    """``placer.feed(chunk)``, or all bytes as they came where a fault of ours is in the way."""
    try:
        return placer.feed(chunk)
    except Exception as problem:
        _LOG.error("AdRoll left a page alone, a fault of adroll_flask: %s", describe(problem))
        return placer.abandon(chunk)


def finish(placer: Placer) -> bytes:
    """``placer.finish()``, or what it held back where a fault of ours is in the way."""
    try:
        return placer.finish()
    except Exception as problem:
        _LOG.error("AdRoll left a page alone, a fault of adroll_flask: %s", describe(problem))
        return placer.abandon(b"")


class PlacedStream:
    """A streamed body with the snippet in it; closes what it wraps, once."""

    def __init__(
        self,
        chunks: Iterable[bytes],
        placer: Placer,
        close: Callable[[], object] | None,
        count: Callable[[Placer], None],
    ) -> None:
        self._chunks = self._placed(chunks, placer)
        self._close = close
        self._count = count
        self._placer = placer

    @staticmethod
    def _placed(chunks: Iterable[bytes], placer: Placer) -> Iterator[bytes]:
        source = iter(chunks)
        for chunk in source:
            # An empty chunk still goes out: some servers take it as "send the headers now".
            yield feed(placer, chunk)
            if placer.done:
                break
        yield from source
        rest = finish(placer)
        if rest:
            yield rest

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        close, self._close = self._close, None
        count, self._count = self._count, None  # type: ignore[assignment]
        if count is not None:
            count(self._placer)
        if close is not None:
            close()


def open_page(
    exchange: Exchange,
    status: int,
    headers: Headers,
    seen: Look,
    tag: Callable[[Exchange], bytes],
) -> Page | None:
    """A :class:`Page` for an HTML response that may take the snippet, else ``None``, counted."""
    charset = charset_of(seen.get("content-type", ""))
    why = _why_not(exchange, status, seen, charset)
    if why is None:
        return Page(exchange, headers, seen, charset, tag(exchange))
    exchange.site.counters.add("page_untouched", why)
    return None


def _why_not(exchange: Exchange, status: int, seen: Look, charset: str | None) -> str | None:
    if exchange.method == "HEAD":
        return "head"
    # Redirects are not shown; the others have no body, or a part of one (RFC 9110, section 15).
    if status < 200 or status in (204, 205, 206) or 300 <= status < 400:
        return "status"
    encoding = seen.get("content-encoding")
    if encoding and encoding.strip().lower() != "identity":
        if exchange.site.once("encoded"):
            _LOG.warning(
                "AdRoll: a page was compressed before the snippet could be placed. In Flask, "
                "call AdRoll's init_app after the compressing extension's (after_request "
                "functions run in reverse order); in WSGI, put AdRollMiddleware inside the "
                "compressing one"
            )
        return "encoded"
    disposition = seen.get("content-disposition")
    if disposition and disposition.lstrip()[:10].lower() == "attachment":
        return "attachment"
    if not exchange.is_document:
        return "fragment"
    if exchange.snippet_given:
        return "present"
    if not ascii_compatible(charset):
        return "charset"
    return None


def _mend(headers: Headers, seen: Look) -> None:
    for name in _STALE:
        if name in seen:
            headers.pop(name, None)
    etag = seen.get("etag")
    if etag and etag.startswith('"'):
        headers["ETag"] = f"W/{etag}"


def mend_not_modified(exchange: Exchange, headers: Headers) -> None:
    """Give a 304 the weak tag under which the browser has our page.

    Only where the request carried it: the 304 of a picture keeps its strong tag.
    """
    etag = headers.get("ETag")
    if etag and etag.startswith('"'):
        asked = exchange.environ.get("HTTP_IF_NONE_MATCH", "")
        if f"W/{etag}" in asked:
            headers["ETag"] = f"W/{etag}"
