"""Apps and middleware of ASGI in tests: the same cases as for WSGI, from both sides."""

import asyncio
import io
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.datastructures import EnvironHeaders
from werkzeug.http import HTTP_STATUS_CODES

from adroll_flask import AdRollASGIMiddleware
from adroll_flask.asgi import ASGIApp, Message, Receive, Scope, Send, environ_of
from adroll_flask.runtime import Runtime


def as_asgi(wsgi: Any) -> ASGIApp:
    """A WSGI app as an ASGI app, which streams what is no list, and finds our calls in its
    environ."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive()).get("body", b"")
        calls = {name: scope[name] for name in scope if name.startswith("adroll.")}
        environ = environ_of(scope) | calls | {"wsgi.input": io.BytesIO(body)}
        started: list[Any] = []
        chunks = wsgi(environ, lambda *start: started.append(start))
        try:
            parts = iter([b"".join(chunks)] if isinstance(chunks, list | tuple) else chunks)
            part = next(parts, b"")
            status, headers = started[-1][:2]
            raw = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers]
            start = {"type": "http.response.start", "status": int(status[:3]), "headers": raw}
            await send(start)
            for later in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
                part = later
            await send({"type": "http.response.body", "body": part})
        finally:
            getattr(chunks, "close", bool)()

    return app


def as_wsgi(app: ASGIApp) -> WSGIApplication:
    """An ASGI app for a client that speaks WSGI; each request has an event loop of its own."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        root, path = environ["SCRIPT_NAME"], environ["PATH_INFO"]
        headers = EnvironHeaders(environ)
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": environ["REQUEST_METHOD"],
            "scheme": environ["wsgi.url_scheme"],
            "root_path": root.encode("latin-1").decode(),
            "path": f"{root}{path}".encode("latin-1").decode(),
            "query_string": environ["QUERY_STRING"].encode("latin-1"),
            "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers],
            "client": (environ["REMOTE_ADDR"], 0) if "REMOTE_ADDR" in environ else None,
            "server": (environ["SERVER_NAME"], int(environ["SERVER_PORT"])),
        }
        length = environ.get("CONTENT_LENGTH", "")
        size = int(length) if length.isascii() and length.isdigit() else 0
        is_chunked = environ.get("wsgi.input_terminated")
        body = environ["wsgi.input"].read(-1 if is_chunked else min(size, 10**6))
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
        start = sent[0]
        status = f"{start['status']} {HTTP_STATUS_CODES.get(start['status'], '')}"
        raw = start["headers"]
        start_response(status, [(k.decode().title(), v.decode("latin-1")) for k, v in raw])
        return [message.get("body", b"") for message in sent[1:]]

    return answer


def strict(app: ASGIApp) -> ASGIApp:
    """A server that breaks at what the ASGI specification does not allow."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        state = "nothing"

        async def check(message: Message) -> None:
            nonlocal state
            if message["type"] == "http.response.start":
                assert state == "nothing"
                state = "started"
                for name, value in message["headers"]:
                    assert (type(name), type(value)) == (bytes, bytes)
                    assert name == name.lower()
            else:
                assert (message["type"], state) == ("http.response.body", "started")
                assert type(message["body"]) is bytes
                state = "started" if message.get("more_body") else "ended"
            await send(message)

        await app(scope, receive, check)
        assert state == "ended"

    return checked


class Bridged:
    """The ASGI middleware around a WSGI app, for a client of WSGI."""

    def __init__(self, wsgi: Any, **settings: Any) -> None:
        self._middleware = AdRollASGIMiddleware(as_asgi(wsgi), **settings)
        self._served = as_wsgi(strict(self._middleware))
        self.runtime: Runtime = self._middleware.runtime

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        return self._served(environ, start_response)

    def context(self) -> AbstractContextManager[None]:
        return self._middleware.context()
