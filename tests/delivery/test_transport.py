"""Over a real socket: what counts as sent, and what a kept connection may and may not do."""

import os
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from adroll_flask.delivery import transport as transport_module
from adroll_flask.delivery.transport import NoAnswer, Response, Timeouts
from adroll_flask.delivery.transport import RequestsTransport as Transport
from tests.conftest import Patch
from tests.support import in_a_child
from tests.support.certificates import write_certificate
from tests.support.forking import forks_amid_threads
from tests.support.scripted_server import Script, answering, read_request, reply, reset, server

TLS = ssl.SSLContext
HEADERS = {"Authorization": "Token canary-token", "Content-Type": "application/json"}
SHORT = Timeouts(connect=0.3, read=0.3, total=1.0)
#: For an answer that comes, on a machine that is busy.
AMPLE = Timeouts(connect=20.0, read=20.0, total=60.0)


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: Patch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.endswith("_CA_BUNDLE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def send(url: str, timeout: Timeouts = AMPLE, transport: Transport | None = None) -> Response:
    if transport is not None:
        return transport.send(url, HEADERS, b"body")
    with closing(Transport(timeout)) as transport:
        return transport.send(url, HEADERS, b"body")


def failure(url: str, timeout: Timeouts = SHORT) -> NoAnswer:
    with pytest.raises(NoAnswer) as caught:
        send(url, timeout)
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    return caught.value


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1")


@pytest.fixture
def transport() -> Iterator[Transport]:
    one = Transport(AMPLE)
    yield one
    one.close()


@pytest.fixture
def tls(certificate: Path) -> TLS:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
INTERIM = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "103": HINTS,
    "103 twice": HINTS * 2,
    "199": b"HTTP/1.1 199\r\nX-What: ever\r\n\r\n",
    "100 and 103": b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS,
}


@pytest.mark.parametrize("interim", INTERIM.values(), ids=INTERIM)
def test_what_comes_before_the_answer_is_none(transport: Transport, interim: bytes) -> None:
    with server(
        answering(interim + reply("200 OK", b"taken")), answering(reply("200 OK", b"2")), keep=True
    ) as seen:
        for body in (b"taken", b"2"):
            answer = send(seen.url, transport=transport)
            assert (answer.status, answer.body) == (200, body)
            assert "link" not in answer.headers
        assert seen.connections == 1, "nothing was left over on the connection"


def speaks_no_tls(connection: socket.socket, _request: bytes) -> None:
    connection.sendall(b"hello, no TLS here\r\n")


def hangs(_connection: socket.socket, _request: bytes) -> None:
    time.sleep(1)


def breaks(connection: socket.socket, _request: bytes) -> None:
    connection.recv(4096)
    reset(connection)


@pytest.mark.parametrize(
    ("handshake", "reasons"),
    [(speaks_no_tls, {"tls"}), (hangs, {"connect_timeout"}), (breaks, {"tls", "unreachable"})],
)
def test_a_server_that_speaks_no_tls_is_sure(handshake: Script, reasons: set[str]) -> None:
    """Although a read timed out, or a connection broke."""
    with server(before_reading=handshake) as up:
        error = failure(up.url.replace("http:", "https:"))
    assert error.sure
    assert error.reason in reasons


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_ca_bundle_may_be_set(tls: TLS, certificate: Path, monkeypatch: Patch, name: str) -> None:
    monkeypatch.setenv(name, str(certificate))
    with server(answering(reply("200 OK")), tls=tls) as up:
        assert send(up.url.replace("http:", "https:")).status == 200


@pytest.mark.parametrize("value", ["", "0", "False", "/no/such/bundle.pem"])
def test_no_environment_switches_verification_off(tls: TLS, monkeypatch: Patch, value: str) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", value)
    monkeypatch.setenv("PYTHONHTTPSVERIFY", "0")
    with server(answering(reply("200 OK")), tls=tls) as up:
        error = failure(up.url.replace("http:", "https:"))
    assert (error.reason, error.sure) == ("tls", True)
    assert up.requests == []


