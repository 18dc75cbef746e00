"""A server on loopback that does to each connection what a test says, byte by byte."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Script = Callable[[socket.socket, bytes], None]


@dataclass
class Server:
    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"


def read_request(connection: socket.socket) -> bytes:
    """One request: its head and, by Content-Length, its body."""
    got = b""
    while b"\r\n\r\n" not in got:
        part = connection.recv(65536)
        if not part:
            return got
        got += part
    head, _, body = got.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            break
        body += part
    return head + b"\r\n\r\n" + body


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
    listener = socket.create_server(("127.0.0.1", 0))
    seen = Server(listener.getsockname()[1])
    stopping = threading.Event()
    turn = iter(scripts)
    last: list[Script] = list(scripts[-1:])

    def converse(connection: socket.socket) -> None:
        connection.settimeout(10)
        try:
            if before_reading is not None:
                before_reading(connection, b"")
                return
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            while True:
                request = read_request(connection)
                if not request:
                    return
                seen.requests.append(request)
                next(turn, last[0])(connection, request)
                if not keep:
                    return
        except OSError:
            return  # the client went away, which some tests want
        finally:
            connection.close()

    def accept() -> None:
        while not stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            seen.connections += 1
            threading.Thread(target=converse, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stopping.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
