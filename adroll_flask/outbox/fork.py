"""What a forked child may do with its parent's connections: nothing."""

from __future__ import annotations

import ctypes


def immortalise(thing: object) -> None:
    """Let *thing* never be collected in this process.

    Dropping the last reference to an inherited connection would close it: it would say good-bye
    on the parent's socket, or release what the parent holds of a SQLite file.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
