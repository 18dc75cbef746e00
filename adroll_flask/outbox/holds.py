"""Held events: what is done with them when they are released, cancelled or forgotten.

A verdict may come in before its event, from another host or another file. It then is a row of its
own under the event's unique key, in the state ``decided``: whichever comes second meets that index,
on every engine, whatever runs at the same time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from adroll_flask.counters import Counters
from adroll_flask.errors import EventError

from . import destination, history, transitions
from .database import Tx, insert, key_in, key_out
from .entries import Verdict, new_id
from .values import (
    CANCELLED,
    DAY,
    DEAD,
    DECIDED,
    DELIVERED,
    ERROR_LENGTH,
    HELD,
    SENDING,
    OrderKey,
    OutboxFailed,
)

#: An event with what its release says differently: its JSON, its digest, when it occurred.
Amend: TypeAlias = Callable[[bytes, Mapping[str, Any]], tuple[bytes, str, float]]

STEP: Final = 500
#: Of an event that another database had taken in.
DOUBT: Final = (
    "the outbox's database is not the one that took this event in; it may have been sent. Retry it"
    " only if it was not."
)
#: Of the unique index.
BY_ORDER: Final = (
    "advertisable_eid = :eid AND dry_run = :dry_run AND event_name = :name AND dedupe_key = :key"
)
_COLUMNS: Final = (
    "id, event_name, dry_run, occurred_at, digest, identifiers, state, payload, reason, unsure"
)


@dataclass(slots=True)
class Holds:
    """Applies verdicts, and ends holds that nobody released.

    :param longest: ``ADROLL_HOLD_MAX``, seconds; for as long a verdict waits for its event.
    :param dedupe_days: days that a dead letter, and the key of an event that is over, are kept.
    """

    counters: Counters
    amend: Amend
    longest: float
    dedupe_days: int

    def kept(self, tx: Tx) -> float:
        """Until when the row of an event that is over is kept, with its key."""
        # From now and not from when it occurred: orders of last year may be imported twice.
        return tx.now + self.dedupe_days * DAY

    def decide(self, tx: Tx, verdicts: Sequence[Verdict]) -> None:
        """Apply *verdicts*, or keep them until their events come in."""
        for verdict in verdicts:
            # A row that goes between the two looks is met again by the third.
            for _ in range(3):
                rows = tx.rows(
                    f"SELECT {_COLUMNS} FROM adroll_event WHERE {BY_ORDER} {{lock}}",
                    eid=verdict.order.advertisable_eid,
                    dry_run=int(verdict.order.dry_run),
                    name=verdict.order.name,
                    key=key_in(tx.dialect, verdict.order.key),
                )
                if rows:
                    self._apply(tx, verdict, rows[0])
                    break
                if self._keep(tx, verdict):
                    break
            else:
                raise OutboxFailed("locked", "a verdict met an event that came and went")

    def _keep(self, tx: Tx, verdict: Verdict) -> bool:
        """Keep *verdict* for an event that has not come in; ``False``: there is one by now."""
        changes = None if verdict.changes is None else json.dumps(verdict.changes).encode()
        destination.know(tx, [verdict.order.advertisable_eid])
        eid, dry_run, name, key = verdict.order
        return bool(
            insert(
                tx,
                "adroll_event",
                id=new_id(tx.now),
                state=DECIDED,
                event_name=name,
                advertisable_eid=eid,
                dry_run=int(dry_run),
                dedupe_key=key_in(tx.dialect, key),
                payload=changes,
                occurred_at=tx.now,
                queued_at=tx.now,
                due_at=tx.now + self.longest,
                reason=verdict.kind,
                # In doubt, until its event comes.
                unsure={"": 0, "unsure": 1, "rests": 2}[verdict.doubt],
            )
        )

    def _apply(self, tx: Tx, verdict: Verdict, row: Any) -> None:
        """Do to the event of *row* what *verdict* says."""
        id, state, reason = row[0], row[6], row[8]
        if verdict.kind == "release":
            if state == HELD:
                self._release(tx, verdict, row)
            elif state == CANCELLED and reason == "cancelled":
                self._count(tx, row, "unused", "cancelled")
            return  # of several the first counts; and of what is not held none is asked for
        if state == DECIDED:  # a cancellation is the stronger
            tx.execute(
                "UPDATE adroll_event SET reason = 'cancel', payload = NULL WHERE id = :id", id=id
            )
        elif state == SENDING:
            transitions.move(tx, "empty", [id], reason="cancelled")
        elif state == DELIVERED and reason != "too_late":
            tx.execute("UPDATE adroll_event SET reason = 'too_late' WHERE id = :id", id=id)
            self._count(tx, row, "too_late", "cancelled")
        elif not (state == DEAD and row[7] is None):
            # Of a dead letter the loss is counted already, and is none any more.
            if state == DEAD:
                history.correct(tx, [id])
            kept = self.kept(tx)
            if transitions.move(tx, "cancel", [id], reason="cancelled", kept=kept):
                self.counters.add("hold_cancelled", "cancelled")

    def count_too_late(self, tx: Tx, ids: Sequence[str]) -> None:
        """Count those of *ids* that were cancelled while they were sent, and just delivered."""
        query = f"SELECT {_COLUMNS} FROM adroll_event WHERE id {{in_ids}} AND reason = 'too_late'"
        for row in tx.rows(f"{query} AND settled_at = :now", ids=list(ids), now=tx.now):
            self._count(tx, row, "too_late", "cancelled")

    def _release(self, tx: Tx, verdict: Verdict, row: Any) -> None:
        id, occurred_at, digest, payload, unsure = row[0], row[3], row[4], row[7], row[9]
        kept = self.kept(tx)
        if verdict.doubt == "rests":
            transitions.move(tx, "release_rests", [id], kept=kept, reason="restored", error=DOUBT)
            return
        if verdict.changes:
            try:
                payload, digest, occurred_at = self.amend(bytes(payload), verdict.changes)
            except EventError as problem:
                self.counters.add("event_invalid", "release")
                wrong = f"its release: {problem}"[:ERROR_LENGTH]
                reason = "invalid:release"
                transitions.move(tx, "release_wrong", [id], kept=kept, reason=reason, error=wrong)
                return
        transitions.move(
            tx,
            "release",
            [id],
            payload=payload,
            digest=digest,
            occurred_at=occurred_at,
            unsure=unsure + (verdict.doubt == "unsure"),
        )
        self.counters.add("hold_released")

    def _count(self, tx: Tx, row: Any, outcome: str, reason: str) -> None:
        self.counters.add(f"hold_{outcome}", reason)
        history.add(tx, [history.of(transitions.event_of(row[:6]), outcome, reason)])

    # -- what nobody decided ----------------------------------------------------------------

    def expire(self, tx: Tx, ids: Sequence[str]) -> int:
        """End holds that nobody released in time; how many there were."""
        kept = self.kept(tx)
        ended = transitions.move(tx, "expire", ids, kept=kept, reason="hold_expired")
        if ended:
            self.counters.add("hold_expired", "hold_expired", ended)
        return ended

    def forget(self, tx: Tx, ids: Sequence[str]) -> int:
        """Forget verdicts whose events have not come in time; how many there were."""
        query = f"SELECT {_COLUMNS} FROM adroll_event WHERE id {{in_ids}}"
        for row in tx.rows(f"{query} AND dry_run = 0", ids=ids):
            self._count(tx, row, "unused", f"{row[8]}_of_no_hold")
        return transitions.move(tx, "forget_verdict", ids)


def taken_out(tx: Tx, id: str) -> Verdict | None:
    """Take the verdict out that waits in the row *id*; ``None``: it is gone, or none."""
    rows = tx.rows(
        "SELECT queued_at, reason, advertisable_eid, dry_run, event_name, dedupe_key, payload,"
        f" unsure FROM adroll_event WHERE id = :id AND state = {DECIDED} {{lock}}",
        id=id,
    )
    if not rows or not transitions.move(tx, "forget_verdict", [id]):
        return None
    at, kind, eid, dry_run, name, key, changes, doubt = rows[0]
    return Verdict(
        at=at,
        kind=kind,
        order=OrderKey(eid, bool(dry_run), name, key_out(key) or ""),
        changes=None if changes is None else json.loads(bytes(changes)),
        doubt=("", "unsure", "rests")[doubt],
    )
