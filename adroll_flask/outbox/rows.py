"""The only maker of rows: from entries to the table of events."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, TypeAlias, TypeVar

from adroll_flask.forks import each

from . import destination, history, transitions
from .database import Tx, insert, insert_into, key_in, key_out, meta
from .entries import Counted, Entry, EventEntry, NewEvent, Verdict, Withdrawal
from .holds import Holds, taken_out
from .values import DEAD, DECIDED, ERROR_LENGTH, HELD, WAITING, OutboxFailed

_T = TypeVar("_T")

#: Id, digest and state of the event that has a key.
_Kept: TypeAlias = tuple[str, str | None, int]
#: The value of what before_report has yet to pass may still change.
_KEPT_OF_MANY: Final = (
    "SELECT dedupe_key, id, CASE WHEN reason IN ('invalid:before_report', 'invalid:held') THEN NULL"
    " ELSE digest END, state FROM adroll_event WHERE advertisable_eid = :eid"
    " AND dry_run = :dry_run AND event_name = :name AND dedupe_key {in_ids}"
)
#: Seconds that count as one moment with a visitor's no: clocks of two hosts are not quite alike,
#: and a transaction has the time of its beginning.
_MOMENT: Final = 1.0


@dataclass(slots=True)
class Written:
    """What came of writing entries.

    :param changed: duplicates with another value.
    :param forgotten: events erased for visitors who said no.
    """

    duplicates: int = 0
    changed: int = 0
    forgotten: int = 0


class RowWriter:
    """Writes entries as rows.

    :param withdrawals_kept: seconds for which a withdrawal stops what was learnt before it.
    :param clock: the host's, by which entries have their times; the database has its own.
    """

    def __init__(self, holds: Holds, withdrawals_kept: float, clock: Callable[[], float]) -> None:
        self.holds = holds
        self._withdrawals_kept = withdrawals_kept
        self._clock = clock
        self._key: bytes | None = None
        self._read_at = 0.0

    def write(self, tx: Tx, entries: Sequence[Entry]) -> Written:
        """Write *entries* in the order of their times."""
        self._key = None  # the database may be another one since the last time
        self._read_at = self._clock()  # once: events keep their order
        written = Written()
        events = _those(entries, EventEntry)
        if events:
            self._insert(tx, events, written)
        for withdrawal in _those(entries, Withdrawal):
            self._withdraw(tx, withdrawal, written)
        if events:
            self._stop_withdrawn(tx, events, written)
        self.holds.decide(tx, _those(entries, Verdict))
        counted = _those(entries, Counted)
        self._remember(tx, [entry for entry in counted if entry.order])
        history.add(tx, [history.counted(entry, self._time(tx, entry.at)) for entry in counted])
        return written

    def _remember(self, tx: Tx, orders: Sequence[Counted]) -> None:
        """Keep why orders were not reported, and nothing else of them."""
        for entry in orders:
            tx.execute("DELETE FROM adroll_suppressed WHERE order_hash = :order", order=entry.order)
            insert(
                tx,
                "adroll_suppressed",
                order_hash=entry.order,
                reason=entry.reason[:40],
                suppressed_at=self._time(tx, entry.at),
                forget_at=tx.now + history.KEPT,
            )

    def _time(self, tx: Tx, at: float) -> float:
        """A time by the host's clock as the database's has it; none is in the future."""
        return tx.now - max(0.0, self._read_at - at)

    # -- events -----------------------------------------------------------------------------

    def _insert(self, tx: Tx, entries: Sequence[EventEntry], written: Written) -> None:
        destination.know(tx, {entry.event.advertisable_eid for entry in entries})
        dead = [entry.event.id for entry in entries if entry.dead is not None]
        # A commit that came late, or another worker, may have brought one in already.
        before = _there(tx, dead) if dead else set()
        rows = [self._row(tx, entry) for entry in each(entries)]
        if tx.many(insert_into("adroll_event", rows[0]), rows) < len(rows):
            there = _there(tx, [row["id"] for row in rows])
            others = [entry for entry in entries if entry.event.id not in there]
            entries = [entry for entry in entries if entry.event.id in there]
        else:
            others = []
        self._count_dead(tx, [entry for entry in entries if entry.event.id not in before])
        self._meet(tx, others, written)

    @staticmethod
    def _count_dead(tx: Tx, entries: Sequence[EventEntry]) -> None:
        found = {entry.event.id: (entry.event, entry.dead[0]) for entry in entries if entry.dead}
        history.add(
            tx,
            [
                history.of(event, "dead" if reason == "restored" else "invalid", reason)
                for event, reason in found.values()
            ],
        )

    def _row(self, tx: Tx, entry: EventEntry) -> dict[str, Any]:
        """One event as the values of its row."""
        event = entry.event
        queued_at = self._time(tx, entry.at)
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
            "unsure": int(entry.unsure),
            "learnt_at": None,
        }
        if event.known_since is not None:
            row["learnt_at"] = self._time(tx, event.known_since)
        if entry.dead is not None:
            row |= {
                "state": DEAD,
                "reason": entry.dead[0][:40],
                "error": entry.dead[1][:ERROR_LENGTH],
                "settled_at": queued_at,
                "due_at": self.holds.kept(tx),
            }
        elif event.held_for is not None:
            row |= {"state": HELD, "due_at": queued_at + event.held_for}
        return row

    def _meet(self, tx: Tx, entries: Sequence[EventEntry], written: Written) -> None:
        """What becomes of events whose key is taken: by a verdict, a held event, or another."""
        found = _kept_of(tx, [entry.event for entry in entries])
        happened = []
        for entry in entries:
            event, kept = entry.event, found.get(entry.event.id)
            if kept is None or event.order is None:
                # Neither in nor a duplicate: INSERT IGNORE hides what the database objects to.
                raise OutboxFailed("data")
            if kept[2] == DECIDED:
                verdict = taken_out(tx, kept[0])
                if verdict is None or not insert(tx, "adroll_event", **self._row(tx, entry)):
                    raise OutboxFailed("locked", "another process has taken the same order in")
                self._count_dead(tx, [entry])
                self.holds.decide(tx, [verdict])
            elif kept[2] == HELD and event.held_for is None:
                # A second report, without a hold, says that the held one is to be sent.
                self.holds.decide(tx, [Verdict(tx.now, "release", event.order)])
            else:
                # An erased event's value is not known any more.
                changed = kept[1] is not None and kept[1] != event.digest
                written.duplicates += 1
                written.changed += changed
                happened.append(history.of(event, "duplicate", "another_value" if changed else ""))
                continue
            found |= _kept_of(tx, [other.event for other in entries])
        history.add(tx, happened)

    # -- visitors who said no ---------------------------------------------------------------

    def hashes(self, tx: Tx, payload: bytes) -> tuple[str | None, str | None]:
        """Keyed hashes of an event's cookie and click id, by which an erasure finds it."""
        key = self._hash_key(tx)
        return _hash_in(payload, _COOKIE, key), _hash_in(payload, _CLICK, key)

    def _hash_key(self, tx: Tx) -> bytes:
        """The key of the identifiers' hashes: this outbox's id."""
        if self._key is None:
            self._key = str(meta(tx, "outbox_id")).encode()
        return self._key

    def _withdraw(self, tx: Tx, withdrawal: Withdrawal, written: Written) -> None:
        """Erase what waits of a visitor, and remember that they said no."""
        at = self._time(tx, withdrawal.at) + _MOMENT
        for column, value in (
            ("cookie_hash", withdrawal.first_party_cookie),
            ("click_hash", withdrawal.adct),
        ):
            if not value:
                continue
            hashed = _hash(_quoted(value), self._hash_key(tx))
            # Files are read in any order: a later withdrawal, which stops more, stays.
            tx.execute(
                "DELETE FROM adroll_withdrawal WHERE visitor = :visitor AND withdrawn_at <= :at",
                visitor=hashed,
                at=at,
            )
            until = tx.now + self._withdrawals_kept
            insert(tx, "adroll_withdrawal", visitor=hashed, withdrawn_at=at, forget_at=until)
            rows = tx.rows(
                f"SELECT id FROM adroll_event WHERE {column} = :visitor"
                " AND coalesce(learnt_at, queued_at) <= :at AND payload IS NOT NULL",
                visitor=hashed,
                at=at,
            )
            self._erase_withdrawn(tx, [row[0] for row in rows], written)

    def _stop_withdrawn(self, tx: Tx, entries: Sequence[EventEntry], written: Written) -> None:
        """Erase what has just come in of visitors who said no since it was learnt.

        Another process's file may be read after the withdrawal, and a token may come back days
        after it.
        """
        if not tx.rows("SELECT 1 FROM adroll_withdrawal LIMIT 1"):
            return
        rows = tx.rows(
            "SELECT DISTINCT e.id FROM adroll_event e JOIN adroll_withdrawal w"
            " ON w.visitor IN (e.cookie_hash, e.click_hash) WHERE e.id {in_ids}"
            " AND coalesce(e.learnt_at, e.queued_at) <= w.withdrawn_at",
            ids=[entry.event.id for entry in entries],
        )
        self._erase_withdrawn(tx, [row[0] for row in rows], written)

    def _erase_withdrawn(self, tx: Tx, ids: list[str], written: Written) -> None:
        written.forgotten += self.erase(tx, ids, "suppressed", "consent_withdrawn")

    def erase(self, tx: Tx, ids: Sequence[str], outcome: str, why: str) -> int:
        """Remove the data of events that are not delivered; how many there were.

        Keys stay, so that a reload does not report the visitor again. Of what is being sent, the
        outcome is still awaited; it is never sent again.

        :param outcome: what the history counts of those that waited, with the reason *why*.
        """
        # What moves at this moment, from one of the states below to another, is waited for.
        tx.rows("SELECT id FROM adroll_event WHERE id {in_ids} {lock}", ids=ids)
        keyless = "dedupe_key IS NULL"
        kept: dict[str, Any] = {"reason": "forgotten", "kept": self.holds.kept(tx)}
        move = transitions.move
        gone = move(tx, "erase_keyless_dead", ids, also=keyless)
        gone += move(tx, "erase_dead", ids, **kept)
        gone += move(tx, "erase_keyless", ids, also=keyless, outcome=outcome, why=why)
        gone += move(tx, "erase", ids, outcome=outcome, why=why, **kept)
        return gone + move(tx, "empty", ids, reason="forgotten")


