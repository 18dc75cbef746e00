"""The spill file of versions before the journal: read once, so that nothing in it is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from adroll_flask.errors import help_url
from adroll_flask.logs import Logger, get_logger

from . import journal_locks as locks
from .record_format import EventRecord, NewEvent
from .states import clean_key

logger: Logger = get_logger("adroll_flask.outbox")

_NAME: Final = "adroll-spill.jsonl"
_BATCH: Final = 200
#: Seconds that its lock is waited for: a file system may have none.
_PATIENCE: Final = 1.0


def exists(folder: Path) -> bool:
    """Whether *folder* holds a spill file."""
    return (folder / _NAME).exists() or (folder / f"{_NAME}.reading").exists()


def take_in(folder: Path, write: Callable[[Sequence[EventRecord]], None]) -> int:
    """Hand the spill file's events to *write* and remove it; how many there were.

    Read again after a kill, it does no harm: an event's id is in the outbox once.
    """
    count = 0
    spill, reading = folder / _NAME, folder / f"{_NAME}.reading"
    while reading.exists() or spill.exists():
        if not reading.exists():
            with spill.open("rb") as lines:
                # A process of the older version that appends holds this lock, and looks after it
                # got it whether the file is still at its path.
                until = time.monotonic() + _PATIENCE
                while not locks.hold(lines.fileno()) and time.monotonic() < until:
                    time.sleep(0.005)
                spill.rename(reading)
        batch: list[EventRecord] = []
        for record in _records(reading):
            batch.append(record)
            count += 1
            if len(batch) == _BATCH:
                write(batch)
                batch = []
        write(batch)
        reading.unlink()
    for suffix in (".progress", ".lock"):
        with suppress(OSError):
            (folder / f"{_NAME}{suffix}").unlink(missing_ok=True)
    logger.warning(
        "AdRoll's spill file of an older version was read: %d events (%s)",
        count,
        help_url("old-spill-file"),
    )
    return count


def _records(path: Path) -> Iterator[EventRecord]:
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield _record(json.loads(line))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                with path.with_name(f"{_NAME}.bad").open("ab") as bad:
                    bad.write(line)
                logger.critical(
                    "a line of AdRoll's spill file is damaged; it is kept in .bad (%s)",
                    help_url("old-spill-file"),
                )


def _record(line: object) -> EventRecord:
    if not isinstance(line, dict):
        raise TypeError("not an object")
    at = float(line.pop("at"))
    dead = line.pop("dead", None)
    line["payload"] = line["payload"].encode("latin-1")
    event = NewEvent(**line)
    if len(event.id) != 32 or int(event.id, 16) < 0:
        raise ValueError("not an event's id")
    if event.key is not None:
        event.key = clean_key(event.key)
    return EventRecord(event, at, None if dead is None else (str(dead[0]), str(dead[1])))
