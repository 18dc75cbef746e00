"""From the journal into the outbox: records become rows, each exactly once.

Rows and the files' read positions are written in one transaction; the index drops duplicates.
Whoever delivers does this; so do commands, before they look. One process of a host at a time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from math import ceil
from pathlib import Path
from typing import Final

from adroll_flask.counters import Counters
from adroll_flask.errors import help_url
from adroll_flask.logs import Logger, get_logger
from adroll_flask.plurals import counted

from . import journal_files, old_spill
from .database import Database, Tx
from .giving_way import each
from .journal_files import JournalFile
from .journal_format import host_identity
from .ownership import make_folder
from .protocol import OutboxFailed
from .read_positions import Batch, JournalMoved, doubted, move, positions_of, weight_of
from .record_format import BATCH, EventRecord, Record, decode, encode
from .rows import Lease, RowWriter, Written

logger: Logger = get_logger("adroll_flask.outbox")
audit: Logger = get_logger("adroll_flask.audit")

#: Bytes that one transaction takes at most, and files that it looks into.
_MOST_BYTES: Final = 4 << 20
_FILES: Final = 200
#: Bytes that are read of a file at least.
_LEAST_BYTES: Final = 1 << 14
#: Seconds that a read waits for another process that reads the journal.
_PATIENCE: Final = 2.0
#: Seconds between two looks whether the writers of files that are read to their end have gone.
_CLEAN_EVERY: Final = 2.0
#: Seconds between two measurements of what waits in the outbox, for the size bound.
_WEIGH_EVERY: Final = 5.0
#: Seconds between two looks for a spill file of an older version, by those who deliver.
_OLD_EVERY: Final = 60.0
#: Seconds between two lines in the log about what cannot be read.
_COMPLAIN_EVERY: Final = 60.0


class Ingest:
    """Takes the records of one host's journal into the outbox.

    :param folder: of the journal.
    :param instance: the folder where an older version's spill file may be.
    :param rows: writes them.
    :param announce: called in each transaction that takes events in.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        instance: Path,
        rows: RowWriter,
        counters: Counters,
        *,
        announce: Callable[[Tx], None] | None = None,
    ) -> None:
        self._database = database
        self._folder = folder
        self._instance = instance
        self.rows = rows
        self._counters = counters
        self._announce = announce
        #: How far files were read, as this process knows; another may have read on.
        self._positions: dict[str, int] = {}
        #: Files that hold nothing whole behind their position, by their size: a torn end, say.
        self._ended: dict[str, int] = {}
        #: How far files were read according to the note of whoever read last.
        self._noted: Mapping[str, int] = {}
        self._gone: list[str] = []
        self._clean_at = self._weigh_at = self._complain_at = self._old_at = float("-inf")
        #: What waits in the outbox, in bytes.
        self._weight = 0
        #: Bytes of a record in the last batch.
        self._record_bytes = 1000.0
        #: Of each process; setdefault is atomic, so no lock is needed that a fork leaves locked.
        self._turns: dict[int, threading.Lock] = {}

    # -- reading ----------------------------------------------------------------------------

    @contextmanager
    def reading(self, patience: float = 0.0) -> Iterator[Reading]:
        """Hold the right to read this host's journal; without it, there is nothing to read."""
        with ExitStack() as held:
            files: Sequence[JournalFile] = ()
            try:
                is_old = self._is_old_due()
                if is_old:
                    make_folder(self._folder)
                if self._folder.is_dir() and self._alone(held, time.monotonic() + patience):
                    if is_old:
                        self._take_in_old()
                    files = journal_files.files(self._folder)
            except OSError as problem:
                self._unreadable(self._folder, problem)
            yield Reading(self, files)

    def _is_old_due(self) -> bool:
        """Whether an older version left a spill file, or leaves one during a deployment."""
        if time.monotonic() < self._old_at:
            return False
        self._old_at = time.monotonic() + _OLD_EVERY
        return old_spill.exists(self._instance)

    def _take_in_old(self) -> None:
        try:
            old_spill.take_in(self._instance, self._write_old)
        except OSError as problem:
            self._unreadable(self._instance, problem)

    def _alone(self, held: ExitStack, until: float) -> bool:
        """Be the one reader, of this process's threads and of the host's processes."""
        turn = self._turns.setdefault(os.getpid(), threading.Lock())
        if not turn.acquire(timeout=max(0.0, until - time.monotonic())):
            return False
        held.callback(turn.release)
        while True:
            with ExitStack() as lock:
                if lock.enter_context(journal_files.reading(self._folder)):
                    held.push(lock.pop_all())
                    return True
            if time.monotonic() >= until:
                return False
            time.sleep(0.005)

    def _unreadable(self, path: Path, problem: OSError) -> None:
        """Go on without what cannot be read: another user's file, a damaged disk."""
        self._counters.add("journal_unreadable")
        if time.monotonic() >= self._complain_at:
            self._complain_at = time.monotonic() + _COMPLAIN_EVERY
            logger.critical(
                "AdRoll's journal cannot be read, what is in it waits: %s: %s (%s)",
                path,
                problem.strerror or type(problem).__name__,
                help_url("journal-unreadable"),
            )

    def read(self, files: Sequence[JournalFile], most: int) -> Batch:
        """The next records of *files*; an empty batch where there is nothing."""
        known, ended = self._positions, self._ended
        unread = [
            file
            for file in files
            if file.size > known.get(file.name, -1) and file.size != ended.get(file.name)
        ]
        for start in range(0, len(unread), _FILES):
            # Where this process knows nothing yet, many files may be read already.
            batch = self._read(unread[start : start + _FILES], most)
            if batch:
                return batch
        self._clean(files)
        return Batch(gone=list(self._gone))

    def _read(self, files: Sequence[JournalFile], most: int) -> Batch:
        batch = Batch()
        known = self._positions
        room = _MOST_BYTES
        names = [file.name for file in files]
        found = self._database.read(lambda tx: positions_of(tx, names))
        noted = journal_files.noted_usage(self._folder)
        self._noted = noted.positions
        for file in files:
            old = found.get(file.name)
            position = old or 0
            known_before = noted.positions.get(file.name, 0)
            while file.size > position and len(batch.records) < most and room > 0:
                in_doubt = position < known_before
                left = most - len(batch.records)
                # Enough for so many, by the last ones' size; if not, this loop reads on.
                enough = _LEAST_BYTES + ceil(1.25 * left * self._record_bytes)
                try:
                    read = journal_files.read(
                        file,
                        position,
                        max_records=left,
                        max_bytes=min(room, enough),
                        until=known_before if in_doubt else None,
                    )
                    records = list(self._decoded(read))
                except OSError as problem:
                    self._unreadable(file.path, problem)
                    break
                if in_doubt:
                    same_boot = noted.boot == host_identity()
                    records = [doubted(record, same_boot=same_boot) for record in records]
                batch.records += records
                if read.end_offset == position:
                    if read.ended and not in_doubt:
                        self._ended[file.name] = file.size
                    break
                room -= read.end_offset - position
                position = read.end_offset
            if position != old and position:
                batch.moves[file.name] = old, position
            else:
                known[file.name] = position
        return batch

    def _clean(self, files: Sequence[JournalFile]) -> None:
        """Remove files that are read to their end and whose writers have gone."""
        if time.monotonic() < self._clean_at:
            return
        self._clean_at = time.monotonic() + _CLEAN_EVERY
        # An older copy may have taken the database's place meanwhile, and knows of less.
        names = [file.name for file in files]
        found = self._database.read(lambda tx: positions_of(tx, names))
        for name, position in self._positions.items():
            self._positions[name] = min(position, found.get(name, 0))
        there = set()
        for file in files:
            with suppress(OSError):
                if journal_files.remove(file, self._positions.get(file.name, 0)):
                    self._gone.append(file.name)
                    continue
            there.add(file.name)
        for known in (self._positions, self._ended):
            for name in known.keys() - there:
                del known[name]

    def _decoded(self, read: journal_files.Batch) -> Iterator[Record]:
        for corrupt in read.corrupt:
            self._counters.add("journal_corrupt")
            journal_files.move_aside(self._folder, corrupt)
        for data in each(read.records):
            try:
                yield decode(data)
            except (ValueError, IndexError, TypeError, KeyError, AttributeError):
                self._put_aside(data, "is not one that this version knows")

    def _put_aside(self, data: bytes, why: str) -> None:
        refused = journal_files.CorruptRecord("refused", time.time_ns(), data)
        path = journal_files.move_aside(self._folder, refused)
        self._counters.add("journal_refused")
        logger.critical(
            "a journal record %s; it is kept in %s (%s)", why, path, help_url("journal-damaged")
        )

    # -- writing ----------------------------------------------------------------------------

    def write(self, tx: Tx, batch: Batch, lease: Lease | None = None) -> Written:
        """Write *batch* and its positions; the first events under *lease*, where there is one."""
        for name, (old, new) in batch.moves.items():
            move(tx, name, old, new)
        if batch.gone:
            tx.execute("DELETE FROM adroll_journal WHERE file {in_ids}", ids=batch.gone)
        written = self.rows.write(tx, batch.records, lease)
        if written.queued and self._announce is not None:
            self._announce(tx)
        return written

    def committed(self, batch: Batch, written: Written | None) -> None:
        """What follows the commit of *batch*."""
        read = 0
        for name, (old, new) in batch.moves.items():
            self._positions[name] = new
            read += new - (old or 0)
        if batch.records and read:
            self._record_bytes = max(1.0, read / len(batch.records))
        if batch.moves:
            # With each batch, so that a database that is replaced is noticed.
            self._note()
        self._gone = [name for name in self._gone if name not in batch.gone]
        if written is not None:
            self._count(written)

    def _count(self, written: Written) -> None:
        if written.forgotten:
            self._counters.add("event_forgotten", amount=written.forgotten)
            audit.warning(
                "AdRoll: %s erased on request, by the visitor's own request (%s)",
                counted(written.forgotten, "event"),
                help_url("visitor-erased"),
            )
        if not written.duplicates:
            return
        self._counters.add("event_duplicate", "", written.duplicates)
        if written.changed:
            self._counters.add("event_duplicate", "another_value", written.changed)
            logger.warning(
                "AdRoll events reported before with another value, the first is kept: %d (%s)",
                written.changed,
                help_url("reported-with-another-value"),
            )

    def _write_one(self, record: Record, tx: Tx) -> Written:
        return self.rows.write(tx, [record])

    def write_singly(self, batch: Batch) -> None:
        """The database refuses *batch* because of one row: that one is put aside, the others
        come in. Each is in the outbox once, whatever happens in between: its id is."""
        for record in batch.records:
            try:
                self._count(self._database.write(partial(self._write_one, record)))
            except OutboxFailed as failure:
                if failure.reason != "data":
                    raise
                self._put_aside(encode(record), "is refused by the outbox's database")
        rest = Batch([], batch.moves, batch.gone)
        self._database.write(lambda tx: self.write(tx, rest))
        self.committed(rest, None)

    # -- for those who want everything in ---------------------------------------------------

    def take_in(self, most: int = BATCH, *, patience: float = 0.0) -> int:
        """Take in one batch, if nobody else is at it; how many records there were."""
        with self.reading(patience) as reading:
            batch = reading.batch(most)
            if not batch:
                return 0
            try:
                written = self._database.write(lambda tx: self.write(tx, batch))
            except JournalMoved:
                pass  # they are in by now
            except OutboxFailed as failure:
                if failure.reason != "data":
                    raise
                self.write_singly(batch)
            else:
                self.committed(batch, written)
            return len(batch.records)

    def take_in_all(self) -> None:
        """Take in what was reported until now.

        :raises OutboxFailed: the database cannot be worked with.
        """
        self._old_at = float("-inf")
        while self.take_in(patience=_PATIENCE):
            pass

    def _write_old(self, records: Sequence[EventRecord]) -> None:
        batch = Batch(list(records))
        try:
            self.committed(batch, self._database.write(lambda tx: self.write(tx, batch)))
        except OutboxFailed as failure:
            if failure.reason != "data":
                raise
            self.write_singly(batch)

    def bytes_waiting(self) -> int:
        """What lies in the journal and is not known to be taken in; cheap."""
        known, files = self._positions, journal_files.files(self._folder)
        return sum(max(0, file.size - known.get(file.name, 0)) for file in files)

    def records_waiting(self) -> int:
        """How many records lie in the journal, by the size of the last ones; cheap."""
        # The last ones' size counts a share of their file's header.
        return ceil(self.bytes_waiting() / self._record_bytes)

    def note_usage(self) -> None:
        """Tell the writers of this host what waits, for the size bound; now and then."""
        if time.monotonic() < self._weigh_at or not self._folder.is_dir():
            return
        began = time.monotonic()
        self._weight = self._database.read(weight_of)
        self._note()
        # Counting a million rows takes a while: at most for a hundredth of the time.
        self._weigh_at = began + max(_WEIGH_EVERY, 100 * (time.monotonic() - began))

    def _note(self) -> None:
        with suppress(OSError):  # a full disk: what was noted last counts on
            journal_files.note_usage(self._folder, self._positions, self._weight, self._noted)


class Reading:
    """The right to read this host's journal, while it is held."""

    def __init__(self, ingest: Ingest, files: Sequence[JournalFile]) -> None:
        self._ingest = ingest
        self._files = files

    def batch(self, most: int) -> Batch:
        """The next *most* records."""
        return self._ingest.read(self._files, most) if self._files else Batch()
