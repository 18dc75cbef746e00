"""Orders that are looked up: by their deduplication key, many at once, or as they change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .database import Database, Tx, key_in, key_out
from .ingest import Ingest
from .protocol import KnownOrder, Row, SuppressedOrder
from .row_reading import ROW_COLUMNS, row_of
from .states import DEAD, NAME, clean_key

_STEP: Final = 500
_SELECT: Final = f"SELECT {ROW_COLUMNS}, payload FROM adroll_event"
_KNOWN: Final = "SELECT id, dedupe_key, state, digest, reason, error, occurred_at FROM adroll_event"


@dataclass(frozen=True, slots=True)
class Orders:
    """See :class:`.protocol.OrderLookup`."""

    database: Database
    ingest: Ingest

    def take_in_all(self) -> None:
        self.ingest.take_in_all()

    def find(self, key: str, names: Sequence[str]) -> tuple[Row, ...]:
        """The events of *names* that have this key, oldest first, with their payload."""
        self.ingest.take_in_all()
        dialect = self.database.dialect
        # The index begins with the account: each step of it is named, so that it is used.
        query = (
            f"{_SELECT} WHERE advertisable_eid = :eid AND dry_run IN (0, 1)"
            " AND event_name {in_ids} AND dedupe_key = :key"
        )
        wanted = key_in(dialect, clean_key(key))

        def look(tx: Tx) -> list[Any]:
            values = {"ids": list(names), "key": wanted}
            return [row for eid in _accounts(tx) for row in tx.rows(query, eid=eid, **values)]

        return tuple(sorted(map(row_of, self.database.read(look)), key=lambda row: row.id))

    def known(self, name: str, eid: str, keys: Sequence[str]) -> dict[str, KnownOrder]:
        """What is known of the orders with these keys that were reported as events *name*."""
        dialect = self.database.dialect
        wanted = {clean_key(key): key for key in keys}
        query = (
            f"{_KNOWN} WHERE advertisable_eid IN (:eid, '') AND dry_run = 0"
            " AND event_name = :name AND dedupe_key {in_ids}"
        )
        ids = [key_in(dialect, key) for key in wanted]
        rows = self.database.read(lambda tx: tx.rows(query, eid=eid, name=name, ids=ids))
        found = map(_known, rows)
        return {wanted[order.key]: order for order in found if order.key in wanted}

    def suppressed(self, hashes: Sequence[str]) -> dict[str, SuppressedOrder]:
        """Why orders were suppressed, by the hash of
        :func:`adroll_flask.events.dedupe_key.suppressed_key`."""
        query = (
            "SELECT order_hash, reason, suppressed_at FROM adroll_suppressed"
            " WHERE order_hash {in_ids}"
        )
        rows = self.database.read(lambda tx: tx.rows(query, ids=list(hashes)))
        return {order: SuppressedOrder(reason, at) for order, reason, at in rows}

    def reported(self, name: str, since: float, until: float) -> Iterator[KnownOrder]:
        """Orders that are or will be with AdRoll and occurred between two times."""
        query = (
            f"{_KNOWN} WHERE event_name = :name AND dry_run = 0 AND state < {DEAD}"
            " AND dedupe_key IS NOT NULL AND occurred_at BETWEEN :since AND :until"
        )
        values = {"name": name, "since": since, "until": until}
        return map(_known, self._pages(query, values, 0))

    def without_key(self, name: str) -> Iterator[tuple[str, Row]]:
        """Dead letters that were invalid, by the order id in them."""
        query = (
            f"{_SELECT} WHERE state = {DEAD} AND event_name = :name AND dedupe_key IS NULL"
            " AND payload IS NOT NULL"
        )
        for found in map(row_of, self._pages(query, {"name": name}, 0)):
            order = order_id_of(found.payload or b"")
            if order is not None:
                yield order, found

    def since(self, id: str) -> Iterator[Row]:
        """Events that were reported after the one with *id*, which need not be there."""
        return map(row_of, self._pages(f"{_SELECT} WHERE 1 = 1", {}, 0, id))

    def those(self, ids: Sequence[str]) -> tuple[Row, ...]:
        """The events of *ids* that are there."""
        found: list[Row] = []
        for start in range(0, len(ids), _STEP):
            step = list(ids[start : start + _STEP])
            rows = self.database.read(
                lambda tx, step=step: tx.rows(_SELECT + " WHERE id {in_ids}", ids=step)  # type: ignore[misc]
            )
            found += map(row_of, rows)
        return tuple(found)

    def _pages(
        self, query: str, values: dict[str, Any], place: int, last: str = ""
    ) -> Iterator[Any]:
        """All rows, a page in memory at a time; the id is in column *place*."""
        self.ingest.take_in_all()
        query += f" AND id > :last ORDER BY id LIMIT {_STEP}"
        while True:
            rows = self.database.read(_rows(query, {**values, "last": last}))
            yield from rows
            if len(rows) < _STEP:
                return
            last = rows[-1][place]


def _accounts(tx: Tx) -> Iterator[str]:
    """The accounts of all events, by one step in the index each: ``DISTINCT`` would read it all."""
    # What has no key is in MariaDB's and MySQL's index only.
    keyed = "" if tx.dialect == "mysql" else " AND dedupe_key IS NOT NULL"
    next_one = (
        "SELECT advertisable_eid FROM adroll_event WHERE advertisable_eid {} :last"
        f"{keyed} ORDER BY advertisable_eid LIMIT 1"
    )
    rows = tx.rows(next_one.format(">="), last="")
    while rows:
        yield rows[0][0]
        rows = tx.rows(next_one.format(">"), last=rows[0][0])


def _rows(query: str, values: dict[str, Any]) -> Callable[[Tx], list[Any]]:
    return lambda tx: tx.rows(query, **values)


def _known(row: Any) -> KnownOrder:
    id, key, state, digest, reason, error, occurred_at = row
    return KnownOrder(
        *(id, key_out(key), NAME[state], digest or "", reason or "", error or "", occurred_at)
    )


def order_id_of(payload: bytes) -> str | None:
    """The order's id in an event's JSON, as a text."""
    try:
        found = json.loads(payload)["event_attributes"]["order_id"]
    except (ValueError, KeyError, TypeError):
        return None
    return None if found is None else str(found)
