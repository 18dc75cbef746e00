"""The sandbox's own server: connections are used again, TLS works, bad requests do no harm."""

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from adroll_flask.sandbox import RunningSandbox, faults, running, serve
from adroll_flask.sandbox.__main__ import main
from tests.conftest import Capsys, Patch
from tests.support import PATIENCE, answers, certificates, eventually
from tests.support.sandbox_helpers import ACCESS_TOKEN, ADVERTISABLE_EID, LEAST, Api, purchase

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


def test_a_body_that_nobody_read_does_not_become_the_next_request(adroll: RunningSandbox) -> None:
    with requests.Session() as session:
        for _ in range(2):
            answer = session.post(adroll.api_url + QUERY, json=[LEAST], timeout=PATIENCE)
            assert answer.status_code == 401
    assert len({one["connection"] for one in adroll.requests()}) == 1


HEAD = f"POST /api{QUERY} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
HEAD += f"Authorization: Token {ACCESS_TOKEN}\r\n"
NOISE = (
    *(b"", b"\r\n\r\n", b"HELLO\r\n\r\n", b"\x16\x03\x01\x02", b"a" * 70000),
    f"{HEAD}Content-Length: 500\r\n\r\n[]".encode(),
    f"{HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\n[]xx".encode(),
    f"{HEAD}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n[]".encode(),
)


@pytest.mark.parametrize("sent", NOISE)
def test_noise_and_a_body_that_breaks_off_do_no_harm(adroll: RunningSandbox, sent: bytes) -> None:
    exchange(adroll, sent)
    assert adroll.events() == []
    assert requests.get(adroll.url + "/events", timeout=PATIENCE).status_code == 200


def test_stopping_does_not_wait_for_open_connections() -> None:
    before = threading.enumerate()  # another test's may run
    with requests.Session() as session, running() as adroll:
        session.get(adroll.url + "/events", timeout=PATIENCE)
        stream = session.get(adroll.url + "/live", stream=True, timeout=PATIENCE)
        next(stream.iter_content(1))
        began = time.monotonic()
    assert time.monotonic() - began < 20
    stream.close()
    left = [one.name for one in threading.enumerate() if one not in before]
    assert not [name for name in left if name.startswith("adroll-sandbox")]


def test_tls_is_served_and_can_be_reset(tmp_path: Path) -> None:
    context = certificates.make_certificate(tmp_path, "localhost")
    with running(ssl_context=context) as adroll, requests.Session() as session:
        session.trust_env = False
        session.verify = str(tmp_path / certificates.CERTIFICATE)
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


def test_serving_ends_at_an_interrupt_that_comes_before_it_waits(tmp_path: Path) -> None:
    """Another thread gets the signal: no system call of the one that serves is interrupted."""
    ended, was_in_time = threading.Event(), []

    def interrupt(url: str) -> None:
        requests.get(url, timeout=PATIENCE)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        was_in_time.append(ended.wait(PATIENCE))
        with contextlib.suppress(requests.ConnectionError):  # what does not end is told to
            requests.get(url, timeout=PATIENCE)

    def announce(url: str) -> None:
        thread = threading.Thread(target=interrupt, args=[url])
        stack.callback(thread.join)
        thread.start()

    with contextlib.ExitStack() as stack:
        serve(port=0, announce=announce, state_file=tmp_path / "state.jsonl")
        ended.set()
    assert was_in_time == [True]


def test_a_port_in_use_is_one_line_that_names_it_and_the_way_out(capsys: Capsys) -> None:
    with running() as adroll:
        assert main(["--port", str(adroll.port)]) == 1
    assert capsys.readouterr().err == (
        f"sandbox: port {adroll.port} is taken, perhaps by another sandbox: end it,"
        f" or choose another port with --port {adroll.port + 1} and tell the shop"
        f" (ADROLL_SANDBOX={adroll.port + 1})\n"
    )


