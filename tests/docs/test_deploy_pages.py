"""The pages about deploying and Celery: commands run; their files are read by what reads them."""

import re
import sys
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask, request

from adroll_flask.sandbox import running
from adroll_flask.settings import Settings
from tests.support import ROOT, answers, eventually, lacking, program, ran
from tests.support.pages import SHOP, Page, Shell, blocks

SERVERS = "docs/how-to/deploy/servers.md"


KUBERNETES = "docs/how-to/deploy/kubernetes.md"


def ini_of(code: str) -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(code)
    return parser


def test_gunicorn_starts_as_the_page_has_it(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with Shell(tmp_path) as shell, Page("docs/how-to/deploy/servers.md", shell) as page:
        page.run("gunicorn")
        app = Flask("shop")
        app.add_url_rule("/", "home", lambda: str(request.remote_addr))
        page.run("The visitor's address", app=app)
    chain = {"X-Forwarded-For": "198.51.100.66, 203.0.113.7"}
    assert app.test_client().get("/", headers=chain).text == "203.0.113.7"


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
    with shell, Page("docs/how-to/deploy/index.md", shell) as page:
        page.run()
    wanted = {path.name for path in root.rglob("*.wants/*")}
    assert wanted == {"adroll-worker@1.service", "adroll-worker-watch@1.timer"}


def test_the_pages_uwsgi_ini_lets_threads_run() -> None:
    [code] = [block.code for block in blocks(SERVERS) if block.section == "uWSGI"]
    assert ini_of(code)["uwsgi"]["enable-threads"] == "true"


def test_shop_and_worker_have_the_same_places_and_a_stop_outlives_a_request() -> None:
    places = []
    for name in ("shop.service", "adroll-worker@.service"):
        code = (ROOT / "docs/how-to/deploy" / name).read_text()
        service = ini_of(code)["Service"]
        given = dict(re.findall(r"^Environment=FLASK_(ADROLL_\w+)=(.+)$", code, re.M))
        settings = Settings.from_mapping(given)
        folder = f"/var/lib/{service['StateDirectory']}"
        assert str(settings.journal_folder).startswith(folder)
        assert str(settings.outbox_url).startswith(f"sqlite:///{folder}")
        assert int(service["TimeoutStopSec"]) > 40
        alike = ("User", "WorkingDirectory", "EnvironmentFile", "StateDirectory")
        places.append((given, *(service[name] for name in alike)))
    assert places[0] == places[1]


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


# -- docs/how-to/celery.md as a shop would follow it ----------------------------------------------


PAGE = "docs/how-to/celery.md"


ORDER = """
from adroll_flask import report_conversion
from shop import app

with app.app_context():
    report_conversion(
        order_id="1001", value="29.95", currency="EUR", adct="click123", visitor=None,
        ip="203.0.113.7", page_location="https://shop.test/",
    )
"""


@pytest.mark.slow
def test_the_page_s_workers_start_and_deliver(tmp_path: Path) -> None:
    if not answers(6379):
        lacking("Redis does not answer on 127.0.0.1:6379")
    redis = "redis://127.0.0.1:6379"
    replace = {"amqp://guest:guest@localhost//": f"{redis}/12", "redis://localhost": f"{redis}/11"}
    (tmp_path / "order.py").write_text(ORDER)
    with running() as sandbox:
        env = {
            "FLASK_SECRET_KEY": "a long random text",
            "FLASK_ADROLL_SANDBOX": "true",
            "FLASK_ADROLL_API_URL": sandbox.api_url,
        }
        with Shell(tmp_path, env, replace) as shell, Page(PAGE, shell) as page:
            page.run()
            said, status = shell.type("python order.py")
            assert status == 0, said
            # What beat does every 30 seconds.
            said, status = shell.type(
                "celery -A shop:celery call adroll_flask.drain --queue=adroll 2>&1"
            )
            assert status == 0, said
            eventually(lambda: sandbox.purchases(order_id="1001"))


FACTORY = """
from pathlib import Path
from adroll_flask import report_conversion
from adroll_flask.celery import TASK
from adroll_flask.testing import reports
from celery.app.utils import find_app
from factory_shop import create_app, payment_arrived

assert {TASK, payment_arrived.name} <= {*find_app("make_celery:celery_app").tasks}
app = create_app(
    {
        "SECRET_KEY": "k" * 32,
        "TESTING": True,
        "ADROLL_JOURNAL_FOLDER": str(Path.cwd() / "journal"),
        "CELERY": {"task_always_eager": True, "task_eager_propagates": True},
    }
)
app.extensions["celery"].set_current()
with reports(app) as reported:
    with app.app_context():
        sale = {"order_id": "1", "value": "1", "currency": "EUR", "adct": "click123"}
        where = {"ip": "203.0.113.7", "page_location": "https://shop.test/"}
        report_conversion(**sale, **where, visitor=None, hold=True)
    assert [event.order_id for event in reported.held] == ["1"]
    payment_arrived.delay("1")
print(reported.one("purchase").order_id)
"""


def test_a_shared_task_of_an_app_factory_releases_an_order(tmp_path: Path) -> None:
    shop, celery, _worker = blocks(PAGE, "With an app factory and shared_task")
    (tmp_path / "factory_shop.py").write_text(shop.code)
    (tmp_path / "make_celery.py").write_text(celery.code)
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    assert ran(sys.executable, "-W", "error", "-c", FACTORY, cwd=tmp_path, env=env) == "1\n"
