"""The journal's files as those see them who read: what is in them, and when they may go.

Reading needs no lock and disturbs no writer. How far a file is read stands in the database, in the
transaction that took its entries in. Beside it, whoever reads leaves a note in ``reader.note``
(who, when, how far): a database that is not the one which took entries in is noticed by it.

A file is named ``<made, ms>-<PID>-<where the PID means something>-<random>.journal``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from adroll_flask.logs import Logger, get_logger

from . import files
from .entries import body_of, line_of

logger: Logger = get_logger("adroll_flask.outbox")

SUFFIX: Final = ".journal"
#: Seconds without a write after which a file is given up whose writer shows no other sign: on
#: another boot or another host, or where the file system has no locks.
QUIET: Final = 900.0
#: Digits of a file's scope that name the boot; the rest name the PID namespace.
_BOOT: Final = 8
#: Seconds after which a file that was never named is nobody's.
_UNNAMED_AGE: Final = 3600.0
#: Seconds without a new note after which the one who holds the turn is taken for stopped.
TURN_LASTS: Final = 10.0
_NAME: Final = re.compile(r"(\d{13,15})-(\d{1,10})-([0-9a-f]{12})-[0-9a-f]{16}")
_TURN: Final = "reader.lock"
_NOTE: Final = "reader.note"


def _scope() -> str:
    """Where a PID of this process means something: this boot, this PID namespace."""
    parts = ((files.boot(), 4), (str(files.pid_namespace()), 2))
    return "".join(
        hashlib.blake2b(part.encode(), digest_size=size).hexdigest() for part, size in parts
    )


def file_name(created: int, pid: int) -> str:
    """The name of a file that a process makes; nobody else can make the same."""
    return f"{created:013d}-{pid}-{_scope()}-{os.urandom(8).hex()}{SUFFIX}"


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
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    with entries:
        for entry in entries:
            name, suffix = os.path.splitext(entry.name)
            if suffix not in (SUFFIX, ".new") or not _NAME.fullmatch(name):
                continue
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if suffix == SUFFIX:
                    found.append(JournalFile(name, folder / entry.name, status.st_size))
                elif time.time() - status.st_mtime > _UNNAMED_AGE:
                    os.unlink(entry.path)  # a kill between making and naming
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
    if rest and until is None and reached_end and not is_alive(file):
        body = body_of(rest[:-1])  # the end of the last line is what is damaged
        if body is not None:
            found.bodies.append(body)
        else:
            found.damaged.append((found.end, rest))
        found.end += len(rest)
    return found


def is_alive(file: JournalFile) -> bool:
    """True while the file's writer may still append. Only a file that is not may be removed."""
    match = _NAME.fullmatch(file.name)
    scope = _scope()
    here = match is not None and match[3][:_BOOT] == scope[:_BOOT]  # and so are its locks
    if match is not None and match[3] == scope and files.is_gone(int(match[2])):
        return False  # whoever holds the lock inherited it, and will never write
    if not files.HAS_FLOCK:
        return files.is_open(file.path)
    try:
        handle = os.open(file.path, os.O_RDONLY | files.BINARY | files.NO_FOLLOW)
    except FileNotFoundError:
        return False
    try:
        held = files.is_held(handle)
        if held is not None and (held or here):
            return held
        # No lock to go by. A living writer looks whether its file is still there before it goes
        # on after a pause, so that giving up a quiet one too early costs nothing.
        return abs(time.time() - os.fstat(handle).st_mtime) < QUIET
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
    new = path.with_suffix(f".{os.getpid()}.tmp")
    flags = os.O_WRONLY | os.O_TRUNC | files.BINARY | files.NO_FOLLOW
    with os.fdopen(files.open_file(new, flags), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    logger.critical(
        "AdRoll's journal: %s (%d bytes); they are kept in %s [journal-damaged]",
        told,
        len(data),
        path,
    )


# -- whose turn it is to read ----------------------------------------------------------------------


@dataclass(slots=True)
class Note:
    """What the last reader left.

    :param positions: how far each file has been taken into a database.
    :param boot: of this host, at the time.
    :param pid: the reader's.
    :param at: when it was left, seconds since the epoch.
    """

    positions: Mapping[str, int] = field(default_factory=dict)
    boot: str = ""
    pid: int = 0
    at: float = 0.0


def last_note(folder: Path) -> Note:
    """What the last reader left."""
    try:
        body = body_of((folder / _NOTE).read_bytes().rstrip(b"\n"))
    except OSError:
        return Note()
    if body is None:
        return Note()
    try:
        positions, boot, pid, at = json.loads(body)
        return Note({str(name): int(end) for name, end in positions.items()}, boot, pid, at)
    except (ValueError, TypeError, AttributeError):
        return Note()


def leave_note(folder: Path, positions: Mapping[str, int]) -> None:
    """Leave a note for the next reader; only whose turn it is does so."""
    line = line_of(json.dumps([dict(positions), files.boot(), os.getpid(), time.time()]).encode())
    flags = os.O_WRONLY | files.BINARY | files.NO_FOLLOW
    with suppress(OSError):  # a full disk: what was noted last counts on
        file = files.open_file(folder / _NOTE, flags)
        try:
            os.write(file, line)
            os.ftruncate(file, len(line))
        finally:
            os.close(file)


@contextmanager
def turn(folder: Path, patience: float = 0.0) -> Iterator[bool]:
    """Be the one reader of *folder* among the host's processes; ``False``: another one is.

    One that was stopped (Ctrl-Z) while it had its turn is passed over when it has left no note for
    :data:`TURN_LASTS` seconds. Positions move in transactions, which alone see to it that an entry
    becomes a row once. Amid a transaction it holds the database's locks, on SQLite all of it, until
    it goes on (PostgreSQL ends the transaction); ``check`` names who holds a locked file.

    :param patience: seconds to wait for it.
    :raises OSError: the folder cannot be read.
    """
    try:
        file = files.open_file(folder / _TURN, os.O_RDWR | files.BINARY | files.NO_FOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        yield False
        return
    try:
        until = time.monotonic() + patience
        mine = files.take_turn(file)
        while not mine and time.monotonic() < until:
            time.sleep(0.005)
            mine = files.take_turn(file)
        note = last_note(folder)
        lasts = time.time() - note.at
        if mine and (note.pid != os.getpid() or lasts > 1):
            leave_note(folder, note.positions)
        # Who has passed over a stopped one before goes on, having left the last note.
        yield mine or (bool(note.at) and (note.pid == os.getpid() or lasts > TURN_LASTS))
    finally:
        os.close(file)


def waiting_bytes(folder: Path) -> int:
    """Bytes of the journal that nobody has taken in yet, as far as was noted."""
    positions = last_note(folder).positions
    return sum(max(0, file.size - positions.get(file.name, 0)) for file in files_of(folder))