def test_it_starts_where_the_environment_has_it(capsys: Capsys, monkeypatch: Patch) -> None:
    with running() as adroll, running() as other:
        for variable, value in (
            ("ADROLL_SANDBOX", str(adroll.port)),
            ("FLASK_ADROLL_SANDBOX", f"http://sandbox:{adroll.port}"),
        ):
            monkeypatch.setenv("ADROLL_SANDBOX", "1")
            monkeypatch.setenv(variable, value)
            assert main([]) == 1
            assert f"port {adroll.port} is taken" in capsys.readouterr().err
            assert main(["--port", str(other.port)]) == 1
            assert f"port {other.port} is taken" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["True", "", "0", "65536", "sandbox", "http://sandbox"])
def test_without_a_port_in_the_environment_it_has_its_own(
    capsys: Capsys, monkeypatch: Patch, value: str
) -> None:
    monkeypatch.setenv("ADROLL_SANDBOX", value)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "port to bind (default: 5001)" in " ".join(capsys.readouterr().out.split())


def test_a_port_that_is_none_is_one_line(capsys: Capsys) -> None:
    for port in ("65536", "-1", "http"):
        with pytest.raises(SystemExit):
            main(["--port", port])
        assert capsys.readouterr().err.splitlines()[-1].endswith("takes 0 to 65535")


# -- faults on demand, over real connections ------------------------------------------------------


class Client(requests.Session):
    """A client with a fresh connection pool, as a worker would have."""

    def __init__(self, adroll: RunningSandbox) -> None:
        super().__init__()
        self.headers.update(HEADERS)
        self.url = adroll.api_url + QUERY

    def report(self, *orders: str, timeout: float = PATIENCE) -> requests.Response:
        return self.post(self.url, json=[purchase(order) for order in orders], timeout=timeout)


@pytest.fixture
def client(adroll: RunningSandbox) -> Iterator[Client]:
    with Client(adroll) as made:
        yield made


def outcomes(adroll: RunningSandbox) -> list[tuple[Any, str]]:
    return [(one["status"], one["outcome"]) for one in adroll.requests()]


