"""A dead letter that is sent again is no loss any more: the history of its hour is corrected.

Who asks what became of events since some time counts each of them once then, as delivered or as
lost. That it had been lost is kept beside it, so that monitoring's sums only grow.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from . import history
from .database import Tx, one
from .states import DEAD

_MARK: Final = "history_corrected"
_LETTERS: Final = (
    "SELECT event_name, reason, identifiers, digest, settled_at FROM adroll_event"
    f" WHERE id {{in_ids}} AND state = {DEAD} AND dry_run = 0"
)
#: Where a letter was counted: when it was taken in, which may be later than its own time.
_COUNTED: Final = (
    "SELECT hour, outcome, sum(events) FROM adroll_history WHERE hour >= :hour"
    " AND event_name = :name AND reason = :reason AND identifiers = :mask AND currency = :currency"
    f" AND outcome IN ({', '.join(map(repr, history.LOST))}) GROUP BY hour, outcome ORDER BY hour"
)


def correct(tx: Tx, ids: Sequence[str]) -> None:
    """Take back that those of *ids* that are dead letters are lost, before they wait again."""
    entries = list(_taken_back(tx, tx.rows(_LETTERS, ids=list(ids))))
    if not entries:
        return
    history.add(tx, entries)
    mark = {"name": _MARK, "value": secrets.token_hex(8)}
    if not tx.execute(
        "{insert} adroll_meta (name, value) VALUES (:name, :value) {or_ignore}", **mark
    ):
        tx.execute("UPDATE adroll_meta SET value = :value WHERE name = :name", **mark)


def _taken_back(tx: Tx, letters: Sequence[Any]) -> Iterator[history.Entry]:
    left: dict[tuple[object, ...], Counter[tuple[int, str]]] = {}
    for name, reason, mask, digest, settled_at in letters:
        value, currency = history.amount_of(digest)
        key = (int((settled_at or 0.0) // 3600), name, reason or "", mask, currency)
        if key not in left:
            asked = dict(zip(("hour", "name", "reason", "mask", "currency"), key, strict=True))
            left[key] = Counter({row[:2]: int(row[2]) for row in _rows(tx, asked)})
        place = next((place for place, number in left[key].items() if number > 0), None)
        if place is None:
            continue  # it was counted by no version that knew of the history
        left[key][place] -= 1
        hour, outcome = place
        entry = history.Entry(name, outcome, reason or "", mask, currency, value, None, hour=hour)
        yield entry._replace(amount=-1)
        yield entry._replace(outcome=outcome + history.AGAIN)


def _rows(tx: Tx, asked: dict[str, Any]) -> list[tuple[int, str, int]]:
    return [(int(row[0]), str(row[1]), int(row[2])) for row in tx.rows(_COUNTED, **asked)]


def mark(tx: Tx) -> str:
    """A text that changes whenever hours that are over were corrected."""
    return str(one(tx.rows("SELECT value FROM adroll_meta WHERE name = :name", name=_MARK)) or "")
