"""Files that are not ours stay as they are, to the byte; what is ours and damaged goes aside."""

import json
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from adroll_flask import ConfigurationError
from adroll_flask.sandbox.journal import SandboxJournal
from tests.conftest import AppMaker, Caplog
from tests.support import PATIENCE, visits
from tests.support.outbox_engines import Bench, OutboxFailed, damage, deliver, status


def execute(path: Path, *statements: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        rows: list[Any] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


def make_shop(path: Path) -> None:
    execute(path, "CREATE TABLE orders (id INTEGER)", "INSERT INTO orders VALUES (1), (2)")


def folder_of(path: Path) -> dict[str, bytes]:
    """What stands beside *path*, but for what is ours by its name."""
    ours = ("adroll", f"{path.name}-adroll")
    beside = (one for one in path.parent.iterdir() if one.is_file())
    return {one.name: one.read_bytes() for one in beside if not one.name.startswith(ours)}


def use(app: Flask) -> None:
    """All that works with an outbox now and then; none of it may harm a file."""
    assert visits.report(app).status == "queued"
    for command in (["check"], ["worker", "--once"], ["outbox"], ["outbox", "list"], ["forget"]):
        visits.invoke(app, *command)
    runtime = app.extensions["adroll"]
    runtime.deliverer.step(threading.Event())
    runtime.outbox.measure()
    with pytest.raises(OutboxFailed, match="ADROLL_OUTBOX_URL"):
        runtime.outbox.admin.keep_house()
    assert visits.report(app, "1002").status == "queued", "the journal goes on"


def foreign(app: Flask) -> dict[str, Any]:
    findings = json.loads(visits.invoke(app, "check", "--json", code=1).output)["findings"]
    of_code: dict[str, dict[str, Any]] = {finding["code"]: finding for finding in findings}
    return of_code["outbox-foreign"]


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize("table", ["adroll_event", "adroll_inbox"])
def test_a_damaged_page_of_ours_leaves_the_shop_s_own_database_where_it_is(
    make_app: AppMaker, tmp_path: Path, caplog: Caplog, table: str, mode: str
) -> None:
    shop = tmp_path / "shop.db"
    make_shop(shop)
    execute(shop, f"PRAGMA journal_mode = {mode}")
    app = make_app(ADROLL_OUTBOX_URL=f"sqlite:///{shop}")
    visits.report(app, "1000")
    app.extensions["adroll"].outbox.queue.waiting()
    assert app.extensions["adroll"].thread.stop(PATIENCE)  # which would have the file open
    app.extensions["adroll"].outbox.close()
    good = shop.read_bytes()
    damage(shop, table)
    before = folder_of(shop)

    use(app)

    assert folder_of(shop) == before
    assert execute(shop, "SELECT count(*) FROM orders") == [(2,)]
    finding = foreign(app)
    assert str(shop) in finding["sentence"]
    assert ".recover" in finding["todo"]
    told = re.compile(r"is damaged \(sqlite3\.DatabaseError.+\): .+; it is left as it is")
    assert len(told.findall(caplog.text)) == 1
    assert list(tmp_path.glob("*corrupt*")) == []
    outbox = app.extensions["adroll"].outbox
    outbox.close()
    shop.write_bytes(good)
    assert outbox.queue.waiting() == 3, "nothing is lost"
    outbox.close()
    damage(shop, table)
    with pytest.raises(OutboxFailed):
        outbox.queue.waiting()
    assert len(told.findall(caplog.text)) == 2, "what was mended and breaks again is told again"


@pytest.mark.parametrize(
    "content",
    [b"name,total\nann,12.50\n" * 100, b"x", b"SQLite format 3\0" + b"\xff" * 8000],
    ids=["csv", "short", "damaged head"],
)
def test_a_file_that_is_no_database_is_a_wrong_setting(
    make_app: AppMaker, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(content)
    app = make_app(ADROLL_OUTBOX_URL=f"sqlite:///{path}")

    use(app)

    assert folder_of(path) == {path.name: content}
    assert str(path) in foreign(app)["sentence"]
    outbox = app.extensions["adroll"].outbox
    with pytest.raises(ConfigurationError, match=str(path)) as caught:
        outbox.queue.waiting()
    assert caught.value.key == "ADROLL_OUTBOX_URL"
    path.unlink()
    assert outbox.queue.waiting() == 2, "nothing is lost"


def _by_a_migration(path: Path) -> None:
    import sqlalchemy as sa

    from adroll_flask.outbox.schema import create_tables

    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        create_tables(connection)
    engine.dispose()


def _with_a_view(path: Path) -> None:
    execute(path, "CREATE VIEW late AS SELECT id FROM adroll_event")


def _head_lost(path: Path) -> None:
    path.write_bytes(b"x" * 100 + path.read_bytes()[100:])


@pytest.mark.parametrize(
    ("prepare", "change"),
    [
        (make_shop, None),  # ours came to the shop's
        (None, make_shop),  # the shop's came to ours
        (_by_a_migration, None),
        (None, _with_a_view),
        (None, _head_lost),
    ],
    ids=["theirs first", "ours first", "a migration's", "a view", "first page lost"],
)
def test_only_what_we_made_and_is_ours_alone_goes_aside(
    sqlite: Bench, prepare: Callable[[Path], None] | None, change: Callable[[Path], None] | None
) -> None:
    if prepare is not None:
        prepare(sqlite.path)
    outbox = sqlite.open()
    sqlite.insert(outbox, "1")
    outbox.close()
    damage(sqlite.path, "adroll_event")
    if change is not None:
        change(sqlite.path)
    before = sqlite.path.read_bytes()

    with pytest.raises((OutboxFailed, ConfigurationError)) as caught:
        deliver(outbox)

    assert getattr(caught.value, "reason", None) == "foreign"
    assert sqlite.path.read_bytes() == before
    assert status(outbox, sqlite.event("2")) == "queued"


def test_what_we_made_says_so_and_says_it_alone(sqlite: Bench, tmp_path: Path) -> None:
    outbox = sqlite.open()
    sqlite.insert(outbox, "1")
    make_shop(tmp_path / "shop.db")
    theirs = sqlite.open(outbox_url=f"sqlite:///{tmp_path}/shop.db")
    sqlite.insert(theirs, "2")

    assert execute(sqlite.path, "PRAGMA application_id") == [(0x4164526C,)]
    assert execute(tmp_path / "shop.db", "PRAGMA application_id") == [(0,)]


def test_a_log_without_its_database_is_somebody_s(sqlite: Bench, tmp_path: Path) -> None:
    # The shop's database is put back in a moment; what it committed last is in its log.
    shop, kept = tmp_path / "shop.db", tmp_path / "kept.db"
    make_shop(shop)
    execute(shop, "PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(shop)) as theirs:
        theirs.execute("INSERT INTO orders VALUES (3)")
        theirs.commit()
        log = Path(f"{shop}-wal").read_bytes()
        shutil.copy(shop, kept)
    Path(f"{shop}-wal").write_bytes(log)
    shop.unlink()
    outbox = sqlite.open(outbox_url=f"sqlite:///{shop}")
    outbox.put(sqlite.event("1"))

    with pytest.raises(OutboxFailed, match="foreign"):
        deliver(outbox)
    assert Path(f"{shop}-wal").read_bytes() == log
    kept.rename(shop)
    assert execute(shop, "SELECT count(*) FROM orders") == [(3,)]
    assert deliver(outbox) == ["1"]


def test_the_shop_s_file_keeps_its_log(sqlite: Bench, tmp_path: Path) -> None:
    shop = tmp_path / "shop.db"
    execute(shop, "PRAGMA journal_mode = WAL")
    make_shop(shop)
    outbox = sqlite.open(outbox_url=f"sqlite:///{shop}")
    sqlite.insert(outbox, "1")
    with closing(sqlite3.connect(shop)) as theirs:
        theirs.execute("PRAGMA wal_autocheckpoint = 0")
        theirs.execute("CREATE TABLE big (content BLOB)")
        theirs.execute("INSERT INTO big VALUES (zeroblob(8000000))")
        theirs.execute("DROP TABLE big")
        theirs.commit()
        log = Path(f"{shop}-wal").stat().st_size
        assert log > 4 << 20

        outbox.admin.keep_house()

        assert Path(f"{shop}-wal").stat().st_size >= log


def test_the_sandbox_begins_no_journal_in_somebody_s_file(tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    path.write_bytes(b"name,total\nann,12.50\n")
    with pytest.raises(FileExistsError, match="customers"):
        SandboxJournal(path, keep=10).read()
    assert path.read_bytes() == b"name,total\nann,12.50\n"
