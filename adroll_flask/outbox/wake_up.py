"""What wakes delivery in this process, which rests between two steps.

An outbox's bell is rung by each report while somebody waits, by a flush, by the end of a stop, and
by the signal that ends a worker; after it delivery lingers, for other reports to come along. The
thread has one of its own, which ends a rest at once: for a flush, at the exit, and at each
hundredth report. Of what another process reports no bell tells: delivery looks again after ``poll``
seconds.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from adroll_flask.forks import PerProcess


class Bell:
    """Ends a wait for work in this process.

    It is a lock that nobody holds: a wait takes it, a ring gives it back. Each is one call of C. A
    ``threading.Event`` has a lock around its own, which a time limit in the midst of ``set()``
    leaves taken: then each later report of the process stands.
    """

    def __init__(self) -> None:
        self._rung = PerProcess(_taken_lock)
        self.waiters: int = 0

    def ring(self) -> None:
        """End the wait that is under way, or the next one at once."""
        with suppress(RuntimeError):  # it is rung already
            self._rung.own().release()

    def wait(self, timeout: float) -> bool:
        """Return after *timeout* seconds, or at the next ring: then with true."""
        self.waiters += 1
        try:
            return self._rung.own().acquire(timeout=timeout)
        finally:
            self.waiters -= 1


def _taken_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock
