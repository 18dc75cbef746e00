"""Each event's attempts: what AdRoll said to the requests that it was answered for.

Kept as JSON with the event until it is delivered, and with a dead letter. What is delivered at once
has none. A batch that is refused and halved is no attempt of those that are not at fault.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from .database import Tx
from .protocol import Asked, Attempt

#: Attempts that are kept with an event, the last ones.
MOST: Final = 20
#: Characters of AdRoll's words that are kept with each.
_WORDS: Final = 200


def append(
    tx: Tx, ids: Sequence[str], asked: Asked, *, unsure: bool, claim: str | None = None
) -> None:
    """Keep one more attempt with the events of *ids*.

    :param claim: only with those that are under it.
    """
    mine = "" if claim is None else " AND claim = :claim AND state IN (1, 2)"
    values = {} if claim is None else {"claim": claim}
    rows = tx.rows(
        "SELECT id, attempt_log FROM adroll_event WHERE payload IS NOT NULL AND id {in_ids}" + mine,
        ids=list(ids),
        **values,
    )
    alike: dict[str | None, list[str]] = {}
    for id, log in rows:
        alike.setdefault(log, []).append(id)
    made = [round(tx.now, 3), asked.answer, asked.status, asked.words[:_WORDS], int(unsure)]
    for log, those in alike.items():
        known = _loaded(log)[1 - MOST :]
        tx.execute(
            "UPDATE adroll_event SET attempt_log = :log WHERE id {in_ids}",
            log=json.dumps([*known, made]),
            ids=those,
        )


def read(log: str | None) -> tuple[Attempt, ...]:
    """The attempts of a row, oldest first."""
    found = []
    for one in _loaded(log):
        try:
            at, answer, status, words, unsure = one
            found.append(Attempt(float(at), str(answer), status, str(words), bool(unsure)))
        except (TypeError, ValueError):
            continue  # of a later version
    return tuple(found)


def _loaded(log: str | None) -> list[Any]:
    try:
        found = json.loads(log or "[]")
    except ValueError:
        return []
    return found if isinstance(found, list) else []
