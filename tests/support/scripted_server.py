"""A server on loopback that does to each connection what a test says, byte by byte."""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

Script = Callable[[socket.socket, bytes], None]


class Server(ThreadingTCPServer):
    """Does *scripts* in turn, the last one for ever; see :func:`server`."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, scripts: tuple[Script, ...], tls: Any, before_reading: Script | None, keep: bool
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.scripts, self.last = iter(scripts), scripts[-1:]
        self.tls, self.before_reading, self.keep = tls, before_reading, keep
        self.requests: list[bytes] = []
        self.connections = 0
        self.port: int = self.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/api"

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.connections += 1
        connection.settimeout(10)
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client went away, which some tests want."""


class _Conversation(BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        connection, up = self.request, self.server
        if up.before_reading is not None:
            up.before_reading(connection, b"")
            return
        while request := read_request(connection):
            up.requests.append(request)
            next(up.scripts, *up.last)(connection, request)
            if not up.keep:
                return


def read_request(connection: socket.socket) -> bytes:
    """One request: its head and, by Content-Length, its body."""
    with connection.makefile("rb") as file:
        head = b""
        while (line := file.readline()).strip():
            head += line
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        return head + line + file.read(int(length[1]) if length else 0)


def answering(data: bytes) -> Script:
    return lambda connection, _request: connection.sendall(data)


def reset(connection: socket.socket, _request: bytes = b"") -> None:
    """Close with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def reply(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextlib.contextmanager
def server(
    *scripts: Script, tls: Any = None, before_reading: Script | None = None, keep: bool = False
) -> Iterator[Server]:
    """Serve *scripts* in turn, the last one for ever; with *keep*, several on a connection."""
    with Server(scripts, tls, before_reading, keep) as up:
        threading.Thread(target=up.serve_forever, args=(0.02,), daemon=True).start()
        yield up
        up.shutdown()
