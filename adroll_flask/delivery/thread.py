"""The thread beside a process's requests: it imports what they need, and delivers their reports.

When the process ends, it goes on sending for a moment (:data:`EXIT_WAIT`). What is not sent by then
stays in the outbox.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from adroll_flask import forks
from adroll_flask.counters import Counters
from adroll_flask.errors import AdRollError
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.model import OutboxFailed
from adroll_flask.outbox.wake_up import WakeUp

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
#: Seconds between two looks whether all is sent that a flush waits for.
_LOOKS_EVERY: Final = 0.02
#: Seconds within which a thread that was made begins; after them another one is made.
_BEGINS: Final = 1.0


class _Process:
    """What belongs to one process: after a fork nothing of the parent's is used, and no lock."""

    def __init__(self) -> None:
        self.stop: threading.Event = threading.Event()
        self.hurry: WakeUp = WakeUp()
        #: All that a first report needs is loaded.
        self.ready = False
        #: How many calls of :meth:`DeliveryThread.flush` wait for the thread.
        self.flushing = 0
        #: Held by the thread that runs. Where several are made at once, the others end. A report
        #: does not take it, since a time limit may end a report at any point. (So it may end
        #: ``Thread.is_alive()``, which on Python 3.11 then says of a running thread that it ended.)
        self.running: threading.Lock = threading.Lock()
        #: The thread that was made last.
        self.newest: threading.Thread | None = None
        #: When it was made, until it runs.
        self.made_at: float = float("-inf")
        #: The thread that ran last has not come to its end: it runs, or it died.
        self.is_unfinished = False
        #: Reports, counted up to :data:`_FULL` and then from 0 again.
        self.reports = 0
        #: How many reports came since when.
        self.lately = 0
        self.since: float = 0.0
        #: Until when there is a burst: a loop reports as fast as it can, and this process answers
        #: no requests. Beside it the thread would wait for the interpreter nearly all the time, and
        #: each report would pay for waking it in vain.
        self.burst_until: float = 0.0
        #: Until when the thread sends after it was stopped.
        self.drain_until: float = 0.0

    def is_alive(self) -> bool:
        return self.running.locked() or time.monotonic() - self.made_at < _BEGINS


