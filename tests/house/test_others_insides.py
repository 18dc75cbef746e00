"""Where we reach into what is not public of others, and it is not there any more, we do without.

docs/explanation/hooks.md lists these places.
"""

import http.client
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import urllib3.connection
import urllib3.poolmanager

from adroll_flask import forks
from adroll_flask.delivery.transport import NoAnswer, RequestsTransport, Response, Timeouts
from adroll_flask.outbox import server as outbox_server
from tests.conftest import Patch
from tests.support.scripted_server import answering, reply, reset, server

TIMEOUTS = Timeouts(connect=5.0, read=5.0, total=10.0)


def send(url: str) -> Response:
    return RequestsTransport(TIMEOUTS).send(url, {"Authorization": "Token canary"}, b"body")


def pools_are_urllib3s(monkeypatch: Patch) -> None:
    def own(self: Any, scheme: str, host: str, port: int, request_context: Any) -> Any:
        classes = urllib3.poolmanager.pool_classes_by_scheme
        return classes[scheme](host, port, timeout=5.0, maxsize=1)

    monkeypatch.setattr(urllib3.poolmanager.PoolManager, "_new_pool", own)


def answers_are_pythons(monkeypatch: Patch) -> None:
    usual = urllib3.connection.HTTPConnection.getresponse

    def getresponse(self: Any) -> Any:
        self.response_class = http.client.HTTPResponse
        return usual(self)

    monkeypatch.setattr(urllib3.connection.HTTPConnection, "getresponse", getresponse)


def status_lines_are_pythons(monkeypatch: Patch) -> None:
    usual = http.client.HTTPResponse.begin
    read_status = http.client.HTTPResponse._read_status  # type: ignore[attr-defined]

    def begin(self: Any) -> None:
        self._read_status = types.MethodType(read_status, self)
        usual(self)

    monkeypatch.setattr(http.client.HTTPResponse, "begin", begin)


@pytest.mark.parametrize(
    "gone", [pools_are_urllib3s, answers_are_pythons, status_lines_are_pythons]
)
def test_a_request_needs_none_of_them(monkeypatch: Patch, gone: Callable[[Patch], None]) -> None:
    gone(monkeypatch)
    with server(answering(reply("200 OK", b"taken"))) as up:
        answer = send(up.url)
    assert (answer.status, answer.body) == (200, b"taken")
    with server(reset) as up, pytest.raises(NoAnswer) as caught:
        send(up.url)
    assert not caught.value.sure


def test_without_our_connections_no_request_is_surely_not_taken(monkeypatch: Patch) -> None:
    """Else what AdRoll may have taken would be sent again without a mark."""
    pools_are_urllib3s(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NoAnswer) as caught:
        send(f"http://127.0.0.1:{port}/api")
    assert not caught.value.sure


def test_without_our_answers_an_interim_one_is_no_success(monkeypatch: Patch) -> None:
    status_lines_are_pythons(monkeypatch)
    with server(answering(b"HTTP/1.1 103 Early Hints\r\n\r\n" + reply("200 OK"))) as up:
        assert send(up.url).status == 103  # which the client takes for unsure


def test_a_database_driver_without_its_insides_is_as_it_comes() -> None:
    driver = types.SimpleNamespace()
    outbox_server._limit_waits(driver)
    assert vars(driver) == {}


def test_uwsgi_that_does_not_say_whether_threads_run_lets_them(monkeypatch: Patch) -> None:
    uwsgi: Any = types.ModuleType("uwsgi")
    uwsgi.worker_id = lambda: 1
    uwsgi.mule_id = lambda: 0
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    assert forks.may_start_threads()
