"""From the journal and the inbox into the outbox: entries become rows, each exactly once.

Rows and the files' read positions are written in one transaction; the index drops duplicates. What
a shop's own transaction, or ``ADROLL_OUTBOX_COMMIT="database"``, put into ``adroll_inbox`` is taken
from there in the same way. The inbox has no read position: its rows are deleted in the transaction
that makes events of them. So a row that is committed late is not passed over. Whoever delivers
takes entries in; so do commands, before they look. One process of a host at a time reads the
journal.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from msgspec import MsgspecError

from adroll_flask.counters import Counters
from adroll_flask.forks import each
from adroll_flask.logs import Logger, get_logger
from adroll_flask.plurals import counted

from . import holds, journal, local_files, model, schema
from .model import BATCH, NewEvent, OutboxFailed, State
from .older_copy import OlderCopy
from .rows import RowWriter, Written
from .schema import T, Tx, first_value

logger: Logger = get_logger("adroll_flask.outbox")
audit: Logger = get_logger("adroll_flask.audit")

#: What a row takes beside its payload, roughly.
ROW_BYTES: Final = 256
#: Bytes that one transaction takes at most.
_MOST_BYTES: Final = 4 << 20
#: Bytes that are read of a file at a time: a hundred events of the usual size.
_READ_BYTES: Final = 1 << 17
#: Seconds that a look waits for another process that reads the journal.
PATIENCE: Final = 2.0
#: Seconds between two checks whether the writers of files that are read to their end have gone.
_CLEAN_EVERY: Final = 2.0
#: Seconds between two lines in the log about what cannot be read.
_COMPLAIN_EVERY: Final = 60.0
#: Events that one line in the log names.
_NAMED: Final = 10
#: What decoding raises for an entry that this version does not know; msgspec's error was no
#: ValueError before 0.19.
_NO_ENTRY: Final = (MsgspecError, ValueError, LookupError, TypeError, AttributeError)
_TAKE_OUT: Final = "DELETE FROM adroll_inbox WHERE id {in_ids}"


@dataclass(slots=True)
class Intake:
    """What one transaction takes in.

    :param files: of the journal, which nobody else reads meanwhile.
    :param room: bytes of the files that the transaction may still take in.
    :param entries: the entries that were read from the journal and the inbox.
    :param positions: by the file's name, how far the file is read with these entries.
    :param inbox: ids of the rows that were taken out of the inbox.
    :param written: what came of writing the entries.
    :param looked_to: by the file's name, how far it was searched by :meth:`Ingest.write_stops`.
    """

    files: Sequence[journal.JournalFile]
    room: int = _MOST_BYTES
    entries: list[model.Entry] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    inbox: list[str] = field(default_factory=list)
    written: Written = field(default_factory=Written)
    looked_to: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Ingest:
    """Takes one host's journal, and the inbox, into the outbox.

    :param folder: of the journal.
    :param rows: writes them.
    """

    database: schema.Database
    folder: Path
    rows: RowWriter
    counters: Counters
    #: How far files were read, as this process knows; another may have read on.
    _positions: dict[str, int] = field(default_factory=dict)
    #: How far the files that are read in part were searched, see :meth:`write_stops`.
    _looked_to: dict[str, int] = field(default_factory=dict)
    _clean_at: float = float("-inf")
    _complain_at: float = float("-inf")
    #: Notices that an older copy has taken the outbox's place.
    older_copy: OlderCopy = field(init=False)

    def __post_init__(self) -> None:
        self.older_copy = OlderCopy(self.database, self.folder, self._take_in_inbox)

    # -- reading ----------------------------------------------------------------------------

    @contextmanager
    def reading(self, patience: float) -> Iterator[Sequence[journal.JournalFile]]:
        """The files of this host's journal, while nobody else reads them; else none."""
        with ExitStack() as turn:
            files: Sequence[journal.JournalFile] = ()
            try:
                files = turn.enter_context(journal.turn(self.folder, patience))
            except OSError as problem:
                self._complain(self.folder, problem)
            yield files

    def _complain(self, path: Path, problem: OSError) -> None:
        """Go on without what cannot be read: another user's file, a damaged disk."""
        self.counters.add("journal_unreadable")
        if time.monotonic() >= self._complain_at:
            self._complain_at = time.monotonic() + _COMPLAIN_EVERY
            logger.critical(
                "AdRoll's journal cannot be read, what is in it waits: %s: %s [journal-unreadable]",
                path,
                problem.strerror or type(problem).__name__,
            )

    def has_news(self, files: Sequence[journal.JournalFile]) -> bool:
        """Whether there is something to take in of *files*. Now and then it removes those that were
        read to their end."""
        self._clean(files)
        return bool(self._unread(Intake(files)))

    def _unread(self, intake: Intake) -> list[journal.JournalFile]:
        positions = self._positions | intake.positions
        return [file for file in intake.files if file.size > positions.get(file.name, 0)]

    def _read(self, tx: Tx, intake: Intake, most: int) -> tuple[list[model.Entry], bool]:
        """The next entries of *intake*'s files, and whether any file is read further with them."""
        entries: list[model.Entry] = []
        has_moved = False
        unread = self._unread(intake)
        if not unread:
            return entries, has_moved
        positions = _lock_positions(tx, [file.name for file in unread])
        note = journal.last_note(self.folder)
        for file in unread:
            begin = positions[file.name]
            new, end = self._read_file(file, begin, most - len(entries), intake.room, note)
            entries += new
            intake.room -= end - begin
            intake.positions[file.name] = end
            if end > begin:
                _move_position(tx, file.name, end)
                has_moved = True
        return entries, has_moved

    def _read_file(
        self, file: journal.JournalFile, begin: int, most: int, room: int, note: journal.Note
    ) -> tuple[list[model.Entry], int]:
        """The next entries of one file, and where they end.

        :param begin: how far the database has taken the file in.
        :param note: the last reader's. If its position in the file is after *begin*, the entries
            between the two were taken in before, and the database has lost them. Such entries are
            in doubt.
        """
        entries: list[model.Entry] = []
        end = begin
        known_to = note.positions.get(file.name, 0)
        while file.size > end and end - begin < room and len(entries) < most:
            wanted = most - len(entries)
            try:
                part = journal.read_part(
                    file, end, most=wanted, most_bytes=_READ_BYTES, known_to=known_to
                )
                entries += self._entries_of(file, part, note)
            except OSError as problem:
                self._complain(file.path, problem)
                break
            if part.end == end:
                break  # the last line is being written
            end = part.end
        return entries, end

    def _clean(self, files: Sequence[journal.JournalFile]) -> None:
        """Remove files that are read to their end and whose writers have gone."""
        if not files or time.monotonic() < self._clean_at:
            return
        self._clean_at = time.monotonic() + _CLEAN_EVERY
        # The positions are read again: an older copy may have taken the database's place meanwhile.
        # Then less of the files may be taken in than this process believes.
        names = [file.name for file in files]
        self._positions = self.database.read(lambda tx: _positions_of(tx, names))
        removed = []
        for file in files:
            with suppress(OSError):
                if journal.remove(file, self._positions.get(file.name, 0)):
                    removed.append(file.name)
        forget = "DELETE FROM adroll_journal WHERE file {in_ids}"
        with suppress(OutboxFailed):  # then housekeeping does, long after
            if removed:
                self.database.write(lambda tx: tx.execute(forget, ids=removed))

    def _entries_of(
        self, file: journal.JournalFile, part: journal.Part, note: journal.Note
    ) -> list[model.Entry]:
        for offset, data in part.damaged:
            self.counters.add("journal_corrupt")
            what = f"a line at {offset} of the file {file.name} is damaged"
            journal.keep_aside(self.folder, f"{file.name}-{offset}", data, what)
        before = self._decoded(part.bodies[: part.before])
        new = self._decoded(part.bodies[part.before :])
        return [*(doubted(entry, note) for entry in before), *new]

    def _decoded(self, bodies: Iterable[bytes]) -> Iterator[model.Entry]:
        for body in each(bodies):
            try:
                yield model.decode(body)
            except _NO_ENTRY:
                self._refuse(body, "an entry is not one that this version knows")

    def _refuse(self, data: bytes, what: str) -> None:
        self.counters.add("journal_refused")
        journal.keep_aside(self.folder, f"refused-{zlib.crc32(data):08x}", data, what)

    # -- writing ----------------------------------------------------------------------------

    def run(self, files: Sequence[journal.JournalFile], function: Callable[[Tx, Intake], T]) -> T:
        """Run *function*, which calls :meth:`write`, in a transaction and commit it."""
        intake = Intake(files)

        def begin(tx: Tx) -> T:
            nonlocal intake
            intake = Intake(files)  # the transaction may have to run again
            self.older_copy.look(tx)
            return function(tx, intake)

        while True:
            try:
                result = self.database.write(begin)
            except OutboxFailed as failure:
                if failure.reason != "data" or not self._write_singly(intake):
                    raise
            else:
                self._committed(intake)
                return result

    def write(self, tx: Tx, intake: Intake, most: int = BATCH) -> int:
        """Take in the next entries: at most *most* of the journal, and a batch of the inbox.

        :returns: how many; 0: nothing is left. 1 where files were read further without an entry.
        """
        entries, has_moved = self._read(tx, intake, most)
        entries += self._from_inbox(tx, intake)
        intake.entries += entries
        self.rows.write(tx, entries, intake.written)
        return max(len(entries), int(has_moved))

    def write_stops(self, tx: Tx, intake: Intake) -> None:
        """Write the cancellations and withdrawals that are in the files behind what was read.

        What is to be sent now may be stopped by one of them. It may come before the event that it
        stops, and it is written once more when it is read in its turn: neither makes a difference.
        Each process searches a file once.
        """
        stops: list[model.Entry] = []
        positions = self._positions | intake.positions
        for file in intake.files:
            end = max(positions.get(file.name, 0), self._looked_to.get(file.name, 0))
            while file.size > end:
                try:
                    part = journal.read_part(file, end, most=_READ_BYTES, most_bytes=_READ_BYTES)
                except OSError:
                    break  # the file's reading complains of it
                stops += self._decoded(filter(model.may_stop, part.bodies))
                if part.end == end:
                    break  # the last line is being written
                end = part.end
            intake.looked_to[file.name] = end
        self.rows.write(tx, [entry for entry in stops if _stops(entry)], intake.written)

    def _take_in_inbox(self, tx: Tx) -> None:
        inbox = Intake(())
        while self.write(tx, inbox):
            pass

    def _from_inbox(self, tx: Tx, intake: Intake) -> Iterator[model.Entry]:
        """Take the next entries out of the inbox."""
        query = f"SELECT id, line FROM adroll_inbox ORDER BY id LIMIT {BATCH} {{skip_locked}}"
        rows = tx.rows(query)
        ids = [id for id, _ in rows]
        if ids:
            tx.execute(_TAKE_OUT, ids=ids)
        intake.inbox += ids
        # A damaged line is decoded as it is: that fails, and it is kept aside.
        return self._decoded(model.body_of(line) or line for _, line in rows)

    def _committed(self, intake: Intake) -> None:
        self._positions |= intake.positions
        if intake.looked_to:
            self._looked_to = intake.looked_to
        if intake.positions:
            # The note is written with each batch. It shows a later reader that another database has
            # taken the place of this one. A position in the note never goes back: if an older
            # database reads entries before that position again, they are in doubt.
            noted = journal.last_note(self.folder).positions
            read = {
                file.name: max(self._positions.get(file.name, 0), noted.get(file.name, 0))
                for file in intake.files
            }
            journal.leave_note(self.folder, read)
        self._count(intake.written)

    def _count(self, written: Written) -> None:
        if written.erased:
            self.counters.add("event_forgotten", amount=written.erased)
            audit.warning(
                "AdRoll: %s erased on request, by the visitor's own request [visitor-erased]",
                counted(written.erased, "event"),
            )
        if written.duplicates:
            self.counters.add("event_duplicate", amount=written.duplicates)
        if written.changed:
            self.counters.add("event_duplicate", "another_value", len(written.changed))
            ids = list(dict.fromkeys(written.changed))
            logger.warning(
                "AdRoll: %s reported before with another value, the first stays: %s "
                "[reported-with-another-value]",
                counted(len(ids), "event"),
                ", ".join(ids[:_NAMED]),
            )

    def _write_singly(self, intake: Intake) -> bool:
        """Write the entries of *intake* one by one, since the database refuses one of them.

        An entry that is refused is put aside, and the others come in. If this is interrupted and
        the entries are read again, no event is in the outbox twice: its id is unique there.

        :returns: whether there was any entry.
        """
        for entry in intake.entries:
            written = Written()
            write = partial(self.rows.write, entries=[entry], written=written)
            try:
                self.database.write(write)
            except OutboxFailed as failure:
                if failure.reason != "data":
                    raise
                self._refuse(model.encode(entry), "an entry is refused by the outbox's database")
            else:
                self._count(written)
        self.database.write(partial(_mark_taken_in, intake))
        return bool(intake.entries)

    # -- for those who want everything in ---------------------------------------------------

    def take_in(self, most: int = BATCH, *, patience: float = 0.0) -> int:
        """Take in one batch; returns how many entries came in. 0: there was nothing to take in.

        Where another process reads the journal, only the inbox is taken in.

        :param patience: seconds to wait for another process that reads the journal.
        :raises OutboxFailed: the database cannot be worked with.
        """
        with self.reading(patience) as files:
            if not self.has_news(files) and not self.database.read(has_inbox_entries):
                return 0
            return self.run(files, lambda tx, intake: self.write(tx, intake, most))

    def take_in_all(self, until: float = float("inf")) -> None:
        """Take in what was reported until now.

        :param until: by ``time.monotonic()``: no batch begins after that, but for the first.
        :raises OutboxFailed: the database cannot be worked with.
        """
        while self.take_in(patience=min(PATIENCE, until - time.monotonic())):
            if time.monotonic() >= until:
                return

    def weigh(self) -> int:
        """Bytes of what waits, is dead or is held, estimated by the size of the newest events."""
        return self.database.read(_weight_of)


def doubted(entry: model.Entry, note: journal.Note) -> model.Entry:
    """Mark *entry* as doubtful: it was taken in before, and the database has lost it.

    If the host has booted since *note* was left, a power cut may have cost the database its last
    moments. The event may have been sent. It is sent again with the mark ``unsure``.

    If the host has not booted since, the database was removed, or an older copy took its place.
    Nobody knows how old that copy is. The event becomes a dead letter until somebody says that it
    is to be sent.

    A held event stays held in both cases, with the mark ``unsure``: nothing sends it before its
    release. The release is marked as doubtful in the same way.
    """
    same_boot = note.boot == local_files.boot()
    if isinstance(entry, NewEvent) and entry.dead is None:
        if same_boot and entry.held_for is None:
            entry.dead = ("restored", holds.DOUBT)
        else:
            entry.unsure = True
    elif isinstance(entry, model.Verdict) and entry.kind == "release":
        entry.doubt = "rests" if same_boot else "unsure"
    return entry


def _stops(entry: model.Entry) -> bool:
    is_cancellation = isinstance(entry, model.Verdict) and entry.kind == "cancel"
    return is_cancellation or isinstance(entry, model.Withdrawal)


def _positions_of(tx: Tx, names: list[str], lock: str = "") -> dict[str, int]:
    """How far each of these files is read."""
    query = f"SELECT file, position FROM adroll_journal WHERE file {{in_ids}} {lock}"
    return {name: int(position) for name, position in tx.rows(query, ids=names)}


