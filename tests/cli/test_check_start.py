"""``flask adroll …`` on an app that does not start, or that has no AdRoll."""

import json
import os
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import FlaskGroup

from adroll_flask import AdRoll, ConfigurationError, sandbox
from adroll_flask.errors import help_for
from adroll_flask.sandbox import local_only
from adroll_flask.settings import PLATFORMS, STAGES, Settings
from tests.conftest import AppMaker, Caplog, Patch
from tests.support import PATIENCE, visits
from tests.support.disks import make_read_only, small_disk
from tests.support.pages import SHOP, started

WRONG: dict[str, Any] = {
    "SECRET_KEY": "a key for tests",
    "ADROLL_PIXEL": "maybe",
    "ADROLL_DRY_RUN": "yes",
    "ADROLL_ACESS_TOKEN": "s3cret-value",
}


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


@pytest.mark.parametrize("command", ["check", "go-live"])
def test_as_json_of_an_app_that_does_not_start_they_have_their_usual_form(command: str) -> None:
    result = flask(broken, command, "--json", "--url", "http://127.0.0.1:9/")
    assert result.exit_code == 1
    told = json.loads(result.output)
    assert told["ok"] is False
    errors = [finding for finding in told["findings"] if finding["severity"] == "error"]
    assert [finding["subject"] for finding in errors] == list(WRONG)[1:]
    assert all(finding["todo"] for finding in errors)


@pytest.mark.parametrize(
    "command",
    [
        *("send-test", "worker --once", "outbox", "outbox list", "outbox show 0123"),
        *("outbox create-table", "forget --user-id 42", "import -"),
    ],
)
def test_other_commands_say_in_one_line_what_is_wrong(command: str) -> None:
    result = flask(broken, *command.split())
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    line, address = result.output.splitlines()
    assert address == help_for("setting")
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
        made.append(Flask("good", instance_path=str(tmp_path)))
        made[-1].config.update(SECRET_KEY="a key for tests", ADROLL_DELIVERY="worker")
        AdRoll(made[-1])
        return made[-1]

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


# -- what a newcomer meets in the first ten minutes: the sandbox in one word, messages that help --


# -- ADROLL_SANDBOX ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [("DYNO", "web.1"), ("APP_ENV", "Production"), ("STAGE", "prod")]
)
def test_the_sandbox_is_refused_in_production(monkeypatch: Patch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name} says that this is production") as caught:
        Settings.from_mapping({"ADROLL_SANDBOX": True})
    assert caught.value.slug == "sandbox-in-production"
    monkeypatch.setenv(local_only.ALLOW_PRODUCTION, "1")
    assert Settings.from_mapping({"ADROLL_SANDBOX": True}).sandbox


def test_the_package_and_the_sandbox_know_production_by_the_same_signs() -> None:
    assert local_only._STAGES == STAGES
    assert local_only._PLATFORMS == PLATFORMS


def test_check_with_nothing_set_leads_to_the_sandbox_first(tmp_path: Path) -> None:
    app = Flask("shop", instance_path=str(tmp_path))
    AdRoll(app)
    text = visits.invoke(app, "check").output
    assert 0 < text.index("flask adroll sandbox") < text.index("account manager")
    assert "set ADROLL_SANDBOX to True" in visits.invoke(app, "send-test", code=1).output


def test_check_says_whether_the_sandbox_runs(make_app: AppMaker) -> None:
    with sandbox.running() as adroll:
        app = make_app(ADROLL_SANDBOX=True, ADROLL_API_URL=adroll.api_url)
        there = visits.invoke(app, "check").output
        sent = visits.invoke(app, "send-test")
    away = visits.invoke(app, "check").output
    assert f"ADROLL_SANDBOX: is True: events go to {adroll.api_url}, not to AdRoll" in there
    assert "nobody listens" not in there
    assert sent.exit_code == 0, sent.output
    assert f"ERROR   ADROLL_SANDBOX: nobody listens at {adroll.api_url}" in away


