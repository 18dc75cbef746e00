"""From the journal into the outbox: each record once, whatever happens in between."""

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from adroll_flask.outbox import journal, local_files, model
from adroll_flask.outbox.journal import Journal, files_of
from adroll_flask.outbox.model import OrderKey, Verdict
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.outbox.rows import Written
from adroll_flask.outbox.schema import Tx
from tests.conftest import Caplog, Patch
from tests.support import PATIENCE, forked, in_a_child, peak_memory
from tests.support.forking import forks_amid_threads
from tests.support.outbox_engines import EID, Bench, claimed, settle, shown
from tests.support.patching import replace_method


class Killed(BaseException):
    """As far as a transaction can tell, the end of its process."""


class CutTx:
    """A transaction in which the process is killed before the statement number *limit*."""

    def __init__(self, tx: Tx, limit: int) -> None:
        self._tx = tx
        self._left = limit

    def __getattr__(self, name: str) -> Any:
        if name in ("execute", "many", "rows"):
            if not self._left:
                raise Killed
            self._left -= 1
        return getattr(self._tx, name)


Work = Callable[[Any], Any]


@contextmanager
def writing(outbox: Outbox, how: Callable[[Callable[[Work], Any], Work], Any]) -> Iterator[None]:
    """Meanwhile a transaction runs as *how* says, which takes the real way and the work."""
    with pytest.MonkeyPatch.context() as patch:
        really = outbox.database.write
        replace_method(patch, outbox.database, "write", lambda work: how(really, work))
        yield


def keys(outbox: Outbox) -> list[str]:
    return sorted(row.key or "" for row in outbox.lookups.list(limit=10_000))


def journals(bench: Bench) -> list[str]:
    return [file.name for file in files_of(bench.journal)]


# -- once ----------------------------------------------------------------------------------------


def test_a_kill_at_any_statement_leaves_rows_and_position_or_neither(bench: Bench) -> None:
    bench.open().database.create_tables()
    for limit in range(100):
        shop = bench.open()
        bench.report(shop, f"{limit}a", f"{limit}b", f"{limit}a")
        bench.open().put(bench.event(f"{limit}a"))
        shop.put(bench.event(f"{limit}held", held_for=60.0))
        of = partial(model.OrderKey, EID, False, "purchase")
        shop.decide(model.Verdict(bench.now(), "release", of(f"{limit}held")))
        shop.decide(model.Verdict(bench.now(), "cancel", of(f"{limit}b")))
        outbox = bench.open()

        def cut(really: Callable[[Work], Any], work: Work, limit: int = limit) -> Any:
            return really(lambda tx: work(CutTx(tx, limit)))

        with writing(outbox, cut), suppress(Killed):
            outbox.queue.claim(EID, begin=True)
            break
        outbox.close()
        for table in ("event", "journal", "history"):
            assert bench.execute(f"SELECT count(*) FROM adroll_{table}") == [(0,)], (table, limit)
        assert bench.open().queue.waiting() == 2
        bench.execute("DELETE FROM adroll_event")
        assert bench.open().queue.waiting() == 0, "what was taken in does not come again"
        for outbox in bench.opened:
            outbox.close()
        bench.empty()
        shutil.rmtree(bench.journal)

    assert limit > 3, "there was nothing to kill"
    assert bench.execute("SELECT count(*) FROM adroll_event") == [(3,)]


@pytest.mark.parametrize("is_committed", [True, False], ids=["its answer is lost", "it fails"])
def test_after_a_commit_that_failed_each_entry_is_there_once(
    bench: Bench, outbox: Outbox, is_committed: bool
) -> None:
    outbox.database.create_tables()
    bench.report(outbox, "1", "2", None)
    (file,) = files_of(bench.journal)
    with file.path.open("ab") as end:
        end.write(b"its writer lives")

    def fail(really: Callable[[Work], Any], work: Work) -> None:
        def failing(tx: Tx) -> None:
            work(tx)
            raise model.OutboxFailed("unavailable")

        really(work if is_committed else failing)
        raise model.OutboxFailed("unavailable")

    with writing(outbox, fail), pytest.raises(model.OutboxFailed):
        outbox.ingest.take_in()

    assert outbox.queue.waiting() == 3
    assert bench.counters.get("event_duplicate") == 0


