"""Each fault between a shop and AdRoll: the exact requests, and the states that must follow.

AdRoll is the sandbox, over real sockets. A shop reports three orders, the fault strikes, time
passes, the fault is over; in the end each order is there once, or twice where its request was
unsure and had been taken all the same.
"""

import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adroll_flask.delivery.deliverer import LEASE
from adroll_flask.delivery.transport import Response
from adroll_flask.outbox.model import OutboxFailed
from adroll_flask.sandbox import ADVERTISABLE_EID as EID
from adroll_flask.sandbox import RunningSandbox as Sandbox
from tests.support import delivery_kit, eventually, free_port, in_a_child
from tests.support.delivery_kit import OK, AdRoll
from tests.support.forking import forks_amid_threads
from tests.support.sandbox_shop import Shop

ORDERS = ["o1", "o2", "o3"]
O1, O2, O3 = (["o1"], ["o2"], ["o3"])


Opener = Callable[..., Shop]


@pytest.fixture
def open_shop(sandbox: Sandbox, tmp_path: Path) -> Iterator[Opener]:
    """Opens processes of one shop, which are closed when the test is over."""
    with ExitStack() as stack:

        def open_shop(api_url: str = sandbox.api_url, **changes: Any) -> Shop:
            one = Shop(tmp_path, api_url, **changes)
            stack.callback(one.close)
            return one

        yield open_shop


def arrived(sandbox: Sandbox) -> Counter[str]:
    return Counter(record["order_id"] for record in sandbox.purchases())


def outcomes(sandbox: Sandbox) -> list[object]:
    """What the sandbox did to each request: its status, or how it broke off."""
    return [
        record["outcome"] if record["status"] is None else record["status"]
        for record in sandbox.requests()
    ]


@dataclass(frozen=True)
class Case:
    """One row of the matrix.

    :param fault: done to the first request, or as it says itself.
    :param seen: what the sandbox did to the requests while the fault was on.
    :param sent: the requests of that time, by order ids.
    :param state: of each order then: state, unsure, reason.
    :param recovery: the requests after the fault.
    :param twice: AdRoll had taken the unsure request.
    :param where: the address that the shop has, meanwhile, in place of the sandbox's.
    """

    fault: dict[str, Any]
    seen: Sequence[object]
    state: tuple[str, bool, str | None]
    sent: list[Any] = field(default_factory=lambda: [ORDERS])
    stopped: str | None = None
    recovery: list[Any] = field(default_factory=lambda: ["trial", O1, ["o2", "o3"]])
    twice: bool = False
    paused: float | None = None
    where: Callable[[], AbstractContextManager[str | None]] = nullcontext


@contextmanager
def nobody_listens() -> Iterator[str]:
    yield f"http://127.0.0.1:{free_port()}/api"


@contextmanager
def nobody_has_the_name() -> Iterator[str]:
    resolve = socket.getaddrinfo

    def none(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "srv.adroll.invalid":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "srv.adroll.invalid")
        patch.setattr(socket, "getaddrinfo", none)
        yield "https://srv.adroll.invalid/api"


@contextmanager
def nobody_lets_in() -> Iterator[str]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        time.sleep(0.05)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"


HTML = "<html><body>Bad gateway"


def unsure(reason: str, seen: object, twice: bool = False, **fault: Any) -> Case:
    return Case(fault, [seen], ("waiting", True, reason), twice=twice)


def denied(status: int, **fault: Any) -> Case:
    return Case(
        {"status": status, **fault},
        [status],
        ("waiting", False, None),
        stopped=f"http_{status}",
    )


def throttled(status: int, paused: float | None = None, **headers: str) -> Case:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Case(
        {"status": status, "headers": names},
        [status],
        ("waiting", False, f"http_{status}"),
        paused=paused,
    )


def not_sent(reason: str, where: Callable[[], AbstractContextManager[str]]) -> Case:
    """The fault lies before the first byte."""
    return Case({}, [], ("waiting", False, reason), where=where)


