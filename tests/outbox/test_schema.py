"""The tables: made once, by whoever comes first, in a migration if the shop likes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adroll_flask.errors import ConfigurationError
from adroll_flask.outbox import Outbox, Outcome, new_id, open_outbox, schema
from adroll_flask.outbox.record_format import Withdrawal
from adroll_flask.outbox.states import VERSION
from adroll_flask.settings import Settings
from tests.support.outbox_engines import Bench
from tests.support.version_1 import OUTBOX_ID, insert_version_1, make_version_1


def tables(bench: Bench) -> list[str]:
    return sorted(n for n in sa.inspect(bench.sql()).get_table_names() if n.startswith("adroll_"))


ALL = [
    "adroll_destination",
    "adroll_event",
    "adroll_history",
    "adroll_hold",
    "adroll_journal",
    "adroll_meta",
    "adroll_suppressed",
    "adroll_trial",
    "adroll_verdict",
    "adroll_withdrawal",
]


def test_opening_an_outbox_touches_nothing(fresh: Bench) -> None:
    outbox = fresh.open()

    assert "Outbox" in repr(outbox)
    assert list(fresh.folder.iterdir()) == []
    assert fresh.engine == "sqlite" or tables(fresh) == []
    assert outbox.exists() == (fresh.engine != "sqlite")


def test_who_takes_in_first_makes_the_tables(fresh: Bench) -> None:
    outbox = fresh.open()
    outbox.put(fresh.event())
    assert not fresh.path.exists()
    assert fresh.engine == "sqlite" or tables(fresh) == []

    assert outbox.queue.claim() is not None
    assert tables(fresh) == ALL


def test_making_the_tables_again_changes_nothing(fresh: Bench) -> None:
    outbox = fresh.open()
    outbox.put(fresh.event("1001"))
    assert outbox.queue.waiting() == 1

    outbox.housekeeping.create_tables()
    fresh.open().housekeeping.create_tables()

    fresh.open().put(fresh.event("1001"))
    assert outbox.queue.waiting() == 1
    assert fresh.execute("SELECT count(*) FROM adroll_destination")[0][0] == 1


def start_ten(bench: Bench) -> list[int]:
    """Ten outboxes, each of its own connections, look at the same moment; what they see."""
    outboxes = [bench.open() for _ in range(10)]
    start = threading.Barrier(10)
    seen: list[int] = []

    def begin(outbox: Outbox) -> None:
        start.wait()
        seen.append(sum(outbox.admin.counts().values()))

    threads = [threading.Thread(target=begin, args=(one,)) for one in outboxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def test_ten_that_start_at_once_all_work(fresh: Bench) -> None:
    for number in range(10):
        fresh.open().put(fresh.event(str(number)))

    assert start_ten(fresh) == [10] * 10

    assert fresh.open().queue.waiting() == 10
    for table, count in (("destination", 1), ("meta", 2)):
        assert fresh.execute(f"SELECT count(*) FROM adroll_{table}")[0][0] == count


def test_a_newer_schema_is_worked_with(fresh: Bench) -> None:
    """During a rolling deployment the older processes still run."""
    fresh.open().housekeeping.create_tables()
    fresh.execute("UPDATE adroll_meta SET value = '99' WHERE name = 'schema_version'")

    outbox = fresh.open()

    outbox.put(fresh.event())
    assert outbox.queue.claim() is not None
    assert outbox.admin.overview().schema_version == 99


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
def test_events_of_version_1_go_on_where_they_were(fresh: Bench, late: bool) -> None:
    make_version_1(fresh, late=late)
    ids = [new_id(fresh.now() + n) for n in range(6)]
    insert_version_1(fresh, ids[0], key="waiting")
    insert_version_1(fresh, ids[1], state=1, key="claimed", claim="a" * 32)
    insert_version_1(fresh, ids[2], state=2, key="sending", claim="b" * 32)
    insert_version_1(fresh, ids[3], state=3, key="delivered", payload=None, due_in=86_400.0)
    insert_version_1(fresh, ids[4], state=4, key="dead", due_in=86_400.0)
    insert_version_1(fresh, ids[5], due_in=900.0)
    outbox = fresh.open()

    seen = outbox.admin.overview()

    assert seen.schema_version == VERSION
    assert list(seen.counts.values()) == [2, 1, 1, 1, 1, 0, 0]
    assert set(tables(fresh)) == {*ALL, "adroll_tally"}
    found = fresh.execute("SELECT value FROM adroll_meta WHERE name = 'outbox_id'")
    assert found[0][0] == OUTBOX_ID
    for key in ("waiting", "delivered", "dead", "new"):
        outbox.put(fresh.event(key))
    claim = outbox.queue.claim()
    assert claim is not None
    assert {event.key for event in claim.events} == {"waiting", "claimed", "sending", "new"}
    assert {event.key for event in claim.events if event.unsure} == {"sending"}
    assert outbox.queue.begin_sending(claim)
    assert (
        outbox.queue.settle(claim, [Outcome(id=e.id, kind="delivered") for e in claim.events]) == 4
    )
    assert fresh.counters.get("event_duplicate") == 3
    assert outbox.admin.retry() == 1
    assert (
        outbox.admin.counts() | {"waiting": 2, "delivered": 5, "dead": 0} == outbox.admin.counts()
    )


def test_a_withdrawal_finds_what_waited_under_version_1(fresh: Bench) -> None:
    make_version_1(fresh)
    for order, adct in enumerate(("click-ann", "click-bob")):
        payload = b'{"identifiers":{"adct":"%s"}}' % adct.encode()
        insert_version_1(fresh, new_id(fresh.now() + order), key=adct, payload=payload)
    outbox = fresh.open()
    outbox.record(Withdrawal(fresh.now(), None, "click-ann"))

    claim = outbox.queue.claim()

    assert claim is not None
    assert [event.key for event in claim.events] == ["click-bob"]


def test_ten_that_start_at_once_bring_version_1_up_once(fresh: Bench) -> None:
    make_version_1(fresh)
    for number in range(3):
        insert_version_1(fresh, new_id(fresh.now() + number), key=str(number))

    assert start_ten(fresh) == [3] * 10
    assert fresh.open().admin.overview().schema_version == VERSION


def test_a_process_of_version_1_still_writes_into_this_version_s_tables(fresh: Bench) -> None:
    """During a rolling deployment both are there."""
    make_version_1(fresh)
    outbox = fresh.open()
    outbox.put(fresh.event("ours"))
    assert outbox.queue.waiting() == 1
    insert_version_1(fresh, new_id(fresh.now()), key="theirs")

    outbox.put(fresh.event("theirs"))

    claim = outbox.queue.claim()
    assert claim is not None
    assert sorted(event.key or "" for event in claim.events) == ["ours", "theirs"]
    assert fresh.counters.get("event_duplicate") == 1


@pytest.mark.parametrize("stopped_after", [1, 5, 8, 11, 13])
@pytest.mark.parametrize("version", [0, 1])
def test_tables_that_were_made_half_are_finished(
    fresh: Bench, version: int, stopped_after: int
) -> None:
    """MariaDB commits each statement that changes a table."""
    if version:
        make_version_1(fresh)
        insert_version_1(fresh, new_id(fresh.now()), key="1")
    ran = 0

    class Killed(BaseException):
        pass

    with fresh.sql().begin() as connection:
        dialect = connection.dialect.name

        def run(statement: str, values: Mapping[str, Any]) -> list[Any]:
            nonlocal ran
            result = connection.execute(sa.text(statement), values)
            ran += not statement.startswith("SELECT")
            if ran > stopped_after:
                raise Killed
            return list(result) if result.returns_rows else []

        with pytest.raises(Killed):
            schema.make(run, dialect)

    outbox = fresh.open()
    for order in ("1", "2", "2"):
        fresh.open().put(fresh.event(order))
    assert outbox.queue.waiting() == 2
    assert outbox.admin.overview().schema_version == VERSION
    assert set(tables(fresh)) == {*ALL, *(["adroll_tally"] if version else [])}
    indexes = {index["name"] for index in sa.inspect(fresh.sql()).get_indexes("adroll_event")}
    assert indexes >= {f"adroll_event_{name}" for name in ("key", "due", "cookie", "click")}


def test_the_documented_migration_makes_and_drops_the_tables(fresh: Bench) -> None:
    """docs/explanation/outbox.md shows this migration; it runs here under Alembic itself."""
    docs = (Path(__file__).parents[2] / "docs" / "explanation" / "outbox.md").read_text()
    snippet = docs.split("```python\n# migrations/versions/", 1)[1].split("```", 1)[0]
    folder = fresh.folder / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "versions" / "0001_adroll.py").write_text("# " + snippet)
    (folder / "env.py").write_text(
        textwrap.dedent(
            """
            from alembic import context
            from sqlalchemy import create_engine
            engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
            with engine.connect() as connection:
                context.configure(connection=connection)
                with context.begin_transaction():
                    context.run_migrations()
            engine.dispose()
            """
        )
    )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder))
    url = fresh.url or f"sqlite:///{fresh.path}"
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))

    command.upgrade(config, "head")
    assert tables(fresh) == ALL
    outbox = fresh.open()
    outbox.put(fresh.event())
    assert outbox.queue.waiting() == 1
    for outbox in fresh.opened:
        outbox.close()
    command.downgrade(config, "base")
    assert tables(fresh) == []


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:outbox?uri=true",
        "oracle://scott@localhost/x",
        "mssql+pyodbc://localhost/x",
        "sqlite+aiosqlite:///x.sqlite",
        "nonsense://",
    ],
)
def test_what_cannot_be_an_outbox_is_refused_at_once(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_outbox(Settings.from_mapping({"ADROLL_OUTBOX_URL": url}), folder=tmp_path)
    assert caught.value.key == "ADROLL_OUTBOX_URL"


def test_a_relative_sqlite_path_lies_in_the_instance_folder(tmp_path: Path) -> None:
    settings = Settings.from_mapping({"ADROLL_OUTBOX_URL": "sqlite:///events.sqlite"})
    outbox = open_outbox(settings, folder=tmp_path)
    outbox.housekeeping.create_tables()
    outbox.close()

    assert (tmp_path / "events.sqlite").exists()


def test_a_report_loads_neither_sqlalchemy_nor_sqlite(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from adroll_flask.outbox import NewEvent, new_id, open_outbox
        from adroll_flask.settings import Settings
        outbox = open_outbox(Settings(), folder=sys.argv[1])
        outbox.put(NewEvent(new_id(1e9), "purchase", "", False, "1", b"{}", 1e9))
        heavy = ("sqlalchemy", "sqlite3", "requests", "pydantic", "flask")
        print([name for name in heavy if name in sys.modules])
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() in (["[]"], ["['flask']"])
