"""The journal: an entry is appended to a file of this process by one ``write()``.

Once :meth:`Journal.append` returns, the kernel has the entry: no kill of any process loses it. With
``sync`` the disk has it, and no power cut loses it either (on macOS it may still be in the disk's
cache). An append waits for no other process, no database and no network.

Each process writes to files of its own. No other process can make a file of the same name: a name
has the time, the PID and a random text, since two containers on one volume may both have PID 1. An
append takes a free file and gives it back; where there is none, it makes one. So a process has one
file, and a second one only where two threads append at the same moment. No append waits for
another. A signal's handler or a time limit may end an append in its midst. Its file is then closed,
and read to its end like any other.

What holds on which system:

- Local file systems (ext4, XFS, Btrfs, tmpfs, APFS, overlays of them): all of the above.
- An entry that does not fit (disk full, quota, file size limit) is cut off again to its first byte.
  The call fails; the entries before it are untouched.
- A file or folder that was removed is noticed within :data:`LOOK_EVERY` seconds, and a new one is
  made. Its unread entries are lost.
- NFS, SMB: not supported (``check`` warns). The server has an entry only after a sync, and a lock
  may mean nothing.
- Windows: no ``fork``, no ``flock``. An open file cannot be removed or renamed there: it and its
  folder stay in place while its writer lives. A file to which nobody has written for
  :data:`QUIET` seconds counts as finished.

Reading needs no lock and disturbs no writer. The database knows how far each file has been read:
the transaction that takes in the entries notes it. The reader also notes in the file
``adroll-reader.note`` how far it has read, and in which boot of the host. By this note the next
reader sees whether it works with another database than the last one.

A file is named ``<made, ms>-<PID>-<boot>-<random>.journal``. :mod:`.model` has the form of its
lines.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO, RawIOBase
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from adroll_flask.forks import PerProcess
from adroll_flask.logs import Logger, get_logger

from . import local_files
from .model import OutboxFailed, body_of, line_of

#: Seconds between two checks that a file is still at its path.
LOOK_EVERY: Final = 1.0
#: Seconds after which a file with entries is followed by another one. Only then can it be removed.
#: What it holds of visitors must not stay for as long as the process lives.
FILE_LIFE: Final = 60.0
#: Bytes beyond which a file is followed by a new one.
_FILE_BYTES: Final = 16 << 20

_REASONS: Final[Mapping[int | None, str]] = {
    errno.ENOSPC: "disk_full",
    getattr(errno, "EDQUOT", errno.ENOSPC): "disk_full",
    errno.EROFS: "read_only",
    errno.EACCES: "read_only",
    errno.EPERM: "read_only",
    errno.ENOENT: "no_folder",
    errno.ENOTDIR: "no_folder",
    errno.EEXIST: "no_folder",
    errno.ELOOP: "no_folder",
    errno.EFBIG: "too_large",  # for this process's limit on file sizes
}
#: Errors after which another file may help: somebody has closed the descriptor, a file server has
#: forgotten it, or the file has reached the process's limit on file sizes.
_ANOTHER_FILE: Final = frozenset({errno.EBADF, errno.ESTALE, errno.EFBIG})


@dataclass(slots=True, weakref_slot=True, eq=False)
class _File:
    """A journal file that is open for appending.

    The file is closed when this object is collected. That is needed where an exception from outside
    ended an append while it took the file or gave it back: then nobody has the object any more.

    :param descriptor: of the file. It may come to mean another file: a daemon closes all files
        that it inherited, and opens its own.
    :param identity: the file's status when it was opened; its device and inode are compared.
    :param created: milliseconds since the epoch.
    :param look_at: when to check next that the file is at its path, by the monotonic clock.
    :param pid: the process that opened it. A child that inherits the file does not unlock it.
    :param size: bytes that were appended.
    """

    descriptor: int
    identity: os.stat_result
    path: Path
    created: int
    look_at: float
    pid: int
    size: int = 0
    is_closed: bool = False

    def close(self) -> None:
        """Close the file. A reader may remove it once it has read it."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._is_open():
            if self.pid == os.getpid():
                local_files.let_go(self.descriptor)
            os.close(self.descriptor)

    __del__ = close

    def _is_open(self) -> bool:
        """False where the descriptor is closed, or now means another file."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), self.identity)
        except OSError:
            return False

    def write(self, line: bytes) -> None:
        """Append a line, all or nothing.

        :raises OSError: nothing of the line is in the file, unless the error is ``EIO``. Then the
            beginning of the line may be in it, since it could not be cut off (a full disk may
            refuse that, too), and no entry may follow in this file.
        """
        descriptor = self.descriptor
        written = 0
        try:
            while written < len(line):
                # The kernel may take a part only. Then the error of the next write says why.
                written += os.write(descriptor, line[written:])
        except OSError:
            if written:
                try:
                    # The kernel is asked for the size: *self.size* is too small where an exception
                    # of a signal's handler came between a write and the count.
                    os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                except OSError as exc:
                    raise OSError(errno.EIO, exc.strerror) from exc
            raise
        self.size += written

    def is_at_its_path(self) -> bool:
        """False once the file, its folder or the descriptor was removed or replaced.

        This is looked for only every :data:`LOOK_EVERY` seconds.
        """
        if monotonic() < self.look_at:
            return True
        self.look_at = monotonic() + LOOK_EVERY
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(there, self.identity) and self._is_open()


class _OpenFiles:
    """What one process has open; a fork makes a new one."""

    def __init__(self) -> None:
        #: Files that no append uses at the moment.
        self.free: deque[_File] = deque()
        #: All open files: the free ones, and those that appends use.
        self.opened: WeakSet[_File] = WeakSet()
        self.last_created = 0

    def end(self) -> None:
        """Close the files that no append uses."""
        with suppress(IndexError):  # none is left; other threads may take files meanwhile
            while True:
                self.free.pop().close()

    def leave(self) -> None:
        """In a child: close all inherited files, also those that threads of the parent used."""
        for file in list(self.opened):
            file.close()


class Journal:
    """Appends entries to the journal in *folder*; for any number of threads, and across forks.

    :param folder: made (0700) with the first entry.
    :param sync: the disk has an entry before :meth:`append` returns.
    """

    def __init__(
        self, folder: Path, *, sync: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder: Path = Path(folder)
        self._sync = sync
        self._clock = clock
        self._processes = PerProcess(_OpenFiles, left=_OpenFiles.leave)
        self._processes.close_with(self, _OpenFiles.end)

    def append(self, line: bytes) -> None:
        """Keep one entry. When this returns, the kernel has it (with ``sync``, the disk).

        :param line: of :func:`.model.encode`.
        :raises OutboxFailed: it is not kept.
        """
        process = self._processes.own()
        try:
            try:
                self._write(process, self._take(process, len(line)), line)
            except OSError as exc:
                if exc.errno not in _ANOTHER_FILE:
                    raise
                self._write(process, self._make(process), line)
        except OSError as exc:
            raise _failure(exc) from exc

    def rotate(self) -> None:
        """Close this process's files that are old or large.

        A thread beside the requests calls this. If that leaves none, it makes a new one first:
        no order waits for a file to be made.

        :raises OutboxFailed: no file can be made.
        """
        process = self._processes.own()
        free = process.free.copy()
        due = [file for file in free if self._is_due(file)]
        if due and len(due) == len(free):
            try:
                process.free.append(self._make(process))
            except OSError as exc:
                raise _failure(exc) from exc
        for file in due:
            with suppress(ValueError):  # an append uses it just now
                process.free.remove(file)
                file.close()

    def close(self) -> None:
        """Close this process's files. A later append makes another one."""
        self._processes.own().end()

    # -- the file -------------------------------------------------------------------------------

    def _write(self, process: _OpenFiles, file: _File, line: bytes) -> None:
        """Append *line* to *file*, and give the file back.

        :raises OSError: it is not kept.
        """
        is_written = False
        try:
            file.write(line)
            is_written = True
            if self._sync:
                local_files.sync_data(file.descriptor)
        except BaseException as exc:
            # Two kinds of file take no more entries. One is a file whose sync failed: the kernel
            # says so only once. The other is a file in which an exception from outside ended a
            # write. If the disk was full, the file holds nothing of the entry, and is used again.
            is_full = isinstance(exc, OSError) and _REASONS.get(exc.errno) == "disk_full"
            if is_full and not is_written:
                process.free.append(file)
            else:
                file.close()
            raise
        process.free.append(file)

    def _take(self, process: _OpenFiles, length: int) -> _File:
        """A file that is at its path and has room for *length* bytes.

        :raises OSError: no file can be made.
        """
        while True:
            try:
                file = process.free.pop()
            except IndexError:
                return self._make(process)
            if file.size + length <= _FILE_BYTES and file.is_at_its_path():
                return file
            file.close()

    def _is_due(self, file: _File) -> bool:
        """Whether *file* is to be followed by another one."""
        is_old = self._clock() - file.created / 1000 > FILE_LIFE
        return file.size > 0 and (is_old or file.size > _FILE_BYTES // 2)

    def _make(self, process: _OpenFiles) -> _File:
        """Make a file, and the folder where there is none.

        :raises OSError: no file was made.
        """
        if not self.folder.is_dir():
            local_files.make_folder(self.folder)
            if self._sync:
                local_files.sync_folder(self.folder.parent)
        # The names that a process makes sort by age, even where the clock is set back.
        created = process.last_created = max(int(self._clock() * 1000), process.last_created + 1)
        path = self.folder / file_name(created, os.getpid())
        descriptor = local_files.make_file(path, os.O_RDWR | os.O_APPEND | local_files.FLAGS)
        try:
            local_files.hold(descriptor)
            identity = os.fstat(descriptor)
            if self._sync:
                local_files.sync_folder(self.folder)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        file = _File(descriptor, identity, path, created, monotonic() + LOOK_EVERY, os.getpid())
        process.opened.add(file)
        return file


def _failure(exc: OSError) -> OutboxFailed:
    return OutboxFailed(_REASONS.get(exc.errno, "unavailable"), exc.strerror or "")


# -- the files as readers see them -----------------------------------------------------------------

logger: Logger = get_logger("adroll_flask.outbox")

#: If nobody has written to a file for so many seconds, its writer counts as gone. This decides
#: where no lock tells: the file is of another boot or another host; the file system or the platform
#: has no locks; or the file is empty, and its writer may not have locked it yet.
QUIET: Final = 900.0
#: Seconds after the beginning of a reader's turn, from when on the reader counts as stopped.
TURN_LASTS: Final = 10.0
_NAME: Final = re.compile(r"(\d{13,15})-(\d{1,10})-([0-9a-f]{8})-[0-9a-f]{16}\.journal")
# The names begin with the package's: the site may have files of its own in the same folder.
_TURN: Final = "adroll-reader.lock"
_NOTE: Final = "adroll-reader.note"


def _boot() -> str:
    """A short hash of this host's boot. Locks tell nothing of a file of another boot."""
    return hashlib.blake2b(local_files.boot().encode(), digest_size=4).hexdigest()


def file_name(created: int, pid: int) -> str:
    """The name of a new file of a process. No other process can make the same name."""
    return f"{created:013d}-{pid}-{_boot()}-{os.urandom(8).hex()}.journal"


class JournalFile(NamedTuple):
    """One file of a journal.

    :param name: without its suffix; unique for good, the key of its read position.
    :param size: bytes, when it was listed.
    """

    name: str
    path: Path
    size: int


def files_of(folder: Path) -> list[JournalFile]:
    """All files of a journal, oldest first. None of them is opened."""
    listed: list[JournalFile] = []
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return listed
    for name in filter(_NAME.fullmatch, names):
        with suppress(FileNotFoundError):
            path = folder / name
            listed.append(JournalFile(path.stem, path, path.lstat().st_size))
    return sorted(listed)


# -- what is in a file -----------------------------------------------------------------------------


@dataclass(slots=True)
class Part:
    """A part of a file.

    :param bodies: the JSON of whole entries.
    :param before: how many of *bodies*, from the first on, were read before.
    :param damaged: lines that are no whole entries, each with its offset.
    :param end: where the next reading begins.
    """

    bodies: list[bytes] = field(default_factory=list, repr=False)
    before: int = 0
    damaged: list[tuple[int, bytes]] = field(default_factory=list, repr=False)
    end: int = 0


def read_part(
    file: JournalFile, offset: int, *, most: int, most_bytes: int, known_to: int = 0
) -> Part:
    """Whole entries from *offset* on.

    A last line without an end is still being written; if its writer has gone, it is damaged. After
    a damaged line in the middle, reading goes on.

    :param most: entries that are read at most.
    :param most_bytes: bytes that are read at most. A single entry that is larger is read whole.
    :param known_to: up to which offset the file was read before.
    :raises OSError: the file cannot be read.
    """
    part = Part(end=offset)
    try:
        descriptor = os.open(file.path, os.O_RDONLY | local_files.FLAGS)
    except FileNotFoundError:  # another reader was done with it
        return part
    with os.fdopen(descriptor, "rb", buffering=0) as source:
        source.seek(offset)
        size = os.fstat(descriptor).st_size
        data = _next_bytes(source, size - offset, most_bytes)
    lines = BytesIO(data).readlines()
    rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
    for line in lines[:most]:
        body = body_of(line)
        if body is not None:
            part.bodies.append(body)
            if part.end < known_to:
                part.before += 1
        else:
            part.damaged.append((part.end, line))
        part.end += len(line)
    reached_end = len(lines) <= most and part.end + len(rest) >= size
    is_over = rest and reached_end and not is_alive(file)
    # The writer may have ended its last line after the size was asked for, and then gone.
    if is_over and file.path.stat().st_size <= size:
        part.damaged.append((part.end, rest))
        part.end += len(rest)
    return part


def _next_bytes(source: RawIOBase, length: int, most_bytes: int) -> bytes:
    """About *most_bytes* of the next *length* bytes; at least one line, if a line ends in them."""
    data = b""
    while len(data) < length and (len(data) < most_bytes or b"\n" not in data):
        more = source.read(min(most_bytes, length - len(data)))
        if not more:
            break
        data += more
    return data


def is_alive(file: JournalFile) -> bool:
    """True while the file's writer may still append. While it may, the file must stay."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY | local_files.FLAGS)
    except FileNotFoundError:
        return False
    try:
        status = os.fstat(descriptor)
        is_quiet = abs(time.time() - status.st_mtime) >= QUIET
        may_lack_its_lock = status.st_size == 0 and not is_quiet  # it may have just been made
        if not may_lack_its_lock:
            held = local_files.is_held(descriptor)
            if held is not None and (held or file.name.split("-")[2] == _boot()):
                return held
        # No lock tells. A writer that is taken for gone too early loses nothing: after its pause it
        # checks whether its file is still there, and makes another one if not.
        return not is_quiet
    finally:
        os.close(descriptor)


def remove(file: JournalFile, read_to: int) -> bool:
    """Remove a file that has been read to *read_to*; ``False``: it may not be removed yet."""
    if is_alive(file):
        return False
    try:
        # The size is asked for only after the writer has gone: until then it may have appended.
        if os.stat(file.path, follow_symlinks=False).st_size > read_to:
            return False
        os.unlink(file.path)
    except FileNotFoundError:
        return True
    except PermissionError:  # Windows: somebody has it open
        return False
    return True


def keep_aside(folder: Path, name: str, data: bytes, what: str) -> None:
    """Keep bytes that are no entry in a file of their own, and log that.

    A second call with the same bytes does no harm.

    :param what: what the bytes are, for the log.
    """
    local_files.make_folder(folder)  # bytes from the inbox may come before any journal file
    path = folder / f"{name}.corrupt"
    flags = os.O_WRONLY | os.O_TRUNC | local_files.FLAGS
    with os.fdopen(local_files.open_file(path, flags), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    logger.critical(
        "AdRoll's journal: %s (%d bytes); they are kept in %s [journal-damaged]",
        what,
        len(data),
        path,
    )


# -- whose turn it is to read ----------------------------------------------------------------------


class Note(NamedTuple):
    """What the last reader left.

    :param positions: how far each file has been taken into a database.
    :param boot: of this host, at the time.
    """

    positions: Mapping[str, int] = {}
    boot: str = ""


def last_note(folder: Path) -> Note:
    """What the last reader left; an empty note where there is none, or it is damaged."""
    match read_note(folder / _NOTE):
        case [dict(positions), str(boot)]:
            return Note(positions, boot)
    return Note()


def leave_note(folder: Path, positions: Mapping[str, int]) -> None:
    """Leave a note for the next reader. Only the reader whose turn it is does so."""
    write_note(folder / _NOTE, [dict(positions), local_files.boot()])


def read_note(path: Path) -> Any:
    """What :func:`write_note` wrote; ``None``: there is no note, or it is damaged."""
    with suppress(OSError, ValueError):
        # If a process was killed while it wrote, the end of an older, longer note may follow.
        line = path.read_bytes().partition(b"\n")[0]
        return json.loads(body_of(line) or b"null")
    return None


def write_note(path: Path, note: Any) -> None:
    """Write *note*, a value of JSON, in the place of the one before."""
    line = line_of(json.dumps(note).encode())
    flags = os.O_WRONLY | local_files.FLAGS
    with suppress(OSError):  # on a full disk the last note stays
        descriptor = local_files.open_file(path, flags)
        try:
            os.write(descriptor, line)
            os.ftruncate(descriptor, len(line))
        finally:
            os.close(descriptor)


@contextmanager
def turn(folder: Path, patience: float = 0.0) -> Iterator[Sequence[JournalFile]]:
    """The files of *folder*, for the one thread of the host whose turn it is; none for others.

    A reader may be stopped in its turn (Ctrl-Z), or killed while its child keeps the lock. So
    :data:`TURN_LASTS` seconds after its turn began, others get the files, too. The time of the
    lock's file says when it began. Two readers do no harm: a transaction moves the position
    together with the entries, so an entry becomes one row. A reader that is stopped during a
    transaction keeps the database's locks until it goes on: on SQLite the whole database is locked,
    PostgreSQL ends the transaction. ``check`` gives the command that shows who has a locked SQLite
    file open.

    :param patience: seconds to wait for the turn.
    :raises OSError: the folder cannot be read.
    """
    lock = folder / _TURN
    try:
        descriptor = local_files.open_file(lock, os.O_RDWR | local_files.FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        yield ()
        return
    try:
        until = monotonic() + patience
        is_ours = local_files.hold(descriptor)
        while not is_ours and monotonic() < until:
            time.sleep(0.005)
            is_ours = local_files.hold(descriptor)
        if is_ours:
            with suppress(FileNotFoundError):  # the folder was removed
                os.utime(lock)
        began = os.fstat(descriptor).st_mtime
        if is_ours or abs(time.time() - began) > TURN_LASTS:
            yield files_of(folder)
        else:
            yield ()
    finally:
        local_files.let_go(descriptor)
        os.close(descriptor)


def waiting_bytes(folder: Path) -> int:
    """Bytes of the journal that are not taken in yet, by the last reader's note. It is cheap.

    :raises OutboxFailed: the folder may not be looked at.
    """
    try:
        listed = files_of(folder)
    except OSError as problem:
        raise OutboxFailed("read_only", type(problem).__name__) from None
    positions = last_note(folder).positions
    return sum(max(0, file.size - positions.get(file.name, 0)) for file in listed)
