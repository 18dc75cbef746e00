"""What was settled by the minute, for the rates that the commands show."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from sqlalchemy import delete, func, select, update

from .engines import insert_unless_there
from .outcomes import TALLIED
from .states import DAY
from .store import Store, Tx

#: Rows a minute: workers that settle at once would wait for each other on one.
_SLOTS: Final = 16


def add_tally(store: Store, tx: Tx, amounts: Sequence[int]) -> None:
    """Count *amounts*, in the order of ``TALLIED``, in the present minute, at the end of *tx*."""
    if not any(amounts):
        return
    tally = store.tables.tally
    place = {"minute": int(tx.now // 60), "slot": random.randrange(_SLOTS)}  # noqa: S311
    tx.connection.execute(insert_unless_there(store.dialect, tally).values(place))
    tx.connection.execute(
        update(tally)
        .where(tally.c.minute == place["minute"], tally.c.slot == place["slot"])
        .values(
            {
                name: tally.c[name] + amount
                for name, amount in zip(TALLIED, amounts, strict=True)
                if amount
            }
        )
    )


def rates(store: Store, tx: Tx) -> dict[str, dict[str, int]]:
    """What was settled in the last minute, hour and day."""
    tally = store.tables.tally.c
    present = int(tx.now // 60)
    found = {}
    for name, minutes in (("minute", 1), ("hour", 60), ("day", 1440)):
        row = tx.connection.execute(
            select(*(func.coalesce(func.sum(tally[one]), 0) for one in TALLIED)).where(
                tally.minute > present - 1 - minutes
            )
        ).one()
        found[name] = {one: int(amount) for one, amount in zip(TALLIED, row, strict=True)}
    return found


def remove_old_tally(store: Store, tx: Tx) -> int:
    """Forget what is older than two days."""
    tally = store.tables.tally
    result = tx.connection.execute(
        delete(tally).where(tally.c.minute < int((tx.now - 2 * DAY) // 60))
    )
    return int(result.rowcount)
