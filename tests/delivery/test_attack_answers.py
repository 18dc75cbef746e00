"""An AdRoll that answers with odd and huge things: memory is bounded, nothing is lost or blamed."""

import gc
import gzip
import resource
import socket
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.delivery_kit import Shop
from tests.support.sandbox_shop import Timeouts, Watched
from tests.support.scripted_server import Script, answering, reply, server

HUGE = 100 << 20


def huge(status: str) -> Script:
    def answer(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {HUGE}\r\n\r\n".encode())
        with suppress(OSError):
            for _ in range(HUGE >> 20):
                connection.sendall(b'{"a":' * (1 << 18))

    return answer


def trickle(connection: socket.socket, _request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with suppress(OSError):
        while True:
            connection.sendall(b"1\r\n.\r\n")
            time.sleep(0.05)


def said(headers: bytes, body: bytes = b"{}") -> Script:
    """A success with these headers and this body."""
    return answering(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n\r\n" + body)


BOMB = gzip.compress(bytes(HUGE), compresslevel=1)
#: What it answers, and whether it has taken the events then, certainly not, or perhaps.
ANSWERS: dict[str, tuple[Script, str]] = {
    "100 MB and 200": (huge("200 OK"), "taken"),
    "100 MB and 400": (huge("400 Bad Request"), "not"),
    "100 MB and 503": (huge("503 Service Unavailable"), "not"),
    "a body that trickles for ever": (trickle, "perhaps"),
    "more than it announced": (said(b"Content-Length: 2", b"{}" + b"x" * 9999), "taken"),
    "two lengths": (said(b"Content-Length: 2\r\nContent-Length: 99"), "perhaps"),
    "a negative length": (said(b"Content-Length: -5"), "taken"),
    "chunks of nonsense": (said(b"Transfer-Encoding: chunked", b"zz\r\n{}\r\n"), "perhaps"),
    "a bomb": (answering(reply("200 OK", BOMB, "Content-Encoding: gzip")), "taken"),
    "a bomb and 400": (answering(reply("400 Bad Request", BOMB, "Content-Encoding: gzip")), "not"),
    "switching protocols": (answering(reply("101 Switching Protocols")), "perhaps"),
    "a status of four digits": (answering(reply("2000 OK")), "perhaps"),
    "no HTTP": (answering(b"SSH-2.0-OpenSSH\r\n"), "perhaps"),
    "a header of a megabyte": (said(b"X: " + b"x" * (1 << 20), b""), "perhaps"),
    "ten thousand headers": (said(b"X: y\r\n" * 10_000, b""), "perhaps"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_odd_answers_lose_blame_and_cost_nothing(name: str, tmp_path: Path) -> None:
    script, taken = ANSWERS[name]
    network = Watched(Timeouts(connect=1.0, read=0.5, total=1.0))
    # At the limit of recursion the finalizers of what earlier tests left would fail.
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Who is refused asks again: on a connection that the server is about to close, that is unsure.
    with server(script, keep=taken == "not") as up:
        shop = Shop(tmp_path, network, api_url=up.url, on_unsure="retry", orders=30)
        shop.step()
        rows = shop.rows().values()
        asked = len(up.requests)
        network.inner.close()
    # Of an answer 64 KB are read; what the kernel has for us beside that is not ours.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10, "KB"
    assert asked >= 1
    states = Counter(row.state for row in rows)
    assert states.total() == 30
    if taken == "taken":
        assert states == {"delivered": 30}
        return
    assert states["delivered"] == states["dead"] == 0, "none is blamed for what AdRoll says to all"
    assert {row.unsure > 0 for row in rows} == {taken == "perhaps"}
    # And when it is well again, all come.
    with server(answering(reply("200 OK", b"{}")), keep=True) as up:
        again = Shop(tmp_path, network, api_url=up.url, clock=shop.clock)
        again.steps(60, 300)
        assert set(again.states().values()) == {"delivered"}
        again.outbox.close()
        network.inner.close()
    shop.outbox.close()
