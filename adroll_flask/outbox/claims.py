"""Claim, send, settle on a database server: how an event leaves the outbox.

On a SQLite file :mod:`.fileclaims` does the same.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, case, func, literal_column, null, or_, select, update

from adroll_flask.counters import Counters

from .outcomes import ERROR_LENGTH, alike, tally_of, too_far
from .protocol import Claim, Claimed, Outcome
from .states import (
    CLAIMED,
    DAY,
    DEAD,
    DELIVERED,
    KEYLESS_KEPT,
    LONGEST_DELAY,
    LONGEST_LEASE,
    SENDING,
    WAITING,
)
from .store import Store, Tx
from .tally import add_tally

#: Rows that one claim takes back from lapsed leases, at most.
_SWEEP: Final = 500
#: Seconds between two looks for times that a wrong clock left.
_FAR_EVERY: Final = 60.0


def _state(number: int) -> Any:
    # Written into the statement: a planner that does not see the state must guess.
    return literal_column(str(number))


@dataclass(slots=True)
class Claims:
    """The way of events through claims, over one store.

    :param on_unsure: ``"retry"`` or ``"drop"``: what happens to an event whose lease lapsed while
        a request with it was under way.
    :param dedupe_days: days that the key of a delivered event is kept after it occurred.
    """

    store: Store
    counters: Counters
    on_unsure: str
    dedupe_days: int
    _far_at: float = float("-inf")

    def claim(self, limit: int = 100, lease: float = 60.0) -> Claim | None:
        """See :meth:`Outbox.claim`."""
        lease = min(lease, LONGEST_LEASE)
        return self.store.write(lambda tx: self._claim(tx, limit, lease))

    def due(self, most: int) -> int:
        """See :meth:`Outbox.due`."""
        event = self.store.event.c

        def count(tx: Tx) -> int:
            found = select(self.store.place)
            found = found.where(event.state == _state(WAITING), event.due_at <= tx.now)
            counted = select(func.count()).select_from(found.limit(most).subquery())
            return int(tx.connection.scalar(counted) or 0)

        return self.store.read(count)

    def _claim(self, tx: Tx, limit: int, lease: float) -> Claim | None:
        self._take_back(tx)
        event = self.store.event.c
        due = (
            select(
                self.store.place.label("place"),
                event.id,
                event.event_name,
                event.payload,
                event.occurred_at,
                event.queued_at,
                event.attempts,
                event.unsure,
                event.dedupe_key,
                event.dry_run,
            )
            .where(event.state == _state(WAITING), event.due_at <= tx.now)
            .order_by(event.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = tx.connection.execute(due).all()
        if not rows:
            return None
        token = secrets.token_hex(16)
        tx.connection.execute(
            update(self.store.event)
            .where(self.store.place.in_([row.place for row in rows]))
            .values(state=_state(CLAIMED), claim=token, due_at=tx.now + lease)
        )
        rows = sorted(rows, key=lambda row: (row.queued_at, row.id))
        return Claim(
            token,
            tuple(
                Claimed(
                    id=row.id,
                    name=row.event_name,
                    payload=bytes(row.payload or b""),
                    occurred_at=row.occurred_at,
                    created_at=row.queued_at,
                    attempts=row.attempts,
                    unsure=bool(row.unsure),
                    key=row.dedupe_key,
                    dry_run=bool(row.dry_run),
                )
                for row in rows
            ),
            tx.now,
        )

    def _take_back(self, tx: Tx) -> None:
        """Return what lapsed, and what a clock that was wrong for a while put too far off."""
        event = self.store.event.c
        place = self.store.place
        lapsed = (
            select(place, event.state)
            .where(
                event.state.in_([_state(CLAIMED), _state(SENDING)]),
                or_(event.due_at <= tx.now, event.due_at > tx.now + too_far(CLAIMED)),
            )
            .limit(_SWEEP)
            .with_for_update(skip_locked=True)
        )
        rows = tx.connection.execute(lapsed).all()
        for state in (CLAIMED, SENDING):
            places = [row[0] for row in rows if row.state == state]
            if places:
                tx.connection.execute(
                    update(self.store.event)
                    .where(place.in_(places))
                    .values(self._lapsed_values(tx, state, len(places)))
                )
        if time.monotonic() >= self._far_at:
            self._far_at = time.monotonic() + _FAR_EVERY
            self._bring_near(tx)

    def _lapsed_values(self, tx: Tx, state: int, count: int) -> dict[str, Any]:
        event = self.store.event.c
        values: dict[str, Any] = {
            "state": _state(WAITING),
            "claim": null(),
            "due_at": event.queued_at,
        }
        if state == CLAIMED:
            return values
        values |= {"unsure": 1, "attempts": event.attempts + 1, "reason": "lapsed"}
        add_tally(self.store, tx, (0, count if self.on_unsure == "drop" else 0, 0, count))
        if self.on_unsure != "drop":
            self.counters.add("event_unsure", "lapsed", count)
            return values
        self.counters.add("event_dead", "unsure", count)
        return values | self._dead_values(tx) | {"reason": "unsure"}

    def _bring_near(self, tx: Tx) -> None:
        event = self.store.event.c
        far = (event.state == _state(WAITING)) & (event.due_at > tx.now + too_far(WAITING))
        # The furthest of all first: a planner that takes state and time for independent would read
        # the whole table for an UPDATE that finds nothing.
        furthest = select(event.due_at).where(event.state == _state(WAITING))
        furthest = furthest.order_by(event.due_at.desc()).limit(1)
        if (tx.connection.scalar(furthest) or 0.0) > tx.now + too_far(WAITING):
            tx.connection.execute(update(self.store.event).where(far).values(due_at=tx.now))

    def begin_sending(self, claim: Claim, ids: Sequence[str] | None = None) -> tuple[str, ...]:
        """See :meth:`Outbox.begin_sending`."""
        wanted = [one.id for one in claim.events] if ids is None else list(ids)
        if not wanted:
            return ()

        def begin(tx: Tx) -> tuple[str, ...]:
            event = self.store.event.c
            mine = and_(
                self.store.these(wanted),
                event.claim == claim.token,
                event.state.in_([CLAIMED, SENDING]),
            )
            held = set(tx.connection.scalars(select(event.id).where(mine).with_for_update()))
            if held:
                tx.connection.execute(
                    update(self.store.event).where(mine).values(state=_state(SENDING))
                )
            return tuple(id for id in wanted if id in held)

        return self.store.write(begin)

    def extend(self, claim: Claim, lease: float = 60.0) -> int:
        """See :meth:`Outbox.extend`."""

        def extend(tx: Tx) -> int:
            return self._update_mine(
                tx.connection,
                claim,
                [one.id for one in claim.events],
                {"due_at": tx.now + min(lease, LONGEST_LEASE)},
            )

        return self.store.write(extend)

    def settle(self, claim: Claim, outcomes: Sequence[Outcome]) -> int:
        """See :meth:`Outbox.settle`."""
        groups = alike(outcomes)
        if not groups:
            return 0

        def settle(tx: Tx) -> int:
            changed = [
                self._update_mine(tx.connection, claim, ids, self._values(tx, outcome))
                for outcome, ids in groups
            ]
            add_tally(self.store, tx, tally_of(groups, changed))
            return sum(changed)

        return self.store.write(settle)

    def _update_mine(
        self,
        connection: Connection,
        claim: Claim,
        ids: Sequence[str],
        values: dict[str, Any],
    ) -> int:
        event = self.store.event.c
        result = connection.execute(
            update(self.store.event)
            .where(
                self.store.these(ids),
                event.claim == claim.token,
                event.state.in_([CLAIMED, SENDING]),
            )
            .values(values)
        )
        return int(result.rowcount)

    def _values(self, tx: Tx, outcome: Outcome) -> dict[str, Any]:
        event = self.store.event.c
        values: dict[str, Any] = {"reason": outcome.reason[:40] or None}
        if outcome.error:
            values["error"] = outcome.error[:ERROR_LENGTH]
        if outcome.unsure:
            values["unsure"] = 1
        if outcome.kind == "claimed":
            return values | {"state": _state(CLAIMED)}
        if outcome.kind in ("delivered", "dead", "retry") and not outcome.blameless:
            values["attempts"] = event.attempts + 1
        if outcome.kind == "delivered":
            return values | self._delivered_values(tx)
        if outcome.kind == "dead":
            return values | self._dead_values(tx)
        values |= {"state": _state(WAITING), "claim": null(), "due_at": event.queued_at}
        if outcome.kind == "retry" and outcome.delay > 0:
            values["due_at"] = tx.now + min(outcome.delay, LONGEST_DELAY)
        return values

    def _delivered_values(self, tx: Tx) -> dict[str, Any]:
        event = self.store.event.c
        kept = self.dedupe_days * DAY
        keyed = case(
            (event.occurred_at + kept < tx.now, tx.now),
            (event.occurred_at > tx.now, tx.now + kept),
            else_=event.occurred_at + kept,
        )
        return {
            "state": _state(DELIVERED),
            "claim": null(),
            "payload": null(),
            "error": null(),
            "settled_at": tx.now,
            "due_at": case((event.dedupe_key.is_(None), tx.now + KEYLESS_KEPT), else_=keyed),
        }

    def _dead_values(self, tx: Tx) -> dict[str, Any]:
        return {
            "state": _state(DEAD),
            "claim": null(),
            "settled_at": tx.now,
            "due_at": tx.now + self.dedupe_days * DAY,
        }
