"""What is done with an outbox now and then: old rows go, holds that nobody released end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from . import history, transitions
from .database import Database, Tx, insert, meta, one
from .destination import accounts_of, end_unasked
from .holds import STEP, Holds
from .values import CANCELLED, DAY, DEAD, DECIDED, DELIVERED, HELD, OutboxFailed

#: Seconds between two looks at history and the intervals of stops.
_RECORDS_EVERY: Final = 600.0
#: Seconds by which one look at the clock may bring the end of keys and holds nearer. A clock that
#: is a hundred days ahead for a minute would else end all of them.
_LEAP: Final = 3600.0
_CLOCK: Final = "housekeeping_at"


@dataclass(slots=True)
class Housekeeping:
    """Keeps an outbox small, in small steps."""

    database: Database
    holds: Holds
    _records_at: float = float("-inf")

    def step(self) -> int:
        """Do one step; how many rows went (0: nothing left to do).

        A part that fails does not keep the others from being done.

        :raises OutboxFailed: a part failed.
        """
        done = 0
        failure: OutboxFailed | None = None
        parts: list[Callable[[], int]] = [self._end, self.database.tidy]
        if time.monotonic() >= self._records_at:
            parts.append(self._forget_records)
        for part in parts:
            try:
                done += part()
            except OutboxFailed as problem:
                failure = problem
        if failure is not None:
            raise failure
        return done

    def _end(self) -> int:
        """End what is over, of all accounts."""
        if not self.database.read(lambda tx: any(_over(tx, tx.now, 1))):
            return 0
        return self.database.write(self._end_once)

    def _end_once(self, tx: Tx) -> int:
        ends = {HELD: self.holds.expire, DECIDED: self.holds.forget}
        return sum(
            ends.get(state, _remove)(tx, ids) for state, ids in _over(tx, _slow_clock(tx), STEP)
        )

    def _forget_records(self) -> int:
        self.database.write(_forget_records)
        self._records_at = time.monotonic() + _RECORDS_EVERY
        return 0


def _remove(tx: Tx, ids: Sequence[str]) -> int:
    return transitions.move(tx, "remove", ids)


def _over(tx: Tx, now: float, most: int) -> Iterator[tuple[int, list[str]]]:
    """What is over at *now*: up to *most* events of each account and state.

    A look, which is for one, locks nothing.
    """
    lock = "{skip_locked}" if most > 1 else ""
    for account in accounts_of(tx):
        for state in (HELD, DECIDED, DELIVERED, DEAD, CANCELLED):
            rows = tx.rows(
                f"SELECT id FROM adroll_event WHERE state = {state} AND advertisable_eid = :account"
                f" AND due_at <= :now ORDER BY due_at LIMIT :most {lock}",
                account=account,
                now=now,
                most=most,
            )
            if rows:
                yield state, [row[0] for row in rows]


def _slow_clock(tx: Tx) -> float:
    """The time by which things end: it follows the clock, an hour at most from look to look."""
    before = meta(tx, _CLOCK)
    if before is None:  # the first look of all: no later than the newest event's time
        before = one(tx.rows("SELECT queued_at FROM adroll_event ORDER BY id DESC LIMIT 1"))
    now = tx.now
    if before is not None and float(before) <= now:
        now = min(now, float(before) + _LEAP)
    mark = {"name": _CLOCK, "value": repr(now)}
    if not tx.execute("UPDATE adroll_meta SET value = :value WHERE name = :name", **mark):
        insert(tx, "adroll_meta", **mark)
    return now


def _forget_records(tx: Tx) -> None:
    end_unasked(tx)
    time = _slow_clock(tx)
    history.remove_old(tx, time)
    long_ago = {"before": time - 400 * DAY}
    now = {"before": time}
    for statement, values in (
        ("adroll_stop WHERE ended_at < :before", long_ago),
        ("adroll_withdrawal WHERE forget_at < :before", now),
        ("adroll_suppressed WHERE forget_at < :before", now),
        # Of files that are gone with their host; a file's last position is known for long enough.
        ("adroll_journal WHERE read_at < :before", long_ago),
    ):
        tx.execute(f"DELETE FROM {statement}", **values)
