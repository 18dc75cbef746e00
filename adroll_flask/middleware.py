"""The WSGI middleware: the same core for Django, Bottle, Pyramid and any other WSGI app."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from werkzeug.datastructures import Headers
from werkzeug.local import LocalProxy
from werkzeug.wrappers import Request, Response

from . import request_state
from .endpoints import identity as answer_kit
from .endpoints import kit
from .errors import ConfigurationError, help_url
from .functions import cancel_conversion, release_conversion
from .interruptions import let_through
from .logs import Logger, get_logger
from .page.caching import read_headers
from .page.response import Page, feed, left_alone, prepare_response
from .redaction import describe
from .request_state import MiddlewareRequest
from .runtime import Runtime
from .settings import Settings
from .visitor.records import Visitor
from .visitor.tracked_request import TrackedRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .delivery.client import Transport
    from .outbox import Outbox
    from .page.placement import Placer
    from .reporting.receipt import Receipt
    from .reporting.site_functions import BeforeReport

logger: Logger = get_logger("adroll_flask")

#: Set by the Flask extension: a response that it has seen needs nothing of ours.
_FLASK = "adroll_flask.request"


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
        folder: str | None = None,
        outbox: Outbox | None = None,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
        **settings: Any,
    ) -> None:
        self._app = app
        checked = _checked(settings)
        if checked.strict and checked.enabled and not checked.secret_key:
            raise ConfigurationError(
                "secret_key", "set it: without one no visitor is kept from one request to the next"
            )
        hooks = (before_report,) if callable(before_report) else tuple(before_report)
        self.runtime: Runtime = Runtime(
            checked,
            folder=folder or os.path.join(os.getcwd(), "instance"),
            keys=lambda: checked.secret_key,
            strict=lambda: bool(checked.strict),
            request_of=Request,
            before_report=lambda: hooks,
            identity=lambda tracked: None if identity is None else identity(tracked.environ),
            key_names="secret_key",
            sender=self,
            outbox=outbox,
            transport=transport,
            clock=clock,
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        runtime = self.runtime
        tracked = runtime.tracked(environ)
        request = MiddlewareRequest(runtime, tracked)
        if not runtime.settings.enabled:
            return request.run(self._app, environ, start_response)
        self._begin()
        response = self._own_response(tracked)
        if response is not None:
            return response(environ, start_response)
        # A proxy: cookies are read and consent is asked only where the app looks at the visitor.
        environ["adroll.visitor"] = LocalProxy(partial(self._visitor, tracked))
        environ["adroll.report"] = partial(self._report, request)
        environ["adroll.release"] = partial(request.run, release_conversion)
        environ["adroll.cancel"] = partial(request.run, cancel_conversion)
        outgoing = _Outgoing(self, tracked, start_response)
        body = outgoing.body(request.run(self._app, environ, outgoing.start))
        if isinstance(body, list | tuple) or _is_file(environ, body):
            return body
        return _Entered(request, body)

    def flush(self, timeout: float = 2.0) -> int:
        """Deliver what is due now; how many events still wait.

        :param timeout: seconds that this may take at most.
        """
        return self.runtime.flush(timeout)

    def _begin(self) -> None:
        try:
            self.runtime.begin()
        except Exception as problem:
            let_through(problem)
            if self.runtime.strict:
                raise
            self.runtime.counters.add("delivery_error", "not_started")
            logger.error(
                "AdRoll's delivery cannot start: %s (%s)",
                describe(problem),
                help_url("delivery-cannot-start"),
            )

    def _visitor(self, tracked: TrackedRequest) -> Visitor:
        try:
            return tracked.visitor()
        except Exception as problem:
            let_through(problem)
            # Promise 1: a page that shows the visitor shows an unknown one.
            if self.runtime.strict:
                raise
            self.runtime.counters.add("visitor_unread", "fault")
            logger.error(
                "AdRoll: visitor unreadable: %s (%s)", describe(problem), help_url("internal-fault")
            )
            return Visitor()

    def _report(self, request: MiddlewareRequest, name: str, **fields: Any) -> Receipt:
        known = request.run(request_state.known)
        return self.runtime.report(name, fields, tracked=request.tracked, known=known)

    def _own_response(self, tracked: TrackedRequest) -> Response | None:
        path = tracked.environ.get("PATH_INFO", "")
        prefix = self.runtime.settings.url_prefix
        if not path.startswith(prefix) or path[len(prefix) : len(prefix) + 1] != "/":
            return None
        name = path[len(prefix) + 1 :]
        if name != "identity":
            if tracked.method not in ("GET", "HEAD"):
                return Response(status=405, headers={"Allow": "GET, HEAD"})
            return kit(tracked, self.runtime.snippet, name)
        if tracked.method not in ("POST", "OPTIONS"):
            return Response(status=405, headers={"Allow": "POST, OPTIONS"})
        identified = answer_kit(tracked, self.runtime.domains)
        if identified.record is not None:
            self.runtime.identified(tracked, identified.record)
        if identified.withdrawn is not None:
            self.runtime.withdraw(identified.withdrawn)
        return identified.response

    def page_for(
        self, tracked: TrackedRequest, status: str, headers: Headers, body: object
    ) -> Page | None:
        """Change *headers* as needed; where the body takes the snippet, what it goes through."""
        if _FLASK in tracked.environ:
            return None
        runtime = self.runtime
        try:
            prepared = prepare_response(
                tracked,
                int(status[:3]),
                headers,
                read_headers(headers),
                domains=runtime.domains,
                tag=self._tag,
                is_buffered=not _is_file(tracked.environ, body),
            )
            if prepared.record is not None:
                runtime.identified(tracked, prepared.record)
        except Exception as problem:
            let_through(problem)
            # Promise 1: the page goes out as the site made it.
            if runtime.strict:
                raise
            runtime.counters.add("page_untouched", "fault")
            left_alone(problem)
            return None
        return prepared.page

    def _tag(self, tracked: TrackedRequest) -> bytes:
        provider = self.runtime.settings.csp_nonce
        nonce = provider(tracked.environ) if provider is not None else None
        return self.runtime.snippet.tag(tracked.script_root, nonce, host=tracked.hostname)


def _checked(settings: Mapping[str, Any]) -> Settings:
    """The settings of the arguments; what is wrong is said in the words that were typed."""
    typed = {f"ADROLL_{name.upper()}": name for name in settings}
    try:
        return Settings.from_mapping({key: settings[name] for key, name in typed.items()})
    except ConfigurationError as fault:
        faults = [
            ConfigurationError(
                typed[one.key], _suggestion(typed[one.key]) or one.problem, slug=one.slug
            )
            for one in (fault, *fault.others)
        ]
        raise ConfigurationError.of(faults) from None


def _suggestion(name: str) -> str:
    """What was perhaps meant by an argument that there is not; empty for one that there is."""
    known = {field.name for field in fields(Settings)}
    if name.lower() in known:
        return ""
    from difflib import get_close_matches

    own = signature(AdRollMiddleware).parameters.keys() - {"app", "settings"}
    near = get_close_matches(name.lower(), known | own, 1)
    return "there is no such argument" + (f"; did you mean {near[0]}?" if near else "")


def _is_file(environ: WSGIEnvironment, body: object) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


class _Entered:
    """A body whose chunks, and whose end, may be code of the wrapped app."""

    def __init__(self, request: MiddlewareRequest, body: Iterable[bytes]) -> None:
        self._request = request
        self._body = body
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._chunks is None:
            self._chunks = self._request.run(iter, self._body)
        chunk: bytes = self._request.run(next, self._chunks)
        return chunk

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            self._request.run(close)


class _Outgoing:
    """One response on its way: its headers wait until the body's first byte or its whole."""

    def __init__(
        self, middleware: AdRollMiddleware, tracked: TrackedRequest, start_response: StartResponse
    ) -> None:
        self._middleware = middleware
        self._tracked = tracked
        self._start_response = start_response
        self._status: str | None = None
        self._headers = Headers()
        self._server_write: Callable[[bytes], object] | None = None
        self._page: Page | None = None
        self._placer: Placer | None = None

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        """The ``start_response`` that the wrapped app sees (PEP 3333)."""
        if exc_info is None and self._status is not None:
            raise AssertionError("start_response was called a second time without exc_info")
        if self._server_write is not None:
            # The server knows whether the headers are out, and raises if so.
            self._server_write = self._start_response(status, headers, exc_info)
            return self._write
        # The server has not seen the first ones: these simply take their place.
        self._status, self._headers = status, Headers(headers)
        return self._write

    def body(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """What the server gets for the wrapped app's *body*."""
        if self._server_write is not None:  # the app used write()
            return self._streamed(body)
        if self._status is None:  # a generator: start_response comes with the first chunk
            return _Late(self, body)
        if isinstance(body, list | tuple):
            page = self._decide(body)
            if page is not None:
                body = [page.whole(b"".join(body))]
            self._send()
            return body
        self.open(body)
        return self._streamed(body)

    def open(self, body: object = None) -> None:
        """Send the headers of a body that comes in pieces."""
        self._page = self._decide(body)
        if self._page is not None:
            self._placer = self._page.placer()
        self._send()

    @property
    def started(self) -> bool:
        return self._status is not None

    def _decide(self, body: object) -> Page | None:
        assert self._status is not None  # noqa: S101 - the callers looked
        return self._middleware.page_for(self._tracked, self._status, self._headers, body)

    def _send(self) -> None:
        assert self._status is not None  # noqa: S101
        self._server_write = self._start_response(self._status, self._headers.to_wsgi_list())

    def _streamed(self, body: Iterable[bytes]) -> Iterable[bytes]:
        if self._page is None or self._placer is None:
            return body
        return self._page.resume(body, self._placer, getattr(body, "close", None))

    def streamed_after(self, chunk: bytes, rest: Iterator[bytes]) -> Iterable[bytes]:
        """The body of a generator whose first *chunk* is here."""
        self.open()
        return self._streamed(_chain(chunk, rest))

    def _write(self, data: bytes) -> None:
        if self._server_write is None:
            self.open()
        assert self._server_write is not None  # noqa: S101
        self._server_write(data if self._placer is None else feed(self._placer, data))


def _chain(chunk: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield chunk
    yield from rest


class _Late:
    """The body of an app that calls ``start_response`` with its first chunk."""

    def __init__(self, outgoing: _Outgoing, body: Iterable[bytes]) -> None:
        self._outgoing = outgoing
        self._body = body
        self._placed: Iterable[bytes] | None = None
        self._chunks = self._iterate()

    def _iterate(self) -> Iterator[bytes]:
        source = iter(self._body)
        try:
            first = next(source)
        except StopIteration:
            if self._outgoing.started:
                self._outgoing.open()
            return
        if not self._outgoing.started:
            raise AssertionError("the app yielded before it called start_response")
        self._placed = self._outgoing.streamed_after(first, source)
        yield from self._placed

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        if self._placed is not None and hasattr(self._placed, "close"):
            self._placed.close()
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
