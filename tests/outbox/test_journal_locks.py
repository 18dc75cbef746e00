"""What two threads at one journal could do to one another: what each of its locks prevents."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor as Pool
from pathlib import Path
from typing import Any

import pytest

from adroll_flask.outbox import files
from adroll_flask.outbox.journal import Journal, files_of
from adroll_flask.outbox.model import OutboxFailed
from tests.conftest import Patch
from tests.support.journal_kit import line, texts_of

#: Seconds that another thread has to do what it must not do now.
A_WHILE = 0.2


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(1) as one:
        yield one


@contextlib.contextmanager
def next_number(path: Path) -> Iterator[None]:
    """Open a file of the site's own: what number was closed just now is this file's."""
    with path.open("w"):
        yield


def let(future: Future[Any]) -> None:
    """Give another thread time for what it is to wait with."""
    with contextlib.suppress(Exception):
        future.exception(timeout=A_WHILE)


def interrupt(
    patch: Patch, name: str, where: Any, meanwhile: Callable[[], Any]
) -> Callable[..., Any]:
    """Let *meanwhile* happen before the next call of a function, by this thread alone."""
    real, thread = getattr(where, name), threading.get_ident()

    def call(*arguments: Any) -> Any:
        if threading.get_ident() == thread:
            patch.setattr(where, name, real)
            meanwhile()
        return real(*arguments)

    patch.setattr(where, name, call)
    return real  # type: ignore[no-any-return]


@pytest.mark.parametrize("end", ["rotate", "close"])
def test_no_append_loses_its_file(folder: Path, monkeypatch: Patch, pool: Pool, end: str) -> None:
    journal = Journal(folder)
    journal.append(line(b"one"))
    journal.mark_stale()
    held = contextlib.ExitStack()

    def meanwhile() -> None:
        let(pool.submit(getattr(journal, end)))
        held.enter_context(next_number(folder.with_name("other")))

    interrupt(monkeypatch, "write", os, meanwhile)
    journal.append(line(b"two"))
    held.close()

    assert (folder.with_name("other")).read_bytes() == b""
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


def test_a_failed_sync_closes_no_other_s_file(folder: Path, monkeypatch: Patch, pool: Pool) -> None:
    journal = Journal(folder, sync=True)
    journal.append(line(b"one"))
    syncing, writing = threading.Event(), threading.Event()
    held = contextlib.ExitStack()
    real = files.sync_data

    def fail(handle: int) -> None:
        monkeypatch.setattr(files, "sync_data", real)
        syncing.set()
        assert writing.wait(10)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "sync_data", fail)
    failing = pool.submit(journal.append, line(b"fails"))
    assert syncing.wait(10)

    def meanwhile() -> None:
        writing.set()
        let(failing)
        held.enter_context(next_number(folder.with_name("other")))

    interrupt(monkeypatch, "write", os, meanwhile)
    with contextlib.suppress(OutboxFailed):  # the disk may have lost this one, too
        journal.append(line(b"two"))
    with pytest.raises(OutboxFailed):
        failing.result(10)
    held.close()

    assert (folder.with_name("other")).read_bytes() == b""
    journal.append(line(b"three"))
    assert len(files_of(folder)) == 2


def test_a_failed_sync_fails_all_who_wait(folder: Path, monkeypatch: Patch, pool: Pool) -> None:
    """The kernel tells of lost data once: whoever asks next hears that nothing is wrong."""
    journal = Journal(folder, sync=True)
    journal.append(line(b"one"))
    real = files.sync_data
    others: list[Future[None]] = []

    def fail(_handle: int) -> None:
        monkeypatch.setattr(files, "sync_data", real)
        others.append(pool.submit(journal.append, line(b"two")))
        let(others[0])
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "sync_data", fail)
    with pytest.raises(OutboxFailed):
        journal.append(line(b"one more"))

    assert isinstance(others[0].exception(10), OutboxFailed)


def test_a_file_is_not_closed_under_a_sync(folder: Path, monkeypatch: Patch, pool: Pool) -> None:
    journal = Journal(folder, sync=True)
    journal.append(line(b"one"))
    journal.mark_stale()
    synced: list[bool] = []
    real = files.sync_data

    def sync(handle: int) -> None:
        monkeypatch.setattr(files, "sync_data", real)
        [file] = files_of(folder)
        let(pool.submit(journal.rotate))
        with next_number(folder.with_name("other")):
            synced.append(os.path.samestat(os.fstat(handle), file.path.stat()))

    monkeypatch.setattr(files, "sync_data", sync)
    journal.append(line(b"two"))

    assert synced == [True]


def test_after_close_other_threads_append_too(folder: Path) -> None:
    journal = Journal(folder)
    journal.append(line(b"one"))
    journal.close()

    other = threading.Thread(target=journal.append, args=[line(b"two")], daemon=True)
    other.start()
    other.join(10)

    assert sorted(texts_of(folder)) == [b"one", b"two"]
