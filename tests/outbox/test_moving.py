"""An outbox that moves from one database to another takes all along, and nothing is sent twice."""

import contextlib
import itertools
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest
import sqlalchemy as sa

from adroll_flask.cli.commands import commands
from adroll_flask.outbox import admin, schema
from adroll_flask.outbox.admin import NotMoved, move_outbox
from adroll_flask.outbox.location import locate
from adroll_flask.outbox.model import Counted, OrderKey, OutboxFailed, Verdict, Withdrawal
from adroll_flask.outbox.outbox import open_database
from adroll_flask.outbox.schema import Database
from adroll_flask.outbox.server import ServerDatabase
from adroll_flask.outbox.sqlite import _SqliteTx
from adroll_flask.settings import Settings
from tests.conftest import AppMaker, Patch
from tests.support.outbox_engines import EID, Bench, Clock, claimed, database, deliver, settle

#: The way of a shop that grows, and one back.
WAY = ("sqlite", "postgresql", "mariadb", "sqlite")


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[list[Bench]]:
    """An empty database for each step of the way; one host, so one journal."""
    with contextlib.ExitStack() as stack:
        made = []
        for number, engine in enumerate(WAY):
            url = f"sqlite:///{tmp_path}/{number}.sqlite"
            if engine != "sqlite":
                url = stack.enter_context(database(engine))
            bench = Bench(engine, url, tmp_path, Clock(time.time()))
            stack.callback(bench.close)
            made.append(bench)
        yield made


def database_of(bench: Bench) -> Database:
    return open_database(locate(bench.url, bench.folder), Settings(), bench.clock)


def moved(old: Bench, new: Bench) -> dict[str, int]:
    closing = contextlib.closing
    with closing(database_of(old)) as source, closing(database_of(new)) as target:
        return dict(move_outbox(source, target))


def fill(bench: Bench) -> None:
    """One event of each kind, and what else an outbox knows."""
    outbox = bench.open()
    bench.report(outbox, "delivered", "ключ")
    settle(outbox, claimed(outbox, begin=True), "delivered")
    bench.report(outbox, "waiting", None)
    outbox.put(bench.event("held", held_for=86_400.0))
    outbox.put(bench.event("dead", dead=("invalid", "value: takes an amount")))
    outbox.decide(verdict("cancel", "cancelled"))
    outbox.put(bench.event("cancelled", held_for=86_400.0))
    outbox.decide(verdict("release", "to come"))
    outbox.record(Counted(bench.clock.now, "purchase", "suppressed", "no_consent", order="a" * 32))
    outbox.record(Withdrawal(bench.clock.now, "said-no"))
    outbox.ingest.take_in_all()
    outbox.destination(EID).stop("401", "fingerprint")
    outbox.close()


def verdict(kind: Any, key: str) -> Verdict:
    return Verdict(1.0, kind, OrderKey(EID, False, "purchase", key))


KINDS = {"delivered": 2, "waiting": 2, "held": 1, "dead": 1, "cancelled": 1}


def test_all_of_it_arrives_over_every_engine_and_is_sent_once(benches: list[Bench]) -> None:
    fill(benches[0])
    write = ServerDatabase.write
    hours = benches[0].open().lookups.history(0.0, ("outcome", "reason"))
    for old, new in itertools.pairwise(benches):
        with pytest.raises(NotMoved, match="of the same outbox"):
            moved(old, old)  # by whatever address
        with Patch.context() as patch:  # the answers to commits are lost
            patch.setattr(ServerDatabase, "write", lambda *what: [write(*what), write(*what)][1])
            new.open().destination(EID).seen()  # which makes the account's row
            assert moved(old, new) == KINDS
        its_id = "SELECT value FROM adroll_meta WHERE name = 'outbox_id'"
        assert old.execute(its_id) != new.execute(its_id)
        # Whoever was forgotten with the old setting sends nothing.
        assert deliver(old.open()) == []
        assert old.open().lookups.counts()["held"] == 0
    end = benches[-1]
    outbox = end.open()
    assert outbox.lookups.counts().items() >= KINDS.items()
    assert outbox.lookups.history(0.0, ("outcome", "reason")) == hours
    assert outbox.destination(EID).state().stopped == "401"

    for key in ("delivered", "ключ", "waiting", "cancelled", "dead"):
        outbox.put(end.event(key))  # the thank-you page of an old order is opened again
    outbox.put(end.event("to come", held_for=86_400.0))  # its release came before it
    outbox.put(end.event("of a visitor who said no", record_id="said-no", known_since=1.7e9))
    outbox.decide(verdict("release", "held"))
    assert deliver(outbox) == ["", "held", "to come", "waiting"]
    assert [row.key for row in outbox.lookups.list("dead")] == ["dead", "of a visitor who said no"]


def test_every_table_and_column_moves(benches: list[Bench]) -> None:
    """One that is added to the schema has to be added there."""
    benches[0].open().database.create_tables()
    known = sa.inspect(benches[0].sql())
    listed = {*admin._AT_ONCE, *admin._LONG}
    assert {*known.get_table_names()} - listed == {"adroll_meta"}  # each has its own version and id
    for name in listed:
        columns = {column["name"] for column in known.get_columns(name)}
        assert columns - {"seq"} == {*schema.columns_of(name)}  # each numbers its rows itself


def test_the_times_of_which_an_outbox_knows_move_with_it(benches: list[Bench]) -> None:
    """Else all that was paid before the move would be unknown, and what was lost would be known."""
    old, new = benches[:2]
    outbox = old.open()
    outbox.put(old.event("1"))
    assert deliver(outbox) == ["1"]
    old.clock.now += 3600
    outbox.admin.restored()  # it came back from a copy
    known = outbox.lookups.knowledge()
    assert outbox.lookups.has_reports()
    assert len(known.gaps) == 1
    old.clock.now += 3600
    moved(old, new)
    lookups = new.open().lookups
    moved_along = lookups.knowledge()
    assert (moved_along.began, moved_along.gaps) == (known.began, known.gaps)
    assert lookups.has_reports()


