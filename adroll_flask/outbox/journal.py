"""The journal: an entry is appended to a file of this process by one ``write()``.

Once :meth:`Journal.append` returns, the kernel has the entry: no kill of any process loses it. With
``sync`` the disk has it, and no power cut does either (on macOS it may be in the disk's cache
still). There is no lock between processes, no database and no network.

Each process writes to a file of its own, whose name nobody else can have (time, PID and random
text: two containers on one volume may both be PID 1). What is certain, and where:

- Local file systems (ext4, XFS, Btrfs, tmpfs, APFS, overlays of them): all of the above.
- An entry that did not fit (disk full, quota, file size limit) is taken back to the last byte; the
  call fails, and what was acknowledged before is untouched.
- A file or folder that was removed is noticed within :data:`LOOK_EVERY` seconds, and a new one
  made; what waited unread in it is lost.
- NFS, SMB: not supported (``check`` warns): the server has an entry only after a sync, and a lock
  may mean nothing.
- Windows: no ``fork``, no ``flock``. An open file cannot be removed or renamed there, which keeps
  it and its folder in place while its writer lives; a file is given up once it is quiet.

Reading needs no lock and disturbs no writer. How far a file is read stands in the database, in the
transaction that took its entries in. Beside it, whoever reads leaves a note in ``reader.note``
(how far, and in which boot): a database that is not the one which took entries in is noticed by it.

A file is named ``<made, ms>-<PID>-<boot>-<random>.journal``.
"""

from __future__ import annotations

import _thread
import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from adroll_flask import files
from adroll_flask.forks import PerProcess
from adroll_flask.logs import Logger, get_logger

from .model import OutboxFailed, body_of, line_of

#: Seconds between two looks whether the file is still where it was.
LOOK_EVERY: Final = 1.0
#: Seconds after which a file that has entries is followed by another, so that it can be removed
#: once it is read: what it tells of visitors must not lie there for as long as a process lives.
FILE_LIFE: Final = 60.0
#: Bytes beyond which a file is followed by a new one.
_FILE_BYTES: Final = 16 << 20

_REASONS: Final[Mapping[int | None, str]] = {
    errno.ENOSPC: "disk_full",
    getattr(errno, "EDQUOT", errno.ENOSPC): "disk_full",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "read_only"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ELOOP), "no_folder"),
    errno.EFBIG: "too_large",  # for this process's limit on file sizes
}
#: Another file will do: the handle was closed by others, the server forgot it, or the process may
#: not write files beyond some size.
_ANOTHER_FILE: Final = frozenset({errno.EBADF, errno.ESTALE, errno.EFBIG})


