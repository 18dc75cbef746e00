"""The background thread that delivers in a shop's own process."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from . import uwsgi
from .client import MAX_BATCH
from .delivery import Deliverer
from .outbox.fork import at_fork

_log = logging.getLogger("adroll_flask.delivery")

#: Seconds that the interpreter's exit waits for what is in flight.
EXIT_WAIT = 2.0
#: Seconds that a fork waits at most for what the thread is importing.
_FORK_WAIT = 5.0


@contextmanager
def _deaf() -> Iterator[None]:
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


class _Crew:
    """What belongs to one process: after a fork nothing of the parent's is touched, locks least."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.hurry = threading.Event()
        self.lock = threading.Lock()
        #: Held while the thread imports what it needs.
        self.loading = threading.RLock()
        self.thread: threading.Thread | None = None
        self.fresh = 0
        self.drain_until = 0.0
        self.starts = 0


class DeliveryThread:
    """Runs a :class:`~adroll_flask.delivery.Deliverer` beside the requests.

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
        self._crews: dict[int, _Crew] = {}
        self._hooked = False

    def __repr__(self) -> str:
        return f"<DeliveryThread {'running' if self.alive else 'not running'}>"

    def _crew(self) -> _Crew:
        pid = os.getpid()
        return self._crews.get(pid) or self._crews.setdefault(pid, _Crew())

    @property
    def alive(self) -> bool:
        """True while this process's thread runs."""
        thread = self._crew().thread
        return thread is not None and thread.is_alive()

    def ensure_started(self) -> None:
        """Start this process's thread unless it runs; cheap."""
        crew = self._crews.get(os.getpid())
        if crew is None or crew.thread is None or not crew.thread.is_alive():
            self._start(self._crew())

    def _start(self, crew: _Crew) -> None:
        with crew.lock:
            if crew.thread is not None and crew.thread.is_alive():
                return
            if crew.stop.is_set():
                return  # the process is on its way out
            if not uwsgi.may_start_threads():
                return  # the outbox keeps the events
            if crew.starts == 0:
                atexit.register(_at_exit, weakref.ref(self))
            else:
                _log.error("AdRoll's delivery thread had died and is started again")
                self._deliverer.counters.add("delivery_error", "thread_died")
            self._hook()
            crew.starts += 1
            crew.thread = threading.Thread(
                target=self._run, args=(crew,), name="adroll-delivery", daemon=True
            )
            try:
                with _deaf():
                    crew.thread.start()
            except RuntimeError as error:
                # No thread to be had, or the interpreter is exiting: the outbox keeps the events.
                crew.thread = None
                self._deliverer.counters.add("delivery_error", "no_thread")
                _log.error("AdRoll's delivery thread cannot start: %s", error)

    def _hook(self) -> None:
        if self._hooked:
            return
        self._hooked = True
        at_fork(before=self._let_load, in_parent=self._go_on)

    def _let_load(self) -> None:
        # A module that is half imported when a process forks (gunicorn --preload) stays locked
        # in the child, by a thread that is not there: its first report would wait for ever.
        self._crew().loading.acquire(timeout=_FORK_WAIT)

    def _go_on(self) -> None:
        with suppress(RuntimeError):  # the wait above was in vain
            self._crew().loading.release()

    def _run(self, crew: _Crew) -> None:
        with crew.loading:
            # It takes some tenths of a second; better here than in a request.
            from .events import warm

            warm()
            self._deliverer.outbox.load()
        self._deliverer.run(crew.stop, crew.hurry, polite=True)
        # Asked to stop: what still lingers goes out, as long as the time that exit grants.
        again = threading.Event()
        while time.monotonic() < crew.drain_until:
            if not self._deliverer.step(again).more:
                break

    def nudge(self) -> None:
        """Tell that an event was put; at 100 they are sent without lingering."""
        crew = self._crews.get(os.getpid())
        if crew is None or crew.thread is None or not crew.thread.is_alive():
            crew = self._crew()
            self._start(crew)
        crew.fresh += 1
        if crew.fresh >= MAX_BATCH:
            crew.fresh = 0
            crew.hurry.set()
            self._deliverer.outbox.wake()

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
                return self._deliverer.outbox.waiting()
            time.sleep(0.005)
        return self._deliverer.flush(until - time.monotonic())

    def stop(self, timeout: float = EXIT_WAIT) -> bool:
        """Send what lingers, then end the thread; what is not sent in time stays in the outbox.

        :param timeout: seconds to wait at most.
        :returns: whether it has ended.
        """
        crew = self._crews.get(os.getpid())
        if crew is None or crew.thread is None:
            return True
        crew.drain_until = time.monotonic() + timeout / 2
        crew.stop.set()
        crew.hurry.set()
        self._deliverer.outbox.wake()
        crew.thread.join(timeout)
        return not crew.thread.is_alive()


def _at_exit(ref: weakref.ref[DeliveryThread]) -> None:
    # Inherited by forked children as well, whose own thread is another or none.
    thread = ref()
    if thread is not None:
        # A second signal would cut off what the first one lets finish.
        with _deaf():
            thread.stop(EXIT_WAIT)
