"""A shop in a folder of its own, whose processes a test starts, stops and kills."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adroll_flask.sandbox import RunningSandbox
from tests.support import ROOT, started, wsgi_servers
from tests.support.visits import named_at

_APP = "tests.support.server_shop:make_shop()"


@dataclass
class Shop:
    """Its processes have nothing in common but the folder and the settings.

    :param folder: the instance folder.
    :param settings: without ``ADROLL_``, in lower case.
    :param clock: a file with the seconds by which its clock is ahead.
    """

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    clock: Path | None = None

    def at(self, sandbox: RunningSandbox, **settings: Any) -> Shop:
        """The same shop with the account of *sandbox*, and what else is different."""
        return self.but(**named_at(sandbox), **settings)

    def but(self, **settings: Any) -> Shop:
        """The same shop with other settings; ``None`` is what Flask's loader reads as none."""
        return Shop(self.folder, self.settings | settings, self.clock)

    @property
    def environ(self) -> dict[str, str]:
        told = {
            f"FLASK_ADROLL_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in self.settings.items()
        }
        # The worker that a test starts delivers, and nobody else.
        mine = {"SHOP_FOLDER": str(self.folder), "FLASK_ADROLL_DELIVERY": "worker"}
        if self.clock is not None:
            mine["SHOP_CLOCK"] = str(self.clock)
        return os.environ | mine | told

    def report(self, what: str) -> list[str]:
        """Report in a process that dies at once: see :mod:`tests.support.shop_orders`."""
        with self.reporting() as reporter:
            return reporter.report(what)

    @contextlib.contextmanager
    def reporting(self) -> Iterator[Reporter]:
        """A process that reports, and dies in the end; meanwhile it takes in as a shop's does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = (sys.executable, "-m", "tests.support.shop_orders")
        talk: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": None}
        with started(*command, env=self.environ, **talk) as process:
            yield Reporter(process)
            with contextlib.suppress(BrokenPipeError, ValueError):  # it may have ended
                process.communicate(timeout=wsgi_servers.PATIENCE)

    def adroll(self, *arguments: str, check: bool = True) -> str:
        """Run ``flask adroll`` and return what it prints, errors and log included."""
        done = self._run(*arguments)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def as_json(self, *arguments: str) -> Any:
        """What a command prints with ``--json``."""
        return json.loads(self._run(*arguments, "--json").stdout)

    def _command(self, *arguments: str) -> list[str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return [sys.executable, "-m", "flask", f"--app={_APP}", "adroll", *arguments]

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*arguments),
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=wsgi_servers.PATIENCE,
            check=False,
        )

    def running(
        self, *arguments: str, log: Path | None = None
    ) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
        """A command of ``flask adroll`` that runs meanwhile."""
        return started(*self._command(*arguments), log=log, env=self.environ)


@dataclass
class Reporter:
    """A process of a shop that reports what it is told to."""

    process: subprocess.Popen[str]

    def report(self, what: str) -> list[str]:
        """What each receipt says: see :mod:`tests.support.shop_orders`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        told: list[str] = json.loads(self.says())
        return told

    def says(self) -> str:
        """Its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def exit(self) -> None:
        """End as programs end."""
        self.process.communicate("exit\n", timeout=wsgi_servers.PATIENCE)
        assert self.process.returncode == 0

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Meanwhile it does nothing, not even look into its journal."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def orders(sandbox: RunningSandbox) -> list[str]:
    """The orders that AdRoll has, each as often as it has it."""
    return sorted((str(one["order_id"]) for one in sandbox.purchases()), key=lambda o: (len(o), o))


def refused(sandbox: RunningSandbox) -> list[int]:
    """The status of each request that AdRoll did not take; of one under way there is none yet."""
    return [one["status"] for one in sandbox.requests() if one["status"] not in (200, None)]