@dataclass(slots=True)
class _File:
    """A journal file that is open for appending.

    :param identity: has device and inode: the number of the handle may come to mean another file (a
        daemon closes all that it inherited).
    :param created: milliseconds since the epoch.
    :param size: bytes, by count.
    :param look_at: when it is to be looked for at its path, by the monotonic clock.
    """

    handle: int
    path: Path
    identity: os.stat_result
    created: int
    look_at: float
    size: int = 0

    def write(self, line: bytes) -> None:
        """Append a line, all or nothing.

        :raises OSError: nothing of it is left; else it is ``EIO``, whatever the system said (a full
            disk may refuse to cut, too): nothing may follow the beginning of an entry.
        """
        written = 0
        try:
            while written < len(line):
                # The kernel says why it took a part when it is asked for the rest.
                written += os.write(self.handle, line[written:])
        except OSError:
            if written:
                try:
                    # From the end of the file and not by our own count, which the exception of a
                    # signal between write and count would have left behind.
                    os.ftruncate(self.handle, os.fstat(self.handle).st_size - written)
                except OSError as exc:
                    raise OSError(errno.EIO, exc.strerror) from exc
            raise
        self.size += written

    def is_ours(self) -> bool:
        """False where the handle is closed, or another file's by now."""
        try:
            return os.path.samestat(os.fstat(self.handle), self.identity)
        except OSError:
            return False

    def is_at_its_path(self) -> bool:
        """False once the file, its folder or the handle was removed or replaced."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(there, self.identity) and self.is_ours()


class _Process:
    """What one process holds; a fork makes a new one, lock included.

    The lock is the interpreter's own, which gevent and eventlet leave as it is. Theirs hand over
    between greenlets, of which none ever waits here, since none is switched away in the middle of
    an append; between threads they hang (gevent 26.9, a thread pool's threads).
    """

    def __init__(self) -> None:
        self.pid: int = os.getpid()
        self.lock: _thread.RLock = _thread.RLock()
        self.file: _File | None = None
        self.last_created = 0

    def end(self) -> None:
        """No more appends to the file: a reader may remove it once it has read it.

        Also when the journal is dropped, or in a child, which leaves the lock to its parent.
        """
        file, self.file = self.file, None
        if file is not None and file.is_ours():
            if self.pid == os.getpid():
                files.let_go(file.handle)
            os.close(file.handle)


class Journal:
    """Appends entries to the journal in *folder*; for any number of threads, and across forks.

    :param folder: made (0700) with the first entry.
    :param sync: the disk has an entry before :meth:`append` returns.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sync: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder: Path = Path(folder)
        self._sync = sync
        self._clock = clock
        self._processes = PerProcess(_Process, left=_Process.end)
        self._processes.close_with(self, _Process.end)

    def append(self, line: bytes) -> None:
        """Keep one entry; it is the kernel's when this returns (with ``sync``, the disk's).

        :param line: of :func:`.model.encode`.
        :raises OutboxFailed: it is not kept.
        """
        process = self._processes.own()
        with process.lock:
            for is_again in (False, True):
                is_written = False
                try:
                    file = self._ready(process, len(line))
                    file.write(line)
                    is_written = True
                    if self._sync:
                        files.sync_data(file.handle)
                    break
                except OSError as exc:
                    # Of what it could not sync the kernel tells once: that file is not gone on in,
                    # while of what a full disk did not take nothing is left.
                    if is_written or _REASONS.get(exc.errno) != "disk_full":
                        process.end()
                    if is_again or exc.errno not in _ANOTHER_FILE:
                        raise _failure(exc) from exc

    def rotate(self) -> None:
        """Go on in a new file where this process's is old or large; by a thread beside it.

        The new one is there before the old one is finished: no order pays for making it.

        :raises OutboxFailed: there is none to be had.
        """
        process = self._processes.own()
        file = process.file
        if file is None or not file.size:
            return
        is_old = self._clock() - file.created / 1000 > FILE_LIFE
        if not is_old and file.size <= _FILE_BYTES // 2:
            return
        try:
            new = self._make(process)
        except OSError as exc:
            raise _failure(exc) from exc
        with process.lock:
            process.end()
            process.file = new

    def close(self) -> None:
        """Finish this process's file. An append after it begins another one."""
        process = self._processes.own()
        with process.lock:
            process.end()

    # -- the file -------------------------------------------------------------------------------

    def _ready(self, process: _Process, length: int) -> _File:
        """A file that is at its path and takes *length* bytes more.

        :raises OSError: there is none to be had.
        """
        file = process.file
        if file is not None and file.size + length <= _FILE_BYTES:
            if monotonic() < file.look_at:
                return file
            if file.is_at_its_path():
                file.look_at = monotonic() + LOOK_EVERY
                return file
        process.end()
        process.file = file = self._make(process)
        return file

    def _make(self, process: _Process) -> _File:
        """Make a file, and the folder where there is none.

        :raises OSError: nothing of it is left.
        """
        if not self.folder.is_dir():
            files.make_folder(self.folder)
            if self._sync:
                files.sync_folder(self.folder.parent)
        # Names of one process sort as they were made, whatever the clock does.
        created = process.last_created = max(int(self._clock() * 1000), process.last_created + 1)
        path = self.folder / file_name(created, process.pid)
        handle = files.make_file(path, os.O_RDWR | os.O_APPEND | files.BINARY | files.NO_FOLLOW)
        try:
            files.hold(handle)
            identity = os.fstat(handle)
            if self._sync:
                files.sync_folder(self.folder)
        except BaseException:
            os.close(handle)
            path.unlink(missing_ok=True)
            raise
        return _File(handle, path, identity, created, monotonic() + LOOK_EVERY)


def _failure(exc: OSError) -> OutboxFailed:
    return OutboxFailed(_REASONS.get(exc.errno, "unavailable"), exc.strerror or "")


# -- the files as readers see them -----------------------------------------------------------------

logger: Logger = get_logger("adroll_flask.outbox")

#: Seconds without a write after which a file is given up whose writer shows no other sign: on
#: another boot or another host, where the file system or the platform has no locks, or where it
#: is empty, since it may not be locked yet.
QUIET: Final = 900.0
#: Seconds after which the one whose turn it is is taken for stopped.
TURN_LASTS: Final = 10.0
_NAME: Final = re.compile(r"(\d{13,15})-(\d{1,10})-([0-9a-f]{8})-[0-9a-f]{16}\.journal")
_TURN: Final = "reader.lock"
_NOTE: Final = "reader.note"


def _boot() -> str:
    """The boot of this host, in short: the kernel's locks tell of its own files alone."""
    return hashlib.blake2b(files.boot().encode(), digest_size=4).hexdigest()


def file_name(created: int, pid: int) -> str:
    """The name of a file that a process makes; nobody else can make the same."""
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
    """All files of a journal, oldest first; opens none of them."""
    found: list[JournalFile] = []
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return found
    for name in filter(_NAME.fullmatch, names):
        with suppress(FileNotFoundError):
            path = folder / name
            found.append(JournalFile(path.stem, path, path.lstat().st_size))
    return sorted(found)


# -- what is in a file -----------------------------------------------------------------------------


@dataclass(slots=True)
class Read:
    """What :func:`read` found.

    :param bodies: the JSON of whole entries.
    :param damaged: what is no whole entry, and where it stands.
    :param end: where the next reading begins.
    """

    bodies: list[bytes] = field(default_factory=list, repr=False)
    damaged: list[tuple[int, bytes]] = field(default_factory=list, repr=False)
    end: int = 0


def read(
    file: JournalFile, offset: int, *, most: int, most_bytes: int, until: int | None = None
) -> Read:
    """Whole entries from *offset* on.

    The beginning of a line is being written, unless the writer has gone: then it was never
    acknowledged, or damage took its end. Damage in the middle is told, and what follows it is read.

    :param most_bytes: bounds what is held in memory, save for a single entry that is larger.
    :param until: where to stop at the latest.
    :raises OSError: the file cannot be read.
    """
    found = Read(end=offset)
    try:
        handle = os.open(file.path, os.O_RDONLY | files.BINARY | files.NO_FOLLOW)
    except FileNotFoundError:  # another reader was done with it
        return found
    with os.fdopen(handle, "rb", buffering=0) as source:
        source.seek(offset)
        size = os.fstat(handle).st_size if until is None else until
        data = b""
        while len(data) < size - offset and (len(data) < most_bytes or b"\n" not in data):
            more = source.read(min(most_bytes, size - offset - len(data)))
            if not more:
                break
            data += more
    lines = data.split(b"\n")
    rest = lines.pop()
    for line in lines[:most]:
        body = body_of(line)
        if body is not None:
            found.bodies.append(body)
        else:
            found.damaged.append((found.end, line + b"\n"))
        found.end += len(line) + 1
    reached_end = len(lines) <= most and found.end + len(rest) >= size
    is_over = rest and until is None and reached_end and not is_alive(file)
    # Its last line may have been under way when its size was asked for.
    if is_over and file.path.stat().st_size <= size:
        found.damaged.append((found.end, rest))
        found.end += len(rest)
    return found


def is_alive(file: JournalFile) -> bool:
    """True while the file's writer may still append. Only a file that is not may be removed."""
    try:
        handle = os.open(file.path, os.O_RDONLY | files.BINARY | files.NO_FOLLOW)
    except FileNotFoundError:
        return False
    try:
        status = os.fstat(handle)
        is_quiet = abs(time.time() - status.st_mtime) >= QUIET
        if is_quiet or status.st_size:  # else a look at the lock might keep its writer from it
            held = files.is_held(handle)
            if held is not None and (held or file.name.split("-")[2] == _boot()):
                return held
        # No lock to go by. A living writer looks whether its file is still there before it goes
        # on after a pause, so that giving up a quiet one too early costs nothing.
        return not is_quiet
    finally:
        os.close(handle)


def remove(file: JournalFile, read_to: int) -> bool:
    """Remove a file that has been read to *read_to*; ``False`` where it may not go yet."""
    if is_alive(file):
        return False
    try:
        # Looked at after its writer was seen to be gone: what it wrote last counts.
        if os.stat(file.path, follow_symlinks=False).st_size > read_to:
            return False
        os.unlink(file.path)
    except FileNotFoundError:
        return True
    except PermissionError:  # Windows: somebody has it open
        return False
    return True


def keep_aside(folder: Path, name: str, data: bytes, told: str) -> None:
    """Keep bytes that are no entry in a file of their own, and tell. Once more does no harm."""
    files.make_folder(folder)  # what the inbox held may be the first here
    path = folder / f"{name}.corrupt"
    flags = os.O_WRONLY | os.O_TRUNC | files.BINARY | files.NO_FOLLOW
    with os.fdopen(files.open_file(path, flags), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    logger.critical(
        "AdRoll's journal: %s (%d bytes); they are kept in %s [journal-damaged]",
        told,
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
    """What the last reader left."""
    try:
        # A kill amid the writing may have left the end of a longer one.
        body = body_of((folder / _NOTE).read_bytes().partition(b"\n")[0])
        positions, boot = json.loads(body or b"null")
        return Note({str(name): int(end) for name, end in positions.items()}, boot)
    except (OSError, ValueError, TypeError, AttributeError):  # there is none, or it is damaged
        return Note()


def leave_note(folder: Path, positions: Mapping[str, int]) -> None:
    """Leave a note for the next reader; only whose turn it is does so."""
    line = line_of(json.dumps([dict(positions), files.boot()]).encode())
    flags = os.O_WRONLY | files.BINARY | files.NO_FOLLOW
    with suppress(OSError):  # a full disk: what was noted last counts on
        file = files.open_file(folder / _NOTE, flags)
        try:
            os.write(file, line)
            os.ftruncate(file, len(line))
        finally:
            os.close(file)


@contextmanager
def turn(folder: Path, patience: float = 0.0) -> Iterator[Sequence[JournalFile]]:
    """The files of *folder* for the one who reads them, among all threads of the host; else none.

    One that was stopped (Ctrl-Z) in its turn is passed over :data:`TURN_LASTS` seconds after it
    began, which the lock's file tells; so is one that was killed and whose child lives on with the
    lock. Positions move in transactions, which alone see to it that an entry becomes a row once.
    Amid a transaction it holds the database's locks, on SQLite all of it, until it goes on
    (PostgreSQL ends the transaction); ``check`` names who holds a locked file.

    :param patience: seconds to wait for it.
    :raises OSError: the folder cannot be read.
    """
    lock = folder / _TURN
    try:
        file = files.open_file(lock, os.O_RDWR | files.BINARY | files.NO_FOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        yield ()
        return
    try:
        until = monotonic() + patience
        while not (is_mine := files.hold(file)) and monotonic() < until:
            time.sleep(0.005)
        if is_mine:
            with suppress(FileNotFoundError):  # the folder was removed
                os.utime(lock)
        began = os.fstat(file).st_mtime
        yield files_of(folder) if is_mine or abs(time.time() - began) > TURN_LASTS else ()
    finally:
        files.let_go(file)
        os.close(file)


def waiting_bytes(folder: Path) -> int:
    """Bytes of the journal that nobody has taken in yet, as far as was noted; cheap.

    :raises OutboxFailed: the folder may not be looked at.
    """
    try:
        found = files_of(folder)
    except OSError as problem:
        raise OutboxFailed("read_only", type(problem).__name__) from None
    positions = last_note(folder).positions
    return sum(max(0, file.size - positions.get(file.name, 0)) for file in found)