@pytest.mark.parametrize("begin", [False, True], ids=["claimed", "begun"])
def test_a_claim_without_its_answer_lapses(bench: Bench, outbox: Outbox, begin: bool) -> None:
    """Nothing of it is lost. What was begun with it counts as perhaps sent."""
    bench.insert(outbox, "a row")
    outbox.put(bench.event("a record"))

    with writing(outbox, lambda really, work: [really(work), really(work)][1]):
        assert not outbox.queue.claim(EID, begin=begin)

    bench.pass_time(61)
    claim = claimed(outbox)
    assert {(event.key, event.unsure) for event in claim.events} == {
        ("a row", begin),
        ("a record", begin),
    }
    assert settle(outbox, claim) == 2
    assert outbox.ingest.take_in() == 0


def test_what_is_due_does_not_wait_for_locked_positions(bench: Bench, outbox: Outbox) -> None:
    bench.insert(outbox, "due")
    outbox.put(bench.event("in the journal"))
    locked = [model.OutboxFailed("locked")]

    def write(really: Callable[[Work], Any], work: Work) -> Any:
        if locked:
            raise locked.pop()
        return really(work)

    with writing(outbox, write):
        claim = outbox.queue.claim(EID)

    assert [event.key for event in claim.events] == ["due"]


def test_an_open_transaction_with_the_same_order_keeps_nothing_from_delivery(server: Bench) -> None:
    bench, outbox, other = server, server.open(), server.open()
    outbox.database.create_tables()
    with Session(bench.sql()) as session:
        other.put(bench.event("in dispute"), session=session)
        bench.report(outbox, "in dispute", "due")
        claim = outbox.queue.claim(EID)
        session.commit()

    assert sorted(event.key or "" for event in claim.events) == ["due", "in dispute"]
    assert outbox.queue.waiting() == 2
    assert bench.counters.get("event_duplicate") == 1


def test_of_one_key_in_many_files_the_earliest_report_is_kept(bench: Bench) -> None:
    late, early = bench.open(), bench.open()
    late.put(bench.event("warm"))  # its file is the older one
    early.put(bench.event("first", digest="1 EUR"))
    now = bench.now()
    bench.clock.now = now
    reports = [(late, now - 10, "2 EUR"), (early, now - 20, "1 EUR"), (late, now - 5, "1 EUR")]
    for shop, at, digest in reports:
        shop._append(model.encode(bench.event("1001", at=at, digest=digest)))
    outbox = bench.open()

    assert outbox.queue.waiting() == 3

    assert bench.execute("SELECT digest FROM adroll_event WHERE occurred_at = :at", at=now - 20)
    assert bench.counters.get("event_duplicate") == 2
    assert bench.counters.get("event_duplicate", "another_value") == 1
    happened = outbox.lookups.history(0, ("outcome", "reason"))
    told = {row.reason: row.events for row in happened if row.outcome == "duplicate"}
    assert told == {"": 1, "another_value": 1}


def test_a_file_that_is_known_takes_no_statement_of_its_own(bench: Bench) -> None:
    """After an outage there are thousands, all of which each batch looks at."""
    for number in range(40):
        bench.open().put(bench.event(str(number)))
    outbox = bench.open()

    def cut(really: Callable[[Work], Any], work: Work) -> Any:
        return really(lambda tx: work(CutTx(tx, 30)))

    assert outbox.ingest.take_in(1)
    with writing(outbox, cut):
        assert outbox.ingest.take_in(1)


@forks_amid_threads
def test_only_a_look_waits_for_its_turn(bench: Bench, outbox: Outbox, monkeypatch: Patch) -> None:
    outbox.put(bench.event("1"))
    ready, told = os.pipe()

    def read() -> None:
        with journal.turn(bench.journal) as alone:
            os.write(told, b"!" if alone else b"?")
            signal.pause()

    other = forked(read)
    os.close(told)
    assert os.read(ready, 1) == b"!"

    # Far apart, so that a busy machine takes the one for the other at no load.
    monkeypatch.setattr("adroll_flask.outbox.ingest.PATIENCE", 120.0)
    began = time.monotonic()
    assert not outbox.queue.claim(EID)
    assert time.monotonic() - began < 60
    release = threading.Timer(0.1, os.kill, (other, signal.SIGKILL))
    release.start()
    assert outbox.queue.waiting() == 1
    release.join()
    os.waitpid(other, 0)
    os.close(ready)


