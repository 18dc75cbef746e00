"""What the first report of a process would load, loaded beside its first request."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from adroll_flask.forks import FORK_WAIT, at_fork, block_exit_signals

from . import uwsgi


class _ProcessState:
    def __init__(self) -> None:
        #: Held while something is imported.
        self.lock = threading.RLock()
        self.done = False


class Preload:
    """Imports of this process; they take some tenths of a second, which no order is to wait for.

    A module that is half imported when a process forks (gunicorn --preload) stays locked in the
    child, by a thread that is not there: its first report would wait for ever. So a fork waits
    until the imports are done.
    """

    def __init__(self) -> None:
        # By process id; setdefault is atomic, so no lock is needed that a fork could leave locked.
        self._states: dict[int, _ProcessState] = {}
        self._hooked = False

    def _own_state(self) -> _ProcessState:
        pid = os.getpid()
        return self._states.get(pid) or self._states.setdefault(pid, _ProcessState())

    @property
    def done(self) -> bool:
        """True where this process has loaded all."""
        return self._own_state().done

    def begin(self, also: Callable[[], object] = lambda: None) -> None:
        """Load in a thread, unless that was done; cheap then.

        :param also: loads more.
        """
        if self.done or not uwsgi.may_start_threads():
            return
        thread = threading.Thread(
            target=self._run, args=(also,), name="adroll-preload", daemon=True
        )
        with suppress(RuntimeError), block_exit_signals():  # no thread: the first report loads
            thread.start()

    def _run(self, also: Callable[[], object]) -> None:
        with self.loading():
            also()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Load, and let no process fork meanwhile, nor in the body."""
        if not self._hooked:
            self._hooked = True
            at_fork(before=self._let_load, in_parent=self._go_on)
        state = self._own_state()
        with state.lock:
            from adroll_flask.events.build import warm

            warm()
            state.done = True
            yield

    def _let_load(self) -> None:
        self._own_state().lock.acquire(timeout=FORK_WAIT)

    def _go_on(self) -> None:
        with suppress(RuntimeError):  # the wait above was in vain
            self._own_state().lock.release()


#: Modules are the whole process's.
PRELOAD: Final = Preload()
