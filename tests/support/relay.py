"""A TCP relay in front of a server, which a test can cut: a restart without restarting anything."""

import contextlib
import socket
import threading
from collections.abc import Iterator

from tests.support import free_port
from tests.support.outbox_engines import Bench


class Relay:
    """Hands bytes on between a port of its own and *target* until :meth:`cut`."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._sockets: list[socket.socket] = []
        self._flows = threading.Event()
        #: Connections that there were, and bytes in both directions.
        self.accepted = self.forwarded = 0
        self.port = free_port()
        self.restore()

    def restore(self) -> None:
        """Listen (again)."""
        self._flows.set()
        self._server = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._serve, args=(self._server,), daemon=True)
        self._thread.start()

    def mute(self) -> None:
        """Accept, and hand nothing on: a server that hangs."""
        self._flows.clear()

    def cut(self) -> None:
        """Close everything, and refuse from now on."""
        _close(self._server)
        self._thread.join()
        while self._sockets:
            _close(self._sockets.pop())
        self._flows.set()

    def _serve(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                client, _ = server.accept()
                self.accepted += 1
                upstream = socket.create_connection(self._target)
                self._sockets += [client, upstream]
                for ends in ((client, upstream), (upstream, client)):
                    threading.Thread(target=self._hand_on, args=ends, daemon=True).start()

    def _hand_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                self.forwarded += len(data)
                target.sendall(data)
        _close(source)
        _close(target)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)  # who waits at it wakes up
    one.close()


@contextlib.contextmanager
def in_trouble(server: Bench, relay: Relay, trouble: str) -> Iterator[None]:
    """Meanwhile the server ``hangs``, ``is down`` or ``is locked``; then it is as before."""
    with server.locked() if trouble == "is locked" else contextlib.nullcontext():
        if trouble == "hangs":
            relay.mute()
        elif trouble == "is down":
            relay.cut()
        yield
    relay.cut()
    relay.restore()
