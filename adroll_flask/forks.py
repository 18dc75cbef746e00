"""Forks and threads of ours: what has to be still meanwhile, and what is left to others."""

from __future__ import annotations

import ctypes
import os
import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

#: Seconds that a fork waits at most for what a thread is importing.
FORK_WAIT: Final = 5.0


def never_collect(thing: object) -> None:
    """Let *thing* never be collected in this process.

    Dropping the last reference to an inherited connection would close it: it would say good-bye
    on the parent's socket, or release what the parent holds of a SQLite file.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def at_fork(
    *,
    before: Callable[[], object] | None = None,
    in_parent: Callable[[], object] | None = None,
    in_child: Callable[[], object] | None = None,
) -> None:
    """Call methods around each fork of this process, for as long as their object lives.

    :param before: in the parent, as are its return and *in_parent* after it.
    """
    if not hasattr(os, "register_at_fork"):  # Windows
        return
    calls = {"before": before, "after_in_parent": in_parent, "after_in_child": in_child}
    os.register_at_fork(**{when: _weakly(call) for when, call in calls.items() if call})


def _weakly(method: Any) -> Callable[[], None]:
    # What is registered stays for good; the object of a dropped app must not.
    this = weakref.WeakMethod(method)

    def call() -> None:
        if (found := this()) is not None:
            found()

    return call


@contextmanager
def block_exit_signals() -> Iterator[None]:
    """Signals that end a process are not taken by this thread, nor ever by one started meanwhile.

    Python's own handlers run in the main thread wherever a signal arrives. uWSGI's run where it
    arrives and end the interpreter from there: seen to hang in a thread of ours, until uWSGI's
    mercy was over.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    ending = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
