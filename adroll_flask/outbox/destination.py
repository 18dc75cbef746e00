"""AdRoll as all workers see it: pauses, holds, the one probe, the shared rate."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import case, or_, select, update

from .protocol import Claimed, Destination
from .states import LONGEST_PAUSE, WAITING
from .store import Store, Tx

_Holds: TypeAlias = tuple[float, float, tuple[tuple[float, float | None], ...]]

_ERROR_LENGTH: Final = 1000
#: Seconds for which held intervals are taken from memory.
_FRESH: Final = 1.0
_STATE: Final = (
    *("paused_until", "held", "fingerprint", "held_since"),
    *("failures", "last_error", "last_error_at"),
)
_READ: Final = f"SELECT {', '.join(_STATE)} FROM adroll_destination WHERE id = 1"  # noqa: S608


def _destination(row: Any, now: float) -> Destination:
    """From a row of the columns ``_STATE``."""
    if row is None:
        return Destination()
    paused = row[0] - now
    # A pause further off than any that we set comes from a clock that was wrong.
    return Destination(paused if 0 < paused <= LONGEST_PAUSE + 60 else 0.0, *row[1:])


@dataclass(slots=True)
class Shared:
    """The destination's row and the held intervals, over one store."""

    store: Store
    #: When by the monotonic clock held intervals were read, the outbox's time then, and they. In
    #: one, since a lock could be inherited by a forked child, which would wait for ever.
    _holds: _Holds = (float("-inf"), 0.0, ())

    def _row(self) -> Any:
        return self.store.tables.destination

    def read(self, tx: Tx) -> Destination:
        """The destination's state in *tx*."""
        columns = [self._row().c[name] for name in _STATE]
        row = tx.connection.execute(select(*columns).where(self._row().c.id == 1)).one_or_none()
        return _destination(row, tx.now)

    def destination(self) -> Destination:
        """See :meth:`Outbox.destination`."""
        file = self.store.file
        if file is None:
            return self.store.read(self.read)
        # Asked before every request to AdRoll, in the shop's own process.
        row = file.work(lambda connection: connection.execute(_READ).fetchone())
        return _destination(row, self.store.clock())

    def _update(self, tx: Tx, values: dict[str, Any], *conditions: Any) -> int:
        table = self._row()
        result = tx.connection.execute(
            update(table).where(table.c.id == 1, *conditions).values(values)
        )
        return int(result.rowcount)

    @staticmethod
    def _error(tx: Tx, error: str) -> dict[str, Any]:
        return {"last_error": error[:_ERROR_LENGTH], "last_error_at": tx.now} if error else {}

    def pause(self, seconds: float, error: str = "") -> None:
        """See :meth:`Outbox.pause`."""
        seconds = min(max(seconds, 0.0), LONGEST_PAUSE) if math.isfinite(seconds) else LONGEST_PAUSE
        paused = self._row().c.paused_until

        def pause(tx: Tx) -> None:
            until = tx.now + seconds
            kept = (paused > until) & (paused <= tx.now + LONGEST_PAUSE + 60)
            self._update(
                tx,
                {"paused_until": case((kept, paused), else_=until), "probe_until": 0.0}
                | self._error(tx, error),
            )

        self.store.write(pause)

    def hold(self, reason: str, fingerprint: str, error: str = "") -> bool:
        """See :meth:`Outbox.hold`."""
        table = self._row()
        hold = self.store.tables.hold

        def begin(tx: Tx) -> bool:
            row = tx.connection.execute(
                select(table.c.held, table.c.fingerprint).where(table.c.id == 1).with_for_update()
            ).one()
            values = {"held": reason[:64], "fingerprint": fingerprint[:64], "probe_until": 0.0}
            if row.held is None:
                values["held_since"] = tx.now
                tx.connection.execute(hold.insert().values(began_at=tx.now, reason=reason[:64]))
            self._update(tx, values | self._error(tx, error))
            return bool(row.held is None or (row.held, row.fingerprint) != (reason, fingerprint))

        self._forget_holds()
        return self.store.write(begin)

    def end_hold(self) -> bool:
        """See :meth:`Outbox.end_hold`."""
        table = self._row()
        hold = self.store.tables.hold
        event = self.store.event.c

        def end(tx: Tx) -> bool:
            # The pause goes with the hold: a worker whose configuration works ends both.
            values = {"held": None, "fingerprint": None, "held_since": None}
            open_now = {"failures": 0, "probe_until": 0.0, "paused_until": 0.0}
            if not self._update(tx, values | open_now, table.c.held.is_not(None)):
                return False
            tx.connection.execute(
                update(hold).where(hold.c.ended_at.is_(None)).values(ended_at=tx.now)
            )
            # Put off without an attempt: those with whom the hold began.
            put_off = (event.state == WAITING) & (event.due_at > tx.now) & (event.attempts == 0)
            tx.connection.execute(update(self.store.event).where(put_off).values(due_at=tx.now))
            return True

        self._forget_holds()
        return self.store.write(end)

    def failed(self, error: str) -> int:
        """See :meth:`Outbox.failed`."""
        failures = self._row().c.failures

        def count(tx: Tx) -> int:
            self._update(tx, {"failures": failures + 1} | self._error(tx, error))
            return int(tx.connection.scalar(select(failures)) or 0)

        return self.store.write(count)

    def succeeded(self) -> None:
        """See :meth:`Outbox.succeeded`."""
        row = self._row().c
        stale = or_(row.failures != 0, row.probe_until != 0)

        def is_stale(tx: Tx) -> bool:
            return tx.connection.scalar(select(row.id).where(row.id == 1, stale)) is not None

        def forget(tx: Tx) -> None:
            self._update(tx, {"failures": 0, "probe_until": 0.0}, stale)

        if self.store.read(is_stale):
            self.store.write(forget)

    def try_probe(self, fingerprint: str, lease: float = 60.0) -> bool:
        """See :meth:`Outbox.try_probe`."""
        row = self._row().c
        lease = min(lease, LONGEST_PAUSE)

        def take(tx: Tx) -> bool:
            far = tx.now + LONGEST_PAUSE + 60
            return bool(
                self._update(
                    tx,
                    {"probe_until": tx.now + lease},
                    or_(row.probe_until <= tx.now, row.probe_until > far),
                    or_(row.paused_until <= tx.now, row.paused_until > far),
                )
            )

        return self.store.write(take)

    def take_slot(self, per_second: float) -> float:
        """See :meth:`Outbox.take_slot`."""
        row = self._row().c
        step = 1.0 / per_second

        def take(tx: Tx) -> float:
            # Further off than everybody's next place can be: a clock was wrong.
            far = tx.now + max(60.0, 10 * step)
            if self._update(
                tx,
                {"next_slot_at": tx.now + step},
                or_(row.next_slot_at <= tx.now, row.next_slot_at > far),
            ):
                return 0.0
            return max(0.001, float(tx.connection.scalar(select(row.next_slot_at)) or 0.0) - tx.now)

        return self.store.write(take)

    # -- age --------------------------------------------------------------------------------

    def unheld_age(self, event: Claimed) -> float:
        """See :meth:`Outbox.unheld_age`."""
        known = self._holds
        if time.monotonic() - known[0] > _FRESH:
            known = self._holds = self.store.read(self._read_holds)
        read, then, holds = known
        now = then + max(0.0, time.monotonic() - read)
        age = now - event.created_at
        for began, ended in holds:
            age -= max(0.0, (now if ended is None else ended) - max(began, event.created_at))
        return max(0.0, age)

    def _read_holds(self, tx: Tx) -> _Holds:
        hold = self.store.tables.hold.c
        rows = tx.connection.execute(select(hold.began_at, hold.ended_at)).all()
        return time.monotonic(), tx.now, tuple((row.began_at, row.ended_at) for row in rows)

    def _forget_holds(self) -> None:
        self._holds = (float("-inf"), 0.0, ())

    def recent_holds(self, tx: Tx, seconds: float) -> tuple[tuple[float, float | None, str], ...]:
        """Intervals that ended less than *seconds* ago, or have not."""
        hold = self.store.tables.hold.c
        rows = tx.connection.execute(
            select(hold.began_at, hold.ended_at, hold.reason)
            .where(or_(hold.ended_at.is_(None), hold.ended_at > tx.now - seconds))
            .order_by(hold.id.desc())
            .limit(100)
        ).all()
        return tuple((row.began_at, row.ended_at, row.reason) for row in reversed(rows))
