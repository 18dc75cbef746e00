"""The only maker of rows: from records to the table of events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from . import history, identifier_hashes
from .database import Tx, key_in, one
from .duplicates import NONE, Same, release_of, releases, same, same_by_key
from .erasing import erase
from .giving_way import each
from .holds import Holds
from .ids import reported_at
from .protocol import Claimed, OutboxFailed
from .record_format import (
    Counted,
    EventRecord,
    NewEvent,
    Record,
    Suppressed,
    Verdict,
    Withdrawal,
    counted_as,
)
from .states import CANCELLED, DAY, DEAD, HELD, WAITING

_INSERT: Final = (
    "{insert} adroll_event ({seq_name}id, state, event_name, advertisable_eid, dry_run, dedupe_key,"
    " digest, payload, occurred_at, queued_at, due_at, claim, cookie_hash, click_hash, identifiers,"
    " reason, error, settled_at, unsure, learnt_at, trace)"
    " VALUES ({seq}:id, :state, :event_name, :advertisable_eid, :dry_run, :dedupe_key,"
    " :digest, :payload, :occurred_at, :queued_at, :due_at, :claim,"
    " :cookie_hash, :click_hash, :identifiers, :reason, :error, :settled_at, :unsure, :learnt_at,"
    " :trace)"
    " {or_ignore}"
)


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim that takes events on their way in.

    :param room: how many.
    """

    token: str
    room: int
    state: int
    until: float


@dataclass(slots=True)
class Written:
    """What came of writing records."""

    claimed: list[Claimed] = field(default_factory=list)
    queued: int = 0
    duplicates: int = 0
    #: Duplicates with another value.
    changed: int = 0
    #: Events erased for visitors who said no.
    forgotten: int = 0
    #: Verdicts on held events.
    decided: int = 0


