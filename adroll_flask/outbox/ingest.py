"""From the journal and the inbox into the outbox: entries become rows, each exactly once.

Rows and the files' read positions are written in one transaction; the index drops duplicates. What
a shop's own transaction, or ``ADROLL_OUTBOX_COMMIT="database"``, put into ``adroll_inbox`` is taken
from there in the same way: its rows go in the transaction that makes events of them, so that one
that is committed late is not passed over. Whoever delivers does this; so do commands, before they
look. One process of a host at a time reads the journal.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Final, TypeVar

from adroll_flask.counters import Counters
from adroll_flask.forks import PerProcess, each
from adroll_flask.logs import Logger, get_logger
from adroll_flask.plurals import counted

from . import files, journal_reader
from .database import Database, Tx, insert_into, one
from .entries import Entry, EventEntry, Verdict, body_of, decode, encode
from .holds import DOUBT
from .journal_reader import JournalFile, Note
from .rows import RowWriter, Written
from .values import BATCH, ROW_BYTES, OutboxFailed

logger: Logger = get_logger("adroll_flask.outbox")
audit: Logger = get_logger("adroll_flask.audit")

T = TypeVar("T")

#: Bytes that one transaction takes at most, and files that it looks into.
_MOST_BYTES: Final = 4 << 20
_FILES: Final = 200
#: Bytes that are read of a file at least.
_LEAST_BYTES: Final = 1 << 14
#: Seconds that a read waits for another process that reads the journal.
_PATIENCE: Final = 2.0
#: Seconds between two looks whether the writers of files that are read to their end have gone.
_CLEAN_EVERY: Final = 2.0
#: Seconds between two lines in the log about what cannot be read.
_COMPLAIN_EVERY: Final = 60.0
_REFUSED: Final = "an entry is refused by the outbox's database"


@dataclass(slots=True)
class Batch:
    """What one transaction takes in.

    :param files: of the journal, which nobody else reads meanwhile.
    :param entries: that were read of them.
    :param moves: by file, from where to where it is read with them.
    """

    files: Sequence[JournalFile]
    entries: list[Entry] = field(default_factory=list)
    moves: dict[str, tuple[int, int]] = field(default_factory=dict)
    written: list[Written] = field(default_factory=list)

    @property
    def room(self) -> int:
        """Bytes of the journal that the transaction may take yet."""
        return _MOST_BYTES - sum(new - old for old, new in self.moves.values())


class Ingest:
    """Takes one host's journal, and the inbox, into the outbox.

    :param folder: of the journal.
    :param rows: writes them.
    """

    def __init__(
        self, database: Database, folder: Path, rows: RowWriter, counters: Counters
    ) -> None:
        self._database = database
        self._folder = folder
        self.rows = rows
        self._counters = counters
        #: How far files were read, as this process knows; another may have read on.
        self._positions: dict[str, int] = {}
        self._clean_at = self._complain_at = float("-inf")
        #: Bytes of an entry in the last batch.
        self._entry_bytes = 1000.0
        #: One thread of this process reads at a time.
        self._turns = PerProcess(threading.Lock)

    # -- reading ----------------------------------------------------------------------------

    @contextmanager
    def reading(self, patience: float) -> Iterator[Sequence[JournalFile]]:
        """The files of this host's journal, while nobody else reads them; else none."""
        with ExitStack() as held:
            found: Sequence[JournalFile] = ()
            try:
                if self._folder.is_dir() and self._take_turn(held, patience):
                    found = journal_reader.files_of(self._folder)
            except OSError as problem:
                self._complain(self._folder, problem)
            yield found

    def _take_turn(self, held: ExitStack, patience: float) -> bool:
        until = time.monotonic() + patience
        lock = self._turns.own()
        if not lock.acquire(timeout=patience):
            return False
        held.callback(lock.release)
        return held.enter_context(journal_reader.turn(self._folder, until - time.monotonic()))

    def _complain(self, path: Path, problem: OSError) -> None:
        """Go on without what cannot be read: another user's file, a damaged disk."""
        self._counters.add("journal_unreadable")
        if time.monotonic() >= self._complain_at:
            self._complain_at = time.monotonic() + _COMPLAIN_EVERY
            logger.critical(
                "AdRoll's journal cannot be read, what is in it waits: %s: %s [journal-unreadable]",
                path,
                problem.strerror or type(problem).__name__,
            )

    def has_news(self, found: Sequence[JournalFile]) -> bool:
        """Whether there is something to take in of *found*."""
        self._clean(found)
        return bool(self._unread(Batch(found)))

    def _unread(self, batch: Batch) -> list[JournalFile]:
        known = self._positions | {name: end for name, (_, end) in batch.moves.items()}
        return [file for file in batch.files if file.size > known.get(file.name, 0)]

    def _read(self, tx: Tx, batch: Batch, most: int) -> tuple[list[Entry], bool]:
        """The next entries of *batch*'s files, and whether any file is read further with them."""
        entries: list[Entry] = []
        room, has_moved = batch.room, False
        unread = self._unread(batch)
        note = journal_reader.last_note(self._folder) if unread else Note()
        for start in range(0, len(unread), _FILES):
            # Where this process knows nothing yet, many files may be read already.
            files = unread[start : start + _FILES]
            positions = _lock(tx, [file.name for file in files])
            for file in files:
                old = position = positions[file.name]
                noted = note.positions.get(file.name, 0)
                while file.size > position and room > 0 and len(entries) < most:
                    left = most - len(entries)
                    is_doubtful = position < noted
                    # Enough for so many, by the last ones' size; if not, this loop reads on.
                    enough = _LEAST_BYTES + ceil(1.25 * left * self._entry_bytes)
                    try:
                        read = journal_reader.read(
                            file,
                            position,
                            most=left,
                            most_bytes=min(room, enough),
                            until=noted if is_doubtful else None,
                        )
                        found = self._decoded(file, read)
                    except OSError as problem:
                        self._complain(file.path, problem)
                        break
                    entries += [doubted(entry, note) for entry in found] if is_doubtful else found
                    if read.end == position:
                        break
                    room -= read.end - position
                    position = read.end
                batch.moves[file.name] = batch.moves.get(file.name, (old,))[0], position
                if position > old:
                    _move(tx, file.name, position)
                    has_moved = True
            if has_moved:
                break
        return entries, has_moved

    def _clean(self, found: Sequence[JournalFile]) -> None:
        """Remove files that are read to their end and whose writers have gone."""
        if not found or time.monotonic() < self._clean_at:
            return
        self._clean_at = time.monotonic() + _CLEAN_EVERY
        # An older copy may have taken the database's place meanwhile, and knows of less.
        names = [file.name for file in found]
        known = self._database.read(lambda tx: _positions_of(tx, names))
        gone = []
        for file in found:
            with suppress(OSError):
                if journal_reader.remove(file, known.get(file.name, 0)):
                    gone.append(file.name)
        self._positions = known
        forget = "DELETE FROM adroll_journal WHERE file {in_ids}"
        with suppress(OutboxFailed):  # then housekeeping does, long after
            if gone:
                self._database.write(lambda tx: tx.execute(forget, ids=gone))

    def _decoded(self, file: JournalFile, read: journal_reader.Read) -> list[Entry]:
        for offset, data in read.damaged:
            self._counters.add("journal_corrupt")
            told = f"a line at {offset} of the file {file.name} is damaged"
            journal_reader.keep_aside(self._folder, f"{file.name}-{offset}", data, told)
        found = [self._decode(body) for body in each(read.bodies)]
        return [entry for entry in found if entry is not None]

    def _decode(self, body: bytes) -> Entry | None:
        try:
            return decode(body)
        except (ValueError, IndexError, TypeError, KeyError, AttributeError):
            self._refuse(body, "an entry is not one that this version knows")
            return None

    def _refuse(self, data: bytes, told: str) -> None:
        self._counters.add("journal_refused")
        journal_reader.keep_aside(self._folder, f"refused-{zlib.crc32(data):08x}", data, told)

    # -- writing ----------------------------------------------------------------------------

    def run(self, found: Sequence[JournalFile], function: Callable[[Tx, Batch], T]) -> T:
        """Run *function*, which calls :meth:`write`, in a transaction and commit it."""
        batch = Batch(found)

        def begin(tx: Tx) -> T:
            nonlocal batch
            batch = Batch(found)
            return function(tx, batch)

        while True:
            try:
                result = self._database.write(begin)
            except OutboxFailed as failure:
                if failure.reason != "data" or not self._write_singly(batch):
                    raise
            else:
                self._committed(batch)
                return result

    def write(self, tx: Tx, batch: Batch, most: int = BATCH, doubt: Note | None = None) -> int:
        """Take the next entries in, *most* of the journal; how many. 0: nothing is left.

        :param doubt: all of it may have been taken in by another database, see :func:`doubted`.
        """
        entries, has_moved = self._read(tx, batch, most)
        batch.entries += entries
        entries = entries + self._from_inbox(tx)
        if doubt is not None:
            entries = [doubted(entry, doubt) for entry in entries]
        batch.written.append(self.rows.write(tx, entries))
        return max(len(entries), has_moved)

    def _from_inbox(self, tx: Tx, id: str | None = None) -> list[Entry]:
        """Take the next entries out, or one."""
        mine = "" if id is None else " WHERE id = :id"
        found = tx.rows(
            f"SELECT id, line FROM adroll_inbox{mine} ORDER BY id LIMIT {BATCH} {{skip_locked}}",
            **({} if id is None else {"id": id}),
        )
        if found:
            tx.execute("DELETE FROM adroll_inbox WHERE id {in_ids}", ids=[row[0] for row in found])
        bodies = (body_of(bytes(line).rstrip(b"\n")) for _id, line in found)
        entries = [self._decode(body or b"") for body in bodies]
        return [entry for entry in entries if entry is not None]

    def _committed(self, batch: Batch) -> None:
        self._positions |= {name: end for name, (_, end) in batch.moves.items()}
        if batch.entries:
            self._entry_bytes = (_MOST_BYTES - batch.room) / len(batch.entries)
        if batch.moves:
            # With each batch, so that a database that is replaced is noticed; also where the commit
            # of the same batch took effect before and its answer was lost.
            self._leave_note()
        for written in batch.written:
            self._count(written)

    def _leave_note(self) -> None:
        """Tell how far files are read.

        What an older database that took this one's place has yet to read again stays noted as read:
        it is in doubt.
        """
        before = journal_reader.last_note(self._folder).positions
        there = {file.name for file in journal_reader.files_of(self._folder)}
        names = (self._positions.keys() | before.keys()) & there
        journal_reader.leave_note(
            self._folder,
            {name: max(self._positions.get(name, 0), before.get(name, 0)) for name in names},
        )

    def _count(self, written: Written) -> None:
        if written.forgotten:
            self._counters.add("event_forgotten", amount=written.forgotten)
            audit.warning(
                "AdRoll: %s erased on request, by the visitor's own request [visitor-erased]",
                counted(written.forgotten, "event"),
            )
        if not written.duplicates:
            return
        self._counters.add("event_duplicate", "", written.duplicates)
        if written.changed:
            self._counters.add("event_duplicate", "another_value", written.changed)
            logger.warning(
                "AdRoll events reported before with another value, the first is kept: %d "
                "[reported-with-another-value]",
                written.changed,
            )

    def _write_singly(self, batch: Batch) -> bool:
        """The database refuses *batch* because of one row: that one is put aside, the others
        come in. Each is in the outbox once, whatever happens in between: its id is.

        :returns: whether there was any.
        """
        for entry in batch.entries:
            self._write_alone(lambda _, entry=entry: [entry], encode(entry))  # type: ignore[misc]
        self._database.write(partial(_move_all, batch.moves))
        first = f"SELECT id, line FROM adroll_inbox ORDER BY id LIMIT {BATCH}"
        lines = self._database.read(lambda tx: tx.rows(first))
        for id, line in lines:
            take_out = partial(self._from_inbox, id=id)
            if not self._write_alone(take_out, bytes(line)):
                self._database.write(take_out)
        return bool(batch.entries or lines)

    def _write_alone(self, take: Callable[[Tx], list[Entry]], line: bytes) -> bool:
        """True where the database takes it."""
        try:
            self._count(self._database.write(lambda tx: self.rows.write(tx, take(tx))))
        except OutboxFailed as failure:
            if failure.reason != "data":
                raise
            self._refuse(line, _REFUSED)
            return False
        return True

    # -- for those who want everything in ---------------------------------------------------

    def take_in(self, most: int = BATCH, *, patience: float = 0.0) -> int:
        """Take in one batch, if nobody else is at it; 0 where nothing is left.

        :param patience: seconds to wait where another process is at it.
        :raises OutboxFailed: the database cannot be worked with.
        """
        with self.reading(patience) as found:
            if not self.has_news(found) and not self._database.read(is_inbox_full):
                return 0
            return self.run(found, lambda tx, batch: self.write(tx, batch, most))

    def take_in_all(self) -> None:
        """Take in what was reported until now.

        :raises OutboxFailed: the database cannot be worked with.
        """
        while self.take_in(patience=_PATIENCE):
            pass

    def rest(self) -> None:
        """Take in all that lies here as what another database may have sent, for a copy."""
        note = Note(boot=files.boot())
        with self.reading(_PATIENCE) as found:
            while self.run(found, lambda tx, batch: self.write(tx, batch, doubt=note)):
                pass

    def bytes_waiting(self) -> int:
        """What lies in the journal and is not known to be taken in; cheap."""
        return journal_reader.waiting_bytes(self._folder)

    def entries_waiting(self) -> int:
        """How many entries lie in the journal, by the size of the last ones; cheap."""
        return ceil(self.bytes_waiting() / self._entry_bytes)

    def weigh(self) -> int:
        """Bytes of the events that wait, are dead or held, by their number and the newest ones."""
        return self._database.read(_weight_of)


