"""The journal: what was appended is read, whole and once, by whoever reads."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from adroll_flask.outbox.journal import JournalFailed, JournalWriter
from adroll_flask.outbox.journal_files import files, note_usage, read, remove, waiting_bytes
from adroll_flask.outbox.journal_format import MAX_RECORD, frame_all
from tests.support.journal_kit import fill, only_file, read_file, records_of

TOKEN = "0123456789abcdef"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "instance" / "journal"


@pytest.fixture
def writer(folder: Path) -> JournalWriter:
    return JournalWriter(folder)


def test_records_are_read_as_they_were_appended(folder: Path, writer: JournalWriter) -> None:
    records = [b"", b"one", bytes(range(256)) * 5, b"adroll-journal 1 {}\n"]
    for record in records:
        writer.append(record)

    assert records_of(folder) == records


def test_many_records_come_in_a_file_of_their_own(folder: Path, writer: JournalWriter) -> None:
    writer.append(b"before")
    records = [b"", b"one", bytes(range(256)) * 5]
    pieces = [frame_all(records[:2], TOKEN), frame_all(records[2:], TOKEN)]
    writer.append_file(TOKEN, pieces, sum(map(len, pieces)))
    writer.append(b"after")

    mine, theirs = files(folder)
    assert read_file(mine).records == [b"before", b"after"]
    batch = read_file(theirs)
    assert batch.records == records
    assert mine.is_alive()
    # Its writer is done with it, though it lives.
    assert remove(theirs, batch.end_offset)


def test_nothing_is_made_before_the_first_record(folder: Path, writer: JournalWriter) -> None:
    writer.close()

    assert not folder.exists()
    assert files(folder) == []
    assert waiting_bytes(folder) == 0


def test_folder_and_files_are_the_owners_alone(folder: Path, writer: JournalWriter) -> None:
    writer.append(b"one")

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(only_file(folder).path.stat().st_mode) == 0o600


def test_a_record_of_1_mb_is_read_whatever_the_batch(folder: Path, writer: JournalWriter) -> None:
    record = bytes(range(256)) * 4096
    for one in (b"before", record, b"after"):
        writer.append(one)

    batch = read_file(only_file(folder), max_bytes=1000)

    assert batch.records == [b"before", record, b"after"]


def test_a_record_that_is_too_large_is_refused(folder: Path, writer: JournalWriter) -> None:
    with pytest.raises(JournalFailed, match="too_large") as caught:
        writer.append(bytes(MAX_RECORD + 1))
    assert caught.value.reason == "too_large"

    writer.append(bytes(MAX_RECORD))
    assert records_of(folder) == [bytes(MAX_RECORD)]


def test_batches_hold_what_was_asked_for(folder: Path, writer: JournalWriter) -> None:
    for n in range(10):
        writer.append(b"%d" % n * 100)
    file = only_file(folder)

    three = read(file, 0, max_records=3, max_bytes=1 << 20)
    few = read(file, three.end_offset, max_records=100, max_bytes=250)

    assert [one[:1] for one in three.records] == [b"0", b"1", b"2"]
    assert [one[:1] for one in few.records] == [b"3", b"4"]
    assert not three.ended
    assert not few.ended


def test_a_file_is_removed_once_it_is_read_and_its_writer_is_done(
    folder: Path, writer: JournalWriter
) -> None:
    writer.append(b"one")
    writer.append(b"two")
    file = only_file(folder)
    one = read(file, 0, max_records=1, max_bytes=1 << 20)
    two = read(file, one.end_offset, max_records=9, max_bytes=1 << 20)

    assert file.is_alive()
    assert not remove(file, two.end_offset)
    writer.close()
    assert not file.is_alive()
    assert not remove(file, one.end_offset)
    assert remove(file, two.end_offset)

    assert files(folder) == []
    assert not file.is_alive()
    assert remove(file, two.end_offset)
    assert read(file, two.end_offset, max_records=9, max_bytes=99).ended


def test_an_append_after_close_begins_a_new_file(folder: Path, writer: JournalWriter) -> None:
    writer.append(b"one")
    writer.close()
    writer.append(b"two")

    assert len(files(folder)) == 2
    assert records_of(folder) == [b"one", b"two"]


def test_a_full_file_is_followed_by_another(folder: Path) -> None:
    writer = JournalWriter(folder, max_file_bytes=2000)
    records = [b"%d" % n * 300 for n in range(10)] + [b"larger than a file" * 1000, b"last"]
    for record in records:
        writer.append(record)

    found = files(folder)

    assert len(found) >= 4
    assert [file.is_alive() for file in found] == [False] * (len(found) - 1) + [True]
    assert records_of(folder) == records


def test_threads_share_one_file(folder: Path) -> None:
    writer = JournalWriter(folder, max_file_bytes=50_000)
    together = threading.Barrier(8)

    def append(thread: int) -> None:
        together.wait()
        for n in range(200):
            writer.append(b"%d %d" % (thread, n) + b"." * (n % 90))

    threads = [threading.Thread(target=append, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = [record.rstrip(b".") for record in records_of(folder)]
    assert sorted(found) == sorted(b"%d %d" % (t, n) for t in range(8) for n in range(200))
    assert sum(file.is_alive() for file in files(folder)) == 1
    for number in range(8):  # and each thread's in its order
        own = [record for record in found if record.startswith(b"%d " % number)]
        assert own == [b"%d %d" % (number, n) for n in range(200)]


def test_the_size_bound_counts_what_waits_and_not_what_was_read(folder: Path) -> None:
    writer = JournalWriter(folder, max_bytes=10_000)
    kept, refused = fill(writer, bytes(1000))
    file = only_file(folder)
    assert refused.reason == "full"
    assert 8 <= kept <= 9
    assert len(records_of(folder)) == kept
    assert waiting_bytes(folder) == file.size

    note_usage(folder, {file.name: file.size}, 0)

    assert waiting_bytes(folder) == 0
    JournalWriter(folder, max_bytes=10_000).append(bytes(1000))