class RowWriter:
    """Writes records as rows.

    :param dedupe_days: days that a dead letter and the key of a forgotten event are kept.
    :param withdrawals_kept: seconds for which a withdrawal stops what was learnt before it.
    :param clock: the host's, by which records have their times; the database has its own.
    """

    def __init__(
        self,
        holds: Holds,
        *,
        dedupe_days: int,
        withdrawals_kept: float,
        clock: Callable[[], float],
    ) -> None:
        self.holds = holds
        self._dedupe_days = dedupe_days
        self._withdrawals_kept = withdrawals_kept
        self._clock = clock
        self._salt: bytes | None = None

    def write(self, tx: Tx, records: Sequence[Record], lease: Lease | None = None) -> Written:
        """Write *records* in the order of their times."""
        # The database may be another one since the last time.
        self._salt = None
        written = Written()
        events = [record for record in records if isinstance(record, EventRecord)]
        if events:
            events.sort(key=lambda record: record.at)
            self._insert(tx, events, lease, written)
        withdrawals = [record for record in records if isinstance(record, Withdrawal)]
        withdrawals.sort(key=lambda record: record.at)
        # What this very transaction claims has not left yet, whatever its state.
        unsent = lease.token if lease is not None else ""
        for withdrawal in withdrawals:
            self._withdraw(tx, withdrawal, unsent, written)
        if events:
            self._stop_withdrawn(tx, events, unsent, written)
        verdicts = [record for record in records if isinstance(record, Verdict)]
        if events:
            ids = [record.event.id for record in events]
            written.decided += self.holds.meet(tx, ids, unsent)
        if verdicts:
            written.decided += self.holds.decide(tx, verdicts, unsent)
        if written.decided and written.claimed:
            self._without_cancelled(tx, written)
        suppressed = [record for record in records if isinstance(record, Suppressed)]
        self._remember(tx, [record for record in suppressed if record.order])
        entries = [
            history.Entry(record.name, "suppressed", record.reason[:40], 0, "", 0, None)
            for record in suppressed
        ]
        entries += [history.counted(record) for record in records if isinstance(record, Counted)]
        history.add(tx, entries)
        return written

    def _remember(self, tx: Tx, orders: Sequence[Suppressed]) -> None:
        """Keep why orders were not reported, and nothing else of them."""
        for record in orders:
            tx.execute(
                "DELETE FROM adroll_suppressed WHERE order_hash = :order", order=record.order
            )
            tx.execute(
                "{insert} adroll_suppressed (order_hash, reason, suppressed_at, forget_at)"
                " VALUES (:order, :reason, :at, :until) {or_ignore}",
                order=record.order,
                reason=record.reason[:40],
                at=tx.now - max(0.0, self._clock() - record.at),
                until=tx.now + history.KEPT,
            )

    # -- events -----------------------------------------------------------------------------

    def _insert(
        self, tx: Tx, events: Sequence[EventRecord], lease: Lease | None, written: Written
    ) -> None:
        host_now = self._clock()
        rows: list[dict[str, Any]] = []
        claimed: list[Claimed] = []
        for record in each(events):
            queued_at = tx.now - max(0.0, host_now - record.at)
            row = self.row(tx, record.event, queued_at, record.dead)
            row["unsure"] = int(record.unsure)
            fresh = row["state"] == WAITING and not record.unsure
            if lease is not None and fresh and len(claimed) < lease.room:
                row |= {"state": lease.state, "claim": lease.token, "due_at": lease.until}
                claimed.append(_claimed(record.event, queued_at))
            rows.append(row)
        written.queued = len(rows)
        if tx.many(_INSERT, rows) < len(rows):
            ids = [row["id"] for row in rows]
            found = tx.rows("SELECT id, claim FROM adroll_event WHERE id {in_ids}", ids=ids)
            there = {row[0]: row[1] for row in found}
            # A commit that came late, or another worker, may have brought one in already: then it
            # is not this claim's.
            token = lease.token if lease is not None else ""
            claimed = [event for event in claimed if there.get(event.id) == token]
            written.queued = len(there)
            self._duplicates(tx, [r.event for r in events if r.event.id not in there], written)
        written.claimed = claimed
        dead = [record for record in events if record.dead is not None]
        history.add(tx, [history.of(r.event, "invalid", r.dead[0]) for r in dead if r.dead])

    def row(
        self, tx: Tx, event: NewEvent, queued_at: float, dead: tuple[str, str] | None = None
    ) -> dict[str, Any]:
        """One event as the values of its row."""
        cookie, click = self.hashes(tx, event.payload)
        row: dict[str, Any] = {
            "id": event.id,
            "state": WAITING,
            "event_name": event.name,
            "advertisable_eid": event.advertisable_eid,
            "dry_run": int(event.dry_run),
            "dedupe_key": key_in(tx.dialect, event.key),
            "digest": event.digest,
            "payload": event.payload,
            "occurred_at": event.occurred_at,
            "queued_at": queued_at,
            "due_at": queued_at,
            "claim": None,
            "cookie_hash": cookie,
            "click_hash": click,
            "identifiers": event.identifiers,
            "reason": None,
            "error": None,
            "settled_at": None,
            "unsure": 0,
            "learnt_at": None,
            "trace": event.trace,
        }
        if event.known_since is not None:
            row["learnt_at"] = tx.now - max(0.0, self._clock() - event.known_since)
        if dead is not None:
            row |= {
                "state": DEAD,
                "reason": dead[0][:40],
                "error": dead[1][:1000],
                "settled_at": queued_at,
                "due_at": tx.now + self._dedupe_days * DAY,
            }
        elif event.held_for is not None:
            row |= {"state": HELD, "due_at": queued_at + event.held_for}
        return row

    def insert_one(self, tx: Tx, event: NewEvent, *, shared: bool = False) -> Same | None:
        """Insert one event; ``None``, or what has its key, or :data:`NONE` that is to be seen.

        :param shared: the transaction is somebody else's.
        """
        row = self.row(tx, event, tx.now)
        if self._is_withdrawn(tx, event, row):
            row |= {
                "state": DEAD,
                "reason": "forgotten",
                "settled_at": tx.now,
                "due_at": tx.now + self._dedupe_days * DAY,
            }
            row |= dict.fromkeys(("payload", "digest", "cookie_hash", "click_hash"))
        if not tx.execute(_INSERT, **row):
            return self.release_by(tx, event, same(tx, event) or NONE, shared=shared)
        if event.key is not None:
            if shared:
                self.holds.meet_in_session(tx, event.id)
            else:
                self.holds.meet(tx, [event.id])
        return None

    def _is_withdrawn(self, tx: Tx, event: NewEvent, row: dict[str, Any]) -> bool:
        """Whether the visitor has said no since what *event* says of them was learnt."""
        if row["cookie_hash"] is None and row["click_hash"] is None:
            return False
        withdrawn = one(
            tx.rows(
                "SELECT max(withdrawn_at) FROM adroll_withdrawal"
                " WHERE visitor IN (:cookie, :click)",
                cookie=row["cookie_hash"],
                click=row["click_hash"],
            )
        )
        if withdrawn is None:
            return False
        at = reported_at(event.id) if event.known_since is None else event.known_since
        return tx.now - max(0.0, self._clock() - at) <= float(withdrawn)

    def release_by(self, tx: Tx, event: NewEvent, kept: Same, *, shared: bool) -> Same:
        """A second report, without a hold, releases the held one: *kept*, which has its key."""
        if not releases(event, kept):
            return kept
        if shared:
            self.holds.keep(tx, release_of(event, tx.now))
        else:
            self.holds.decide(tx, [release_of(event, tx.now)])
        return kept

    @staticmethod
    def _without_cancelled(tx: Tx, written: Written) -> None:
        ids = [event.id for event in written.claimed]
        rows = tx.rows(
            f"SELECT id FROM adroll_event WHERE state = {CANCELLED} AND id " + "{in_ids}", ids=ids
        )
        gone = {row[0] for row in rows}
        written.claimed = [event for event in written.claimed if event.id not in gone]

    def _duplicates(self, tx: Tx, events: Sequence[NewEvent], written: Written) -> None:
        entries = []
        found = same_by_key(tx, events)
        for event in events:
            kept = found.get(event.id)
            if kept is not None and releases(event, kept):
                kept = same(tx, event)  # one before it may have released it
            if kept is None:
                # Neither in nor a duplicate: INSERT IGNORE hides what the database objects to.
                raise OutboxFailed("data")
            if releases(event, kept):
                written.decided += self.holds.decide(tx, [release_of(event, tx.now)])
                continue
            # An erased event's value is not known any more.
            changed = kept[1] is not None and kept[1] != event.digest
            written.duplicates += 1
            written.changed += changed
            entries.append(history.of(event, "duplicate", "another_value" if changed else ""))
        history.add(tx, entries)

    # -- visitors who said no ---------------------------------------------------------------

    def hashes(self, tx: Tx, payload: bytes) -> tuple[str | None, str | None]:
        """Keyed hashes of an event's cookie and click id, by which an erasure finds it."""
        return identifier_hashes.of_payload(payload, self._key(tx))

    def _key(self, tx: Tx) -> bytes:
        """The key of the identifiers' hashes: this outbox's id."""
        key = self._salt
        if key is None:
            found = one(tx.rows("SELECT value FROM adroll_meta WHERE name = 'outbox_id'"))
            key = self._salt = str(found).encode()
        return key

    def _withdraw(self, tx: Tx, withdrawal: Withdrawal, unsent: str, written: Written) -> None:
        """Erase what waits of a visitor, and remember that they said no."""
        at = tx.now - max(0.0, self._clock() - withdrawal.at)
        for column, value in (
            ("cookie_hash", withdrawal.first_party_cookie),
            ("click_hash", withdrawal.adct),
        ):
            if not value:
                continue
            hashed = identifier_hashes.of_value(value, self._key(tx))
            # Files are read in any order: a later withdrawal, which stops more, stays.
            tx.execute(
                "DELETE FROM adroll_withdrawal WHERE visitor = :visitor AND withdrawn_at <= :at",
                visitor=hashed,
                at=at,
            )
            tx.execute(
                "{insert} adroll_withdrawal (visitor, withdrawn_at, forget_at)"
                " VALUES (:visitor, :at, :until) {or_ignore}",
                visitor=hashed,
                at=at,
                until=tx.now + self._withdrawals_kept,
            )
            rows = tx.rows(
                f"SELECT id FROM adroll_event WHERE {column} = :visitor"
                " AND coalesce(learnt_at, queued_at) <= :at AND payload IS NOT NULL",
                visitor=hashed,
                at=at + 1.0,
            )
            self._erase_withdrawn(tx, [row[0] for row in rows], unsent, written)

    def _stop_withdrawn(
        self, tx: Tx, events: Sequence[EventRecord], unsent: str, written: Written
    ) -> None:
        """Erase what has just come in of visitors who said no since it was learnt.

        Another process's file may be read after the withdrawal, and a token may come back days
        after it.
        """
        if not tx.rows("SELECT 1 FROM adroll_withdrawal LIMIT 1"):
            return
        rows = tx.rows(
            "SELECT e.id, w.withdrawn_at FROM adroll_event e JOIN adroll_withdrawal w"
            " ON w.visitor IN (e.cookie_hash, e.click_hash) WHERE e.id {in_ids}",
            ids=[record.event.id for record in events],
        )
        if not rows:
            return
        learnt = {}
        for record in events:
            at = record.at if record.event.known_since is None else record.event.known_since
            learnt[record.event.id] = tx.now - max(0.0, self._clock() - at)
        ids = {id for id, withdrawn_at in rows if learnt[id] <= withdrawn_at}
        self._erase_withdrawn(tx, sorted(ids), unsent, written)

    def _erase_withdrawn(self, tx: Tx, ids: list[str], unsent: str, written: Written) -> None:
        if not ids:
            return
        names = tx.rows(
            "SELECT event_name, dry_run FROM adroll_event WHERE id {in_ids}"
            " AND (state IN (0, 1, 5) OR claim = :unsent)",
            ids=ids,
            unsent=unsent,
        )
        written.forgotten += erase(tx, ids, self._dedupe_days, unsent)
        history.add(
            tx,
            [
                history.Entry(name, *became, 0, "", 0, None)
                for name, dry_run in names
                for became in [counted_as("suppressed", "consent_withdrawn", bool(dry_run))]
            ],
        )
        written.claimed = [event for event in written.claimed if event.id not in ids]


def _claimed(event: NewEvent, queued_at: float) -> Claimed:
    return Claimed(
        id=event.id,
        name=event.name,
        payload=event.payload,
        occurred_at=event.occurred_at,
        created_at=queued_at,
        attempts=0,
        unsure=False,
        key=event.key,
        dry_run=event.dry_run,
        digest=event.digest,
        identifiers=event.identifiers,
        trace=event.trace,
    )
