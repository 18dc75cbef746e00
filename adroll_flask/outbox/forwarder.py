"""A shop whose events others deliver: a thread takes the journal into the outbox's server."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from adroll_flask.counters import Counters
from adroll_flask.errors import help_url
from adroll_flask.forks import FORK_WAIT, at_fork, block_exit_signals
from adroll_flask.logs import Logger, get_logger

from .giving_way import giving_way
from .protocol import OutboxFailed

logger: Logger = get_logger("adroll_flask.outbox")

#: Seconds for which what follows is waited for, so that a burst is one transaction.
_LINGER: Final = 0.02
#: Seconds between two looks for what other processes of the host left behind.
_LOOK: Final = 5.0
_LONGEST_PAUSE: Final = 30.0
#: Seconds that the end waits for a batch under way.
_STOP: Final = 2.0


class Forwarder:
    """Forwards what this host reports, soon after it was reported.

    :param take_in: takes one batch in; how many records there were.
    :param load: imports what that needs.
    """

    def __init__(
        self, take_in: Callable[[], int], counters: Counters, load: Callable[[], None]
    ) -> None:
        self._take_in = take_in
        self._load = load
        #: By process: held while its thread imports. setdefault is atomic, no lock is inherited.
        self._loading: dict[int, threading.Lock] = {}
        self._hooked = False
        self._counters = counters
        self._pid = 0
        self._told = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def tell(self) -> None:
        """There is something to forward; cheap, in a request."""
        if self._pid != os.getpid():
            self._start()
        if not self._told.is_set():
            self._told.set()

    def _start(self) -> None:
        # Threads do not survive a fork; two that start at once read in turns.
        if not self._hooked:
            self._hooked = True
            at_fork(before=self._let_load, in_parent=self._go_on)
        self._pid = os.getpid()
        self._told = told = threading.Event()
        self._stopping = stopping = threading.Event()
        self._thread = thread = threading.Thread(
            target=self._run, args=(told, stopping), name="adroll-forward", daemon=True
        )
        try:
            with block_exit_signals():
                thread.start()
        except RuntimeError as failure:  # no thread to be had, or the interpreter is exiting
            self._pid = 0
            logger.error(
                "AdRoll's events stay in the journal for now: %s (%s)",
                failure,
                help_url("forwarding-paused"),
            )

    def _own_loading(self) -> threading.Lock:
        return self._loading.setdefault(os.getpid(), threading.Lock())

    def _let_load(self) -> None:
        # A module that is half imported when a process forks stays locked in the child, by a
        # thread that is not there: its first import of it would wait for ever.
        self._own_loading().acquire(timeout=FORK_WAIT)

    def _go_on(self) -> None:
        with suppress(RuntimeError):  # the wait above was in vain
            self._own_loading().release()

    def stop(self) -> None:
        """End the thread, once the batch under way is in; the next report begins another one."""
        thread, self._thread = self._thread, None
        if thread is None or self._pid != os.getpid():
            return
        self._pid = 0
        self._stopping.set()
        self._told.set()
        if thread is not threading.current_thread():
            thread.join(_STOP)

    def _run(self, told: threading.Event, stopping: threading.Event) -> None:
        with self._own_loading(), suppress(Exception):  # the first batch says what is wrong
            self._load()
        pause = 0.0
        while True:
            if not pause:
                told.wait(_LOOK)
                told.clear()
                stopping.wait(_LINGER)
            if stopping.is_set():
                return
            try:
                with giving_way():
                    while self._take_in() and not stopping.is_set():
                        pass
                pause = 0.0
            except Exception as failure:
                reason = failure.reason if isinstance(failure, OutboxFailed) else "error"
                self._counters.add("forward_error", reason)
                if not pause:
                    logger.error(
                        "AdRoll's events wait in the journal, the outbox: %s (%s)",
                        reason,
                        help_url("forwarding-paused"),
                    )
                pause = min(max(0.5, 2 * pause), _LONGEST_PAUSE)
                stopping.wait(pause)
