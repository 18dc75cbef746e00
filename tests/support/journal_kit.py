"""Writes, reads and damages journals for tests; their entries are any texts."""

import json
import os
import time
from pathlib import Path

from adroll_flask.outbox.journal import QUIET, Journal, JournalFile, Part, files_of, read_part
from adroll_flask.outbox.model import OutboxFailed, line_of


def line(text: bytes) -> bytes:
    """An entry that says *text*, as a line of the journal."""
    return line_of(json.dumps(text.decode("latin-1")).encode())


def texts(bodies: list[bytes]) -> list[bytes]:
    """What entries say."""
    return [json.loads(body).encode("latin-1") for body in bodies]


def read_file(file: JournalFile, *, most: int = 100, most_bytes: int = 1 << 16) -> Part:
    """All that a file holds at present, read batch by batch."""
    found = Part()
    while True:
        batch = read_part(file, found.end, most=most, most_bytes=most_bytes)
        assert batch.end >= found.end
        found.bodies += batch.bodies
        found.damaged += batch.damaged
        if batch.end == found.end:
            return found
        found.end = batch.end


def texts_of(folder: Path) -> list[bytes]:
    """What all entries of a journal say, which is undamaged."""
    found: list[bytes] = []
    for file in files_of(folder):
        batch = read_file(file)
        assert batch.damaged == []
        found += texts(batch.bodies)
    return found


def only_file(folder: Path) -> JournalFile:
    (file,) = files_of(folder)
    return file


def long_quiet(file: JournalFile) -> None:
    """Let it look as if nothing was written to a file for a long time."""
    past = time.time() - QUIET - 60
    os.utime(file.path, (past, past))


def fill(journal: Journal, entry: bytes) -> tuple[int, OutboxFailed]:
    """Append *entry* until it is refused: how many were taken, and why the last was not."""
    for count in range(100_000):
        try:
            journal.append(entry)
        except OutboxFailed as exc:
            return count, exc
    raise AssertionError("was never refused")