def test_what_the_journal_has_handed_over_is_not_taken_in_again(benches: list[Bench]) -> None:
    old, new = benches[:2]
    outbox = old.open()  # stays open, so its journal's file stays
    outbox.put(old.event(None))
    assert deliver(outbox) == [""]
    outbox.put(old.event(None))  # not taken in before the move
    assert moved(old, new) == {"delivered": 1}
    assert deliver(new.open()) == [""]


class Stopped(Exception):
    pass


def test_a_move_that_was_stopped_is_run_again(tmp_path: Path, monkeypatch: Patch) -> None:
    """Before each of its statements in turn: nothing has arrived then, or all."""
    monkeypatch.setattr(admin, "STEP", 3)
    left, arrived, me = [0], set(), get_ident()

    def stopping(work: Callable[..., Any]) -> Callable[..., Any]:
        def stop(*what: Any) -> Any:
            if get_ident() == me:  # another test's app may deliver still
                if not left:
                    raise Stopped
                left.pop()
            return work(*what)

        return stop

    for statements in itertools.count():
        (folder := tmp_path / f"{statements}").mkdir()
        old, new = (Bench("sqlite", f"sqlite:///{folder}/{name}", folder) for name in "01")
        with contextlib.closing(old), contextlib.closing(new):
            fill(old)
            new.open().database.create_tables()
            left[:] = range(statements)
            with monkeypatch.context() as patch, contextlib.suppress(Stopped):
                for name in ("run", "many"):
                    patch.setattr(_SqliteTx, name, stopping(getattr(_SqliteTx, name)))
                moved(old, new)
                break
            arrived |= {*new.execute("SELECT count(*) FROM adroll_event")}
            with contextlib.suppress(NotMoved):  # stopped when all was over
                assert moved(old, new) == KINDS
            assert (deliver(new.open()), deliver(old.open())) == (["", "waiting"], [])
    assert arrived == {(0,), (8,)}


def test_what_cannot_move_leaves_both_as_they_were(benches: list[Bench], tmp_path: Path) -> None:
    old, postgresql, mariadb, backup = benches
    empty = Bench("sqlite", f"sqlite:///{tmp_path}/empty.sqlite", tmp_path, old.clock)
    fill(old)
    shutil.copy(tmp_path / "0.sqlite", tmp_path / "3.sqlite")
    # "held" is there already, says MariaDB, and INSERT IGNORE hides it.
    old.execute("UPDATE adroll_event SET dedupe_key = 'held ' WHERE dedupe_key = 'ключ'")
    for new, why in ((backup, "it has events already"), (mariadb, "outbox data")):
        with pytest.raises((NotMoved, OutboxFailed), match=why):
            moved(old, new)
    assert mariadb.execute("SELECT count(*) FROM adroll_history") == [(0,)]
    assert moved(empty, postgresql) == {}
    with pytest.raises(NotMoved, match="an outbox was moved there"):
        moved(empty, postgresql)
    assert deliver(old.open()) == ["", "waiting"]


def test_an_outbox_in_use_is_refused(benches: list[Bench]) -> None:
    old, new = benches[:2]
    outbox = old.open()
    outbox.put(old.event("1"))
    outbox.queue.claim(EID)
    with pytest.raises(NotMoved, match="a worker delivers from the old outbox"):
        moved(old, new)
    old.clock.now += 61  # its lease is over
    assert moved(old, new) == {"claimed": 1}
    arrived = new.open()
    new.pass_time(61)
    assert deliver(arrived) == ["1"]


def test_the_command_moves_or_says_why_not(
    make_app: AppMaker, benches: list[Bench], tmp_path: Path
) -> None:
    old, _, _, new = benches
    fill(old)
    (tmp_path / "link").symlink_to(tmp_path / "3.sqlite")
    run = make_app(ADROLL_OUTBOX_URL=new.url).test_cli_runner().invoke
    done = run(commands, ["outbox", "move-from", str(old.url)])
    assert done.output.startswith("7 events moved: 2 waiting, 2 delivered, "), done.output
    (text := tmp_path / "notes.txt").write_text("no outbox")
    shops = tmp_path / "shop.sqlite"  # whose own database it is, by a slip
    with contextlib.closing(sqlite3.connect(shops)) as own:
        own.execute("CREATE TABLE orders (id)")
    before = shops.read_bytes()
    for given, status, told in (
        (f"sqlite:///{text}", 1, f"OLD names a file that is no SQLite database: {text}"),
        (f"sqlite:///{shops}", 1, f"no outbox at {shops}"),
        (old.url, 1, "has to be new: an outbox was moved there"),
        (new.url, 1, "of the same outbox"),
        (f"sqlite:///{tmp_path}/link", 1, "of the same outbox, or the new one is its copy"),
        ("sqlite:////nowhere/outbox.sqlite", 1, "no outbox at /nowhere/outbox.sqlite"),
        ("oracle://shop", 2, "OLD takes a database of SQLite, PostgreSQL, MariaDB or MySQL"),
        ("postgresql+psycopg://ann:secret@127.0.0.1:9/shop", 1, "cannot be used: "),
    ):
        refused = run(commands, ["outbox", "move-from"], env={"ADROLL_OLD_OUTBOX_URL": given})
        assert refused.exit_code == status
        assert told in refused.output
        assert "secret" not in refused.output
    assert (text.read_text(), shops.read_bytes()) == ("no outbox", before)
