"""One process and its journal: what is appended is read, whatever the disk does."""

import contextlib
import errno
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor as Pool
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from adroll_flask.outbox import journal as journals
from adroll_flask.outbox import local_files
from adroll_flask.outbox.journal import Journal, JournalFile, files_of, is_alive, read_part, remove
from tests.conftest import Patch
from tests.support import ROOT, open_files
from tests.support.disks import PowerCut, make_read_only, small_disk
from tests.support.interrupted import at_each_moment
from tests.support.journal_kit import fill, line, only_file, read_file, texts, texts_of
from tests.support.outbox_engines import Clock, OutboxFailed


@pytest.fixture
def journal(folder: Path) -> Journal:
    return Journal(folder)


# -- appending ----------------------------------------------------------------------------------


def test_entries_are_read_as_they_were_appended_in_batches(folder: Path, journal: Journal) -> None:
    large = b"x" * (1 << 16)
    journal.append(line(b"one"))
    journal.append(line(large))
    journal.append(line(b"three"))

    first = read_part(only_file(folder), 0, most=1, most_bytes=10)
    assert texts(first.bodies) == [b"one"]
    assert texts(read_part(only_file(folder), first.end, most=9, most_bytes=10).bodies) == [large]
    assert texts_of(folder) == [b"one", large, b"three"]


def test_a_file_is_removed_once_read_and_its_writer_done(folder: Path, journal: Journal) -> None:
    journal.append(line(b"one"))
    file = only_file(folder)
    end = read_file(file).end
    assert is_alive(file)
    assert not remove(file, end)
    journal.close()
    assert not remove(file, end - 1)  # something is left
    assert remove(file, end)
    journal.append(line(b"two"))
    assert texts_of(folder) == [b"two"]


def test_an_old_file_has_its_successor_before_an_entry_needs_it(folder: Path) -> None:
    clock = Clock()
    journal = Journal(folder, clock=clock)
    journal.append(line(b"one"))
    journal.rotate()
    assert len(files_of(folder)) == 1
    clock.now += journals.FILE_LIFE + 1
    journal.rotate()
    old, new = files_of(folder)
    assert (is_alive(old), is_alive(new), new.size) == (False, True, 0)
    clock.now += journals.FILE_LIFE + 1
    journal.rotate()  # an empty one stays, however old
    assert files_of(folder) == [old, new]
    journal.append(line(b"two"))
    journal.rotate()
    assert len(files_of(folder)) == 3
    assert texts_of(folder) == [b"one", b"two"]
    # A process that lives for a month has had forty thousand.
    still_open = [path for path in open_files().values() if path.startswith(str(folder))]
    assert still_open == [str(files_of(folder)[-1].path)]


def test_an_append_may_be_interrupted_at_each_moment(folder: Path, journal: Journal) -> None:
    class Limit(Exception):
        """A time limit that the site set."""

    acknowledged = []
    with Pool(1) as other_thread:
        for moment in at_each_moment(
            lambda moment: journal.append(line(b"interrupted %d" % moment)), Limit
        ):
            text = b"after %d" % moment
            other_thread.submit(journal.append, line(text)).result(timeout=30)
            acknowledged.append(text)
    found = texts_of(folder)
    assert [text for text in found if text.startswith(b"after")] == acknowledged
    assert len(set(found)) == len(found), "an entry was kept twice"
    journal.close()
    lost = [file.name for file in files_of(folder) if file.size and is_alive(file)]
    assert lost == [], "a file that nobody has any more is still open"


def test_a_reader_s_turn_leaves_no_file_open(folder: Path, journal: Journal) -> None:
    journal.append(line(b"one"))
    before = open_files()
    for _ in range(2):
        with journals.turn(folder) as files:
            assert len(files) == 1
    assert open_files() == before


# -- damage -------------------------------------------------------------------------------------


def test_damage_costs_its_own_lines_alone(finished: JournalFile) -> None:
    """The file ends at any byte, or any byte of it is another."""
    whole = finished.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    damaged = [whole[:cut] for cut in range(len(whole) + 1)]
    for at, bit in itertools.product(range(len(whole)), (0, 3, 6)):
        damaged.append(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    for data in damaged:
        finished.path.write_bytes(data)
        found = read_file(finished._replace(size=len(data)))
        pieces = re.findall(rb"[^\n]*\n|[^\n]+", data)
        assert list(map(line, texts(found.bodies))) == [one for one in pieces if one in lines]
        aside = b"".join(data for _at, data in found.damaged)
        assert aside == b"".join(one for one in pieces if one not in lines)
        assert found.end == len(data)


def test_the_beginning_of_a_line_waits_for_its_end(
    folder: Path, journal: Journal, monkeypatch: Patch
) -> None:
    journal.append(line(b"one"))
    whole = line(b"two")
    with only_file(folder).path.open("ab", buffering=0) as file:
        file.write(whole[:9])
        found = read_file(only_file(folder))
        assert (texts(found.bodies), found.damaged) == ([b"one"], [])
        # Its writer may end it, and be gone, while it is read.
        monkeypatch.setattr(journals, "is_alive", lambda _: file.write(whole[9:]) == 0)
        found = read_file(only_file(folder))
    assert (texts(found.bodies), found.damaged) == ([b"one", b"two"], [])
    # On a full disk it takes a part back, maybe while it is read.
    longer = SimpleNamespace(st_size=1000)
    monkeypatch.setattr("adroll_flask.outbox.journal.os.fstat", lambda _: longer)
    assert texts(read_file(only_file(folder)).bodies) == [b"one", b"two"]


def test_files_of_others_in_the_folder_are_left_alone(finished: JournalFile) -> None:
    for name in ("notes.txt", "1.journal", "x.new", "1800000000000-1.journal"):
        (finished.path.parent / name).write_text("mine")
    assert only_file(finished.path.parent) == finished


def test_a_note_that_is_damaged_is_none(tmp_path: Path) -> None:
    journals.leave_note(tmp_path, {"a": 7})
    assert journals.last_note(tmp_path).positions == {"a": 7}
    journals.leave_note(tmp_path, {})
    assert journals.last_note(tmp_path).positions == {}
    assert journals.last_note(tmp_path).boot == local_files.boot()
    path = tmp_path / "adroll-reader.note"
    path.write_bytes(path.read_bytes().replace(b"{}", b"[]"))
    assert journals.last_note(tmp_path) == journals.Note()


# -- the disk -----------------------------------------------------------------------------------


def test_a_full_disk_takes_nothing_of_an_entry_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        journal = Journal(disk / "journal")
        taken, failure = fill(journal, line(b"x" * 3000))
        assert failure.reason == "disk_full"
        assert texts_of(disk / "journal") == [b"x" * 3000] * taken
        for file in files_of(disk / "journal")[:-1]:
            assert remove(file, file.size)
        for _ in range(5):
            with pytest.raises(OutboxFailed):
                journal.append(line(b"y" * 60_000))
        os.truncate(only_file(disk / "journal").path, 0)
        journal.append(line(b"after"))
        assert texts_of(disk / "journal")[-1] == b"after"
        journal.close()


def test_a_read_only_disk_fails_with_that_reason(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        make_read_only(disk)
        with pytest.raises(OutboxFailed, match="read_only"):
            Journal(disk / "journal").append(line(b"one"))


def nearly_full(file: int, data: bytes, write: Callable[[int, bytes], int] = os.write) -> int:
    """Takes all but five bytes, and those not."""
    if len(data) < 10:
        raise OSError(28, "No space left on device")
    return write(file, data[:-5])


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["broken", "full"])
def test_nothing_follows_half_an_entry(
    folder: Path, journal: Journal, monkeypatch: Patch, number: int
) -> None:
    """Else it and the next entry, which is acknowledged, would be one damaged line."""
    journal.append(line(b"one"))

    def fail(file: int, length: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", nearly_full)
        patch.setattr(os, "ftruncate", fail)
        with pytest.raises(OutboxFailed, match=os.strerror(number)):
            journal.append(line(b"two"))
    journal.append(line(b"three"))

    found = [texts(read_file(file).bodies) for file in files_of(folder)]
    assert found == [[b"one"], [b"three"]]


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ((errno.ENOSPC, errno.EDQUOT), "disk_full"),
        ((errno.EROFS, errno.EACCES, errno.EPERM), "read_only"),
        ((errno.EFBIG,), "too_large"),
        ((errno.EIO,), "unavailable"),
    ],
)
def test_what_a_disk_refuses_has_the_name_of_what_to_do(
    journal: Journal, monkeypatch: Patch, numbers: tuple[int, ...], reason: str
) -> None:
    for number in numbers:
        with monkeypatch.context() as patch:
            fault = OSError(number, os.strerror(number))
            patch.setattr(os, "write", Mock(side_effect=fault))
            with pytest.raises(OutboxFailed) as caught:
                journal.append(line(b"x"))
        assert caught.value.reason == reason, os.strerror(number)


@pytest.mark.parametrize("gone", ["file", "folder"])
def test_what_was_removed_is_made_anew(folder: Path, journal: Journal, gone: str) -> None:
    journal.append(line(b"one"))
    if gone == "file":
        only_file(folder).path.unlink()
    else:
        shutil.rmtree(folder)
    time.sleep(journals.LOOK_EVERY)
    journal.append(line(b"two"))
    assert texts_of(folder) == [b"two"]


def handle_of(path: Path) -> int:
    (handle,) = [number for number, one in open_files().items() if one == str(path)]
    return handle


def test_an_entry_whose_file_others_closed_goes_elsewhere(folder: Path, journal: Journal) -> None:
    journal.append(line(b"one"))
    os.close(handle_of(only_file(folder).path))
    journal.append(line(b"two"))
    assert texts_of(folder) == [b"one", b"two"]
    os.close(handle_of(files_of(folder)[-1].path))
    journal.close()
    journal.append(line(b"three"))
    assert texts_of(folder) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("said", [[b"one"], [b"one", b"two"]], ids=["ends", "goes on"])
def test_a_handle_others_took_is_replaced(folder: Path, tmp_path: Path, said: list[bytes]) -> None:
    """A daemon closes all that it inherited, and the number comes to mean another file."""
    journal = Journal(folder)
    journal.append(line(b"one"))
    handle = handle_of(only_file(folder).path)
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    os.dup2(other, handle)
    for text in said[1:]:
        time.sleep(journals.LOOK_EVERY)
        journal.append(line(text))
    journal.close()
    assert (tmp_path / "other").read_bytes() == b""
    os.fstat(handle)  # nor was it closed
    os.close(handle)
    os.close(other)
    assert texts_of(folder) == said


def test_a_large_file_is_followed_by_another(folder: Path, journal: Journal) -> None:
    for _ in range(4):  # of 16 MB at most, which readers remove as they go
        journal.append(line(b"x" * (5 << 20)))

    first, second = files_of(folder)
    assert (is_alive(first), is_alive(second)) == (False, True)


# -- syncing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [True, False])
def test_with_sync_the_disk_has_an_entry_and_its_names_when_a_call_returns(
    folder: Path, monkeypatch: Patch, sync: bool
) -> None:
    synced: list[object] = []
    monkeypatch.setattr(local_files, "sync_folder", synced.append)
    monkeypatch.setattr(local_files, "sync_data", lambda _: synced.extend(texts_of(folder)))
    Journal(folder, sync=sync).append(line(b"x"))

    assert synced == ([folder.parent, folder, b"x"] if sync else [])


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.EIO, "unavailable"), (errno.ENOSPC, "disk_full")]
)
def test_a_failed_sync_fails_and_ends_the_file(
    folder: Path, monkeypatch: Patch, number: int, reason: str
) -> None:
    journal = Journal(folder, sync=True)
    journal.append(line(b"one"))

    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(local_files, "sync_data", fail)
        with pytest.raises(OutboxFailed, match=reason):
            journal.append(line(b"two"))
    journal.append(line(b"three"))
    assert len(files_of(folder)) == 2


@pytest.mark.parametrize("cuts", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_power_cut_loses_nothing_that_was_synced(tmp_path: Path, cuts: int) -> None:
    """A real ext4 whose power is cut."""
    disk = PowerCut(tmp_path)
    for _ in range(cuts):
        with disk.on() as mounted:
            folder = mounted / "journal"
            shutil.rmtree(folder, ignore_errors=True)
            os.sync()
            writer = subprocess.Popen(
                [sys.executable, "-m", "tests.support.journal_program", str(folder), "--sync"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                text=True,
            )
            assert writer.stdout is not None
            acknowledged = [writer.stdout.readline() for _ in range(60)]
            # Stopped first: a sync that is under way while ext4 is shut down may report success.
            writer.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WNOWAIT)
            disk.cut()
            writer.kill()
            acknowledged += writer.stdout.readlines()
            writer.wait()
            writer.stdout.close()
        with disk.on() as mounted:
            found = [read_file(file) for file in files_of(mounted / "journal")]
            kept = {text.split(b" ")[0] for one in found for text in texts(one.bodies)}
        assert [n for n in acknowledged if n.strip().encode() not in kept] == []


# -- two threads: what each of the locks prevents -----------------------------------------------

#: Seconds that another thread has to do what it must not do now.
A_WHILE = 0.2


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(1) as one:
        yield one


def let(future: Future[Any]) -> None:
    """Give another thread time for what it is to wait with."""
    with contextlib.suppress(Exception):
        future.exception(timeout=A_WHILE)


def interrupt(patch: Patch, name: str, where: Any, meanwhile: Callable[..., Any]) -> None:
    """Let *meanwhile* happen before the next call of a function, by this thread alone."""
    real, thread = getattr(where, name), threading.get_ident()

    def call(*arguments: Any) -> Any:
        if threading.get_ident() == thread:
            patch.setattr(where, name, real)
            meanwhile(*arguments)
        return real(*arguments)

    patch.setattr(where, name, call)


@pytest.mark.parametrize("call", ["write", "sync_data"])
@pytest.mark.parametrize("end", ["rotate", "close"])
def test_no_append_loses_its_file(
    folder: Path, monkeypatch: Patch, pool: Pool, call: str, end: str
) -> None:
    clock = Clock()
    journal = Journal(folder, sync=True, clock=clock)
    journal.append(line(b"one"))
    clock.now += journals.FILE_LIFE + 1
    is_its_own: list[bool] = []

    def meanwhile(handle: int, *_: object) -> None:
        file = files_of(folder)[0]
        let(pool.submit(getattr(journal, end)))
        # A file of the site's own gets the number of what was closed just now.
        with folder.with_name("other").open("w"):
            is_its_own.append(os.path.samestat(os.fstat(handle), file.path.stat()))

    interrupt(monkeypatch, call, os if call == "write" else local_files, meanwhile)
    journal.append(line(b"two"))

    assert is_its_own == [True]
    assert texts_of(folder) == [b"one", b"two"]


def test_an_entry_of_two_parts_stays_together(folder: Path, monkeypatch: Patch, pool: Pool) -> None:
    journal = Journal(folder)
    journal.append(line(b"one"))
    real = os.write

    def half(file: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", real)
        written = real(file, data[:9])
        let(pool.submit(journal.append, line(b"three")))
        return written

    monkeypatch.setattr(os, "write", half)
    journal.append(line(b"two"))
    pool.shutdown()

    assert texts_of(folder) == [b"one", b"two", b"three"]
