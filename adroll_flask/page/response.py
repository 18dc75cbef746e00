"""What a response takes of ours: cookies and caching by its headers, the snippet by its body.

Works on a status, werkzeug's ``Headers`` and bytes, so that both adapters share every rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adroll_flask.errors import help_url
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.redaction import describe

from .caching import HeaderView, may_be_shared, vary_by_cookie
from .cookies import update_cookies
from .placement import Placer, ascii_compatible, place

if TYPE_CHECKING:
    from werkzeug.datastructures import Headers

    from adroll_flask.visitor.record import Record
    from adroll_flask.visitor.tracked_request import TrackedRequest

    from .cookie_domains import Domains

logger: Logger = get_logger("adroll_flask.page")

#: Headers that describe the body's bytes and are wrong once the snippet is in.
_STALE = ("content-md5", "digest", "content-digest", "repr-digest")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What :func:`prepare_response` did to a response."""

    #: The visitor's record that went out with it, if any.
    record: Record | None
    #: Where the body has to go through for the snippet, if it takes one.
    page: Page | None
    #: The visitor refused: what else is kept of the visitor has to go, too.
    taken_back: bool


def prepare_response(
    tracked: TrackedRequest,
    status: int,
    headers: Headers,
    seen: HeaderView,
    *,
    domains: Domains,
    tag: Callable[[TrackedRequest], bytes],
    is_buffered: bool = True,
) -> Prepared:
    """Change a response's headers as the visitor's state asks, and say what its body needs.

    :param status: the HTTP status code.
    :param headers: changed in place.
    :param seen: a look at them as they are.
    :param tag: returns the snippet for this request.
    :param is_buffered: False for a body that is to be left alone, such as a file.
    """
    html = is_html(seen.get("content-type"))
    record = update_cookies(tracked, headers, seen, domains, html=html)
    refused = html and record is None and tracked.decision.answer is False
    page = None
    if tracked.viewed:
        vary_by_cookie(headers, seen)
    if status == 304:
        weaken_not_modified(tracked, headers)
    elif html and tracked.services.settings.inject:
        if is_buffered:
            page = open_page(tracked, status, headers, seen, tag)
        else:
            tracked.services.counters.add("page_untouched", "passthrough")
    return Prepared(record, page, tracked.forgotten or refused)


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
        self,
        tracked: TrackedRequest,
        headers: Headers,
        seen: HeaderView,
        charset: str | None,
        tag: bytes,
    ) -> None:
        self._tracked = tracked
        self._headers = headers
        self._seen = seen
        self._charset = charset
        self._tag = tag

    def whole(self, body: bytes) -> bytes:
        """The page with the snippet, its headers made to fit; untouched where it has no place."""
        try:
            body, outcome = place(body, self._tag, charset=self._charset)
        except Exception as problem:
            let_through(problem)
            # Promise 1: the page goes out as the site made it.
            outcome = "fault"
            left_alone(problem)
        if outcome == "injected":
            self._tracked.services.counters.add("page_injected")
            if "content-length" in self._seen:
                self._headers["Content-Length"] = str(len(body))
            _fit_headers(self._headers, self._seen)
        else:
            self._tracked.services.counters.add("page_untouched", outcome)
        return body

    def stream(self, chunks: Iterable[bytes], close: Callable[[], object] | None) -> PlacedStream:
        """*chunks* with the snippet between them; the headers are made to fit at once."""
        return self.resume(chunks, self.placer(), close)

    def resume(
        self, chunks: Iterable[bytes], placer: Placer, close: Callable[[], object] | None
    ) -> PlacedStream:
        """*chunks* through a *placer* that may have taken bytes already."""
        return PlacedStream(chunks, placer, close, self.count)

    def placer(self) -> Placer:
        """A placer for a body that is yet to come; the headers are made to fit at once."""
        # Whether the snippet will fit is not known before the first byte goes out.
        self._headers.pop("Content-Length", None)
        _fit_headers(self._headers, self._seen)
        return Placer(self._tag, charset=self._charset)

    def count(self, placer: Placer) -> None:
        """Count what became of a streamed page."""
        outcome = placer.outcome or "closed"
        if outcome == "injected":
            self._tracked.services.counters.add("page_injected")
        else:
            self._tracked.services.counters.add("page_untouched", outcome)


def left_alone(problem: BaseException) -> None:
    """Say that a page goes out as the site made it, after a fault of ours."""
    logger.error(
        "AdRoll left a page alone, a fault of adroll_flask: %s (%s)",
        describe(problem),
        help_url("page-left-alone"),
    )


def feed(placer: Placer, chunk: bytes) -> bytes:
    """``placer.feed(chunk)``, or all bytes as they came where a fault of ours is in the way."""
    try:
        return placer.feed(chunk)
    except Exception as problem:
        let_through(problem)
        left_alone(problem)
        return placer.abandon(chunk)


def finish(placer: Placer) -> bytes:
    """``placer.finish()``, or what it held back where a fault of ours is in the way."""
    try:
        return placer.finish()
    except Exception as problem:
        let_through(problem)
        left_alone(problem)
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
    tracked: TrackedRequest,
    status: int,
    headers: Headers,
    seen: HeaderView,
    tag: Callable[[TrackedRequest], bytes],
) -> Page | None:
    """A :class:`Page` for an HTML response that may take the snippet, else ``None``, counted."""
    charset = charset_of(seen.get("content-type", ""))
    why = _why_not(tracked, status, seen, charset)
    if why is None:
        return Page(tracked, headers, seen, charset, tag(tracked))
    tracked.services.counters.add("page_untouched", why)
    return None


def _why_not(
    tracked: TrackedRequest, status: int, seen: HeaderView, charset: str | None
) -> str | None:
    if tracked.method == "HEAD":
        return "head"
    # Redirects are not shown; the others have no body, or a part of one (RFC 9110, section 15).
    if status < 200 or status in (204, 205, 206) or 300 <= status < 400:
        return "status"
    encoding = seen.get("content-encoding")
    if encoding and encoding.strip().lower() != "identity":
        if tracked.services.once("encoded"):
            logger.warning(
                "AdRoll: a page was compressed before the snippet could be placed. In Flask, "
                "call AdRoll's init_app after the compressing extension's (after_request "
                "functions run in reverse order); in WSGI, put AdRollMiddleware inside the "
                "compressing one (%s)",
                help_url("page-compressed"),
            )
        return "encoded"
    disposition = seen.get("content-disposition")
    if disposition and disposition.lstrip()[:10].lower() == "attachment":
        return "attachment"
    # Whoever asks first for a page that a shared cache keeps asks for everybody: there the body
    # alone says whether it is a page (a fragment of one has no place for the snippet).
    if not tracked.is_document and not may_be_shared(tracked, seen):
        return "fragment"
    if tracked.snippet_given:
        return "present"
    if not ascii_compatible(charset):
        return "charset"
    return None


def _fit_headers(headers: Headers, seen: HeaderView) -> None:
    for name in _STALE:
        if name in seen:
            headers.pop(name, None)
    etag = seen.get("etag")
    if etag and etag.startswith('"'):
        headers["ETag"] = f"W/{etag}"


def weaken_not_modified(tracked: TrackedRequest, headers: Headers) -> None:
    """Give a 304 the weak tag under which the browser has our page.

    Only where the request carried it: the 304 of a picture keeps its strong tag.
    """
    etag = headers.get("ETag")
    if etag and etag.startswith('"'):
        asked = tracked.environ.get("HTTP_IF_NONE_MATCH", "")
        if f"W/{etag}" in asked:
            headers["ETag"] = f"W/{etag}"
