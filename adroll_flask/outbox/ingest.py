"""From the journal and the inbox into the outbox: entries become rows, each exactly once.

Rows and the files' read positions are written in one transaction; the index drops duplicates. What
a shop's own transaction, or ``ADROLL_OUTBOX_COMMIT="database"``, put into ``adroll_inbox`` is taken
from there in the same way: its rows go in the transaction that makes events of them, so that one
that is committed late is not passed over. Whoever delivers does this; so do commands, before they
look. One process of a host at a time reads the journal. :class:`RowWriter` is the only maker of
rows.
"""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from adroll_flask import files
from adroll_flask.counters import Counters
from adroll_flask.forks import each
from adroll_flask.logs import Logger, get_logger
from adroll_flask.plurals import counted

from . import destination, history, journal, model, schema, transitions
from .model import BATCH, NewEvent, OutboxFailed, State
from .schema import T, Tx, one

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
#: Seconds between two looks whether the writers of files that are read to their end have gone.
_CLEAN_EVERY: Final = 2.0
#: Seconds between two lines in the log about what cannot be read.
_COMPLAIN_EVERY: Final = 60.0
#: Events that one line in the log names.
_TOLD: Final = 10
_TAKE_OUT: Final = "DELETE FROM adroll_inbox WHERE id {in_ids}"
_REFUSED: Final = "an entry is refused by the outbox's database"


