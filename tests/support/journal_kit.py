"""Reads and damages journals for tests."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

from adroll_flask.outbox.journal import JournalFailed, JournalWriter
from adroll_flask.outbox.journal_files import QUIET, Batch, CorruptRecord, JournalFile, files, read
from adroll_flask.outbox.journal_format import FRAME, Header


def read_file(file: JournalFile, *, max_records: int = 100, max_bytes: int = 1 << 16) -> Batch:
    """All that a file holds at present, read batch by batch."""
    records: list[bytes] = []
    corrupt: list[CorruptRecord] = []
    end = 0
    while True:
        batch = read(file, end, max_records=max_records, max_bytes=max_bytes)
        assert batch.end_offset >= end
        assert batch.ended or batch.end_offset > end, "no progress"
        records += batch.records
        corrupt += batch.corrupt
        end = batch.end_offset
        if batch.ended:
            return Batch(records, end, corrupt, True, batch.newer_version)


def records_of(folder: Path) -> list[bytes]:
    """All records of a journal, which is undamaged."""
    found: list[bytes] = []
    for file in files(folder):
        batch = read_file(file)
        assert batch.corrupt == []
        found += batch.records
    return found


def framed(header: Header, record: bytes) -> bytes:
    """A record as it stands in the file of *header*."""
    checksum = zlib.crc32(record, header.seed ^ len(record))
    return FRAME.pack(header.marker, len(record), checksum) + record


def only_file(folder: Path) -> JournalFile:
    (file,) = files(folder)
    return file


def long_quiet(file: JournalFile) -> None:
    """Let it look as if nothing was written to a file for a long time."""
    past = time.time() - QUIET - 60
    os.utime(file.path, (past, past))


def fill(writer: JournalWriter, record: bytes) -> tuple[int, JournalFailed]:
    """Append *record* until it is refused: how many were taken, and why the last was not."""
    for count in range(100_000):
        try:
            writer.append(record)
        except JournalFailed as exc:
            return count, exc
    raise AssertionError("was never refused")
