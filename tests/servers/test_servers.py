"""A shop under real servers: what goes in comes out at AdRoll, once."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from adroll_flask import ConfigurationError
from adroll_flask.delivery.deliverer import LEASE
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.sandbox import RunningSandbox as Sandbox
from adroll_flask.settings import Settings
from tests.conftest import Patch
from tests.support import eventually
from tests.support.shops import orders
from tests.support.wsgi_servers import (
    PATIENCE,
    asgi,
    eventlet,
    gunicorn,
    serving,
    uwsgi,
    waitress,
)

ORDERS = [f"order-{number}" for number in range(40)]


LATE = [f"late-{number}" for number in range(10)]


ASGI_SHOP = "tests.support.asgi_shop:make_shop"
UVICORN = (ASGI_SHOP, "--factory", "--port=0")
GRANIAN = (ASGI_SHOP, "--factory", "--interface=asgi", "--host=127.0.0.1", "--port={port}")


SERVERS = {
    "uvicorn": asgi("uvicorn", *UVICORN, "--workers=2"),
    "uvicorn --lifespan off": asgi("uvicorn", *UVICORN, "--workers=2", "--lifespan=off"),
    "hypercorn": asgi("hypercorn", f"{ASGI_SHOP}()", "--bind=127.0.0.1:0", "--workers=2"),
    "granian": asgi("granian", *GRANIAN, "--workers=2"),
    "gunicorn uvicorn": gunicorn(
        "--worker-class=uvicorn_worker.UvicornWorker",
        shop=f"{ASGI_SHOP}()",
        module="uvicorn_worker",
    ),
    "gunicorn asgi": gunicorn("--worker-class=asgi", shop=f"{ASGI_SHOP}()"),
    "gunicorn sync": gunicorn("--worker-class=sync"),
    "gunicorn sync --preload": gunicorn("--worker-class=sync", "--preload"),
    "gunicorn gthread": gunicorn("--worker-class=gthread", "--threads=4"),
    "gunicorn gevent": gunicorn("--worker-class=gevent"),
    # gunicorn had a worker for it up to its version 25.
    "eventlet": eventlet(),
    "waitress": waitress(),
    # Of itself, uWSGI loads the app in its master and forks, past Python's own fork.
    "uWSGI": uwsgi("--enable-threads"),
    "uWSGI --lazy-apps": uwsgi("--enable-threads", "--lazy-apps"),
    "uWSGI --threads": uwsgi("--threads=2"),
    "uWSGI without --enable-threads": uwsgi(),
}


def left_in(folder: Path) -> int:
    with closing(Outbox(Settings(), folder=folder)) as outbox:
        return outbox.queue.waiting()


#: One of each is tried with all other tests, the rest among the longer proofs.
SHORT = {"gunicorn gthread", "uWSGI --threads", "uvicorn"}


@pytest.mark.parametrize(
    "kind",
    [kind if kind in SHORT else pytest.param(kind, marks=pytest.mark.slow) for kind in SERVERS],
)
def test_every_order_arrives_once_restarts_too(kind: str, sandbox: Sandbox, tmp_path: Path) -> None:
    doubled = [*ORDERS, *ORDERS[::8]]  # reloads of the thank-you page
    early = {"SHOP_EARLY_ORDER": "early"}  # before the server forks, or in each of its workers
    with serving(SERVERS[kind], tmp_path, sandbox.api_url, **early) as server:
        statuses = Counter(server.buy_all(doubled))
        # A process says so of what it saw itself; the outbox drops the others.
        assert statuses.keys() <= {"queued", "duplicate"}, server.log
        assert statuses.total() == len(doubled)
        server.wait_until_all_deliver()
        sandbox.wait(len(ORDERS) + 1, timeout=PATIENCE)
        assert Counter(orders(sandbox)) == dict.fromkeys(["early", *ORDERS], 1)
        assert "AdRoll under uWSGI" not in server.log
        # AdRoll has an order a moment before the outbox knows of it.
        eventually(lambda: left_in(tmp_path) == 0)

        # AdRoll takes nothing; the server stops all the same, and quickly.
        sandbox.fault(status=503, headers={"Retry-After": "1"})
        for order in LATE:
            server.buy(order)
        took = server.stop()
        assert took < 40, "the exit waits 2 s for what is in flight, not for the server's patience"
        assert left_in(tmp_path) == len(LATE)

    # Started again, a request that sells nothing is enough.
    sandbox.clear_faults()
    with serving(SERVERS[kind], tmp_path, sandbox.api_url) as server:
        server.ask("/")
        # uWSGI ends threads where they are: what was being sent then waits for its lease to end.
        sandbox.wait(1 + len(ORDERS) + len(LATE), timeout=LEASE + PATIENCE)
        server.stop()
    assert Counter(orders(sandbox)) == dict.fromkeys(["early", *ORDERS, *LATE], 1)
    assert left_in(tmp_path) == 0


@pytest.mark.slow
def test_orders_of_uwsgis_mule_and_spooler_arrive_once(sandbox: Sandbox, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    options = ("--enable-threads", "--mule", f"--spooler={spool}", "--spooler-frequency=1")
    kind = uwsgi(*options, shop="uwsgi_shop")
    beside = [f"{how}/{how}-{number}" for how in ("mule", "spooler") for number in range(10)]
    with serving(kind, tmp_path, sandbox.api_url) as server:
        for order in ORDERS[:10]:
            server.buy(order)
        for path in [*beside, *beside[::5]]:  # some are handed over twice
            server.ask(f"/beside/{path}", "POST")
        names = [path.partition("/")[2] for path in beside]
        sandbox.wait(10 + len(names), timeout=PATIENCE)
        eventually(lambda: left_in(tmp_path) == 0)
        server.stop()
    assert Counter(orders(sandbox)) == dict.fromkeys([*ORDERS[:10], *names], 1)


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        *(("postgresql" + own, "psycopg", "postgresql") for own in ("", "+psycopg", "+psycopg2")),
        *((kind, "pymysql", "mysql") for kind in ("mysql", "mariadb+pymysql")),
    ],
)
def test_a_missing_driver_is_an_error_that_says_what_to_install(
    kind: str, module: str, extra: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match="driver is not installed") as caught:
        Outbox(Settings(outbox_url=f"{kind}://shop@db/shop"), folder=tmp_path)
    assert f"pip install 'adroll-flask[{extra}]'" in str(caught.value)
