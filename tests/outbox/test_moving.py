"""An outbox that moves from one database to another takes all along, and nothing is sent twice."""

import contextlib
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adroll_flask.cli.commands import commands
from adroll_flask.outbox import admin, schema
from adroll_flask.outbox.admin import NotMoved, move
from adroll_flask.outbox.location import locate
from adroll_flask.outbox.model import Counted, OrderKey, Verdict, Withdrawal
from adroll_flask.outbox.outbox import Outbox, open_database
from adroll_flask.outbox.schema import Database
from adroll_flask.settings import Settings
from tests.conftest import AppMaker, Patch
from tests.support.outbox_engines import EID, Bench, claimed, database, deliver, settle

#: The way of a shop that grows, and one back.
WAY = ("sqlite", "postgresql", "mariadb", "sqlite")
VISITOR = b'{"event_name":"purchase","identifiers":{"adct":"said-no"}}'


@pytest.fixture
def benches(tmp_path: Path) -> Iterator[list[Bench]]:
    """An empty database for each step of the way; one host, so one journal."""
    with contextlib.ExitStack() as stack:
        made = []
        for number, engine in enumerate(WAY):
            url = f"sqlite:///{tmp_path}/{number}.sqlite"
            if engine != "sqlite":
                url = stack.enter_context(database(engine))
            bench = Bench(engine, url, tmp_path)
            bench.clock.now = time.time()
            stack.callback(bench.close)
            made.append(bench)
        yield made


def database_of(bench: Bench) -> Database:
    return open_database(locate(bench.url, bench.folder), Settings(), bench.clock)


def moved(old: Bench, new: Bench) -> dict[str, int]:
    closing = contextlib.closing
    with closing(database_of(old)) as source, closing(database_of(new)) as target:
        return dict(move(source, target))


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
    outbox.record(Withdrawal(bench.clock.now, None, "said-no"))
    while outbox.ingest.take_in():
        pass
    outbox.close()


def verdict(kind: Any, key: str) -> Verdict:
    return Verdict(1.0, kind, OrderKey(EID, False, "purchase", key))


KINDS = {"delivered": 2, "waiting": 2, "held": 1, "dead": 1, "cancelled": 1}


def test_all_of_it_arrives_over_every_engine_and_is_sent_once(benches: list[Bench]) -> None:
    fill(benches[0])
    hours = benches[0].open().lookups.history(0.0, ("outcome", "reason"))
    for old, new in pairwise(benches):
        assert moved(old, new) == KINDS
        # Whoever was forgotten with the old setting sends nothing.
        assert deliver(old.open()) == []
        assert old.open().lookups.counts()["held"] == 0
    end = benches[-1]
    outbox = end.open()
    counts = outbox.lookups.counts()
    assert {state: counts[state] for state in KINDS} == KINDS
    assert outbox.lookups.history(0.0, ("outcome", "reason")) == hours

    for key in ("delivered", "ключ", "waiting", "cancelled", "dead"):
        outbox.put(end.event(key))  # the thank-you page of an old order is opened again
    outbox.put(end.event("to come", held_for=86_400.0))  # its release came before it
    before = end.clock.now - 3600.0
    outbox.put(end.event("of a visitor who said no", payload=VISITOR, known_since=before))
    outbox.decide(verdict("release", "held"))
    assert deliver(outbox) == ["", "held", "to come", "waiting"]
    assert [row.key for row in outbox.lookups.list("dead")] == ["dead", "of a visitor who said no"]


def test_every_table_and_column_moves() -> None:
    """One that is added to the schema has to be added there."""
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        schema.create_tables(connection)
        known = sa.inspect(connection)
        there = {
            name: {column["name"] for column in known.get_columns(name)}
            for name in known.get_table_names()
        }
    engine.dispose()
    listed = {*admin._AT_ONCE, *admin._LONG}
    # Each database numbers its rows itself, and has its own version and id.
    numbers = {"adroll_event": {"seq"}}
    assert there.keys() - listed == {"adroll_meta"}
    for name in listed:
        assert {*schema.columns_of(name)} | numbers.get(name, set()) == there[name]


def test_what_the_journal_has_handed_over_is_not_taken_in_again(benches: list[Bench]) -> None:
    old, new = benches[:2]
    outbox = old.open()  # stays open, so its journal's file stays
    outbox.put(old.event(None))
    assert deliver(outbox) == [""]
    outbox.put(old.event(None))  # not taken in before the move
    assert moved(old, new) == {"delivered": 1}
    assert deliver(new.open()) == [""]


def test_a_move_that_was_stopped_goes_on(benches: list[Bench], monkeypatch: Patch) -> None:
    """Amid the events, and then at its very end."""
    old, new = benches[:2]
    fill(old)
    outbox = old.open()
    outbox.destination(EID).stop("401", "fingerprint")
    monkeypatch.setattr(admin, "STEP", 3)
    read = admin._read

    def told(outbox: Outbox) -> tuple[object, ...]:
        return outbox.lookups.stops(60.0), outbox.lookups.history(0.0, ("outcome", "reason"))

    def stop(database: Database, table: str, last: str | None = None) -> Any:
        if table == "adroll_event" and last:
            raise KeyboardInterrupt
        return read(database, table, last)

    before = told(outbox)
    with monkeypatch.context() as patch:
        patch.setattr(admin, "_read", stop)
        with pytest.raises(KeyboardInterrupt):
            moved(old, new)
    assert new.execute("SELECT count(*) FROM adroll_event") == [(3,)]
    with monkeypatch.context() as patch:
        patch.delattr(admin, "_end")
        with pytest.raises(NameError):
            moved(old, new)
    assert moved(old, new) == KINDS
    arrived = new.open()
    assert told(arrived) == before
    arrived.put(new.event("of a visitor who said no", payload=VISITOR, known_since=1.7e9))
    assert deliver(arrived) == ["", "waiting"]
    assert deliver(outbox) == []


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
    old, new = benches[:2]
    fill(old)
    run = make_app(ADROLL_OUTBOX_URL=new.url).test_cli_runner().invoke
    done = run(commands, ["outbox", "move-from", str(old.url)])
    assert done.output.startswith("7 events moved: "), done.output
    assert "2 delivered" in done.output
    (text := tmp_path / "notes.txt").write_text("no outbox")
    for given, status, told in (
        (f"sqlite:///{text}", 1, f"no outbox at {text}"),
        (old.url, 1, "has events already"),
        (new.url, 1, "of the same outbox"),
        ("sqlite:////nowhere/outbox.sqlite", 1, "no outbox at /nowhere/outbox.sqlite"),
        ("oracle://shop", 2, "OLD takes a database of SQLite, PostgreSQL, MariaDB or MySQL"),
        ("postgresql+psycopg://ann:secret@127.0.0.1:9/shop", 1, "cannot be worked with: "),
    ):
        refused = run(commands, ["outbox", "move-from"], env={"ADROLL_OLD_OUTBOX_URL": given})
        assert refused.exit_code == status
        assert told in refused.output
        assert "secret" not in refused.output
    assert text.read_text() == "no outbox"
