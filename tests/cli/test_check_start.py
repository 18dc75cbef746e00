"""``flask adroll …`` on an app that does not start, or that has no AdRoll."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import FlaskGroup

from adroll_flask import AdRoll, ConfigurationError
from adroll_flask.errors import help_url

WRONG: dict[str, Any] = {
    "SECRET_KEY": "a key for tests",
    "ADROLL_PIXEL": "maybe",
    "ADROLL_DRY_RUN": "yes",
    "ADROLL_ACESS_TOKEN": "s3cret-value",
}
PROGRAM = """
from flask import Flask
from adroll_flask import AdRoll

app = Flask(__name__)
app.config.from_prefixed_env()
AdRoll(app)
"""


def broken() -> Flask:
    app = Flask("broken")
    app.config.update(WRONG)
    AdRoll(app)
    return app


def flask(create_app: Callable[[], Flask], *arguments: str) -> Result:
    return CliRunner().invoke(FlaskGroup(create_app=create_app), ["adroll", *arguments])


def test_check_names_every_wrong_setting_of_an_app_that_does_not_start() -> None:
    result = flask(broken, "check")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    lines = result.output.splitlines()
    for key in ("ADROLL_PIXEL", "ADROLL_DRY_RUN", "ADROLL_ACESS_TOKEN"):
        assert any(line.startswith(f"ERROR   {key}: ") for line in lines), result.output
    assert "did you mean ADROLL_ACCESS_TOKEN?" in result.output
    assert lines[-1] == "3 errors, 0 warnings"
    assert "s3cret-value" not in result.output


def test_check_as_json_of_an_app_that_does_not_start_has_its_usual_form() -> None:
    result = flask(broken, "check", "--json", "--url", "http://127.0.0.1:9/")
    assert result.exit_code == 1
    told = json.loads(result.output)
    assert told["ok"] is False
    errors = [finding for finding in told["findings"] if finding["severity"] == "error"]
    assert [finding["subject"] for finding in errors] == list(WRONG)[1:]
    assert all(finding["todo"] for finding in errors)


@pytest.mark.parametrize(
    "arguments",
    [
        ["send-test"],
        ["worker", "--once"],
        ["outbox"],
        ["outbox", "list"],
        ["outbox", "show", "0123"],
        ["outbox", "create-table"],
        ["forget", "--user-id", "42"],
        ["import", "-"],
    ],
    ids=" ".join,
)
def test_other_commands_say_in_one_line_what_is_wrong(arguments: list[str]) -> None:
    result = flask(broken, *arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    line, address = result.output.splitlines()
    assert address == help_url("setting")
    assert line.startswith("Error: ADROLL_PIXEL: takes one of 'load', 'present', 'none'; ")
    assert "(and 2 more wrong settings; " in line
    assert line.endswith(" adroll check lists all)")


def test_what_needs_no_app_works_without_one() -> None:
    assert json.loads(flask(broken, "schema").output)["properties"]
    assert flask(broken, "sandbox", "--help").output.startswith("usage: flask adroll sandbox ")
    for arguments in (["--help"], ["outbox", "--help"], ["check", "--help"]):
        assert flask(broken, *arguments).exit_code == 0


def test_an_app_without_adroll_is_told_what_to_call() -> None:
    result = flask(lambda: Flask("bare"), "check")
    assert result.exit_code == 1
    assert "ERROR   flask adroll: this app has no AdRoll; call AdRoll(app)" in result.output
    for arguments in (["outbox"], ["outbox", "list"], ["worker", "--once"]):
        result = flask(lambda: Flask("bare"), *arguments)
        assert result.exit_code == 1
        assert result.output.startswith("Error: flask adroll: this app has no AdRoll; call")


def test_an_app_that_starts_is_made_once_and_is_the_commands_app(tmp_path: Path) -> None:
    made: list[Flask] = []

    def create_app() -> Flask:
        app = Flask("good", instance_path=str(tmp_path))
        app.config.update(SECRET_KEY="a key for tests", ADROLL_DELIVERY="worker")
        AdRoll(app)
        made.append(app)
        return app

    assert flask(create_app, "outbox").output.startswith("engine      sqlite")
    assert flask(create_app, "worker", "--once").output == "0 settled, 0 waiting\n"
    assert "Nothing can be sent" in flask(create_app, "check").output
    assert len(made) == 3
    for app in made:
        app.extensions["adroll"].outbox.close()


def test_another_error_of_an_apps_start_is_left_as_it_is() -> None:
    def create_app() -> Flask:
        raise KeyError("SHOP_DATABASE")

    for command in ("check", "worker"):
        assert isinstance(flask(create_app, command).exception, KeyError)


def test_whoever_makes_the_app_gets_the_error_with_every_wrong_setting() -> None:
    with pytest.raises(ConfigurationError) as caught:
        broken()
    assert all(f"{key}: " in str(caught.value) for key in list(WRONG)[1:])


@pytest.mark.parametrize(
    ("command", "expected"),
    [("check", "ERROR   ADROLL_PIXEL: takes one of"), ("outbox", "Error: ADROLL_PIXEL: takes")],
)
def test_the_flask_command_itself_shows_no_traceback(
    tmp_path: Path, command: str, expected: str
) -> None:
    (tmp_path / "shop.py").write_text(PROGRAM)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLASK_")}
    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "shop", "adroll", command],
        cwd=tmp_path,
        env={**environ, "FLASK_ADROLL_PIXEL": "maybe"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert expected in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
