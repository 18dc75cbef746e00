"""What a response takes of ours: cookies and caching by its headers, the snippet by its body.

Works on a status, werkzeug's ``Headers`` and bytes, so that both adapters share every rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from wsgiref.types import WSGIEnvironment

from werkzeug.datastructures import Headers

from adroll_flask.forks import made_once
from adroll_flask.logs import Logger, get_logger
from adroll_flask.redaction import describe
from adroll_flask.visitor.tracked_request import TrackedRequest

from .cookies import update_cookies
from .placement import CHARSET, INJECTED, PRESENT, Placer, Places, ascii_compatible
from .shared_caches import HeaderView, may_be_shared, read_headers, vary_by_cookie

logger: Logger = get_logger("adroll_flask.page")

#: Headers that describe the body's bytes and are wrong once the snippet is in.
_STALE: Final = frozenset({"content-md5", "digest", "content-digest", "repr-digest"})
_OF_BYTES: Final = _STALE | {"etag", "accept-ranges"}
#: What nearly all pages are, told without taking it apart.
_USUAL: Final = "text/html; charset=utf-8"


def prepare_response(
    tracked: TrackedRequest,
    status: int,
    headers: Headers,
    *,
    tag: Callable[[TrackedRequest], bytes],
    places: Places,
    is_buffered: bool,
    is_last: bool,
) -> OutgoingPage | None:
    """Change a response's headers as the visitor's state asks.

    :param status: the HTTP status code.
    :param headers: changed in place.
    :param tag: returns the snippet for this request.
    :param places: the app's.
    :param is_buffered: False for a body that is to be left alone, such as a file.
    :param is_last: no code of the site's sees the response after this. Otherwise it gets its
        cookies later, by :func:`put_cookies`: the site may keep what it sees, for others, too.
    :returns: where the body has to go through for the snippet, if it takes one.
    """
    view = read_headers(headers)
    charset = charset_of_page(view.get("content-type"))
    tracked.awaits_cookies = not is_last
    if is_last:
        update_cookies(tracked, headers, view, html=charset is not None)
    if tracked.viewed:
        vary_by_cookie(headers, view)
    if status == 304:
        weaken_not_modified(tracked, headers)
    elif charset is not None and tracked.visitors.settings.inject:
        why = _why_not(tracked, status, view, charset) if is_buffered else "passthrough"
        if why is None:
            return OutgoingPage(tracked, headers, view, tag(tracked), charset, places)
        if tracked.visitors.counters.add("page_untouched", why) and why == "encoded":
            logger.warning(
                "AdRoll: a page was compressed before the snippet could be placed. In Flask, "
                "call AdRoll's init_app after the compressing extension's (after_request "
                "functions run in reverse order); elsewhere put our middleware inside the "
                "compressing one [page-compressed]"
            )
    return None


def put_cookies(tracked: TrackedRequest, headers: Headers) -> None:
    """Give a response its cookies, the last thing that is done to it."""
    view = read_headers(headers)
    html = charset_of_page(view.get("content-type")) is not None
    update_cookies(tracked, headers, view, html=html)


# -- the snippet ---------------------------------------------------------------------------


def content_type(headers: Headers) -> str:
    """The Content-Type, or nothing; werkzeug's own look-up takes three times as long."""
    for name, value in headers:
        if name.lower() == "content-type":
            return value
    return ""


def is_concerned(
    environ: WSGIEnvironment, tracked: TrackedRequest | None, status: int, kind: str
) -> bool:
    """Whether a response may take anything of ours: of most this tells it at nearly no cost.

    :param tracked: ``None``: nobody has looked at the request's visitor.
    :param kind: its Content-Type.
    """
    return (
        "html" in kind.lower()
        or "adct=" in environ.get("QUERY_STRING", "")
        or status == 304
        or (tracked is not None and (tracked.viewed or tracked.forgotten))
    )


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


@dataclass(eq=False, repr=False)
class OutgoingPage:
    """Places the snippet into one response.

    After a fault of ours the page goes out as the site made it.
    """

    _tracked: TrackedRequest
    _headers: Headers
    _view: HeaderView
    _snippet: bytes
    _charset: str
    _places: Places
    #: What became of the page, as far as that is certain.
    _outcome: str | None = None

    @made_once
    def _placer(self) -> Placer:
        return Placer(self._snippet, charset=self._charset, places=self._places)

    def whole(self, body: bytes) -> bytes:
        """The page with the snippet, its headers made to fit; untouched where it has no place."""
        page = self._places.put(self._snippet, body) if self._charset else None
        if page is not None:
            self._outcome = INJECTED
        elif self._tracked.method == "HEAD" and not body:
            # Not every app makes the page that it is not asked to send. HEAD may leave out what
            # only the body tells (RFC 9110, section 9.3.2).
            self.begin()
            page = body
        else:
            page = self.feed(body, final=True)
        if self._outcome == INJECTED:
            _fit_headers(self._headers, self._view)
            if "content-length" in self._view:
                # By its place, since by its name takes four times as long.
                for place, (name, _) in enumerate(self._headers):
                    if name.lower() == "content-length":
                        self._headers[place] = (name, str(len(page)))
        self.count()
        return page

    def begin(self) -> None:
        """Make the headers fit a body of which it is not known yet whether it takes the snippet."""
        self._headers.pop("Content-Length", None)
        _fit_headers(self._headers, self._view)

    def feed(self, chunk: bytes, *, final: bool = False) -> bytes:
        """What may leave of a body that comes in pieces, now that *chunk* has come.

        :param final: it is the last one.
        """
        try:
            return self._placer.feed(chunk, final=final)
        except Exception as problem:
            left_alone(problem)
            return self._placer.abandon(chunk)
        finally:
            self._outcome = self._placer.outcome

    def stream(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """*chunks* with the snippet between them; who closes them calls :meth:`count`, too."""
        source = iter(chunks)
        for chunk in source:
            # An empty chunk still goes out: some servers take it as "send the headers now".
            yield self.feed(chunk)
            if self._outcome is not None:
                break
        for chunk in source:  # not "yield from", which would close the body a second time
            yield chunk
        rest = self.feed(b"", final=True)
        if rest:
            yield rest

    def count(self) -> None:
        """Count what became of the page, once it has left."""
        outcome = "head" if self._tracked.method == "HEAD" else self._outcome or "closed"
        counters = self._tracked.visitors.counters
        if outcome == INJECTED:
            counters.add("page_injected")
        else:
            counters.add("page_untouched", outcome)


def left_alone(problem: BaseException) -> None:
    """Say that a page goes out as the site made it, after a fault of ours."""
    logger.error(
        "AdRoll left a page alone, a fault of adroll_flask: %s [page-left-alone]", describe(problem)
    )


def _why_not(
    tracked: TrackedRequest, status: int, view: HeaderView, charset: str | None
) -> str | None:
    """Why an HTML response takes no snippet, as far as its headers tell."""
    # Redirects are not shown; the others have no body, or a part of one (RFC 9110, section 15).
    if status < 200 or status in (204, 205, 206) or 300 <= status < 400:
        return "status"
    if view.get("content-encoding", "").strip().lower() not in ("", "identity"):
        return "encoded"
    disposition = view.get("content-disposition")
    if disposition and disposition.lstrip()[:10].lower() == "attachment":
        return "attachment"
    # Else the body alone says whether it is a page: a service worker fetches what a browser shows
    # later, and whoever asks first for a page that a shared cache keeps asks for everybody.
    if tracked.is_for_library and not may_be_shared(tracked, view):
        return "fragment"
    if tracked.snippet_given:
        return PRESENT
    return None if charset == "utf-8" or ascii_compatible(charset) else CHARSET


def _fit_headers(headers: Headers, view: HeaderView) -> None:
    if _OF_BYTES.isdisjoint(view):
        return
    for name in _STALE & view.keys():
        headers.pop(name, None)
    if view.get("etag", "").startswith('"'):
        headers["ETag"] = f"W/{view['etag']}"
    if "accept-ranges" in view:
        # A part that is asked for later has no snippet: it does not fit the page that was sent.
        headers["Accept-Ranges"] = "none"


def weaken_not_modified(tracked: TrackedRequest, headers: Headers) -> None:
    """Give a 304 the weak tag under which the browser has our page.

    Only where the request carried it: the 304 of a picture keeps its strong tag.
    """
    etag = headers.get("ETag", "")
    if etag.startswith('"') and f"W/{etag}" in tracked.environ.get("HTTP_IF_NONE_MATCH", ""):
        headers["ETag"] = f"W/{etag}"
