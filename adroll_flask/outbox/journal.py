"""The journal: a record is appended to a file of this process by one ``write()``, and is safe.

Once :meth:`JournalWriter.append` returns, the kernel has the record: no kill of any process loses
it. With ``sync`` the disk has it, and no power cut does either. There is no lock between processes,
no database and no network. :mod:`.journal_files` reads what was written.

Each process writes to a file of its own, whose name nobody else can have (time, PID and random
text: two containers on one volume may both be PID 1). What is certain, and where:

- Local file systems (ext4, XFS, Btrfs, tmpfs, APFS, overlays of them): all of the above.
- A record that did not fit (disk full, quota, file size limit) is taken back to the last byte; the
  call fails, and what was acknowledged before is untouched.
- A file or folder that was removed or replaced is noticed by the next append after at most
  :data:`CHECK_EVERY` seconds; what was acknowledged since the last look is written again into a
  new file. Lost is what waited unread in it before, and, if the process is killed within that
  time, what it had acknowledged since.
- NFS: one writer a file, so that its missing atomic ``O_APPEND`` does no harm. The server has a
  record only after a sync: without ``sync``, a host that dies takes the last seconds along (a
  killed process does not). Locks are the server's; mounted with ``nolock`` or ``local_lock``, the
  file of another host is given up when it was quiet for :data:`.journal_files.QUIET` seconds.
- SMB: a lock there keeps readers out of the whole file (flock(2)), which is read once its writer
  is done with it; with ``nobrl`` as NFS without locks. Not a place for a journal.
- Windows: no ``fork``, no ``flock``. An open file cannot be removed or renamed there, which tells
  that its writer lives and keeps its folder in place.
"""

from __future__ import annotations

import errno
import math
import os
import time
import weakref
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

from adroll_flask.errors import AdRollError
from adroll_flask.forks import at_fork

from .journal_files import noted_usage, waiting_bytes
from .journal_format import FRAME, MAX_RECORD, Header, host_identity, pid_namespace
from .journal_handle import CHECK_EVERY, OpenFile, create
from .journal_locks import ThreadLock

__all__ = ["CHECK_EVERY", "COUNT_EVERY", "JournalFailed", "JournalWriter"]

#: Seconds between two counts of all that waits, where there is a size bound.
COUNT_EVERY: Final = 5.0
_COUNT_FULL_EVERY: Final = 0.25
#: Bytes that a process appends before it counts again: this, and a 64th of the bound at most.
_COUNT_BYTES: Final = 1 << 20
#: Seconds that :meth:`JournalWriter.close` waits for another thread's append.
_CLOSE_PATIENCE: Final = 1.0

_DISK_FULL: Final = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_NO_FOLDER: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ELOOP})
#: Another file will do: the handle was closed by others, the server forgot it, or the process may
#: not write files beyond some size.
_ANOTHER_FILE: Final = frozenset({errno.EBADF, errno.ESTALE, errno.EFBIG})


class JournalFailed(AdRollError):
    """The journal did not take a record; nothing of it is left.

    :param reason: ``full`` (the size bound), ``disk_full`` (also a quota), ``too_large`` (one
        record), ``read_only``, ``no_folder`` (it cannot be made), ``unavailable``.
    """

    slug = "outbox-unavailable"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"journal {reason}" + (f": {detail}" if detail else ""))
        self.reason = reason


@dataclass(slots=True)
class _Process:
    """What one process holds; a fork makes a new one, lock included.

    :param full: as of the last count.
    :param count_at: when the next count is due at the latest.
    """

    pid: int
    lock: ThreadLock = field(default_factory=ThreadLock)
    file: OpenFile | None = None
    last_created: int = 0
    full: bool = False
    count_at: float = 0.0


