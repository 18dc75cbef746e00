"""What wakes delivery in this process, which rests between two steps.

A report that goes into the journal wakes it while it waits, and so do a flush, the end of a stop,
and the signal that ends a worker; after that delivery lingers, for other reports to come along. The
thread has another :class:`WakeUp` of its own, which ends a rest at once: for a flush, at the exit,
and at each hundredth report. What another process reports wakes nobody, nor does what goes straight
into the database (``session=``, ``ADROLL_OUTBOX_COMMIT="database"``): delivery looks again after
``poll`` seconds.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from adroll_flask.forks import PerProcess


class WakeUp:
    """Ends a wait for work in this process.

    It is a lock that nobody holds: a wait takes it, :meth:`wake` gives it back. Each is one call of
    C. A ``threading.Event`` has another lock around its own. A time limit that ends ``set()`` in
    its midst leaves that lock taken, and each later report of the process would wait for ever.
    """

    def __init__(self) -> None:
        self._lock = PerProcess(_taken_lock)
        self.waiters: int = 0

    def wake(self) -> None:
        """End the wait that is under way, or the next one at once."""
        with suppress(RuntimeError):  # it was woken already
            self._lock.own().release()

    def wait(self, timeout: float) -> bool:
        """Return after *timeout* seconds, or at the next :meth:`wake`: then with true."""
        self.waiters += 1
        try:
            return self._lock.own().acquire(timeout=timeout)
        finally:
            self.waiters -= 1


def _taken_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock
