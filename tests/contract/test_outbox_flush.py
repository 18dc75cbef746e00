"""What waits includes what was spilled."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from adroll_flask.outbox import NewEvent, new_id, open_outbox
from adroll_flask.settings import Settings


def new() -> NewEvent:
    return NewEvent(
        id=new_id(time.time()),
        name="addToCart",
        advertisable_eid="ADVERTISABLE0000000001",
        dry_run=False,
        key=None,
        payload=b"{}",
        occurred_at=time.time(),
    )


def test_a_spilled_event_is_waiting(tmp_path: Path) -> None:
    outbox = open_outbox(Settings(), folder=tmp_path)
    outbox.put(new())
    blocker = sqlite3.connect(tmp_path / "adroll-outbox.sqlite", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    assert outbox.put(new()).spilled == "locked"
    blocker.execute("ROLLBACK")
    blocker.close()
    assert outbox.waiting() == 2
    outbox.close()
