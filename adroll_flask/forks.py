"""Forks and threads of ours: what has to be still meanwhile, and what is left to others.

A fork waits until the delivery thread has imported what it needs (:mod:`.delivery.thread`), and
until no statement runs in the SQLite file (:mod:`.outbox.sqlite`), nor in the temporary one of a
comparison (:mod:`.reporting.reconciliation`). What a child does whose parent had the SQLite file
open is told in :mod:`.outbox.sqlite`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

_T = TypeVar("_T")

#: Seconds that a fork waits at most for what a thread does under a :class:`StillAtForks`.
FORK_WAIT: Final = 5.0


class PerProcess(Generic[_T]):
    """A thing of which each process has its own, made when that process first asks.

    A forked child asks again and gets another one. What its parent made is kept untouched: a thread
    that the child does not have may hold its locks, and its files and connections are the parent's
    to close.

    :param make: makes one. If several threads make one at once, all take the same.
    :param left: called in a child with each that it inherited, in the place of keeping it: to close
        its files, say.

    >>> own_list = PerProcess(list)
    >>> own_list.own() is own_list.own()
    True
    """

    def __init__(self, make: Callable[[], _T], left: Callable[[_T], object] | None = None) -> None:
        self._make = make
        self._left = left
        # By process id. setdefault is atomic: no lock is needed that a fork could leave locked.
        self._made: dict[int, _T] = {}

    def own(self) -> _T:
        """This process's own."""
        pid = os.getpid()
        try:
            return self._made[pid]
        except KeyError:
            return self._begin(pid)

    def _begin(self, pid: int) -> _T:
        own = self._made.setdefault(pid, self._make())
        if self._left is not None:
            for other in [other for other in self._made if other != pid]:
                inherited = self._made.pop(other, None)
                if inherited is not None:
                    self._left(inherited)
        return own

    def close_with(self, owner: object, close: Callable[[_T], object]) -> None:
        """Close this process's own once *owner* is collected, and leave those of others alone.

        Python 3.13 warns of a connection that is collected open.
        """
        weakref.finalize(owner, _close_own, self._made, close).atexit = False

    def inherited(self) -> list[_T]:
        """What the processes had that this one was forked from, without what *left* was given."""
        own = os.getpid()
        return [made for pid, made in list(self._made.items()) if pid != own]


class made_once(cached_property[_T]):
    """A property that is made when it is first asked for, and then is a plain value.

    If several threads make it at once, all take the same. It has no lock, which a fork may leave
    locked (``cached_property`` of Python 3.11 has one). Another thing may be set in its place. If
    making it raises, the next one who asks tries again.
    """

    if not TYPE_CHECKING:

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            make = self.func
            # setdefault is atomic. Later look-ups find the value itself and do not come here.
            return instance.__dict__.setdefault(self.attrname, make(instance))


def _close_own(made: Mapping[int, _T], close: Callable[[_T], object]) -> None:
    own = made.get(os.getpid())
    if own is not None:
        close(own)


def at_fork(**methods: Callable[[], object]) -> None:
    """Call methods around each fork of this process, for as long as their object lives.

    :param methods: ``before`` (in the parent), ``in_parent`` and ``in_child`` (both after it).
    """
    calls = {name.replace("in_", "after_in_"): weakly(method) for name, method in methods.items()}
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(**calls)


def weakly(method: Any) -> Callable[[], None]:
    """A function that calls *method* as long as its object lives, and does not keep it alive."""
    this = weakref.WeakMethod(method)

    def call() -> None:
        still_there = this()
        if still_there is not None:
            still_there()

    return call


class StillAtForks:
    """A lock for which a fork waits, so that no child inherits half of what is done under it.

    For work in C code that has locks of its own for the whole process, as SQLite has.
    """

    def __init__(self) -> None:
        self._lock = PerProcess(threading.RLock)
        at_fork(before=self._be_still, in_parent=self._go_on)

    @property
    def lock(self) -> threading.RLock:
        """This process's own."""
        return self._lock.own()

    def _be_still(self) -> None:
        self.lock.acquire(timeout=FORK_WAIT)

    def _go_on(self) -> None:
        with suppress(RuntimeError):  # the wait above was in vain
            self.lock.release()


@contextmanager
def block_exit_signals() -> Iterator[None]:
    """Keep signals that end a process from this thread, and for good from those started meanwhile.

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


# -- threads under uWSGI ---------------------------------------------------------------------------
#
# Before its version 2.0.27 uWSGI let Python's threads run only with ``enable-threads``, or with
# ``threads``, which brings it. Since then they always run, and the option has no effect.


def may_start_threads() -> bool:
    """False where a thread would freeze, with whatever it holds; true beside other servers.

    That is in a process that loads the app and forks afterwards: uWSGI forks past Python's own
    ``fork``, and where a thread has the GIL at that moment, no child ever gets it. It is so too
    where threads are off. Worker and mule number are 0 until uWSGI has forked, or has decided not
    to; also in a spooler, whose events the workers deliver.
    """
    module = sys.modules.get("uwsgi")
    if module is None:
        return True
    has_forked = module.worker_id() != 0 or module.mule_id() != 0
    return threads_are_on() and has_forked


def threads_are_on() -> bool:
    """False where uWSGI lets no thread run."""
    # 0 or 1, as it came out of version and options.
    return bool(getattr(sys.modules.get("uwsgi"), "has_threads", True))


# -- the interpreter, which a thread of ours leaves to requests ------------------------------------
#
# Python hands it (its global lock, the GIL) to a thread that waits for it after 5 ms, or when its
# holder sleeps or waits. A delivery thread that prepares a batch does neither for several
# milliseconds, and each request that comes back from a socket or a file waits for as long. So it
# sleeps for a moment after each half millisecond: who waits goes first.

#: Seconds for which the interpreter is held at a time.
_SLICE: Final = 0.0005
#: Seconds of a moment. After a shorter one, a thread that waits has not woken up yet.
_MOMENT: Final = 0.00005


class _Thread(threading.local):
    #: When the interpreter was last left to others, by ``time.monotonic()``; ``None``: this
    #: thread keeps it.
    since: float | None = None


_this = _Thread()


@contextmanager
def sharing_gil() -> Iterator[None]:
    """Within it, :func:`each` leaves the interpreter to other threads in between."""
    _this.since = time.monotonic()
    try:
        yield
    finally:
        _this.since = None


def each(items: Iterable[_T]) -> Iterator[_T]:
    """*items*; within :func:`sharing_gil`, others may go first in between.

    >>> list(each("ab"))
    ['a', 'b']
    """
    return iter(items) if _this.since is None else _in_turn(items)


def _in_turn(items: Iterable[_T]) -> Iterator[_T]:
    for item in items:
        since = _this.since
        if since is not None and time.monotonic() - since > _SLICE:
            time.sleep(_MOMENT)
            _this.since = time.monotonic()
        yield item