def doubted(entry: Entry, note: Note) -> Entry:
    """An entry that an outbox took in whose database knows nothing of it any more.

    After a power cut it has lost its last moments: the event may have been sent, and is sent again
    with the mark. Otherwise it was removed, or an older copy took its place, for as long ago as
    may be: the event rests as a dead letter until somebody says that it is to be sent.
    """
    same_boot = note.boot == files.boot()
    if isinstance(entry, EventEntry) and entry.dead is None:
        if same_boot:
            entry.dead = ("restored", DOUBT)
        else:
            entry.unsure = True
    elif isinstance(entry, Verdict) and entry.kind == "release":
        entry.doubt = "rests" if same_boot else "unsure"
    return entry


def _positions_of(tx: Tx, names: list[str], lock: str = "") -> dict[str, int]:
    """How far each of these files is read."""
    query = f"SELECT file, position FROM adroll_journal WHERE file {{in_ids}} {lock}"
    rows = tx.rows(query, ids=names)
    return {name: int(position) for name, position in rows}


def _lock(tx: Tx, names: list[str]) -> dict[str, int]:
    """The same, while nobody else moves them: a reader that was passed over comes to itself, or
    another app of this process has the same folder."""
    known = _positions_of(tx, names, lock="{lock}")
    new = [{"file": name, "position": 0, "read_at": tx.now} for name in names if name not in known]
    if new:
        tx.many(insert_into("adroll_journal", new[0]), new)
        known = _positions_of(tx, names, lock="{lock}")
    return known


def _move(tx: Tx, name: str, position: int) -> None:
    tx.execute(
        "UPDATE adroll_journal SET position = :position, read_at = :now"
        " WHERE file = :file AND position < :position",
        file=name,
        position=position,
        now=tx.now,
    )


def _move_all(moves: Mapping[str, tuple[int, int]], tx: Tx) -> None:
    _lock(tx, [*moves])
    for name, (_, position) in moves.items():
        _move(tx, name, position)


def is_inbox_full(tx: Tx) -> bool:
    """Whether anything waits in the inbox."""
    return bool(tx.rows("SELECT 1 FROM adroll_inbox LIMIT 1"))


def _weight_of(tx: Tx) -> int:
    total = 0.0
    for state in (0, 4, 5):
        count = int(one(tx.rows("SELECT count(*) FROM adroll_event WHERE state = :s", s=state)))
        if count:
            mean = one(
                tx.rows(
                    "SELECT avg(size) FROM (SELECT length(payload) AS size FROM adroll_event"
                    " WHERE state = :s ORDER BY id DESC LIMIT 100) AS newest",
                    s=state,
                )
            )
            total += count * (float(mean or 0) + ROW_BYTES)
    return int(total)
