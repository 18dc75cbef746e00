"""Delivery by real Celery prefork workers, on RabbitMQ and on Redis."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from flask import Flask

from adroll_flask import ConfigurationError, report_conversion
from adroll_flask.celery import TASK, deliver_with
from adroll_flask.sandbox import RunningSandbox as Sandbox
from adroll_flask.sandbox.event_checks import Account
from tests.findings.test_paid_orders import PayingShop
from tests.support import PATIENCE, answers, eventually, lacking, started
from tests.support.outbox_engines import NewEvent
from tests.support.shops import Shop, orders
from tests.support.visits import ORDER, VISIT

BROKERS = {
    "RabbitMQ": ("amqp://guest:guest@127.0.0.1:5672//", 5672),
    "Redis": ("redis://127.0.0.1:6379/13", 6379),
}


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> str:
    url, port = BROKERS[request.param]
    if not answers(port):
        lacking(f"{request.param} does not answer on 127.0.0.1:{port}")
    return url


class Worker:
    """A Celery worker with two children and beat in it."""

    def __init__(
        self, shop: Shop, broker: str, *, every: float, lease: float = 3.0, **limits: Any
    ) -> None:
        self.queue = f"adroll-test-{uuid4().hex[:12]}"
        self._folder = folder = shop.folder
        self._log = folder / "celery.log"
        told = {"BROKER": broker, "QUEUE": self.queue, "EVERY": str(every), "LEASE": str(lease)}
        told["LIMITS"] = json.dumps(limits)
        self._environ = shop.environ | told
        self._command = [
            *(sys.executable, "-m", "celery", "-A", "tests.support.celery_shop:celery", "worker"),
            *("--pool=prefork", "--concurrency=2", "--beat", f"--queues={self.queue}"),
            *(f"--schedule={folder / 'beat'}", "--loglevel=INFO"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
        self.celery = Celery("shop", broker=broker, set_as_current=False)
        self.celery.conf.task_default_queue = self.queue
        self.start()

    def start(self) -> None:
        for mark in self._folder.glob("child-*"):
            mark.unlink()
        self._running = ExitStack()
        # All of the group in the end: the pool, beat and their parent.
        celery = started(*self._command, log=self._log, env=self._environ)
        self._process = self._running.enter_context(celery)
        eventually(lambda: " ready." in self.log, said=lambda: self.log)

    def start_again_if_it_ended(self) -> None:
        """As a service manager does: a Celery whose broker goes does not always outlive it."""
        if self._process.poll() is not None:
            self._running.close()
            self.start()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def buy(self, order: str) -> None:
        """A task of the shop's own that reports an order."""
        self.celery.send_task("shop.buy", [order])

    def kill_children(self) -> None:
        """Kill the processes of the pool."""
        for mark in self._folder.glob("child-*"):
            mark.unlink()
            with suppress(ProcessLookupError):
                os.kill(int(mark.name.removeprefix("child-")), signal.SIGKILL)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE) == 0, self.log

    def end(self) -> None:
        self._running.close()
        self.celery.close()

    def close(self) -> None:
        """End it, and let nothing of it stay at the broker."""
        with self.celery.connection_for_write() as connection:
            channel = connection.default_channel
            channel.queue_delete(self.queue)
            if connection.transport.driver_type == "amqp":
                channel.exchange_delete(self.queue)
            elif kept := list(channel.client.scan_iter(f"*{self.queue}*")):
                channel.client.delete(*kept)
        self.end()


