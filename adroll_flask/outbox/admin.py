"""What people do with the outbox: look, retry, drop, fix, export, forget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from adroll_flask.redaction import redact_event

from . import history, sent_again
from .database import Database, Tx, key_in, one
from .destination import read_destination, recent_holds
from .erasing import erase
from .holds import find, waiting_verdicts
from .ingest import Ingest
from .protocol import Overview, Row, State
from .queue import oldest_due
from .record_format import Verdict
from .row_reading import ROW_COLUMNS, row_of
from .states import DAY, DEAD, NAME, NUMBER, clean_key

_STEP: Final = 500
_SELECT: Final = f"SELECT {ROW_COLUMNS}, payload FROM adroll_event"
_LIST: Final = f"SELECT {ROW_COLUMNS}, NULL FROM adroll_event"
#: What a dead letter becomes when it may be sent again.
_FRESH: Final = (
    "state = 0, attempts = 0, queued_at = :now, due_at = :now, settled_at = NULL,"
    " refused_at = NULL, released_at = NULL, reason = NULL"
)


@dataclass(slots=True)
class Admin:
    """The commands' side of an outbox; see :class:`.protocol.Admin`.

    :param dedupe_days: days that the key of a forgotten event is kept.
    :param dropped: called where keys became free.
    """

    database: Database
    ingest: Ingest
    dedupe_days: int
    dropped: Callable[[], None]

    # -- looking ----------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        self.ingest.take_in_all()
        return self.database.read(_counts)

    def overview(self) -> Overview:
        self.ingest.take_in_all()

        def look(tx: Tx) -> Overview:
            version = one(tx.rows("SELECT value FROM adroll_meta WHERE name = 'schema_version'"))
            return Overview(
                counts=_counts(tx),
                oldest_due=oldest_due(tx),
                rates=history.rates(tx),
                destination=read_destination(tx),
                holds=recent_holds(tx, DAY),
                journal_bytes=self.ingest.bytes_waiting(),
                engine=tx.dialect,
                schema_version=int(version or 0),
                verdicts=waiting_verdicts(tx),
            )

        return self.database.read(look)

    def list(
        self,
        state: State | None = None,
        limit: int = 100,
        name: str | None = None,
        since: float | None = None,
        *,
        newest: bool = False,
    ) -> tuple[Row, ...]:
        self.ingest.take_in_all()
        values: dict[str, Any] = {"limit": limit}
        wanted = [] if state is None else [f"state = {NUMBER[state]}"]
        if name is not None:
            wanted.append("event_name = :name")
            values["name"] = name
        if since is not None:
            wanted.append("queued_at >= :since")
            values["since"] = since
        where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
        order = "id DESC" if newest else "state, due_at"
        query = f"{_LIST}{where} ORDER BY {order} LIMIT :limit"
        return self.database.read(lambda tx: tuple(map(row_of, tx.rows(query, **values))))

    def show(self, id: str) -> Row | None:
        if not _is_id(id):
            return None
        self.ingest.take_in_all()
        rows = self.database.read(lambda tx: tx.rows(f"{_SELECT} WHERE id = :id", id=id))
        return row_of(rows[0]) if rows else None

    def find(self, verdict: Verdict) -> Row | None:
        self.ingest.take_in_all()

        verdict = replace(verdict, key=clean_key(verdict.key))

        def look(tx: Tx) -> list[Any]:
            return tx.rows(f"{_LIST} WHERE id = :id", id=find(tx, verdict) or "")

        rows = self.database.read(look)
        return row_of(rows[0]) if rows else None

    def export(self, state: State | None = None, *, full: bool = False) -> Iterator[str]:
        self.ingest.take_in_all()
        where = "1 = 1" if state is None else f"state = {NUMBER[state]}"
        for row in self._scan(where):
            payload = json.loads(row.payload) if row.payload else None
            if payload is not None and not full:
                payload = redact_event(payload)
            yield json.dumps(
                {
                    "id": row.id,
                    "state": row.state,
                    "event_name": row.name,
                    "deduplication_key": row.key,
                    "dry_run": row.dry_run,
                    "occurred_at": row.occurred_at,
                    "queued_at": row.queued_at,
                    "settled_at": row.settled_at,
                    "attempts": row.attempts,
                    "unsure": row.unsure,
                    "reason": row.reason,
                    "error": row.error,
                    "attempt_log": [attempt._asdict() for attempt in row.attempt_log],
                    "event": payload,
                },
                ensure_ascii=False,
            )

    def _scan(self, where: str) -> Iterator[Row]:
        """All rows that meet *where*, with their payload, a page in memory at a time."""
        query = f"{_SELECT} WHERE {where} AND id > :last ORDER BY id LIMIT {_STEP}"
        last = ""
        while True:
            rows = self.database.read(partial(_page, query, last))
            yield from map(row_of, rows)
            if len(rows) < _STEP:
                return
            last = rows[-1][0]

    # -- changing ---------------------------------------------------------------------------

    def retry(self, ids: Sequence[str] | None = None) -> int:
        self.ingest.take_in_all()
        total = 0
        for step in _steps(ids):
            while count := self.database.write(partial(_retry, step)):
                total += count
        return total

    def drop(self, ids: Sequence[str]) -> int:
        self.ingest.take_in_all()
        total = 0
        for step in _steps(ids):
            total += self.database.write(partial(_drop, step or ()))
        self.dropped()
        return total

    def fix(
        self,
        id: str,
        payload: bytes,
        key: str | None = None,
        *,
        digest: str | None = None,
        identifiers: int = 0,
    ) -> bool:
        if not _is_id(id):
            return False
        self.ingest.take_in_all()

        def fix(tx: Tx) -> bool:
            cookie, click = self.ingest.rows.hashes(tx, payload)
            return _fix(
                tx,
                id,
                key,
                payload=payload,
                digest=digest,
                identifiers=identifiers,
                cookie_hash=cookie,
                click_hash=click,
            )

        return self.database.write(fix)

    def forget(self, match: Callable[[dict[str, Any]], bool]) -> int:
        self.ingest.take_in_all()
        total = 0
        found: list[str] = []
        for row in self._scan("state IN (0, 1, 2, 4, 5) AND payload IS NOT NULL"):
            if match(json.loads(row.payload or b"{}")):
                found.append(row.id)
            if len(found) >= _STEP:
                total += self._erase(found)
                found = []
        return total + self._erase(found)

    def _erase(self, ids: Sequence[str]) -> int:
        return self.database.write(partial(_forget, ids, self.dedupe_days)) if ids else 0


def _counts(tx: Tx) -> dict[str, int]:
    rows = tx.rows("SELECT state, count(*) FROM adroll_event GROUP BY state")
    found = {NAME[state]: int(count) for state, count in rows}
    return {name: found.get(name, 0) for name in NUMBER}


def _page(query: str, last: str, tx: Tx) -> list[Any]:
    return tx.rows(query, last=last)


def _drop(ids: Sequence[str], tx: Tx) -> int:
    rows = tx.rows(
        "SELECT id FROM adroll_event WHERE id {in_ids} AND state IN (0, 3, 4, 5, 6) {lock}",
        ids=list(ids),
    )
    mine = [row[0] for row in rows]
    history.ended_early(tx, mine, "cancelled", "dropped")
    return tx.execute("DELETE FROM adroll_event WHERE id {in_ids}", ids=mine)


def _forget(ids: Sequence[str], dedupe_days: int, tx: Tx) -> int:
    history.ended_early(tx, ids, "cancelled", "forgotten")
    return erase(tx, ids, dedupe_days)


def _retry(ids: Sequence[str] | None, tx: Tx) -> int:
    mine = "" if ids is None else " AND id {in_ids}"
    values = {} if ids is None else {"ids": ids}
    rows = tx.rows(
        f"SELECT id FROM adroll_event WHERE state = {DEAD} AND payload IS NOT NULL{mine}"
        " ORDER BY due_at LIMIT :most {skip_locked}",
        most=_STEP,
        **values,
    )
    if rows:
        mine_now = [row[0] for row in rows]
        sent_again.correct(tx, mine_now)
        tx.execute(
            f"UPDATE adroll_event SET {_FRESH} WHERE id " + "{in_ids}", now=tx.now, ids=mine_now
        )
    return len(rows)


def _fix(tx: Tx, id: str, key: str | None, *, payload: bytes, **values: Any) -> bool:
    rows = tx.rows(
        "SELECT event_name, advertisable_eid, dry_run, dedupe_key FROM adroll_event"
        f" WHERE id = :id AND state = {DEAD} "
        "{lock}",
        id=id,
    )
    if not rows:
        return False
    old_name, eid, dry_run, old_key = rows[0]
    name = json.loads(payload).get("event_name") or old_name
    wanted = old_key if key is None else key_in(tx.dialect, key)
    if wanted is not None and tx.rows(
        "SELECT id FROM adroll_event WHERE advertisable_eid = :eid AND dry_run = :dry_run"
        " AND event_name = :name AND dedupe_key = :key AND id <> :id",
        eid=eid,
        dry_run=dry_run,
        name=name,
        key=wanted,
        id=id,
    ):
        return False
    sent_again.correct(tx, [id])
    tx.execute(
        f"UPDATE adroll_event SET {_FRESH}, payload = :payload, event_name = :name, error = NULL,"
        " dedupe_key = :key, digest = :digest, identifiers = :identifiers,"
        " cookie_hash = :cookie_hash, click_hash = :click_hash WHERE id = :id",
        now=tx.now,
        payload=payload,
        name=name,
        key=wanted,
        id=id,
        **values,
    )
    return True


def _steps(ids: Sequence[str] | None) -> Iterator[Sequence[str] | None]:
    if ids is None:
        yield None
        return
    known = [id for id in ids if _is_id(id)]
    for start in range(0, len(known), _STEP):
        yield known[start : start + _STEP]


def _is_id(id: str) -> bool:
    return len(id) == 32 and all(character in "0123456789abcdef" for character in id)