def test_the_sandbox_starts_where_the_site_looks_for_it(
    make_app: AppMaker, monkeypatch: Patch
) -> None:
    with sandbox.running() as adroll, sandbox.running() as other:
        app = make_app(ADROLL_SANDBOX=adroll.url)
        assert f"port {adroll.port} is taken" in visits.invoke(app, "sandbox", code=1).output
        result = visits.invoke(app, "sandbox", "--port", str(other.port), code=1)
        assert f"port {other.port} is taken" in result.output
        # A site that does not start, or that has no AdRoll: what the environment says.
        monkeypatch.setenv("FLASK_ADROLL_SANDBOX", str(other.port))
        for create_app in (broken, lambda: Flask("bare")):
            assert f"port {other.port} is taken" in flask(create_app, "sandbox").output


# -- did you mean --------------------------------------------------------------------------


def test_a_setting_that_is_none_names_the_one_that_was_meant() -> None:
    close = {"ADVERTISER_ID": "ADVERTISABLE_EID", "SECRET": "SECRET_KEY", "HOST": "HOSTS"}
    for written, meant in close.items():
        with pytest.raises(ConfigurationError, match=rf"did you mean ADROLL_{meant}\?"):
            Settings.from_mapping({f"ADROLL_{written}": "x"})


# -- places --------------------------------------------------------------------------------


def test_a_bad_folder_is_told_at_the_start(tmp_path: Path, caplog: Caplog) -> None:
    (tmp_path / "file").write_text("")
    app = Flask("shop", instance_path=str(tmp_path))
    app.config["ADROLL_JOURNAL_FOLDER"] = str(tmp_path / "file" / "journal")
    AdRoll(app)
    [said] = [text for text in caplog.messages if "cannot keep all events" in text]
    assert f"ADROLL_JOURNAL_FOLDER: {tmp_path}/file/journal cannot be made: " in said
    assert "is not a folder" in said
    assert "ERROR   ADROLL_JOURNAL_FOLDER: " in visits.invoke(app, "check").output


@pytest.mark.parametrize("link", ["shop", "shop/adroll-journal", "shop/adroll-outbox.sqlite"])
def test_a_link_to_what_is_missing_is_told_at_the_start(
    tmp_path: Path, caplog: Caplog, link: str
) -> None:
    place, missing = tmp_path / link, tmp_path / "a-disk-that-is-not-mounted"
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(missing)
    app = Flask("shop", instance_path=str(tmp_path / "shop"))
    AdRoll(app)
    assert f"{place} is a link to {missing}, which has to be there first" in caplog.text
    assert "is a link to" in visits.invoke(app, "check", code=1).output


def test_a_file_that_root_left_is_told_at_the_start(
    tmp_path: Path, monkeypatch: Patch, caplog: Caplog
) -> None:
    place, access = tmp_path / "adroll-outbox.sqlite", os.access
    place.write_bytes(b"")  # as `sudo flask adroll outbox` leaves it
    monkeypatch.setattr(os, "access", lambda path, mode: path != place and access(path, mode))
    AdRoll(Flask("shop", instance_path=str(tmp_path)))
    assert f"{place} may not be written by this user" in caplog.text


