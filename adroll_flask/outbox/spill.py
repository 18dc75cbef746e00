"""The spill file: where an event goes that the database did not take.

Append-only JSON lines, each on the disk before the report returns. Any number of processes append;
the next claim on this host renames the file, reads it into the outbox, and removes it. Reading the
same line twice does no harm, since an event's id is in the outbox once.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from .protocol import NewEvent, OutboxFailed

logger = logging.getLogger("adroll_flask.outbox")

#: Seconds that a report waits for others that append.
PATIENCE: Final = 0.5
_BATCH: Final = 200
_LINE: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Spilled:
    """One line of the file.

    :param at: when it was spilled, by this host's clock, seconds since the epoch.
    :param dead: reason and error of a dead letter, or ``None``.
    """

    event: NewEvent
    at: float
    dead: tuple[str, str] | None = None


class SpillFile:
    """One host's spill file.

    :param path: of the file; ``….reading`` and ``….lock`` appear beside it.
    :param max_bytes: of the file; 0: no bound.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self.path = path
        self._reading = Path(f"{path}.reading")
        self._progress = Path(f"{path}.progress")
        self._lock = Path(f"{path}.lock")
        self._bad = Path(f"{path}.bad")
        self._max_bytes = max_bytes

    # -- writing ----------------------------------------------------------------------------

    def append(self, spilled: Spilled) -> None:
        """Keep one event; it is on the disk when this returns.

        :raises OutboxFailed: it is not.
        """
        line = encode(spilled)
        try:
            with self._opened() as file:
                self._append(file, line)
        except OSError as exc:
            raise OutboxFailed(_reason_of(exc), "and the spill file did not take it") from exc

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The present file, locked. A reader may rename it between open and lock."""
        deadline = time.monotonic() + PATIENCE
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            made = not self.path.exists()
            file = os.open(
                self.path,
                os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
            try:
                _lock(file, deadline)
                if _is_at(file, self.path):
                    if made:
                        _sync_folder(self.path.parent)
                    yield file
                    return
            finally:
                os.close(file)
            if time.monotonic() > deadline:
                raise OutboxFailed("locked")

    def _append(self, file: int, line: bytes) -> None:
        size = os.fstat(file).st_size
        if self._max_bytes and size + len(line) > self._max_bytes:
            raise OutboxFailed("full")
        try:
            written = os.write(file, line)
            if written != len(line):
                raise OSError(28, "short write")  # ENOSPC: what a full disk takes is a piece
            os.fsync(file)
        except OSError:
            # Not acknowledged, so it must not come back either.
            os.ftruncate(file, size)
            raise

    # -- reading ----------------------------------------------------------------------------

    def exists(self) -> bool:
        """True where there is something to read back."""
        return self.path.exists() or self._reading.exists()

    def size(self) -> int:
        """Bytes in the file and in what is being read back."""
        total = 0
        for path in (self.path, self._reading):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
        return total

    def drain(
        self,
        take: Callable[[Sequence[Spilled]], None],
        *,
        batches: int | None = None,
    ) -> int:
        """Hand all events to *take* and remove the file; returns how many there were.

        One process at a time does this, others return 0 at once. A process that dies in the middle
        leaves the rest, and at most one batch twice, to the next.

        :param take: commits a batch to the outbox; what it raises ends the reading.
        :param batches: how many to read at most; default: all.
        """
        if not self.exists():
            return 0
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0
            count = 0
            while self._reading.exists() or self._set_aside():
                read, batches = self._read(take, batches)
                count += read
                if batches == 0:
                    break
            return count
        finally:
            os.close(lock)

    def _set_aside(self) -> bool:
        """Take the file away from those who append; False where there is none."""
        if not self.path.exists():
            return False
        with self._opened():
            self._progress.unlink(missing_ok=True)
            self.path.rename(self._reading)
            _sync_folder(self.path.parent)
        return True

    def _read(
        self, take: Callable[[Sequence[Spilled]], None], batches: int | None
    ) -> tuple[int, int | None]:
        count = 0
        with self._reading.open("rb") as file:
            file.seek(self._done())
            while batches is None or batches > 0:
                batch, ended = self._next_batch(file)
                if batch:
                    take(batch)
                    count += len(batch)
                if ended:
                    self._reading.unlink()
                    self._progress.unlink(missing_ok=True)
                    break
                self._note(file.tell())
                if batches is not None:
                    batches -= 1
        return count, batches

    def _next_batch(self, file: Any) -> tuple[list[Spilled], bool]:
        batch: list[Spilled] = []
        end = file.tell() + _LINE
        while len(batch) < _BATCH and file.tell() < end:
            line = file.readline(_LINE)
            if not line:
                return batch, True
            if not line.strip():
                continue
            try:
                batch.append(decode(line))
            except (ValueError, KeyError, TypeError):
                # Torn by a kill or a full disk, and then never acknowledged; kept all the same.
                self.keep_bad(line)
        return batch, False

    def keep_bad(self, line: bytes) -> None:
        """Set a line apart that nobody can read or store."""
        logger.error(
            "a line of %d bytes in the outbox's spill file cannot be read; it is kept in %s",
            len(line),
            self._bad,
        )
        bad = os.open(
            self._bad,
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
        try:
            os.write(bad, line.rstrip(b"\n") + b"\n")
        finally:
            os.close(bad)

    def _done(self) -> int:
        try:
            return int(self._progress.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def _note(self, offset: int) -> None:
        new = Path(f"{self._progress}.new")
        new.write_text(str(offset))
        new.replace(self._progress)


def encode(spilled: Spilled) -> bytes:
    """The line of one event."""
    record: dict[str, Any] = asdict(spilled.event)
    record["payload"] = spilled.event.payload.decode("latin-1")
    record["at"] = spilled.at
    if spilled.dead is not None:
        record["dead"] = spilled.dead
    # The line break before it ends whatever a killed process left half written.
    return b"\n" + json.dumps(record, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Spilled:
    """The event of one line.

    :raises ValueError: (also KeyError, TypeError) it holds none.
    """
    try:
        record = json.loads(line)
    except RecursionError:
        raise ValueError("no JSON of ours is that deep") from None
    if not isinstance(record, dict):
        raise TypeError("not an object")
    at = float(record.pop("at"))
    dead = record.pop("dead", None)
    record["payload"] = record["payload"].encode("latin-1")
    event = NewEvent(**record)
    if len(event.id) != 32 or int(event.id, 16) < 0:
        raise ValueError("not an event's id")
    return Spilled(event, at, None if dead is None else (str(dead[0]), str(dead[1])))


def _lock(file: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OutboxFailed("locked", "and the spill file is, too") from None
            time.sleep(0.002)


def _is_at(file: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(file)
    return (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason_of(exc: OSError) -> str:
    if exc.errno in (28, 122):  # ENOSPC, EDQUOT
        return "disk_full"
    return "read_only" if exc.errno in (1, 13, 30) else "unavailable"  # EPERM, EACCES, EROFS
