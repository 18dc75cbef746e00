"""``python -m adroll_flask``: the commands of a site that knows nothing of Flask."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adroll_flask.cli.commands import app_of_environment, commands, local_app, main
from adroll_flask.sandbox import RunningSandbox
from tests.conftest import AppMaker, Capsys, Patch
from tests.support import PATIENCE, ROOT
from tests.support.visits import at, invoke, report

Run = Callable[..., "subprocess.CompletedProcess[str]"]


SITE = """
from werkzeug.middleware.proxy_fix import ProxyFix
from adroll_flask import AdRollMiddleware, report_conversion

def shop(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [report_conversion(order_id="1", value="1.00", currency="EUR").status.encode()]

inner = AdRollMiddleware(
    shop, advertisable_eid="ADVERTISABLE0000000001", pixel_eid="PIXEL00000000000000001",
    access_token="a-token", secret_key="a long random text", delivery="worker"{more}
)
application = ProxyFix(inner)
"""


ORDER = {"order_id": "7", "value": "1.00", "currency": "EUR", "user_id": "u1", "ip": "203.0.113.7"}


LINE = json.dumps({**ORDER, "page_location": "https://shop.test/"})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a command in a folder of its own, with only what a test says in the environment."""

    def run(*arguments: str, stdin: str = "", **environment: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "adroll_flask", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )

    return run


def test_every_command_is_there(run: Run) -> None:
    shown = run("--help").stdout
    assert shown.startswith("Usage: python -m adroll_flask [OPTIONS] COMMAND")
    for name in commands.commands:
        assert f"  {name} " in shown
    assert "python -m adroll_flask import" in run("import", "--help").stdout


def test_the_middleware_and_its_outbox_are_found_below_others(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "wsgi.py").write_text(SITE.replace("{more}", ""))
    app = ("--app", "shop.wsgi:application")
    imported = run(*app, "import", "-", stdin=LINE)
    assert "1 queued" in imported.stdout, imported.stderr
    assert json.loads(run(*app, "outbox", "--json").stdout)["counts"]["waiting"] == 1
    listed = json.loads(run(*app, "outbox", "list", "--json").stdout)
    assert [row["key"] for row in listed] == ["7"]
    assert run(*app, "forget", "--user-id", "u1").stdout == "1 event erased\n"
    found = json.loads(run(*app, "check", "--json").stdout)
    told = [one["severity"] for one in found["findings"] if one["subject"] == "endpoints"]
    assert told == ["ok"]


def test_a_wrong_setting_is_said_in_the_words_of_its_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SITE.replace("{more}", ", pixle='none', linger='long'"))
    said = run("--app", "shop:application", "outbox")
    assert said.returncode == 1
    assert "pixle: there is no such argument; did you mean pixel?" in said.stderr
    assert "python -m adroll_flask check lists all" in said.stderr
    found = json.loads(run("--app", "shop:application", "check", "--json").stdout)["findings"]
    assert {"pixle", "linger"} <= {one["subject"] for one in found}
    said = run("outbox", ADROLL_PIXLE="none")
    assert said.returncode == 1
    assert "ADROLL_PIXLE: there is no such setting; did you mean ADROLL_PIXEL" in said.stderr


def test_a_command_that_is_advised_is_one_that_is_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SITE.replace("{more}", ", strict=True"))
    app = ("--app", "shop:application")
    found = json.loads(run(*app, "check", "--json").stdout)["findings"]
    told = {one["subject"]: one for one in found}
    typed = f"python -m adroll_flask {' '.join(app)}"
    assert told["account"]["sentence"] == f"all three values are set; try `{typed} send-test`"
    assert told["ADROLL_STRICT"]["severity"] == "hint", "nobody knows whether this is debugging"
    alone = run("check").stdout
    assert "run `python -m adroll_flask sandbox`" in alone
    assert "no app was named, and none was asked; pass --app" in alone
    assert "flask adroll" not in alone


DJANGO = """
import os
from django.core.wsgi import get_wsgi_application
from adroll_flask import AdRollMiddleware

os.environ["DJANGO_SETTINGS_MODULE"] = "project"
bare = get_wsgi_application()
application = AdRollMiddleware(bare, sandbox=True, secret_key="a long random text")
"""


@pytest.mark.parametrize(
    ("named", "debug", "severity"),
    [
        (None, True, "error"),
        # A server that is started by wsgi.py itself asks nobody for the setting.
        ("site_wsgi.bare", False, "warning"),
        ("site_wsgi.application", True, None),
    ],
)
def test_a_django_server_that_goes_around_the_middleware_is_found(
    run: Run, tmp_path: Path, named: str | None, debug: bool, severity: str | None
) -> None:
    (tmp_path / "site_wsgi.py").write_text(DJANGO)
    (tmp_path / "project.py").write_text(
        f"SECRET_KEY = 'x'\nROOT_URLCONF = 'project'\nurlpatterns = []\nDEBUG = {debug}\n"
        + (f"WSGI_APPLICATION = {named!r}\n" if named else "")
    )
    done = run("--app", "site_wsgi:application", "check", "--json")
    found = {one["subject"]: one["severity"] for one in json.loads(done.stdout)["findings"]}
    assert found.get("WSGI_APPLICATION") == severity