def test_a_reader_waits_for_another_s_positions(server: Bench) -> None:
    """One that was passed over, and goes on."""
    outbox = server.open()
    server.insert(outbox, "1")
    server.report(outbox, "2")
    reader = threading.Thread(target=outbox.ingest.take_in)
    with server.sql().begin() as other:
        other.execute(sa.text("SELECT position FROM adroll_journal FOR UPDATE"))
        reader.start()
        reader.join(0.3)
        other.execute(sa.text("UPDATE adroll_journal SET position = 1000000"))
    reader.join(PATIENCE)
    assert server.execute("SELECT dedupe_key FROM adroll_event") == [("1",)]


# -- files ---------------------------------------------------------------------------------------


def dead_file(bench: Bench, *events: model.NewEvent, torn: bytes = b"") -> Path:
    """A file that a process left behind which was killed."""
    before, writer = journals(bench), Journal(bench.journal)

    def write() -> None:
        for event in events:
            writer.append(model.encode(event))

    assert in_a_child(write)
    (file,) = [file for file in files_of(bench.journal) if file.name not in before]
    if torn:
        with file.path.open("ab") as end:
            end.write(torn)
    return file.path


def at_once(outbox: Outbox) -> Outbox:
    """Let *outbox* look for files that may go with each of its looks."""
    outbox.ingest._clean_at = float("-inf")
    return outbox


def put_back(bench: Bench) -> None:
    """An older copy takes the database's place, which knows nothing of the last events."""
    bench.execute("DELETE FROM adroll_event")
    bench.execute("DELETE FROM adroll_journal")


def test_a_file_is_not_removed_where_an_older_database_has_not_read_it(bench: Bench) -> None:
    """The database was put back while this process, which had read the file, went on."""
    outbox, writer = bench.open(), Journal(bench.journal)
    writer.append(model.encode(bench.event("1")))
    assert outbox.queue.waiting() == 1
    put_back(bench)
    writer.close()

    for _ in range(3):
        at_once(outbox).ingest.take_in()

    assert [(row.key, row.reason) for row in outbox.lookups.list("dead")] == [("1", "restored")]
    for _ in range(2):
        at_once(outbox).ingest.take_in()
    assert journals(bench) == []


def test_in_an_older_database_what_was_read_is_in_doubt_and_the_held_is_held(bench: Bench) -> None:
    """Of what is held nobody has said that it is paid; a retry of what rests would send it."""
    # They live: else a slow reader removes what it has read.
    writers = [Journal(bench.journal) for _ in range(2)]
    for order in range(6):
        event = bench.event(str(order), held_for=60.0 if order > 3 else None)
        writers[order % 2].append(model.encode(event))
    paid = model.OrderKey(EID, False, "purchase", "5")
    writers[1].append(model.encode(model.Verdict(1.8e9, "release", paid)))
    writers[0].append(model.encode(model.Withdrawal(1.8e9, "somebody-else")))
    writers[0].append(model.encode(bench.event("6", dead=("invalid", "no amount"))))
    assert bench.open().queue.waiting() == 5
    put_back(bench)

    claims = [bench.open().queue.claim(EID, limit=2) for _ in range(5)]

    assert not any(claims)
    rows = {row.key: (row.state, row.reason) for row in bench.open().lookups.list()}
    others = {"4": ("held", ""), "6": ("dead", "invalid")}
    assert rows == others | dict.fromkeys("01235", ("dead", "restored"))
    for writer in writers:
        writer.close()


def test_after_a_power_cut_what_the_database_lost_is_sent_with_its_mark(
    bench: Bench, monkeypatch: Patch
) -> None:
    writer = Journal(bench.journal)  # which lives: else a slow reader removes what it has read
    writer.append(model.encode(bench.event("1")))
    assert bench.open().queue.waiting() == 1
    put_back(bench)
    monkeypatch.setattr(local_files, "boot", lambda: "after the cut")

    (event,) = bench.open().queue.claim(EID).events

    assert (event.key, event.unsure) == ("1", True)


@forks_amid_threads
def test_a_file_that_lost_its_end_in_a_power_cut_is_put_aside_and_removed(bench: Bench) -> None:
    """What was read of it stands in the note beside it, and the database knows nothing of it."""
    for key in ("1", "2"):
        dead_file(bench, bench.event(key))
    assert bench.open().queue.waiting() == 2
    put_back(bench)
    for file in files_of(bench.journal):
        file.path.write_bytes(file.path.read_bytes()[:-9])

    for _ in range(3):
        at_once(bench.open()).ingest.take_in()

    assert journals(bench) == []
    assert len([*bench.journal.glob("*.corrupt")]) == 2


