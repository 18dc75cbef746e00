"""A TCP relay in front of a server, which a test can cut: a restart without restarting anything."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

from tests.support.outbox_engines import Bench


class Relay:
    """Hands bytes on between a port of its own and *target* until :meth:`cut`."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._mute = False
        #: Connections that there were, and bytes in both directions.
        self.accepted = self.forwarded = 0
        self._server: socket.socket | None = None
        self._thread: threading.Thread | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.restore()

    def restore(self) -> None:
        """Listen (again)."""
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", self.port))
        server.listen()
        self._server = server
        self._mute = False
        self._thread = threading.Thread(target=self._serve, args=(server,))
        self._thread.start()

    def mute(self) -> None:
        """Accept, and hand nothing on: a server that hangs."""
        self._mute = True

    def cut(self) -> None:
        """Close everything, and refuse from now on."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        if self._thread is not None:
            self._thread.join()
        for pair in self._pairs:
            for one in pair:
                one.close()
        self._pairs.clear()

    def _serve(self, server: socket.socket) -> None:
        while self._server is server:
            sources = [server, *(one for pair in self._pairs for one in pair)]
            with contextlib.suppress(OSError, ValueError):
                ready, _, _ = select.select(sources, [], [], 0.05)
                for one in [] if self._mute and server not in ready else ready:
                    self._accept(server) if one is server else self._hand_on(one)
            if self._mute:
                threading.Event().wait(0.02)

    def _accept(self, server: socket.socket) -> None:
        client, _ = server.accept()
        self.accepted += 1
        self._pairs.append((client, socket.create_connection(self._target)))

    def _hand_on(self, one: socket.socket) -> None:
        if self._mute:
            return
        for pair in list(self._pairs):
            if one in pair:
                other = pair[1] if one is pair[0] else pair[0]
                data = b""
                with contextlib.suppress(OSError):
                    data = one.recv(65536)
                self.forwarded += len(data)
                if data:
                    other.sendall(data)
                else:
                    self._pairs.remove(pair)
                    one.close()
                    other.close()


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
