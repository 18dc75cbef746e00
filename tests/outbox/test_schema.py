"""The tables: made once, by whoever comes first, in a migration if the shop likes."""

import runpy
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adroll_flask import ConfigurationError
from adroll_flask.outbox import schema
from adroll_flask.outbox.schema import VERSION
from adroll_flask.settings import Settings
from tests.support import ROOT, ran
from tests.support.outbox_engines import EID, Bench, Outbox


def tables(bench: Bench) -> list[str]:
    return sorted(n for n in sa.inspect(bench.sql()).get_table_names() if n.startswith("adroll_"))


NAMES = "account event history inbox journal mark meta"
ALL = [f"adroll_{name}" for name in NAMES.split()]


def version_of(outbox: Outbox) -> str | None:
    return outbox.database.read(lambda tx: schema.meta(tx, "schema_version"))


def test_who_takes_in_first_makes_the_tables(fresh: Bench, outbox: Outbox) -> None:
    assert list(fresh.folder.iterdir()) == [], "opening it touches nothing"
    assert outbox.exists() == (fresh.engine != "sqlite")
    outbox.put(fresh.event())
    assert not fresh.path.exists()
    assert fresh.engine == "sqlite" or tables(fresh) == []

    assert outbox.queue.claim(EID)
    assert tables(fresh) == ALL


def test_ten_that_start_at_once_all_work(fresh: Bench) -> None:
    for number in range(10):
        fresh.open().put(fresh.event(str(number)))
    start = threading.Barrier(10)

    def begin(outbox: Outbox) -> int:
        start.wait()
        outbox.database.create_tables()  # on other hosts no journal's lock puts them in a row
        return sum(outbox.lookups.counts().values())

    with ThreadPoolExecutor(10) as pool:
        assert [*pool.map(begin, [fresh.open() for _ in range(10)])] == [10] * 10

    assert fresh.open().queue.waiting() == 10
    assert fresh.execute("SELECT count(*) FROM adroll_account") == [(1,)]
    names = fresh.execute("SELECT name FROM adroll_meta ORDER BY name")
    assert [name for (name,) in names] == ["began", "outbox_id", "schema_version"]


@pytest.mark.parametrize("stopped_after", [1, 5, 7, 9])
def test_tables_that_were_made_half_are_finished(fresh: Bench, stopped_after: int) -> None:
    """MariaDB commits each statement that changes a table."""
    ran = 0

    class Killed(BaseException):
        pass

    with fresh.sql().begin() as connection:
        dialect = connection.dialect.name

        def run(statement: str, **values: Any) -> list[Any]:
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
    assert version_of(outbox) == str(VERSION)
    assert tables(fresh) == ALL
    indexes = {index["name"] for index in sa.inspect(fresh.sql()).get_indexes("adroll_event")}
    assert indexes >= {f"adroll_event_{name}" for name in ("key", "due", "record")}


def test_the_documented_migration_makes_and_drops_the_tables(fresh: Bench) -> None:
    """docs/explanation/outbox.md shows this migration; it runs here under Alembic itself."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    docs = (ROOT / "docs" / "explanation" / "outbox.md").read_text()
    path = fresh.folder / "0001_adroll.py"
    path.write_text("# " + docs.split("```python\n# migrations/versions/", 1)[1].split("```", 1)[0])
    migration = runpy.run_path(str(path))

    def migrate(way: str) -> None:
        context = MigrationContext.configure
        with fresh.sql().begin() as connection, Operations.context(context(connection)):
            migration[way]()

    migrate("upgrade")
    assert tables(fresh) == ALL
    outbox = fresh.open()
    outbox.put(fresh.event())
    assert outbox.queue.waiting() == 1
    outbox.close()
    migrate("downgrade")
    assert tables(fresh) == []


NO_OUTBOX = (
    "sqlite:// sqlite:///:memory: sqlite:///file:outbox?uri=true"
    " oracle://scott@localhost/x mssql+pyodbc://localhost/x nonsense://"
    " postgresql+unheard_of://localhost/x mysql://shop@localhost:word/x"
)


@pytest.mark.parametrize("url", NO_OUTBOX.split())
def test_what_cannot_be_an_outbox_is_refused_at_once(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Outbox(Settings.from_mapping({"ADROLL_OUTBOX_URL": url}), folder=tmp_path)
    assert caught.value.key == "ADROLL_OUTBOX_URL"
    assert "word" not in str(caught.value)


def test_a_relative_sqlite_path_lies_in_the_instance_folder(tmp_path: Path) -> None:
    settings = Settings.from_mapping({"ADROLL_OUTBOX_URL": "sqlite:///events.sqlite"})
    outbox = Outbox(settings, folder=tmp_path)
    outbox.database.create_tables()
    outbox.close()

    assert (tmp_path / "events.sqlite").exists()


def test_a_report_loads_neither_sqlalchemy_nor_sqlite(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from adroll_flask.outbox.model import NewEvent, new_id
        from adroll_flask.outbox.outbox import Outbox
        EID = "ADVERTISABLE0000000001"
        from adroll_flask.settings import Settings
        outbox = Outbox(Settings(), folder=sys.argv[1])
        outbox.put(NewEvent(new_id(1e9), "purchase", EID, False, "1", b"{}", 1e9))
        heavy = ("sqlalchemy", "sqlite3", "requests", "publicsuffixlist", "flask")
        print([name for name in heavy if name in sys.modules])
        """
    )
    assert ran(sys.executable, "-c", code, tmp_path).split() in (["[]"], ["['flask']"])
