"""From one database into another: an outbox moves with all that it knows.

Events that wait or are held, dead letters, the keys of reported orders, who said no, history, and
how far journals were read. Rows are copied in steps; a move that was stopped goes on where it is
begun again. In the end nothing in the old outbox is sent by itself any more.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from . import restored
from .database import Database, Tx, key_in, key_out, one
from .protocol import OutboxFailed
from .schema import DELAY_COLUMNS
from .states import NAME

_STEP: Final = 500
#: In the new outbox until all is there.
_UNDER_WAY: Final = "moving_from"
_NEW_ID: Final = "UPDATE adroll_meta SET value = :id WHERE name = 'outbox_id'"
_WORDS: Final = "this event was moved to another outbox, which sends it. Do not retry it here."
_EVENT: Final = (
    *("id", "state", "event_name", "advertisable_eid", "dry_run", "dedupe_key", "digest"),
    *("payload", "occurred_at", "queued_at", "due_at", "attempts", "unsure", "claim", "error"),
    *("reason", "settled_at", "cookie_hash", "click_hash", "identifiers", "refused_at"),
    *("attempt_log", "released_at", "learnt_at", "trace"),
)
_KEY: Final = ("advertisable_eid", "dry_run", "event_name", "dedupe_key")
#: Tables that may be long, by the column that orders their rows.
_LONG: Final = {
    "adroll_journal": ("file", "position", "read_at"),
    "adroll_withdrawal": ("visitor", "withdrawn_at", "forget_at"),
    "adroll_suppressed": ("order_hash", "reason", "suppressed_at", "forget_at"),
    "adroll_event": _EVENT,
}
#: Tables that are read at once.
_SHORT: Final = {
    "adroll_verdict": (*_KEY, "verdict", "changes", "kept_at"),
    "adroll_history": (
        *("hour", "slot", "event_name", "outcome", "reason", "identifiers", "currency"),
        *("events", "value", *DELAY_COLUMNS),
    ),
}
#: What is known of AdRoll: the new outbox has a row of it, and no holds, before anybody sends.
_DESTINATION: Final = {
    "adroll_destination": (
        *("id", "paused_until", "held", "fingerprint", "held_since", "failures", "last_error"),
        *("last_error_at", "probe_until", "next_slot_at"),
    ),
    "adroll_hold": ("began_at", "ended_at", "reason"),
    "adroll_trial": ("tried_at", "event_name", "good", "answer", "words"),
}


class NotMoved(Exception):
    """Nothing was moved, and why."""


def move(
    old: Database, new: Database, *, dedupe_days: int, moved: Callable[[int], object]
) -> Counter[str]:
    """Move what *old* holds into *new*, which holds no events; how many of each state.

    Nobody may report into *new* meanwhile, nor deliver from either.

    :param dedupe_days: days that *old* keeps as dead letters what *new* sends from now on.
    :param moved: told how many events each step has moved.
    :raises NotMoved: the one is in use, or the other is not empty.
    :raises OutboxFailed: a database cannot be worked with. Call it again, and it goes on.
    """
    for database in (old, new):
        database.create_tables()
    old.read(_refuse_in_use)
    outbox_id = old.read(lambda tx: one(_meta(tx, "outbox_id")))
    new.write(lambda tx: _begin(tx, str(outbox_id)))
    if old.read(lambda tx: _meta(tx, _UNDER_WAY)):
        new.write(_end)
        raise NotMoved("both addresses are of the same outbox")
    for table, columns in _DESTINATION.items():
        rows = _read(old, table, columns)
        new.write(lambda tx, table=table, rows=rows: _replace(tx, table, rows))  # type: ignore[misc]
    for table, columns in _SHORT.items():
        rows = _read(old, table, columns)
        for first in range(0, len(rows), _STEP):
            _write(new, table, rows[first : first + _STEP])
    states: Counter[str] = Counter()
    for table, columns in _LONG.items():
        last = ""
        while rows := _read(old, table, columns, last):
            _write(new, table, rows)
            last = rows[-1][columns[0]]
            if table == "adroll_event":
                states.update(NAME[row["state"]] for row in rows)
                moved(len(rows))
    old.write(lambda tx: _let_go(tx, dedupe_days))
    new.write(_end)
    return states


def _meta(tx: Tx, name: str) -> list[Any]:
    return tx.rows("SELECT value FROM adroll_meta WHERE name = :name", name=name)


def _refuse_in_use(tx: Tx) -> None:
    """A worker that goes on would send what the new outbox sends, too."""
    leased = "SELECT count(*) FROM adroll_event WHERE state IN (1, 2) AND due_at > :now"
    if count := one(tx.rows(leased, now=tx.now)):
        raise NotMoved(
            f"a worker delivers from the old outbox, or was killed in the last minute ({count} "
            "claimed): stop the site and its workers first, and try again in a minute"
        )


def _begin(tx: Tx, outbox_id: str) -> None:
    if tx.rows("SELECT 1 FROM adroll_event LIMIT 1") and not _meta(tx, _UNDER_WAY):
        raise NotMoved("the outbox of ADROLL_OUTBOX_URL has events already: it has to be empty")
    if tx.execute(
        "{insert} adroll_meta (name, value) VALUES (:name, :value) {or_ignore}",
        name=_UNDER_WAY,
        value=outbox_id,
    ):
        # The key of the visitors' hashes moves with them. Where a move was stopped, it may have
        # taken it from the old outbox already.
        tx.execute(_NEW_ID, id=outbox_id)


def _let_go(tx: Tx, dedupe_days: int) -> None:
    """Let nothing be sent from the old outbox, and no session take it for the new one."""
    restored.lay_to_rest(tx, dedupe_days, states=restored.SENDABLE_OR_HELD, error=_WORDS)
    tx.execute(_NEW_ID, id=secrets.token_hex(16))


def _end(tx: Tx) -> None:
    tx.execute("DELETE FROM adroll_meta WHERE name = :name", name=_UNDER_WAY)


def _read(
    database: Database, table: str, columns: Sequence[str], last: str | None = None
) -> list[dict[str, Any]]:
    """The table's rows; with *last*, the next ones behind that."""
    statement = f"SELECT {', '.join(columns)} FROM {table}"
    values: dict[str, Any] = {}
    if last is not None:
        statement += f" WHERE {columns[0]} > :last ORDER BY {columns[0]} LIMIT {_STEP}"
        values["last"] = last
    found = database.read(lambda tx: tx.rows(statement, **values))
    return [dict(zip(columns, row, strict=True)) for row in found]


