"""The locks of a journal: between threads, a writer's on its own file, the reader's on the folder.

Between threads it is the interpreter's own :data:`ThreadLock`, which gevent and eventlet leave as
it is. Theirs hand over between greenlets, of which none ever waits here, since none is switched
away in the middle of an append; between threads they hang (gevent 26.9, a thread pool's threads).

The writer's lock says only that it lives. It is ``flock``: it belongs to the open file, so that a
reader in the same process (which opens the file anew) neither loses nor shares it. A POSIX lock
would be dropped by that reader's ``close``, the file would look dead, and another process would
remove it under its writer. The price is that a child inherits it by ``fork``: writers let go of
what they inherited, give the lock up explicitly when they are done with a file, and a reader
believes the kernel that a process is gone before it believes a lock (:func:`is_gone`).

The reader's lock is the other way round. It is a POSIX lock, which no child inherits: one that did
could keep every reader of the host away for as long as it lives. That a second reader in the same
process is not kept out does no harm, since a read position moves in a transaction.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from adroll_flask.interruptions import let_through

from .ownership import open_file

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

ThreadLock: TypeAlias = _thread.RLock
#: Windows: an open file cannot be deleted or renamed there, which is all the lock it needs.
HAS_FLOCK: Final = fcntl is not None
BINARY: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_READER: Final = "reader.lock"


def hold(file: int) -> bool:
    """Lock a new file for as long as it is open; ``False``: this file system has no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        let_through(exc)
        return False
    return True


def let_go(file: int) -> None:
    """Give the lock up, for those too who inherited it."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_UN)
        except OSError as exc:
            let_through(exc)


def full_sync() -> Callable[[int], object] | None:
    """macOS: what empties the disk's cache too, as :func:`os.fsync` does elsewhere."""
    command = getattr(fcntl, "F_FULLFSYNC", None)
    return None if command is None else lambda file: fcntl.fcntl(file, command)


def is_held(file: int) -> bool:
    """True where a writer has the file locked.

    :param file: opened by the caller, for reading.
    """
    if fcntl is None:
        return False
    try:
        # Shared: two readers that ask at the same time do not see each other.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks here: the caller has other signs to go by
        return False
    return False


def is_open(path: Path) -> bool:
    """Windows: True where anybody has the file open, the caller too."""
    try:
        path.rename(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def is_gone(pid: int) -> bool:
    """True where this PID namespace certainly has no such process."""
    if not HAS_FLOCK:  # os.kill ends processes on Windows
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


@contextmanager
def reading(folder: Path) -> Iterator[bool]:
    """Be the one reader of *folder* among the host's processes; ``False``: another one is."""
    try:
        file = open_file(folder / _READER, os.O_RDWR | BINARY | NO_FOLLOW)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _try_lock(file)
    finally:
        os.close(file)


def _try_lock(file: int) -> bool:
    try:
        if fcntl is not None:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except ImportError:  # a platform with neither; the read positions guard alone
        return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # no locks on this file system; the read positions guard alone
        return True
    return True
