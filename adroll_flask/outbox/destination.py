"""AdRoll as all workers see it: pauses, holds, the one probe, the shared rate."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from .database import Database, Tx, one
from .protocol import Claimed, Destination
from .states import LONGEST_PAUSE

_Holds: TypeAlias = tuple[float, float, tuple[tuple[float, float | None], ...]]

_ERROR_LENGTH: Final = 1000
#: Seconds by which a clock may be corrected without a pause ending early.
_SKEW: Final = 1.0
#: Seconds for which held intervals are taken from memory.
_FRESH: Final = 1.0
_READ: Final = (
    "SELECT paused_until, held, fingerprint, held_since, failures, last_error, last_error_at"
    " FROM adroll_destination WHERE id = 1"
)


def read_destination(tx: Tx) -> Destination:
    """The destination's state."""
    rows = tx.rows(_READ)
    if not rows:
        return Destination()
    paused, *rest = rows[0]
    paused -= tx.now
    # A pause further off than any that we set, or from before a clock that went back: to ask once
    # more is cheap, to wait an hour is not.
    wrong = paused > LONGEST_PAUSE + 1 or (rest[5] or 0.0) > tx.now + _SKEW
    return Destination(0.0 if paused < 0 or wrong else paused, *rest)


def recent_holds(tx: Tx, seconds: float) -> tuple[tuple[float, float | None, str], ...]:
    """Held intervals that ended less than *seconds* ago, or have not."""
    rows = tx.rows(
        "SELECT began_at, ended_at, reason FROM adroll_hold"
        " WHERE ended_at IS NULL OR ended_at > :since ORDER BY id DESC LIMIT 100",
        since=tx.now - seconds,
    )
    return tuple((began, ended, reason) for began, ended, reason in reversed(rows))


#: That no pause is on: the same as :func:`read_destination` says.
_IS_OVER: Final = (
    "(paused_until <= :now OR paused_until > :longest OR coalesce(last_error_at, 0) > :skew)"
)


def _is_over(tx: Tx) -> dict[str, Any]:
    """The parameters of ``_IS_OVER``."""
    return {"now": tx.now, "longest": tx.now + LONGEST_PAUSE + 1, "skew": tx.now + _SKEW}


def _update(tx: Tx, becomes: str, where: str = "id = 1", *, error: str = "", **values: Any) -> int:
    if error:
        if "paused_until" not in becomes:
            # First of all, since MariaDB sets one column after the other: a pause that a clock has
            # ended must not go on because the error's time is right again.
            becomes = f"paused_until = CASE WHEN {_IS_OVER} THEN 0 ELSE paused_until END, {becomes}"
            values = _is_over(tx) | values
        becomes += ", last_error = :error, last_error_at = :at"
        values |= {"error": error[:_ERROR_LENGTH], "at": tx.now}
    return tx.execute(f"UPDATE adroll_destination SET {becomes} WHERE {where}", **values)


