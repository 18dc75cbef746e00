"""What a response takes of ours: cookies and caching by its headers, the snippet by its body.

Works on a status, werkzeug's ``Headers`` and bytes, so that both adapters share every rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from adroll_flask.logs import Logger, get_logger
from adroll_flask.redaction import describe
from adroll_flask.visitor.tracked_request import TrackedRequest

from .caching import HeaderView, may_be_shared, read_headers, vary_by_cookie
from .cookies import update_cookies
from .placement import INJECTED, Placer

logger: Logger = get_logger("adroll_flask.page")

#: Headers that describe the body's bytes and are wrong once the snippet is in.
_STALE: Final = frozenset({"content-md5", "digest", "content-digest", "repr-digest"})
#: What nearly all pages are, told without taking it apart.
_USUAL: Final = "text/html; charset=utf-8"


def prepare_response(
    tracked: TrackedRequest,
    status: int,
    headers: Headers,
    *,
    tag: Callable[[TrackedRequest], bytes],
    is_buffered: bool,
) -> Page | None:
    """Change a response's headers as the visitor's state asks.

    :param status: the HTTP status code.
    :param headers: changed in place.
    :param tag: returns the snippet for this request.
    :param is_buffered: False for a body that is to be left alone, such as a file.
    :returns: where the body has to go through for the snippet, if it takes one.
    """
    seen = read_headers(headers)
    charset = charset_of_page(seen.get("content-type"))
    html = charset is not None
    # Where a function after ours failed, an error's page comes second.
    tracked.written, tracked.carries_cookies = None, False
    update_cookies(tracked, headers, seen, html=html)
    tracked.refused = html and tracked.decision.granted is False
    if tracked.viewed:
        vary_by_cookie(headers, seen)
    if status == 304:
        weaken_not_modified(tracked, headers)
    elif charset is not None and tracked.visitors.settings.inject:
        why = _why_not(tracked, status, seen) if is_buffered else "passthrough"
        if why is None:
            placer = Placer(tag(tracked), charset=charset)
            why = placer.outcome
        if why is None:
            return Page(tracked, headers, seen, placer)
        if tracked.visitors.counters.add("page_untouched", why) and why == "encoded":
            logger.warning(
                "AdRoll: a page was compressed before the snippet could be placed. In Flask, "
                "call AdRoll's init_app after the compressing extension's (after_request "
                "functions run in reverse order); in WSGI, put AdRollMiddleware inside the "
                "compressing one [page-compressed]"
            )
    return None


# -- the snippet ---------------------------------------------------------------------------


def charset_of_page(kind: str | None) -> str | None:
    """The charset of an HTML page by its Content-Type; empty where that names none.

    :returns: ``None`` for what is no page.
    """
    if kind == _USUAL:
        return "utf-8"
    if kind is None or kind[:9].lower() != "text/html" or kind[9:10] not in ("", ";", " "):
        return None
    _, _, named = kind.lower().partition("charset=")
    return named.partition(";")[0].strip(" \"'")


class Page:
    """Places the snippet into one response.

    A fault of ours gives the page as the site made it (promise 1).
    """

    def __init__(
        self, tracked: TrackedRequest, headers: Headers, seen: HeaderView, placer: Placer
    ) -> None:
        self._headers = headers
        self._seen = seen
        self._counters = tracked.visitors.counters
        self._is_head = tracked.method == "HEAD"
        self._placer = placer

    def whole(self, body: bytes) -> bytes:
        """The page with the snippet, its headers made to fit; untouched where it has no place."""
        if self._is_head and not body:
            # Not every app makes the page that it is not asked to send. HEAD may leave out what
            # only the body tells (RFC 9110, section 9.3.2).
            self.begin()
        else:
            body = self._feed(body, final=True)
        if self._placer.outcome == INJECTED:
            _fit_headers(self._headers, self._seen)
            if "content-length" in self._seen:
                self._headers["Content-Length"] = str(len(body))
        self.count()
        return body

    def begin(self) -> None:
        """Make the headers fit a body of which it is not known yet whether it takes the snippet."""
        self._headers.pop("Content-Length", None)
        _fit_headers(self._headers, self._seen)

    def feed(self, chunk: bytes) -> bytes:
        """What may leave of a body that comes in pieces, now that *chunk* has come."""
        return self._feed(chunk, final=False)

    def stream(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """*chunks* with the snippet between them; who closes them calls :meth:`count`, too."""
        source = iter(chunks)
        for chunk in source:
            # An empty chunk still goes out: some servers take it as "send the headers now".
            yield self.feed(chunk)
            if self._placer.outcome is not None:
                break
        for chunk in source:  # not "yield from", which would close the body a second time
            yield chunk
        rest = self._feed(b"", final=True)
        if rest:
            yield rest

    def _feed(self, chunk: bytes, *, final: bool) -> bytes:
        try:
            return self._placer.feed(chunk, final=final)
        except Exception as problem:
            left_alone(problem)
            return self._placer.abandon(chunk)

    def count(self) -> None:
        """Count what became of the page, once it has left."""
        outcome = "head" if self._is_head else self._placer.outcome or "closed"
        if outcome == INJECTED:
            self._counters.add("page_injected")
        else:
            self._counters.add("page_untouched", outcome)


def left_alone(problem: BaseException) -> None:
    """Say that a page goes out as the site made it, after a fault of ours."""
    logger.error(
        "AdRoll left a page alone, a fault of adroll_flask: %s [page-left-alone]", describe(problem)
    )


def _why_not(tracked: TrackedRequest, status: int, seen: HeaderView) -> str | None:
    """Why an HTML response takes no snippet, as far as its headers tell."""
    # Redirects are not shown; the others have no body, or a part of one (RFC 9110, section 15).
    if status < 200 or status in (204, 205, 206) or 300 <= status < 400:
        return "status"
    encoding = seen.get("content-encoding")
    if encoding and encoding.strip().lower() != "identity":
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
    return None


def _fit_headers(headers: Headers, seen: HeaderView) -> None:
    for name in _STALE & seen.keys():
        headers.pop(name, None)
    etag = seen.get("etag")
    if etag and etag.startswith('"'):
        headers["ETag"] = f"W/{etag}"
    if "accept-ranges" in seen:
        # A part of the page that the site made joins with none of the page that was sent.
        headers["Accept-Ranges"] = "none"


def whole_again(tracked: TrackedRequest, response: Response) -> None:
    """Take a range that ``make_conditional()`` cut of a page that takes the snippet, to which the
    whole belongs, back to that."""
    pieces = getattr(response.response, "iterable", None)  # of werkzeug's _RangeWrapper
    seen = read_headers(response.headers)
    is_page = charset_of_page(seen.get("content-type")) is not None
    if pieces is None or response.direct_passthrough or not is_page or _why_not(tracked, 200, seen):
        return
    response.response = pieces
    response.status_code = 200
    for name in ("Content-Range", "Content-Length"):
        response.headers.pop(name, None)


def weaken_not_modified(tracked: TrackedRequest, headers: Headers) -> None:
    """Give a 304 the weak tag under which the browser has our page.

    Only where the request carried it: the 304 of a picture keeps its strong tag.
    """
    etag = headers.get("ETag")
    if etag and etag.startswith('"'):
        asked = tracked.environ.get("HTTP_IF_NONE_MATCH", "")
        if f"W/{etag}" in asked:
            headers["ETag"] = f"W/{etag}"
