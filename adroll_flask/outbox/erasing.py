"""Erasing what the outbox holds of a visitor, by the ids of the events."""

from __future__ import annotations

from collections.abc import Sequence

from .database import Tx
from .states import DAY, DEAD, SENDING


def erase(tx: Tx, ids: Sequence[str], dedupe_days: int, unsent: str = "") -> int:
    """Remove the data of events that are not delivered; how many there were.

    Keys stay, so that a reload does not report the visitor again. Of what is being sent, the
    outcome is still awaited; it is never sent again.

    :param unsent: the token of a claim whose events have not left yet.
    """
    if not ids:
        return 0
    waiting = "id {in_ids} AND (state IN (0, 1, 4, 5) OR claim = :unsent)"
    gone = tx.execute(
        f"DELETE FROM adroll_event WHERE {waiting} AND dedupe_key IS NULL",
        ids=list(ids),
        unsent=unsent,
    )
    emptied = "payload = NULL, error = NULL, digest = NULL, cookie_hash = NULL, click_hash = NULL"
    emptied += ", attempt_log = NULL, trace = NULL"
    gone += tx.execute(
        f"UPDATE adroll_event SET {emptied}, state = {DEAD}, claim = NULL, reason = 'forgotten',"
        f" settled_at = :now, due_at = :kept WHERE {waiting}",
        ids=list(ids),
        unsent=unsent,
        now=tx.now,
        kept=tx.now + dedupe_days * DAY,
    )
    return gone + tx.execute(
        f"UPDATE adroll_event SET {emptied} WHERE id " + "{in_ids}" + f" AND state = {SENDING}",
        ids=list(ids),
    )
