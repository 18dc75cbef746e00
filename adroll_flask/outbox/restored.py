"""Copies of an outbox, and what becomes of what waits in one that takes the original's place.

The original has gone on: what waits in the copy may have been sent since. A copy that
``flask adroll outbox backup`` makes carries a mark; whoever first opens it as an outbox acts on it.
"""

from __future__ import annotations

from typing import Final

from . import history
from .database import Tx, one
from .record_format import counted_as
from .states import DAY, DEAD

_MARK: Final = "copied_at"
_WORDS: Final = (
    "this outbox is a copy that was put in the place of another; the event may have been sent"
    " since. Retry it only if it was not."
)
_SENDABLE: Final = "(0, 1, 2)"
#: With those that a release would let be sent.
SENDABLE_OR_HELD: Final = "(0, 1, 2, 5)"


def mark(tx: Tx) -> None:
    """Say of this database that it is a copy."""
    tx.execute("DELETE FROM adroll_meta WHERE name = :name", name=_MARK)
    tx.execute(
        "INSERT INTO adroll_meta (name, value) VALUES (:name, :value)",
        name=_MARK,
        value=str(int(tx.now)),
    )


def is_marked(tx: Tx) -> bool:
    """True where this database is a copy that nobody has worked with yet."""
    found = tx.rows("SELECT value FROM adroll_meta WHERE name = :name", name=_MARK)
    return one(found) is not None


def lay_to_rest(tx: Tx, dedupe_days: int, *, states: str = _SENDABLE, error: str = _WORDS) -> int:
    """Make dead letters of what could be sent, until somebody retries it; how many there were.

    They are marked as unsure, so that a retry is marked, too. Takes the copy's mark away.

    :param error: what each of them says.
    """
    where = f"state IN {states} AND payload IS NOT NULL"
    alike = tx.rows(
        "SELECT event_name, identifiers, digest, dry_run, count(*) FROM adroll_event"
        f" WHERE {where} GROUP BY event_name, identifiers, digest, dry_run"
    )
    count = tx.execute(
        f"UPDATE adroll_event SET state = {DEAD}, claim = NULL, unsure = unsure + 1,"
        " reason = 'restored', error = :error, settled_at = :now, due_at = :kept"
        f" WHERE {where}",
        error=error,
        now=tx.now,
        kept=tx.now + dedupe_days * DAY,
    )
    tx.execute("DELETE FROM adroll_meta WHERE name = :name", name=_MARK)
    entries = []
    for name, mask, digest, dry_run, amount in alike:
        value, currency = history.amount_of(digest)
        became = counted_as("dead", "restored", bool(dry_run))
        entries.append(history.Entry(name, *became, mask, currency, value, None, int(amount)))
    history.add(tx, entries)
    return count
