"""A small threaded HTTP/1.1 server: keep-alive, TLS, connections that can be refused and reset.

Werkzeug's development server closes each connection after one request and cannot send a reset, so
neither the reuse of connections nor their loss could be tried out with it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import selectors
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from .bodies import Body, Chunks
from .faults import REFUSE, Dropped

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

_IDLE = 75.0
#: Seconds after which the thread that serves looks up: whether the port is to be opened again, and
#: for a signal that came just before it waited, or to another thread, and interrupted no wait.
_PAUSE = 0.1
_MOST_CONNECTIONS = 256
#: Bytes of a body that are read where the application left them.
_LEFT_UNREAD = 65536


class Server:
    """Serves one WSGI application on one address, a thread for each connection.

    :param host: the address to bind.
    :param port: the port; 0 picks a free one, see :attr:`port`.
    :param ssl_context: serve TLS with this context.
    :param clock: the time that answers have as their ``Date``, seconds since the epoch.
    """

    def __init__(
        self,
        app: WSGIApplication,
        host: str,
        port: int,
        *,
        ssl_context: ssl.SSLContext | None = None,
        quiet: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self.clock = clock
        self.host = host
        self.ssl_context = ssl_context
        self.quiet = quiet
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener: socket.socket | None = self._listen(port)
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._waker = socket.socketpair()
        self._port_changed = threading.Condition()
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
        with self._port_changed:
            self._refused_until = until = time.monotonic() + seconds
            self._nudge()
            # When this returns, the next connection is refused, or taken again.
            self._port_changed.wait_for(
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
                self._close_or_open_port()
                self._accept()
        finally:
            self._close_listener()
            self._close_connections()
            self._wake.close()
            self._waker.close()

    def _close_or_open_port(self) -> None:
        with self._port_changed:
            if time.monotonic() < self._refused_until:
                self._close_listener()
            elif self._listener is None:
                # Where somebody else took the port meanwhile, they may give it back.
                with contextlib.suppress(OSError):
                    self._listener = self._listen(self.port)
            self._port_changed.notify_all()

    def _accept(self) -> None:
        """Welcome who comes, until nobody came for a moment or the port is to be looked at."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            if self._listener is not None:
                selector.register(self._listener, selectors.EVENT_READ)
            while ready := selector.select(_PAUSE):
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
            connection.settimeout(_IDLE)
            if self.ssl_context is not None:
                connection = self.ssl_context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
        except OSError:
            return
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
        dropped = False
        try:
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
            dropped = _Handler(connection, address, self).dropped
        except (OSError, ValueError):
            # The client went away, or stop() closed the socket under us.
            pass
        finally:
            with self._lock:
                del self._connections[connection]
            _close(connection, reset=dropped)

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


class _Handler(BaseHTTPRequestHandler):
    """Reads requests from one connection and gives them to the application."""

    protocol_version = "HTTP/1.1"
    server_version = "adroll-sandbox"
    disable_nagle_algorithm = True
    wbufsize = 65536

    def __init__(self, connection: socket.socket, address: Any, owner: Server) -> None:
        self.owner = owner
        self.dropped: bool = False
        super().__init__(connection, address, owner)  # type: ignore[arg-type]

    def finish(self) -> None:
        # The base class leaves the reading end open where what is left to write cannot be written,
        # and with it the socket, until the garbage collector finds them.
        for file in (self.wfile, self.rfile):
            with contextlib.suppress(OSError, ValueError):
                file.close()

    def handle_one_request(self) -> None:
        self.raw_requestline: bytes = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection: bool = True
            return
        if len(self.raw_requestline) > 65536:
            self.requestline = self.request_version = self.command = ""
            self.send_error(414)
            self.close_connection = True
            return
        if not self.parse_request():
            return
        body = self._body()
        if body is None:
            self.close_connection = True
            self.send_error(400)
        else:
            self._respond(body)
        self.wfile.flush()

    def _body(self) -> io.BufferedReader | None:
        coding = self.headers.get("Transfer-Encoding")
        if coding is not None:
            # RFC 9112, section 6.1: both headers together are an attack or a mistake.
            if "Content-Length" in self.headers or coding.strip().lower() != "chunked":
                return None
            return io.BufferedReader(Chunks(self.rfile))
        lengths = self.headers.get_all("Content-Length", ["0"])
        if len(lengths) > 1 or not lengths[0].strip().isdecimal():
            return None
        return io.BufferedReader(Body(self.rfile, int(lengths[0])))

    def _environ(self, body: io.BufferedReader) -> WSGIEnvironment:
        path, _, query = self.path.partition("?")
        environ: WSGIEnvironment = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if self.owner.ssl_context else "http",
            "wsgi.input": body,
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "SERVER_SOFTWARE": self.server_version,
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "REMOTE_ADDR": self.client_address[0],
            "REMOTE_PORT": str(self.client_address[1]),
            "SERVER_NAME": self.owner.host,
            "SERVER_PORT": str(self.owner.port),
            "SERVER_PROTOCOL": self.request_version,
            REFUSE: self.owner.refuse,
        }
        for name, value in self.headers.items():
            if "_" in name:
                continue
            key = name.upper().replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = "HTTP_" + key
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ

    def _respond(self, body: io.BufferedReader) -> None:
        began: dict[str, Any] = {}

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Any:
            began.update(status=status, headers=headers)

        try:
            chunks = self.owner.app(self._environ(body), start_response)
            try:
                self._write(began, chunks)
            finally:
                close = getattr(chunks, "close", None)
                if close is not None:
                    close()
            self._drain(body)
        except Dropped:
            self.dropped = True
            self.close_connection = True
        except OSError:
            self.close_connection = True
        except Exception:
            self.close_connection = True
            traceback.print_exc()

    def _write(self, began: dict[str, Any], chunks: Any) -> None:
        pieces = iter(chunks)
        first = next(pieces, b"")
        code, _, phrase = began["status"].partition(" ")
        self.send_response(int(code), phrase)
        length = None
        for name, value in began["headers"]:
            if name.lower() == "content-length":
                length = int(value)
            self.send_header(name, value)
        bodiless = self.command == "HEAD" or int(code) in (204, 304)
        chunked = length is None and not bodiless and self.request_version != "HTTP/1.0"
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif length is None and not bodiless:
            self.send_header("Connection", "close")
        self.end_headers()
        sent = 0
        for piece in itertools.chain([first], pieces):
            if not piece or bodiless:
                continue
            sent += len(piece)
            if chunked:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            else:
                self.wfile.write(piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        if length is not None and not bodiless and sent < length:
            self.close_connection = True

    def _drain(self, body: io.BufferedReader) -> None:
        """Read what the application left of the body, so that the next request can follow."""
        if self.close_connection:
            return
        bytes_to_read = _LEFT_UNREAD
        while bytes_to_read > 0:
            data = body.read(min(bytes_to_read, 16384))
            if not data:
                return
            bytes_to_read -= len(data)
        self.close_connection = True

    def version_string(self) -> str:
        return self.server_version

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(self.owner.clock() if timestamp is None else timestamp)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        if not self.owner.quiet:
            # No query: a click id may stand there.
            line = f"{self.command} {self.path.partition('?')[0]} {int(code)}"
            print(line, file=sys.stderr, flush=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what http.server would log holds the client's own text."""