class DeliveryThread:
    """Runs a :class:`~adroll_flask.delivery.deliverer.Deliverer` beside the requests.

    With ``ADROLL_DELIVERY="worker"`` it only takes into the outbox what this process reports;
    others deliver. With ``"sync"`` it never runs: the call that reports delivers.

    Nothing is started before :meth:`start` or :meth:`nudge`, which are called with the first
    request or report of each process: threads do not survive a fork, so a forked worker
    starts its own. A thread that died is started again; one whose app was dropped ends.

    :param deliverer: gives what it runs, and makes it when first asked.
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
        # A module that is half imported when a process forks (gunicorn --preload) stays locked in
        # the child, by a thread that is not there: its first report would wait for ever.
        self._loading = forks.StillAtForks()
        atexit.register(forks.weakly(self._at_exit))

    @property
    def alive(self) -> bool:
        """True while this process's thread runs."""
        return self._processes.own().is_alive()

    def start(self) -> None:
        """Start this process's thread unless it runs; cheap then."""
        process = self._processes.own()
        if process.is_alive() or self._delivery == "sync":
            return
        if process.stop.is_set() or not forks.may_start_threads():
            return  # the outbox keeps the events
        if process.newest is None:
            self._register_with_multiprocessing()
        process.made_at = time.monotonic()
        # A reference that calls back is cleared before anything of a dropped app is closed. From
        # Python 3.14 on any other is cleared after that, and the thread would go on with it.
        this = weakref.ref(self, lambda _: process.hurry.wake())
        process.newest = thread = threading.Thread(
            target=_run_thread,
            args=(this, process),
            name="adroll-delivery",
            daemon=True,
        )
        try:
            with forks.block_exit_signals():
                thread.start()
        except RuntimeError as error:
            # No thread to be had, or the interpreter is exiting: the outbox keeps the events.
            process.made_at = float("-inf")
            process.newest = None
            self._tell_that_it_cannot_start("no_thread", error)

    def _register_with_multiprocessing(self) -> None:
        # A child that multiprocessing has forked ends without its exit functions, from Python 3.13
        # on without those of its parent: what it sends at that moment would be sent again.
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            finalize = getattr(sys.modules.get("multiprocessing.util"), "Finalize", None)
            if finalize is not None:
                finalize(None, forks.weakly(self._at_exit), exitpriority=0)

    def _tell_that_it_cannot_start(self, reason: str, error: Exception) -> None:
        self._counters.add("delivery_error", reason)
        logger.error("AdRoll's delivery thread cannot start: %s [delivery-cannot-start]", error)

    # In the thread

    def load(self, process: _Process) -> bool:
        """Load what reports and deliveries need, which takes some tenths of a second.

        :returns: whether it can deliver.
        """
        if process.is_unfinished:
            logger.error("AdRoll's delivery thread had died and is started again [thread-died]")
            self._counters.add("delivery_error", "thread_died")
        process.is_unfinished = True
        with self._loading.lock:
            from adroll_flask.events.build import warm

            warm()
            try:
                self._deliverer().load(sends=self._sends)
            except AdRollError as failure:  # an outbox without its driver, say
                self._tell_that_it_cannot_start("not_started", failure)
                return False
        process.ready = True
        return True

    def one_round(self, process: _Process) -> Rest:
        """One step, and the rest that follows it."""
        # Requests get the interpreter often, except while a flush waits.
        with nullcontext() if process.flushing else forks.sharing_gil():
            self.measure()
            return self._deliverer().one_round(
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
        """Send what still lingers, until :attr:`_Process.drain_until`."""
        self.measure()
        deliverer = self._deliverer()
        never = threading.Event()
        while time.monotonic() < process.drain_until:
            if deliverer.one_round(never, sends=self._sends, flushing=True, waits=True).seconds:
                break

    # For who reports

    def nudge(self) -> None:
        """Tell that an event was put. After 100 nothing lingers, except in a burst."""
        process = self._processes.own()
        if not process.is_alive():
            self.start()
        now = time.monotonic()
        if now - process.since > _WITHIN:
            process.lately = 0
            process.since = now
        process.lately += 1
        if process.lately >= _BURST:
            process.burst_until = now + _LASTS
        process.reports = (process.reports + 1) % _FULL
        if not process.reports and now >= process.burst_until:
            process.hurry.wake()

    def flush(self, timeout: float = 2.0) -> int:
        """Send at once what lingers; returns how many events are still waiting.

        :param timeout: seconds to wait at most.
        :raises OutboxFailed: the outbox cannot be worked with.
        """
        until = time.monotonic() + timeout
        self.start()
        process = self._processes.own()
        deliverer = self._deliverer()
        queue = deliverer.outbox.queue
        process.flushing += 1
        self._wake(process)
        try:
            # The thread imports what sends. To do that here would take a request's time.
            while process.is_alive() and (not process.ready or deliverer.gates):
                remaining = until - time.monotonic()
                if remaining <= 0:
                    return queue.waiting(deliverer.accounts, until)
                # waiting() takes in the journal. While something is due, the thread does that with
                # less work.
                is_due = queue.is_due(deliverer.accounts)
                if not is_due and not queue.waiting(deliverer.accounts, until):
                    return 0
                time.sleep(min(_LOOKS_EVERY, remaining))
        finally:
            process.flushing -= 1
        return deliverer.flush(until - time.monotonic())

    def _wake(self, process: _Process) -> None:
        process.hurry.wake()
        self._deliverer().outbox.wake_up.wake()

    def stop(self, timeout: float = EXIT_WAIT) -> bool:
        """Send what lingers, then end the thread; what is not sent in time stays in the outbox.

        :param timeout: seconds to wait at most.
        :returns: whether it has ended.
        """
        process = self._processes.own()
        if process.newest is None:
            return True
        until = time.monotonic() + timeout
        process.drain_until = until - timeout / 2
        process.stop.set()
        self._wake(process)
        process.newest.join(timeout)
        # The one that runs may be another than the newest.
        has_ended = process.running.acquire(timeout=max(0.0, until - time.monotonic()))
        if has_ended:
            process.running.release()
        return has_ended

    def resume(self) -> None:
        """Let a thread be started again after a :meth:`stop`."""
        self._processes.own().stop.clear()

    def _at_exit(self) -> None:
        # Forked children inherit this; their own thread is another, or there is none. A second
        # signal would cut off what the first one lets finish.
        with forks.block_exit_signals():
            self.stop(EXIT_WAIT)


def _run_thread(this: weakref.ref[DeliveryThread], process: _Process) -> None:
    if not process.running.acquire(blocking=False):
        return
    try:
        process.made_at = float("-inf")
        _deliver(this, process)
        process.is_unfinished = False
    finally:
        process.running.release()


def _deliver(this: weakref.ref[DeliveryThread], process: _Process) -> None:
    # A thread that rests does not keep its app alive. After each rest it looks whether the app is
    # still there.
    thread = this()
    if thread is None:
        return
    if not thread.load(process):
        return
    measure = forks.weakly(thread.measure)
    while not process.stop.is_set():
        rest = thread.one_round(process)
        del thread
        rest.take(process.stop, process.hurry, measure)
        thread = this()
        if thread is None:
            return
    thread.finish(process)
