"""The background thread that delivers in a shop's own process."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from typing import Final

from adroll_flask.errors import help_url
from adroll_flask.forks import block_exit_signals
from adroll_flask.logs import Logger, get_logger

from . import uwsgi
from .client import MAX_BATCH
from .deliverer import Deliverer
from .preload import PRELOAD

logger: Logger = get_logger("adroll_flask.delivery")

#: Seconds that the interpreter's exit waits for what is in flight.
EXIT_WAIT = 2.0
#: So many reports within so many seconds are a burst, and how many seconds it goes on after that.
_BURST: Final = 20
_WITHIN: Final = 0.01
_LASTS: Final = 0.1


class _Burst:
    """Tells whether a process reports as fast as it can: no requests, but a loop that does nothing
    else. Beside it the thread would wait for the interpreter nearly all the time, and each report
    would pay for waking it in vain."""

    def __init__(self) -> None:
        self._count = 0
        self._since = self._until = 0.0

    def note(self) -> None:
        """There was a report."""
        now = time.monotonic()
        if now - self._since > _WITHIN:
            self._count, self._since = 0, now
        self._count += 1
        if self._count >= _BURST:
            self._until = now + _LASTS

    def __bool__(self) -> bool:
        return time.monotonic() < self._until


class _ProcessState:
    """What belongs to one process: after a fork nothing of the parent's is touched, locks least."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.hurry = threading.Event()
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.fresh = 0
        self.burst = _Burst()
        self.drain_until = 0.0
        self.starts = 0


class DeliveryThread:
    """Runs a :class:`~adroll_flask.delivery.deliverer.Deliverer` beside the requests.

    Nothing is started before :meth:`ensure_started` or :meth:`nudge`, which are called with the
    first request or report of each process: threads do not survive a fork, so a forked worker
    starts its own. A thread that died is started again.

    :param deliverer: what it runs.

    >>> thread = DeliveryThread(deliverer)
    >>> thread.nudge()
    """

    def __init__(self, deliverer: Deliverer) -> None:
        self._deliverer = deliverer
        # By process id; setdefault is atomic, so no lock is needed that a fork could leave locked.
        self._states: dict[int, _ProcessState] = {}

    def __repr__(self) -> str:
        return f"<DeliveryThread {'running' if self.alive else 'not running'}>"

    def _own_state(self) -> _ProcessState:
        pid = os.getpid()
        return self._states.get(pid) or self._states.setdefault(pid, _ProcessState())

    @property
    def alive(self) -> bool:
        """True while this process's thread runs."""
        thread = self._own_state().thread
        return thread is not None and thread.is_alive()

    def ensure_started(self) -> None:
        """Start this process's thread unless it runs; cheap."""
        state = self._states.get(os.getpid())
        if state is None or state.thread is None or not state.thread.is_alive():
            self._start(self._own_state())

    def _start(self, state: _ProcessState) -> None:
        with state.lock:
            if state.thread is not None and state.thread.is_alive():
                return
            if state.stop.is_set():
                return  # the process is on its way out
            if not uwsgi.may_start_threads():
                return  # the outbox keeps the events
            if state.starts == 0:
                atexit.register(_at_exit, weakref.ref(self))
            else:
                logger.error(
                    "AdRoll's delivery thread had died and is started again (%s)",
                    help_url("thread-died"),
                )
                self._deliverer.counters.add("delivery_error", "thread_died")
            state.starts += 1
            state.thread = threading.Thread(
                target=self._run, args=(state,), name="adroll-delivery", daemon=True
            )
            try:
                with block_exit_signals():
                    state.thread.start()
            except RuntimeError as error:
                # No thread to be had, or the interpreter is exiting: the outbox keeps the events.
                state.thread = None
                self._deliverer.counters.add("delivery_error", "no_thread")
                logger.error(
                    "AdRoll's delivery thread cannot start: %s (%s)",
                    error,
                    help_url("delivery-cannot-start"),
                )

    def _run(self, state: _ProcessState) -> None:
        with PRELOAD.loading():
            self._deliverer.outbox.load()
        self._deliverer.run(state.stop, state.hurry, in_burst=lambda: bool(state.burst))
        # Asked to stop: what still lingers goes out, as long as the time that exit grants.
        again = threading.Event()
        while time.monotonic() < state.drain_until:
            if not self._deliverer.step(again).more:
                break

    def nudge(self) -> None:
        """Tell that an event was put; at 100 they are sent without lingering, but for a burst."""
        state = self._states.get(os.getpid())
        if state is None or state.thread is None or not state.thread.is_alive():
            state = self._own_state()
            self._start(state)
        state.burst.note()
        state.fresh += 1
        if state.fresh >= MAX_BATCH:
            state.fresh = 0
            if not state.burst:
                state.hurry.set()
                self._deliverer.outbox.bell.ring()

    def flush(self, timeout: float = 2.0) -> int:
        """Send at once what lingers; returns how many events are still waiting.

        :param timeout: seconds to wait at most.
        :raises OutboxFailed: the outbox cannot be worked with.
        """
        until = time.monotonic() + timeout
        self.ensure_started()
        # While it loads, the call would send by itself, and wait as long as AdRoll lets it.
        while self.alive and not self._deliverer.running:
            if time.monotonic() >= until:
                return self._deliverer.outbox.queue.waiting()
            time.sleep(0.005)
        return self._deliverer.flush(until - time.monotonic())

    def stop(self, timeout: float = EXIT_WAIT) -> bool:
        """Send what lingers, then end the thread; what is not sent in time stays in the outbox.

        :param timeout: seconds to wait at most.
        :returns: whether it has ended.
        """
        state = self._states.get(os.getpid())
        if state is None or state.thread is None:
            return True
        state.drain_until = time.monotonic() + timeout / 2
        state.stop.set()
        state.hurry.set()
        self._deliverer.outbox.bell.ring()
        state.thread.join(timeout)
        return not state.thread.is_alive()


def _at_exit(ref: weakref.ref[DeliveryThread]) -> None:
    # Inherited by forked children as well, whose own thread is another or none.
    thread = ref()
    if thread is not None:
        # A second signal would cut off what the first one lets finish.
        with block_exit_signals():
            thread.stop(EXIT_WAIT)
