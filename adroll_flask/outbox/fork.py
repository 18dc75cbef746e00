"""Forks: what has to be still meanwhile, and what a child may do with its parent's connections."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from typing import Any


def immortalise(thing: object) -> None:
    """Let *thing* never be collected in this process.

    Dropping the last reference to an inherited connection would close it: it would say good-bye
    on the parent's socket, or release what the parent holds of a SQLite file.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def at_fork(
    *,
    before: Callable[[], object],
    in_parent: Callable[[], object],
    in_child: Callable[[], object] | None = None,
) -> None:
    """Call methods around each fork of this process, for as long as their object lives.

    :param before: in the parent, as are its return and *in_parent* after it.
    """
    os.register_at_fork(
        before=_weakly(before),
        after_in_parent=_weakly(in_parent),
        **({} if in_child is None else {"after_in_child": _weakly(in_child)}),
    )


def _weakly(method: Any) -> Callable[[], None]:
    # What is registered stays for good; the object of a dropped app must not.
    this = weakref.WeakMethod(method)

    def call() -> None:
        if (found := this()) is not None:
            found()

    return call
