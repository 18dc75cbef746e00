"""A shop under real servers: what goes in comes out at AdRoll, once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from wsgi_servers import HERE, PATIENCE, eventlet, gunicorn, serving, uwsgi

from adroll_flask.outbox import open_outbox
from adroll_flask.sandbox import RunningSandbox, running
from adroll_flask.settings import Settings

pytestmark = pytest.mark.slow

ORDERS = [f"order-{number}" for number in range(40)]
LATE = [f"late-{number}" for number in range(10)]

SERVERS = {
    "gunicorn sync": gunicorn("--worker-class=sync"),
    "gunicorn sync --preload": gunicorn("--worker-class=sync", "--preload"),
    "gunicorn gthread": gunicorn("--worker-class=gthread", "--threads=4"),
    "gunicorn gevent": gunicorn("--worker-class=gevent"),
    # gunicorn had a worker for it up to its version 25.
    "eventlet": eventlet(),
    # Of itself, uWSGI loads the app in its master and forks, past Python's own fork.
    "uWSGI": uwsgi("--enable-threads"),
    "uWSGI --lazy-apps": uwsgi("--enable-threads", "--lazy-apps"),
    "uWSGI --threads": uwsgi("--threads=2"),
    "uWSGI without --enable-threads": uwsgi(),
}


@pytest.fixture(scope="module")
def adroll() -> Iterator[RunningSandbox]:
    with running() as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def _afresh(adroll: RunningSandbox) -> None:
    adroll.reset()


def left_in(folder: Path) -> int:
    outbox = open_outbox(Settings(), folder=folder)
    try:
        return outbox.waiting()
    finally:
        outbox.close()


def arrived(adroll: RunningSandbox) -> Counter[str]:
    return Counter(purchase["order_id"] for purchase in adroll.purchases())


@pytest.mark.parametrize("kind", SERVERS)
def test_every_order_arrives_once_and_a_restart_delivers_what_a_stop_left(kind, adroll, tmp_path):
    doubled = [*ORDERS, *ORDERS[::8]]  # reloads of the thank-you page
    with serving(SERVERS[kind], tmp_path, adroll.api_url) as server:
        statuses = Counter(server.buy_all(doubled))
        reloads = len(doubled) - len(ORDERS)
        assert statuses == {"queued": len(ORDERS), "duplicate": reloads}, server.log
        server.wait_until_all_deliver()
        adroll.wait(len(ORDERS), timeout=PATIENCE)
        assert "AdRoll under uWSGI" not in server.log

        # AdRoll takes nothing; the server stops all the same, and quickly.
        adroll.fault(status=503, headers={"Retry-After": "1"})
        for order in LATE:
            server.buy(order)
        took = server.stop()
        assert took < 9, "the exit waits 2 s for what is in flight, not for the server's patience"
        assert left_in(tmp_path) == len(LATE)

    # Started again, a request that sells nothing is enough.
    adroll.clear_faults()
    with serving(SERVERS[kind], tmp_path, adroll.api_url) as server:
        server.ask("/")
        adroll.wait(len(ORDERS) + len(LATE), timeout=PATIENCE)
        server.stop()
    assert arrived(adroll) == dict.fromkeys([*ORDERS, *LATE], 1)
    assert left_in(tmp_path) == 0


@pytest.mark.parametrize("kind", ["gunicorn sync --preload", "uWSGI", "uWSGI --threads"])
def test_an_order_reported_before_the_fork_takes_no_worker_down(kind, adroll, tmp_path):
    few = ORDERS[:10]
    shop = serving(SERVERS[kind], tmp_path, adroll.api_url, SHOP_EARLY_ORDER="early")
    with shop as server:
        assert Counter(server.buy_all(few)) == {"queued": len(few)}, server.log
        server.wait_until_all_deliver()
        adroll.wait(len(few) + 1, timeout=PATIENCE)
        server.stop()
    assert arrived(adroll) == dict.fromkeys(["early", *few], 1)
    assert left_in(tmp_path) == 0


def test_under_uwsgi_a_worker_of_its_own_may_deliver(adroll, tmp_path):
    few = ORDERS[:10]
    shop = serving(uwsgi(), tmp_path, adroll.api_url, FLASK_ADROLL_DELIVERY="worker")
    with shop as server:
        assert Counter(server.buy_all(few)) == {"queued": len(few)}, server.log
        assert not server.ask("/")["delivers"]
        server.stop()
    assert left_in(tmp_path) == len(few)
    command = "flask --app=server_shop:make_shop adroll worker --once"
    subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=HERE,
        env=os.environ | {"SHOP_FOLDER": str(tmp_path), "FLASK_ADROLL_API_URL": adroll.api_url},
        check=True,
        timeout=PATIENCE,
    )
    assert arrived(adroll) == dict.fromkeys(few, 1)