def _lock_positions(tx: Tx, names: list[str]) -> dict[str, int]:
    """Lock the read positions of these files, and return them. A file without one gets 0.

    There may be a second reader: a reader that was stopped in its turn goes on, or another app of
    this process has the same folder.
    """
    positions = _positions_of(tx, names, lock="{lock}")
    # In one statement, since after an outage there are thousands of files.
    new = [
        {"file": name, "position": 0, "read_at": tx.now} for name in names if name not in positions
    ]
    if new:
        schema.insert_all(tx, "adroll_journal", new)
        positions = _positions_of(tx, names, lock="{lock}")
    return positions


def _move_position(tx: Tx, name: str, position: int) -> None:
    tx.execute(
        "UPDATE adroll_journal SET position = :position, read_at = :now"
        " WHERE file = :file AND position < :position",
        file=name,
        position=position,
    )


def _mark_taken_in(intake: Intake, tx: Tx) -> None:
    """Note that all of *intake* is taken in, without writing it."""
    _lock_positions(tx, [*intake.positions])
    for name, position in intake.positions.items():
        _move_position(tx, name, position)
    tx.execute(_TAKE_OUT, ids=intake.inbox)


def has_inbox_entries(tx: Tx) -> bool:
    """Whether anything waits in the inbox."""
    return bool(tx.rows("SELECT 1 FROM adroll_inbox LIMIT 1"))


def _weight_of(tx: Tx) -> int:
    total = float(first_value(tx.rows("SELECT sum(length(line)) FROM adroll_inbox")) or 0)
    for state in (State.waiting, State.dead, State.held):
        here = f"FROM adroll_event WHERE state = {state}"
        newest = f"SELECT length(payload) AS size {here} ORDER BY id DESC LIMIT 100"
        count = int(first_value(tx.rows(f"SELECT count(*) {here}")))
        mean = first_value(tx.rows(f"SELECT avg(size) FROM ({newest}) AS newest")) if count else 0
        total += count * (float(mean or 0) + ROW_BYTES)
    return int(total)
