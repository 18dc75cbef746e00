"""From entries to rows: the only maker of rows.

The index of keys tells a second report of an order. It is dropped and counted; if it has no hold,
it releases the order that is held (:meth:`RowWriter._meet`). A visitor's no and a verdict count in
the same transaction, whichever came first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Final

from adroll_flask.forks import each

from . import destination, erasure, history, knowledge, model, retention, schema
from .holds import Holds, take_verdict
from .model import NewEvent, OutboxFailed, State
from .schema import T, Tx

#: Reasons of events that ``before_report`` has not passed yet.
_NOT_PASSED: Final = ("invalid:before_report", "invalid:held:before_report")
#: The number alone: to ask the state for it takes as long as half of a row.
_WAITING: Final = State.waiting.value


@dataclass(slots=True)
class Written:
    """What came of writing entries.

    :param duplicates: events whose key was taken.
    :param changed: ids of the events that have the keys, for each duplicate with another value.
    :param erased: events whose visitor has said no.
    """

    duplicates: int = 0
    changed: list[str] = field(default_factory=list)
    erased: int = 0


@dataclass(slots=True)
class RowWriter:
    """Writes entries as rows.

    :param withdrawals_kept: seconds for which a withdrawal stops what was learnt before it.
    :param clock: the host's, by which entries have their times; the database has its own.
    """

    holds: Holds
    withdrawals_kept: float
    clock: Callable[[], float]
    #: The outbox's id, and the host's time, as one transaction has them.
    _outbox_id: str = field(default="", repr=False)
    _read_at: float = 0.0

    def write(self, tx: Tx, entries: Sequence[model.Entry], written: Written) -> None:
        """Write *entries* in the order of their times.

        :param written: to which is added what came of it.
        """
        outbox_id = schema.meta(tx, "outbox_id") or ""
        # The time is read once, so that events keep their order. A copy of this object has it for
        # this transaction: another thread may write while this one waits for a lock.
        replace(self, _outbox_id=outbox_id, _read_at=self.clock())._write(tx, entries, written)

    def _write(self, tx: Tx, entries: Sequence[model.Entry], written: Written) -> None:
        events = _entries_of(entries, NewEvent)
        if events:
            self._insert(tx, events, written)
        for withdrawal in _entries_of(entries, model.Withdrawal):
            visitor = erasure.visitor_hash(withdrawal.record_id, self._outbox_id)
            at = self._time(tx, withdrawal.at)
            written.erased += erasure.withdraw(tx, visitor, at, self.withdrawals_kept)
        if events:
            written.erased += erasure.stop_withdrawn(tx, [event.id for event in events])
        self.holds.decide(tx, _entries_of(entries, model.Verdict))
        counted = _entries_of(entries, model.Counted)
        suppressed = []
        for entry in counted:
            if entry.order:  # nothing else of it is kept
                at = self._time(tx, entry.at)
                schema.mark(tx, entry.order, entry.reason[:40], at, retention.HISTORY_KEPT)
                suppressed.append((entry.advertisable_eid, entry.order, at))
        knowledge.note_keys(tx, suppressed)
        history.add(tx, [replace(entry, at=self._time(tx, entry.at)) for entry in counted])

    def _time(self, tx: Tx, at: float) -> float:
        """A time by the host's clock as the database's has it; none is in the future."""
        return tx.now - max(0.0, self._read_at - at)

    # -- events -----------------------------------------------------------------------------

    def _insert(self, tx: Tx, events: Sequence[NewEvent], written: Written) -> None:
        destination.know(tx, {event.advertisable_eid for event in events})
        knowledge.let_unknown_rest(tx, events)
        dead = [event.id for event in events if event.dead is not None]
        # A commit that came late, or another worker, may have brought one in already.
        before = set(schema.ids_of(tx, "id {in_ids}", ids=dead) if dead else ())
        rows = [self._row(tx, event) for event in each(events)]
        others: dict[str, NewEvent] = {}
        if schema.insert_all(tx, "adroll_event", rows) < len(rows):
            present = set(schema.ids_of(tx, "id {in_ids}", ids=[row["id"] for row in rows]))
            others = {event.id: event for event in events if event.id not in present}
            events = [event for event in events if event.id in present]
        self._count_dead(tx, [event for event in events if event.id not in before])
        self._meet(tx, [*others.values()], written)

    @staticmethod
    def _count_dead(tx: Tx, events: Sequence[NewEvent]) -> None:
        outcomes = {"restored": "dead", knowledge.BEFORE: "dead"}
        ended = {event.id: (event, event.dead[0]) for event in events if event.dead}.values()
        history.add(
            tx, [history.of(event, outcomes.get(why, "invalid"), why) for event, why in ended]
        )

    def _row(self, tx: Tx, event: NewEvent) -> dict[str, Any]:
        """One event as the values of its row, without those that are NULL: each would take time."""
        queued_at = self._time(tx, event.at)
        row: dict[str, Any] = {
            "id": event.id,
            "state": _WAITING,
            "advertisable_eid": event.advertisable_eid,
            "dry_run": int(event.dry_run),
            "event_name": event.name,
            "payload": bytearray(event.payload),  # for which sqlite3 asks no adapter
            "occurred_at": event.occurred_at,
            "queued_at": queued_at,
            "due_at": queued_at,
            "identifiers": event.identifiers,
            "unsure": int(event.unsure),
        }
        optional = ("dedupe_key", event.key), ("digest", event.digest), ("sender", event.sender)
        for name, value in optional:
            if value is not None:
                row[name] = value
        if event.record_id is not None:
            row["record_hash"] = erasure.visitor_hash(event.record_id, self._outbox_id)
        if event.known_since is not None:
            # A token from the future is of a host whose clock was ahead, and of any time before.
            is_past = event.known_since <= event.at
            row["learnt_at"] = self._time(tx, event.known_since) if is_past else 0.0
        if event.dead is not None:
            reason, error = event.dead
            row["state"] = State.dead.value
            row["reason"] = reason[:40]
            row["error"] = error[: model.ERROR_LENGTH]
            row["settled_at"] = queued_at
            row["due_at"] = tx.now + retention.DEAD_LETTER_KEPT
        elif event.held_for is not None:
            row["state"] = State.held.value
            row["due_at"] = queued_at + event.held_for
        return row

    def _meet(self, tx: Tx, events: Sequence[NewEvent], written: Written) -> None:
        """What becomes of events whose key a verdict, a held event or another event has."""
        orders = [event.order for event in events if event.order is not None]
        rows = schema.of_orders(tx, orders)
        duplicates = []
        for event in events:
            order = event.order
            if order is None or order not in rows:
                # Neither in nor a duplicate: INSERT IGNORE hides what the database objects to.
                raise OutboxFailed("data")
            kept = rows[order]
            if kept.state == "decided":
                verdict = take_verdict(tx, kept.id)
                if verdict is None or not schema.insert(tx, "adroll_event", **self._row(tx, event)):
                    raise OutboxFailed("locked", "another process has taken the same order in")
                self._count_dead(tx, [event])
                self.holds.decide(tx, [verdict])
                rows |= schema.of_orders(tx, [order])
            elif kept.state == "held" and event.held_for is None:
                # A second report, without a hold, says that the held one is to be sent, and has its
                # doubt.
                verdict = model.Verdict(tx.now, "release", order)
                if event.dead is not None and event.dead[0] in model.RISKY:
                    verdict.doubt = "rests"
                elif event.unsure:
                    verdict.doubt = "unsure"
                self.holds.decide(tx, [verdict])
                rows |= schema.of_orders(tx, [order])
            else:
                # The value of an erased event is not known any more, and before_report may still
                # change that of an event which it has not passed.
                has_value = bool(kept.digest) and kept.reason not in _NOT_PASSED
                is_changed = has_value and kept.digest != event.digest
                written.duplicates += 1
                if is_changed:
                    written.changed.append(kept.id)
                reason = "another_value" if is_changed else ""
                duplicates.append(history.of(event, "duplicate", reason))
        history.add(tx, duplicates)


def _entries_of(entries: Sequence[model.Entry], kind: type[T]) -> list[T]:
    """Those of *kind*, the oldest first."""
    return sorted((entry for entry in entries if isinstance(entry, kind)), key=attrgetter("at"))