@dataclass(slots=True)
class Batch:
    """What one transaction takes in.

    :param files: of the journal, which nobody else reads meanwhile.
    :param room: bytes of them that it may take yet.
    :param entries: of the journal and the inbox.
    :param positions: by file, how far it is read with them.
    :param inbox: ids of those that were taken out of it.
    :param written: what came of writing them.
    """

    files: Sequence[journal.JournalFile]
    room: int = _MOST_BYTES
    entries: list[model.Entry] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    inbox: list[str] = field(default_factory=list)
    written: Counter[Written] = field(default_factory=Counter)


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
    _clean_at: float = float("-inf")
    _complain_at: float = float("-inf")

    # -- reading ----------------------------------------------------------------------------

    @contextmanager
    def reading(self, patience: float) -> Iterator[Sequence[journal.JournalFile]]:
        """The files of this host's journal, while nobody else reads them; else none."""
        with ExitStack() as turn:
            found: Sequence[journal.JournalFile] = ()
            try:
                found = turn.enter_context(journal.turn(self.folder, patience))
            except OSError as problem:
                self._complain(self.folder, problem)
            yield found

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

    def has_news(self, found: Sequence[journal.JournalFile]) -> bool:
        """Whether there is something to take in of *found*."""
        self._clean(found)
        return bool(self._unread(Batch(found)))

    def _unread(self, batch: Batch) -> list[journal.JournalFile]:
        known = self._positions | batch.positions
        return [file for file in batch.files if file.size > known.get(file.name, 0)]

    def _read(self, tx: Tx, batch: Batch, most: int) -> tuple[list[model.Entry], bool]:
        """The next entries of *batch*'s files, and whether any file is read further with them."""
        entries: list[model.Entry] = []
        has_moved = False
        if not (unread := self._unread(batch)):
            return entries, has_moved
        positions = _lock(tx, [file.name for file in unread])
        note = journal.last_note(self.folder)
        for file in unread:
            begin = end = positions[file.name]
            noted = note.positions.get(file.name, 0)
            while file.size > end and batch.room > 0 and len(entries) < most:
                left, until = most - len(entries), noted if end < noted else None
                try:
                    read = journal.read(file, end, most=left, most_bytes=_READ_BYTES, until=until)
                    found = self._entries(file, read)
                except OSError as problem:
                    self._complain(file.path, problem)
                    break
                entries += found if until is None else [doubted(one, note) for one in found]
                if read.end == end:
                    if until is None:
                        break
                    noted = 0  # a power cut took its end: what is left of it is no whole entry
                    continue
                batch.room -= read.end - end
                end = read.end
            batch.positions[file.name] = end
            if end > begin:
                _move(tx, file.name, end)
                has_moved = True
        return entries, has_moved

    def _clean(self, found: Sequence[journal.JournalFile]) -> None:
        """Remove files that are read to their end and whose writers have gone."""
        if not found or time.monotonic() < self._clean_at:
            return
        self._clean_at = time.monotonic() + _CLEAN_EVERY
        # An older copy may have taken the database's place meanwhile, and knows of less.
        names = [file.name for file in found]
        known = self.database.read(lambda tx: _positions_of(tx, names))
        gone = []
        for file in found:
            with suppress(OSError):
                if journal.remove(file, known.get(file.name, 0)):
                    gone.append(file.name)
        self._positions = known
        forget = "DELETE FROM adroll_journal WHERE file {in_ids}"
        with suppress(OutboxFailed):  # then housekeeping does, long after
            if gone:
                self.database.write(lambda tx: tx.execute(forget, ids=gone))

    def _entries(self, file: journal.JournalFile, read: journal.Read) -> list[model.Entry]:
        for offset, data in read.damaged:
            self.counters.add("journal_corrupt")
            told = f"a line at {offset} of the file {file.name} is damaged"
            journal.keep_aside(self.folder, f"{file.name}-{offset}", data, told)
        return [*self._decoded(read.bodies)]

    def _decoded(self, bodies: Iterable[bytes]) -> Iterator[model.Entry]:
        for body in each(bodies):
            try:
                yield model.decode(body)
            except (ValueError, IndexError, TypeError, KeyError, AttributeError):
                self._refuse(body, "an entry is not one that this version knows")

    def _refuse(self, data: bytes, told: str) -> None:
        self.counters.add("journal_refused")
        journal.keep_aside(self.folder, f"refused-{zlib.crc32(data):08x}", data, told)

    # -- writing ----------------------------------------------------------------------------

    def run(self, found: Sequence[journal.JournalFile], function: Callable[[Tx, Batch], T]) -> T:
        """Run *function*, which calls :meth:`write`, in a transaction and commit it."""
        batch = Batch(found)

        def begin(tx: Tx) -> T:
            nonlocal batch
            batch = Batch(found)
            return function(tx, batch)

        while True:
            try:
                result = self.database.write(begin)
            except OutboxFailed as failure:
                if failure.reason != "data" or not self._write_singly(batch):
                    raise
            else:
                self._committed(batch)
                return result

    def write(self, tx: Tx, batch: Batch, most: int = BATCH) -> int:
        """Take the next entries in, *most* of the journal; how many. 0: nothing is left."""
        entries, has_moved = self._read(tx, batch, most)
        entries += self._from_inbox(tx, batch)
        batch.entries += entries
        batch.written += self.rows.write(tx, entries)
        return max(len(entries), has_moved)

    def _from_inbox(self, tx: Tx, batch: Batch) -> Iterator[model.Entry]:
        """Take the next entries out."""
        query = f"SELECT id, line FROM adroll_inbox ORDER BY id LIMIT {BATCH} {{skip_locked}}"
        rows = tx.rows(query)
        ids = [id for id, _ in rows]
        if ids:
            tx.execute(_TAKE_OUT, ids=ids)
        batch.inbox += ids
        return self._decoded(model.body_of(line.rstrip(b"\n")) or line for _, line in rows)

    def _committed(self, batch: Batch) -> None:
        self._positions |= batch.positions
        if batch.positions:
            # With each batch, so that a database that is replaced is noticed; also where the commit
            # of the same batch took effect before and its answer was lost. What an older database
            # that took this one's place has yet to read again stays noted as read: it is in doubt.
            names = [file.name for file in batch.files]
            known = (self._positions, journal.last_note(self.folder).positions)
            read = {name: max(one.get(name, 0) for one in known) for name in names}
            journal.leave_note(self.folder, read)
        self._count(batch.written)

    def _count(self, written: Counter[Written]) -> None:
        if forgotten := written["forgotten", ""]:
            self.counters.add("event_forgotten", amount=forgotten)
            audit.warning(
                "AdRoll: %s erased on request, by the visitor's own request [visitor-erased]",
                counted(forgotten, "event"),
            )
        if duplicates := written["duplicate", ""]:
            self.counters.add("event_duplicate", amount=duplicates)
        if changed := {id: number for (what, id), number in written.items() if what == "changed"}:
            self.counters.add("event_duplicate", "another_value", sum(changed.values()))
            logger.warning(
                "AdRoll: %s reported before with another value, the first stays: %s "
                "[reported-with-another-value]",
                counted(len(changed), "event"),
                ", ".join([*changed][:_TOLD]),
            )

    def _write_singly(self, batch: Batch) -> bool:
        """The database refuses *batch* because of one row: that one is put aside, the others
        come in. Each is in the outbox once, whatever happens in between: its id is.

        :returns: whether there was any.
        """
        for entry in batch.entries:
            try:
                self._count(self.database.write(partial(self.rows.write, entries=[entry])))
            except OutboxFailed as failure:
                if failure.reason != "data":
                    raise
                self._refuse(model.encode(entry), _REFUSED)
        self.database.write(partial(_pass_over, batch))
        return bool(batch.entries)

    # -- for those who want everything in ---------------------------------------------------

    def take_in(self, most: int = BATCH, *, patience: float = 0.0) -> int:
        """Take in one batch, if nobody else is at it; 0 where nothing is left.

        :param patience: seconds to wait where another process is at it.
        :raises OutboxFailed: the database cannot be worked with.
        """
        with self.reading(patience) as found:
            if not self.has_news(found) and not self.database.read(is_inbox_full):
                return 0
            return self.run(found, lambda tx, batch: self.write(tx, batch, most))

    def take_in_all(self, until: float = float("inf")) -> None:
        """Take in what was reported until now.

        :param until: by ``time.monotonic()``: no batch begins after that, but for the first.
        :raises OutboxFailed: the database cannot be worked with.
        """
        while self.take_in(patience=min(PATIENCE, until - time.monotonic())):
            if time.monotonic() >= until:
                return

    def weigh(self) -> int:
        """Bytes of the events that wait, are dead or held, by their number and the newest ones."""
        return self.database.read(_weight_of)