def test_a_reset_is_a_reset_and_not_an_end(adroll: RunningSandbox) -> None:
    adroll.fault(reset="after")
    with socket.create_connection(("127.0.0.1", adroll.port), timeout=PATIENCE) as wire:
        wire.sendall(b"POST /api HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            wire.recv(100)


def test_deleting_the_faults_ends_a_hang(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(hang=30, take=True)
    with ThreadPoolExecutor(1) as thread:
        posted = thread.submit(client.report, "1", timeout=25)
        eventually(lambda: bool(adroll.purchases()))
        while not posted.done():  # it may be taken a moment before it hangs
            adroll.clear_faults()
            time.sleep(0.05)
        with pytest.raises(requests.ConnectionError):  # a hang to its end is a time-out
            posted.result()
    assert len(adroll.purchases()) == 1
    assert outcomes(adroll) == [(None, "hung after taking")]


def test_offline_resets_each_connection_for_a_while(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(offline=2)
    for _ in range(2):
        with pytest.raises(requests.ConnectionError):
            client.report("1")
    assert adroll.app.test_client().get("/faults").get_json()["faults"][0]["left"] <= 2
    eventually(lambda: adroll.app.test_client().get("/faults").json == {"faults": []})
    assert client.report("1").status_code == 200


def test_a_closed_port_refuses_and_opens_again(adroll: RunningSandbox) -> None:
    def connect() -> None:
        socket.create_connection(("127.0.0.1", adroll.port), timeout=PATIENCE).close()

    for _ in range(3):
        assert adroll.fault(refuse=30) == 0
        with pytest.raises(ConnectionRefusedError):
            connect()
        adroll.clear_faults()
        connect()
    with requests.Session() as session:
        answer = session.post(adroll.url + "/faults", json={"refuse": 2}, timeout=PATIENCE)
        assert answer.status_code == 201
        # The connection that was open lives on, as the live view's does.
        assert session.get(adroll.url + "/events", timeout=PATIENCE).status_code == 200
    with pytest.raises(ConnectionRefusedError):
        connect()
    eventually(lambda: answers(adroll.port))  # by itself
    assert adroll.requests() == []


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ({"status": 502, "body": "<h1>Bad gateway</h1>"}, "text/html", "<h1>Bad gateway</h1>"),
        ({"body": {"errors": [{"message": "no"}]}}, "application/json", "errors"),
        ({"body": "pong", "content_type": "text/plain"}, "text/plain", "pong"),
        ({"status": 204, "body": "no body may follow"}, "text/html", ""),
    ],
)
def test_any_status_is_given(
    adroll: RunningSandbox, client: Client, fault: dict[str, Any], kind: str, text: str
) -> None:
    adroll.fault(**fault)
    answer = client.report("1")
    assert answer.status_code == fault.get("status", 200)
    assert answer.headers["Content-Type"].startswith(kind)
    assert text in answer.text
    assert adroll.events() == []
    # The connection is still good for another request.
    adroll.clear_faults()
    assert client.report("2").status_code == 200
    assert len({one["connection"] for one in adroll.requests()}) == 1


def test_a_fault_meets_its_own_requests_alone(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(status=400, order_id="7")
    adroll.fault(status=422, event_name="liveChat")
    adroll.fault(status=404, path="/j/*")
    assert client.report("1", "2").status_code == 200
    assert client.report("1", "7").status_code == 400
    assert client.report("8").status_code == 200
    assert adroll.requests()[1]["events"] == 0
    api = Api.of(adroll.app)  # it sees through gzip
    assert [api.post([purchase(one)], packed=True).status_code for one in "78"] == [400, 200]
    script = adroll.pixel_url.format(advertisable_eid=ADVERTISABLE_EID)
    assert client.get(script, timeout=PATIENCE).status_code == 404
    adroll.fault(status=500, skip=2, times=1)
    assert [client.report(str(n)).status_code for n in range(4)] == [200, 200, 500, 200]


def test_the_routes_for_programs_are_immune(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(status=500, path="*")
    answers = [client.get(adroll.url + path, timeout=PATIENCE) for path in ("/events", "/faults")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert client.get(adroll.url + "/ad", timeout=PATIENCE).status_code == 500


def test_programs_set_list_and_delete_faults(api: Api) -> None:
    made = api.open("/faults", method="POST", json={"status": 500, "times": 3})
    assert made.status_code == 201
    number = made.get_json()["fault"]["id"]
    other = api.open("/faults", method="POST", json={"latency": 0.01}).get_json()["fault"]["id"]
    assert [one["id"] for one in api.open("/faults").get_json()["faults"]] == [number, other]
    assert api.open(f"/faults/{number}", method="DELETE").status_code == 204
    assert [one["id"] for one in api.open("/faults").get_json()["faults"]] == [other]
    assert api.open("/faults", method="DELETE").status_code == 204
    assert api.open("/faults").json == {"faults": []}
    # Here is no port that could be closed.
    assert api.open("/faults", method="POST", json={"refuse": 1}).status_code == 501


@pytest.mark.parametrize(
    "spec",
    [
        *({"stat": 500}, {"status": "500"}, {"status": 99}, {"times": 0}, {"latency": -1}),
        *({"hang": 1e9}, {"reset": "sometime"}, {"get_cookie": "later"}),
        {"headers": {"A": "b\r\nSet-Cookie: c=d"}},
    ],
)
def test_a_fault_that_cannot_be_understood_is_refused(api: Api, spec: dict[str, Any]) -> None:
    [word] = spec
    with pytest.raises(faults.BadFault, match=word):
        faults.fault_from(spec)
    answer = api.open("/faults", method="POST", json=spec)
    assert answer.status_code == 400
    assert word in answer.get_json()["errors"][0]["message"]


def test_what_is_no_json_sets_no_fault(api: Api) -> None:
    for body in (b"", b"{", b"[]", b"[" * 9999):
        answer = api.open("/faults", method="POST", data=body, content_type="application/json")
        assert answer.status_code == 400
    assert json.loads(api.open("/faults").data) == {"faults": []}
