"""What the extension adds to a request, beside the bare app in one run: in process, and served.

Run ``python -m benchmarks.page`` (``--served`` for gunicorn with wrk too, ``--rounds N``). Bare
and with AdRoll take turns in short rounds, so that whatever else the machine does hits both. In
process it is the thread's own time, the best round of each; served, medians over the rounds. The
visitor has been here before (the cookie is there and new enough), save in the row that says
otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from flask import Flask, Response, jsonify, session

from benchmarks.visits import ask, cookies_of

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Shop</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/static/site.css">
<script src="/static/site.js" defer></script></head><body>
"""
ROW = "<p>A mug, white, 0.3 l, dishwasher safe. <a href='/mugs/1'>Details</a></p>\n"


def page_of(size: int) -> str:
    return (HEAD + ROW * (size // len(ROW)))[:size]


def make_app(kind: str, folder: str) -> Flask:
    """A shop: ``bare``, with ``adroll``, or with a ``session`` of its own."""
    app = Flask("shop", instance_path=folder)
    app.config["SECRET_KEY"] = "a key for the benchmark"
    pages = {size: page_of(size * 1000) for size in (2, 48, 50, 500)}

    @app.get("/json")
    def json() -> Response:
        return jsonify(id=1, name="mug", price="29.95")

    @app.get("/page/<int:size>")
    def page(size: int) -> str:
        return pages[size]

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[str]:
            yield HEAD
            for _ in range(20):
                yield ROW * 25

        return Response(chunks(), mimetype="text/html")

    if kind == "session":

        @app.before_request
        def begin() -> None:
            if "visit" not in session:
                session["visit"] = {"adct": "click-123", "cookie": "0" * 46}

    if kind == "adroll":
        from adroll_flask import AdRoll

        app.config.update(
            ADROLL_ADVERTISABLE_EID="ADVERTISABLE0000000001",
            ADROLL_PIXEL_EID="PIXEL00000000000000001",
            ADROLL_ACCESS_TOKEN="a-token",
            ADROLL_DELIVERY="worker",
        )
        AdRoll(app)
    return app


def served_app() -> Flask:
    """For gunicorn."""
    return make_app(os.environ["SHOP_KIND"], os.environ["SHOP_FOLDER"])


# -- in process ----------------------------------------------------------------------------


def microseconds(app: Flask, path: str, cookies: str, times: int) -> float:
    start = time.thread_time()
    for _ in range(times):
        ask(app, path, cookies=cookies)
    return (time.thread_time() - start) / times * 1e6


KINDS = ("bare", "session", "adroll")


def in_process(rounds: int) -> None:
    """All that a browser would send is sent: on a second visit, the cookies of the first."""
    with tempfile.TemporaryDirectory() as folder:
        apps = {kind: make_app(kind, folder) for kind in KINDS}
        cookies = {kind: cookies_of(app, "/page/2") for kind, app in apps.items()}
        assert "__Host-adroll_visitor" in cookies["adroll"]
        assert "session" not in cookies["adroll"]
        rows = [
            ("JSON, returning", "/json", True),
            ("page, 2 kB, returning", "/page/2", True),
            ("page, 50 kB, returning", "/page/50", True),
            ("page, 500 kB, returning", "/page/500", True),
            ("streamed, 40 kB, returning", "/stream", True),
            ("JSON, new visitor", "/json", False),
            ("page, 50 kB, new visitor", "/page/50", False),
        ]
        print("in process, microseconds per request; in brackets what it adds to the bare app")
        print(f"{'':28}{'bare':>9}{'a session':>17}{'AdRoll':>17}")
        for name, path, returning in rows:
            sent = cookies if returning else dict.fromkeys(KINDS, "")
            placed = b"data-adroll" in ask(apps["adroll"], path, cookies=sent["adroll"])
            assert placed == (path != "/json"), path
            times: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for kind, app in apps.items():
                microseconds(app, path, sent[kind], 30)
            for turn in range(rounds):
                for kind in KINDS if turn % 2 else reversed(KINDS):
                    times[kind].append(microseconds(apps[kind], path, sent[kind], 50))
            best = {kind: min(times[kind]) for kind in KINDS}
            said = "".join(
                f"{best[kind]:9.1f} ({best[kind] - best['bare']:+5.1f})" for kind in KINDS[1:]
            )
            print(f"{name:28}{best['bare']:9.1f}{said}", flush=True)


# -- under gunicorn ------------------------------------------------------------------------


@contextmanager
def gunicorn(kind: str, folder: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "benchmarks.page:served_app()",
        "--bind",
        f"127.0.0.1:{port}",
    ]
    command += ["--worker-class", "gthread", "--threads", "2", "--log-level", "error"]
    server = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "SHOP_FOLDER": folder, "SHOP_KIND": kind},
    )
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def requests_per_second(url: str, cookies: str) -> float:
    command = ["wrk", "--threads", "1", "--connections", "2", "--duration", "2s"]
    command += ["--header", f"Cookie: {cookies}", url]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    assert "Non-2xx" not in said, said
    return float(said.split("Requests/sec:")[1].split()[0])


def served(rounds: int) -> None:
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        cookies = {kind: cookies_of(make_app(kind, folder), "/page/2") for kind in KINDS}
        urls = {kind: stack.enter_context(gunicorn(kind, folder)) for kind in KINDS}
        print("gunicorn, one worker, two threads; requests a second, and of the bare app's")
        print(f"{'':28}{'bare':>9}{'a session':>16}{'AdRoll':>16}")
        for path in ("/json", "/page/50", "/page/500", "/stream"):
            rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for kind in KINDS:
                requests_per_second(urls[kind] + path, cookies[kind])
            for turn in range(rounds):
                for kind in KINDS if turn % 2 else reversed(KINDS):
                    rates[kind].append(requests_per_second(urls[kind] + path, cookies[kind]))
            shares = {
                kind: median(a / b for a, b in zip(rates[kind], rates["bare"], strict=True))
                for kind in KINDS
            }
            said = "".join(f"{median(rates[k]):9.0f} ({shares[k]:.2f})" for k in KINDS[1:])
            print(f"{path + ', returning':28}{median(rates['bare']):9.0f}{said}", flush=True)


# -- imports -------------------------------------------------------------------------------


def imports(rounds: int) -> None:
    def milliseconds(statement: str) -> float:
        program = (
            f"import time; a = time.process_time(); {statement}; print(time.process_time() - a)"
        )
        said = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        )
        return float(said.stdout) * 1000

    flask, both = [], []
    for _ in range(rounds):
        flask.append(milliseconds("import flask"))
        both.append(milliseconds("import flask, adroll_flask"))
    print(f"import: Flask {min(flask):.0f} ms, the package adds {min(both) - min(flask):.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--served", action="store_true", help="gunicorn and wrk too")
    arguments = parser.parse_args()
    in_process(arguments.rounds)
    imports(min(arguments.rounds, 10))
    if arguments.served:
        served(min(arguments.rounds, 7))


if __name__ == "__main__":
    main()
