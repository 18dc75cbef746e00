"""The app's parts are made at their first use, once, however many threads come first."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from adroll_flask.sandbox import running
from tests.conftest import AppMaker, Patch
from tests.support import PATIENCE, ROOT, ran


@pytest.mark.parametrize("part", ["outbox", "deliverer", "visitors"])
def test_first_threads_get_one(make_app: AppMaker, monkeypatch: Patch, part: str) -> None:
    """Two delivery threads were seen in a process whose first two orders came at once."""
    runtime, other = (make_app().extensions["adroll"] for _ in range(2))
    together = threading.Barrier(4)
    kind = type(getattr(other, part))
    really = kind.__init__

    def slowly(self: Any, *given: Any, **named: Any) -> None:
        together.wait(PATIENCE)  # all four are making one
        really(self, *given, **named)

    monkeypatch.setattr(kind, "__init__", slowly)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: getattr(runtime, part), range(4)))
    assert {id(one) for one in found} == {id(getattr(runtime, part))}


# -- a Python that lacks what only POSIX has, as on Windows: capture, reports and delivery work ---


PROGRAM = """
import os, signal, sys

# What others need is loaded before it is hidden.
import flask, msgspec, requests, sqlalchemy, sqlite3, subprocess, tempfile, urllib3

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"}
sys.meta_path.insert(0, Hidden())
for name in MODULES:
    sys.modules.pop(name, None)
for name in (
    "fork", "forkpty", "register_at_fork", "waitpid", "wait", "killpg", "getpgid", "setsid",
    "getuid", "geteuid", "getgid", "getegid", "chown", "fchown", "fchmod", "umask", "uname",
    "fdatasync", "pread", "pwrite", "writev", "readv", "sendfile", "statvfs", "fstatvfs", "mkfifo",
    "sched_getaffinity", "sysconf", "getloadavg", "posix_fadvise", "posix_fallocate", "lockf",
    "O_CLOEXEC", "O_NOFOLLOW", "O_DIRECTORY", "O_SYNC", "O_DSYNC", "O_NONBLOCK", "WNOHANG",
):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "SIGALRM",
             "pthread_sigmask", "pthread_kill", "alarm", "setitimer", "siginterrupt"):
    if hasattr(signal, name):
        delattr(signal, name)

from demo_app import create_app

url, folder = sys.argv[1:]
settings = {"ADROLL_API_URL": url, "ADROLL_LINGER": 0.05, "ADROLL_STRICT": True}
settings["ADROLL_OUTBOX_SYNC"] = "full"
app = create_app(settings, instance_path=folder)
browser = app.test_client()
page = browser.get("/?adct=click123")
assert page.status_code == 200, "an error's page has the snippet, too"
assert "data-adroll" in page.text
assert browser.get_cookie("adroll_visitor") is not None
browser.post("/cart", data={"product": "harbour-mug"})
browser.get("/checkout")
assert browser.post("/checkout", data={"email": "ada@example.com"}).status_code == 303
assert app.extensions["adroll"].flush(20.0) == 0

from adroll_flask.cli.commands import commands
found = app.test_cli_runner().invoke(commands, ["outbox"])
assert found.exit_code == 0, found.output

from adroll_flask.sandbox.app import create_app as create_sandbox
create_sandbox(state_file=os.path.join(folder, "state.jsonl"))
assert not MODULES & set(sys.modules), MODULES & set(sys.modules)
print("all of it without", ", ".join(sorted(MODULES)))
"""


def test_capture_reports_and_delivery_need_nothing_that_only_posix_has(tmp_path: Path) -> None:
    with running() as adroll:
        said = ran(sys.executable, "-W", "error", "-c", PROGRAM, adroll.api_url, tmp_path, cwd=ROOT)
        assert said.startswith("all of it without fcntl")
        [purchase] = adroll.purchases()
    assert purchase["event"]["identifiers"]["adct"] == "click123"


def test_the_context_that_flask_3_2_merges_away_is_not_needed() -> None:
    program = """
import flask.globals
vars(flask.globals).pop("request_ctx", None)
from adroll_flask import request_state
assert request_state.context == flask.globals.app_ctx._get_current_object
"""
    ran(sys.executable, "-W", "error", "-c", program, cwd=ROOT)
