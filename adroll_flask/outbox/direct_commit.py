"""``ADROLL_OUTBOX_COMMIT="database"``: the row is committed before the call returns, or in time.

No driver's own time-outs bound what a half-open connection or a held lock takes. So another thread
commits, and the call waits for it for a quarter of a second.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from .protocol import OutboxFailed, Put
from .record_format import NewEvent, Verdict

#: Seconds that a call waits in all: connection, lock and statement.
PATIENCE: Final = 0.25


@dataclass(slots=True)
class _Job:
    event: NewEvent | Verdict
    done: threading.Event = field(default_factory=threading.Event)
    result: Put | None = None
    failure: OutboxFailed | None = None


class DirectCommit:
    """Commits one event at a time in a thread of this process's own.

    :param commit: commits one event, or a verdict on one.
    """

    def __init__(self, commit: Callable[[NewEvent | Verdict], Put]) -> None:
        self._commit = commit
        self._pid = 0
        self._thread: threading.Thread | None = None
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        #: A commit that took too long is still under way: the next calls need not wait for it.
        self._stuck: _Job | None = None

    def put(self, event: NewEvent | Verdict) -> Put:
        """Commit *event*.

        :raises OutboxFailed: not within :data:`PATIENCE` seconds. It may be committed later: then
            what else the caller does with the event is in the outbox once, by its id.
        """
        thread = self._thread
        if self._pid != os.getpid() or thread is None or not thread.is_alive():
            self._start()
        stuck = self._stuck
        if stuck is not None and not stuck.done.is_set():
            raise OutboxFailed("unavailable", "an earlier commit is still under way")
        job = _Job(event)
        self._jobs.put(job)
        if not job.done.wait(PATIENCE):
            self._stuck = job
            raise OutboxFailed("locked", "the database took too long")
        if job.result is None:
            raise job.failure or OutboxFailed("error")
        return job.result

    def _start(self) -> None:
        """Begin in this process: threads do not survive a fork, nor does what they hold."""
        jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        thread = threading.Thread(target=self._run, args=(jobs,), name="adroll-commit", daemon=True)
        try:
            thread.start()
        except RuntimeError as failure:  # the system gives no more threads, or Python ends
            raise OutboxFailed("unavailable", str(failure)) from None
        self._jobs, self._thread, self._stuck = jobs, thread, None
        self._pid = os.getpid()

    def _run(self, jobs: queue.SimpleQueue[_Job]) -> None:
        while True:
            job = jobs.get()
            try:
                job.result = self._commit(job.event)
            except OutboxFailed as failure:
                job.failure = failure
            except Exception as failure:
                job.failure = OutboxFailed("error", type(failure).__name__)
            finally:
                job.done.set()