@dataclass(slots=True)
class DestinationState:
    """The destination's row and the held intervals; see :class:`.protocol.DestinationState`."""

    database: Database
    #: When by the monotonic clock held intervals were read, the outbox's time then, and they. In
    #: one, since a lock could be inherited by a forked child, which would wait for ever.
    _holds: _Holds = (float("-inf"), 0.0, ())

    def state(self) -> Destination:
        return self.database.read(read_destination)

    def pause(self, seconds: float, error: str = "") -> None:
        seconds = min(max(seconds, 0.0), LONGEST_PAUSE) if math.isfinite(seconds) else LONGEST_PAUSE

        def pause(tx: Tx) -> None:
            until = tx.now + seconds
            _update(
                tx,
                f"paused_until = CASE WHEN paused_until > :until AND NOT {_IS_OVER}"
                " THEN paused_until ELSE :until END, probe_until = 0",
                until=until,
                error=error,
                **_is_over(tx),
            )

        self.database.write(pause)

    def hold(self, reason: str, fingerprint: str, error: str = "") -> bool:
        reason, fingerprint = reason[:64], fingerprint[:64]

        def begin(tx: Tx) -> bool:
            rows = tx.rows("SELECT held, fingerprint FROM adroll_destination WHERE id = 1 {lock}")
            before = rows[0] if rows else (None, None)
            becomes = "held = :reason, fingerprint = :fingerprint, probe_until = 0"
            values: dict[str, Any] = {"reason": reason, "fingerprint": fingerprint}
            if before[0] is None:
                becomes += ", held_since = :now"
                values["now"] = tx.now
                tx.execute(
                    "INSERT INTO adroll_hold (began_at, reason) VALUES (:now, :reason)",
                    now=tx.now,
                    reason=reason,
                )
            _update(tx, becomes, error=error, **values)
            return before[0] is None or tuple(before) != (reason, fingerprint)

        self._forget_holds()
        return self.database.write(begin)

    def end_hold(self) -> bool:
        def end(tx: Tx) -> bool:
            # The pause goes with the hold: a worker whose configuration works ends both.
            if not _update(
                tx,
                "held = NULL, fingerprint = NULL, held_since = NULL, failures = 0,"
                " probe_until = 0, paused_until = 0",
                "id = 1 AND held IS NOT NULL",
            ):
                return False
            tx.execute("UPDATE adroll_hold SET ended_at = :now WHERE ended_at IS NULL", now=tx.now)
            # Put off without an attempt: those with whom the hold began.
            tx.execute(
                "UPDATE adroll_event SET due_at = :now"
                " WHERE state = 0 AND due_at > :now AND attempts = 0",
                now=tx.now,
            )
            return True

        self._forget_holds()
        return self.database.write(end)

    def failed(self, error: str) -> int:
        def count(tx: Tx) -> int:
            _update(tx, "failures = failures + 1", error=error)
            return int(one(tx.rows("SELECT failures FROM adroll_destination WHERE id = 1")) or 0)

        return self.database.write(count)

    def succeeded(self) -> None:
        stale = "id = 1 AND (failures <> 0 OR probe_until <> 0)"

        def is_stale(tx: Tx) -> bool:
            return bool(tx.rows(f"SELECT id FROM adroll_destination WHERE {stale}"))

        if self.database.read(is_stale):
            self.database.write(lambda tx: _update(tx, "failures = 0, probe_until = 0", stale))

    def try_probe(self, fingerprint: str, lease: float = 60.0) -> bool:
        lease = min(lease, LONGEST_PAUSE)

        def take(tx: Tx) -> bool:
            return bool(
                _update(
                    tx,
                    "probe_until = :until",
                    # Nobody asks for longer than that: else it comes from a clock that went back.
                    f"id = 1 AND (probe_until <= :now OR probe_until > :far) AND {_IS_OVER}",
                    until=tx.now + lease,
                    far=tx.now + lease + _SKEW,
                    **_is_over(tx),
                )
            )

        return self.database.write(take)

    def take_slot(self, per_second: float) -> float:
        step = 1.0 / per_second

        def take(tx: Tx) -> float:
            # Further off than the next place can be: a clock went back.
            far = tx.now + step + _SKEW
            if _update(
                tx,
                "next_slot_at = :next",
                "id = 1 AND (next_slot_at <= :now OR next_slot_at > :far)",
                next=tx.now + step,
                now=tx.now,
                far=far,
            ):
                return 0.0
            at = one(tx.rows("SELECT next_slot_at FROM adroll_destination WHERE id = 1"))
            return max(0.001, float(at or 0.0) - tx.now)

        return self.database.write(take)

    # -- age --------------------------------------------------------------------------------

    def unheld_age(self, event: Claimed) -> float:
        since = event.refused_at
        if since is None:
            return 0.0
        known = self._holds
        if time.monotonic() - known[0] > _FRESH:
            known = self._holds = self.database.read(_read_holds)
        read, then, holds = known
        now = then + max(0.0, time.monotonic() - read)
        age = now - since
        for began, ended in holds:
            age -= max(0.0, (now if ended is None else ended) - max(began, since))
        return max(0.0, age)

    def _forget_holds(self) -> None:
        self._holds = (float("-inf"), 0.0, ())


def _read_holds(tx: Tx) -> _Holds:
    rows = tx.rows("SELECT began_at, ended_at FROM adroll_hold")
    return time.monotonic(), tx.now, tuple((began, ended) for began, ended in rows)
