"""The WSGI middleware: the same core for Django, Bottle, Pyramid and any other WSGI app."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Unpack

from werkzeug.datastructures import Headers
from werkzeug.local import LocalProxy
from werkzeug.wrappers import Request
from werkzeug.wsgi import ClosingIterator

from . import request_state
from .endpoints import answer
from .errors import ConfigurationError, refuse_asgi
from .page.response import Page, left_alone
from .public_functions import cancel_conversion, release_conversion, report_event
from .reporting.reporter import BeforeReport, PaidOrdersFunction, SiteFunctions
from .request_state import MiddlewareRequest
from .runtime import Runtime
from .settings import Settings, SettingValues
from .visitor.record import Visitor
from .visitor.tracked_request import TrackedRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .delivery.transport import Transport


class AdRollMiddleware:
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

    :param app: the wrapped app.
    :param before_report: as ``AdRoll.before_report`` takes it, or a list of such functions.
    :param identity: as ``AdRoll.identity`` takes it, but it takes the environ.
    :param paid_orders: as ``AdRoll.paid_orders`` takes it.
    :param folder: where the SQLite outbox lives if ``outbox_url`` is not given; default
        ``instance`` below the working directory.
    :param settings: the ``ADROLL_*`` settings in lower case without the prefix.
    :raises ConfigurationError: a setting is wrong, or an argument is unknown; with ``strict`` also
        where there is no ``secret_key``.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        before_report: BeforeReport | Sequence[BeforeReport] = (),
        identity: Callable[[WSGIEnvironment], Mapping[str, Any] | None] | None = None,
        paid_orders: PaidOrdersFunction | None = None,
        folder: str | None = None,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
        **settings: Unpack[SettingValues],
    ) -> None:
        refuse_asgi(app, "AdRollMiddleware")
        self._app = app
        others = AdRollMiddleware.__init__.__kwdefaults__ or ()
        checked = Settings.checked(settings, "argument", str, others)
        if checked.strict and checked.enabled and not checked.secret_key:
            raise ConfigurationError(
                "secret_key", "set it: without one no visitor is kept from one request to the next"
            )
        hooks = [before_report] if callable(before_report) else list(before_report)
        self.runtime: Runtime = Runtime(
            settings=checked,
            functions=SiteFunctions(hooks, identity, True, paid_orders, request_state.known),
            folder=folder or os.path.join(os.getcwd(), "instance"),
            request_of=Request,
            sender=self,
            transport=transport,
            clock=clock,
        )

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse | None = None, *rest: object
    ) -> Iterable[bytes]:
        """Answer one request, as WSGI has it.

        :raises ConfigurationError: an ASGI server calls.
        """
        runtime = self.runtime
        if start_response is None or rest:
            raise ConfigurationError(
                "AdRollMiddleware",
                "is called by an ASGI server (uvicorn, hypercorn); run it under a WSGI server such "
                "as gunicorn, an ASGI app inside it by a2wsgi.ASGIMiddleware",
                slug="asgi",
            )
        tracked = TrackedRequest(runtime.visitors, environ)
        request = MiddlewareRequest(runtime, tracked)
        is_on = runtime.settings.enabled
        runtime.begin()
        prefix, path = runtime.settings.url_prefix + "/", environ.get("PATH_INFO", "")
        if is_on and path.startswith(prefix):
            return answer(tracked, runtime, path.removeprefix(prefix))(environ, start_response)
        if is_on and environ.get("HTTP_IF_RANGE", "").startswith("W/"):
            # A weak tag, which the page has with the snippet, never tells that a range fits (RFC
            # 9110, section 13.1.5); not every app knows.
            environ.pop("HTTP_RANGE", None)
        # A proxy: cookies are read and consent is asked only where the app looks at the visitor.
        visitor = partial(runtime.of_visitor, tracked.visitor if is_on else Visitor, Visitor())
        environ["adroll.visitor"] = LocalProxy(visitor)
        environ["adroll.report"] = partial(request.run, report_event)
        environ["adroll.release"] = partial(request.run, release_conversion)
        environ["adroll.cancel"] = partial(request.run, cancel_conversion)
        outgoing = _Response(request, tracked, start_response)
        return outgoing.of(request.run(self._app, environ, outgoing.start))

    def context(self) -> AbstractContextManager[None]:
        """Let the package's functions work where there is no request: in tasks, threads, scripts.

        ::

            with middleware.context():
                release_conversion("1001")
        """
        return MiddlewareRequest(self.runtime, None)

    def flush(self, timeout: float = 2.0) -> int:
        """Deliver what is due now; how many events still wait.

        With ``delivery="worker"`` it sends nothing: it takes in what this host's journal holds,
        and counts what waits.

        :param timeout: seconds that this may take at most.
        :raises AdRollError: the outbox cannot be worked with.
        """
        return self.runtime.flush(timeout)


def _is_file(environ: WSGIEnvironment, body: object) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


@dataclass(eq=False, repr=False)
class _Response:
    """One response on its way, and its body: headers wait for the first chunk, or for the whole."""

    _request: MiddlewareRequest
    _tracked: TrackedRequest
    _start_response: StartResponse
    _status: str | None = None
    _headers: Headers = field(default_factory=Headers)
    _server_write: Callable[[bytes], object] | None = None
    _page: Page | None = None
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
        self._status, self._headers = status, Headers(headers)
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
        page = placed = None
        tracked, runtime = self._tracked, self._request.runtime
        # Set by the Flask extension: a response that it has seen needs nothing of ours.
        if runtime.settings.enabled and request_state.TRACKED_REQUEST not in tracked.environ:
            try:
                status, is_buffered = int(self._status[:3]), not _is_file(tracked.environ, body)
                page = runtime.prepare(tracked, status, self._headers, is_buffered=is_buffered)
            except Exception as problem:
                # Promise 1: the page goes out as the site made it.
                runtime.forgive(problem, "page_untouched", "fault")
                left_alone(problem)
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
