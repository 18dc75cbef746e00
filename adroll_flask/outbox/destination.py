"""AdRoll as all workers of one account see it: pauses, stops, the one probe."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from . import model, schema
from .model import State
from .schema import Tx

#: Seconds that a pause of the destination may last; more comes from a clock that was wrong.
LONGEST_PAUSE: Final = 3600.0
#: Seconds between two signs of life of a worker.
SEEN_EVERY: Final = 20.0
#: Seconds that AdRoll has to be away for the interval to be kept.
_LONG: Final = 600.0
_MINE: Final = "advertisable_eid = :account"
_OPEN: Final = f"ended_at IS NULL AND {_MINE}"
#: That no pause is on. One that is further off than any that we set, or that is from before a clock
#: that went back, is over: to ask once more is cheap, to wait an hour is not.
_IS_OVER: Final = (
    f"(paused_until <= :now OR paused_until > :now + {LONGEST_PAUSE + 1}"
    f" OR coalesce(last_error_at, 0) > :now + {model.SKEW})"
)


def know(tx: Tx, accounts: Iterable[str]) -> None:
    """Give each of *accounts* its row; every account of an event has one."""
    known = set(accounts_of(tx))
    for account in sorted(set(accounts) - known):
        schema.insert(tx, "adroll_account", advertisable_eid=account)


def accounts_of(tx: Tx) -> list[str]:
    """All accounts that the outbox knows."""
    rows = tx.rows("SELECT advertisable_eid FROM adroll_account ORDER BY advertisable_eid")
    return [row[0] for row in rows]


def states_of(tx: Tx) -> dict[str, model.Destination]:
    """AdRoll as the workers of each account see it."""
    rows = tx.rows(
        f"SELECT advertisable_eid, CASE WHEN {_IS_OVER} THEN 0.0 ELSE paused_until - :now END,"
        " stopped, fingerprint, stopped_since, failures, last_error, last_error_at,"
        " CASE WHEN seen_at > :now THEN 0.0 ELSE :now - seen_at END"
        " FROM adroll_account ORDER BY advertisable_eid"
    )
    return {account: model.Destination(*state) for account, *state in rows}


def recent_stops(tx: Tx, seconds: float) -> tuple[tuple[str, float, float | None, str], ...]:
    """Intervals without delivery that ended less than *seconds* ago, or have not.

    In those with the reason :data:`.model.AWAY` AdRoll did not answer, in others it refused all.
    """
    rows = tx.rows(
        "SELECT advertisable_eid, began_at, ended_at, reason FROM adroll_stop"
        " WHERE ended_at IS NULL OR ended_at > :since ORDER BY id DESC LIMIT 100",
        since=tx.now - seconds,
    )
    return tuple(rows[::-1])


def _end_away(tx: Tx, account: str, at: float) -> None:
    """End the interval in which AdRoll did not answer; a short one nobody asks for later."""
    mine = f"{_OPEN} AND reason = '{model.AWAY}'"
    short = f"DELETE FROM adroll_stop WHERE {mine} AND began_at > :at - {_LONG}"
    tx.execute(short, account=account, at=at)
    tx.execute(f"UPDATE adroll_stop SET ended_at = :at WHERE {mine}", account=account, at=at)


def _begin_stop(tx: Tx, account: str, reason: str) -> None:
    id, began_at = model.new_id(tx.now), tx.now
    schema.insert(
        tx, "adroll_stop", id=id, advertisable_eid=account, began_at=began_at, reason=reason
    )


def end_unasked(tx: Tx) -> None:
    """End the intervals of accounts in which nobody asks AdRoll any more, with the last failure.

    The account was taken out of the settings, or the last event that waited has died.
    """
    for account, known in states_of(tx).items():
        if known.last_error_at is not None and known.last_error_at < tx.now - 2 * LONGEST_PAUSE:
            _end_away(tx, account, known.last_error_at)


@dataclass(slots=True)
class DestinationState:
    """The account's row, and the intervals in which it was stopped.

    Its methods raise :class:`.model.OutboxFailed` where the database cannot be worked with.

    :param account: the advertisable EID.
    """

    database: schema.Database
    account: str
    _seen_at: float = float("-inf")

    def _update(self, tx: Tx, becomes: str, where: str = "", **values: Any) -> int:
        know(tx, [self.account])
        statement = f"UPDATE adroll_account SET {becomes} WHERE {_MINE}{where}"
        return tx.execute(statement, account=self.account, **values)

    def _write(self, becomes: str, where: str = "", *, ahead: float = 0.0) -> int:
        """The same in a transaction of its own, where ``:until`` is *ahead* seconds from now.

        A sum of two parameters has no type for a driver that sends them without one (pg8000).
        """
        return self.database.write(
            lambda tx: self._update(tx, becomes, where, until=tx.now + ahead)
        )

    def _value(self, tx: Tx, column: str) -> Any:
        statement = f"SELECT {column} FROM adroll_account WHERE {_MINE}"
        return schema.one(tx.rows(statement, account=self.account))

    def state(self) -> model.Destination:
        """The destination's present state."""
        return self.database.read(states_of).get(self.account, model.Destination())

    def seen(self) -> None:
        """Tell that a worker stays with the account; cheap, often a comparison."""
        if time.monotonic() - self._seen_at < SEEN_EVERY:
            return
        self._write("seen_at = :now")
        self._seen_at = time.monotonic()

    def miss_nobody(self) -> None:
        """Forget the worker that is missed: from now on, events are delivered now and then."""
        self._write("seen_at = NULL", f" AND seen_at < :now - {model.MISSED_AFTER}")

    def pause(self, seconds: float) -> None:
        """Let no worker send for *seconds*; a longer pause stays. Ends a probe."""
        seconds = min(max(seconds, 0.0), LONGEST_PAUSE)
        longer = f"paused_until > :until AND NOT {_IS_OVER}"
        until = f"CASE WHEN {longer} THEN paused_until ELSE :until END"
        self._write(f"paused_until = {until}, probe_until = 0", ahead=seconds)

    def stop(self, reason: str, fingerprint: str) -> bool:
        """Stop sending until :meth:`resume`; ``True`` where this began it. Ends a probe.

        Call :meth:`failed` after it.
        """

        def begin(tx: Tx) -> bool:
            rows = tx.rows(
                f"SELECT stopped, fingerprint FROM adroll_account WHERE {_MINE} {{lock}}",
                account=self.account,
            )
            before = tuple(rows[0]) if rows else (None, None)
            becomes = "stopped = :reason, fingerprint = :fingerprint, probe_until = 0"
            if before[0] is None:
                becomes += ", stopped_since = :now"
                _end_away(tx, self.account, tx.now)
                _begin_stop(tx, self.account, reason)
            self._update(tx, becomes, reason=reason, fingerprint=fingerprint)
            return before != (reason, fingerprint)

        return self.database.write(begin)

    def resume(self) -> bool:
        """Send again; ``True`` where this ended a stop. Ends a probe."""

        def end(tx: Tx) -> bool:
            # The pause goes with the stop: a worker whose configuration works ends both.
            if not self._update(
                tx,
                "stopped = NULL, fingerprint = NULL, stopped_since = NULL, failures = 0,"
                " probe_until = 0, paused_until = 0",
                " AND stopped IS NOT NULL",
            ):
                return False
            ended = f"UPDATE adroll_stop SET ended_at = :now WHERE {_OPEN}"
            tx.execute(ended, account=self.account)
            # Put off without an attempt: those with whom the stop began.
            tx.execute(
                f"UPDATE adroll_event SET due_at = :now WHERE {schema.of_account(State.waiting)}"
                " AND due_at > :now AND attempts = 0",
                account=self.account,
            )
            return True

        return self.database.write(end)

    def failed(self, error: str) -> int:
        """Count a failed request; returns how many in a row. Call :meth:`pause` after it.

        :param error: AdRoll's words; empty: it only waits for the first event after a stop.
        """

        def count(tx: Tx) -> int:
            if error:
                # The pause first, since MariaDB sets one column after the other: one that a clock
                # has ended must not go on because the error's time is right again.
                told = f"paused_until = CASE WHEN {_IS_OVER} THEN 0.0 ELSE paused_until END,"
                told += " last_error = :error, last_error_at = :now"
                self._update(tx, told, error=error[: model.ERROR_LENGTH])
                if not tx.rows(f"SELECT id FROM adroll_stop WHERE {_OPEN}", account=self.account):
                    _begin_stop(tx, self.account, model.AWAY)
            self._update(tx, "failures = failures + 1")
            return int(self._value(tx, "failures"))

        return self.database.write(count)

    def succeeded(self) -> None:
        """The destination answers: forget failures, end a probe. Cheap where there were none."""
        stale = "(failures <> 0 OR probe_until <> 0)"

        def end(tx: Tx) -> None:
            self._update(tx, "failures = 0, probe_until = 0", f" AND {stale}")
            _end_away(tx, self.account, tx.now)

        if self.database.read(lambda tx: bool(self._value(tx, stale))):
            self.database.write(end)

    def try_probe(self, lease: float = 60.0) -> bool:
        """Claim the one probe that may be under way while the destination is down or stopped.

        False while paused. It ends with :meth:`succeeded`, :meth:`pause`, :meth:`stop`,
        :meth:`resume` or after *lease* seconds.
        """
        # Nobody asks for longer than that: else it comes from a clock that went back.
        far = f":until + {model.SKEW}"
        is_free = f" AND (probe_until <= :now OR probe_until > {far}) AND {_IS_OVER}"
        return bool(self._write("probe_until = :until", is_free, ahead=lease))

    def unstopped_age(self, event: model.Row) -> float:
        """Seconds since AdRoll first did not take *event*, without those of stops; else 0."""
        since = event.refused_at
        if since is None:
            return 0.0

        def age(tx: Tx) -> float:
            stops = tx.rows(
                f"SELECT began_at, ended_at FROM adroll_stop WHERE {_MINE} AND reason <> :away",
                away=model.AWAY,
                account=self.account,
            )
            stopped: float = sum(
                max(0.0, (tx.now if ended is None else ended) - max(began, since))
                for began, ended in stops
            )
            return max(0.0, tx.now - since - stopped)

        return self.database.read(age)
