"""The pages about deploying: their commands run, their files are read by what reads them."""

from __future__ import annotations

import re
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import yaml

from adroll_flask.delivery.thread import uwsgi_problem
from adroll_flask.settings import Settings
from tests.support import ROOT, program
from tests.support.pages import Page, Shell, blocks

SERVERS = "docs/how-to/deploy/servers.md"
KUBERNETES = "docs/how-to/deploy/kubernetes.md"
SHOP = (
    "from flask import Flask\nfrom adroll_flask import AdRoll\napp = Flask(__name__)\nAdRoll(app)\n"
)


def ini_of(section: str) -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    [code] = [block.code for block in blocks(SERVERS) if block.section == section]
    parser.read_string(code)
    return parser


def test_gunicorn_starts_as_the_page_has_it(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with (
        Shell(tmp_path) as shell,
        Page("docs/how-to/deploy/servers.md", shell) as page,
    ):
        page.run()


def test_the_units_are_put_where_systemd_finds_them(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc/systemd/system").mkdir(parents=True)
    program("systemctl", "systemd")
    shell = Shell(ROOT / "docs/how-to/deploy")
    # Another root than the machine's, in which nothing runs that could be told or started.
    shell.replace = {
        "/etc/systemd/system": f"{root}/etc/systemd/system",
        "sudo systemctl daemon-reload": f"ls {root}/etc/systemd/system/*.service >{root}/units",
        "sudo systemctl enable --now": f"systemctl --quiet --root={root} enable",
        "sudo ": "",
    }
    with (
        shell,
        Page("docs/how-to/deploy/index.md", shell) as page,
    ):
        page.run()
    wanted = {path.name for path in root.rglob("*.wants/*")}
    assert wanted == {"adroll-worker@1.service", "adroll-worker-watch@1.timer"}


def test_nothing_is_wrong_with_the_pages_uwsgi_ini() -> None:
    options = dict(ini_of("uWSGI")["uwsgi"])
    assert uwsgi_problem(options) is None
    assert uwsgi_problem({**options, "enable-threads": "false"}) is not None


def test_the_units_places_are_settings_and_its_stop_outlives_a_request() -> None:
    service = ini_of("systemd")["Service"]
    [code] = [block.code for block in blocks(SERVERS) if block.section == "systemd"]
    given = dict(re.findall(r"^Environment=FLASK_(ADROLL_\w+)=(.+)$", code, re.M))
    settings = Settings.from_mapping(given)
    folder = f"/var/lib/{service['StateDirectory']}"
    assert str(settings.journal_folder).startswith(folder)
    assert str(settings.outbox_url).startswith(f"sqlite:///{folder}")
    assert int(service["TimeoutStopSec"]) > 40
    assert service["KillMode"] == "mixed"  # what uWSGI needs, and gunicorn bears


def test_the_pods_journal_is_on_the_volume_that_outlives_the_pod() -> None:
    stateful, probe = [
        yaml.safe_load(block.code) for block in blocks(KUBERNETES) if block.language == "yaml"
    ]
    pod: dict[str, Any] = stateful["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [mount] = container["volumeMounts"]
    [claim] = stateful["spec"]["volumeClaimTemplates"]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert mount["name"] == claim["metadata"]["name"]
    assert env["FLASK_ADROLL_JOURNAL_FOLDER"].startswith(mount["mountPath"] + "/")
    assert pod["terminationGracePeriodSeconds"] > 30
    for name in env:
        Settings.from_mapping({name.removeprefix("FLASK_"): env[name]})
    test = probe["livenessProbe"]["exec"]["command"][-1]
    assert test in (ROOT / "docs/how-to/deploy/Dockerfile").read_text()


def test_the_compose_pages_commands_are_those_of_the_example() -> None:
    with Shell(ROOT) as shell, Page("docs/how-to/deploy/compose.md", shell) as page:
        page.run()
    assert shell.typed == ["cd examples/compose"]
