"""The WSGI middleware: the same core for Django, Bottle, Pyramid and any other WSGI app."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.datastructures import Headers
from werkzeug.wsgi import ClosingIterator

from .endpoints import answer
from .errors import ConfigurationError, refuse_asgi
from .middleware_base import BaseMiddleware
from .page.response import OutgoingPage, content_type
from .request_state import MiddlewareRequest
from .visitor.tracked_request import TrackedRequest


class AdRollMiddleware(BaseMiddleware[WSGIApplication]):
    """AdRoll around any WSGI app: captures visitors, places the snippet, reports conversions.

    ::

        application = AdRollMiddleware(
            application,
            advertisable_eid="...", pixel_eid="...", access_token="...",
            secret_key="...", outbox_url="sqlite:////var/lib/shop/adroll.sqlite",
        )

    In the wrapped app ``environ["adroll.visitor"]`` is the :class:`~adroll_flask.Visitor` (a proxy:
    cookies are read and consent is asked when the app first looks at it) and
    ``environ["adroll.report"]("purchase", order_id="1001", ...)`` reports for that visitor and
    returns a :class:`~adroll_flask.Receipt`; ``environ["adroll.release"]`` and
    ``environ["adroll.cancel"]`` are :func:`~adroll_flask.release_conversion` and
    :func:`~adroll_flask.cancel_conversion`; all are valid until the response is closed.

    The package's functions (:func:`~adroll_flask.report_conversion` and the others) work in the
    wrapped app as they do in a Flask app, until the response is closed.

    The arguments are those of ``BaseMiddleware``; *identity* takes the environ.
    """

    _refuse_other = staticmethod(refuse_asgi)

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse | None = None, *rest: object
    ) -> Iterable[bytes]:
        """Answer one request, as WSGI has it.

        :raises ConfigurationError: an ASGI server calls.
        """
        if start_response is None or rest:
            raise ConfigurationError(
                "AdRollMiddleware",
                "is called by an ASGI server (uvicorn, hypercorn); run it under a WSGI server such "
                "as gunicorn. Around an ASGI app goes AdRollASGIMiddleware",
                slug="asgi",
            )
        request, tracked = self._begin(environ)
        name = self._endpoint(environ.get("PATH_INFO", ""))
        if name is not None:
            return answer(tracked, self.runtime, name)(environ, start_response)
        self._offer(request, tracked, environ)
        outgoing = _WsgiResponse(self, request, tracked, start_response)
        return outgoing.of(request.run(self._app, environ, outgoing.start))


def _is_file(environ: WSGIEnvironment, body: object) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


@dataclass(eq=False, repr=False)
class _WsgiResponse:
    """One response on its way, and its body: headers wait for the first chunk, or for the whole."""

    _middleware: AdRollMiddleware
    _request: MiddlewareRequest
    _tracked: TrackedRequest
    _start_response: StartResponse
    _status: str | None = None
    _headers: Headers = field(default_factory=Headers)
    _server_write: Callable[[bytes], object] | None = None
    _page: OutgoingPage | None = None
    _body: Iterable[bytes] = ()

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        """The ``start_response`` that the wrapped app sees (PEP 3333)."""
        if exc_info is None and self._status is not None:
            raise AssertionError("start_response was called a second time without exc_info")
        if self._server_write is not None:
            # The server knows whether the headers are out, and raises if so.
            self._server_write = self._start_response(status, headers, exc_info)
            self._page = None  # it was the first ones', and is not in what these say of a length
            return self._write
        # The server has not seen the first ones: these simply take their place.
        self._status = status
        self._headers = Headers(headers)
        return self._write

    def of(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """What the server gets for the wrapped app's *body*."""
        self._body = body
        # Neither an app that used write(), nor a generator that calls start_response when asked
        # for its first chunk.
        if self._server_write is None and self._status is not None:
            placed = self._send(body)
            if isinstance(body, list | tuple) or _is_file(self._tracked.environ, body):
                return placed or body
        return ClosingIterator(self._chunks(), self._close)

    def _close(self) -> None:
        if self._page is not None:
            self._page.count()
        if (close := getattr(self._body, "close", None)) is not None:
            self._request.run(close)

    def _send(self, body: object = None) -> list[bytes] | None:
        """Send the headers; the page where *body* is a whole one that takes the snippet."""
        assert self._status is not None  # noqa: S101 - the callers looked
        placed = None
        page = None
        middleware = self._middleware
        tracked = self._tracked
        status = int(self._status[:3])
        if middleware._concerns(tracked, status, content_type(self._headers)):
            is_buffered = not _is_file(tracked.environ, body)
            prepare = middleware.runtime.prepare
            page = prepare(tracked, status, self._headers, is_buffered=is_buffered)
        if page is not None and isinstance(body, list | tuple):
            placed = [page.whole(b"".join(body))]
        elif page is not None:
            self._page = page
            page.begin()
        self._server_write = self._start_response(self._status, self._headers.to_wsgi_list())
        return placed

    def _write(self, data: bytes) -> None:
        if self._server_write is None:
            self._send()
        assert self._server_write is not None  # noqa: S101
        self._server_write(data if self._page is None else self._page.feed(data))

    def _chunks(self) -> Generator[bytes, None, None]:
        source = self._of_app()
        first = next(source, None)
        if self._server_write is None:
            if self._status is None:
                raise AssertionError("the app yielded before it called start_response")
            self._send()
        chunks = source if first is None else chain((first,), source)
        yield from chunks if self._page is None else self._page.stream(chunks)

    def _of_app(self) -> Iterator[bytes]:
        """The chunks of the wrapped app, whose code finds the request."""
        run = self._request.run
        chunks: Iterator[bytes] = run(iter, self._body)
        nothing: Any = object()
        return iter(partial(run, next, chunks, nothing), nothing)