@forks_amid_threads
@pytest.mark.parametrize("torn", [b"", b"\x00" * 3, b"half a line"], ids=["whole", "nul", "torn"])
def test_files_of_dead_processes_are_taken_over_and_removed(bench: Bench, torn: bytes) -> None:
    alive = bench.open()
    alive.put(bench.event("alive"))
    for order in range(3):
        dead_file(bench, bench.event(str(order)), torn=torn)
    outbox = bench.open()

    assert keys(outbox) == ["0", "1", "2", "alive"]

    assert outbox.ingest.take_in() == 0
    for _ in range(2):
        at_once(outbox).ingest.take_in()
    (left,) = journals(bench)
    assert f"-{os.getpid()}-" in left, "its writer lives"
    positions = bench.execute("SELECT file FROM adroll_journal")
    assert [name for (name,) in positions] == [left]
    # What a kill cut in two was never acknowledged; it is kept aside all the same.
    assert bench.counters.get("journal_corrupt") == (3 if torn else 0)


@forks_amid_threads
def test_where_nothing_is_new_a_look_writes_nothing(bench: Bench) -> None:
    dead_file(bench, bench.event("1"))
    outbox = bench.open()
    assert settle(outbox, claimed(outbox)) == 1
    outbox.put(bench.event("2"))
    assert at_once(outbox).queue.claim(EID)
    assert len(journals(bench)) == 1, "what is read to its end is removed"

    def write(*_: object) -> None:
        raise AssertionError("a lock for nothing")

    with writing(outbox, write):
        assert not outbox.queue.claim(EID)
        assert not at_once(outbox).queue.claim(EID)


def test_many_files_that_are_read_already_hide_none_that_is_not(bench: Bench) -> None:
    """250 processes of one host live, and the newest of them has reported."""
    writers = [Journal(bench.journal) for _ in range(250)]
    for order, writer in enumerate(writers):
        writer.append(model.encode(bench.event(str(order))))
    outbox = bench.open()
    assert outbox.queue.waiting() == 250

    writers[-1].append(model.encode(bench.event("newest")))

    assert bench.open().queue.waiting() == 251, "one who knows nothing yet"
    writers[-2].append(model.encode(bench.event("newer")))
    assert len(claimed(outbox, limit=300).events) == 252
    for writer in writers:
        writer.close()


def fail_to_open(patch: Patch, name: str, number: int) -> None:
    really = os.open

    def fail(path: Any, *arguments: Any, **more: Any) -> int:
        if name in str(path):
            raise OSError(number, os.strerror(number))
        return really(path, *arguments, **more)

    patch.setattr(os, "open", fail)


@forks_amid_threads
def test_an_unreadable_file_hinders_none(bench: Bench, caplog: Caplog, monkeypatch: Patch) -> None:
    path = dead_file(bench, bench.event("bad disk"))
    outbox = bench.open()
    outbox.put(bench.event("good disk"))
    with monkeypatch.context() as patch:
        fail_to_open(patch, path.name, 5)
        assert keys(outbox) == ["good disk"]
        assert outbox.queue.claim(EID)

    assert bench.counters.get("journal_unreadable") >= 2
    assert caplog.text.count("cannot be read") == 1
    assert keys(outbox) == ["bad disk", "good disk"]


def test_an_unreadable_folder_hinders_nothing(bench: Bench, outbox: Outbox, caplog: Caplog) -> None:
    """Not by root either: a folder lies where the readers' lock is to be."""
    outbox.put(bench.event("before"))
    assert keys(outbox) == ["before"]
    lock = bench.journal / "adroll-reader.lock"
    lock.unlink()
    lock.mkdir()
    outbox.put(bench.event("waits"))

    assert [event.key for event in claimed(outbox).events] == ["before"]
    assert bench.counters.get("journal_unreadable") >= 1
    assert f"cannot be read, what is in it waits: {bench.journal}: Is a directory" in caplog.text
    lock.rmdir()
    assert keys(outbox) == ["before", "waits"]


def test_a_full_disk_stops_no_delivery(bench: Bench, outbox: Outbox, monkeypatch: Patch) -> None:
    outbox.put(bench.event("1"))
    fail_to_open(monkeypatch, "adroll-reader.note", 28)

    assert outbox.queue.claim(EID)
    outbox.admin.keep_house()


