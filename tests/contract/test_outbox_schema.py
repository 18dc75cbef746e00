"""The tables: made once, by whoever comes first, in a migration if the shop likes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from outbox_engines import Bench

from adroll_flask.errors import ConfigurationError
from adroll_flask.outbox import ddl, open_outbox, schema, sqlite
from adroll_flask.settings import Settings


def tables(bench: Bench) -> list[str]:
    return sorted(n for n in sa.inspect(bench.sql()).get_table_names() if n.startswith("adroll_"))


ALL = ["adroll_destination", "adroll_event", "adroll_hold", "adroll_meta", "adroll_tally"]


def test_opening_an_outbox_touches_nothing(fresh: Bench) -> None:
    outbox = fresh.open()

    assert "Outbox" in repr(outbox)
    assert list(fresh.folder.iterdir()) == []
    assert fresh.engine == "sqlite" or tables(fresh) == []
    assert outbox.exists() == (fresh.engine != "sqlite")


def test_the_first_report_makes_the_tables(fresh: Bench) -> None:
    assert fresh.open().put(fresh.event()).spilled is None
    assert tables(fresh) == ALL


def test_making_the_tables_again_changes_nothing(fresh: Bench) -> None:
    outbox = fresh.open()
    outbox.put(fresh.event("1001"))

    outbox.create_tables()
    fresh.open().create_tables()

    assert outbox.put(fresh.event("1001")).status == "duplicate"
    assert fresh.execute("SELECT count(*) FROM adroll_destination")[0][0] == 1


def test_ten_processes_that_start_at_once_all_work(fresh: Bench) -> None:
    outboxes = [fresh.open() for _ in range(10)]
    start = threading.Barrier(10)
    put: list[object] = []

    def begin(number: int) -> None:
        start.wait()
        put.append(outboxes[number].put(fresh.event(str(number))).status)

    threads = [threading.Thread(target=begin, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fresh.open().claim(limit=1)

    assert put == ["queued"] * 10
    assert fresh.open().waiting() == 10
    assert fresh.execute("SELECT count(*) FROM adroll_destination")[0][0] == 1


def test_a_newer_schema_is_worked_with(fresh: Bench) -> None:
    """During a rolling deployment the older processes still run."""
    fresh.open().create_tables()
    fresh.execute("UPDATE adroll_meta SET value = '99' WHERE name = 'schema_version'")

    outbox = fresh.open()

    assert outbox.put(fresh.event()).spilled is None
    assert outbox.claim() is not None
    assert outbox.overview().schema_version == 99


def test_an_older_schema_is_brought_up_once(fresh: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.open().put(fresh.event("1001"))
    ran: list[int] = []

    def upgrade(connection: sa.Connection, tables: schema.Tables) -> None:
        connection.execute(sa.text("ALTER TABLE adroll_event ADD COLUMN lately INTEGER"))
        ran.append(1)

    monkeypatch.setattr(schema, "VERSION", 2)
    monkeypatch.setattr("adroll_flask.outbox.store.VERSION", 2)
    monkeypatch.setattr(sqlite, "VERSION", 2)
    monkeypatch.setattr(schema, "UPGRADES", (upgrade,))

    assert [fresh.open().put(fresh.event("1001")).status for _ in range(2)] == ["duplicate"] * 2

    assert ran == [1]
    assert fresh.open().overview().schema_version == 2
    assert fresh.execute("SELECT count(lately) FROM adroll_event")[0][0] == 0


def test_sqlite_s_tables_are_those_that_sqlalchemy_knows(tmp_path: Path) -> None:
    hand = sa.create_engine(f"sqlite:///{tmp_path / 'hand.sqlite'}")
    made = sa.create_engine(f"sqlite:///{tmp_path / 'made.sqlite'}")
    with hand.begin() as connection:
        for statement in ddl.DDL:
            connection.execute(sa.text(statement))
    with made.begin() as connection:
        schema.create_tables(connection)
        assert connection.scalar(sa.text("SELECT length(max(value)) FROM adroll_meta")) == 32

    found = [sa.MetaData(), sa.MetaData()]
    for engine, metadata in zip((hand, made), found, strict=True):
        metadata.reflect(engine)
    described = [
        {
            table.name: (
                [
                    (
                        c.name,
                        str(c.type),
                        c.nullable,
                        str(c.server_default and c.server_default.arg),
                    )
                    for c in table.columns
                ],
                sorted((i.name, i.unique, [c.name for c in i.columns]) for i in table.indexes),
                [c.name for c in table.primary_key],
            )
            for table in metadata.tables.values()
        }
        for metadata in found
    ]
    for engine in (hand, made):
        engine.dispose()

    assert described[0] == described[1]
    assert sorted(described[0]) == ALL


def test_the_documented_migration_makes_and_drops_the_tables(fresh: Bench) -> None:
    """docs/outbox.md shows this migration; it runs here under Alembic itself."""
    docs = (Path(__file__).parents[2] / "docs" / "outbox.md").read_text()
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
    assert fresh.open().put(fresh.event()).spilled is None
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
    outbox.create_tables()
    outbox.close()

    assert (tmp_path / "events.sqlite").exists()


def test_a_report_on_sqlite_loads_no_sqlalchemy(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from adroll_flask.outbox import NewEvent, new_id, open_outbox
        from adroll_flask.settings import Settings
        outbox = open_outbox(Settings(), folder=sys.argv[1])
        outbox.put(NewEvent(new_id(1e9), "purchase", "", False, "1", b"{}", 1e9))
        print([m for m in ("sqlalchemy", "requests", "pydantic", "flask") if m in sys.modules])
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() in (["[]"], ["['flask']"])
