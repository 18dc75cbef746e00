"""The ASGI middleware: the same core for FastAPI, Starlette, Litestar, Quart, Django under ASGI.

Pure ASGI 3: it awaits nothing but the app, the server and an ``async def`` for ``ADROLL_CONSENT``,
so it runs under asyncio and trio alike.
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, replace
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from werkzeug.datastructures import Headers
from werkzeug.wrappers import Request

from .endpoints import LONGEST_BODY, answer
from .errors import ConfigurationError, refuse_wsgi
from .middleware_base import BaseMiddleware
from .page.response import OutgoingPage
from .visitor.tracked_request import TrackedRequest

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from .settings import Settings

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
#: Frameworks have types of their own for the three.
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

#: Where an environ has the scope that it was made of.
_SCOPE: Final = "asgi.scope"
#: Where it has what an ``async def`` for ``ADROLL_CONSENT`` answered, or raised.
_CONSENT: Final = "adroll_flask.consent"
#: Bytes that a header's name may have to be remembered (:data:`_key_of_usual`).
_USUAL: Final = 64
#: Bodies that the server takes from a file: extensions of ASGI.
_FILES: Final = ("http.response.pathsend", "http.response.zerocopysend")


class AdRollASGIMiddleware(BaseMiddleware[ASGIApp]):
    """AdRoll around any ASGI app: captures visitors, places the snippet, reports conversions.

    ::

        application = AdRollASGIMiddleware(
            app,
            advertisable_eid="...", pixel_eid="...", access_token="...",
            secret_key="...", outbox_url="sqlite:////var/lib/shop/adroll.sqlite",
        )

    FastAPI and Starlette take it by ``app.add_middleware(AdRollASGIMiddleware, ...)``, too.

    The package's functions (:func:`~adroll_flask.report_conversion` and the others) work in
    ``async def`` and ``def`` endpoints, dependencies, background tasks and WebSocket handlers, and
    in what the app does at startup and shutdown. Threads and executors that hand no context on
    need ``with middleware.context():`` and ``visitor=``.

    ``scope["adroll.visitor"]`` is the :class:`~adroll_flask.Visitor`, and
    ``scope["adroll.report"]("purchase", order_id="1001", ...)`` reports for that visitor;
    ``scope["adroll.release"]`` and ``scope["adroll.cancel"]`` are
    :func:`~adroll_flask.release_conversion` and :func:`~adroll_flask.cancel_conversion`.

    Delivery begins with the server's startup and ends with its shutdown (``lifespan``); under an
    app or a server without it, with the first request and with the process.

    The arguments are those of ``BaseMiddleware``; *identity* takes the scope. ``consent`` may be an
    ``async def``: it is awaited before the app, with each request, and sees nothing of what inner
    middleware does. ``delivery="sync"`` is refused, as it would hold the event loop.
    """

    _refuse_other = staticmethod(refuse_wsgi)
    _scope_key: ClassVar[str | None] = _SCOPE
    _consent: Any = None

    def _adapted(self, settings: Settings) -> Settings:
        if settings.delivery == "sync":
            raise ConfigurationError(
                "delivery",
                '"sync" sends within the call, which would hold the event loop; take "thread", or '
                '"worker". A script calls middleware.flush() at its end',
            )
        if not iscoroutinefunction(settings.consent):
            return settings
        self._consent = settings.consent
        return replace(settings, consent=_awaited)

    # Servers and frameworks have types of their own for these three.
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection, as ASGI 3 has it."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        environ = environ_of(scope)
        request, tracked = self._begin(environ)
        is_http = scope["type"] == "http"
        name = self._endpoint(environ["PATH_INFO"]) if is_http else None
        # No copy: middleware around us reads in it what a router within has found.
        environ[_SCOPE] = scope
        asks = self._consent is not None and self.runtime.settings.enabled
        if asks and name in (None, "identity"):
            try:
                environ[_CONSENT] = await self._consent(Request(environ))
            except Exception as problem:
                environ[_CONSENT] = problem
        if name is not None:
            await self._serve(tracked, name, receive, send)
            return
        self._offer(request, tracked, scope)
        with request:
            if is_http:
                await _AsgiResponse(self, tracked, send).of(self._app, scope, receive)
            else:
                await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin and end with the server."""

        async def begin() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.runtime.resume()
            return message

        async def end(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                # The app may have reported until now, and nothing is served any more.
                self.runtime.end()
            await send(message)

        with self.context():
            await self._app(scope, begin, end)

    async def _serve(
        self, tracked: TrackedRequest, name: str, receive: Receive, send: Send
    ) -> None:
        """Answer at our endpoint *name*, unless the client has left."""
        body = b""
        is_more = tracked.method == "POST"
        # One byte more than is taken tells that it is longer.
        while is_more and len(body) <= LONGEST_BODY:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            is_more = message.get("more_body", False)
        tracked.environ["wsgi.input"] = io.BytesIO(body)
        tracked.environ["wsgi.input_terminated"] = True
        response = answer(tracked, self.runtime, name)
        chunks, status, headers = response.get_wsgi_response(tracked.environ)
        start = {"type": "http.response.start", "status": int(status[:3])}
        await send({**start, "headers": _as_bytes(headers)})
        await send({"type": "http.response.body", "body": b"".join(chunks)})


@dataclass(eq=False, repr=False, slots=True)
class _AsgiResponse:
    """One response. The headers of what may be a page wait for the first part of its body."""

    _middleware: AdRollASGIMiddleware
    _tracked: TrackedRequest
    _server: Send
    #: The message whose headers wait.
    _start: Message | None = None
    #: Where the further parts of a page go through.
    _page: OutgoingPage | None = None

    async def of(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        """Let *app* answer."""
        try:
            await app(scope, receive, self.send)
            if self._start is not None:  # without a body: the server says what is amiss
                await self._server(self._start)
        finally:
            if self._page is not None:
                self._page.count()

    async def send(self, message: Message) -> None:
        """The ``send`` that the wrapped app sees."""
        kind = message["type"]
        if kind == "http.response.start":
            # Read here and sent on: an app may give an iterator, which can be read once.
            message = {**message, "headers": list(message.get("headers", ()))}
            content_type = _content_type(message)
            if not self._middleware._concerns(self._tracked, message["status"], content_type):
                await self._server(message)
                return
            self._start = message
            if "html" not in content_type.lower():
                await self._leave(b"", is_last=False)
            return
        if kind == "http.response.body":
            body = message.get("body", b"")
            is_last = not message.get("more_body", False)
            if self._start is not None:
                body = await self._leave(bytes(body), is_last=is_last)
            if self._page is not None:
                body = self._page.feed(bytes(body), final=is_last)
            message = {**message, "body": body}
        elif kind in _FILES and self._start is not None:
            await self._leave(b"", is_last=False, is_buffered=False)
        elif kind in _FILES and self._page is not None:
            # A page that the app began, and ends from a file: what was held back goes first.
            held_back = self._page.feed(b"", final=True)
            await self._server({"type": "http.response.body", "body": held_back, "more_body": True})
        # Trailers, early hints and pushes are the app's, and whatever else a server knows.
        await self._server(message)

    async def _leave(self, body: bytes, *, is_last: bool, is_buffered: bool = True) -> bytes:
        """Send the headers that wait.

        :param body: the response's, or its first part.
        :returns: *body*, with the snippet where it takes one.
        """
        start = self._start
        self._start = None
        assert start is not None  # noqa: S101 - the callers looked
        raw = start.get("headers", ())
        headers = Headers(
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
        )
        prepare = self._middleware.runtime.prepare
        page = prepare(self._tracked, start["status"], headers, is_buffered=is_buffered)
        # Starlette's BaseHTTPMiddleware says that more follows of each body that was whole.
        if page is not None and (is_last or headers.get("Content-Length") == str(len(body))):
            body = page.whole(body)
        elif page is not None:
            page.begin()
            self._page = page
        await self._server({**start, "headers": _as_bytes(headers)})
        return body


def environ_of(scope: Scope) -> WSGIEnvironment:
    """The request of *scope* as WSGI has it (PEP 3333), for what both middlewares share."""
    root = scope.get("root_path", "").rstrip("/")
    path = scope["path"]
    # Not every server puts the root before the path, as ASGI has it.
    if root and f"{path}/".startswith(f"{root}/"):
        path = path[len(root) :]
    scheme = scope.get("scheme", "http")
    environ: WSGIEnvironment = {
        # A WebSocket's handshake is no navigation, to which GET belongs; so HTTP/2 has it (RFC
        # 8441).
        "REQUEST_METHOD": scope.get("method", "CONNECT"),
        "SCRIPT_NAME": root.encode("utf-8", "replace").decode("latin-1"),
        "PATH_INFO": path.encode("utf-8", "replace").decode("latin-1"),
        "QUERY_STRING": scope.get("query_string", b"").decode("latin-1"),
        "wsgi.url_scheme": {"ws": "http", "wss": "https"}.get(scheme, scheme),
    }
    if scope.get("client"):
        environ["REMOTE_ADDR"] = scope["client"][0]
    if scope.get("server"):
        environ["SERVER_NAME"], environ["SERVER_PORT"] = map(str, scope["server"])
    values: dict[str, list[str]] = {}
    for raw_name, raw_value in scope["headers"]:
        if b"_" in raw_name:  # as WSGI servers do: it could pass for another header
            continue
        name = (_key_of_usual if len(raw_name) <= _USUAL else _key)(raw_name)
        values.setdefault(name, []).append(raw_value.decode("latin-1"))
    for name, several in values.items():
        # HTTP/2 may send each cookie by itself (RFC 9113, section 8.2.3).
        environ[name] = ("; " if name == "HTTP_COOKIE" else ",").join(several)
    return environ


def _key(header: bytes) -> str:
    """Where an environ has a header."""
    name = header.decode("latin-1").upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


#: What is remembered is short: anybody can send a header of any name.
_key_of_usual = lru_cache(256)(_key)


def _content_type(start: Message) -> str:
    for name, value in start.get("headers", ()):
        if name.lower() == b"content-type":
            return str(value.decode("latin-1"))
    return ""


def _as_bytes(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _awaited(request: Any) -> bool | None:
    """What the site's ``async def`` for ``ADROLL_CONSENT`` answered for *request*."""
    answer: Any = request.environ[_CONSENT]
    if isinstance(answer, Exception):
        raise answer
    return answer  # type: ignore[no-any-return]  # as with any other of the site's functions
