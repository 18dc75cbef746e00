"""An outbox in a process of its own, which can be killed amid what it does."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from adroll_flask.outbox import Outbox
from adroll_flask.settings import Settings
from tests.support.outbox_engines import Clock, amend_wire

#: Forks from a process that has imported this module and runs no threads.
_CONTEXT: Final = get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


class _Part:
    """A part of the other process's outbox, or a method of one: ``queue.claim``."""

    def __init__(self, host: HostProcess, name: str) -> None:
        self._host = host
        self._name = name

    def __getattr__(self, name: str) -> _Part:
        return _Part(self._host, f"{self._name}.{name}")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self._host.begin(self._name, *arguments, **named)
        return self._host.answer()


class HostProcess:
    """Has the methods of an outbox and of its parts; each runs in the process.

    :param clock: this process's, which the other one goes by.
    """

    def __init__(self, values: dict[str, Any], folder: Path, clock: Clock) -> None:
        self._clock = clock
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_run, args=(theirs, values, folder), daemon=True)
        self._process.start()
        theirs.close()

    def __getattr__(self, name: str) -> _Part:
        return _Part(self, name)

    def answer(self) -> Any:
        """What the method gave that was called last."""
        answer = self._connection.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def begin(self, name: str, *arguments: Any, **named: Any) -> None:
        """Call a method and wait for nothing."""
        self._connection.send((self._clock.now, name, arguments, named))

    def kill(self) -> None:
        """SIGKILL: it gets no chance to save anything."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        self._connection.close()


def _run(connection: Connection, values: dict[str, Any], folder: Path) -> None:
    clock = Clock()
    outbox = Outbox(Settings.from_mapping(values), folder=folder, clock=clock, amend=amend_wire)
    while True:
        try:
            clock.now, name, arguments, named = connection.recv()
        except EOFError:
            return
        try:
            connection.send(attrgetter(name)(outbox)(*arguments, **named))
        except Exception as problem:
            connection.send(problem)
