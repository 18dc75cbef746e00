"""How a thread beside requests leaves them the interpreter: often, and for a moment only.

Python hands the interpreter to a thread that waits for it after 5 ms, or when its holder sleeps or
waits. A delivery thread that prepares a batch does neither for several milliseconds, and each
request that comes back from a socket or a file waits for as long. So it sleeps for a moment after
each half millisecond: who waits goes first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

_T = TypeVar("_T")

#: Seconds for which the interpreter is held at a time.
_SLICE: Final = 0.0005
#: Seconds of a moment: less, and who waits has not woken up when it ends.
_MOMENT: Final = 0.00005


class _Thread(threading.local):
    #: When the interpreter was last left to others, by ``time.monotonic()``; ``None``: this
    #: thread need not give way.
    since: float | None = None


_this = _Thread()


@contextmanager
def giving_way() -> Iterator[None]:
    """Within it, :func:`give_way` makes this thread give way to others."""
    _this.since = time.monotonic()
    try:
        yield
    finally:
        _this.since = None


def give_way() -> None:
    """Let others go first, if this thread has worked for long enough and is to give way at all."""
    since = _this.since
    if since is not None and time.monotonic() - since > _SLICE:
        time.sleep(_MOMENT)
        _this.since = time.monotonic()


def each(items: Iterable[_T]) -> Iterator[_T]:
    """*items*, giving way in between.

    >>> list(each("ab"))
    ['a', 'b']
    """
    for item in items:
        give_way()
        yield item