@pytest.mark.slow
def test_beat_delivers_what_requests_and_tasks_report(
    broker: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    shop = Shop(tmp_path).at(sandbox)
    with closing(Worker(shop, broker, every=2.0)) as worker:
        for number in range(20):
            worker.buy(f"task-{number}")
        shop.report("order:1-20")
        sandbox.wait(41, timeout=PATIENCE)
        worker.stop()
    wanted = [*(f"task-{number}" for number in range(20)), *map(str, range(1, 21)), "parent"]
    assert Counter(orders(sandbox)) == dict.fromkeys(wanted, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits",
    [
        {"task_soft_time_limit": 1},
        {"task_time_limit": 1},
        {"task_annotations": {"*": {"soft_time_limit": 1, "time_limit": 2}}},
    ],
    ids=lambda limits: "-".join(limits),
)
def test_a_time_limit_of_all_tasks_cuts_off_no_delivery(
    broker: str, limits: dict[str, Any], sandbox: Sandbox, tmp_path: Path
) -> None:
    shop = Shop(tmp_path).at(sandbox)
    # AdRoll takes the batch, and answers later than the limit.
    sandbox.fault(latency=4.0, times=1)
    with closing(Worker(shop, broker, every=2.0, lease=60.0, **limits)) as worker:
        shop.report("order:1-20")
        sandbox.wait(21, timeout=PATIENCE)
        shop.report("order:21")  # which is sent by a run that comes after
        sandbox.wait(22, timeout=PATIENCE)
        worker.stop()
    assert Counter(orders(sandbox)) == dict.fromkeys([*map(str, range(1, 22)), "parent"], 1)
    rows = shop.as_json("outbox", "list")
    assert {(row["state"], row["unsure"]) for row in rows} == {("delivered", False)}


def test_where_all_is_off_the_task_delivers_nothing(make_app: Callable[..., Flask]) -> None:
    app = make_app(ADROLL_ENABLED=False)
    outbox = app.extensions["adroll"].outbox
    outbox.put(NewEvent("f" * 32, "purchase", "", False, None, b"{}", 0.0))
    deliver_with(Celery("shop", set_as_current=False), app)()
    assert outbox.lookups.bytes_waiting(), "of a copy of the real site's"


def test_the_task_tells_how_many_events_ended(
    make_app: Callable[..., Flask], sandbox: Sandbox
) -> None:
    account = Account()
    app = make_app(
        ADROLL_DELIVERY="worker",
        ADROLL_API_URL=sandbox.api_url,
        ADROLL_ACCESS_TOKEN=account.access_token,
        ADROLL_ADVERTISABLE_EID=account.advertisable_eid,
        ADROLL_PIXEL_EID=account.pixel_eid,
    )
    with app.test_request_context("/", **VISIT):
        for number in range(3):
            assert report_conversion(**ORDER | {"order_id": number})
    deliver = deliver_with(Celery("shop", set_as_current=False), app)
    assert (deliver(), deliver()) == (3, 0)


def test_a_child_of_one_task_ends_holds_and_asks_for_the_paid_orders(
    make_app: Callable[..., Flask],
) -> None:
    shop = PayingShop(make_app, ADROLL_DELIVERY="worker")
    shop.report("1001", hold=60)
    shop.pay("1002")
    shop.now += 120
    deliver_with(Celery("shop", set_as_current=False), shop.app)()
    assert shop.states() == {"1001": "cancelled"}
    assert len(shop.asked) == 1
    deliver_with(Celery("shop", set_as_current=False), shop.app)()
    assert len(shop.asked) == 1


def test_only_an_app_whose_workers_deliver_can_have_celery(make_app: Callable[..., Flask]) -> None:
    celery = Celery("shop", set_as_current=False)
    with pytest.raises(ConfigurationError, match="init_app"):
        deliver_with(celery, Flask("bare"))
    with pytest.raises(ConfigurationError, match="worker"):
        deliver_with(celery, make_app(ADROLL_DELIVERY="thread"))
    app = make_app()
    deliver_with(celery, app)
    deliver_with(celery, app, every=10, queue="adroll")
    with pytest.raises(ConfigurationError, match="one Flask app"):
        deliver_with(celery, make_app())  # whose events nobody would deliver
    beat = celery.conf.beat_schedule["adroll-drain"]
    assert beat["task"] == TASK
    assert beat["options"]["queue"] == "adroll"
    # A run that waited in the queue for longer than the next ones need not happen.
    assert beat["options"]["expires"] == 60.0
