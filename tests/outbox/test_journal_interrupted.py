"""An append that a signal's handler interrupts: what was acknowledged stays whole, and no lock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adroll_flask.interruptions import let_through
from adroll_flask.outbox.journal import JournalFailed, JournalWriter
from tests.support.interrupted import at_each_moment
from tests.support.journal_kit import records_of


class Limit(Exception):
    """A time limit that the site set."""


class LateLimit(TimeoutError):
    """The same as an OSError."""


# Python's own open() leaves a file to the garbage collector where it is interrupted.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("error", [Limit, LateLimit])
@pytest.mark.parametrize("file_bytes", [1 << 20, 1])
def test_an_append_may_be_interrupted_at_each_moment(
    tmp_path: Path, error: type[Exception], file_bytes: int
) -> None:
    writer = JournalWriter(tmp_path / "journal", max_file_bytes=file_bytes)
    acknowledged = []

    def append(moment: int) -> None:
        try:
            writer.append(b"interrupted %d" % moment)
        except JournalFailed as failure:
            let_through(failure)
            raise

    with ThreadPoolExecutor(1) as other_thread:
        for moment in at_each_moment(append, error):
            record = b"after %d" % moment
            other_thread.submit(writer.append, record).result(timeout=30)
            acknowledged.append(record)
    found = records_of(tmp_path / "journal")
    assert [record for record in found if record.startswith(b"after")] == acknowledged
    assert len(set(found)) == len(found), "a record was kept twice"
