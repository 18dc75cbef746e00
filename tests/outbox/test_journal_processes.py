"""Many processes and one journal: kills, forks, containers, readers beside each other."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from adroll_flask.outbox import journal, local_files
from adroll_flask.outbox.journal import Journal, JournalFile, files_of, is_alive, remove, turn
from tests.conftest import Patch
from tests.support import ROOT, forked, in_a_child
from tests.support.forking import forks_amid_threads
from tests.support.journal_kit import line, long_quiet, only_file, read_file, texts, texts_of
from tests.support.shops import Shop

pytestmark = pytest.mark.patient

PROGRAM = [sys.executable, "-m", "tests.support.journal_program"]


@contextlib.contextmanager
def running(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


#: What programs find that take a folder.
BEGINNING = """
import ctypes, os, sys, threading
from pathlib import Path
from adroll_flask.outbox.journal import Journal, files_of, is_alive, turn
from tests.support.journal_kit import line

folder = Path(sys.argv[1])
"""


def python(program: str, *arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-c", BEGINNING + textwrap.dedent(program), *arguments]


def numbers(folder: Path, torn: bool = False) -> list[str]:
    """What was written; a kill may leave the beginning of a line, which nobody was told of."""
    batches = [read_file(file) for file in files_of(folder)]
    assert all(len(batch.damaged) <= torn for batch in batches)
    return [text.split(b" ")[0].decode() for batch in batches for text in texts(batch.bodies)]


# -- kills ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_no_kill_loses_what_was_acknowledged(folder: Path, kills: int) -> None:
    chance = random.Random(20261125)
    for kill in range(kills):
        with running(*PROGRAM, folder, "--name", f"{kill}-") as writer:
            acknowledged = lines(writer, chance.randrange(1, 400))
            writer.send_signal(signal.SIGKILL)
            assert writer.stdout is not None
            acknowledged += writer.stdout.read().split()
            writer.wait()

        found = [n for n in numbers(folder, torn=True) if n.startswith(f"{kill}-")]

        # At most the record whose acknowledgement was not told any more.
        told = [f"{kill}-{n}" for n in acknowledged]
        assert found[: len(told)] == told
        assert len(found) <= len(told) + 1
    written = [file for file in files_of(folder) if file.size]  # an empty one goes once it is quiet
    assert not any(map(is_alive, written))
    assert all(remove(file, read_file(file).end) for file in written)


# -- forks ------------------------------------------------------------------------------------

FORK = """
    writer = Journal(folder)
    writer.append(line(b"parent, before"))
    # uWSGI forks without Python's hooks.
    child = os.fork() if sys.argv[2] == "os" else ctypes.PyDLL(None).fork()
    if child == 0:
        if sys.argv[3] == "write":
            writer.append(line(b"child"))
            handles = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                       if os.path.islink(f"/proc/self/fd/{n}")]
            assert sum(path.endswith(".journal") for path in handles) == 1, handles
        os.write(1, b"%d\\n" % os.getpid())
        sys.stdin.read()
        os._exit(0)
    writer.append(line(b"parent, after"))
    if sys.argv[3] == "close":
        writer.close()
    os.write(1, b"parent\\n")
    sys.stdin.read()
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("fork", ["os", "raw"])
def test_after_a_fork_parent_and_child_write_to_files_of_their_own(folder: Path, fork: str) -> None:
    with running(*python(FORK, folder, fork, "write")) as parent:
        lines(parent, 2)
        by_file = {tuple(texts(read_file(file).bodies)) for file in files_of(folder)}
        alive = [is_alive(file) for file in files_of(folder)]
        parent.communicate()

    assert by_file == {(b"parent, before", b"parent, after"), (b"child",)}
    assert alive == [True, True]
    assert not any(is_alive(file) for file in files_of(folder))


@pytest.mark.parametrize("fork", ["os", "raw"])
def test_a_finished_file_does_not_live_on_in_an_idle_child(folder: Path, fork: str) -> None:
    with running(*python(FORK, folder, fork, "close")) as parent:
        child = next(int(told) for told in lines(parent, 2) if told != "parent")
        file = only_file(folder)
        try:
            os.kill(child, 0)  # is there, and holds what it inherited
            assert not is_alive(file)
            assert remove(file, read_file(file).end)
        finally:
            os.kill(child, signal.SIGKILL)


@forks_amid_threads
def test_a_fork_amid_appends_of_other_threads_leaves_the_child_no_lock(folder: Path) -> None:
    """The child's copy of a lock that another thread held would never be released."""
    writer, done = Journal(folder), threading.Event()

    def append() -> None:
        while not done.is_set():
            writer.append(line(b"." * 500))

    children = [line(b"child %d" % n) for n in range(20)]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(append)
        ended = [in_a_child(partial(writer.append, child)) for child in children]
        done.set()

    assert all(ended)
    written = [line(record) for record in texts_of(folder)]
    assert sorted(record for record in written if record in children) == sorted(children)


# -- containers -------------------------------------------------------------------------------


