"""``python -m demo_app``: the shop and AdRoll's sandbox, until Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from types import FrameType

from flask import Flask
from werkzeug.serving import make_server

from . import adroll, create_app, lately

#: Seconds that the sandbox may take to start; a slow machine needs a few.
_PATIENCE = 30.0
#: How many ports are tried, from the one that was asked for upwards.
_PORTS = 20


class Failed(Exception):
    """The demo cannot run; the text says why, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit status is 0 after Ctrl-C or SIGTERM, 1 when it could not run."""
    parser = argparse.ArgumentParser(
        prog="python -m demo_app", description="A demo shop, and AdRoll's sandbox beside it."
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to bind (default: %(default)s)")
    add(
        "--port",
        type=int,
        default=5000,
        help="the shop's port, or the next free one; 0 for any (default: %(default)s)",
    )
    add(
        "--sandbox-port",
        type=int,
        help="the sandbox's port, or the next free one; 0 for any (default: the shop's and one)",
    )
    add("--no-sandbox", action="store_true", help="the shop alone; FLASK_ADROLL_* configure it")
    add("--instance", metavar="FOLDER", help="where the databases live (default: instance)")
    add("--past", action="store_true", help="give the shop a year of history; see the dashboard")
    given = parser.parse_args(arguments)
    # An interrupt ends the wait below wherever it stands; the stack then ends what was started.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            _run(given, stack)
    except KeyboardInterrupt:
        return 0
    except Failed as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 1
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(given: argparse.Namespace, stack: ExitStack) -> None:
    listener = stack.enter_context(closing(_listen(given.host, given.port, "--port")))
    shop_port = listener.getsockname()[1]
    shop_url = f"http://{_netloc(given.host, shop_port)}/"
    if not given.no_sandbox:
        wanted = given.sandbox_port
        port = _free_port((given.port and shop_port + 1) if wanted is None else wanted)
        sandbox_url = f"http://127.0.0.1:{port}"
        sandbox = stack.enter_context(_Sandbox(port, shop_url))
        for key, value in {
            "ADROLL_API_URL": f"{sandbox_url}/api",
            "ADROLL_PIXEL_URL": sandbox_url + "/j/{advertisable_eid}/roundtrip.js",
            "DEMO_WATCH_URL": f"{sandbox_url}/",
        }.items():
            os.environ.setdefault(f"FLASK_{key}", value)

    # Werkzeug logs each request as "info"; warnings and errors are still shown.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    app = create_app(instance_path=given.instance and os.path.abspath(given.instance))
    if given.past:
        print("A year of the shop's history is made: ten seconds", flush=True)
        lately.add_to(app)
    stack.callback(_deliver_the_last, app)
    server = make_server(given.host, given.port, app, threaded=True, fd=listener.fileno())
    if "MAKELEVEL" in os.environ:
        # `make demo` is over when make is, killed or not; a shell may go and leave us running.
        server.service_actions = _end_with(os.getppid())  # type: ignore[method-assign]
    addresses = {"Shop": shop_url, "Dashboard": f"{shop_url}adroll-dashboard/"}
    if given.no_sandbox:
        _tell(addresses)
        server.serve_forever()
        return
    sandbox.wait_until_it_listens()
    threading.Thread(target=sandbox.call_at_its_end, args=[server.shutdown], daemon=True).start()
    _tell({"Ad": f"{sandbox_url}/ad", "Sandbox": f"{sandbox_url}/"} | addresses)
    # In the main thread, which signals interrupt; it looks up twice a second, so that none that
    # another thread caught is overslept.
    server.serve_forever()
    sandbox.check_that_it_runs()


def _tell(addresses: dict[str, str]) -> None:
    for word in ("Shop", "Ad", "Sandbox", "Dashboard"):
        if word in addresses:
            print(f"{word:<9}  {addresses[word]}")
    sys.stdout.flush()


def _end_with(parent: int) -> Callable[[], None]:
    def look() -> None:
        if os.getppid() != parent:
            raise KeyboardInterrupt

    return look


def _deliver_the_last(app: Flask) -> None:
    with app.app_context():
        adroll.flush(timeout=1.0)


def _listen(host: str, wanted: int, option: str) -> socket.socket:
    """Listen on the wanted port, or on the next one that is free, which is then said."""
    for port in range(wanted, min(wanted + _PORTS, 65_536)) or [wanted]:
        try:
            listener = _bound(host, port)
        except (OSError, OverflowError) as problem:
            if getattr(problem, "errno", None) == errno.EADDRINUSE:
                continue
            why = getattr(problem, "strerror", None) or "no such port"
            raise Failed(f"{_netloc(host, port)}: {why}; choose another with {option}") from None
        if port != wanted:
            what = "shop" if option == "--port" else "sandbox"
            print(f"Port {wanted} is taken: the {what} takes {port}", flush=True)
        return listener
    raise Failed(f"ports {wanted} to {port} are taken; choose another with {option}")


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # As servers do: ports of connections that linger from a run before are no obstacle.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def _free_port(port: int) -> int:
    with closing(_listen("127.0.0.1", port, "--sandbox-port")) as listener:
        number: int = listener.getsockname()[1]
    return number


def _netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Sandbox:
    """The sandbox's process, which ends with this one, however this one ends."""

    def __init__(self, port: int, shop_url: str) -> None:
        self._port = port
        self._options = [f"--port={port}", f"--shop={shop_url}", "--quiet"]

    def __enter__(self) -> _Sandbox:
        # It waits for the end of its input, which the kernel brings about when this process dies
        # of whatever; and it has a process group of its own, so that Ctrl-C reaches it through
        # us only, after the shop has delivered what it could.
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "demo_app.beside", *self._options],
            stdin=subprocess.PIPE,
            process_group=0,
        )
        return self

    def __exit__(self, *_raised: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def wait_until_it_listens(self) -> None:
        patience = time.monotonic() + _PATIENCE
        while self._process.poll() is None and time.monotonic() < patience:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise Failed("the sandbox did not start")

    def call_at_its_end(self, function: Callable[[], None]) -> None:
        self._process.wait()
        function()

    def check_that_it_runs(self) -> None:
        if self._process.poll() is not None:
            raise Failed(f"the sandbox ended with status {self._process.returncode}")


if __name__ == "__main__":
    sys.exit(main())