@pytest.mark.parametrize("trickled", [b"HTTP/1.1 200 OK\r\nX-Long: ", b""], ids=["head", "status"])
def test_an_answer_that_trickles_ends_at_the_deadline(trickled: bytes) -> None:
    def trickle(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(trickled)
        for byte in b"HTTP/1.1 200 OK" + b"x" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    started = time.monotonic()
    with server(trickle) as up:
        error = failure(up.url, Timeouts(connect=0.2, read=0.3, total=0.3))
    assert time.monotonic() - started < 20
    assert (error.reason, error.sure) == ("read_timeout", False)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_redirects_are_not_followed(status: str) -> None:
    with server(answering(reply("200 OK"))) as elsewhere:
        moved = reply(status, b"", f"Location: {elsewhere.url}")
        with server(answering(moved)) as up:
            assert send(up.url).status == int(status[:3])
    assert elsewhere.connections == 0


def test_a_netrc_does_not_take_the_tokens_place(tmp_path: Path, monkeypatch: Patch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with server(answering(reply("200 OK"))) as up:
        send(up.url)
    assert b"Authorization: Token canary-token\r\n" in up.requests[0]


def test_a_proxy_carries_https_by_connect_and_sees_no_token(monkeypatch: Patch) -> None:
    with server(answering(reply("407 Proxy Authentication Required"))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        error = failure("https://srv.adroll.invalid/api")
    assert (error.reason, error.sure) == ("proxy", True)
    assert proxy.requests[0].startswith(b"CONNECT srv.adroll.invalid:443 ")
    assert b"canary" not in b"".join(proxy.requests)


def test_what_breaks_in_a_proxy_s_tunnel_is_unsure(
    tls: TLS, certificate: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    outcomes: list[int | tuple[str, bool]] = []
    for ending in (answering(reply("200 OK")), reset):

        def tunnel(connection: socket.socket, _request: bytes, ending: Script = ending) -> None:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with tls.wrap_socket(connection, server_side=True) as inner:
                ending(inner, read_request(inner))

        with server(tunnel) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            try:
                outcomes.append(send("https://127.0.0.1/api").status)
            except NoAnswer as error:
                outcomes.append((error.reason, error.sure))
    assert outcomes == [200, ("reset", False)]


def test_plain_http_to_this_machine_never_goes_through_a_proxy(monkeypatch: Patch) -> None:
    with server(answering(reply("200 OK"))) as proxy, server(answering(reply("200 OK"))) as up:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        send(up.url)
    assert (proxy.connections, up.connections) == (0, 1)


@forks_amid_threads
def test_a_connection_is_kept_for_any_thread_of_the_process(
    monkeypatch: Patch, transport: Transport
) -> None:
    with server(answering(reply("200 OK")), keep=True) as up:
        send(up.url, transport=transport)
        other = threading.Thread(target=lambda: send(up.url, SHORT, transport))
        other.start()
        other.join()
        assert (len(up.requests), up.connections) == (2, 1)
        assert in_a_child(lambda: send(up.url, transport=transport).status == 200)
        assert up.connections == 2
        send(up.url, transport=transport)
        assert up.connections == 2, "the parent goes on with its own"
        monkeypatch.setattr(transport_module, "MAX_IDLE", -1.0)
        send(up.url, transport=transport)
        assert up.connections == 3


def test_no_cookie_of_an_answer_goes_with_the_next_request(transport: Transport) -> None:
    """It would tie the events of all visitors, and of all accounts, to one another."""
    with server(answering(reply("200 OK", b"", "Set-Cookie: __adroll=1; Path=/")), keep=True) as up:
        send(up.url, transport=transport)
        send(up.url, transport=transport)
    first, second = up.requests
    assert b"cookie" not in second.lower()
    assert first == second


def test_two_requests_at_once_have_a_connection_each() -> None:
    transport = Transport()
    first_is_there = threading.Event()
    second_was_answered = threading.Event()

    def waits(connection: socket.socket, request: bytes) -> None:
        first_is_there.set()
        assert second_was_answered.wait(10)
        answering(reply("200 OK"))(connection, request)

    with server(waits, answering(reply("200 OK")), keep=True) as up:
        other = threading.Thread(target=lambda: send(up.url, transport=transport))
        other.start()
        assert first_is_there.wait(10)
        assert send(up.url, transport=transport).status == 200
        second_was_answered.set()
        other.join()
        assert up.connections == 2
    transport.close()


def test_a_kept_connection_that_broke_or_was_closed_is_noticed(transport: Transport) -> None:
    with server(reset, answering(reply("200 OK"))) as up:  # closes after each answer
        with pytest.raises(NoAnswer):
            send(up.url, transport=transport)
        send(up.url, transport=transport)
        time.sleep(0.05)
        assert send(up.url, transport=transport).status == 200
    assert up.connections == 3


def test_nothing_leaves_where_connecting_left_no_time_for_the_answer(monkeypatch: Patch) -> None:
    """A name has many addresses, and each has the time-out anew."""
    find = socket.getaddrinfo

    def slow(*args: Any, **named: Any) -> Any:
        time.sleep(SHORT.total + SHORT.connect)
        return find(*args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with server(answering(reply("200 OK"))) as up:
        answer = failure(up.url)
        assert (answer.sure, answer.reason, up.requests) == (True, "connect_timeout", [])


@pytest.mark.parametrize("url", ["https://", "http://[", "https://exa mple/"])
def test_an_address_that_is_none_is_a_sure_failure(url: str) -> None:
    assert failure(url).sure
