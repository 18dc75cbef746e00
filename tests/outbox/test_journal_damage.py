"""What is torn, damaged, older or newer in a journal costs nothing but itself."""

from __future__ import annotations

import json
import logging
import random
import shutil
import stat
import zlib
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adroll_flask.outbox.journal import JournalWriter
from adroll_flask.outbox.journal_files import JournalFile, files, move_aside, read, remove
from adroll_flask.outbox.journal_format import FRAME, MAX_RECORD, Header, decode_header, split
from tests.support.journal_kit import framed, long_quiet, only_file, read_file

GOLDEN = Path(__file__).parents[1] / "data" / "journal"
RECORDS = [b"%d " % n + bytes(range(40 + n)) for n in range(5)]


@pytest.fixture
def file(tmp_path: Path) -> JournalFile:
    """Five records of a writer that is gone."""
    writer = JournalWriter(tmp_path / "journal")
    for record in RECORDS:
        writer.append(record)
    writer.close()
    return only_file(writer.folder)


def starts(file: JournalFile) -> list[int]:
    """Where each frame of :data:`RECORDS` begins, and where the last ends."""
    end = file.path.stat().st_size
    found = [end]
    for record in reversed(RECORDS):
        found.insert(0, found[0] - FRAME.size - len(record))
    return found


def overwrite(file: JournalFile, at: int, data: bytes) -> None:
    whole = bytearray(file.path.read_bytes())
    whole[at : at + len(data)] = data
    file.path.write_bytes(whole)


def test_a_file_torn_at_any_byte_gives_its_whole_records(file: JournalFile) -> None:
    whole, frames = file.path.read_bytes(), starts(file)
    for end in range(frames[0], len(whole) + 1):
        file.path.write_bytes(whole[:end])
        count = sum(end >= frame for frame in frames[1:])

        batch = read_file(file)

        assert batch.records == RECORDS[:count]
        assert batch.corrupt == []
        assert batch.end_offset == frames[count]


def test_what_is_appended_after_a_torn_read_is_read_from_there(file: JournalFile) -> None:
    """A kernel may show a write in pieces: each beginning of it, and then all."""
    whole, frames = file.path.read_bytes(), starts(file)
    for end in range(frames[3], frames[4]):
        file.path.write_bytes(whole[:end])
        torn = read_file(file)
        file.path.write_bytes(whole)

        rest = read(file, torn.end_offset, max_records=9, max_bytes=1 << 20)

        assert torn.records + rest.records == RECORDS
        assert torn.corrupt == rest.corrupt == []


def test_a_torn_header_hides_nothing(file: JournalFile) -> None:
    whole, frames = file.path.read_bytes(), starts(file)
    for end in range(frames[0]):
        file.path.write_bytes(whole[:end])
        assert read_file(file).records == []
    assert not remove(file, 0)  # nothing says that its writer is gone
    long_quiet(file)
    assert remove(file, 0)


def test_a_wrong_checksum_costs_its_record_alone(file: JournalFile) -> None:
    whole, frames = file.path.read_bytes(), starts(file)
    for n in range(len(RECORDS)):
        for at in range(frames[n] + FRAME.size, frames[n + 1]):
            overwrite(file, at, bytes([whole[at] ^ 0x10]))

            batch = read_file(file)

            assert batch.records == RECORDS[:n] + RECORDS[n + 1 :]
            (corrupt,) = batch.corrupt
            assert (corrupt.name, corrupt.offset) == (file.name, frames[n])
            assert corrupt.data == file.path.read_bytes()[frames[n] : frames[n + 1]]
            file.path.write_bytes(whole)


def test_a_damaged_frame_costs_its_record_alone(file: JournalFile) -> None:
    """Marker, length and checksum of a record; a length too large is no torn end."""
    whole, frames = file.path.read_bytes(), starts(file)
    for n in range(len(RECORDS) - 1):
        for at in range(frames[n], frames[n] + FRAME.size):
            for bit in range(8):
                overwrite(file, at, bytes([whole[at] ^ (1 << bit)]))

                batch = read_file(file)

                assert batch.records == RECORDS[:n] + RECORDS[n + 1 :]
                assert [one.offset for one in batch.corrupt] == [frames[n]]
                file.path.write_bytes(whole)