def test_from_an_empty_folder_the_environment_is_enough(
    run: Run, tmp_path: Path, sandbox: RunningSandbox
) -> None:
    settings = {name: str(value) for name, value in at(sandbox).items()} | {
        "ADROLL_SECRET_KEY": "a long random text",
        "ADROLL_DELIVERY": "worker",
        "ADROLL_EMAIL": '["sha256"]',
        # Of the environment, and no settings.
        "ADROLL_SANDBOX_ALLOW_PRODUCTION": "0",
        "ADROLL_OLD_OUTBOX_URL": "sqlite:///old.sqlite",
    }
    assert run("outbox", **settings).returncode == 0
    found = json.loads(run("check", "--json", **settings).stdout)
    assert found["ok"], found
    assert list(tmp_path.iterdir()) == []
    assert run("send-test", **settings).returncode == 0
    assert "1 queued" in run("import", "-", stdin=LINE, **settings).stdout
    assert run("worker", "--once", **settings).stdout == "1 settled, 0 waiting\n"
    assert len(sandbox.events()) >= 1


def test_an_invalid_event_waits_for_the_functions_of_an_app_that_is_not_named(
    monkeypatch: Patch, tmp_path: Path
) -> None:
    """Its before_report may be there to keep this very event back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADROLL_STRICT", "false")
    for engine in ("POSTGRESQL", "MARIADB"):  # the tests' own (tests/support/outbox_engines.py)
        monkeypatch.delenv(f"ADROLL_TEST_{engine}", raising=False)
    app = app_of_environment()
    functions = app.extensions["adroll"].functions
    functions.before_report.append(bool)  # fails at the report, and is unknown to the command
    assert report(app).status == "invalid"
    functions.before_report.clear()
    said = invoke(app, "outbox", "retry", "--all-dead").output
    assert "name the app with --app" in said
    assert "0 events will be sent again" in said


@pytest.mark.parametrize(
    ("app", "code", "said"),
    [
        ("nowhere:application", 2, "there is no module 'nowhere'"),
        ("", 2, "--app takes MODULE:OBJECT"),
        (".plain:shop", 2, "--app takes MODULE:OBJECT"),
        ("plain:nothing", 2, "plain has no nothing"),
        ("plain", 2, "--app takes MODULE:OBJECT"),
        ("plain:shop", 2, "AdRollASGIMiddleware around plain:shop"),
        ("plain:flask_app", 0, ""),
        ("plain:made", 2, "such as shop:create_app()"),
        ("plain:made()", 0, ""),
    ],
)
def test_an_app_is_found_or_why_not_is_told(
    monkeypatch: Patch, capsys: Capsys, tmp_path: Path, app: str, code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["adroll_flask", "--app", app, "outbox"])
    (tmp_path / "plain.py").write_text(
        "from flask import Flask\nfrom adroll_flask import AdRoll\n"
        "flask_app = Flask('shop', instance_path=__file__ + '.d')\nAdRoll(flask_app)\n"
        "def shop(environ, start_response): ...\n"
        "def made(): return flask_app\n"
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert said in capsys.readouterr().err


def test_an_app_that_cannot_be_imported_says_where(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import missing_module\n")
    result = run("--app", "broken:application", "outbox")
    assert (result.returncode, "broken.py" in result.stderr) == (1, True)


def test_what_litestar_makes_for_each_route_is_refused_with_the_way_out(
    run: Run, tmp_path: Path
) -> None:
    pytest.importorskip("litestar")
    (tmp_path / "routes.py").write_text(
        "from litestar import Litestar\nfrom litestar.middleware import DefineMiddleware\n"
        "from adroll_flask import AdRollASGIMiddleware\n"
        "app = Litestar([], middleware=[DefineMiddleware(AdRollASGIMiddleware, sandbox=True)])\n"
    )
    result = run("--app", "routes:app", "outbox")
    assert result.returncode == 2
    assert "middleware=, put ours around the app" in result.stderr


# -- ``flask adroll dashboard``: on this machine, for this machine --------------------------------


def test_a_port_that_is_taken_is_said_in_a_line(make_app: AppMaker) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        args = ["dashboard", "--port", str(port)]
        result = make_app().test_cli_runner().invoke(commands, args)
    assert result.exit_code == 1
    assert f"port {port} is taken: choose another, --port" in result.output


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:5002", 200), ("localhost", 200), ("evil.example", 403), ("127.0.0.1.evil", 403)],
)
def test_another_name_of_this_machine_fails(make_app: AppMaker, host: str, status: int) -> None:
    """DNS rebinding: a page elsewhere whose name came to mean this machine."""
    client = local_app(make_app().extensions["adroll"]).test_client()
    answer = client.get("/", headers={"Host": host}, follow_redirects=True)
    assert answer.status_code == status
    assert ("Nothing was reported yet." in answer.text) is (status == 200)


@pytest.mark.parametrize("look_only", [True, False])
def test_look_only_has_no_buttons(make_app: AppMaker, look_only: bool) -> None:
    client = local_app(make_app().extensions["adroll"], look_only=look_only).test_client()
    assert ("Set-Cookie" in client.get("/adroll-dashboard/").headers) is not look_only
