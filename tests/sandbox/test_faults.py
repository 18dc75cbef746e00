"""Faults on demand, over real connections."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from adroll_flask.sandbox import RunningSandbox
from adroll_flask.sandbox.faults import BadFault, fault_from
from tests.support import PATIENCE, answers
from tests.support.outbox_engines import wait_until
from tests.support.sandbox_helpers import ACCESS_TOKEN, ADVERTISABLE_EID, Api, purchase


class Client:
    """A client with a fresh connection pool, as a worker would have."""

    def __init__(self, adroll: RunningSandbox) -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Token {ACCESS_TOKEN}"
        self.url = f"{adroll.api_url}?advertisable={ADVERTISABLE_EID}"

    def post(self, *orders: str, timeout: float = 5) -> requests.Response:
        return self.session.post(
            self.url,
            json=[purchase(order) for order in orders],
            timeout=timeout,
            allow_redirects=False,
        )


@pytest.fixture
def client(adroll: RunningSandbox) -> Iterator[Client]:
    made = Client(adroll)
    with made.session:
        yield made


def outcomes(adroll: RunningSandbox) -> list[tuple[Any, str]]:
    return [(one["status"], one["outcome"]) for one in adroll.requests()]


def test_a_status_is_answered_and_nothing_taken(adroll: RunningSandbox, client: Client) -> None:
    number = adroll.fault(status=503, headers={"Retry-After": "7"}, times=2)
    for _ in range(2):
        answer = client.post("1")
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "7"
        assert answer.json()["errors"][0]["code"] == "fault"
    assert client.post("1").status_code == 200
    assert [one["fault"] for one in adroll.requests()] == [number, number, None]
    assert len(adroll.purchases()) == 1
    assert adroll.purchases()[0]["duplicate"] is False


def test_a_redirect_is_answered_with_its_location(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(status=307, headers={"Location": "http://elsewhere.test/api"})
    answer = client.post("1")
    assert (answer.status_code, answer.headers["Location"]) == (307, "http://elsewhere.test/api")


def test_latency_comes_before_the_answer(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(latency=0.3, times=1)
    began = time.monotonic()
    assert client.post("1").status_code == 200
    assert time.monotonic() - began >= 0.3
    assert adroll.requests()[0]["fault"] is not None


def test_a_reset_before_reading_takes_nothing(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(reset="before", times=1)
    with pytest.raises(requests.ConnectionError):
        client.post("1")
    assert adroll.events() == []
    assert outcomes(adroll) == [(None, "reset before reading")]


def test_a_reset_after_taking_makes_a_retry_a_duplicate(
    adroll: RunningSandbox, client: Client
) -> None:
    adroll.fault(reset="after", times=1)
    with pytest.raises(requests.ConnectionError):
        client.post("1")
    assert client.post("1").status_code == 200
    assert [one["duplicate"] for one in adroll.purchases()] == [False, True]
    assert outcomes(adroll) == [(None, "reset after taking"), (200, "answered")]


def test_a_reset_is_a_reset_and_not_an_end(adroll: RunningSandbox) -> None:
    adroll.fault(reset="after")
    with socket.create_connection(("127.0.0.1", adroll.port), timeout=PATIENCE) as wire:
        wire.sendall(b"POST /api HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            wire.recv(100)


def test_a_hang_answers_nothing(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(hang=30, times=1)
    with pytest.raises(requests.ReadTimeout):
        client.post("1", timeout=0.3)
    assert adroll.events() == []


def test_deleting_the_faults_ends_a_hang(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(hang=30, take=True)
    threading.Timer(0.2, adroll.clear_faults).start()
    with pytest.raises(requests.ConnectionError):  # a hang to its end is a time-out
        client.post("1", timeout=25)
    assert len(adroll.purchases()) == 1
    assert outcomes(adroll) == [(None, "hung after taking")]


def test_offline_resets_each_connection_for_a_while(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(offline=2)
    for _ in range(2):
        with pytest.raises(requests.ConnectionError):
            client.post("1")
    assert adroll.app.test_client().get("/faults").get_json()["faults"][0]["left"] <= 2
    assert wait_until(lambda: adroll.app.test_client().get("/faults").json == {"faults": []})
    assert client.post("1").status_code == 200


def test_a_closed_port_refuses_and_opens_again(adroll: RunningSandbox) -> None:
    def connect() -> None:
        socket.create_connection(("127.0.0.1", adroll.port), timeout=PATIENCE).close()

    for _ in range(3):
        assert adroll.fault(refuse=30) == 0
        with pytest.raises(ConnectionRefusedError):
            connect()
        adroll.clear_faults()
        connect()
    assert adroll.requests() == []


def test_a_closed_port_opens_by_itself(adroll: RunningSandbox) -> None:
    with requests.Session() as session:
        answer = session.post(adroll.url + "/faults", json={"refuse": 2}, timeout=PATIENCE)
        assert answer.status_code == 201
        # The connection that was open lives on, as the live view's does.
        assert session.get(adroll.url + "/events", timeout=PATIENCE).status_code == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", adroll.port), timeout=PATIENCE)
    assert wait_until(lambda: answers(adroll.port))
    assert requests.get(adroll.url + "/events", timeout=PATIENCE).status_code == 200


def test_a_truncated_answer_breaks_off(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(truncate=True, times=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.post("1")
    assert outcomes(adroll) == [(200, "truncated")]
    assert len(adroll.purchases()) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ({"status": 502, "body": "<h1>Bad gateway</h1>"}, "text/html", "<h1>Bad gateway</h1>"),
        ({"body": {"errors": [{"message": "no"}]}}, "application/json", "errors"),
        ({"body": "pong", "content_type": "text/plain"}, "text/plain", "pong"),
        ({"status": 204, "body": "no body may follow"}, "text/html", ""),
    ],
)
def test_any_answer_can_be_given(
    adroll: RunningSandbox, client: Client, fault: dict[str, Any], kind: str, text: str
) -> None:
    adroll.fault(**fault)
    answer = client.post("1")
    assert answer.status_code == fault.get("status", 200)
    assert answer.headers["Content-Type"].startswith(kind)
    assert text in answer.text
    assert adroll.events() == []
    # The connection is still good for another request.
    adroll.clear_faults()
    assert client.post("2").status_code == 200
    assert len({one["connection"] for one in adroll.requests()}) == 1


def test_an_error_can_be_answered_although_the_batch_was_taken(
    adroll: RunningSandbox, client: Client
) -> None:
    adroll.fault(status=504, take=True, times=1)
    assert client.post("1").status_code == 504
    assert len(adroll.purchases()) == 1
    assert adroll.requests()[0]["status"] == 504
    assert adroll.requests()[0]["events"] == 1


def test_a_fault_meets_only_the_requests_it_is_about(
    adroll: RunningSandbox, client: Client
) -> None:
    adroll.fault(status=400, order_id="7")
    adroll.fault(status=422, event_name="liveChat")
    assert client.post("1", "2").status_code == 200
    assert client.post("1", "7").status_code == 400
    assert client.post("8").status_code == 200
    assert adroll.requests()[1]["events"] == 0


def test_a_fault_about_an_order_sees_through_gzip(api: Api) -> None:
    api.sandbox.faults.add(fault_from({"status": 409, "order_id": "7"}))
    assert api.post([purchase("7")], packed=True).status_code == 409
    assert api.post([purchase("8")], packed=True).status_code == 200


def test_a_fault_can_let_requests_through_first(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(status=500, skip=2, times=1)
    assert [client.post(str(n)).status_code for n in range(4)] == [200, 200, 500, 200]


def test_faults_are_per_path(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(status=404, path="/j/*")
    assert client.post("1").status_code == 200
    script = adroll.pixel_url.format(advertisable_eid=ADVERTISABLE_EID)
    assert client.session.get(script, timeout=PATIENCE).status_code == 404


def test_the_routes_for_programs_are_immune(adroll: RunningSandbox, client: Client) -> None:
    adroll.fault(status=500, path="*")
    answers = [
        client.session.get(adroll.url + path, timeout=PATIENCE) for path in ("/events", "/faults")
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert client.session.get(adroll.url + "/ad", timeout=PATIENCE).status_code == 500


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


def test_a_port_that_cannot_be_closed_says_so(api: Api) -> None:
    assert api.open("/faults", method="POST", json={"refuse": 1}).status_code == 501


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ([], "object"),
        ({"stat": 500}, "stat"),
        ({"status": "500"}, "status"),
        ({"status": True}, "status"),
        ({"status": 99}, "status"),
        ({"times": 0}, "times"),
        ({"latency": -1}, "latency"),
        ({"hang": 1e9}, "hang"),
        ({"reset": "sometime"}, "reset"),
        ({"get_cookie": "later"}, "get_cookie"),
        ({"headers": {"A": "b\r\nSet-Cookie: c=d"}}, "headers"),
        ({"headers": {"A": 1}}, "headers"),
    ],
)
def test_a_fault_that_cannot_be_understood_is_refused(api: Api, spec: Any, word: str) -> None:
    with pytest.raises(BadFault, match=word):
        fault_from(spec)
    answer = api.open("/faults", method="POST", json=spec)
    assert answer.status_code == 400
    assert word in answer.get_json()["errors"][0]["message"]


def test_what_is_no_json_sets_no_fault(api: Api) -> None:
    for body in (b"", b"{", b"[" * 9999):
        answer = api.open("/faults", method="POST", data=body, content_type="application/json")
        assert answer.status_code == 400
    assert json.loads(api.open("/faults").data) == {"faults": []}
