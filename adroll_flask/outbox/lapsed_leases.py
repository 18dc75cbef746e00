"""Leases that ran out, and times that a clock which was wrong for a while put too far off."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from adroll_flask.counters import Counters

from . import attempts, history
from .database import Tx, key_out, one
from .protocol import Asked, Claimed
from .states import CLAIMED, DAY, HELD, LONGEST_DELAY, LONGEST_LEASE, SENDING, WAITING

#: Rows that one claim takes back from lapsed leases, at most.
_SWEEP: Final = 500
#: Seconds between two looks for times that a wrong clock left.
_FAR_EVERY: Final = 10.0
#: Seconds by which a clock may be corrected without a lease or a pause ending early.
_SKEW: Final = 1.0

COLUMNS: Final = (
    "id, event_name, payload, occurred_at, queued_at, attempts, unsure, dedupe_key, dry_run,"
    " digest, identifiers, refused_at, trace"
)
_LAPSED: Final = (
    "SELECT id, state FROM adroll_event WHERE state IN (1, 2, 5)"
    " AND due_at <= :now LIMIT :most {skip_locked}"
)
#: Where in the queue an event stands.
PLACE: Final = "coalesce(released_at, queued_at)"


@cache
def first_due(*states: int) -> str:
    """The statement for when the first event of each state is due, or ``NULL``.

    It is a look into the index each. Grouped by state, PostgreSQL reads all that waits; a locking
    read finds MariaDB busy with entries of rows that have moved on.
    """
    one = "SELECT min(due_at) FROM adroll_event WHERE state = "
    return " UNION ALL ".join(f"{one}{state}" for state in states)


def is_any_due(tx: Tx, *states: int) -> bool:
    """True where an event of one of *states* is due."""
    return any(due is not None and due <= tx.now for (due,) in tx.rows(first_due(*states)))


def back(due: str, reason: str) -> str:
    """Back to waiting. An erased event has no payload any more: it ends here, and keeps its key."""
    return (
        "state = CASE WHEN payload IS NULL THEN 4 ELSE 0 END,"
        " settled_at = CASE WHEN payload IS NULL THEN :now ELSE NULL END,"
        f" due_at = CASE WHEN payload IS NULL THEN :kept ELSE {due} END,"
        f" reason = CASE WHEN payload IS NULL THEN 'forgotten' ELSE {reason} END"
    )


@dataclass(slots=True)
class LapsedLeases:
    """Takes back what lapsed.

    :param on_unsure: ``"retry"`` or ``"drop"``: what happens to an event whose lease lapsed while
        a request with it was under way.
    :param dedupe_days: days that a dead letter is kept.
    """

    counters: Counters
    on_unsure: str
    dedupe_days: int
    #: When times that a wrong clock left were looked for, by the outbox's own, which may go back.
    _looked_at: float = float("inf")

    def take_back(self, tx: Tx) -> bool:
        """Return what lapsed, and what a clock that was wrong for a while put too far off.

        True where holds have come to their end.
        """
        found: list[Any] = []
        if is_any_due(tx, CLAIMED, SENDING, HELD):
            found = tx.rows(_LAPSED, now=tx.now, most=_SWEEP)
        claimed = [id for id, state in found if state == CLAIMED]
        sending = [id for id, state in found if state == SENDING]
        if claimed:
            tx.execute(
                f"UPDATE adroll_event SET {back(PLACE, 'reason')}, claim = NULL"
                " WHERE id {in_ids}",
                ids=claimed,
                now=tx.now,
                kept=tx.now + self.dedupe_days * DAY,
            )
        if sending:
            self._unsure(tx, sending)
        if self.may_be_far(tx):
            self._looked_at = tx.now
            self._bring_near(tx)
        return any(state == HELD for _id, state in found)

    def _unsure(self, tx: Tx, ids: list[str]) -> None:
        attempts.append(tx, ids, Asked("lapsed"), unsure=True)
        becomes = back(PLACE, "'lapsed'")
        dead = self.on_unsure == "drop"
        if dead:
            becomes = "state = 4, settled_at = :now, due_at = :kept, reason = 'unsure'"
            self.counters.add("event_dead", "unsure", len(ids))
            rows = tx.rows(
                f"SELECT {COLUMNS} FROM adroll_event WHERE id " + "{in_ids}",
                ids=ids,
            )
            history.add(tx, [history.of(claimed_of(row), "dead", "unsure") for row in rows])
        else:
            self.counters.add("event_unsure", "lapsed", len(ids))
        tx.execute(
            f"UPDATE adroll_event SET {becomes}, claim = NULL, unsure = unsure + 1,"
            " attempts = attempts + 1 WHERE id {in_ids}",
            ids=ids,
            now=tx.now,
            kept=tx.now + self.dedupe_days * DAY,
        )

    def may_be_far(self, tx: Tx) -> bool:
        return not self._looked_at <= tx.now < self._looked_at + _FAR_EVERY

    def _bring_near(self, tx: Tx) -> None:
        """After a clock that went back nothing stands still.

        What waits is due now where it was reported in the future, or was put off for longer than
        anything is. A lease is not taken back, since its worker may be sending: it is shortened.
        """
        furthest = "SELECT due_at FROM adroll_event WHERE state = {} ORDER BY due_at DESC LIMIT 1"
        # The furthest of all first: a planner that takes state and time for independent would read
        # the whole table for an UPDATE that finds nothing.
        if (one(tx.rows(furthest.format(WAITING))) or 0.0) > tx.now:
            tx.execute(
                "UPDATE adroll_event SET due_at = :now WHERE state = 0 AND due_at > :now"
                " AND (due_at > :far OR queued_at > :now)",
                now=tx.now,
                far=tx.now + LONGEST_DELAY + _SKEW,
            )
        near = tx.now + LONGEST_LEASE
        for state in (CLAIMED, SENDING):
            if (one(tx.rows(furthest.format(state))) or 0.0) > near + _SKEW:
                tx.execute(
                    f"UPDATE adroll_event SET due_at = :near WHERE state = {state}"
                    " AND due_at > :far",
                    near=near,
                    far=near + _SKEW,
                )


def claimed_of(row: Any) -> Claimed:
    id, name, payload, occurred, created, attempts = row[:6]
    unsure, key, dry_run, digest, mask, refused, trace = row[6:]
    return Claimed(
        id=id,
        name=name,
        payload=bytes(payload or b""),
        occurred_at=occurred,
        created_at=created,
        attempts=attempts,
        unsure=bool(unsure),
        key=key_out(key),
        dry_run=bool(dry_run),
        digest=digest,
        identifiers=mask,
        refused_at=refused,
        trace=trace,
    )