MATRIX = {
    "reset before taking": unsure("reset", "reset before reading", reset="before"),
    "reset after taking": unsure("reset", "reset after taking", twice=True, reset="after"),
    "read time-out": unsure("read_timeout", "hung", hang=2.0),
    "read time-out after taking": unsure(
        "read_timeout", "hung after taking", twice=True, hang=2.0, take=True
    ),
    "truncated answer": unsure("truncated", 200, twice=True, truncate=True),
    "408": unsure("http_408", 408, status=408),
    "500": unsure("http_500", 500, status=500),
    "500 after taking": unsure("http_500", 500, twice=True, status=500, take=True),
    "502 as HTML": unsure("http_502", 502, status=502, body=HTML),
    "504": unsure("http_504", 504, status=504),
    "301": denied(301, headers={"Location": "https://example.com/api"}),
    "401": denied(401),
    "403": denied(403, body=HTML),
    "429 bare": throttled(429, 2.0),
    "429 Retry-After seconds": throttled(429, 120.0, Retry_After="120"),
    "503 Retry-After seconds": throttled(503, 30.0, Retry_After="30"),
    "400 for all": Case(
        {"status": 400},
        [400] * 5,
        ("waiting", False, None),
        sent=[ORDERS, ["o1", "o2"], O1, O2, "trial"],
        stopped="http_400_to_everything",
        # o1 and o2 were put off behind o3, in case they are bad after all.
        recovery=["trial", O3, ["o1", "o2"]],
    ),
    "refused connection": not_sent("refused", nobody_listens),
    "name resolution": not_sent("dns", nobody_has_the_name),
    "connect time-out": not_sent("connect_timeout", nobody_lets_in),
}


@pytest.mark.parametrize("case", MATRIX.values(), ids=MATRIX)
def test_a_fault_and_what_follows(case: Case, sandbox: Sandbox, open_shop: Opener) -> None:
    with case.where() as elsewhere:
        sandbox.fault(**case.fault)
        shop = open_shop(elsewhere or sandbox.api_url)
        shop.report(*ORDERS)
        assert shop.deliverer.drain(until=0.0) == 0

        assert shop.network.requests == case.sent
        eventually(lambda: outcomes(sandbox) == case.seen)
        state, mark, reason = case.state
        for row in shop.rows().values():
            assert (row.state, row.unsure, row.reason or None) == (state, mark, reason)
            assert row.attempts == mark, "what certainly was not taken is no attempt"
        assert shop.counters.get("event_retried", reason or "") == 3 * bool(reason)
        destination = shop.outbox.destination(EID).state()
        assert destination.stopped == case.stopped
        assert destination.failures >= 1
        if case.paused is not None:
            assert destination.paused_for == pytest.approx(case.paused, abs=3)
        # While it lasts, nothing more goes out.
        assert shop.deliverer.drain(until=0.0) == 0
        assert shop.network.requests == case.sent

    sandbox.clear_faults()
    repaired = open_shop(clock=shop.clock)
    repaired.drain(after=3601)
    assert repaired.network.requests == case.recovery
    assert repaired.facts() == dict.fromkeys(ORDERS, ("delivered", mark))
    assert arrived(sandbox) == dict.fromkeys(ORDERS, 2 if case.twice else 1)
    destination = shop.outbox.destination(EID).state()
    assert (destination.stopped, destination.failures) == (None, 0)


# The house itself


def no_more_disk(allowed: bool = False) -> None:
    """No file of this process may grow; ``allowed`` takes that back."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if allowed else 0, hard))


@forks_amid_threads
@pytest.mark.parametrize("stays", [False, True])
def test_a_disk_that_is_full_when_the_answer_comes_costs_no_order(
    tmp_path: Path, stays: bool
) -> None:
    def fill_up(_orders: list[str], _dry: bool) -> Response:
        no_more_disk()
        if not stays:
            threading.Timer(0.3, no_more_disk, (True,)).start()
        return OK

    def body() -> None:
        shop = delivery_kit.Shop(tmp_path, AdRoll(fill_up), orders=3)
        shop.deliverer.lease = 2.0 if stays else LEASE
        with pytest.raises(OutboxFailed) if stays else nullcontext():
            assert shop.step() == 3

    assert in_a_child(body)
    shop = delivery_kit.Shop(tmp_path)
    assert set(shop.states().values()) == {"sending" if stays else "delivered"}
    shop.drain(after=61)
    assert {(row.state, row.unsure) for row in shop.rows().values()} == {("delivered", stays)}
    assert len(shop.adroll.taken) == (3 if stays else 0)