class JournalWriter:
    """Appends records to the journal in *folder*; for any number of threads, and across forks.

    :param folder: made (0700) with the first record.
    :param sync: the disk has a record before :meth:`append` returns.
    :param max_file_bytes: a file beyond it is followed by a new one.
    :param max_bytes: of all that waits, in journal and outbox; beyond it an append fails. Counted
        now and then: it can be overrun by what other processes append in :data:`COUNT_EVERY`
        seconds.
    :param used_elsewhere: bytes that wait in the outbox; must not wait for anything. Without it,
        what :func:`.journal_files.note_usage` told last.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sync: bool = False,
        max_file_bytes: int = 16 << 20,
        clock: Callable[[], float] = time.time,
        max_bytes: int | None = None,
        used_elsewhere: Callable[[], int] | None = None,
    ) -> None:
        self.folder: Path = Path(folder)
        self._sync = sync
        self._max_file_bytes = max_file_bytes
        self._clock = clock
        self._max_bytes = max_bytes
        self._used_elsewhere = used_elsewhere
        self._process = _Process(os.getpid())
        self._processes = {self._process.pid: self._process}
        at_fork(in_child=self._here)
        weakref.finalize(self, _finish_all, self._processes)

    def append(self, record: bytes) -> None:
        """Keep one record; it is the kernel's when this returns (with ``sync``, the disk's).

        :raises JournalFailed: it is not kept.
        """
        length = len(record)
        process = self._process
        if process.pid != os.getpid():
            process = self._here()
        with process.lock:
            file = process.file
            if file is None or file.size + length > file.limit or monotonic() >= file.check_at:
                file = self._made_ready(process, length)
            frame = FRAME.pack(file.marker, length, zlib.crc32(record, file.seed ^ length)) + record
            try:
                written = os.write(file.handle, frame)
            except OSError as exc:
                file = self._write_anew(process, file, record, exc)
            else:
                if written != len(frame):
                    file = self._write_rest(process, file, record, frame, written)
                else:
                    file.size += written
            end = file.size
        if self._sync:
            self._make_durable(process, file, end)

    def append_file(self, token: str, frames: Iterable[bytes], length: int) -> None:
        """Keep many records in a file of their own, all or none; for those who have many.

        :param token: 16 random hexadecimal digits, of this file alone.
        :param frames: from :func:`.journal_format.frame_all`, with the same token.
        :param length: bytes of all of them.
        :raises JournalFailed: they are not kept.
        """
        process = self._here()
        with process.lock:
            self._room(process, length)
            try:
                self._open(process, token, frames).finish(sync=False)
            except OSError as exc:
                raise _failure(exc) from exc

    def close(self) -> None:
        """Finish this process's file. An append after it begins another one."""
        process = self._here()
        # In the handler of a signal that came amid an append of this thread: the exit closes it.
        owned = process.lock._is_owned()  # type: ignore[attr-defined]
        if owned or not process.lock.acquire(timeout=_CLOSE_PATIENCE):
            return
        try:
            if process.file is not None:
                self._look(process, process.file)
            self._finish(process)
        except OSError as exc:
            raise _failure(exc) from exc
        finally:
            process.lock.release()

    def retire(self, age: float) -> None:
        """Finish this process's file if it was begun more than *age* seconds ago.

        A file is removed once its writer is done with it and it has been read: what it tells of
        visitors must not lie there for as long as a process lives.
        """
        file = self._here().file
        if file is not None and self._clock() * 1000 - file.header.created > age * 1000:
            self.close()

    # -- off the fast way ---------------------------------------------------------------------

    def _here(self) -> _Process:
        """What this process holds. uWSGI forks without calling Python's hooks: asked each time."""
        pid = os.getpid()
        process = self._processes.setdefault(pid, _Process(pid))
        for other in [other for other in self._processes if other != pid]:
            inherited = self._processes.pop(other, None)
            if inherited is not None and inherited.file is not None:
                inherited.file.abandon()
        self._process = process
        return process

    def _made_ready(self, process: _Process, length: int) -> OpenFile:
        """A file that is at its path and takes *length* bytes more."""
        if length > MAX_RECORD:
            raise JournalFailed("too_large")
        try:
            if process.file is not None and monotonic() >= process.file.check_at:
                self._look(process, process.file)
            file = process.file
            # A record larger than a file may be has one of its own.
            if file is not None and file.size + length > self._max_file_bytes and not file.is_new():
                self._finish(process)
                file = None
            if file is None or file.size + length > file.limit or monotonic() >= process.count_at:
                room = self._room(process, length)
                file = process.file = file or self._open(process)
                limit = max(self._max_file_bytes, file.size + length)
                file.limit = min(limit, file.size + room)
        except OSError as exc:
            raise _failure(exc) from exc
        return file

    def _open(self, process: _Process, token: str = "", frames: Iterable[bytes] = ()) -> OpenFile:
        # Names of one process sort as they were made, whatever the clock does.
        created = max(int(self._clock() * 1000), process.last_created + 1)
        token = token or os.urandom(8).hex()
        header = Header(created, process.pid, token, host_identity(), pid_namespace())
        file = create(self.folder, header, sync=self._sync, frames=frames)
        process.last_created = created
        return file

    def _finish(self, process: _Process) -> None:
        file, process.file = process.file, None
        if file is not None:
            file.finish(sync=self._sync)

    def _look(self, process: _Process, file: OpenFile) -> None:
        """See whether the file is still at its path; if not, begin another one."""
        status = file.status()
        if status is None:
            process.file = None
        elif file.is_at_its_path():
            file.was_seen(status)
        else:
            records = file.records_since_seen()
            new = self._open(process)
            try:
                new.write(b"".join(map(new.frame, records)))
                if self._sync:
                    new.sync(new.size)
            except OSError:
                new.path.unlink(missing_ok=True)
                new.finish(sync=False)
                raise  # and try again with the next append
            process.file = new
            file.finish(sync=False)

    def _room(self, process: _Process, length: int) -> int:
        """Bytes that this process may append before it counts again.

        :raises JournalFailed: what waits has reached the size bound.
        """
        bound, now = self._max_bytes, monotonic()
        if bound is None:
            process.count_at = math.inf
            return MAX_RECORD + self._max_file_bytes
        if not process.full or now >= process.count_at:
            used = waiting_bytes(self.folder)
            if self._used_elsewhere is not None:
                used += self._used_elsewhere()
            else:
                used += noted_usage(self.folder).outbox_bytes
            left = bound - used
            process.full = left < length + FRAME.size
            process.count_at = now + (_COUNT_FULL_EVERY if process.full else COUNT_EVERY)
            if not process.full:
                return min(left, max(length, min(_COUNT_BYTES, bound // 64)))
        if process.file is not None:
            process.file.limit = 0
        raise JournalFailed("full")

    # -- failures -----------------------------------------------------------------------------

    def _write_rest(
        self, process: _Process, file: OpenFile, record: bytes, frame: bytes, written: int
    ) -> OpenFile:
        """A part was written."""
        try:
            file.write(frame, written)
        except OSError as exc:
            return self._write_anew(process, file, record, exc)
        return file

    def _write_anew(
        self, process: _Process, file: OpenFile, record: bytes, error: OSError
    ) -> OpenFile:
        """Nothing was written: into another file, where that may help."""
        if error.errno not in _DISK_FULL or file.is_torn:
            self._finish(process)
        if error.errno not in _ANOTHER_FILE:
            raise _failure(error) from error
        file = self._made_ready(process, len(record))
        try:
            file.write(file.frame(record))
        except OSError as exc:
            self._finish(process)
            raise _failure(exc) from exc
        return file

    def _make_durable(self, process: _Process, file: OpenFile, end: int) -> None:
        try:
            file.sync(end)
        except OSError as exc:
            with process.lock:
                if process.file is file:
                    self._finish(process)
            raise _failure(exc) from exc


def _finish_all(processes: dict[int, _Process]) -> None:
    """At exit, or when the writer is dropped."""
    for pid, process in list(processes.items()):
        file, process.file = process.file, None
        if file is None:
            continue
        if pid == os.getpid():
            file.finish(sync=False)
        else:
            file.abandon()


def _failure(exc: OSError) -> JournalFailed:
    if exc.errno in _DISK_FULL:
        return JournalFailed("disk_full")
    if exc.errno in _READ_ONLY:
        return JournalFailed("read_only")
    if exc.errno in _NO_FOLDER:
        return JournalFailed("no_folder")
    if exc.errno == errno.EFBIG:
        return JournalFailed("too_large", "for this process's limit on file sizes")
    return JournalFailed("unavailable", os.strerror(exc.errno or 0))