# -- records -------------------------------------------------------------------------------------


UNKNOWN = (b"", b"x", b'[["z",1.0]]', b'[["e",1.0,"id"],{}]', b"[1]")


@pytest.mark.parametrize(
    ("entry", "kept"),
    [*((model.line_of(body), body) for body in UNKNOWN), (b"damaged\n", b"damaged\n")],
)
def test_what_is_no_entry_is_put_aside(
    sqlite: Bench, caplog: Caplog, entry: bytes, kept: bytes
) -> None:
    outbox = sqlite.open()
    outbox.put(sqlite.event("1"))
    outbox._append(entry)
    outbox.put(sqlite.event("2"))

    assert keys(outbox) == ["1", "2"]

    (aside,) = sqlite.journal.glob("*.corrupt")
    assert aside.read_bytes() == kept
    counts = sqlite.counters.get("journal_refused"), sqlite.counters.get("journal_corrupt")
    assert sorted(counts) == [0, 1]
    said = [line for line in caplog.records if str(aside) in line.message]
    assert [line.levelno for line in said] == [logging.CRITICAL]
    what = "is damaged" if entry == kept else "an entry is not one that this version knows"
    assert what in said[0].message


def test_damage_that_fills_a_batch_is_not_the_end(sqlite: Bench, outbox: Outbox) -> None:
    for megabytes in (5, 1):
        outbox._append(b"x" * (megabytes << 20) + b"\n")
    outbox.put(sqlite.event("1"))

    assert outbox.queue.waiting() == 1


@pytest.fixture
def unpicky(bench: Bench) -> Iterator[Bench]:
    """A database that refuses events named ``refused``."""
    bench.open().database.create_tables()
    if bench.engine == "sqlite":
        bench.execute(
            "CREATE TRIGGER picky BEFORE INSERT ON adroll_event WHEN NEW.event_name = 'refused'"
            " BEGIN SELECT RAISE(ABORT, 'no such event'); END"
        )
    else:
        bench.execute(
            "ALTER TABLE adroll_event ADD CONSTRAINT picky CHECK (event_name <> 'refused')"
        )
    yield bench
    if bench.engine != "sqlite":
        bench.execute("ALTER TABLE adroll_event DROP CONSTRAINT picky")


@pytest.mark.parametrize("how", ["claim", "take in", "transaction"])
def test_a_refused_row_is_put_aside_alone(unpicky: Bench, caplog: Caplog, how: str) -> None:
    bench, outbox = unpicky, unpicky.open()
    with Session(bench.sql()) as session:
        of = session if how == "transaction" else None
        for order in range(5):
            name = "refused" if order == 2 else "purchase"
            event = bench.event(str(order), name=name, payload=b'{"n":%d}' % order)
            outbox.put(event, session=of)
        session.commit()
    outbox.put(bench.event("1"))

    took = len(outbox.queue.claim(EID).events) if how == "claim" else 0
    if how != "claim":
        outbox.ingest.take_in()
    outbox.put(bench.event("5"))

    assert keys(outbox) == ["0", "1", "3", "4", "5"]
    (aside,) = bench.journal.glob("refused-*.corrupt")
    assert b'{"n":2}' in aside.read_bytes()
    assert bench.execute("SELECT count(*) FROM adroll_inbox") == [(0,)]
    assert bench.counters.get("journal_refused") == 1
    assert bench.counters.get("event_duplicate") == 1
    assert "refused by the outbox's database" in caplog.text
    assert took + sum(len(outbox.queue.claim(EID, limit=2).events) for _ in range(4)) == 5


def test_a_value_that_no_database_keeps_is_put_aside(bench: Bench, outbox: Outbox) -> None:
    """NUL in a text on PostgreSQL, a name that is too long on both servers."""
    outbox.put(bench.event("1"))
    outbox._append(model.encode(bench.event("2", name="n" * 60)))
    outbox._append(model.encode(bench.event("a\x00b")))
    outbox.put(bench.event("3"))

    found = keys(outbox)

    kept = bench.counters.get("journal_refused")
    assert len(found) + kept == 4, "each is in the outbox or put aside"
    assert {"1", "3"} <= set(found)
    assert len(list(bench.journal.glob("refused-*.corrupt"))) == kept
    assert outbox.queue.claim(EID)