@pytest.mark.parametrize("is_new", [False, True])
def test_a_read_only_file_system_is_called_so(tmp_path: Path, caplog: Caplog, is_new: bool) -> None:
    """To give its folder to another user would help nobody."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        folder = str(disk / "shop")
        if not is_new:
            AdRoll(before := Flask("shop", instance_path=folder))
            visits.invoke(before, "outbox", "create-table")
            before.extensions["adroll"].outbox.close()
        make_read_only(disk)
        AdRoll(app := Flask("shop", instance_path=folder))
        assert "is on a file system that is mounted read-only" in caplog.text
        told = visits.invoke(app, "check", code=1).output
        assert f"findmnt -T {disk}" in told
        assert "chown" not in told


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "user", "is_told"),
    [
        (0, 65534, 0o2775, 0, True),
        (0, 65534, 0o2775, 65534, False),  # the app itself
        (0, 65534, 0o755, 0, False),  # which the app cannot use at all
        (0, 0, 0o775, 0, False),  # root's own
        (65534, 65534, 0o775, 0, False),  # what root makes there is given to its owner
    ],
)
def test_root_is_told_of_a_folder_where_the_app_could_not_use_what_it_makes(
    tmp_path: Path, monkeypatch: Patch, owner: int, group: int, mode: int, user: int, is_told: bool
) -> None:
    os.chown(tmp_path, owner, group)
    tmp_path.chmod(mode)
    (tmp_path / "adroll-outbox.sqlite").write_bytes(b"")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    app = Flask("shop", instance_path=str(tmp_path))
    AdRoll(app)
    told = visits.invoke(app, "check").output
    for key in ("ADROLL_JOURNAL_FOLDER", "ADROLL_OUTBOX_URL"):
        assert (f"WARNING {key}: {tmp_path} is root's: its group" in told) == is_told


def test_a_command_that_is_advised_may_be_copied_whatever_the_folder_is_called(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    folder, access = tmp_path / "my shop's" / "instance", os.access
    folder.mkdir(parents=True)
    app = Flask("shop", instance_path=str(folder))
    AdRoll(app)
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and access(path, mode))
    told = visits.invoke(app, "check").output
    assert f"{folder} may not be written by this user" in told
    commands = re.findall(r'sudo chown -R "\$\(id -un\)" (.+) \(a command', told)
    assert len(commands) == 2
    assert [shlex.split(command) for command in commands] == [[str(folder)]] * 2


# -- databases -----------------------------------------------------------------------------


def test_a_file_that_cannot_be_opened_is_told(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app(ADROLL_OUTBOX_URL=f"sqlite:///{tmp_path}")
    said = visits.invoke(app, "outbox", code=1).output
    assert said.startswith("Error: The outbox cannot be used: the ")
    assert "unable to open database file" in said
    assert "unable to open database file" in visits.invoke(app, "check").output


# -- commands that run until they are ended ------------------------------------------------


#: Sends the worker a signal while it imports what makes its outbox, if it takes signals by then.
INTERRUPTED = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        takes = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        if name == "adroll_flask.events.fix" and takes:
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Interrupts())
"""


@pytest.mark.parametrize(
    ("command", "program", "number"),
    [
        ("worker", SHOP, signal.SIGINT),
        ("worker", SHOP, signal.SIGTERM),
        ("worker", INTERRUPTED + SHOP, signal.SIGTERM),
        ("sandbox", SHOP, signal.SIGINT),
    ],
    ids=["worker", "stopped", "stopped while it begins", "sandbox"],
)
def test_worker_and_sandbox_say_that_they_run_and_a_signal_ends_them_in_order(
    command: str, program: str, number: signal.Signals, tmp_path: Path
) -> None:
    options = ["--port", "0"] if command == "sandbox" else []
    process = started(
        tmp_path, command, *options, program=program, FLASK_ADROLL_ACCESS_TOKEN="null"
    )
    assert process.stdout is not None
    while (first := process.stdout.readline()).startswith("AdRoll: "):
        pass  # the log
    reads = process.stdout.readline() if command == "worker" else ""
    process.send_signal(number)
    rest, _ = process.communicate(timeout=PATIENCE)
    begins, ends = {
        "worker": (
            "Delivers to https://srv.adroll.com/api until Ctrl-C or SIGTERM "
            "(ADROLL_ACCESS_TOKEN not set).",
            "Ended: 0 events delivered, 0 waiting.",
        ),
        "sandbox": ("Watch  http://127.0.0.1:", "Ended: 0 of 0 events accepted."),
    }[command]
    assert first.startswith(begins), first + rest
    assert rest.splitlines()[-1] == ends
    if command == "worker":
        place = tmp_path / "instance"
        assert f"Reads the outbox {place}/adroll-outbox.sqlite (not there yet) and the" in reads
        assert f"journal {place}/adroll-journal" in reads
    assert process.returncode == 0
