"""Held events: released, cancelled, expired.

:class:`Holds` does with held events what their verdicts say. A verdict may come in before its
event, from another host or another file. It then is a row of its own under the event's unique key,
in the state ``decided``: whichever comes second meets that index, on every engine, whatever runs at
the same time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from adroll_flask.counters import Counters
from adroll_flask.errors import EventError

from . import destination, history, model, schema
from .lookups import wire_of
from .model import OutboxFailed, State
from .schema import Tx
from .transitions import CANCELLED, DEAD, DECIDED, DELIVERED, HELD, SENDING, move

#: Changes an event as its release says. Takes the event's JSON and the changes; gives its JSON, its
#: digest and when it occurred.
Amend: TypeAlias = Callable[[bytes, Mapping[str, Any]], tuple[bytes, str, float]]

#: The error of an event that another database had taken in.
DOUBT: Final = (
    "the outbox's database is not the one that took this event in; it may have been sent. Retry it"
    " only if it was not."
)


@dataclass(slots=True)
class Holds:
    """Applies verdicts, and ends holds that nobody released.

    :param longest: ``ADROLL_HOLD_MAX``: seconds for which a verdict waits for its event.
    """

    counters: Counters
    amend: Amend
    longest: float

    def decide(self, tx: Tx, verdicts: Sequence[model.Verdict]) -> None:
        """Apply *verdicts*, or keep them until their events come in."""
        for verdict in verdicts:
            # Between the look and the insert another process may make the row, and remove it
            # before the next look.
            for _ in range(3):
                by_order = schema.of_orders(tx, [verdict.order], "{lock}", full=True)
                if by_order:
                    self._apply(tx, verdict, next(iter(by_order.values())))
                    break
                if self._keep(tx, verdict):
                    break
            else:
                raise OutboxFailed("locked", "a verdict met an event that came and went")

    def _keep(self, tx: Tx, verdict: model.Verdict) -> bool:
        """Keep *verdict* for an event that has not come in; ``False``: there is one by now."""
        changes = None if verdict.changes is None else json.dumps(verdict.changes).encode()
        account, dry_run, name, key = verdict.order
        destination.know(tx, [account])
        row = {
            "id": model.new_id(tx.now),
            "state": DECIDED.value,
            "advertisable_eid": account,
            "dry_run": int(dry_run),
            "event_name": name,
            "dedupe_key": key,
            "payload": changes,
            "occurred_at": tx.now,
            "queued_at": tx.now,
            "due_at": tx.now + self.longest,
            "reason": verdict.kind,
            "error": verdict.doubt,
        }
        return schema.insert(tx, "adroll_event", **row) > 0

    def _apply(self, tx: Tx, verdict: model.Verdict, row: model.Row) -> None:
        """Apply *verdict* to the event of *row*."""
        id = row.id
        state = State[row.state]
        if verdict.kind == "release":
            if state == HELD:
                self._release(tx, verdict, row)
            elif state == DELIVERED:
                self._refund(tx, row, verdict.at, _less(row.digest, verdict.changes or {}))
            elif state == CANCELLED and row.reason in ("cancelled", "hold_expired"):
                self._count(tx, row, "unused", row.reason)
            return  # the first release counts, and what is not held needs none
        if state == DECIDED:  # a cancellation is the stronger
            tx.execute(
                "UPDATE adroll_event SET reason = 'cancel', payload = NULL WHERE id = :id", id=id
            )
        elif state == SENDING:
            move(tx, "empty", [id], reason="cancelled")
        elif state == DELIVERED:
            self._refund(tx, row, verdict.at, row.digest or _ALL)
        elif row.whole or state != DEAD:
            # The history has counted a dead letter as lost; now it is cancelled instead.
            if state == DEAD:
                history.correct(tx, [id])
            if move(tx, "cancel", [id], reason="cancelled"):
                self.counters.add("hold_cancelled", "cancelled")

    def count_too_late(self, tx: Tx, rows: Sequence[model.Row]) -> None:
        """Count *rows* that were cancelled while they were sent, and are delivered."""
        for row in rows:
            self._refund(tx, row, tx.now, row.digest or _ALL)

    def _refund(self, tx: Tx, row: model.Row, at: float, refund: str) -> None:
        """Note that the shop took *refund* of a delivered event back; AdRoll keeps it.

        :param refund: how much is taken back in all, in the form of a digest. Nothing is noted
            where it is empty, or not more than was noted before.
        """
        value, _ = history.amount_of(refund)
        before, _ = history.amount_of(row.refund)
        if not refund or (row.refunded_at is not None and value <= before):
            return
        sets = "reason = 'too_late', refunded_at = :at, refund = :refund"
        tx.execute(
            f"UPDATE adroll_event SET {sets} WHERE id = :id", at=at, refund=refund, id=row.id
        )
        self.counters.add("hold_too_late", "cancelled")
        counted = history.of(row, "too_late", "cancelled")
        history.add(tx, [replace(counted, value=value - before)])

    def _release(self, tx: Tx, verdict: model.Verdict, row: model.Row) -> None:
        id = row.id
        if verdict.doubt == "rests":
            move(tx, "rest", [id], reason="restored", error=DOUBT)
            return
        if verdict.changes:
            try:
                row.payload, row.digest, row.occurred_at = self.amend(row.payload, verdict.changes)
            except EventError as problem:
                self.counters.add("event_invalid", "release")
                wrong = f"its release: {problem}"[: model.ERROR_LENGTH]
                move(tx, "release_wrong", [id], reason="invalid:release", error=wrong)
                return
        move(
            tx,
            "release",
            [id],
            unsure=int(row.unsure or verdict.doubt == "unsure"),
            payload=row.payload,
            digest=row.digest or None,
            occurred_at=row.occurred_at,
        )
        self.counters.add("hold_released")

    def _count(self, tx: Tx, row: model.Row, outcome: str, reason: str) -> None:
        self.counters.add(f"hold_{outcome}", reason)
        history.add(tx, [history.of(row, outcome, reason)])

    # -- what nobody decided ----------------------------------------------------------------

    def expire(self, tx: Tx, ids: Sequence[str]) -> int:
        """End holds that nobody released in time; how many there were."""
        ended = move(tx, "expire", ids, reason="hold_expired")
        self.counters.add("hold_expired", "hold_expired", ended)
        return ended

    def forget(self, tx: Tx, ids: Sequence[str]) -> int:
        """Forget verdicts whose events have not come in time; how many there were."""
        for row in schema.rows(tx, "id {in_ids} AND dry_run = 0", ids=ids):
            self._count(tx, row, "unused", f"{row.reason}_of_no_hold")
        return move(tx, "remove", ids)


#: The refund of an order without a value.
_ALL: Final = "0"


def _less(digest: str, changes: Mapping[str, Any]) -> str:
    """How much of an event with *digest* the changes take back, in the form of a digest; or empty.

    A release with a time of its own is the next payment, such as a renewal.
    """
    if "value" not in changes or "timestamp" in changes:
        return ""
    before, currency = history.amount_of(digest)
    new = f"{changes['value']} {changes.get('currency') or currency}"
    value, new_currency = history.amount_of(new)
    if new_currency != currency or not 0 <= value < before:
        return ""
    refund = before - value
    # Some currencies have three decimals.
    decimals = 2 if refund % (history.UNITS // 100) == 0 else 3
    return f"{history.as_decimal(refund):.{decimals}f} {currency}"


def take_verdict(tx: Tx, id: str) -> model.Verdict | None:
    """Remove the verdict that waits in the row *id*, and return it; ``None``: there is none."""
    rows = schema.rows(tx, f"id = :id AND state = {DECIDED} {{lock}}", full=True, id=id)
    if not rows or not move(tx, "remove", [id]):
        return None
    row: Any = rows[0]
    order = model.OrderKey(row.advertisable_eid, row.dry_run, row.name, row.key)
    # Damaged ones are none: the order was paid all the same.
    changes = wire_of(row.payload or b"") or None
    return model.Verdict(row.queued_at, row.reason, order, changes, row.error)