def _those(entries: Sequence[Entry], kind: type[_T]) -> list[_T]:
    """Those of *kind*, the oldest first."""
    found = [entry for entry in entries if isinstance(entry, kind)]
    return sorted(found, key=attrgetter("at"))


def _there(tx: Tx, ids: Sequence[str]) -> set[str]:
    return {row[0] for row in tx.rows("SELECT id FROM adroll_event WHERE id {in_ids}", ids=ids)}


def _kept_of(tx: Tx, events: Sequence[NewEvent]) -> dict[str, _Kept]:
    """What has the key of each of *events*, by their ids; a query an account and name."""
    alike: defaultdict[tuple[str, bool, str], dict[str, str]] = defaultdict(dict)
    for event in events:
        if event.key is not None:
            alike[event.advertisable_eid, event.dry_run, event.name][event.id] = event.key
    found: dict[str, _Kept] = {}
    for (eid, dry_run, name), keys in alike.items():
        rows = tx.rows(
            _KEPT_OF_MANY,
            eid=eid,
            dry_run=int(dry_run),
            name=name,
            ids=[key_in(tx.dialect, key) for key in set(keys.values())],
        )
        there = {key_out(row[0]): (row[1], row[2], row[3]) for row in rows}
        found |= {id: there[key] for id, key in keys.items() if key in there}
    return found


# -- keyed hashes of a waiting event's identifiers -------------------------------------------------

#: Where an event's JSON, which is ours, has the identifiers that an erasure asks for. No text in
#: JSON can hold these bytes: its quotes are escaped.
_COOKIE: Final = b'"first_party_cookie":"'
_CLICK: Final = b'"adct":"'
_TEXT: Final = re.compile(rb'([^"\\]*(?:\\.[^"\\]*)*)"')


def _hash_in(payload: bytes, name: bytes, key: bytes) -> str | None:
    # Most events lack one of the two, and to look for plain bytes is much faster than for a
    # pattern.
    start = payload.find(name)
    value = None if start < 0 else _TEXT.match(payload, start + len(name))
    return None if value is None else _hash(value[1], key)


def _quoted(value: str) -> bytes:
    return value.replace("\\", "\\\\").replace('"', '\\"').encode()


def _hash(value: bytes, key: bytes) -> str:
    return hashlib.blake2b(value, digest_size=16, key=key).hexdigest()