def test_a_database_that_is_away_meanwhile_gets_each_record_once(sqlite: Bench) -> None:
    """While rows are written one by one, the database fails between two of them."""
    outbox = sqlite.open()
    outbox.database.create_tables()
    sqlite.report(outbox, *map(str, range(6)))
    calls = count(1)

    def refused(_: object) -> None:
        raise model.OutboxFailed("data")

    def write(really: Callable[[Work], Any], work: Work) -> Any:
        call = next(calls)
        if call == 4:
            raise model.OutboxFailed("locked")
        return really((lambda tx: refused(work(tx))) if call == 1 else work)

    with writing(outbox, write), pytest.raises(model.OutboxFailed, match="locked"):
        outbox.ingest.take_in()

    assert outbox.queue.waiting() == 6
    assert sqlite.counters.get("event_duplicate") == 0
    assert sqlite.counters.get("journal_refused") == 0


def test_the_memory_of_a_long_journal_is_bounded(sqlite: Bench) -> None:
    sqlite.report(sqlite.open(), *[None] * 300, payload=b"x" * 100_000)
    outbox = sqlite.open()
    assert peak_memory(outbox.queue.waiting) < 20 << 20, "30 MB were read"
    assert outbox.queue.waiting() == 300


@pytest.mark.parametrize("size", [3000, 30_000])
def test_no_more_is_read_than_is_taken(sqlite: Bench, monkeypatch: Patch, size: int) -> None:
    """Each claim read on to the bound of 4 MiB, for a hundred events of some kilobytes."""
    shop = sqlite.open()
    sqlite.report(shop, *[None] * (max(700, (6 << 20) // size)), payload=b"x" * size)
    read: list[int] = []
    really = journal.read_part

    def noted(*arguments: Any, **limits: Any) -> journal.Part:
        read.append(limits["most_bytes"])
        return really(*arguments, **limits)

    outbox = sqlite.open()
    assert len(claimed(outbox, 10).events) == 10
    monkeypatch.setattr(journal, "read_part", noted)
    [[before]] = sqlite.execute("SELECT count(*) FROM adroll_event")
    for _ in range(5):
        assert len(outbox.queue.claim(EID, 10).events) == 10
    [[after]] = sqlite.execute("SELECT count(*) FROM adroll_event")
    taken = after - before
    assert 50 <= taken <= 500, "on a small disk there is no room for it twice"
    assert sum(read) < 2 * taken * (size + 200) + 10 * (20 << 10)


def test_whether_the_site_itself_reports_is_told_by_what_it_reported(
    bench: Bench, outbox: Outbox
) -> None:
    outbox.database.create_tables()
    outbox.put(bench.event("1001", identifiers=model.IMPORTED | 1))
    outbox.decide(Verdict(bench.now(), "release", OrderKey(EID, False, "purchase", "to come")))
    settle(outbox, claimed(outbox))
    assert not outbox.lookups.has_reports(), "an import alone"
    outbox.put(bench.event(None))
    assert outbox.queue.waiting() == 1
    assert outbox.lookups.has_reports()
    settle(outbox, claimed(outbox))
    bench.pass_time(601)
    outbox.admin.keep_house()
    assert [row.key for row in outbox.lookups.list()] == ["1001"]
    assert outbox.lookups.has_reports(), "its row has gone"


class WaitingEntries(list[Any]):
    """Entries of a transaction that waits for a lock as soon as it has begun to write."""

    def __init__(self, entries: list[Any], meanwhile: Callable[[], object]) -> None:
        super().__init__(entries)
        self._meanwhile: list[Callable[[], object]] = [meanwhile]

    def __iter__(self) -> Iterator[Any]:
        while self._meanwhile:
            self._meanwhile.pop()()
        return super().__iter__()


def test_another_transaction_meanwhile_moves_no_time_of_this_one(sqlite: Bench) -> None:
    """Or a no would reach what was reported after it, or not reach what came before."""
    outbox = sqlite.open()
    rows = outbox.ingest.rows
    event = sqlite.event()
    event.at = sqlite.clock.now

    def write(tx: Tx) -> None:
        def another() -> None:
            sqlite.clock.now += 4
            rows.write(tx, [], Written())
            sqlite.clock.now -= 4

        rows.write(tx, WaitingEntries([event], another), Written())

    outbox.database.write(write)

    assert shown(outbox, event.id).queued_at == sqlite.clock.now