def _write(database: Database, table: str, rows: Sequence[dict[str, Any]]) -> None:
    database.write(lambda tx: _insert(tx, table, rows))


def _replace(tx: Tx, table: str, rows: Sequence[dict[str, Any]]) -> None:
    tx.execute(f"DELETE FROM {table}")
    _insert(tx, table, rows)


def _insert(tx: Tx, table: str, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    names, marks = ", ".join(rows[0]), ", ".join(f":{name}" for name in rows[0])
    if table == "adroll_event":
        names, marks = "{seq_name}" + names, "{seq}" + marks
    made = [_fitting(tx, row) for row in rows]
    written = tx.many(
        "{insert} " + f"{table} ({names}) VALUES ({marks}) " + "{or_ignore}",
        made,
    )
    if table == "adroll_event" and written < len(rows):
        # An earlier move that was stopped, or what INSERT IGNORE hides that the database refuses.
        ids = [row["id"] for row in rows]
        there = tx.rows("SELECT count(*) FROM adroll_event WHERE id {in_ids}", ids=ids)
        if one(there) < len(rows):
            raise OutboxFailed("data")


def _fitting(tx: Tx, row: dict[str, Any]) -> dict[str, Any]:
    """A row as the database of *tx* takes it."""
    made = dict(row)
    if "dedupe_key" in made:
        made["dedupe_key"] = key_in(tx.dialect, key_out(made["dedupe_key"]))
    if made.get("payload") is not None:
        made["payload"] = bytes(made["payload"])
    return made
