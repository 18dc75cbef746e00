"""A small threaded HTTP/1.1 server: keep-alive, TLS, connections that can be refused and reset.

Werkzeug's development server closes each connection after one request and cannot send a reset, so
neither the reuse of connections nor their loss could be tried out with it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from adroll_flask.sandbox.handler import Handler

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_IDLE = 75.0
_MOST_CONNECTIONS = 256


class Server:
    """Serves one WSGI application on one address, a thread for each connection.

    :param host: the address to bind.
    :param port: the port; 0 picks a free one, see :attr:`port`.
    :param ssl_context: serve TLS with this context.
    """

    def __init__(
        self,
        app: WSGIApplication,
        host: str,
        port: int,
        *,
        ssl_context: ssl.SSLContext | None = None,
        quiet: bool = True,
    ) -> None:
        self.app = app
        self.host = host
        self.ssl_context = ssl_context
        self.quiet = quiet
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener: socket.socket | None = self._listen(port)
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._waker = socket.socketpair()
        self._turned = threading.Condition()
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._refused_until = 0.0
        self._stopped = False

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, port))
            listener.listen(128)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        return listener

    @property
    def url(self) -> str:
        """The server's address, without a slash at the end."""
        return self.url_at(self.host)

    def url_at(self, host: str) -> str:
        """Return the server's address under another name."""
        scheme = "https" if self.ssl_context else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def refuse(self, seconds: float) -> None:
        """Refuse new connections for ``seconds``; open ones live on."""
        with self._turned:
            self._refused_until = until = time.monotonic() + seconds
            self._nudge()
            # When this returns, the next connection is refused, or taken again.
            self._turned.wait_for(
                lambda: self._stopped or (self._listener is None) is (time.monotonic() < until),
                timeout=2.0,
            )

    def stop(self) -> None:
        self._stopped = True
        self._nudge()

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b".")

    def serve(self) -> None:
        """Serve until :meth:`stop` is called."""
        try:
            while not self._stopped:
                self._accept(self._turn())
        finally:
            self._close_listener()
            self._close_connections()
            self._wake.close()
            self._waker.close()

    def _turn(self) -> float | None:
        """Close or open the port as is due; return the seconds until that has to be looked at."""
        with self._turned:
            pause = self._refused_until - time.monotonic()
            if pause > 0:
                self._close_listener()
            elif self._listener is None:
                try:
                    self._listener = self._listen(self.port)
                except OSError:
                    # Somebody else took the port meanwhile; they may give it back.
                    return 0.1
            self._turned.notify_all()
            return pause if pause > 0 else None

    def _accept(self, pause: float | None) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            if self._listener is not None:
                selector.register(self._listener, selectors.EVENT_READ)
            while ready := selector.select(pause):
                for key, _ in ready:
                    if key.fileobj is self._wake:
                        self._wake.recv(64)
                        return
                    self._welcome()

    def _welcome(self) -> None:
        if self._listener is None:
            return
        try:
            connection, address = self._listener.accept()
        except OSError:
            return
        connection.setblocking(True)
        if len(self._connections) >= _MOST_CONNECTIONS:
            connection.close()
            return
        thread = threading.Thread(
            target=self._converse, args=(connection, address), daemon=True, name="adroll-sandbox"
        )
        with self._lock:
            self._connections[connection] = thread
        thread.start()

    def _converse(self, connection: socket.socket, address: Any) -> None:
        wire = connection
        dropped = False
        try:
            connection.settimeout(_IDLE)
            if self.ssl_context is not None:
                wire = self.ssl_context.wrap_socket(connection, server_side=True)
                with self._lock:
                    thread = self._connections.pop(connection)
                    self._connections[wire] = thread
            handler = Handler(wire, address, self)
            dropped = handler.dropped
        except (OSError, ValueError):
            # The client went away, or stop() closed the socket under us.
            pass
        finally:
            with self._lock:
                self._connections.pop(wire, None)
                self._connections.pop(connection, None)
            _close(wire, reset=dropped)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _close_connections(self) -> None:
        with self._lock:
            open_now = dict(self._connections)
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + 2.0
        for thread in open_now.values():
            thread.join(max(0.0, end - time.monotonic()))


def _close(connection: socket.socket, *, reset: bool) -> None:
    with contextlib.suppress(OSError):
        if reset:
            # Closing with linger on and no time sends RST in place of FIN (socket(7), tcp(7)).
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            connection.shutdown(socket.SHUT_WR)
    connection.close()
