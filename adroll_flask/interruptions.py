"""Exceptions that come from outside while we are at work, and are not ours to catch.

Promise 1 says that a fault of ours is not the shop's: what our code raises is logged and counted.
A time limit is neither: Celery's soft time limit and RQ's raise an ``Exception`` out of a signal
handler, gevent's and eventlet's timeouts may throw one into a greenlet that waits. To swallow it
would let the site's task run past its limit. (What is no ``Exception`` we never catch.)
"""

from __future__ import annotations

import sys
from types import FrameType, TracebackType
from typing import Final

#: Where a greenlet waits: an exception that is raised there was thrown into it.
_SWITCHES: Final = (
    "gevent._gevent_c_greenlet_primitives",
    "gevent._greenlet_primitives",
    "gevent._gevent_cgreenlet",
    "eventlet.hubs.hub",
)


def let_through(problem: BaseException) -> None:
    """Raise the exception from outside that *problem* is, or that led to it, if any.

    To be called in the ``except`` clause that would otherwise handle *problem*.

    An exception that the caller was handling when it called us is not looked at, though Python
    has it as the context of ours.
    """
    callers: set[FrameType] = set()
    frame = sys._getframe(1).f_back
    while frame is not None:
        callers.add(frame)
        frame = frame.f_back
    seen: set[int] = set()
    current: BaseException | None = problem
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        trace = current.__traceback__
        if current is not problem and trace is not None and trace.tb_frame in callers:
            return
        if trace is not None and _from_outside(current, trace):
            raise current
        current = current.__cause__ or current.__context__


def _from_outside(problem: BaseException, trace: TracebackType) -> bool:
    below = trace.tb_frame
    at: TracebackType | None = trace.tb_next
    while at is not None:
        if _is_handler(at.tb_frame, below):
            return True
        below, at = at.tb_frame, at.tb_next
    # A socket's own timeout is thrown in as well, as an OSError.
    return below.f_globals.get("__name__") in _SWITCHES and not isinstance(problem, OSError)


def _is_handler(frame: FrameType, below: FrameType) -> bool:
    """True where *frame* is a signal handler's: it was given the frame that it interrupted."""
    code = frame.f_code
    count = code.co_argcount + bool(code.co_flags & 4) + code.co_kwonlyargcount
    for name in code.co_varnames[:count]:
        value = frame.f_locals.get(name)
        # Of a value of the shop's nothing is asked, not even its class: it may raise.
        if value is below or (type(value) is tuple and any(one is below for one in value)):
            return True
    return False
