"""What runs beside a process's requests: it loads what they need, and takes on what they report."""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Final

from adroll_flask import forks
from adroll_flask.counters import Counters
from adroll_flask.errors import AdRollError
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.model import OutboxFailed

if TYPE_CHECKING:
    from .deliverer import Deliverer, Rest

logger: Logger = get_logger("adroll_flask.delivery")

#: Seconds that the interpreter's exit waits for what is in flight.
EXIT_WAIT: Final = 2.0
#: Reports after which nothing lingers: they fill a request to AdRoll.
_FULL: Final = 100
#: So many reports within so many seconds are a burst, and how many seconds it goes on after that.
_BURST: Final = 20
_WITHIN: Final = 0.01
_LASTS: Final = 0.1


class _Process:
    """What belongs to one process: after a fork nothing of the parent's is touched, locks least."""

    def __init__(self) -> None:
        self.stop: threading.Event = threading.Event()
        self.hurry: threading.Event = threading.Event()
        self.lock: threading.Lock = threading.Lock()
        #: Held while something is imported.
        self.loading: threading.RLock = threading.RLock()
        #: All is loaded that a first report needs.
        self.ready = False
        #: Calls of :meth:`DeliveryThread.flush` that wait for the thread.
        self.flushing = 0
        self.thread: threading.Thread | None = None
        self.reports = 0
        #: Reports since a moment, and until when that is a burst: this process reports as fast as
        #: it can, no requests, but a loop that does nothing else. Beside it the thread would wait
        #: for the interpreter nearly all the time, and each report would pay for waking it in vain.
        self.lately = 0
        self.since: float = 0.0
        self.burst_until: float = 0.0
        self.drain_until: float = 0.0

    @property
    def alive(self) -> bool:
        return self.thread is not None and self.thread.is_alive()


