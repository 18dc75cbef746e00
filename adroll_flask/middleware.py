"""The WSGI middleware: the same core for Django, Bottle, Pyramid and any other WSGI app."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Request, Response

from .caching import look
from .context import NOBODY
from .endpoints import identity, kit
from .exchange import Exchange
from .page import Page, dress, feed
from .redaction import describe
from .runtime import Runtime
from .settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .client import Transport
    from .events import Event
    from .outbox import Outbox
    from .placement import Placer
    from .receipt import Receipt

_LOG = logging.getLogger("adroll_flask")

#: Set by the Flask extension: a response that it has seen needs nothing of ours.
_FLASK = "adroll_flask.exchange"


class AdRollMiddleware:
    """AdRoll around any WSGI app: captures visitors, places the snippet, reports conversions.

    ::

        application = AdRollMiddleware(
            application,
            advertisable_eid="...", pixel_eid="...", access_token="...",
            secret_key="...", outbox_url="sqlite:////var/lib/shop/adroll.sqlite",
        )

    In the wrapped app ``environ["adroll.visitor"]`` is the :class:`~adroll_flask.Visitor` and
    ``environ["adroll.report"]("purchase", order_id="1001", ...)`` reports for that visitor and
    returns a :class:`~adroll_flask.Receipt`; both are valid until the response is closed.

    :param app: the wrapped app.
    :param before_report: as ``AdRoll.before_report``.
    :param folder: where the SQLite outbox lives if ``outbox_url`` is not given; default
        ``instance`` below the working directory.
    :param settings: the ``ADROLL_*`` settings in lower case without the prefix.
    :raises ConfigurationError: a setting is wrong.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        before_report: Callable[[Event], Event | None] | None = None,
        folder: str | None = None,
        outbox: Outbox | None = None,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
        **settings: Any,
    ) -> None:
        self._app = app
        checked = Settings.from_mapping(
            {f"ADROLL_{name.upper()}": value for name, value in settings.items()}
        )
        self.runtime = Runtime(
            checked,
            folder=folder or os.path.join(os.getcwd(), "instance"),
            keys=lambda: checked.secret_key,
            strict=lambda: bool(checked.strict),
            request_of=Request,
            before_report=lambda: before_report,
            sender=self,
            outbox=outbox,
            transport=transport,
            clock=clock,
        )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        runtime = self.runtime
        if not runtime.settings.enabled:
            return self._app(environ, start_response)
        exchange = runtime.exchange(environ)
        runtime.begin()
        response = self._own_response(exchange)
        if response is not None:
            return response(environ, start_response)
        environ["adroll.visitor"] = exchange.visitor()
        environ["adroll.report"] = partial(self._report, exchange)
        outgoing = _Outgoing(self, exchange, start_response)
        return outgoing.body(self._app(environ, outgoing.start))

    def flush(self, timeout: float = 2.0) -> int:
        """Deliver what is due now; how many events still wait.

        :param timeout: seconds that this may take at most.
        """
        return self.runtime.flush(timeout)

    def _report(self, exchange: Exchange, name: str, **fields: Any) -> Receipt:
        return self.runtime.report(name, fields, exchange=exchange, known=NOBODY)

    def _own_response(self, exchange: Exchange) -> Response | None:
        path = exchange.environ.get("PATH_INFO", "")
        prefix = self.runtime.settings.url_prefix
        if not path.startswith(prefix) or path[len(prefix) : len(prefix) + 1] != "/":
            return None
        name = path[len(prefix) + 1 :]
        if name != "identity":
            if exchange.method not in ("GET", "HEAD"):
                return Response(status=405, headers={"Allow": "GET, HEAD"})
            return kit(exchange, self.runtime.snippet, name)
        if exchange.method != "POST":
            return Response(status=405, headers={"Allow": "POST"})
        identified = identity(exchange, self.runtime.domains)
        if identified.record is not None:
            self.runtime.identified(exchange, identified.record)
        if identified.withdrawn is not None:
            self.runtime.drop_waiting(identified.withdrawn)
        return identified.response

    def page_for(
        self, exchange: Exchange, status: str, headers: Headers, body: object
    ) -> Page | None:
        """Change *headers* as needed; where the body takes the snippet, what it goes through."""
        if _FLASK in exchange.environ:
            return None
        runtime = self.runtime
        try:
            wrapper = exchange.environ.get("wsgi.file_wrapper")
            is_file = isinstance(wrapper, type) and isinstance(body, wrapper)
            dressed = dress(
                exchange,
                int(status[:3]),
                headers,
                look(headers),
                domains=runtime.domains,
                tag=self._tag,
                whole=not is_file,
            )
            if dressed.record is not None:
                runtime.identified(exchange, dressed.record)
        except Exception as problem:
            # Promise 1: the page goes out as the site made it.
            if runtime.strict:
                raise
            runtime.counters.add("page_untouched", "fault")
            _LOG.error("AdRoll left a page alone, a fault of adroll_flask: %s", describe(problem))
            return None
        return dressed.page

    def _tag(self, exchange: Exchange) -> bytes:
        provider = self.runtime.settings.csp_nonce
        nonce = provider(exchange.environ) if provider is not None else None
        return self.runtime.snippet.tag(exchange.script_root, nonce)


class _Outgoing:
    """One response on its way: its headers wait until the body's first byte or its whole."""

    def __init__(
        self, middleware: AdRollMiddleware, exchange: Exchange, start_response: StartResponse
    ) -> None:
        self._middleware = middleware
        self._exchange = exchange
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
        return self._middleware.page_for(self._exchange, self._status, self._headers, body)

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
