"""What systemd does with a unit of our pages, as far as a test needs it: its own lines are run."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support import PATIENCE, eventually


def values(unit: str, name: str) -> list[str]:
    """All that a unit's text says of *name*, in order: a name may stand there more than once."""
    return re.findall(rf"^{name}=(.*)$", unit, re.MULTILINE)


class Unit:
    """A service that runs, and is started again where it ends by itself (``Restart=always``)."""

    def __init__(self, text: str, log: Path) -> None:
        self._text = text
        self._log = log
        self._stopping = threading.Event()
        self.process: subprocess.Popen[str] | None = None
        self.starts = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def values(self, name: str) -> list[str]:
        """All that the unit says of *name*, in order."""
        return values(self._text, name)

    @property
    def environment(self) -> dict[str, str]:
        """The unit's own lines, and the files' over them (systemd.exec(5), EnvironmentFile=)."""
        lines = self.values("Environment")
        for file in self.values("EnvironmentFile"):
            lines += Path(file).read_text().splitlines()
        pairs = (shlex.split(line)[0].partition("=") for line in lines if line.strip())
        return {name: value for name, _, value in pairs}

    def log(self) -> str:
        """What its processes said."""
        return self._log.read_text()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what is left after ``TimeoutStopSec``."""
        self._stopping.set()
        process = self.process
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(int(self.values("TimeoutStopSec")[0]))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        own = self.environment | {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        [folder], [command] = self.values("WorkingDirectory"), self.values("ExecStart")
        with self._log.open("a") as log:
            while not self._stopping.is_set():
                for before in self.values("ExecStartPre"):
                    subprocess.run(shlex.split(before), check=True, env=own)
                self.process = subprocess.Popen(
                    shlex.split(command),
                    cwd=folder,
                    env=own,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    text=True,
                    start_new_session=True,
                )
                self.starts += 1
                self.process.wait()


@contextmanager
def supervised(folder: Path, units: Mapping[str, str]) -> Iterator[dict[str, Unit]]:
    """Meanwhile these units run, by name; what each says is in a log of its own in *folder*."""
    running = {name: Unit(text, folder / f"{name}.log") for name, text in units.items()}
    try:
        for unit in running.values():
            unit.start()
            eventually(lambda unit=unit: unit.starts)  # type: ignore[misc]
        yield running
    finally:
        for unit in reversed(running.values()):
            unit.stop()
