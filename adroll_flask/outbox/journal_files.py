"""The journal's files, as those see them who read: what is in them, and when they may go.

Reading needs no lock and disturbs no writer. A caller keeps for each file, by its name, how far it
has read, in the same transaction as the records themselves::

    with reading(folder) as alone:
        for file in files(folder) if alone else ():
            batch = read(file, position_of(file.name), max_records=500, max_bytes=1 << 20)
            ...                             # records and batch.end_offset, in one transaction
            if batch.ended:
                remove(file, batch.end_offset)  # does nothing while its writer lives

"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from adroll_flask.errors import help_url
from adroll_flask.logs import Logger, get_logger

from . import journal_locks as locks
from .journal_format import (
    HEADER_LIMIT,
    READABLE,
    SUFFIX,
    UNFINISHED,
    Frames,
    Header,
    decode_header,
    header_of_name,
    host_identity,
    pid_namespace,
    split,
)
from .journal_locks import reading
from .ownership import open_file

__all__ = [
    "Batch",
    "CorruptRecord",
    "JournalFile",
    "Usage",
    "files",
    "move_aside",
    "note_usage",
    "noted_usage",
    "read",
    "reading",
    "remove",
    "waiting_bytes",
]

logger: Logger = get_logger("adroll_flask.outbox")

#: Seconds without a write after which a file is given up whose writer shows no other sign: on
#: another boot or another host, or where the file system has no locks.
QUIET: Final = 900.0
#: Seconds after which a file without a header is nobody's.
_UNFINISHED_AGE: Final = 3600.0
_USAGE: Final = "usage.json"
_ASIDE: Final = ".corrupt"


@dataclass(frozen=True, slots=True)
class JournalFile:
    """One file of a journal.

    :param name: unique for good; the key of its read position.
    :param size: bytes, when it was listed.
    """

    name: str
    path: Path
    size: int

    def is_alive(self) -> bool:
        """True while its writer may still append. Only a file that is not may be removed."""
        try:
            opened = _Opened(self)
        except FileNotFoundError:
            return False
        with opened:
            return opened.is_alive()


@dataclass(frozen=True, slots=True)
class CorruptRecord:
    """Bytes of a file that are no whole record.

    :param name: of the file.
    :param offset: in the file.
    """

    name: str
    offset: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """What :func:`read` found.

    :param end_offset: where the next reading begins.
    :param ended: nothing whole follows at present.
    :param newer_version: the file's, where a newer release wrote it: it is left to that one.
    """

    records: list[bytes] = field(repr=False)
    end_offset: int
    corrupt: list[CorruptRecord] = field(default_factory=list)
    ended: bool = False
    newer_version: int | None = None


def files(folder: Path) -> list[JournalFile]:
    """All files of a journal, oldest first; opens none of them."""
    found: list[tuple[int, JournalFile]] = []
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    with entries:
        for entry in entries:
            name, suffix = os.path.splitext(entry.name)
            header = header_of_name(name) if suffix in (SUFFIX, UNFINISHED) else None
            if header is None:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
                if suffix == SUFFIX:
                    file = JournalFile(name, folder / entry.name, status.st_size)
                    found.append((header.created, file))
                elif time.time() - status.st_mtime > _UNFINISHED_AGE:
                    os.unlink(entry.path)  # a kill between making and naming
            except FileNotFoundError:
                continue
    return [file for _, file in sorted(found, key=lambda one: (one[0], one[1].name))]


def read(
    file: JournalFile, offset: int, *, max_records: int, max_bytes: int, until: int | None = None
) -> Batch:
    """Whole records from *offset* on (0: from the beginning).

    A torn end is no error: its record was never acknowledged, or is being written. Damage in the
    middle is reported, and what follows it is read.

    :param max_bytes: bounds what is held in memory, save for a single record that is larger.
    :param until: where to stop at the latest: an earlier batch's end.
    :raises OSError: the file cannot be read.
    """
    try:
        opened = _Opened(file)
    except FileNotFoundError:  # another reader was done with it
        return Batch([], offset, ended=True)
    with opened:
        return opened.read(offset, max_records, max_bytes, until)


def remove(file: JournalFile, read_to: int) -> bool:
    """Remove a file that has been read to *read_to*.

    :returns: ``False`` where its writer lives, or something whole follows *read_to*.
    """
    try:
        opened = _Opened(file)
    except FileNotFoundError:
        return True
    with opened:
        if opened.is_alive() or opened.header.version not in READABLE:
            return False
        rest = opened.read(read_to, 1, 1 << 20)
        if rest.records or rest.corrupt:
            return False
        if locks.HAS_FLOCK:
            file.path.unlink(missing_ok=True)
            return True
    try:
        file.path.unlink(missing_ok=True)  # Windows: only once it is closed
    except PermissionError:
        return False
    return True


def move_aside(folder: Path, corrupt: CorruptRecord) -> Path:
    """Keep the bytes of a corrupt record in a file of its own. Once more does no harm."""
    path = folder / f"{corrupt.name}-{corrupt.offset}{_ASIDE}"
    _replace(path, corrupt.data)
    logger.error(
        "%d bytes at %d of the journal file %s are damaged; they are kept in %s (%s)",
        len(corrupt.data),
        corrupt.offset,
        corrupt.name,
        path,
        help_url("journal-damaged"),
    )
    return path


# -- what only a reader knows -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """What a reader tells the writers, and the readers after it.

    :param positions: how far each file has been taken into an outbox.
    :param outbox_bytes: what waits in the outbox, for the size bound.
    :param boot: of this host, at the time.
    """

    positions: Mapping[str, int] = field(default_factory=dict)
    outbox_bytes: int = 0
    boot: str = ""


def note_usage(
    folder: Path,
    positions: Mapping[str, int],
    outbox_bytes: int,
    before: Mapping[str, int] | None = None,
) -> None:
    """Tell what only a reader knows: see :class:`Usage`.

    :param before: positions that were noted before. What an older database that took this one's
        place has yet to read again stays noted as read: it is in doubt.
    """
    further = {
        name: end
        for name, end in (before or {}).items()
        if end > positions.get(name, 0) and (folder / f"{name}{SUFFIX}").exists()
    }
    note = {
        "positions": {**positions, **further},
        "outbox_bytes": outbox_bytes,
        "boot": host_identity(),
    }
    _replace(folder / _USAGE, json.dumps(note).encode(), durable=False)


def noted_usage(folder: Path) -> Usage:
    """What :func:`note_usage` told last."""
    try:
        note = json.loads((folder / _USAGE).read_bytes())
        positions = {str(name): int(end) for name, end in note["positions"].items()}
        return Usage(positions, int(note["outbox_bytes"]), str(note.get("boot", "")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Usage()


def waiting_bytes(folder: Path) -> int:
    """Bytes of the journal that nobody has taken in yet, as far as was noted."""
    positions = noted_usage(folder).positions
    return sum(max(0, file.size - positions.get(file.name, 0)) for file in files(folder))


def _replace(path: Path, data: bytes, *, durable: bool = True) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    handle = open_file(new, os.O_WRONLY | os.O_TRUNC | locks.BINARY | locks.NO_FOLLOW)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(handle)
    os.replace(new, path)


# -- one opened file --------------------------------------------------------------------------


class _Opened:
    def __init__(self, file: JournalFile) -> None:
        self._file = file
        self._open_elsewhere = not locks.HAS_FLOCK and locks.is_open(file.path)
        handle = os.open(file.path, os.O_RDONLY | locks.BINARY | locks.NO_FOLLOW)
        self._handle = os.fdopen(handle, "rb", buffering=0)
        start = self._at(0, HEADER_LIMIT)
        # Where the header is damaged, what the name says is enough to find every record.
        header = decode_header(start) or header_of_name(file.name)
        if header is None:
            raise ValueError(f"{file.path} is no journal file")
        self.header: Header = header

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def _at(self, offset: int, size: int) -> bytes:
        self._handle.seek(offset)
        return self._handle.read(size) or b""

    def _is_of_this_boot(self) -> bool:
        return bool(self.header.host) and self.header.host == host_identity()

    def is_alive(self) -> bool:
        header = self.header
        here = self._is_of_this_boot()
        if here and header.namespace == pid_namespace() != 0 and locks.is_gone(header.pid):
            return False  # whoever holds the lock inherited it, and will never write
        if self._open_elsewhere or locks.is_held(self._handle.fileno()):
            return True
        if here and header.locked:
            return False
        # No lock to go by. A living writer looks whether its file is still there before it goes
        # on after a pause, so that giving up a quiet one too early costs nothing.
        return abs(time.time() - os.fstat(self._handle.fileno()).st_mtime) < QUIET

    def read(
        self, offset: int, max_records: int, max_bytes: int, until: int | None = None
    ) -> Batch:
        header = self.header
        if header.version not in READABLE:
            return Batch([], offset, ended=True, newer_version=header.version)
        start = max(offset, header.size)
        # The pages of a file that another host is writing may arrive here in any order: what
        # looks damaged may only be late.
        patient = header.size > 0 and not self._is_of_this_boot() and self.is_alive()
        wanted = max_bytes
        while True:
            data = self._at(start, wanted if until is None else max(0, min(wanted, until - start)))
            size = os.fstat(self._handle.fileno()).st_size  # by now: a writer may be at it
            last = start + len(data) >= (size if until is None else min(size, until))
            found = split(
                data,
                0,
                header,
                max_records=max_records,
                last=last,
                damage="stop" if patient else "skip",
            )
            if found.end or last or found.ended:
                return self._batch(found, data, start)
            wanted *= 2

    def _batch(self, found: Frames, data: bytes, start: int) -> Batch:
        corrupt = [
            CorruptRecord(self._file.name, start + begin, data[begin:end])
            for begin, end in found.damaged
        ]
        return Batch(found.records, start + found.end, corrupt, found.ended)
