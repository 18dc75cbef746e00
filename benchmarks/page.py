"""What the extension adds to a request, beside the bare app in one run: in process, and served.

Run ``python benchmarks/page.py`` (``--served`` for gunicorn with wrk too, ``--rounds N``). Bare
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

from flask import Flask, Response, jsonify

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Shop</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/static/site.css">
<script src="/static/site.js" defer></script></head><body>
"""
ROW = "<p>A mug, white, 0.3 l, dishwasher safe. <a href='/mugs/1'>Details</a></p>\n"
Call = Callable[[str], bytes]


def page_of(size: int) -> str:
    return (HEAD + ROW * (size // len(ROW)))[:size]


def make_app(adroll: bool, folder: str) -> Flask:
    app = Flask("shop", instance_path=folder)
    app.config["SECRET_KEY"] = "a key for the benchmark"
    pages = {size: page_of(size * 1000) for size in (2, 50, 500)}

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

    if adroll:
        from adroll_flask import AdRoll

        app.config.update(
            ADROLL_ADVERTISABLE_EID="ADVERTISABLE0000000001",
            ADROLL_PIXEL_EID="PIXEL00000000000000001",
            ADROLL_ACCESS_TOKEN="a-token",
            ADROLL_DELIVERY="worker",
        )
        AdRoll(app)
    return app


def bare() -> Flask:
    """For gunicorn."""
    return make_app(False, os.environ["SHOP_FOLDER"])


def with_adroll() -> Flask:
    """For gunicorn."""
    return make_app(True, os.environ["SHOP_FOLDER"])


# -- in process ----------------------------------------------------------------------------


def cookies_of(app: Flask) -> str:
    client = app.test_client()
    client.get("/page/2", base_url="http://shop.example")
    return "; ".join(
        f"{name}={cookie.value}"
        for name in ("adroll_visitor", "__adroll_fpc")
        if (cookie := client.get_cookie(name, domain="shop.example"))
    )


def caller(app: Flask, cookies: str) -> Call:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "shop.example",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "HTTP_ACCEPT": "text/html,application/xhtml+xml",
        "HTTP_SEC_FETCH_DEST": "document",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if cookies:
        environ["HTTP_COOKIE"] = cookies

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        assert status == "200 OK"

    def call(path: str) -> bytes:
        body = app({**environ, "PATH_INFO": path}, start_response)
        try:
            return b"".join(body)
        finally:
            close = getattr(body, "close", None)
            if close:
                close()

    return call


def microseconds(call: Call, path: str, times: int) -> float:
    start = time.thread_time()
    for _ in range(times):
        call(path)
    return (time.thread_time() - start) / times * 1e6


def in_process(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, ours = make_app(False, folder), make_app(True, folder)
        cookies = cookies_of(ours)
        assert "adroll_visitor" in cookies
        rows = [
            ("JSON", "/json", cookies),
            ("page, 2 kB", "/page/2", cookies),
            ("page, 50 kB", "/page/50", cookies),
            ("page, 500 kB", "/page/500", cookies),
            ("streamed, 40 kB", "/stream", cookies),
            ("page, 50 kB, new visitor", "/page/50", ""),
        ]
        print("in process, microseconds per request")
        print(f"{'':28}{'bare':>10}{'AdRoll':>10}{'added':>10}")
        for name, path, sent in rows:
            calls = caller(plain, sent), caller(ours, sent)
            placed = b"data-adroll" in calls[1](path)
            assert placed == (path != "/json"), path
            times = [[], []]  # type: list[list[float]]
            for call in calls:
                microseconds(call, path, 30)
            for turn in range(rounds):
                for which in (0, 1) if turn % 2 else (1, 0):
                    times[which].append(microseconds(calls[which], path, 50))
            best = min(times[0]), min(times[1])
            print(f"{name:28}{best[0]:10.1f}{best[1]:10.1f}{best[1] - best[0]:10.1f}", flush=True)


# -- under gunicorn ------------------------------------------------------------------------


@contextmanager
def gunicorn(factory: str, folder: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", f"page:{factory}()", "--bind", f"127.0.0.1:{port}"]
    command += ["--worker-class", "gthread", "--threads", "2", "--log-level", "error"]
    server = subprocess.Popen(
        command, cwd=Path(__file__).parent, env={**os.environ, "SHOP_FOLDER": folder}
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
    with tempfile.TemporaryDirectory() as folder:
        cookies = cookies_of(make_app(True, folder))
        with gunicorn("bare", folder) as plain, gunicorn("with_adroll", folder) as ours:
            print("gunicorn, one worker, two threads; requests per second")
            print(f"{'':28}{'bare':>10}{'AdRoll':>10}{'slower':>10}")
            for path in ("/json", "/page/50", "/page/500", "/stream"):
                rates = [[], []]  # type: list[list[float]]
                for base in (plain, ours):
                    requests_per_second(base + path, cookies)
                for turn in range(rounds):
                    for which in (0, 1) if turn % 2 else (1, 0):
                        base = (plain, ours)[which]
                        rates[which].append(requests_per_second(base + path, cookies))
                slower = median(1 - b / a for a, b in zip(*rates, strict=True))
                print(
                    f"{path:28}{median(rates[0]):10.0f}{median(rates[1]):10.0f}{slower:10.1%}",
                    flush=True,
                )


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
