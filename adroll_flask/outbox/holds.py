"""Held events: what is done with them when they are released, cancelled or forgotten.

A verdict may come in before the event that it is about, from another host or another file. It is
kept until the event comes, and whichever comes second meets the first. On servers two transactions
that run at the same time do not see each other; what they miss, :meth:`Holds.sweep` finds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from adroll_flask.counters import Counters
from adroll_flask.errors import EventError

from . import history
from .database import Tx, key_in, key_out, one
from .record_format import NewEvent, Verdict
from .states import CANCELLED, CLAIMED, DAY, DEAD, DELIVERED, HELD, SENDING, WAITING

#: An event with what its release says differently: its JSON, its digest, when it occurred.
Amend: TypeAlias = Callable[[bytes, Mapping[str, Any]], tuple[bytes, str, float]]

_STEP: Final = 500
#: Seconds for which a claim looks whether a verdict and its event missed each other; longer
#: transactions than that are the shop's own, and housekeeping looks for those.
RECENT: Final = 120.0
_COLUMNS: Final = (
    "id, state, payload, event_name, identifiers, digest, occurred_at, reason, claim, dry_run"
)
_KEY: Final = (
    "advertisable_eid = :eid AND dry_run = :dry_run AND event_name = :name AND dedupe_key = :key"
)
#: What :func:`_verdict` takes.
_KEPT: Final = "verdict, event_name, advertisable_eid, dry_run, dedupe_key, changes, kept_at"
_KEYS: Final = "advertisable_eid, dry_run, event_name, dedupe_key"
_PAIRS: Final = (
    " FROM adroll_verdict v JOIN adroll_event e"
    " ON e.advertisable_eid = v.advertisable_eid AND e.dry_run = v.dry_run"
    " AND e.event_name = v.event_name AND e.dedupe_key = v.dedupe_key"
)
_MET: Final = (
    "SELECT v.verdict, v.event_name, v.advertisable_eid, v.dry_run, v.dedupe_key, v.changes,"
    f" v.kept_at{_PAIRS} WHERE (e.state <> {SENDING} OR e.claim = :unsent)"
)
_EMPTIED: Final = (
    f"UPDATE adroll_event SET state = {CANCELLED}, payload = NULL, error = NULL, digest = NULL,"
    " cookie_hash = NULL, click_hash = NULL, trace = NULL, claim = NULL, reason = :reason,"
    " settled_at = :now, due_at = :kept WHERE id = :id"
)


@dataclass(slots=True)
class Holds:
    """Applies verdicts, and ends holds that nobody released.

    :param longest: ``ADROLL_HOLD_MAX``, seconds; for as long a verdict waits for its event.
    :param dedupe_days: days that the key of a cancelled event is kept.
    """

    counters: Counters
    amend: Amend
    longest: float
    dedupe_days: int

    def decide(self, tx: Tx, verdicts: Sequence[Verdict], unsent: str = "") -> int:
        """Apply *verdicts*, or keep them until their events come in; how many there were.

        :param unsent: the claim of this very transaction, whose events have not left yet.
        """
        for verdict in sorted(verdicts, key=lambda verdict: verdict.at):
            rows = tx.rows(
                f"SELECT {_COLUMNS} FROM adroll_event WHERE {_KEY} " + "{lock}",
                **_values(tx, verdict),
            )
            if rows and verdict.kind == "release":
                verdict = self._first_of(tx, verdict)
            if rows and self._apply(tx, verdict, rows[0], unsent):
                tx.execute(f"DELETE FROM adroll_verdict WHERE {_KEY}", **_values(tx, verdict))
            else:
                self.keep(tx, verdict)
        return len(verdicts)

    @staticmethod
    def _first_of(tx: Tx, release: Verdict) -> Verdict:
        """What was kept for the event and has not met it yet: it came before *release*."""
        kept = tx.rows(f"SELECT {_KEPT} FROM adroll_verdict WHERE {_KEY}", **_values(tx, release))
        return _verdict(kept[0]) if kept else release

    def keep(self, tx: Tx, verdict: Verdict) -> None:
        """Keep *verdict* for an event that has not come in; a cancellation is the stronger."""
        values = _values(tx, verdict)
        changes = None if verdict.changes is None else json.dumps(verdict.changes)
        kept = tx.execute(
            "{insert} adroll_verdict (" + _KEYS + ", verdict, changes, kept_at)"
            " VALUES (:eid, :dry_run, :name, :key, :verdict, :changes, :now) {or_ignore}",
            verdict=verdict.kind,
            changes=changes,
            now=tx.now,
            **values,
        )
        if not kept and verdict.kind == "cancel":
            tx.execute(
                f"UPDATE adroll_verdict SET verdict = 'cancel', changes = NULL WHERE {_KEY}",
                **values,
            )

    def meet(self, tx: Tx, ids: Sequence[str], unsent: str = "") -> int:
        """Apply what was kept for events that have just come in; how much that was."""
        if not tx.rows("SELECT 1 FROM adroll_verdict LIMIT 1"):
            return 0
        found = tx.rows(_MET + " AND e.id {in_ids}", ids=list(ids), unsent=unsent)
        return self.decide(tx, [_verdict(row) for row in found], unsent)

    def meet_in_session(self, tx: Tx, id: str) -> None:
        """The same for one event in somebody else's transaction.

        Only the event's own row is touched; the verdict stays, for :meth:`sweep`.
        """
        for found in tx.rows(_MET + " AND e.id = :id", id=id, unsent=""):
            rows = tx.rows(f"SELECT {_COLUMNS} FROM adroll_event WHERE id = :id", id=id)
            self._apply(tx, _verdict(found), rows[0])

    def pending(self, tx: Tx) -> bool:
        """True where an event and its verdict have missed each other lately; cheap."""
        query = f"{_MET} AND v.kept_at > :since LIMIT 1"
        return bool(tx.rows(query, since=tx.now - RECENT, unsent=""))

    def sweep(self, tx: Tx, since: float | None = None) -> int:
        """Apply the verdicts whose events came in meanwhile; how many there were.

        :param since: those kept since then only.
        """
        query = f"{_MET} AND v.kept_at > :since ORDER BY v.kept_at LIMIT {_STEP}"
        found = tx.rows(query, since=-1.0 if since is None else since, unsent="")
        self.decide(tx, [_verdict(row) for row in found])
        return len(found)

    def adopt(self, tx: Tx, eid: str) -> int:
        """Give verdicts that were said without an advertisable EID this one."""
        rows = tx.rows(
            f"SELECT {_KEPT} FROM adroll_verdict WHERE advertisable_eid = '' LIMIT {_STEP} "
            + "{skip_locked}"
        )
        for row in rows:
            verdict = _verdict(row)
            tx.execute(f"DELETE FROM adroll_verdict WHERE {_KEY}", **_values(tx, verdict))
            kept = (verdict.kind, verdict.name, eid, verdict.dry_run, verdict.key, verdict.changes)
            self.decide(tx, [Verdict(verdict.at, *kept)])
        return len(rows)

    # -- what becomes of an event -----------------------------------------------------------

    def _apply(self, tx: Tx, verdict: Verdict, row: Any, unsent: str = "") -> bool:
        """Do to the event of *row* what *verdict* says; whether that is all there is to do."""
        state, payload = row[1], row[2]
        if state == SENDING and row[8] == unsent:
            state = CLAIMED
        if verdict.kind == "release":
            if state == HELD:
                self._release(tx, verdict, row)
            elif state == CANCELLED:
                self._count(tx, [row], "unused", row[7])
            return True
        if state in (HELD, WAITING, CLAIMED) or (state == DEAD and payload is not None):
            self._empty(tx, [row], "cancelled", "cancelled")
        elif state == SENDING:
            return False  # it may come back to the queue
        elif state == DELIVERED:
            self._count(tx, [row], "too_late", "cancelled")
        return True

    def _release(self, tx: Tx, verdict: Verdict, row: Any) -> None:
        id, _state, payload, _name, _mask, digest, occurred_at, *_ = row
        values: dict[str, Any] = {"id": id, "now": tx.now}
        if verdict.changes:
            try:
                payload, digest, occurred_at = self.amend(bytes(payload), verdict.changes)
            except EventError as problem:
                self.counters.add("event_invalid", "release")
                tx.execute(
                    f"UPDATE adroll_event SET state = {DEAD}, reason = 'invalid:release',"
                    " error = :error, settled_at = :now, due_at = :kept WHERE id = :id",
                    error=f"its release: {problem}"[:1000],
                    kept=tx.now + self.dedupe_days * DAY,
                    **values,
                )
                history.add(tx, [history.of(_new(row), "invalid", "invalid:release")])
                return
        tx.execute(
            f"UPDATE adroll_event SET state = {WAITING}, due_at = :now, released_at = :now,"
            " payload = :payload, digest = :digest, occurred_at = :occurred_at WHERE id = :id",
            payload=payload,
            digest=digest,
            occurred_at=occurred_at,
            **values,
        )
        self.counters.add("hold_released")

    def _empty(self, tx: Tx, rows: Sequence[Any], outcome: str, reason: str) -> None:
        """Forget events but for their keys, so that a reload does not report them again."""
        kept = tx.now + self.dedupe_days * DAY
        for row in rows:
            tx.execute(_EMPTIED, id=row[0], reason=reason, now=tx.now, kept=kept)
        self._count(tx, rows, outcome, reason)

    def _count(self, tx: Tx, rows: Sequence[Any], outcome: str, reason: str) -> None:
        self.counters.add(f"hold_{outcome}", reason, len(rows))
        history.add(tx, [history.of(_new(row), outcome, reason) for row in rows])

    # -- what nobody decided ----------------------------------------------------------------

    def expire(self, tx: Tx) -> int:
        """End holds that nobody released in time; how many there were."""
        rows = tx.rows(
            f"SELECT {_COLUMNS} FROM adroll_event WHERE state = {HELD} AND due_at <= :now"
            f" ORDER BY due_at LIMIT {_STEP} " + "{skip_locked}",
            now=tx.now,
        )
        if rows:
            self._empty(tx, rows, "expired", "hold_expired")
        return len(rows)

    def forget(self, tx: Tx) -> int:
        """Forget verdicts whose events never came; how many there were."""
        rows = tx.rows(
            f"SELECT {_KEPT} FROM adroll_verdict WHERE kept_at <= :before LIMIT {_STEP} "
            + "{skip_locked}",
            before=tx.now - self.longest,
        )
        for row in rows:
            verdict = _verdict(row)
            tx.execute(f"DELETE FROM adroll_verdict WHERE {_KEY}", **_values(tx, verdict))
            self.counters.add("hold_unused", f"{verdict.kind}_of_no_hold")
        history.add(
            tx,
            [
                history.Entry(row[1], "unused", f"{row[0]}_of_no_hold", 0, "", 0, None)
                for row in rows
                if not row[3]
            ],
        )
        return len(rows)


def waiting_verdicts(tx: Tx) -> int:
    """Releases and cancellations whose events have not come in."""
    return int(one(tx.rows("SELECT count(*) FROM adroll_verdict")) or 0)


def released(tx: Tx) -> int:
    """Events that are held no longer as soon as anybody claims: their release waits beside them."""
    statement = f"SELECT count(*){_PAIRS} WHERE v.verdict = 'release' AND e.state = {HELD}"
    return int(one(tx.rows(statement)) or 0)


def find(tx: Tx, verdict: Verdict) -> str | None:
    """The id of the event that *verdict* is about."""
    rows = tx.rows(f"SELECT id FROM adroll_event WHERE {_KEY}", **_values(tx, verdict))
    return None if not rows else str(rows[0][0])


def _values(tx: Tx, verdict: Verdict) -> dict[str, Any]:
    return {
        "eid": verdict.advertisable_eid,
        "dry_run": int(verdict.dry_run),
        "name": verdict.name,
        "key": key_in(tx.dialect, verdict.key),
    }


def _verdict(row: Any) -> Verdict:
    kind, name, eid, dry_run, key, changes, kept_at = row
    return Verdict(
        at=kept_at,
        kind=kind,
        name=name,
        advertisable_eid=eid,
        dry_run=bool(dry_run),
        key=key_out(key) or "",
        changes=None if changes is None else json.loads(changes),
    )


def _new(row: Any) -> NewEvent:
    """What history tells of the event of *row*."""
    id, _state, _payload, name, mask, digest, occurred_at, _reason, _claim, dry_run = row
    return NewEvent(id, name, "", bool(dry_run), None, b"", occurred_at, digest, mask)
