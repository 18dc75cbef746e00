"""Real servers with a shop on them, each a process of its own."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.support import answers, eventually, free_port, lacking, said, started

CLIENTS = 4
#: Seconds; for a machine that has much else to do, and longer than the lease of a minute: what a
#: stop cut off in the middle of a request comes back when that ends.
PATIENCE = 150.0
_PORT = r"(?:(?:Listening at:|unning on) http://|bound to TCP address )127\.0\.0\.1:(\d+)"


@dataclass(frozen=True)
class Kind:
    """How to start one kind of server; a ``{port}`` in its command is a free one."""

    module: str
    command: list[str]
    workers: int = 2


def gunicorn(
    *options: str,
    shop: str = "tests.support.server_shop:make_shop()",
    module: str = "gunicorn",
) -> Kind:
    """gunicorn with two workers, of the kind that *module* has."""
    from gunicorn.config import Config

    if "--no-control-socket" in Config().parser().format_help():
        options = ("--no-control-socket", *options)
    command = [
        *(sys.executable, "-m", "gunicorn", shop),
        *("--bind=127.0.0.1:0", "--workers=2", "--graceful-timeout=60", *options),
    ]
    return Kind(module, command)


def uwsgi(*options: str, shop: str = "server_shop") -> Kind:
    program = f"{sysconfig.get_path('scripts')}/uwsgi"
    command = [
        *(program, f"--module=tests.support.{shop}:make_shop()"),
        *("--http-socket=127.0.0.1:0", "--master", "--processes=2", "--die-on-term"),
        # A worker that hangs when it is stopped is not to be hidden by uWSGI's kill.
        *("--worker-reload-mercy=60", "--disable-logging", *options),
    ]
    return Kind("pyuwsgi", command)


def asgi(module: str, *options: str) -> Kind:
    """A server for ASGI with two workers."""
    return Kind(module, [sys.executable, "-m", module, *options])


def eventlet() -> Kind:
    return Kind("eventlet", [sys.executable, "-m", "tests.support.eventlet_shop"], workers=1)


def waitress() -> Kind:
    return Kind("waitress", [sys.executable, "-m", "tests.support.waitress_shop"], workers=1)


class Server:
    """One server that runs."""

    def __init__(self, kind: Kind, process: subprocess.Popen[str], log: Path) -> None:
        self._kind = kind
        self._process = process
        self._log = log
        port = int(said(process, log, _PORT, PATIENCE))
        self.url = f"http://127.0.0.1:{port}"
        # uvicorn says so before its workers listen.
        eventually(lambda: answers(port), PATIENCE)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(self, path: str, method: str = "GET") -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            told: dict[str, Any] = json.load(answer)
            return told

    def buy(self, order: str) -> str:
        """What became of the report."""
        return str(self.ask(f"/orders/{order}", "POST")["status"])

    def buy_all(self, orders: list[str]) -> list[str]:
        """Several customers at once."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            return list(clients.map(self.buy, orders))

    def wait_until_all_deliver(self) -> None:
        """Until each worker was met and has a delivery thread that runs."""
        delivering: set[int] = set()

        def all_do() -> bool:
            # Several at once: one client alone may meet the same worker all the time.
            told = clients.map(self.ask, ["/"] * CLIENTS)
            delivering.update(one["pid"] for one in told if one["delivers"])
            return len(delivering) == self._kind.workers

        with ThreadPoolExecutor(CLIENTS) as clients:
            eventually(all_do, PATIENCE)

    def stop(self) -> float:
        """Stop gracefully; returns the seconds that it took."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE) == 0, self.log
        return time.monotonic() - began


@contextmanager
def serving(kind: Kind, folder: Path, api_url: str, **environ: str) -> Iterator[Server]:
    """The shop under a server, on the outbox in *folder*."""
    if find_spec(kind.module) is None:
        lacking(f"{kind.module} is not installed")
    log = folder / "server.log"
    told = {"SHOP_FOLDER": str(folder), "FLASK_ADROLL_API_URL": api_url} | environ
    command = [part.replace("{port}", str(free_port())) for part in kind.command]
    with started(*command, log=log, env=os.environ | told) as process:
        yield Server(kind, process, log)
