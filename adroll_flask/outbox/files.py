"""Locks and owners of the outbox's files, and what platforms differ in.

Whoever writes a journal file holds ``flock`` on it, which says only that it lives. It belongs to
the open file, so that a reader in the same process (which opens the file anew) neither loses nor
shares it. A POSIX lock would be dropped by that reader's ``close``, the file would look dead, and
another process would remove it under its writer. The price is that a child inherits it by ``fork``:
a reader believes the kernel that a process is gone before it believes a lock.

A command that root runs (an import, say) in the app user's folder would leave files there that the
app cannot open. What root makes is given to the owner of the folder that it is in.
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

BINARY: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
#: Root, where there is one.
_ROOT: Final = 0


# -- locks ---------------------------------------------------------------------------------------


def hold(file: int) -> bool:
    """Lock a file for as long as it is open; ``False``: somebody has it, or there are no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def let_go(file: int) -> None:
    """Give the lock up, for those too who inherited it."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


def is_held(file: int) -> bool | None:
    """Whether a writer has the file locked; ``None``: this file system has no locks.

    :param file: opened by the caller, for reading.
    """
    if fcntl is None:
        return None
    try:
        # Shared: two readers that ask at the same time do not see each other.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def take_turn(file: int) -> bool:
    """Be the only process with this lock until the file is closed; ``False``: another one is.

    A POSIX lock, which no child inherits: one that did could keep all others away for as long as
    it lives. Where there are no locks everybody is: what the database says of positions is enough,
    and taking turns saves work in vain.
    """
    if fcntl is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # no locks here
        return True
    return True


def is_gone(pid: int) -> bool:
    """True where this PID namespace certainly has no such process."""
    if fcntl is None:  # os.kill ends processes on Windows
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def boot() -> str:
    """One boot of one host: only there does a PID or a lock of a local disk mean something.

    Imports nothing, no codec either: a thread that imports while another one forks would leave the
    child a lock that nobody releases.
    """
    try:
        file = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY)
    except OSError:
        name = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
        return f"node:{name[:100]}"
    try:
        return os.read(file, 36).decode()
    finally:
        os.close(file)


def pid_namespace() -> int:
    """The PID namespace of this process; 0 where there is no such thing."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


# -- on the disk -----------------------------------------------------------------------------------


def sync_data(handle: int) -> None:
    """The disk has the file's content when this returns."""
    command = getattr(fcntl, "F_FULLFSYNC", None)
    if command is not None:  # macOS: fsync leaves it in the disk's cache
        fcntl.fcntl(handle, command)
    else:
        getattr(os, "fdatasync", os.fsync)(handle)


def sync_folder(folder: Path) -> None:
    """The disk has the names of the folder's files when this returns."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- owners ----------------------------------------------------------------------------------------


def _give(made: int | Path, folder: Path) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != _ROOT:
        return
    owner = folder.stat()
    if owner.st_uid == _ROOT:
        return
    change: Callable[..., None] = os.chown
    follow = {} if isinstance(made, int) else {"follow_symlinks": False}
    with suppress(PermissionError):  # a file system that knows root as nobody
        change(made, owner.st_uid, owner.st_gid, **follow)


def make_folder(folder: Path, mode: int = 0o700) -> None:
    """Make *folder*, for its owner alone, and those above it; nothing where it is there."""
    if folder.is_dir():
        return
    if not folder.parent.is_dir():
        make_folder(folder.parent, 0o777)
    try:
        folder.mkdir(mode=mode)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    _give(folder, folder.parent)


def make_file(path: Path, flags: int) -> int:
    """Make a file that only its owner may read, and open it.

    :param flags: of ``os.open``, without ``O_CREAT``.
    :raises FileExistsError: it is there already.
    """
    handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    # Only what was made just now: the folder's owner may have put a link to root's file there.
    _give(handle, path.parent)
    return handle


def open_file(path: Path, flags: int) -> int:
    """Open a file, which is made where it is missing."""
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        try:
            return make_file(path, flags)
        except FileExistsError:  # another process was faster
            return os.open(path, flags)