def doubted(entry: model.Entry, note: journal.Note) -> model.Entry:
    """An entry that an outbox took in whose database knows nothing of it any more.

    After a power cut it has lost its last moments: the event may have been sent, and is sent again
    with the mark. Otherwise it was removed, or an older copy took its place, for as long ago as
    may be: the event rests as a dead letter until somebody says that it is to be sent. One that is
    held stays so: nothing sends it before a release, which has its own doubt.
    """
    same_boot = note.boot == files.boot()
    if isinstance(entry, NewEvent) and entry.dead is None:
        if same_boot and entry.held_for is None:
            entry.dead = ("restored", transitions.DOUBT)
        else:
            entry.unsure = True
    elif isinstance(entry, model.Verdict) and entry.kind == "release":
        entry.doubt = "rests" if same_boot else "unsure"
    return entry


def _positions_of(tx: Tx, names: list[str], lock: str = "") -> dict[str, int]:
    """How far each of these files is read."""
    query = f"SELECT file, position FROM adroll_journal WHERE file {{in_ids}} {lock}"
    return {name: int(position) for name, position in tx.rows(query, ids=names)}


def _lock(tx: Tx, names: list[str]) -> dict[str, int]:
    """The same, while nobody else moves them: a reader that was passed over comes to itself, or
    another app of this process has the same folder."""
    known = _positions_of(tx, names, lock="{lock}")
    # At once, and those that lack alone: after an outage there are thousands of files.
    new = [{"file": name, "position": 0, "read_at": tx.now} for name in names if name not in known]
    if new:
        tx.many(schema.insert_into("adroll_journal", new[0]), new)
        known = _positions_of(tx, names, lock="{lock}")
    return known


def _move(tx: Tx, name: str, position: int) -> None:
    tx.execute(
        "UPDATE adroll_journal SET position = :position, read_at = :now"
        " WHERE file = :file AND position < :position",
        file=name,
        position=position,
    )


def _pass_over(batch: Batch, tx: Tx) -> None:
    """Count all of *batch* as taken in."""
    _lock(tx, [*batch.positions])
    for name, position in batch.positions.items():
        _move(tx, name, position)
    tx.execute(_TAKE_OUT, ids=batch.inbox)


