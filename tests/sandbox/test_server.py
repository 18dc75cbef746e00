"""The sandbox's own server: connections are used again, TLS works, bad requests do no harm."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from adroll_flask.sandbox import RunningSandbox, running, serve
from adroll_flask.sandbox.__main__ import main
from adroll_flask.sandbox.server import Server
from tests.support import PATIENCE, free_port
from tests.support.certificates import CERTIFICATE, make_certificate
from tests.support.sandbox_helpers import ACCESS_TOKEN, ADVERTISABLE_EID, LEAST

HEADERS = {"Authorization": f"Token {ACCESS_TOKEN}"}
QUERY = f"?advertisable={ADVERTISABLE_EID}"


def exchange(adroll: RunningSandbox, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", adroll.port), timeout=PATIENCE) as wire:
        received = b""
        # A server that closes before it has read everything sends a reset (RFC 9112, 9.6).
        with contextlib.suppress(OSError):
            wire.sendall(sent)
            wire.shutdown(socket.SHUT_WR)
            while data := wire.recv(65536):
                received += data
    return received


def raw(head: str, body: bytes = b"", method: str = "POST") -> bytes:
    lines = [
        f"{method} /api{QUERY} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Token {ACCESS_TOKEN}",
        "Content-Type: application/json",
    ]
    return "\r\n".join([*lines, head, "", ""]).encode() + body


def test_a_connection_serves_many_requests(adroll: RunningSandbox) -> None:
    with requests.Session() as session:
        for _ in range(5):
            session.post(adroll.api_url + QUERY, json=[LEAST], headers=HEADERS, timeout=PATIENCE)
            session.get(adroll.url + "/requests", timeout=PATIENCE)
    assert [one["status"] for one in adroll.requests()] == [200] * 5
    assert len({one["connection"] for one in adroll.requests()}) == 1


def test_a_body_that_nobody_read_does_not_become_the_next_request(
    adroll: RunningSandbox,
) -> None:
    with requests.Session() as session:
        for _ in range(2):
            answer = session.post(adroll.api_url + QUERY, json=[LEAST], timeout=PATIENCE)
            assert answer.status_code == 401
    assert len({one["connection"] for one in adroll.requests()}) == 1


def test_a_chunked_body_is_read(adroll: RunningSandbox) -> None:
    body = json.dumps([LEAST]).encode()
    pieces = (body[i : i + 40] for i in range(0, len(body), 40))
    headers = {**HEADERS, "Content-Type": "application/json"}
    answer = requests.post(adroll.api_url + QUERY, data=pieces, headers=headers, timeout=PATIENCE)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: -1",
        "Content-Length: two",
        "Transfer-Encoding: gzip",
    ],
)
def test_a_length_that_can_be_read_in_two_ways_is_refused(
    adroll: RunningSandbox, head: str
) -> None:
    answer = exchange(adroll, raw(head, b"[]"))
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert adroll.requests() == []


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Length: 500", b"[]"),
        ("Transfer-Encoding: chunked", b"zz\r\n[]\r\n"),
        ("Transfer-Encoding: chunked", b"-2\r\n[]\r\n"),
        ("Transfer-Encoding: chunked", b"2\r\n[]xx"),
    ],
)
def test_a_body_that_breaks_off_is_dropped_and_the_server_lives(
    adroll: RunningSandbox, head: str, body: bytes
) -> None:
    exchange(adroll, raw(head, body))
    assert adroll.events() == []
    assert requests.get(adroll.url + "/events", timeout=PATIENCE).status_code == 200


@pytest.mark.parametrize(
    "sent", [b"", b"\r\n\r\n", b"HELLO\r\n\r\n", b"\x16\x03\x01\x02", b"a" * 70000]
)
def test_noise_does_no_harm(adroll: RunningSandbox, sent: bytes) -> None:
    exchange(adroll, sent)
    assert requests.get(adroll.url + "/events", timeout=PATIENCE).status_code == 200


def test_head_has_no_body(adroll: RunningSandbox) -> None:
    answer = exchange(adroll, b"HEAD /ad HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"200 OK" in head
    assert body == b""


def test_http_1_0_gets_its_answer_and_an_end(adroll: RunningSandbox) -> None:
    answer = exchange(adroll, b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"chunked" not in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["events"] == []


def test_stopping_does_not_wait_for_open_connections() -> None:
    with requests.Session() as session, running() as adroll:
        session.get(adroll.url + "/events", timeout=PATIENCE)
        stream = session.get(adroll.url + "/live", stream=True, timeout=PATIENCE)
        next(stream.iter_content(1))
        began = time.monotonic()
    assert time.monotonic() - began < 20
    stream.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("adroll-sandbox")]


def test_two_sandboxes_know_nothing_of_each_other() -> None:
    with running() as one, running() as other:
        requests.post(one.api_url + QUERY, json=[LEAST], headers=HEADERS, timeout=PATIENCE)
        assert len(one.events()) == 1
        assert other.events() == []


def test_tls_is_served_and_can_be_reset(tmp_path: Path) -> None:
    context = make_certificate(tmp_path, "localhost")
    with running(ssl_context=context) as adroll, requests.Session() as session:
        session.trust_env = False
        session.verify = str(tmp_path / CERTIFICATE)
        url = adroll.url_at("localhost") + "/api" + QUERY
        assert url.startswith("https://localhost:")
        answer = session.post(url, json=[LEAST], headers=HEADERS, timeout=PATIENCE)
        assert answer.status_code == 200
        # Plain HTTP to a TLS port, and a client that does not trust the certificate.
        exchange(adroll, b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url, timeout=PATIENCE)
        adroll.fault(reset="before", times=1)
        with pytest.raises(requests.ConnectionError):
            session.post(url, json=[LEAST], headers=HEADERS, timeout=PATIENCE)
        assert session.post(url, json=[LEAST], headers=HEADERS, timeout=PATIENCE).status_code == 200


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "adroll_flask.sandbox", "--port", str(port)]
    state = ["--state", str(tmp_path / "state.jsonl")]
    process = subprocess.Popen([*command, *state], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = requests.get(f"http://127.0.0.1:{port}/events", timeout=PATIENCE)
                break
            except requests.ConnectionError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert answer.json()["events"] == []
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in said


def test_what_the_command_says_arrives_at_once_in_a_file_or_a_pipe() -> None:
    """A terminal's lines are flushed anyway; whoever follows a log file waits for these."""
    person, keyboard = os.openpty()
    command = [sys.executable, "-m", "adroll_flask.sandbox", "--port", "0"]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        command, stdin=keyboard, stdout=subprocess.PIPE, text=True, env=environ
    )
    os.close(keyboard)
    told: list[str] = []
    output = process.stdout
    assert output is not None
    reader = threading.Thread(target=lambda: told.append(output.readline()), daemon=True)
    reader.start()
    reader.join(PATIENCE)
    try:
        assert told
        assert told[0].startswith("Watch  http://127.0.0.1:")
    finally:
        process.kill()
        process.wait()
        output.close()
        os.close(person)


@pytest.mark.parametrize("prog", [None, "flask adroll sandbox"])
def test_help_names_the_command_that_was_given(
    prog: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"], **({} if prog is None else {"prog": prog}))
    usage = f"usage: {prog or 'python -m adroll_flask.sandbox'} [-h] "
    assert capsys.readouterr().out.startswith(usage)


def test_serving_ends_at_an_interrupt_and_tells_where_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    serve_on = Server.serve

    def interrupt(server: Server) -> None:
        server.stop()
        serve_on(server)
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve", interrupt)
    serve(port=0, announce=told.append, state_file=tmp_path / "state.jsonl")
    assert told[0].startswith("http://127.0.0.1:")


def test_a_port_in_use_is_one_line_that_names_it_and_the_way_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running() as adroll:
        assert main(["--port", str(adroll.port)]) == 1
    assert capsys.readouterr().err == (
        f"sandbox: port {adroll.port} is taken, perhaps by another sandbox: end it,"
        f" or choose another port with --port {adroll.port + 1} and tell the shop"
        f" (ADROLL_SANDBOX={adroll.port + 1})\n"
    )