def test_two_containers_with_one_pid_never_share_a_file(folder: Path) -> None:
    """Real PID namespaces: both writers are PID 1, and their reader sees neither's PID."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], check=False).returncode
    ):
        pytest.skip("needs root and unshare")
    with (
        running(*unshare, *PROGRAM, folder, "--count", "50", "--name", "a") as one,
        running(*unshare, *PROGRAM, folder, "--count", "50", "--name", "b") as two,
    ):
        lines(one, 50)
        lines(two, 50)
        found = files_of(folder)
        pids = {file.name.split("-")[1] for file in found}
        alive = sorted(is_alive(file) for file in found)
        # A reader in a third container, for which PID 1 is itself.
        program = "print(sorted(is_alive(file) for file in files_of(folder)))"
        command = [*unshare, *python(program, folder)]
        seen = subprocess.check_output(command, text=True, cwd=ROOT)
    while any(is_alive(file) for file in files_of(folder)):  # killed with their unshare
        os.sched_yield()

    assert pids == {"1"}
    assert sum(alive) == 2
    assert seen == f"{alive}\n"
    assert sorted(numbers(folder)) == sorted(f"{name}{n}" for name in "ab" for n in range(50))


# -- who lives --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["of another boot", "without locks", "not yet locked"])
def test_a_file_that_no_lock_tells_of_is_given_up_when_quiet(
    folder: Path, monkeypatch: Patch, case: str
) -> None:
    folder.mkdir()
    name = journal.file_name(1_800_000_000_000, os.getpid())
    if case == "of another boot":
        name = "1800000000000-1-00000000-0123456789abcdef.journal"
    (folder / name).write_bytes(b"" if case == "not yet locked" else line(b"one"))
    if case == "without locks":
        monkeypatch.setattr(local_files, "is_held", lambda _: None)
    file = only_file(folder)
    end = read_file(file).end
    assert end == file.size
    with monkeypatch.context() as patch:
        if case == "not yet locked":
            # To lock it for a look could keep its writer from locking it.
            patch.setattr(local_files, "is_held", Mock(side_effect=AssertionError("a look")))
        assert is_alive(file)
        assert not remove(file, end)
    long_quiet(file)
    with monkeypatch.context() as windows:
        windows.setattr(os, "unlink", Mock(side_effect=PermissionError(13, "in use")))
        assert not remove(file, end)
    for _ in range(2):  # two readers may see the same file
        assert remove(file, end)
        assert not is_alive(file)


# -- readers ----------------------------------------------------------------------------------


def test_a_reader_that_was_killed_is_passed_over_although_its_child_has_its_lock(
    folder: Path, finished: JournalFile
) -> None:
    program = """
        with turn(folder) as found:
            if ctypes.PyDLL(None).fork() == 0:
                os.write(1, b"%d\\n" % os.getpid())
                sys.stdin.read()
                os._exit(0)
            sys.stdin.read()
    """
    with running(*python(program, folder)) as parent:
        (child,) = lines(parent, 1)
        parent.kill()
        parent.wait()
        try:
            os.kill(int(child), 0)
            with turn(folder) as found:
                assert not found
            long_ago = time.time() - journal.TURN_LASTS - 1
            os.utime(folder / "adroll-reader.lock", (long_ago, long_ago))
            with turn(folder) as found:
                assert found == [finished]
        finally:
            os.kill(int(child), signal.SIGKILL)


@forks_amid_threads
def test_a_reader_s_child_keeps_no_reader_away(folder: Path, finished: JournalFile) -> None:
    with turn(folder):
        child = forked(signal.pause)
    try:
        with turn(folder) as found:
            assert found == [finished]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_turn_lasts_from_its_own_beginning(folder: Path, finished: JournalFile) -> None:
    lock, now = folder / "adroll-reader.lock", time.time()
    lock.touch()
    os.utime(lock, (now - 3600, now - 3600))
    with turn(folder):
        with turn(folder) as other:
            assert not other
        os.utime(lock, (now + 3600, now + 3600))  # the clock was ahead, and is right again
        with turn(folder) as other:
            assert other == [finished]


def test_reading_a_folder_that_is_not_there_is_reading_nothing(folder: Path) -> None:
    with turn(folder) as alone:
        assert not alone
    assert not folder.exists()


def test_a_copy_whose_journal_is_read_is_not_said_to_rest(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    shop.report("order:1")
    shop.adroll("outbox")
    shop.report("order:2")

    with turn(shop.folder / "adroll-journal"):  # as a worker that was left running
        said = shop.adroll("outbox", "restored", check=False)

    assert "another process reads the journal; stop it first" in said
    assert shop.adroll("outbox", "restored").startswith("1 event ")


# -- clocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [[5e9, 1.8e9, 1.7e9, 0.0, -5.0, 9e10], [1.8e9] * 6])
def test_files_stay_in_order_whatever_the_clock_does(folder: Path, times: list[float]) -> None:
    now = [0.0]
    writer = Journal(folder, clock=lambda: now[0])
    for n, now[0] in enumerate(times):
        writer.append(line(b"%d" % n))
        writer.close()

    assert len(files_of(folder)) == len(times)
    assert texts_of(folder) == [b"%d" % n for n in range(len(times))]


# -- the end of a process ---------------------------------------------------------------------


def test_an_append_in_a_signals_handler_does_not_wait(folder: Path, monkeypatch: Patch) -> None:
    writer = Journal(folder)
    real = os.write

    def interrupted(file: int, data: bytes) -> int:
        monkeypatch.undo()
        writer.append(line(b"in the handler"))
        return real(file, data)

    writer.append(line(b"one"))
    monkeypatch.setattr(os, "write", interrupted)
    writer.append(line(b"two"))

    assert sorted(texts_of(folder)) == [b"in the handler", b"one", b"two"]
