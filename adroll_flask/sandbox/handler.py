"""One connection to the sandbox: requests are read from it and given to the application."""

from __future__ import annotations

import io
import socket
import sys
import traceback
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from adroll_flask.sandbox.bodies import Body, Chunks
from adroll_flask.sandbox.faults import REFUSE, Dropped

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from adroll_flask.sandbox.server import Server

_LEFT_UNREAD = 65536


class Handler(BaseHTTPRequestHandler):
    """Reads requests from one connection and gives them to the application."""

    protocol_version = "HTTP/1.1"
    server_version = "adroll-sandbox"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = 65536

    def __init__(self, connection: socket.socket, address: Any, owner: Server) -> None:
        self.owner = owner
        self.dropped = False
        super().__init__(connection, address, owner)  # type: ignore[arg-type]

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline:
            self.close_connection = True
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
        lengths = self.headers.get_all("Content-Length", [])
        coding = self.headers.get("Transfer-Encoding")
        if coding is not None:
            # RFC 9112, section 6.1: both headers together are an attack or a mistake.
            if lengths or coding.strip().lower() != "chunked":
                return None
            return io.BufferedReader(Chunks(self.rfile))
        if not lengths:
            return io.BufferedReader(Body(self.rfile, 0))
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
            return None

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
        piece: bytes | None = first
        while piece is not None:
            if piece and not bodiless:
                sent += len(piece)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                if chunked:
                    self.wfile.flush()
            piece = next(pieces, None)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        if length is not None and not bodiless and sent < length:
            self.close_connection = True

    def _drain(self, body: io.BufferedReader) -> None:
        """Read what the application left of the body, so that the next request can follow."""
        if self.close_connection:
            return
        left = _LEFT_UNREAD
        while left > 0:
            data = body.read(min(left, 16384))
            if not data:
                return
            left -= len(data)
        self.close_connection = True

    def version_string(self) -> str:
        return self.server_version

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        if not self.owner.quiet:
            # No query: a click id may stand there.
            line = f"{self.command} {self.path.partition('?')[0]} {int(code)}"
            print(line, file=sys.stderr, flush=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what http.server would log holds the client's own text."""