def test_a_hole_of_zeros_is_skipped(file: JournalFile) -> None:
    """What a power cut leaves of pages that were not written."""
    frames = starts(file)
    overwrite(file, frames[1] + 5, bytes(frames[3] - frames[1] - 10))

    batch = read_file(file)

    assert batch.records == [RECORDS[0], RECORDS[3], RECORDS[4]]
    assert [(one.offset, len(one.data)) for one in batch.corrupt] == [
        (frames[1], frames[3] - frames[1])
    ]


def test_a_damaged_header_hides_no_record(file: JournalFile) -> None:
    whole, frames = file.path.read_bytes(), starts(file)
    for at in range(frames[0]):
        overwrite(file, at, bytes([whole[at] ^ 1]))

        batch = read_file(file)

        assert batch.records == RECORDS
        assert [(one.offset, one.data) for one in batch.corrupt] == [
            (0, file.path.read_bytes()[: frames[0]])
        ]
        file.path.write_bytes(whole)


def test_a_record_cannot_forge_another(tmp_path: Path) -> None:
    """A visitor chooses a part of it, and it may be torn or damaged; the token is not theirs."""
    first = JournalWriter(tmp_path / "one")
    first.append(b"forged")
    first.close()
    forged = only_file(first.folder).path.read_bytes()
    second = JournalWriter(tmp_path / "two")
    second.append(forged)
    second.append(b"next")
    second.close()
    file = only_file(second.folder)
    overwrite(file, file.path.stat().st_size - len(b"next") - FRAME.size - 1, b"\xff")

    batch = read_file(file)

    assert batch.records == [b"next"]
    assert len(batch.corrupt) == 1


def test_damage_larger_than_a_batch_is_passed_in_one_reading(file: JournalFile) -> None:
    frames = starts(file)
    whole = file.path.read_bytes()
    junk = random.Random(7).randbytes(100_000)
    file.path.write_bytes(whole[: frames[2]] + junk + whole[frames[2] :])

    batch = read_file(file, max_bytes=50)

    assert batch.records == RECORDS
    assert [one.data for one in batch.corrupt] == [junk]


def test_a_file_with_unread_damage_is_not_removed(file: JournalFile) -> None:
    frames = starts(file)
    overwrite(file, frames[4] + FRAME.size, b"\xff")

    assert not remove(file, frames[4])
    assert remove(file, frames[5])


def test_a_file_that_ends_torn_is_removed(file: JournalFile) -> None:
    last = starts(file)[4]
    file.path.write_bytes(file.path.read_bytes()[:-1])

    assert remove(file, last)


def test_damaged_bytes_are_kept_beside_the_journal_and_told_of(
    file: JournalFile, caplog: pytest.LogCaptureFixture
) -> None:
    frames = starts(file)
    overwrite(file, frames[1] + FRAME.size, b"\xff")
    (corrupt,) = read_file(file).corrupt

    with caplog.at_level(logging.ERROR):
        path = move_aside(file.path.parent, corrupt)
        again = move_aside(file.path.parent, corrupt)  # a reader that was killed after it

    assert path == again
    assert path.read_bytes() == corrupt.data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(path) in caplog.text
    assert "\\xff" not in repr(corrupt)
    assert files(file.path.parent) == [file]


# -- versions ---------------------------------------------------------------------------------


def test_a_file_of_version_1_is_read_for_good(tmp_path: Path) -> None:
    """Written once by the first release, and never made anew."""
    shutil.copytree(GOLDEN, tmp_path / "journal")

    batch = read_file(only_file(tmp_path / "journal"))

    assert batch.records == [b"", b"first", b"second " + bytes(range(256))]
    assert batch.corrupt == []
    assert batch.newer_version is None
    long_quiet(only_file(tmp_path / "journal"))
    assert remove(only_file(tmp_path / "journal"), batch.end_offset)


def with_header(file: JournalFile, version: int, values: dict[str, object]) -> None:
    line = f"adroll-journal {version} {json.dumps(values)}".encode()
    header = line + b" %08x\n" % zlib.crc32(line)
    whole = file.path.read_bytes()
    file.path.write_bytes(header + whole[starts(file)[0] :])


def header_values(file: JournalFile) -> dict[str, object]:
    line = file.path.read_bytes().split(b"\n")[0]
    values: dict[str, object] = json.loads(line.split(b" ", 2)[2].rpartition(b" ")[0])
    return values


def test_a_newer_header_of_the_same_version_is_read(file: JournalFile) -> None:
    with_header(file, 1, {**header_values(file), "compression": "none"})

    batch = read_file(file)

    assert batch.records == RECORDS
    assert batch.corrupt == []


@pytest.mark.parametrize("values", [None, {}, {"anything": "else"}])
def test_a_newer_version_is_left_alone_and_said_so(
    file: JournalFile, values: dict[str, object] | None
) -> None:
    with_header(file, 2, header_values(file) if values is None else values)

    batch = read(file, 0, max_records=9, max_bytes=1 << 20)

    assert batch.newer_version == 2
    assert batch.records == []
    assert batch.corrupt == []
    assert batch.end_offset == 0
    assert batch.ended
    assert not remove(file, file.path.stat().st_size)
    assert file.path.exists()


def test_files_of_others_in_the_folder_are_left_alone(file: JournalFile) -> None:
    folder = file.path.parent
    for name in ("notes.txt", "x.journal", f"{file.name}.journal~", "1-2-3.journal"):
        (folder / name).write_bytes(b"not ours")

    assert files(folder) == [file]


# -- any damage -------------------------------------------------------------------------------

HEADER = Header(1, 2, "a1b2c3d4e5f60718")


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 400))
def test_any_records_come_back_in_any_pieces(records: list[bytes], piece: int) -> None:
    data = b"".join(framed(HEADER, record) for record in records)
    found: list[bytes] = []
    at = 0
    while at < len(data):
        size = piece
        while not (part := split(data[at : at + size], 0, HEADER, max_records=3, last=False)).end:
            size *= 2
        assert part.damaged == []
        found += part.records
        at += part.end

    assert found == records


@given(st.binary(max_size=2000), st.integers(0, 2000))
def test_nothing_is_found_in_anything_else(data: bytes, at: int) -> None:
    assume(HEADER.marker not in data)

    found = split(data, min(at, len(data)), HEADER, max_records=99, last=True)

    assert found.records == []


@given(st.binary(max_size=MAX_RECORD >> 13))
def test_anything_is_a_header_or_none(data: bytes) -> None:
    assert decode_header(data) is None
    assert decode_header(b"adroll-journal 1 " + data + b"\n") is None


@settings(max_examples=300)
@given(
    records=st.lists(st.binary(max_size=60), min_size=1, max_size=12),
    damage=st.lists(
        st.tuples(
            st.sampled_from(["overwrite", "insert", "delete"]),
            st.integers(0, 1500),
            st.binary(min_size=1, max_size=40),
        ),
        max_size=4,
    ),
)
def test_whatever_is_damaged_every_other_record_is_found_and_none_invented(
    records: list[bytes], damage: list[tuple[str, int, bytes]]
) -> None:
    frames = [framed(HEADER, record + b"#%d" % n) for n, record in enumerate(records)]
    data = b"".join(frames)
    for kind, at, what in damage:
        at %= len(data) + 1
        end = at if kind == "insert" else at + len(what)
        data = data[:at] + (b"" if kind == "delete" else what) + data[end:]
    assume(data.count(HEADER.marker) <= len(records))
    undamaged = [record for record, frame in zip(records, frames, strict=True) if frame in data]
    known = [record + b"#%d" % n for n, record in enumerate(records)]

    found = split(data, 0, HEADER, max_records=99, last=True)

    names = [one.rpartition(b"#")[0] for one in found.records]
    assert names == undamaged
    assert all(one in known for one in found.records)
    # Each byte is in a record, told of as damaged, or in the torn end.
    assert sum(end - begin for begin, end in found.damaged) == found.end - sum(
        FRAME.size + len(one) for one in found.records
    )