def is_inbox_full(tx: Tx) -> bool:
    """Whether anything waits in the inbox."""
    return bool(tx.rows("SELECT 1 FROM adroll_inbox LIMIT 1"))


def _weight_of(tx: Tx) -> int:
    total = float(one(tx.rows("SELECT sum(length(line)) FROM adroll_inbox")) or 0)
    for state in (State.waiting, State.dead, State.held):
        here = f"FROM adroll_event WHERE state = {state}"
        newest = f"SELECT length(payload) AS size {here} ORDER BY id DESC LIMIT 100"
        count = int(one(tx.rows(f"SELECT count(*) {here}")))
        mean = one(tx.rows(f"SELECT avg(size) FROM ({newest}) AS newest")) if count else 0
        total += count * (float(mean or 0) + ROW_BYTES)
    return int(total)


# -- from entries to rows --------------------------------------------------------------------------

#: What came of an entry: a duplicate, another value than that of the event with this id, an event
#: erased for a visitor's no.
Written: TypeAlias = tuple[Literal["duplicate", "changed", "forgotten"], str]
#: Of what before_report has yet to pass.
_NOT_PASSED: Final = ("invalid:before_report", "invalid:held:before_report")
#: Seconds that count as one moment with a visitor's no: clocks of two hosts are not quite alike,
#: and a transaction has the time of its beginning.
_MOMENT: Final = 1.0