class DeliveryThread:
    """Runs a :class:`~adroll_flask.delivery.deliverer.Deliverer` beside the requests.

    Where others deliver (``ADROLL_DELIVERY="worker"``) it takes into the outbox what this process
    reports; where the call itself does (``"sync"``) it never runs.

    Nothing is started before :meth:`start` or :meth:`nudge`, which are called with the first
    request or report of each process: threads do not survive a fork, so a forked worker
    starts its own. A thread that died is started again; one whose app was dropped ends.

    :param deliverer: gives what it runs; asked in the thread, since that imports.
    :param counters: where its own troubles are counted.
    :param delivery: ``ADROLL_DELIVERY``.
    """

    def __init__(
        self, deliverer: Callable[[], Deliverer], counters: Counters, delivery: str
    ) -> None:
        self._deliverer = deliverer
        self._counters = counters
        self._delivery = delivery
        self._sends = delivery == "thread"
        self._processes = forks.PerProcess(_Process)
        forks.at_fork(before=self._let_load, in_parent=self._go_on)
        atexit.register(forks.weakly(self._at_exit))

    @property
    def alive(self) -> bool:
        """True while this process's thread runs."""
        return self._processes.own().alive

    def start(self) -> None:
        """Start this process's thread unless it runs; cheap then."""
        process = self._processes.own()
        if process.alive or self._delivery == "sync":
            return
        with process.lock:
            if process.alive or process.stop.is_set() or not may_start_threads():
                return  # the outbox keeps the events
            if process.thread is not None:
                logger.error("AdRoll's delivery thread had died and is started again [thread-died]")
                self._counters.add("delivery_error", "thread_died")
            process.thread = threading.Thread(
                target=_run, args=(weakref.ref(self), process), name="adroll-delivery", daemon=True
            )
            try:
                with forks.block_exit_signals():
                    process.thread.start()
            except RuntimeError as error:
                # No thread to be had, or the interpreter is exiting: the outbox keeps the events.
                process.thread = None
                self._tell_that_it_cannot_start("no_thread", error)

    def _tell_that_it_cannot_start(self, reason: str, error: Exception) -> None:
        self._counters.add("delivery_error", reason)
        logger.error("AdRoll's delivery thread cannot start: %s [delivery-cannot-start]", error)

    # A module that is half imported when a process forks (gunicorn --preload) stays locked in the
    # child, by a thread that is not there: its first report would wait for ever. So a fork waits
    # until the imports are done.

    def _let_load(self) -> None:
        self._processes.own().loading.acquire(timeout=forks.FORK_WAIT)

    def _go_on(self) -> None:
        with suppress(RuntimeError):  # the wait above was in vain
            self._processes.own().loading.release()

    # In the thread

    def load(self, process: _Process) -> bool:
        """Load what reports and deliveries need, which takes some tenths of a second.

        :returns: whether there is anything that it can do.
        """
        with process.loading:
            from adroll_flask.events.build import warm

            warm()
            try:
                self._deliverer().load(sends=self._sends)
            except AdRollError as failure:  # an outbox without its driver, say
                self._tell_that_it_cannot_start("not_started", failure)
                return False
        process.ready = True
        return True

    def turn(self, process: _Process) -> Rest:
        """One step, and the rest that follows it."""
        # Requests get the interpreter often, but while somebody waits for what is sent.
        with nullcontext() if process.flushing else forks.sharing_gil():
            self.measure()
            return self._deliverer().turn(
                process.stop,
                sends=self._sends,
                in_burst=time.monotonic() < process.burst_until,
                flushing=process.flushing > 0,
            )

    def measure(self) -> None:
        """Look after the journal, as often as that is needed while there are reports."""
        try:
            self._deliverer().outbox.measure()
        except OutboxFailed as failure:  # no new file to go on in, or a folder it may not enter
            self._counters.add("delivery_error", failure.reason)

    def finish(self, process: _Process) -> None:
        """Send what still lingers, as long as the time that exit grants."""
        self.measure()
        deliverer, go_on = self._deliverer(), threading.Event()
        while time.monotonic() < process.drain_until:
            if deliverer.turn(go_on, sends=self._sends, flushing=True).seconds:
                break

    # For who reports

    def nudge(self) -> None:
        """Tell that an event was put; at 100 they are sent without lingering, but for a burst."""
        self.start()
        process = self._processes.own()
        now = time.monotonic()
        if now - process.since > _WITHIN:
            process.lately, process.since = 0, now
        process.lately += 1
        if process.lately >= _BURST:
            process.burst_until = now + _LASTS
        process.reports = (process.reports + 1) % _FULL
        if not process.reports and now >= process.burst_until:
            process.hurry.set()

    def flush(self, timeout: float = 2.0) -> int:
        """Send at once what lingers; returns how many events are still waiting.

        :param timeout: seconds to wait at most.
        :raises OutboxFailed: the outbox cannot be worked with.
        """
        until = time.monotonic() + timeout
        self.start()
        process, deliverer = self._processes.own(), self._deliverer()
        queue, accounts, pause = deliverer.outbox.queue, deliverer.accounts, 0.005
        process.flushing += 1
        process.hurry.set()
        deliverer.outbox.bell.ring()
        try:
            # What sends is imported by the thread: here that would take the time of a request.
            while process.alive and (not process.ready or deliverer.lanes):
                if (left := until - time.monotonic()) <= 0:
                    return queue.waiting(accounts, until)
                # To count is to take in; what is due the thread takes in as it sends it, which is
                # less work.
                if not queue.is_due(accounts) and not queue.waiting(accounts, until):
                    return 0
                time.sleep(min(pause, left))
                pause = min(2 * pause, 0.1)
        finally:
            process.flushing -= 1
        return deliverer.flush(until - time.monotonic())

    def stop(self, timeout: float = EXIT_WAIT) -> bool:
        """Send what lingers, then end the thread; what is not sent in time stays in the outbox.

        :param timeout: seconds to wait at most.
        :returns: whether it has ended.
        """
        process = self._processes.own()
        thread = process.thread
        if thread is None:
            return True
        process.drain_until = time.monotonic() + timeout / 2
        process.stop.set()
        process.hurry.set()
        self._deliverer().outbox.bell.ring()
        thread.join(timeout)
        return not thread.is_alive()

    def _at_exit(self) -> None:
        # Inherited by forked children as well, whose own thread is another or none. A second
        # signal would cut off what the first one lets finish.
        with forks.block_exit_signals():
            self.stop(EXIT_WAIT)


def _run(this: weakref.ref[DeliveryThread], process: _Process) -> None:
    # A thread that rests keeps no app: after each rest it looks whether that is still there.
    thread = this()
    if thread is None:
        return
    if not thread.load(process):
        process.thread = None
        return
    measure = forks.weakly(thread.measure)
    while not process.stop.is_set():
        rest = thread.turn(process)
        del thread
        rest.take(process.stop, process.hurry, measure)
        thread = this()
        if thread is None:
            return
    thread.finish(process)


# uWSGI. Before its version 2.0.27 it let Python's threads run only with ``enable-threads``, or with
# ``threads``, which brings it; since then they always do, and the option is left without effect.


def may_start_threads() -> bool:
    """False where a thread would freeze, with whatever it holds; true beside other servers.

    That is in a process that loads the app and forks afterwards: uWSGI forks past Python's own
    ``fork``, and where a thread has the GIL at that moment, no child ever gets it. It is so too
    where threads are off. Worker and mule number are 0 until uWSGI has forked, or has decided not
    to; also in a spooler, whose events the workers deliver.
    """
    module = sys.modules.get("uwsgi")
    return module is None or (
        threads_are_on() and (module.worker_id() != 0 or module.mule_id() != 0)
    )


def threads_are_on() -> bool:
    """False where uWSGI lets no thread run."""
    # 0 or 1, as it came out of version and options.
    return bool(getattr(sys.modules.get("uwsgi"), "has_threads", True))
