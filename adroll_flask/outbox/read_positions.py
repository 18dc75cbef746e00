"""What is read of this host's journal at a time, and how far it was, as the database knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .database import Tx, one
from .protocol import OutboxFailed
from .record_format import EventRecord, Record
from .states import ROW_BYTES

#: Reason and words of a dead letter that another database had taken in.
_DOUBT: Final = (
    "restored",
    "the outbox's database is not the one that took this event in; it may have been sent. Retry it"
    " only if it was not.",
)


@dataclass(slots=True)
class Batch:
    """Records that were read together, and how far their files are read with them."""

    records: list[Record] = field(default_factory=list)
    #: By file: the position before, ``None`` for a file that the outbox does not know, and after.
    moves: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    #: Files that are gone, whose positions need not be known any more.
    gone: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.records or self.moves or self.gone)


class JournalMoved(OutboxFailed):
    """The journal was read on by another reader since a batch was read; nothing is written."""

    def __init__(self) -> None:
        super().__init__("locked", "another process has read the journal")


def doubted(record: Record, *, same_boot: bool) -> Record:
    """A record that an outbox took in whose database knows nothing of it any more.

    After a power cut it has lost its last moments: the event may have been sent, and is sent again
    with the mark. Otherwise it was removed, or an older copy took its place, for as long ago as
    may be: the event rests as a dead letter until somebody says that it is to be sent.
    """
    if isinstance(record, EventRecord) and record.dead is None:
        if same_boot:
            record.dead = _DOUBT
        else:
            record.unsure = True
    return record


def positions_of(tx: Tx, names: list[str]) -> dict[str, int]:
    rows = tx.rows("SELECT file, position FROM adroll_journal WHERE file {in_ids}", ids=names)
    return {name: int(position) for name, position in rows}


def move(tx: Tx, name: str, old: int | None, new: int) -> None:
    if old is None:
        moved = tx.execute(
            "{insert} adroll_journal (file, position, read_at)"
            " VALUES (:file, :position, :now) {or_ignore}",
            file=name,
            position=new,
            now=tx.now,
        )
    else:
        moved = tx.execute(
            "UPDATE adroll_journal SET position = :new, read_at = :now"
            " WHERE file = :file AND position = :old",
            new=new,
            old=old,
            file=name,
            now=tx.now,
        )
    if not moved:
        # A commit whose answer was lost, a lock that this file system does not keep, or another
        # app of this process on the same folder.
        raise JournalMoved


def weight_of(tx: Tx) -> int:
    """Bytes of the events that wait, are dead or held, from their number and the newest hundred."""
    total = 0.0
    for state in (0, 4, 5):
        count = int(one(tx.rows("SELECT count(*) FROM adroll_event WHERE state = :s", s=state)))
        if count:
            mean = one(
                tx.rows(
                    "SELECT avg(size) FROM (SELECT length(payload) AS size FROM adroll_event"
                    " WHERE state = :s ORDER BY due_at DESC LIMIT 100) AS newest",
                    s=state,
                )
            )
            total += count * (float(mean or 0) + ROW_BYTES)
    return int(total)