@dataclass(slots=True)
class RowWriter:
    """Writes entries as rows.

    :param withdrawals_kept: seconds for which a withdrawal stops what was learnt before it.
    :param clock: the host's, by which entries have their times; the database has its own.
    """

    holds: transitions.Holds
    withdrawals_kept: float
    clock: Callable[[], float]
    _key: bytes | None = field(default=None, repr=False)
    _read_at: float = 0.0

    def write(self, tx: Tx, entries: Sequence[model.Entry]) -> Counter[Written]:
        """Write *entries* in the order of their times."""
        self._key = None  # the database may be another one since the last time
        self._read_at = self.clock()  # once: events keep their order
        written: Counter[Written] = Counter()
        events = _those(entries, NewEvent)
        if events:
            self._insert(tx, events, written)
        for withdrawal in _those(entries, model.Withdrawal):
            self._withdraw(tx, withdrawal, written)
        if events:
            self._stop_withdrawn(tx, events, written)
        self.holds.decide(tx, _those(entries, model.Verdict))
        counted = _those(entries, model.Counted)
        for entry in counted:
            if entry.order:  # nothing else of it is kept
                at = self._time(tx, entry.at)
                _mark(tx, entry.order, entry.reason[:40], at, history.KEPT)
        history.add(tx, [replace(entry, at=self._time(tx, entry.at)) for entry in counted])
        return written

    def _time(self, tx: Tx, at: float) -> float:
        """A time by the host's clock as the database's has it; none is in the future."""
        return tx.now - max(0.0, self._read_at - at)

    # -- events -----------------------------------------------------------------------------

    def _insert(self, tx: Tx, events: Sequence[NewEvent], written: Counter[Written]) -> None:
        destination.know(tx, {event.advertisable_eid for event in events})
        dead = [event.id for event in events if event.dead is not None]
        # A commit that came late, or another worker, may have brought one in already.
        before = set(schema.ids_of(tx, "id {in_ids}", ids=dead) if dead else ())
        rows = [self.row(tx, event) for event in each(events)]
        others: dict[str, NewEvent] = {}
        if tx.many(schema.insert_into("adroll_event", rows[0]), rows) < len(rows):
            there = set(schema.ids_of(tx, "id {in_ids}", ids=[row["id"] for row in rows]))
            others = {event.id: event for event in events if event.id not in there}
            events = [event for event in events if event.id in there]
        self._count_dead(tx, [event for event in events if event.id not in before])
        self._meet(tx, [*others.values()], written)

    @staticmethod
    def _count_dead(tx: Tx, events: Sequence[NewEvent]) -> None:
        outcomes = {"restored": "dead"}
        ended = {event.id: (event, event.dead[0]) for event in events if event.dead}.values()
        history.add(
            tx, [history.of(event, outcomes.get(why, "invalid"), why) for event, why in ended]
        )

    def row(self, tx: Tx, event: NewEvent) -> dict[str, Any]:
        """One event as the values of its row."""
        reason = error = settled_at = None
        queued_at = due_at = self._time(tx, event.at)
        state = State.waiting
        if event.dead is not None:
            reason, error = event.dead[0][:40], event.dead[1][: model.ERROR_LENGTH]
            state, settled_at, due_at = State.dead, queued_at, tx.kept
        elif event.held_for is not None:
            state, due_at = State.held, queued_at + event.held_for
        key = self._hash_key(tx)
        order = event.advertisable_eid, event.dry_run, event.name, event.key
        return {
            "id": event.id,
            "state": state.value,
            **schema.order_columns(*order),
            "digest": event.digest,
            "payload": event.payload,
            "occurred_at": event.occurred_at,
            "queued_at": queued_at,
            "due_at": due_at,
            "cookie_hash": _hash_in(event.payload, _COOKIE, key),
            "click_hash": _hash_in(event.payload, _CLICK, key),
            "identifiers": event.identifiers,
            "reason": reason,
            "error": error,
            "settled_at": settled_at,
            "unsure": int(event.unsure),
            "learnt_at": event.known_since and self._time(tx, event.known_since),
        }

    def _meet(self, tx: Tx, events: Sequence[NewEvent], written: Counter[Written]) -> None:
        """What becomes of events whose key is taken: by a verdict, a held event, or another."""
        orders = [event.order for event in events if event.order is not None]
        found = schema.of_orders(tx, orders)
        happened = []
        for event in events:
            order = event.order
            if order is None or order not in found:
                # Neither in nor a duplicate: INSERT IGNORE hides what the database objects to.
                raise OutboxFailed("data")
            kept = found[order]
            if kept.state == "decided":
                verdict = transitions.taken_out(tx, kept.id)
                if verdict is None or not schema.insert(tx, "adroll_event", **self.row(tx, event)):
                    raise OutboxFailed("locked", "another process has taken the same order in")
                self._count_dead(tx, [event])
                self.holds.decide(tx, [verdict])
            elif kept.state == "held" and event.held_for is None:
                # A second report, without a hold, says that the held one is to be sent, and has its
                # doubt.
                rests = event.dead is not None and event.dead[0] == "restored"
                verdict = model.Verdict(tx.now, "release", order)
                verdict.doubt = "rests" if rests else "unsure" if event.unsure else ""
                self.holds.decide(tx, [verdict])
            else:
                # An erased event's value is not known any more, and that of what before_report has
                # yet to pass may still change.
                is_known = kept.digest and kept.reason not in _NOT_PASSED
                changed = is_known and kept.digest != event.digest
                written["duplicate", ""] += 1
                if changed:
                    written["changed", kept.id] += 1
                happened.append(history.of(event, "duplicate", "another_value" if changed else ""))
                continue
            found |= schema.of_orders(tx, orders)
        history.add(tx, happened)

    # -- visitors who said no ---------------------------------------------------------------

    def _hash_key(self, tx: Tx) -> bytes:
        """The key of the identifiers' hashes: this outbox's id."""
        if self._key is None:
            self._key = str(schema.meta(tx, "outbox_id")).encode()
        return self._key

    def _withdraw(self, tx: Tx, withdrawal: model.Withdrawal, written: Counter[Written]) -> None:
        """Erase what waits of a visitor, and remember that they said no."""
        at = self._time(tx, withdrawal.at) + _MOMENT
        for column, value in (
            ("cookie_hash", withdrawal.first_party_cookie),
            ("click_hash", withdrawal.adct),
        ):
            if not value:
                continue
            # As in the event's JSON.
            quoted = value.replace("\\", "\\\\").replace('"', '\\"').encode()
            hashed = _hash(quoted, self._hash_key(tx))
            _mark(tx, hashed, "withdrawn", at, self.withdrawals_kept)
            theirs = f"{column} = :visitor AND coalesce(learnt_at, queued_at) <= :at"
            theirs += " AND payload IS NOT NULL"
            self._erase_withdrawn(tx, schema.ids_of(tx, theirs, visitor=hashed, at=at), written)

    def _stop_withdrawn(
        self, tx: Tx, events: Sequence[NewEvent], written: Counter[Written]
    ) -> None:
        """Erase what has just come in of visitors who said no since it was learnt.

        Another process's file may be read after the withdrawal, and a token may come back days
        after it.
        """
        if not tx.rows(f"SELECT 1 FROM adroll_mark WHERE hash >= '{_VISITOR}' LIMIT 1"):
            return
        rows = tx.rows(
            "SELECT DISTINCT e.id FROM adroll_event e JOIN adroll_mark m"
            " ON m.hash IN (e.cookie_hash, e.click_hash) WHERE e.id {in_ids}"
            " AND coalesce(e.learnt_at, e.queued_at) <= m.marked_at",
            ids=[event.id for event in events],
        )
        self._erase_withdrawn(tx, [row[0] for row in rows], written)

    def _erase_withdrawn(self, tx: Tx, ids: list[str], written: Counter[Written]) -> None:
        written["forgotten", ""] += self.erase(tx, ids, "suppressed", "consent_withdrawn")

    def erase(self, tx: Tx, ids: Sequence[str], outcome: str, why: str) -> int:
        """Remove the data of events that are not delivered; how many there were.

        Keys stay, so that a reload does not report the visitor again. Of what is being sent, the
        outcome is still awaited; it is never sent again.

        :param outcome: what the history counts of those that waited, with the reason *why*.
        """
        # What moves at this moment, from one of the states below to another, is waited for.
        schema.ids_of(tx, "id {in_ids} {lock}", ids=ids)
        keyless = "dedupe_key IS NULL AND payload IS NOT NULL"
        move = transitions.move
        gone = move(tx, "drop", ids, also=keyless, outcome=outcome, why=why)
        gone += move(tx, "drop_ended", ids, also=keyless)
        gone += move(tx, "erase_dead", ids, reason="forgotten")
        gone += move(tx, "erase", ids, outcome=outcome, why=why, reason="forgotten")
        return gone + move(tx, "empty", ids, reason="forgotten")


