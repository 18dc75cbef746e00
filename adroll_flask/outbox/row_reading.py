"""A row of an event, as people look at it."""

from __future__ import annotations

from typing import Any, Final

from . import attempts
from .database import key_out
from .protocol import Row
from .states import NAME

#: What :func:`row_of` takes, without the payload, which is the last.
ROW_COLUMNS: Final = (
    "id, event_name, state, dedupe_key, advertisable_eid, dry_run, occurred_at, queued_at, due_at,"
    " attempts, unsure, error, reason, settled_at, attempt_log, released_at,"
    " digest"
)


def row_of(row: Any) -> Row:
    (id, name, state, key, eid, dry_run, occurred, queued, due) = row[:9]
    (count, unsure, error, reason, settled, log, released, digest, payload) = row[9:]
    return Row(
        id=id,
        name=name,
        state=NAME[state],
        key=key_out(key),
        advertisable_eid=eid,
        dry_run=bool(dry_run),
        occurred_at=occurred,
        queued_at=queued,
        due_at=due,
        attempts=count,
        unsure=bool(unsure),
        error=error or "",
        reason=reason or "",
        settled_at=settled,
        attempt_log=attempts.read(log),
        released_at=released,
        digest=digest or "",
        payload=None if payload is None else bytes(payload),
    )
