"""Claim, send, settle on a SQLite file: what :mod:`.claims` does on servers.

This is the hot half of delivery in a shop's own process: it shares the interpreter and the file's
one write lock with requests. So each step is a statement of SQLite's that commits by itself,
within one call that holds no lock of the interpreter's; what Python makes of the rows comes after.

Nothing here imports SQLAlchemy.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from adroll_flask.counters import Counters

from .outcomes import ERROR_LENGTH, alike, tally_of, too_far
from .protocol import Claim, Claimed, OutboxFailed, Outcome
from .sqlite import SqliteFile
from .states import (
    CLAIMED,
    DAY,
    KEYLESS_KEPT,
    LONGEST_DELAY,
    LONGEST_LEASE,
    SENDING,
    WAITING,
    seq_of,
)

#: Rows that one claim takes back from lapsed leases, at most.
_SWEEP: Final = 500

_ENDS: Final = ", ".join(
    f"(SELECT due_at FROM adroll_event WHERE state = {state} ORDER BY due_at {order} LIMIT 1)"  # noqa: S608
    for state in (WAITING, CLAIMED, SENDING)
    for order in ("ASC", "DESC")
)
#: The earliest and the latest time of what waits, is claimed, is being sent.
_PEEK: Final = f"SELECT {_ENDS}"
_CLAIM: Final = (
    "UPDATE adroll_event SET state = 1, claim = ?, due_at = ? WHERE seq IN"
    " (SELECT seq FROM adroll_event WHERE state = 0 AND due_at <= ? ORDER BY due_at LIMIT ?)"
)
_CLAIMED: Final = (
    "SELECT id, event_name, payload, occurred_at, queued_at, attempts, unsure, dedupe_key, dry_run"
    " FROM adroll_event WHERE state = 1 AND due_at = ? AND claim = ? ORDER BY queued_at, id"
)
_DUE: Final = (
    "SELECT count(*) FROM (SELECT 1 FROM adroll_event WHERE state = 0 AND due_at <= ? LIMIT ?)"
)
_MINE: Final = "seq IN (SELECT value FROM json_each(?)) AND claim = ? AND state IN (1, 2)"
_LAPSED: Final = (
    "SELECT seq FROM adroll_event WHERE state = ? AND (due_at <= ? OR due_at > ?) LIMIT ?"
)
_TALLY: Final = (
    "INSERT INTO adroll_tally (minute, slot, delivered, dead, retried, unsure)"
    " VALUES (?, 0, ?, ?, ?, ?) ON CONFLICT (minute, slot) DO UPDATE SET"
    " delivered = delivered + excluded.delivered, dead = dead + excluded.dead,"
    " retried = retried + excluded.retried, unsure = unsure + excluded.unsure"
)


@dataclass(slots=True)
class FileClaims:
    """The way of events through claims, in one file.

    :param clock: seconds since the epoch.
    :param on_unsure: ``"retry"`` or ``"drop"``: what happens to an event whose lease lapsed while
        a request with it was under way.
    :param dedupe_days: days that the key of a delivered event is kept after it occurred.
    """

    file: SqliteFile
    clock: Callable[[], float]
    counters: Counters
    on_unsure: str
    dedupe_days: int

    def claim(self, limit: int = 100, lease: float = 60.0) -> Claim | None:
        """See :meth:`Outbox.claim`."""
        now = self.clock()
        # Asking takes no lock; most of the time there is nothing.
        ends = self.file.work(lambda connection: connection.execute(_PEEK).fetchone())
        if self._astray(ends, now):
            self._take_back(now)
        elif ends[0] is None or ends[0] > now:
            return None
        token = secrets.token_hex(16)
        until = now + min(lease, LONGEST_LEASE)
        took = self.file.work(
            lambda connection: connection.execute(_CLAIM, (token, until, now, limit)).rowcount
        )
        if not took:
            return None
        rows = self.file.work(
            lambda connection: connection.execute(_CLAIMED, (until, token)).fetchall()
        )
        return Claim(token, tuple(map(_claimed, rows)), now)

    def due(self, most: int) -> int:
        """See :meth:`Outbox.due`."""
        values = self.clock(), most
        count: int = self.file.work(
            lambda connection: connection.execute(_DUE, values).fetchone()[0]
        )
        return count

    def _astray(self, ends: Sequence[float | None], now: float) -> bool:
        """Something lapsed, or lies further off than a clock that is right would put it."""
        first = (ends[2], ends[4])
        last = zip(ends[1::2], (WAITING, CLAIMED, SENDING), strict=True)
        return any(at is not None and at <= now for at in first) or any(
            at is not None and at > now + too_far(state) for at, state in last
        )

    def _take_back(self, now: float) -> None:
        """Return what lapsed, and what a clock that was wrong for a while put too far off."""
        lapsed = self.file.work(lambda connection: self._take_back_in(connection, now))
        if not lapsed:
            return
        dead = lapsed if self.on_unsure == "drop" else 0
        if dead:
            self.counters.add("event_dead", "unsure", lapsed)
        else:
            self.counters.add("event_unsure", "lapsed", lapsed)
        self._tally((0, dead, 0, lapsed), now)

    def _take_back_in(self, connection: sqlite3.Connection, now: float) -> int:
        connection.execute("BEGIN IMMEDIATE")
        found = {}
        for state in (CLAIMED, SENDING):
            far = now + too_far(state)
            rows = connection.execute(_LAPSED, (state, now, far, _SWEEP)).fetchall()
            found[state] = json.dumps([row[0] for row in rows])
            count = len(rows)
        if self.on_unsure == "drop":
            becomes = "state = 4, settled_at = ?1, due_at = ?1 + ?2, reason = 'unsure'"
        else:
            becomes = "state = 0, due_at = queued_at, reason = 'lapsed'"
        these = "seq IN (SELECT value FROM json_each(?3))"
        connection.execute(
            f"UPDATE adroll_event SET state = 0, claim = NULL, due_at = queued_at WHERE {these}",  # noqa: S608
            (None, None, found[CLAIMED]),
        )
        connection.execute(
            f"UPDATE adroll_event SET {becomes}, claim = NULL, unsure = 1,"  # noqa: S608
            f" attempts = attempts + 1 WHERE {these}",
            (now, self.dedupe_days * DAY, found[SENDING]),
        )
        connection.execute(
            "UPDATE adroll_event SET due_at = ? WHERE state = 0 AND due_at > ?",
            (now, now + too_far(WAITING)),
        )
        connection.execute("COMMIT")
        return count

    def begin_sending(self, claim: Claim, ids: Sequence[str] | None = None) -> tuple[str, ...]:
        """See :meth:`Outbox.begin_sending`."""
        wanted = tuple(one.id for one in claim.events) if ids is None else tuple(ids)
        if not wanted:
            return ()
        where = _places(wanted), claim.token

        def begin(connection: sqlite3.Connection) -> tuple[str, ...]:
            statement = f"UPDATE adroll_event SET state = 2 WHERE {_MINE}"  # noqa: S608
            if connection.execute(statement, where).rowcount == len(wanted):
                return wanted
            mine = connection.execute(f"SELECT id FROM adroll_event WHERE {_MINE}", where)  # noqa: S608
            held = {row[0] for row in mine.fetchall()}
            return tuple(id for id in wanted if id in held)

        return self.file.work(begin)

    def extend(self, claim: Claim, lease: float = 60.0) -> int:
        """See :meth:`Outbox.extend`."""
        until = self.clock() + min(lease, LONGEST_LEASE)
        values = until, _places([one.id for one in claim.events]), claim.token
        statement = f"UPDATE adroll_event SET due_at = ? WHERE {_MINE}"  # noqa: S608
        return self.file.work(lambda connection: connection.execute(statement, values).rowcount)

    def settle(self, claim: Claim, outcomes: Sequence[Outcome]) -> int:
        """See :meth:`Outbox.settle`."""
        groups = alike(outcomes)
        if not groups:
            return 0
        now = self.clock()
        changed = self.file.work(lambda connection: self._settle(connection, claim, groups, now))
        self._tally(tally_of(groups, changed), now)
        return sum(changed)

    def _settle(
        self,
        connection: sqlite3.Connection,
        claim: Claim,
        groups: Sequence[tuple[Outcome, list[str]]],
        now: float,
    ) -> list[int]:
        if len(groups) == 1:  # the statement is a transaction
            return [self._settle_alike(connection, claim, *groups[0], now)]
        connection.execute("BEGIN IMMEDIATE")
        changed = [self._settle_alike(connection, claim, *group, now) for group in groups]
        connection.execute("COMMIT")
        return changed

    def _settle_alike(
        self,
        connection: sqlite3.Connection,
        claim: Claim,
        outcome: Outcome,
        ids: Sequence[str],
        now: float,
    ) -> int:
        becomes, values = self._values(outcome, now)
        where = _places(ids), claim.token

        def update(become: str, prefix: str = "") -> int:
            statement = f"UPDATE {prefix} adroll_event SET {become} WHERE {_MINE}"  # noqa: S608
            return connection.execute(statement, (*values, *where)).rowcount

        if outcome.kind != "delivered":
            return update(becomes)
        # An UPDATE that shrinks a row leaves its page as empty as that, for as long as the key is
        # kept. Rows that move away leave pages that are used again. (Where the new place is taken,
        # one case in many millions, a row is settled where it is.)
        count = update(f"seq = -seq, {becomes}", "OR IGNORE")
        return count if count == len(ids) else count + update(becomes)

    def _values(self, outcome: Outcome, now: float) -> tuple[str, list[Any]]:
        """What an UPDATE sets, and its parameters."""
        becomes, values = ["reason = ?"], [outcome.reason[:40] or None]
        more: list[Any] = []
        if outcome.error:
            becomes.append("error = ?")
            values.append(outcome.error[:ERROR_LENGTH])
        if outcome.unsure:
            becomes.append("unsure = 1")
        if outcome.kind in ("delivered", "dead", "retry") and not outcome.blameless:
            becomes.append("attempts = attempts + 1")
        if outcome.kind == "claimed":
            becomes.append("state = 1")
        elif outcome.kind == "delivered":
            kept = self.dedupe_days * DAY
            becomes += [
                "state = 3, claim = NULL, payload = NULL, error = NULL, settled_at = ?",
                "due_at = CASE WHEN dedupe_key IS NULL THEN ? WHEN occurred_at < ? THEN ?"
                " WHEN occurred_at > ? THEN ? ELSE occurred_at + ? END",
            ]
            more = [now, now + KEYLESS_KEPT, now - kept, now, now, now + kept, kept]
        elif outcome.kind == "dead":
            becomes.append("state = 4, claim = NULL, settled_at = ?, due_at = ?")
            more = [now, now + self.dedupe_days * DAY]
        elif outcome.kind == "retry" and outcome.delay > 0:
            becomes.append("state = 0, claim = NULL, due_at = ?")
            more = [now + min(outcome.delay, LONGEST_DELAY)]
        else:
            becomes.append("state = 0, claim = NULL, due_at = queued_at")
        return ", ".join(becomes), values + more

    def _tally(self, amounts: Sequence[int], now: float) -> None:
        """Count what was settled: for people's eyes, so outcomes do not hang on it."""
        if not any(amounts):
            return
        with suppress(OutboxFailed):
            self.file.work(
                lambda connection: connection.execute(_TALLY, (int(now // 60), *amounts))
            )


def _claimed(row: tuple[Any, ...]) -> Claimed:
    id, name, payload, occurred_at, created_at, attempts, unsure, key, dry_run = row
    return Claimed(
        id,
        name,
        payload or b"",
        occurred_at,
        created_at,
        attempts,
        bool(unsure),
        key,
        bool(dry_run),
    )


def _places(ids: Sequence[str]) -> str:
    return json.dumps([seq_of(id) for id in ids])
