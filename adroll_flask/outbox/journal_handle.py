"""The one file that a process writes to: made, looked after, cut back, synced, let go."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Final

from adroll_flask.interruptions import let_through

from . import journal_locks as locks
from .journal_format import SUFFIX, UNFINISHED, Header, encode_header, frame, split
from .ownership import make_file, make_folder

#: Seconds between two looks whether the file is still where it was.
CHECK_EVERY: Final = 0.1

_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


@dataclass(slots=True)
class OpenFile:
    """A journal file that is open for appending.

    :param identity: device and inode: the number of the handle may come to mean another file (a
        daemon closes all that it inherited).
    :param size: bytes, by count.
    :param limit: beyond it, rotation and the size bound are looked at again.
    :param seen: bytes that were there when the file was last seen at its path.
    :param is_torn: the beginning of a record could not be taken back; nothing may follow it.
    """

    handle: int
    path: Path
    header: Header
    identity: tuple[int, int]
    size: int
    limit: int
    seen: int
    marker: bytes
    seed: int
    check_at: float
    is_torn: bool = False
    _syncing: locks.ThreadLock = field(default_factory=locks.ThreadLock)
    _synced: int = 0
    _broken: OSError | None = None

    def frame(self, record: bytes) -> bytes:
        """What is written of *record*; :meth:`.JournalWriter.append` has the same inline."""
        return frame(record, self.marker, self.seed)

    def write(self, data: bytes, written: int = 0) -> None:
        """Append frames, all or nothing.

        :param written: how many bytes of them the kernel has taken already.
        :raises OSError: nothing of *data* is left (or :attr:`is_torn`); the kernel says why not
            when it is asked for the rest.
        """
        try:
            while written < len(data):
                written += os.write(self.handle, data[written:])
        except OSError:
            self._take_back(written)
            raise
        self.size += written

    def _take_back(self, written: int) -> None:
        """Cut off the beginning of a record.

        Counted from the end of the file and not by our own count, which the exception of a signal
        between write and count would have left behind.
        """
        try:
            if written:
                os.ftruncate(self.handle, os.fstat(self.handle).st_size - written)
        except OSError:
            self.is_torn = True

    def is_new(self) -> bool:
        """True while there is no record in it."""
        return self.size <= self.header.size

    # -- is it still there? -------------------------------------------------------------------

    def status(self) -> os.stat_result | None:
        """The open file's status; ``None``: the handle is closed, or another file's by now."""
        try:
            status = os.fstat(self.handle)
        except OSError as exc:
            let_through(exc)
            return None
        return status if (status.st_dev, status.st_ino) == self.identity else None

    def is_at_its_path(self) -> bool:
        """False once the file, or its folder, was removed or replaced."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError as exc:
            let_through(exc)
            return exc.errno not in _GONE
        return (there.st_dev, there.st_ino) == self.identity

    def was_seen(self, status: os.stat_result) -> None:
        self.seen = status.st_size
        self.check_at = monotonic() + CHECK_EVERY

    def records_since_seen(self) -> list[bytes]:
        """What was appended since the file was last seen at its path."""
        try:
            data = _read_from(self.handle, self.seen)
        except OSError as exc:
            let_through(exc)
            return []
        return split(data, 0, self.header, max_records=len(data), last=True).records

    # -- on the disk --------------------------------------------------------------------------

    def sync(self, end: int) -> None:
        """See to it that the disk has all up to *end*; one sync does for all who wait.

        :raises OSError: it may not have it.
        """
        with self._syncing:
            self._sync(end)

    def _sync(self, end: int) -> None:
        if self._broken is not None:
            raise self._broken
        if self._synced >= end:
            return
        written = self.size
        try:
            sync_data(self.handle)
        except OSError as exc:
            # The kernel tells of it once, and forgets what it could not write.
            self._broken = exc
            raise
        self._synced = written

    # -- the end ------------------------------------------------------------------------------

    def finish(self, *, sync: bool) -> None:
        """No more appends: a reader may remove the file once it has read it."""
        with self._syncing:  # whoever waits for a sync has it by this one
            if self.status() is None:
                self._broken = self._broken or OSError(errno.EBADF, "closed by others")
                return
            if sync:
                try:
                    self._sync(self.size)
                except OSError as exc:
                    let_through(exc)
            locks.let_go(self.handle)
            os.close(self.handle)

    def abandon(self) -> None:
        """Close what was inherited by a fork; the lock stays the parent's."""
        if self.status() is not None:
            os.close(self.handle)


def create(folder: Path, header: Header, *, sync: bool, frames: Iterable[bytes] = ()) -> OpenFile:
    """Make a file with its header, and the folder where there is none.

    :param frames: what it holds from the beginning; a reader sees all of it, or no file.
    :raises OSError: nothing of it is left.
    """
    if not folder.is_dir():
        make_folder(folder)
        if sync:
            _sync_folder(folder.parent)
    path = folder / f"{header.name}{SUFFIX}"
    # Nobody sees it under its name before it is locked. Windows does not rename open files.
    new = path.with_suffix(UNFINISHED) if locks.HAS_FLOCK else path
    handle = make_file(new, os.O_RDWR | os.O_APPEND | locks.BINARY | locks.NO_FOLLOW)
    try:
        header = replace(header, locked=locks.hold(handle))
        line = encode_header(header)
        if os.write(handle, line) != len(line):
            raise OSError(errno.ENOSPC, "short write")
        for piece in frames:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(handle, rest) :]
        status = os.fstat(handle)
        if sync and status.st_size > len(line):
            sync_data(handle)
        if new != path:
            new.rename(path)
        if sync:
            _sync_folder(folder)
    except BaseException:
        os.close(handle)
        new.unlink(missing_ok=True)
        raise
    size = status.st_size
    return OpenFile(
        handle=handle,
        path=path,
        header=replace(header, size=len(line)),
        identity=(status.st_dev, status.st_ino),
        size=size,
        limit=size,
        seen=size,
        marker=header.marker,
        seed=header.seed,
        check_at=monotonic() + CHECK_EVERY,
    )


def sync_data(handle: int) -> None:
    """The disk has the file's content when this returns."""
    full = locks.full_sync()  # macOS: fsync leaves it in the disk's cache
    if full is not None:
        full(handle)
    else:
        getattr(os, "fdatasync", os.fsync)(handle)


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_from(handle: int, offset: int) -> bytes:
    os.lseek(handle, offset, os.SEEK_SET)  # appends go to the end, wherever this points
    found = []
    while data := os.read(handle, 1 << 20):
        found.append(data)
    return b"".join(found)
