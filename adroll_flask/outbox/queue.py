"""Claim, send, settle: how an event leaves the outbox."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from adroll_flask.counters import Counters

from . import attempts, history
from .database import Database, Tx, one
from .holds import RECENT, Holds, released
from .ingest import Ingest
from .lapsed_leases import COLUMNS, PLACE, LapsedLeases, back, claimed_of, is_any_due
from .protocol import Claim, Claimed, OutboxFailed, Outcome
from .read_positions import Batch
from .record_format import BATCH
from .rows import Lease, Written
from .states import CLAIMED, DAY, HELD, KEYLESS_KEPT, LONGEST_DELAY, LONGEST_LEASE, SENDING, WAITING
from .wake import Bell, announce

#: Rows that one claim takes back from lapsed leases, at most.
_SWEEP: Final = 500
#: Seconds between two looks for verdicts that missed their events.
_SWEEP_EVERY: Final = 2.0
#: Seconds that a claim waits for who takes in at the moment: else it would find nothing, and rest.
_TURN: Final = 0.1
#: Characters of AdRoll's words that are kept with an event.
_ERROR_LENGTH: Final = 1000

_DUE: Final = (
    f"SELECT {COLUMNS} FROM adroll_event WHERE state = 0 AND due_at <= :now"
    " ORDER BY due_at LIMIT :most {skip_locked}"
)
_OURS: Final = f"SELECT {COLUMNS} FROM adroll_event WHERE state = :state AND claim = :claim"
_TAKE: Final = (
    "UPDATE adroll_event SET state = :state, claim = :claim, due_at = :until WHERE id {in_ids}"
)
_MINE: Final = "id {in_ids} AND claim = :claim AND state IN (1, 2)"


@dataclass(slots=True)
class _Attempt:
    """What a claim asks for, the same in each run of its transaction."""

    token: str
    state: int
    limit: int
    lease: float
    is_repeated: bool = False


@dataclass(slots=True)
class Queue:
    """The way of events through claims.

    :param dedupe_days: days that the key of a delivered event is kept.
    """

    database: Database
    ingest: Ingest
    holds: Holds
    lapsed: LapsedLeases
    counters: Counters
    dedupe_days: int
    bell: Bell
    #: When claims looked for verdicts and events that missed each other.
    _swept_at: float = float("inf")

    # -- taking in ----------------------------------------------------------------------------

    def take_in(self, most: int = BATCH, *, patience: float = 0.0) -> int:
        """See :meth:`.protocol.Queue.take_in`."""
        return self.ingest.take_in(most, patience=patience)

    def announce(self) -> None:
        """See :meth:`.protocol.Queue.announce`."""
        self.bell.ring()
        if self.database.dialect != "sqlite":
            self.database.write(announce)

    # -- claiming ---------------------------------------------------------------------------

    def claim(self, limit: int = 100, lease: float = 60.0, *, begin: bool = False) -> Claim | None:
        """See :meth:`.protocol.Queue.claim`."""
        state = SENDING if begin else CLAIMED
        attempt = _Attempt(secrets.token_hex(16), state, limit, min(lease, LONGEST_LEASE))
        with self.ingest.reading(_TURN) as journal:
            batch = journal.batch(limit)
            # Asking takes no lock; most of the time there is nothing.
            if not batch and not self.database.read(self._is_work):
                return None
            try:
                claim, written = self.database.write(lambda tx: self._claim(tx, batch, attempt))
            except OutboxFailed as failure:
                if not batch.records:
                    raise
                if failure.reason == "data":
                    self.ingest.write_singly(batch)
                    return None  # its events are waiting now
                if failure.reason != "locked":
                    raise
                # Somebody else has read on; or a record waits for a transaction of the shop's that
                # has the same order: what is due already does not.
                batch = Batch()
                claim, written = self.database.write(lambda tx: self._claim(tx, batch, attempt))
            self.ingest.committed(batch, written)
        return claim

    def _is_work(self, tx: Tx) -> bool:
        if self.lapsed.may_be_far(tx):
            return True
        if self.holds.pending(tx):
            self._swept_at = float("inf")
            return True
        return is_any_due(tx, WAITING, CLAIMED, SENDING, HELD)

    def _claim(self, tx: Tx, batch: Batch, attempt: _Attempt) -> tuple[Claim | None, Written]:
        token, state, limit = attempt.token, attempt.state, attempt.limit
        if attempt.is_repeated:
            # A commit whose answer was lost took effect: what it claimed is this claim.
            rows = tx.rows(_OURS, state=state, claim=token)
            if rows:
                return self._made(tx, attempt, [claimed_of(row) for row in rows]), Written()
        attempt.is_repeated = True
        holds_end = self.lapsed.take_back(tx)
        if not self._swept_at <= tx.now < self._swept_at + _SWEEP_EVERY:
            self._swept_at = tx.now
            self.holds.sweep(tx, tx.now - RECENT)
        until = tx.now + attempt.lease
        rows = tx.rows(_DUE, now=tx.now, most=limit)
        # What has just been reported need not wait in a row first: one transaction fewer.
        written = self.ingest.write(tx, batch, Lease(token, limit - len(rows), state, until))
        if holds_end:
            # After what the journal has: a release that was given in time counts.
            self.holds.expire(tx)
        if written.forgotten or written.decided:
            # Some may be of a visitor who has just said no, or cancelled, others released.
            rows = tx.rows(_DUE, now=tx.now, most=limit - len(written.claimed))
        if rows:
            ids = [row[0] for row in rows]
            tx.execute(_TAKE, state=state, claim=token, until=until, ids=ids)
        return self._made(tx, attempt, [*map(claimed_of, rows), *written.claimed]), written

    @staticmethod
    def _made(tx: Tx, attempt: _Attempt, events: list[Claimed]) -> Claim | None:
        if not events:
            return None
        events.sort(key=lambda event: (event.created_at, event.id))
        return Claim(attempt.token, tuple(events), tx.now, begun=attempt.state == SENDING)

    def due(self, most: int) -> int:
        """See :meth:`.protocol.Queue.due`."""
        statement = (
            "SELECT count(*) FROM (SELECT 1 AS x FROM adroll_event WHERE state = 0"
            " AND due_at <= :now LIMIT :most) AS due"
        )
        found = min(most, self.ingest.records_waiting())
        if found >= most:
            return most
        return found + self.database.read(
            lambda tx: int(one(tx.rows(statement, now=tx.now, most=most - found)))
        )

    def waiting(self) -> int:
        """See :meth:`.protocol.Queue.waiting`."""
        self.ingest.take_in_all()
        if not self.database.exists():
            return 0
        statement = "SELECT count(*) FROM adroll_event WHERE state IN (0, 1, 2)"
        return self.database.read(lambda tx: int(one(tx.rows(statement))) + released(tx))

    def oldest_due(self) -> float | None:
        """See :meth:`.protocol.Queue.oldest_due`."""
        self.ingest.take_in()
        return self.database.read(oldest_due)

    # -- sending ----------------------------------------------------------------------------

    def begin_sending(self, claim: Claim, ids: Sequence[str] | None = None) -> tuple[str, ...]:
        """See :meth:`.protocol.Queue.begin_sending`."""
        wanted = [event.id for event in claim.events] if ids is None else list(ids)
        if not wanted:
            return ()

        def begin(tx: Tx) -> tuple[str, ...]:
            # Only under a lease that still runs: else another worker may have the event.
            mine = f"{_MINE} AND due_at > :now AND payload IS NOT NULL"
            changed = tx.execute(
                f"UPDATE adroll_event SET state = {SENDING} WHERE {mine}",
                ids=wanted,
                claim=claim.token,
                now=tx.now,
            )
            if changed == len(wanted):
                return tuple(wanted)
            rows = tx.rows(
                f"SELECT id FROM adroll_event WHERE {mine}",
                ids=wanted,
                claim=claim.token,
                now=tx.now,
            )
            held = {row[0] for row in rows}
            return tuple(id for id in wanted if id in held)

        return self.database.write(begin)

    def extend(self, claim: Claim, lease: float = 60.0) -> int:
        """See :meth:`.protocol.Queue.extend`."""
        ids = [event.id for event in claim.events]
        return self.database.write(
            lambda tx: tx.execute(
                f"UPDATE adroll_event SET due_at = :until WHERE {_MINE} AND due_at > :now",
                until=tx.now + min(lease, LONGEST_LEASE),
                now=tx.now,
                ids=ids,
                claim=claim.token,
            )
        )

    # -- settling ---------------------------------------------------------------------------

    def settle(self, claim: Claim, outcomes: Sequence[Outcome]) -> int:
        """See :meth:`.protocol.Queue.settle`."""
        groups = alike(outcomes)
        if not groups:
            return 0
        events = {event.id: event for event in claim.events}
        return self.database.write(lambda tx: self._settle(tx, claim, events, groups))

    def _settle(
        self,
        tx: Tx,
        claim: Claim,
        events: dict[str, Claimed],
        groups: list[tuple[Outcome, list[str]]],
    ) -> int:
        total = 0
        entries: list[history.Entry] = []
        for outcome, ids in groups:
            ends = outcome.kind in ("delivered", "dead")
            mine = ids
            if outcome.asked is not None and outcome.kind != "delivered":
                attempts.append(tx, ids, outcome.asked, unsure=outcome.unsure, claim=claim.token)
            becomes, values = self._values(outcome, tx.now)
            verb = "UPDATE"
            if outcome.kind == "delivered":
                verb, becomes = "{moves}", "{moves_away}" + becomes
            statement = f"{verb} adroll_event SET {becomes} WHERE {_MINE}"
            if ends and len(groups) > 1:
                mine = self._held(tx, claim, ids)
            changed = tx.execute(statement, ids=mine, claim=claim.token, **values)
            if changed < len(mine) and ends:
                # Not all are ours any more; or, on SQLite, a place was taken, one case in many
                # millions: such a row is settled where it is.
                left = self._held(tx, claim, mine)
                changed += tx.execute(
                    statement.replace("{moves_away}", ""), ids=left, claim=claim.token, **values
                )
                if changed < len(mine):
                    mine = self._settled(tx, mine)
            total += changed
            if ends:
                entries += [
                    history.of(events[id], outcome.kind, outcome.reason, now=tx.now)
                    for id in mine
                    if id in events
                ]
        history.add(tx, entries)
        return total

    @staticmethod
    def _held(tx: Tx, claim: Claim, ids: list[str]) -> list[str]:
        held = f"SELECT id FROM adroll_event WHERE {_MINE}"
        rows = tx.rows(held, ids=ids, claim=claim.token)
        return [row[0] for row in rows]

    @staticmethod
    def _settled(tx: Tx, ids: list[str]) -> list[str]:
        rows = tx.rows(
            "SELECT id FROM adroll_event WHERE id {in_ids} AND settled_at = :now",
            ids=ids,
            now=tx.now,
        )
        return [row[0] for row in rows]

    def _values(self, outcome: Outcome, now: float) -> tuple[str, dict[str, Any]]:
        """What an UPDATE sets, and its parameters."""
        becomes: list[str] = []
        values: dict[str, Any] = {"reason": outcome.reason[:40] or None}
        # From now and not from when it occurred: orders of last year may be imported twice.
        kept = now + self.dedupe_days * DAY
        if outcome.error:
            becomes.append("error = :error")
            values["error"] = outcome.error[:_ERROR_LENGTH]
        if outcome.unsure:
            becomes.append("unsure = unsure + 1")
        if outcome.refused:
            becomes.append("refused_at = coalesce(refused_at, :now)")
            values["now"] = now
        if outcome.kind in ("delivered", "dead", "retry") and not outcome.blameless:
            becomes.append("attempts = attempts + 1")
        if outcome.kind == "claimed":
            becomes.append(f"state = {CLAIMED}, reason = :reason")
            return ", ".join(becomes), values
        becomes.append("claim = NULL")
        if outcome.kind == "delivered":
            becomes += [
                "state = 3, payload = NULL, error = NULL, cookie_hash = NULL, click_hash = NULL",
                "trace = NULL, attempt_log = NULL, settled_at = :now, reason = :reason",
                "due_at = CASE WHEN dedupe_key IS NULL THEN :keyless ELSE :kept END",
            ]
            values |= {"now": now, "keyless": now + KEYLESS_KEPT, "kept": kept}
        elif outcome.kind == "dead":
            becomes.append("state = 4, settled_at = :now, due_at = :kept, reason = :reason")
            values |= {"now": now, "kept": kept}
        elif outcome.kind == "retry" and outcome.delay > 0:
            becomes.append(back(":due", ":reason"))
            values |= {"now": now, "kept": kept, "due": now + min(outcome.delay, LONGEST_DELAY)}
        else:
            becomes.append(back(PLACE, ":reason"))
            values |= {"now": now, "kept": kept}
        return ", ".join(becomes), values

    # -- events without an account ----------------------------------------------------------

    def adopt(self, advertisable_eid: str) -> int:
        """See :meth:`.protocol.Queue.adopt`. Without a key there is nothing to be told apart by."""
        total = 0
        while count := self.database.write(lambda tx: self._adopt(tx, advertisable_eid)):
            total += count
        while self.database.write(lambda tx: self.holds.adopt(tx, advertisable_eid)):
            pass
        return total

    def _adopt(self, tx: Tx, eid: str) -> int:
        rows = tx.rows(
            "SELECT id, dry_run, event_name, dedupe_key FROM adroll_event"
            " WHERE advertisable_eid = '' AND dedupe_key IS NOT NULL LIMIT :most {skip_locked}",
            most=_SWEEP,
        )
        for id, dry_run, name, key in rows:
            twin = tx.rows(
                "SELECT id FROM adroll_event WHERE advertisable_eid = :eid AND dry_run = :dry_run"
                " AND event_name = :name AND dedupe_key = :key",
                eid=eid,
                dry_run=dry_run,
                name=name,
                key=key,
            )
            if twin:
                # Reported again under the EID meanwhile: one of the two is enough.
                history.ended_early(tx, [id], "duplicate", "adopted")
                tx.execute("DELETE FROM adroll_event WHERE id = :id", id=id)
                self.counters.add("event_duplicate", "adopted")
                continue
            tx.execute(
                "UPDATE adroll_event SET advertisable_eid = :eid WHERE id = :id", eid=eid, id=id
            )
        return len(rows)


def oldest_due(tx: Tx) -> float | None:
    """Seconds since the oldest waiting event became due."""
    due = one(
        tx.rows(
            "SELECT due_at FROM adroll_event WHERE state = 0 AND due_at <= :now"
            " ORDER BY due_at LIMIT 1",
            now=tx.now,
        )
    )
    return None if due is None else max(0.0, tx.now - due)


def alike(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, list[str]]]:
    """*outcomes* in groups that differ by the event only: one of them, and the events' ids."""
    groups: dict[tuple[object, ...], tuple[Outcome, list[str]]] = {}
    for outcome in outcomes:
        what = (
            *(outcome.kind, outcome.error, outcome.reason),
            *(outcome.unsure, outcome.delay, outcome.blameless, outcome.refused),
            outcome.asked,
        )
        groups.setdefault(what, (outcome, []))[1].append(outcome.id)
    return list(groups.values())
