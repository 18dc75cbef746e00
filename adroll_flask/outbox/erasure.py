"""What a visitor's no erases: what waits of them, and what comes in later.

A withdrawal erases the events of its visitor that are not delivered, and stays as a mark for as
long as a token may be used: what was learnt before it is erased whenever it comes in.
``forget_visitor()`` and ``flask adroll forget`` erase by the same rule. Cookies are taken back by
the response, in :mod:`adroll_flask.page.cookies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from . import model, schema
from .schema import Tx
from .transitions import move

#: Seconds that count as one moment with a visitor's no: clocks of two hosts are not quite alike,
#: and a transaction has the time of its beginning.
_MOMENT: Final = 1.0


def visitor_hash(record_id: str, outbox_id: str) -> str:
    """The hash of a record's id, with the outbox's id as its key.

    :param record_id: the id; or a hash of this outbox, as an export has it, which stays as it is.
    """
    if record_id.startswith(model.VISITOR_HASH):
        return record_id[:32]
    return model.keyed_hash(model.VISITOR_HASH, record_id, outbox_id)


def withdraw(tx: Tx, visitor: str, at: float, kept: float) -> int:
    """Erase what waits of a visitor, and remember that they said no; how many events there were.

    :param visitor: of :func:`visitor_hash`.
    :param at: when they said it, by the database's clock.
    :param kept: seconds for which it stops what was learnt before it.
    """
    at += _MOMENT
    schema.mark(tx, visitor, "withdrawn", at, kept)
    where = "record_hash = :visitor AND coalesce(learnt_at, queued_at) <= :at"
    ids = schema.ids_of(tx, f"{where} AND payload IS NOT NULL", visitor=visitor, at=at)
    return erase_events(tx, ids, "suppressed", "consent_withdrawn")


def stop_withdrawn(tx: Tx, ids: Sequence[str]) -> int:
    """Erase what has just come in of visitors who said no since it was learnt; how many.

    Another process's file may be read after the withdrawal, and a token may come back days
    after it.
    """
    if not tx.rows(f"SELECT 1 FROM adroll_mark WHERE hash >= '{model.VISITOR_HASH}' LIMIT 1"):
        return 0
    rows = tx.rows(
        "SELECT e.id FROM adroll_event e JOIN adroll_mark m"
        " ON m.hash = e.record_hash WHERE e.id {in_ids}"
        " AND coalesce(e.learnt_at, e.queued_at) <= m.marked_at",
        ids=list(ids),
    )
    return erase_events(tx, [row[0] for row in rows], "suppressed", "consent_withdrawn")


def erase_events(tx: Tx, ids: Sequence[str], outcome: str, why: str) -> int:
    """Remove the data of events that are not delivered; how many there were.

    Keys stay, so that a reload does not report the visitor again. Of what is being sent, the
    outcome is still awaited; it is never sent again.

    :param outcome: what the history counts of those that waited, with the reason *why*.
    """
    # What moves at this moment, from one of the states below to another, is waited for.
    schema.ids_of(tx, "id {in_ids} {lock}", ids=ids)
    keyless = "dedupe_key IS NULL AND payload IS NOT NULL"
    erased = move(tx, "drop", ids, also=keyless, outcome=outcome, why=why)
    erased += move(tx, "erase", ids, outcome=outcome, why=why, reason="forgotten")
    return erased + move(tx, "empty", ids, reason="forgotten")
