"""WSGI applications on real sockets, from a thread of the test's own process."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adroll_flask.sandbox.server import Server
from tests.support import PATIENCE


@contextmanager
def serving(app: Any, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve *app*; gives its port on 127.0.0.1."""
    server = Server(app, "127.0.0.1", 0, ssl_context=tls)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server.port
    finally:
        server.stop()
        thread.join(PATIENCE)
