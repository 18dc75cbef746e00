"""SQLite's own troubles: locked, deleted, corrupt, read-only, full, forked."""

import ctypes
import gc
import logging
import os
import shutil
import sqlite3
import stat
import threading
import time
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from adroll_flask.outbox.journal import LOOK_EVERY
from adroll_flask.outbox.model import Counted, NewEvent, OutboxFailed
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.outbox.schema import Tx
from adroll_flask.settings import Settings
from tests.conftest import Caplog, Patch
from tests.support import PATIENCE, in_a_child, open_files
from tests.support.forking import forks_amid_threads
from tests.support.outbox_engines import EID, Bench, damage, deliver, status


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
def test_only_the_owner_may_read_the_files(sqlite: Bench, scheme: str) -> None:
    instance = sqlite.folder / "srv" / "instance"
    outbox = sqlite.open(outbox_url=f"{scheme}:///{instance}/outbox.sqlite")
    old = os.umask(0)
    try:
        sqlite.insert(outbox, None)
        outbox.put(sqlite.event())
    finally:
        os.umask(old)

    files = [path for path in sqlite.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {
        *(".sqlite", ".sqlite-wal", ".sqlite-shm", ".lock", ".journal", ".note"),
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(sqlite.journal.stat().st_mode) == 0o700
    for folder in (instance, instance.parent):
        assert not stat.S_IMODE(folder.stat().st_mode) & 0o022, "others put no file there"


def test_a_link_where_its_lock_should_be_is_not_followed(sqlite: Bench, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    Path(f"{sqlite.path}-adroll.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutboxFailed, match="unavailable"):
        sqlite.open().database.create_tables()


@pytest.mark.parametrize(("sync", "level"), [("normal", 1), ("full", 2)])
def test_the_sync_setting_reaches_the_file(sqlite: Bench, sync: str, level: int) -> None:
    outbox = sqlite.open(outbox_sync=sync)
    outbox.database.create_tables()

    connection = outbox.database._processes.own().connection  # type: ignore[attr-defined]

    assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_locked_file_costs_a_report_nothing(
    sqlite: Bench, outbox: Outbox, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("adroll_flask.outbox.sqlite.PATIENCE", 0.1)
    outbox.database.create_tables()
    with sqlite.locked():
        with monkeypatch.context() as patch:
            asked = Mock(side_effect=AssertionError("a report asks the file"))
            patch.setattr("adroll_flask.outbox.sqlite.SqliteDatabase._work", asked)
            put = [status(outbox, sqlite.event(str(n))) for n in range(50)]
        with pytest.raises(OutboxFailed, match="locked"):
            outbox.queue.claim(EID)

    assert put == ["queued"] * 50
    assert len(deliver(outbox)) == 50


def test_a_report_opens_no_database(sqlite: Bench, outbox: Outbox) -> None:
    outbox.put(sqlite.event("1"))
    outbox.put(sqlite.event(dead=("invalid:currency", "three letters")))
    outbox.record(Counted(sqlite.clock.now, "purchase", "suppressed", "no_consent"))

    assert not sqlite.path.exists()
    assert "database" not in vars(outbox)
    assert outbox.exists()
    assert outbox.queue.waiting() == 1


@pytest.mark.parametrize(
    "work",
    [
        ["BEGIN IMMEDIATE"],
        # SQLite does not wait by itself where a file is to keep a log from now on.
        ["BEGIN EXCLUSIVE", "CREATE TABLE adroll_other (id INTEGER)"],
    ],
    ids=["locks", "writes a new file"],
)
def test_a_worker_waits_for_the_file_s_user(sqlite: Bench, outbox: Outbox, work: list[str]) -> None:
    outbox.put(sqlite.event("1"))
    other = sqlite3.connect(sqlite.path, check_same_thread=False, isolation_level=None)
    for statement in work:
        other.execute(statement)
    timer = threading.Timer(0.3, other.rollback)
    timer.start()

    assert deliver(outbox) == ["1"]
    timer.join()
    other.close()


@pytest.mark.parametrize("what", ["file alone", "file and log", "folder", "tables"])
def test_a_deleted_database_is_made_anew(sqlite: Bench, what: str) -> None:
    outbox = sqlite.open()
    outbox.put(sqlite.event("1"))
    assert outbox.queue.claim(EID)
    if what == "tables":
        for table in ("event", "journal", "meta"):
            sqlite.execute(f"DROP TABLE adroll_{table}")
    elif what == "folder":
        shutil.rmtree(sqlite.journal)
    if what != "tables":
        for path in sqlite.folder.glob("adroll-outbox.sqlite*"):
            if what != "file alone" or path.suffix == ".sqlite":
                path.unlink()
    time.sleep(LOOK_EVERY)

    for key in ("2", "3"):
        outbox.put(sqlite.event(key))

    assert deliver(sqlite.open()) == ["2", "3"]
    if what != "folder":
        assert [(row.key, row.reason) for row in outbox.lookups.list("dead")] == [("1", "restored")]


@pytest.mark.parametrize("harm", ["a page", "empty"])
def test_a_corrupt_one_goes_aside(sqlite: Bench, outbox: Outbox, caplog: Caplog, harm: str) -> None:
    for n in range(50):
        outbox.put(sqlite.event(f"old{n}"))
    assert outbox.queue.waiting() == 50
    outbox.close()
    shutil.rmtree(sqlite.journal)
    if harm == "empty":
        sqlite.path.write_bytes(b"")
    else:
        damage(sqlite.path, "adroll_event")

    with caplog.at_level(logging.CRITICAL, "adroll_flask"):
        outbox.put(sqlite.event("new"))
        assert deliver(outbox) == ["new"]

    if harm != "empty":
        assert "corrupt" in caplog.text
        assert len(list(sqlite.folder.glob("*.corrupt-*"))) == 1


def test_a_read_only_file_is_written_once_it_may_be(sqlite: Bench, folder_of_nobody: Path) -> None:
    def allow(mode: int) -> None:
        for path in folder_of_nobody.glob("adroll-outbox.sqlite*"):
            path.chmod(mode)

    outbox = Outbox(Settings(), folder=folder_of_nobody)
    outbox.database.create_tables()
    outbox.close()
    allow(0o400)
    assert status(outbox, sqlite.event("1")) == "queued"
    with pytest.raises(OutboxFailed, match="read_only"):
        outbox.queue.claim(EID)

    allow(0o600)

    assert deliver(outbox) == ["1"]
    outbox.close()


def test_in_the_shop_s_own_file_the_journal_mode_is_the_shop_s(sqlite: Bench) -> None:
    sqlite.execute("CREATE TABLE orders (id INTEGER)")
    outbox = sqlite.open()

    outbox.put(sqlite.event("1"))

    assert deliver(outbox) == ["1"]
    assert sqlite.execute("PRAGMA journal_mode")[0][0] == "delete"


def test_the_file_stays_bounded_while_deliveries_keep_up(sqlite: Bench) -> None:
    outbox = sqlite.open(dedupe_days=1)
    sizes = []
    for day in range(6):
        for n in range(800):
            sqlite.clock.now += 0.01
            outbox.put(sqlite.event(f"{day}-{n}", payload=b"x" * 1000))
        deliver(outbox)
        sqlite.pass_time(90_000)
        while outbox.admin.keep_house():
            pass
        sizes.append(sqlite.path.stat().st_size)

    assert max(sizes[2:]) <= 1.3 * sizes[1], sizes


def test_delivered_rows_lie_packed(sqlite: Bench, outbox: Outbox) -> None:
    for n in range(1500):
        sqlite.clock.now += 0.01
        outbox.put(sqlite.event(str(n), payload=b"x" * 2000))
        if not n % 250:
            deliver(outbox)  # with nothing waiting, rows begin anew
    deliver(outbox)
    assert sqlite.execute("SELECT count(*) FROM adroll_event WHERE seq > 0")[0][0] == 0
    pages = sqlite.execute("PRAGMA page_count")[0][0]
    free = sqlite.execute("PRAGMA freelist_count")[0][0]

    assert (pages - free) * 4096 / 1500 < 500, "bytes a key"


def test_what_may_not_be_looked_at_is_not_taken_for_empty(folder_of_nobody: Path) -> None:
    outbox = Outbox(Settings(), folder=folder_of_nobody)
    assert outbox.lookups.dead_letters(5) == ()  # it is not there yet
    assert not outbox.exists()
    folder_of_nobody.chmod(0)
    assert outbox.exists(), "who works with it tells of that"
    for look in (outbox.is_made, lambda: outbox.lookups.dead_letters(5)):
        with pytest.raises(OutboxFailed, match="read_only"):
            look()


@forks_amid_threads
def test_a_fork_waits_for_who_reads_an_outbox_that_is_not_there(sqlite: Bench) -> None:
    outbox = sqlite.open()
    read = threading.Event()
    is_over: list[bool] = []

    def look(tx: Tx) -> None:
        read.set()
        time.sleep(0.3)
        is_over.append(True)

    thread = threading.Thread(target=outbox.database.read, args=(look,))
    thread.start()
    read.wait(PATIENCE)
    assert in_a_child(lambda: bool(is_over)), (
        "a lock of SQLite's may be taken in the child for ever"
    )
    thread.join()


@forks_amid_threads
def test_forks_amid_work_harm_nobody(sqlite: Bench, outbox: Outbox, monkeypatch: Patch) -> None:
    # On a busy machine what is under way takes longer than a fork waits for it.
    monkeypatch.setattr("adroll_flask.outbox.sqlite._FORK_PATIENCE", PATIENCE)
    outbox.put(sqlite.event("parent"))
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            outbox.queue.waiting()
            outbox.admin.keep_house()
            outbox.destination(EID).succeeded()
            outbox.destination(EID).pause(0.0)

    def fares_well(event: NewEvent) -> bool:
        return str(sqlite.path) not in open_files().values() and bool(
            outbox.put(event) and outbox.queue.waiting()
        )

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for n in range(20):
            event = sqlite.event(f"child {n:02}")
            assert in_a_child(partial(fares_well, event))
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert deliver(outbox) == [*(f"child {n:02}" for n in range(20)), "parent"]


@forks_amid_threads
def test_a_child_does_not_close_what_its_parent_had_open(
    sqlite: Bench, outbox: Outbox, monkeypatch: Patch
) -> None:
    """uWSGI forks past Python, so that it is not closed before. SQLite forbids the child to."""

    def has_it() -> bool:
        with pytest.raises(OutboxFailed, match="forked while its database was in use"):
            outbox.queue.claim(EID)
        gc.collect()
        return str(sqlite.path) in open_files().values()

    outbox.put(sqlite.event("1"))
    assert outbox.queue.waiting() == 1
    monkeypatch.setattr(os, "fork", ctypes.PyDLL(None).fork)
    assert in_a_child(has_it)
    assert deliver(outbox) == ["1"]


@forks_amid_threads
def test_else_the_child_only_reports(sqlite: Bench, outbox: Outbox, monkeypatch: Patch) -> None:
    monkeypatch.setattr("adroll_flask.outbox.sqlite._FORK_PATIENCE", 0.05)
    outbox.put(sqlite.event("parent"))
    assert outbox.queue.waiting() == 1
    inside = threading.Event()

    def slowly(_: Tx) -> None:
        inside.set()
        time.sleep(0.3)

    def reports(key: str) -> bool:
        with pytest.raises(OutboxFailed, match="unavailable"):
            outbox.queue.claim(EID)
        return status(outbox, sqlite.event(key)) == "queued"

    reads = threading.Thread(target=outbox.database.read, args=(slowly,))
    reads.start()
    inside.wait()
    # Nor does a grandchild open the file beside what its parent inherited.
    assert in_a_child(lambda: reports("child") and in_a_child(lambda: reports("grandchild")))
    reads.join()
    assert in_a_child(lambda: outbox.queue.waiting() == 3), "a later child is as good as any"

    assert deliver(outbox) == ["child", "grandchild", "parent"]
