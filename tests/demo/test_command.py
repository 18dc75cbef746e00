"""``python -m demo_app`` as a newcomer runs it."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.support import PATIENCE, ROOT, answers, eventually, ran, started

Demo = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Demo]:
    """Starts the demo on free ports, in a process group of its own, as a shell does."""
    with ExitStack() as stack:

        def start(*options: str) -> subprocess.Popen[str]:
            # What is ignored stays ignored in a child, as SIGHUP where the suite runs under nohup.
            command = ["env", "--default-signal", sys.executable, "-m", "demo_app", "--port=0"]
            command += ["--sandbox-port=0", f"--instance={tmp_path / 'instance'}", *options]
            pipe, env = subprocess.PIPE, {**os.environ, "MAKELEVEL": "1"}
            return stack.enter_context(started(*command, env=env, stdout=pipe, stderr=pipe))

        yield start


def listens(url: str) -> bool:
    return answers(urlsplit(url).port or 0)


def closes(url: str) -> None:
    eventually(lambda: not listens(url))


def read_lines(process: subprocess.Popen[str]) -> dict[str, str]:
    """The four lines that the demo prints, word to URL."""
    assert process.stdout is not None
    return dict(process.stdout.readline().split() for _ in range(4))


def test_it_prints_four_lines_and_leads_from_the_ad_to_the_shop(start: Demo) -> None:
    demo = start()
    lines = read_lines(demo)
    assert list(lines) == ["Shop", "Ad", "Sandbox", "Dashboard"]
    ad = requests.get(lines["Ad"], timeout=PATIENCE)
    click = re.search(r'href="/(click[^"]*)"', ad.text)
    assert click is not None
    address = lines["Sandbox"] + click[1].replace("&amp;", "&")
    landing = requests.get(address, timeout=PATIENCE)
    assert landing.url.startswith(lines["Shop"] + "?adct=")
    assert requests.get(lines["Dashboard"], timeout=PATIENCE).status_code == 200

    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=PATIENCE)
    # Nothing beside the four lines: no banner, no log of requests, no traceback at the end.
    assert (demo.returncode, out, err) == (0, "", "")
    closes(lines["Sandbox"])


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGKILL, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)],
)
def test_no_process_stays_behind(start: Demo, number: signal.Signals) -> None:
    demo = start()
    lines = read_lines(demo)
    assert listens(lines["Shop"])
    assert listens(lines["Sandbox"])
    # To the shop's process alone: a terminal would send Ctrl-C to the sandbox as well.
    demo.send_signal(number)
    demo.communicate(timeout=PATIENCE)
    closes(lines["Shop"])
    closes(lines["Sandbox"])


@pytest.mark.parametrize(("option", "place"), [("--port", "Shop"), ("--sandbox-port", "Sandbox")])
def test_for_a_taken_port_the_next_is_taken_and_said(start: Demo, option: str, place: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        demo = start(f"{option}={taken}")
        assert demo.stdout is not None
        said = demo.stdout.readline()
        url = read_lines(demo)[place]
        port = int(url.rpartition(":")[2].strip("/"))
        assert taken < port < taken + 20
        assert said == f"Port {taken} is taken: the {place.lower()} takes {port}\n"
        assert requests.get(url, timeout=PATIENCE).status_code == 200


@pytest.mark.parametrize("target", ["demo", "dashboard"])
@pytest.mark.parametrize(("given", "option"), [((), False), (("PORT=8000",), True)])
def test_make_takes_the_port(target: str, given: tuple[str, ...], option: bool) -> None:
    command = ["make", "--dry-run", "--always-make", target, *given]
    env = {name: value for name, value in os.environ.items() if name != "PORT"}
    (run,) = [line for line in ran(*command, cwd=ROOT, env=env).splitlines() if "demo_app" in line]
    assert ("--port=8000" in run) is option
