"""``flask adroll dashboard``: on this machine, for this machine."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from adroll_flask.cli.commands import commands, local_app
from tests.conftest import AppMaker
from tests.support import PATIENCE

PROGRAM = """
from flask import Flask
from adroll_flask import AdRoll
app = Flask("shop", instance_path={instance!r})
app.config.update(SECRET_KEY="key", ADROLL_ADVERTISABLE_EID="ADVERTISABLE0000000001",
    ADROLL_PIXEL_EID="PIXEL00000000000000001", ADROLL_ACCESS_TOKEN="token")
AdRoll(app)
"""


def test_it_is_served_on_loopback(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(PROGRAM.format(instance=str(tmp_path / "instance")))
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "shop", "adroll", "dashboard", "--port", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert found
        answer = requests.get(found[0], timeout=PATIENCE)
        assert answer.url == f"{found[0]}adroll-dashboard/"
        assert "Nothing was reported yet." in answer.text
    finally:
        process.kill()
        process.communicate()


def test_a_port_that_is_taken_is_said_in_a_line(make_app: AppMaker) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        args = ["dashboard", "--port", str(port)]
        result = make_app().test_cli_runner().invoke(commands, args)
    assert result.exit_code == 1
    assert f"port {port} is taken; choose another with --port" in result.output


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:5002", 200), ("localhost", 200), ("evil.example", 403), ("127.0.0.1.evil", 403)],
)
def test_another_name_for_this_machine_is_refused(
    make_app: AppMaker, host: str, status: int
) -> None:
    """DNS rebinding: a page elsewhere whose name came to mean this machine."""
    client = local_app(make_app().extensions["adroll"]).test_client()
    answer = client.get("/adroll-dashboard/", headers={"Host": host})
    assert answer.status_code == status


@pytest.mark.parametrize("look_only", [True, False])
def test_look_only_has_no_buttons(make_app: AppMaker, look_only: bool) -> None:
    client = local_app(make_app().extensions["adroll"], look_only=look_only).test_client()
    answer = client.get("/adroll-dashboard/")
    assert ("Set-Cookie" in answer.headers) is not look_only