def _mark(tx: Tx, hash: str, reason: str, at: float, kept: float) -> None:
    """Remember of an order or a visitor, for *kept* seconds, why it is not to be sent."""
    # Files are read in any order: a later withdrawal, which stops more, stays.
    tx.execute("DELETE FROM adroll_mark WHERE hash = :hash AND marked_at <= :at", hash=hash, at=at)
    mark = {"hash": hash, "reason": reason, "marked_at": at, "forget_at": tx.now + kept}
    schema.insert(tx, "adroll_mark", **mark)


def _those(entries: Sequence[model.Entry], kind: type[T]) -> list[T]:
    """Those of *kind*, the oldest first."""
    found = [entry for entry in entries if isinstance(entry, kind)]
    return sorted(found, key=attrgetter("at"))


# -- keyed hashes of a waiting event's identifiers -------------------------------------------------

#: Where an event's JSON, which is ours, has the identifiers that an erasure asks for. No text in
#: JSON can hold these bytes: its quotes are escaped.
_COOKIE: Final = b'"first_party_cookie":"'
_CLICK: Final = b'"adct":"'
#: What the hash of a visitor begins with: behind those of orders, which are hex digits alone, so
#: that a look finds by the primary key whether there is any.
_VISITOR: Final = "w"
_TEXT: Final = re.compile(rb'([^"\\]*(?:\\.[^"\\]*)*)"')


def _hash_in(payload: bytes, name: bytes, key: bytes) -> str | None:
    # Most events lack one of the two, and to look for plain bytes is much faster than for a
    # pattern.
    start = payload.find(name)
    value = None if start < 0 else _TEXT.match(payload, start + len(name))
    return None if value is None else _hash(value[1], key)


def _hash(value: bytes, key: bytes) -> str:
    return _VISITOR + hashlib.blake2b(value, digest_size=16, key=key).hexdigest()[:31]
