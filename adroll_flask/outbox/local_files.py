"""Locks and owners of the outbox's files, and what platforms differ in.

Whoever writes a journal file holds ``flock`` on it, which says only that it lives. It belongs to
the open file, so that a reader in the same process (which opens the file anew) neither loses nor
shares it. A POSIX lock would be dropped by that reader's ``close``, the file would look dead, and
another process would remove it under its writer. The price is that a child inherits it by ``fork``:
the file of a writer that was killed is read, and lies there until its child reports or ends.

A command that root runs (an import, say) in the app user's folder would leave files there that the
app cannot open. What root makes is given to the owner of the folder that it is in.

:func:`.whose_file.is_made_by_us` tells whether a database's file is ours and may be moved aside.
:mod:`.journal` tells what a full disk does to an entry.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Flags with which each file of ours is opened: its bytes as they are, for no program that this
#: process starts, and not through a link. Each where the platform has it.
FLAGS: Final = (
    getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
)


# -- locks ---------------------------------------------------------------------------------------


def _flock(descriptor: int, how: str) -> bool | None:
    """Whether the lock is ours now; ``None``: there are no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, getattr(fcntl, how) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def hold(descriptor: int) -> bool:
    """Lock a file for as long as it is open; ``False``: another one has the lock.

    ``True`` where there are no locks, too.
    """
    return _flock(descriptor, "LOCK_EX") is not False


def let_go(descriptor: int) -> None:
    """Give the lock up, also for children that inherited it."""
    _flock(descriptor, "LOCK_UN")


def is_held(descriptor: int) -> bool | None:
    """Whether a writer has the file locked; ``None``: this file system has no locks.

    :param descriptor: opened by the caller, for reading.
    """
    # Shared: two readers that ask at the same time do not see each other.
    is_ours = _flock(descriptor, "LOCK_SH")
    return None if is_ours is None else not is_ours


def boot() -> str:
    """One boot of one host: only there does a lock of a local disk mean something.

    Imports nothing, no codec either: a thread that imports while another one forks would leave the
    child a lock that nobody releases.
    """
    try:
        descriptor = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY)
    except OSError:
        name = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
        return f"node:{name[:100]}"
    try:
        return os.read(descriptor, 36).decode()
    finally:
        os.close(descriptor)


# -- on the disk -----------------------------------------------------------------------------------


def sync_data(descriptor: int) -> None:
    """The disk has the file's content when this returns (on macOS, perhaps only its cache)."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(folder: Path) -> None:
    """The disk has the names of the folder's files when this returns."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_there(path: Path) -> bool:
    """Whether there is something at *path*; ``Path.exists`` says no where it may not look (3.14).

    :raises OSError: a folder above it may not be entered.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


# -- owners ----------------------------------------------------------------------------------------


def _give(made: int | Path, folder: Path) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    owner = folder.stat()
    change: Callable[..., None] = os.fchown if isinstance(made, int) else os.lchown
    with suppress(OSError):  # a file system that knows root as nobody, a group without a number
        change(made, owner.st_uid, owner.st_gid)


def make_folder(folder: Path, mode: int = 0o700) -> None:
    """Make *folder* where it is missing, and the folders above it.

    Whatever the umask is, only the owner may enter *folder*, and nobody else may write in those
    above it.
    """
    if not folder.is_dir():
        make_folder(folder.parent, 0o755)
        with suppress(FileExistsError):  # another process was faster
            folder.mkdir(mode=mode)
            _give(folder, folder.parent)


def make_file(path: Path, flags: int) -> int:
    """Make a file that only its owner may read, and open it.

    :param flags: of ``os.open``, without ``O_CREAT``.
    :raises FileExistsError: it is there already.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    # Only what was made just now: the folder's owner may have put a link to root's file there.
    _give(descriptor, path.parent)
    return descriptor


def open_file(path: Path, flags: int) -> int:
    """Open a file, which is made where it is missing."""
    with suppress(FileExistsError):
        return make_file(path, flags)
    return os.open(path, flags)
