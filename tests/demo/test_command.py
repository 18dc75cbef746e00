"""``python -m demo_app`` as a newcomer runs it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.support import PATIENCE

ROOT = Path(__file__).parents[2]
Demo = Callable[..., "subprocess.Popen[str]"]


@contextmanager
def heard(*numbers: signal.Signals) -> Iterator[None]:
    """Programs begun meanwhile hear these signals.

    What is ignored stays ignored in a child: SIGHUP where the suite runs under nohup, SIGINT where
    a script runs it in the background.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Demo]:
    """Starts the demo on free ports, in a process group of its own, as a shell does."""
    started: list[subprocess.Popen[str]] = []

    def start(
        *options: str, env: dict[str, str] | None = None, run_by: str = ""
    ) -> subprocess.Popen[str]:
        between = [sys.executable, "-c", run_by] if run_by else []
        ports = ("--port=0", "--sandbox-port=0", f"--instance={tmp_path / 'instance'}")
        with heard(signal.SIGHUP, signal.SIGINT):
            process = subprocess.Popen(
                [*between, sys.executable, "-m", "demo_app", *ports, *options],
                cwd=ROOT,
                env={**os.environ, "MAKELEVEL": "1", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                process_group=0,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_lines(process: subprocess.Popen[str]) -> dict[str, str]:
    """The three lines that the demo prints, word to URL."""
    assert process.stdout is not None
    return dict(process.stdout.readline().split() for _ in range(3))


def listens(url: str) -> bool:
    host, port = url.removeprefix("http://").partition("/")[0].split(":")
    with socket.socket() as door:
        return door.connect_ex((host, int(port))) == 0


def closes(url: str) -> bool:
    until = time.monotonic() + PATIENCE
    while listens(url):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_it_prints_three_lines_and_leads_from_the_ad_to_a_reported_purchase(start: Demo) -> None:
    demo = start()
    lines = read_lines(demo)
    assert list(lines) == ["Ad", "Shop", "Watch"]
    customer = requests.Session()
    ad = customer.get(lines["Ad"], timeout=5)
    click = re.search(r'href="(/click[^"]*)"', ad.text)
    assert click is not None
    landing = customer.get(lines["Watch"] + click[1].lstrip("/").replace("&amp;", "&"), timeout=5)
    assert landing.url.startswith(lines["Shop"] + "?adct=")
    customer.post(lines["Shop"] + "cart", data={"product": "harbour-mug"}, timeout=5)
    customer.get(lines["Shop"] + "checkout", timeout=5)
    customer.post(lines["Shop"] + "checkout", data={"email": "ada@example.com"}, timeout=5)

    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=PATIENCE)
    # Nothing beside the three lines: no banner, no log of requests, no traceback at the end.
    assert (demo.returncode, out, err) == (0, "", "")
    assert closes(lines["Watch"])


def test_what_is_reported_shows_where_the_third_line_leads(start: Demo) -> None:
    lines = read_lines(start())
    customer = requests.Session()
    customer.get(lines["Shop"] + "?adct=from-the-ad", timeout=5)
    customer.get(lines["Shop"] + "search?q=mug", timeout=5)
    until = time.monotonic() + PATIENCE
    while not (events := requests.get(lines["Watch"] + "events", timeout=5).json()["events"]):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert [(event["event_name"], event["verdict"]) for event in events] == [
        ("productSearch", "accepted")
    ]
    assert lines["Watch"] in customer.get(lines["Shop"] + "me", timeout=5).text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
def test_no_process_stays_behind(start: Demo, number: signal.Signals) -> None:
    demo = start()
    lines = read_lines(demo)
    assert listens(lines["Shop"])
    assert listens(lines["Watch"])
    # To the shop's process alone: a terminal would send Ctrl-C to the sandbox as well.
    demo.send_signal(number)
    demo.communicate(timeout=PATIENCE)
    assert closes(lines["Shop"])
    assert closes(lines["Watch"])


def test_it_ends_with_make_even_when_make_is_killed(start: Demo) -> None:
    make = start(run_by="import subprocess, sys; subprocess.run(sys.argv[1:])")
    lines = read_lines(make)
    make.kill()
    make.communicate(timeout=PATIENCE)
    assert closes(lines["Shop"])
    assert closes(lines["Watch"])


def test_the_shop_ends_with_a_word_when_the_sandbox_dies(start: Demo) -> None:
    demo = start()
    lines = read_lines(demo)
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    out, err = demo.communicate(timeout=PATIENCE)
    assert (demo.returncode, out) == (1, "")
    assert err.splitlines()[-1] == "demo: the sandbox ended with status -9"
    assert closes(lines["Shop"])


@pytest.mark.parametrize("option", ["--port", "--sandbox-port"])
def test_a_port_that_is_taken_is_said_in_one_line(start: Demo, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        demo = start(f"{option}={port}")
        out, err = demo.communicate(timeout=PATIENCE)
    assert (demo.returncode, out) == (1, "")
    assert err == (
        f"demo: 127.0.0.1:{port}: Address already in use; choose another with {option}\n"
    )


def test_the_shop_alone_takes_its_sandbox_from_the_environment(start: Demo) -> None:
    demo = start("--no-sandbox", env={"FLASK_ADROLL_PIXEL_URL": "http://127.0.0.1:9/pixel.js"})
    assert demo.stdout is not None
    word, url = demo.stdout.readline().split()
    assert word == "Shop"
    assert 'data-src="http://127.0.0.1:9/pixel.js"' in requests.get(url, timeout=5).text
