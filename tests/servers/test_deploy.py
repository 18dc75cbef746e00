"""The units and the Dockerfile of docs/how-to/deploy: their own commands, run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest

from benchmarks import drain
from tests.support import PATIENCE, ROOT

DEPLOY = ROOT / "docs" / "how-to" / "deploy"

BIN = Path(sys.executable).parent


def unit(name: str) -> RawConfigParser:
    parser = RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / name)
    return parser


def docker() -> dict[str, str]:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    return {w: rest for w, _, rest in (line.partition(" ") for line in lines) if w.isupper()}


def from_systemd(run: Path, worker: str) -> tuple[list[str], list[str], str]:
    """Start command, preparation and check of worker *worker*, with this machine's paths."""
    service, watch = unit("adroll-worker@.service"), unit("adroll-worker-watch@.service")

    def here(text: str) -> str:
        text = text.replace("%i", worker).replace("/run/", f"{run}/")
        return text.replace("/srv/shop/.venv/bin", str(BIN))

    folder = run / here(service["Service"]["RuntimeDirectory"])
    folder.mkdir()
    start = shlex.split(here(service["Service"]["ExecStart"]))
    before = shlex.split(here(service["Service"]["ExecStartPre"]))
    # The condition holds where a restart is due.
    condition = here(watch["Service"]["ExecCondition"])
    return start, before, f"! {condition}"


def from_docker(run: Path, worker: str) -> tuple[list[str], list[str], str]:
    lines = docker()

    def here(text: str) -> str:
        return text.replace("/run/adroll", str(run / worker))

    (run / worker).mkdir()
    program, *arguments = json.loads(here(lines["CMD"]))
    check = here(lines["HEALTHCHECK"]).partition("CMD ")[2]
    return [str(BIN / program), *arguments], ["true"], check


Way = Callable[[Path, str], tuple[list[str], list[str], str]]


@pytest.fixture
def sink() -> Iterator[Any]:
    with drain.running_sink() as one:
        yield one


@pytest.mark.parametrize("way", [from_systemd, pytest.param(from_docker, marks=pytest.mark.slow)])
def test_workers_start_live_and_finish_their_request_on_sigterm(
    way: Way, sink: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    url = f"sqlite:///{tmp_path}/outbox.sqlite"
    environ = drain.Workers(url, sink.url, tmp_path, 60.0)._environ
    environ |= {"FLASK_APP": "benchmarks.drain"}
    outbox = drain.outbox_at(url, tmp_path)
    for number in range(150):
        outbox.put(drain.new_event(f"order{number}"))
    sink.open.clear()
    workers, checks, files = [], [], []
    try:
        for name in ("1", "2"):
            command, before, check = way(run, name)
            subprocess.run(before, check=True)
            workers.append(subprocess.Popen(command, env=environ, cwd=ROOT))
            checks.append(check)
            files.append(Path(command[-1]))
        drain.wait_for(lambda: sink.hanging == 2, 30, "a request of each worker hangs")
        for check, file in zip(checks, files, strict=True):
            assert file.exists()
            assert healthy(check)
            os.utime(file, (time.time() - 120,) * 2)
            assert not healthy(check), "an old file is a dead worker"
        drain.wait_for(lambda: all(map(healthy, checks)), 10, "they touch their files again")

        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert [worker.poll() for worker in workers] == [None, None], "requests are under way"
        sink.open.set()
        assert [worker.wait(PATIENCE) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert outbox.lookups.counts()["delivered"] == 150
    assert set(sink.seen.values()) == {1}
    outbox.close()


def healthy(check: str) -> bool:
    return subprocess.run(["sh", "-c", check], check=False).returncode == 0


def test_a_stop_gives_a_request_its_time() -> None:
    from adroll_flask.delivery.transport import Timeouts

    longest = Timeouts().connect + Timeouts().total
    assert int(unit("adroll-worker@.service")["Service"]["TimeoutStopSec"]) > longest
    text = (DEPLOY / "Dockerfile").read_text()
    found = re.search(r"--stop-timeout (\d+)", text)
    assert found
    assert int(found[1]) > longest


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    for file in DEPLOY.glob("adroll-worker*"):
        # Their programs are not on this machine.
        text = re.sub(r"/srv/shop/.venv/bin/flask", "/bin/true", file.read_text())
        (tmp_path / file.name.replace("@.", "@1.")).write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", *map(str, tmp_path.glob("*"))],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "adroll" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr
