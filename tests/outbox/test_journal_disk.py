"""What the journal makes of full, read-only and broken disks, and of folders that go away."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from adroll_flask.outbox import journal, journal_handle
from adroll_flask.outbox.journal import CHECK_EVERY, COUNT_EVERY, JournalFailed, JournalWriter
from adroll_flask.outbox.journal_files import files, note_usage, remove, waiting_bytes
from adroll_flask.outbox.journal_format import frame_all
from tests.support.disks import PowerCut, make_read_only, small_disk
from tests.support.journal_kit import fill, only_file, read_file, records_of

ROOT = Path(__file__).resolve().parents[2]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The monotonic clock of writers; it stands."""
    clock = Clock()
    monkeypatch.setattr(journal, "monotonic", clock)
    monkeypatch.setattr(journal_handle, "monotonic", clock)
    return clock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "instance" / "journal"


# -- full disks -------------------------------------------------------------------------------


def test_a_full_disk_takes_nothing_of_a_file_of_records(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "128k") as disk:
        writer = JournalWriter(disk / "journal")
        token = "0123456789abcdef"
        piece = frame_all([os.urandom(50_000)], token)
        with pytest.raises(JournalFailed) as refused:
            writer.append_file(token, [piece] * 3, 3 * len(piece))

        assert refused.value.reason == "disk_full"
        assert [*writer.folder.iterdir()] == []
        writer.append(b"there is space again")
        writer.close()


def test_a_file_of_records_is_refused_where_the_outbox_is_full(folder: Path) -> None:
    writer = JournalWriter(folder, max_bytes=1000)
    token = "0123456789abcdef"
    piece = frame_all([bytes(600)], token)
    with pytest.raises(JournalFailed) as refused:
        writer.append_file(token, [piece, piece], 2 * len(piece))
    assert refused.value.reason == "full"
    assert files(folder) == []


def test_a_full_disk_takes_nothing_of_a_record_and_all_comes_back_with_space(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", "128k") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(40_000))
        writer = JournalWriter(disk / "journal")
        record = os.urandom(3001)

        count, refused = fill(writer, record)
        again, _ = fill(writer, record)
        file = only_file(writer.folder)

        assert refused.reason == "disk_full"
        assert count > 10
        assert again == 0
        assert read_file(file).end_offset == file.path.stat().st_size
        assert records_of(writer.folder) == [record] * count

        ballast.unlink()
        writer.append(b"there is space again")
        assert records_of(writer.folder) == [*[record] * count, b"there is space again"]
        writer.close()


def test_a_disk_that_is_full_from_the_beginning_is_left_as_it_was(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        writer = JournalWriter(disk / "journal")
        writer.folder.mkdir()
        with (disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError):  # noqa: PT012
            while True:
                file.write(bytes(4096))

        with pytest.raises(JournalFailed) as caught:
            writer.append(b"one")

        assert caught.value.reason == "disk_full"
        assert list(writer.folder.iterdir()) == []


@pytest.fixture
def small_files() -> Iterator[int]:
    """This process may write files of 20,000 bytes at most: a real short write, for any user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield 20_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


def test_a_record_that_did_not_fit_into_a_file_is_taken_back_and_goes_into_the_next(
    folder: Path, small_files: int
) -> None:
    writer = JournalWriter(folder)
    records = [b"%02d" % n + bytes(2999) for n in range(20)]
    for record in records:
        writer.append(record)

    assert len(files(folder)) == 4
    assert records_of(folder) == records
    for file in files(folder):
        assert read_file(file).end_offset == file.path.stat().st_size

    with pytest.raises(JournalFailed) as caught:
        writer.append(bytes(small_files))
    assert caught.value.reason == "too_large"
    writer.append(b"goes on")
    assert records_of(folder) == [*records, b"goes on"]


def test_a_short_write_is_completed_where_the_kernel_takes_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(folder)
    writer.append(b"one")
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:20]))
    writer.append(b"two, a longer one")
    monkeypatch.undo()
    writer.append(b"three")

    assert records_of(folder) == [b"one", b"two, a longer one", b"three"]
    assert writer._process.file is not None
    assert writer._process.file.size == only_file(folder).size


def test_where_a_piece_cannot_be_taken_back_the_file_ends_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(folder)
    writer.append(b"one")
    real = os.write
    left = [10]

    def write(file: int, data: bytes) -> int:
        piece = data[: left[0]]
        if not piece:
            raise OSError(errno.ENOSPC, "full")
        left[0] -= len(piece)
        return real(file, piece)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(JournalFailed) as caught:
        writer.append(b"two")
    monkeypatch.undo()
    writer.append(b"three")

    assert caught.value.reason == "disk_full"
    torn, whole = files(folder)
    assert [torn.is_alive(), whole.is_alive()] == [False, True]
    assert records_of(folder) == [b"one", b"three"]
    assert remove(torn, read_file(torn).end_offset)


# -- read-only and other folders --------------------------------------------------------------


def test_a_read_only_disk_fails_with_that_reason_and_works_again_by_itself(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        writer = JournalWriter(disk / "journal")
        make_read_only(disk)
        with pytest.raises(JournalFailed) as caught:
            writer.append(b"one")
        assert caught.value.reason == "read_only"

        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        writer.append(b"two")
        assert records_of(disk / "journal") == [b"two"]
        writer.close()


def test_a_folder_without_the_right_to_write_fails_with_that_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:

        def deny(*_: object, **__: object) -> int:
            raise PermissionError(errno.EACCES, "denied")

        monkeypatch.setattr(os, "open", deny)
    folder.mkdir(parents=True, mode=0o500)

    with pytest.raises(JournalFailed) as caught:
        JournalWriter(folder).append(b"one")

    assert caught.value.reason == "read_only"


def test_a_folder_that_cannot_be_made_fails_with_that_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    writer = JournalWriter(tmp_path / "file" / "journal")

    with pytest.raises(JournalFailed) as caught:
        writer.append(b"one")
    assert caught.value.reason == "no_folder"

    (tmp_path / "file").unlink()
    writer.append(b"two")
    assert records_of(writer.folder) == [b"two"]


# -- folders that go away ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["removed", "replaced", "file removed", "file replaced"])
def test_what_was_acknowledged_into_a_file_that_went_away_is_written_again(
    folder: Path, clock: Clock, how: str
) -> None:
    writer = JournalWriter(folder)
    writer.append(b"read and done")
    clock.now += CHECK_EVERY
    writer.append(b"seen at its place")
    clock.now += CHECK_EVERY / 2
    path = only_file(folder).path
    if how == "removed":
        shutil.rmtree(folder)
    elif how == "replaced":
        folder.rename(folder.with_name("old"))
        folder.mkdir()
    elif how == "file removed":
        path.unlink()
    else:
        path.unlink()
        path.write_bytes(b"")
    writer.append(b"into nowhere")
    writer.append(b"into nowhere, too")
    clock.now += CHECK_EVERY

    writer.append(b"noticed")

    wanted = [b"seen at its place", b"into nowhere", b"into nowhere, too", b"noticed"]
    assert records_of(folder) == wanted
    assert files(folder)[-1].is_alive()


def test_a_writer_looks_first_when_it_was_idle(folder: Path, clock: Clock) -> None:
    writer = JournalWriter(folder)
    writer.append(b"one")
    clock.now += 3600
    shutil.rmtree(folder)

    writer.append(b"two")

    assert records_of(folder)[-1] == b"two"


def test_close_looks_too(folder: Path, clock: Clock) -> None:
    writer = JournalWriter(folder)
    writer.append(b"one")
    shutil.rmtree(folder)

    writer.close()

    assert records_of(folder) == [b"one"]
    assert not only_file(folder).is_alive()


def test_what_is_to_be_written_again_waits_for_a_folder(folder: Path, clock: Clock) -> None:
    writer = JournalWriter(folder)
    writer.append(b"one")
    shutil.rmtree(folder.parent)
    folder.parent.write_bytes(b"in the way")
    clock.now += CHECK_EVERY
    for _ in range(3):
        with pytest.raises(JournalFailed, match="no_folder"):
            writer.append(b"refused")
    folder.parent.unlink()

    writer.append(b"two")

    assert records_of(folder) == [b"one", b"two"]


def test_what_does_not_fit_when_it_is_written_again_is_kept_for_the_next_try(
    tmp_path: Path, clock: Clock
) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        writer = JournalWriter(disk / "journal")
        records = [os.urandom(4000) for _ in range(20)]
        for record in records:
            writer.append(record)
        shutil.rmtree(writer.folder)  # its pages are free once the handle is closed
        (disk / "ballast").write_bytes(bytes(100_000))
        clock.now += CHECK_EVERY
        with pytest.raises(JournalFailed, match="disk_full"):
            writer.append(b"refused")
        assert files(writer.folder) == []

        (disk / "ballast").unlink()
        writer.append(b"last")

        assert records_of(writer.folder) == [*records, b"last"]
        writer.close()


# -- handles ----------------------------------------------------------------------------------


def test_a_handle_that_others_closed_is_replaced(folder: Path, clock: Clock) -> None:
    writer = JournalWriter(folder)
    writer.append(b"one")
    assert writer._process.file is not None
    os.close(writer._process.file.handle)

    writer.append(b"two")

    assert records_of(folder) == [b"one", b"two"]


def test_a_handle_that_means_another_file_is_neither_written_nor_closed(
    folder: Path, tmp_path: Path, clock: Clock
) -> None:
    writer = JournalWriter(folder)
    writer.append(b"one")
    assert writer._process.file is not None
    handle = writer._process.file.handle
    with (tmp_path / "another").open("wb") as another:
        os.dup2(another.fileno(), handle, inheritable=False)
        clock.now += CHECK_EVERY

        writer.append(b"two")

        assert os.fstat(handle).st_ino == os.fstat(another.fileno()).st_ino
        os.close(handle)
    assert (tmp_path / "another").read_bytes() == b""
    assert records_of(folder) == [b"one", b"two"]


def test_a_write_error_ends_the_file_and_the_next_append_has_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(folder)
    writer.append(b"one")

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(JournalFailed) as caught:
        writer.append(b"two")
    monkeypatch.undo()
    writer.append(b"three")

    assert caught.value.reason == "unavailable"
    assert len(files(folder)) == 2
    assert records_of(folder) == [b"one", b"three"]


# -- the size bound ---------------------------------------------------------------------------


def test_the_bound_counts_what_waits_in_the_outbox(folder: Path, clock: Clock) -> None:
    waiting = [0]
    writer = JournalWriter(folder, max_bytes=1 << 20, used_elsewhere=lambda: waiting[0])
    writer.append(bytes(1000))
    waiting[0] = 1 << 20
    writer.append(bytes(1000))  # counted now and then
    clock.now += COUNT_EVERY
    for _ in range(3):
        with pytest.raises(JournalFailed, match="full"):
            writer.append(bytes(1000))

    waiting[0] = 0
    clock.now += 1

    writer.append(bytes(1000))
    assert len(records_of(folder)) == 3


def test_the_bound_counts_what_other_processes_append(folder: Path, clock: Clock) -> None:
    one = JournalWriter(folder, max_bytes=100_000)
    two = JournalWriter(folder, max_bytes=100_000)
    one.append(bytes(1000))
    fill(two, bytes(1000))
    clock.now += COUNT_EVERY

    with pytest.raises(JournalFailed, match="full"):
        one.append(bytes(1000))

    note_usage(folder, {file.name: file.size for file in files(folder)}, 90_000)
    clock.now += 1
    assert 6 <= fill(one, bytes(1000))[0] <= 9  # beside what waits in the outbox


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A folder for each time that what waits was counted."""
    counted: list[Path] = []

    def count(folder: Path) -> int:
        counted.append(folder)
        return waiting_bytes(folder)

    monkeypatch.setattr(journal, "waiting_bytes", count)
    return counted


def test_while_it_is_full_nothing_is_counted_for_each_call(
    folder: Path, clock: Clock, counts: list[Path]
) -> None:
    writer = JournalWriter(folder, max_bytes=20_000)
    fill(writer, bytes(1000))
    counts.clear()
    for _ in range(100):
        with pytest.raises(JournalFailed, match="full"):
            writer.append(bytes(1000))

    assert counts == []


def test_a_busy_writer_counts_once_in_a_while(
    folder: Path, clock: Clock, counts: list[Path]
) -> None:
    writer = JournalWriter(folder, max_bytes=1 << 30)
    for n in range(2000):
        clock.now += 0.001 * (n % 2)
        writer.append(bytes(1000))

    assert 2 <= len(counts) <= 4


# -- synced -----------------------------------------------------------------------------------


def test_with_sync_a_call_returns_after_a_sync_that_began_after_its_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(folder, sync=True)
    synced: list[int] = []
    monkeypatch.setattr(
        journal_handle, "sync_data", lambda file: synced.append(os.fstat(file).st_size)
    )
    for n in range(3):
        writer.append(b"%d" % n)
        assert synced[-1] == only_file(folder).size
    assert len(synced) == 3


def test_threads_that_wait_for_a_sync_share_the_next_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(folder, sync=True)
    writer.append(b"first")
    syncs: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def sync(file: int) -> None:
        syncs.append(file)
        begun.set()
        assert go_on.wait(30)

    monkeypatch.setattr(journal_handle, "sync_data", sync)
    threads = [threading.Thread(target=writer.append, args=(b"%d" % n,)) for n in range(10)]
    threads[0].start()
    assert begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    while len(records_of(folder)) < 11:
        os.sched_yield()
    go_on.set()
    for thread in threads:
        thread.join()

    assert len(syncs) == 2


def test_a_failed_sync_fails_all_who_waited_for_it_and_ends_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports a lost page once; a second sync of the same file would succeed."""
    writer = JournalWriter(folder, sync=True)
    writer.append(b"first")
    begun, go_on = threading.Event(), threading.Event()
    syncs: list[int] = []
    failed: list[str] = []

    def sync(file: int) -> None:
        syncs.append(file)
        if len(syncs) == 1:
            begun.set()
            assert go_on.wait(30)
            raise OSError(errno.EIO, "lost")

    def append(record: bytes) -> None:
        try:
            writer.append(record)
        except JournalFailed as exc:
            failed.append(exc.reason)

    monkeypatch.setattr(journal_handle, "sync_data", sync)
    threads = [threading.Thread(target=append, args=(b"%d" % n,)) for n in range(3)]
    threads[0].start()
    assert begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    while len(records_of(folder)) < 4:
        os.sched_yield()
    go_on.set()
    for thread in threads:
        thread.join()

    assert failed == ["unavailable"] * 3
    writer.append(b"into another file")
    assert [file.is_alive() for file in files(folder)] == [False, True]


def test_with_sync_the_folders_entry_is_synced_before_the_first_record(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(journal_handle, "_sync_folder", synced.append)

    JournalWriter(folder, sync=True).append(b"one")

    assert synced == [folder.parent, folder]


@pytest.mark.parametrize("sync", ["full", "normal"])
def test_a_power_cut_loses_nothing_that_was_acknowledged_with_sync(
    tmp_path: Path, sync: str
) -> None:
    """A real ext4 whose power is cut; without sync, the same cut takes the last records along."""
    disk = PowerCut(tmp_path)
    options = ["--sync"] if sync == "full" else []
    lost = False
    for _ in range(3):
        with disk.on() as mounted:
            folder = mounted / "journal"
            shutil.rmtree(folder, ignore_errors=True)
            os.sync()
            writer = subprocess.Popen(
                [sys.executable, "-m", "tests.support.journal_program", str(folder), *options],
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
            kept = {
                record.split(b" ")[0]
                for file in files(mounted / "journal")
                for record in read_file(file).records
            }
        missing = [n for n in acknowledged if n.strip().encode() not in kept]
        lost = lost or bool(missing)
        assert sync == "normal" or missing == []
    assert lost == (sync == "normal")
