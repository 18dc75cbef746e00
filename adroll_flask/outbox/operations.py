"""What people do with the outbox: look, retry, drop, mend, export, forget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Delete, Select, delete, func, literal_column, null, select, update

from adroll_flask.counters import Counters
from adroll_flask.redaction import redact_event

from .destination import Shared
from .protocol import Overview, Row, State
from .schema import schema_version
from .states import CLAIMED, DAY, DEAD, DELIVERED, NAME, NUMBER, SENDING, WAITING
from .store import Store, Tx
from .tally import rates

_STEP: Final = 500


@dataclass(slots=True)
class Operations:
    """The commands' side of one store.

    :param dedupe_days: days that the key of a forgotten event is kept.
    """

    store: Store
    shared: Shared
    counters: Counters
    dedupe_days: int

    # -- looking ----------------------------------------------------------------------------

    def waiting(self) -> int:
        """See :meth:`Outbox.waiting`."""
        event = self.store.event.c
        count = select(func.count()).where(event.state.in_([WAITING, CLAIMED, SENDING]))
        return self.store.read(lambda tx: int(tx.connection.scalar(count) or 0))

    def oldest_due(self) -> float | None:
        """See :meth:`Outbox.oldest_due`."""
        return self.store.read(self._oldest_due)

    def _oldest_due(self, tx: Tx) -> float | None:
        event = self.store.event.c
        due = tx.connection.scalar(
            select(event.due_at)
            .where(event.state == literal_column(str(WAITING)), event.due_at <= tx.now)
            .order_by(event.due_at)
            .limit(1)
        )
        return None if due is None else max(0.0, tx.now - due)

    def counts(self) -> dict[str, int]:
        """See :meth:`Outbox.counts`."""
        return self.store.read(self._counts)

    def _counts(self, tx: Tx) -> dict[str, int]:
        event = self.store.event.c
        rows = tx.connection.execute(select(event.state, func.count()).group_by(event.state)).all()
        found = {NAME[state]: int(count) for state, count in rows}
        return {name: found.get(name, 0) for name in NUMBER}

    def overview(self, spilled_bytes: int) -> Overview:
        """See :meth:`Outbox.overview`."""

        def look(tx: Tx) -> Overview:
            return Overview(
                counts=self._counts(tx),
                oldest_due=self._oldest_due(tx),
                rates=rates(self.store, tx),
                destination=self.shared.read(tx),
                holds=self.shared.recent_holds(tx, DAY),
                spilled_bytes=spilled_bytes,
                engine=tx.connection.dialect.name,
                schema_version=schema_version(tx.connection) or 0,
            )

        return self.store.read(look)

    def list(self, state: State | None = None, limit: int = 100) -> tuple[Row, ...]:
        """See :meth:`Outbox.list`."""
        event = self.store.event.c
        query = self._rows().order_by(event.state, event.due_at).limit(limit)
        if state is not None:
            query = query.where(event.state == NUMBER[state])
        return self.store.read(lambda tx: tuple(_row(row) for row in tx.connection.execute(query)))

    def show(self, id: str) -> Row | None:
        """See :meth:`Outbox.show`."""
        if not _is_id(id):
            return None
        query = self._rows(payload=True).where(self.store.these([id]))

        def look(tx: Tx) -> Row | None:
            row = tx.connection.execute(query).one_or_none()
            return None if row is None else _row(row)

        return self.store.read(look)

    def _rows(self, *, payload: bool = False) -> Select[Any]:
        event = self.store.event.c
        return select(
            event.id,
            event.event_name,
            event.state,
            event.dedupe_key,
            event.advertisable_eid,
            event.dry_run,
            event.occurred_at,
            event.queued_at,
            event.due_at,
            event.attempts,
            event.unsure,
            event.error,
            event.reason,
            event.settled_at,
            (event.payload if payload else null()).label("payload"),
        )

    # -- changing ---------------------------------------------------------------------------

    def retry(self, ids: Sequence[str] | None = None) -> int:
        """See :meth:`Outbox.retry`."""
        event = self.store.event.c
        dead = (event.state == literal_column(str(DEAD))) & event.payload.is_not(None)
        total = 0
        for step in _steps(ids):
            condition = dead if step is None else dead & self.store.these(step)

            def again(tx: Tx, condition: Any = condition) -> int:
                place = self.store.place
                found = select(place).where(condition).order_by(event.due_at).limit(_STEP)
                some = tx.connection.scalars(found.with_for_update(skip_locked=True)).all()
                if some:
                    tx.connection.execute(
                        update(self.store.event).where(place.in_(some)).values(self._fresh(tx))
                    )
                return len(some)

            while count := self.store.write(again):
                total += count
        return total

    def _fresh(self, tx: Tx) -> dict[str, Any]:
        return {
            "state": WAITING,
            "attempts": 0,
            "queued_at": tx.now,
            "due_at": tx.now,
            "settled_at": null(),
            "reason": null(),
        }

    def drop(self, ids: Sequence[str]) -> int:
        """See :meth:`Outbox.drop`."""
        event = self.store.event.c
        total = 0
        for step in _steps(ids):
            gone = delete(self.store.event).where(
                self.store.these(step or ()), event.state.in_([WAITING, DELIVERED, DEAD])
            )
            total += self.store.write(partial(_rowcount, gone))
        return total

    def mend(self, id: str, payload: bytes, key: str | None = None) -> bool:
        """See :meth:`Outbox.mend`."""
        if not _is_id(id):
            return False
        event = self.store.event.c
        name = json.loads(payload).get("event_name")

        def mend(tx: Tx) -> bool:
            row = tx.connection.execute(
                select(event.event_name, event.advertisable_eid, event.dry_run, event.dedupe_key)
                .where(self.store.these([id]), event.state == DEAD)
                .with_for_update()
            ).one_or_none()
            if row is None:
                return False
            wanted = row.dedupe_key if key is None else key
            new = name or row.event_name
            if wanted is not None:
                other = select(event.id).where(
                    event.advertisable_eid == row.advertisable_eid,
                    event.dry_run == row.dry_run,
                    event.event_name == new,
                    event.dedupe_key == wanted,
                    event.id != id,
                )
                if tx.connection.execute(other).first() is not None:
                    return False
            tx.connection.execute(
                update(self.store.event)
                .where(self.store.these([id]))
                .values(self._fresh(tx) | {"payload": payload, "event_name": new, "error": null()})
                .values(dedupe_key=wanted)
            )
            return True

        return self.store.write(mend)

    def adopt(self, advertisable_eid: str) -> int:
        """See :meth:`Outbox.adopt`. Events without a key have nothing to be told apart by."""
        event = self.store.event.c
        orphans = (
            select(
                self.store.place.label("place"), event.dry_run, event.event_name, event.dedupe_key
            )
            .where(event.advertisable_eid == "", event.dedupe_key.is_not(None))
            .limit(_STEP)
        )

        def adopt(tx: Tx) -> int:
            rows = tx.connection.execute(orphans.with_for_update(skip_locked=True)).all()
            for row in rows:
                mine = self.store.place == row.place
                twin = select(event.id).where(
                    event.advertisable_eid == advertisable_eid,
                    event.dry_run == row.dry_run,
                    event.event_name == row.event_name,
                    event.dedupe_key == row.dedupe_key,
                )
                if tx.connection.execute(twin).first() is not None:
                    # Reported again under the EID meanwhile: one of the two is enough.
                    tx.connection.execute(delete(self.store.event).where(mine))
                    self.counters.add("event_duplicate", "adopted")
                    continue
                tx.connection.execute(
                    update(self.store.event).where(mine).values(advertisable_eid=advertisable_eid)
                )
            return len(rows)

        total = 0
        while self.store.read(lambda tx: tx.connection.execute(orphans.limit(1)).first()):
            count = self.store.write(adopt)
            total += count
            if not count:
                break
        return total

    # -- whole scans ------------------------------------------------------------------------

    def export(self, state: State | None = None, *, full: bool = False) -> Iterator[str]:
        """See :meth:`Outbox.export`."""
        event = self.store.event.c
        condition = None if state is None else event.state == NUMBER[state]
        for row in self._scan(condition):
            shown = _row(row)
            payload = json.loads(shown.payload) if shown.payload else None
            if payload is not None and not full:
                payload = redact_event(payload)
            yield json.dumps(
                {
                    "id": shown.id,
                    "state": shown.state,
                    "event_name": shown.name,
                    "deduplication_key": shown.key,
                    "dry_run": shown.dry_run,
                    "occurred_at": shown.occurred_at,
                    "queued_at": shown.queued_at,
                    "settled_at": shown.settled_at,
                    "attempts": shown.attempts,
                    "unsure": shown.unsure,
                    "reason": shown.reason,
                    "error": shown.error,
                    "event": payload,
                },
                ensure_ascii=False,
            )

    def forget(self, match: Callable[[dict[str, Any]], bool]) -> int:
        """See :meth:`Outbox.forget`."""
        event = self.store.event.c
        here = event.state.in_([WAITING, CLAIMED, DEAD]) & event.payload.is_not(None)
        total = 0
        found: list[str] = []
        for row in self._scan(here):
            if match(json.loads(bytes(row.payload))):
                found.append(row.id)
            if len(found) >= _STEP:
                total += self._forget(found)
                found = []
        return total + (self._forget(found) if found else 0)

    def _forget(self, ids: Sequence[str]) -> int:
        event = self.store.event.c

        def forget(tx: Tx) -> int:
            mine = self.store.these(ids) & event.state.in_([WAITING, CLAIMED, DEAD])
            keyless = tx.connection.execute(
                delete(self.store.event).where(mine, event.dedupe_key.is_(None))
            )
            keyed = tx.connection.execute(
                update(self.store.event)
                .where(mine)
                .values(
                    state=DEAD,
                    claim=null(),
                    payload=null(),
                    error=null(),
                    digest=null(),
                    reason="forgotten",
                    settled_at=tx.now,
                    due_at=tx.now + self.dedupe_days * DAY,
                )
            )
            return int(keyless.rowcount) + int(keyed.rowcount)

        return self.store.write(forget)

    def _scan(self, condition: Any) -> Iterator[Any]:
        """All rows that meet *condition*, with their payload, a page in memory at a time."""
        place = self.store.place
        last: Any = None
        while True:
            query = self._rows(payload=True).add_columns(place.label("place"))
            query = query.order_by(place).limit(_STEP)
            if condition is not None:
                query = query.where(condition)
            if last is not None:
                query = query.where(place > last)
            rows = self.store.read(partial(_all, query))
            yield from rows
            if len(rows) < _STEP:
                return
            last = rows[-1].place


def _rowcount(statement: Delete, tx: Tx) -> int:
    return int(tx.connection.execute(statement).rowcount)


def _all(query: Select[Any], tx: Tx) -> Sequence[Any]:
    return tx.connection.execute(query).all()


def _steps(ids: Sequence[str] | None) -> Iterator[Sequence[str] | None]:
    if ids is None:
        yield None
        return
    known = [id for id in ids if _is_id(id)]
    for start in range(0, len(known), _STEP):
        yield known[start : start + _STEP]


def _is_id(id: str) -> bool:
    return len(id) == 32 and all(character in "0123456789abcdef" for character in id)


def _row(row: Any) -> Row:
    return Row(
        id=row.id,
        name=row.event_name,
        state=NAME[row.state],
        key=row.dedupe_key,
        advertisable_eid=row.advertisable_eid,
        dry_run=bool(row.dry_run),
        occurred_at=row.occurred_at,
        queued_at=row.queued_at,
        due_at=row.due_at,
        attempts=row.attempts,
        unsure=bool(row.unsure),
        error=row.error or "",
        reason=row.reason or "",
        settled_at=row.settled_at,
        payload=None if row.payload is None else bytes(row.payload),
    )
