"""``flask adroll check`` and ``outbox`` on every engine, and where the database is down."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from adroll_flask.outbox.schema import drop_tables
from tests.conftest import AppMaker, Patch
from tests.support.outbox_engines import SERVERS, Bench, a_user
from tests.support.visits import invoke


def findings(app: Any, status: int) -> dict[str, dict[str, str]]:
    """What ``check`` finds, by its subject; with the exit code *status*."""
    result = invoke(app, "check", "--json", code=status)
    assert "s3cret" not in result.output
    return {found["subject"]: found for found in json.loads(result.output)["findings"]}


def test_check_makes_no_tables_on_a_server(server: Bench, make_app: AppMaker) -> None:
    with server.sql().begin() as connection:
        drop_tables(connection)
    app = make_app(ADROLL_OUTBOX_URL=server.url)
    found = findings(app, 0)["outbox"]
    assert found["severity"] == "hint"
    assert "its tables are not there yet; they are made at the first use" in found["sentence"]
    assert "flask adroll outbox create-table" in found["todo"]
    assert "there is no copy of an outbox" in invoke(app, "outbox", "restored", code=1).output
    assert not sa.inspect(server.sql()).has_table("adroll_meta")
    made = invoke(app, "outbox", "create-table", code=0).output
    assert made.startswith("the outbox's tables are there: ")
    assert str(sa.make_url(str(server.url)).database) in made
    assert "s3cret" not in made
    found = findings(app, 0)["outbox"]
    assert (found["severity"], "0 waiting" in found["sentence"]) == ("ok", True)


def test_a_folder_that_may_not_be_entered_is_not_taken_for_empty(
    make_app: AppMaker, folder_of_nobody: Path, monkeypatch: Patch
) -> None:
    place = folder_of_nobody / "shop.sqlite"
    app = make_app(ADROLL_OUTBOX_URL=f"sqlite:///{place}")
    monkeypatch.setattr(app.extensions["adroll"].deliverer, "run", lambda stop: None)
    assert f"Reads the outbox {place} (not there yet)" in invoke(app, "worker", code=0).output
    place.touch()
    folder_of_nobody.chmod(0)
    assert f"Reads the outbox {place} and" in invoke(app, "worker", code=0).output
    for command in (["outbox"], ["outbox", "restored"], ["worker", "--once"]):
        assert "may not be written by this user" in invoke(app, *command, code=1).output


_ROWS = "SELECT, INSERT, UPDATE, DELETE"


@pytest.mark.parametrize("fresh", SERVERS, indirect=True)
@pytest.mark.parametrize(
    ("rights", "is_reader", "words"),
    [
        ("SELECT", False, "denied"),
        ("SELECT, INSERT, UPDATE", False, "denied"),
        (_ROWS, True, "read-only|READ ONLY"),
    ],
    ids=["reads", "removes nothing", "a replica"],
)
def test_check_tries_to_write_and_takes_it_back(
    fresh: Bench, make_app: AppMaker, rights: str, is_reader: bool, words: str
) -> None:
    fresh.open().database.create_tables()
    with a_user(fresh, rights, is_reader=is_reader) as url:
        found = findings(app := make_app(ADROLL_OUTBOX_URL=url), 1)["ADROLL_OUTBOX_URL"]
        assert "may not be written by this user" in found["sentence"]
        assert re.search(words, found["sentence"]), found["sentence"]
        assert "GRANT" in found["todo"]
        app.extensions["adroll"].outbox.close()


@pytest.mark.parametrize("fresh", SERVERS, indirect=True)
def test_who_may_change_rows_and_no_tables_is_well(fresh: Bench, make_app: AppMaker) -> None:
    fresh.open().database.create_tables()
    before = counts(fresh)
    with a_user(fresh, _ROWS) as url:
        app = make_app(ADROLL_OUTBOX_URL=url)
        assert findings(app, 0)["outbox"]["severity"] == "ok"
        app.extensions["adroll"].outbox.close()
    assert counts(fresh) == before


def counts(bench: Bench) -> list[int]:
    """How many rows each table has."""
    tables = sa.inspect(bench.sql()).get_table_names()
    return [bench.execute(f"SELECT count(*) FROM {table}")[0][0] for table in sorted(tables)]


DOWN = {
    "postgresql": "postgresql+psycopg://shop:s3cret@127.0.0.1:9/orders",
    "mariadb": "mysql+pymysql://shop:s3cret@127.0.0.1:9/orders",
}


@pytest.mark.parametrize("engine", DOWN)
@pytest.mark.parametrize(
    "command",
    [
        *("outbox", "outbox list", "outbox retry --all-dead", "outbox drop 0123", "outbox export"),
        *(f"outbox show {'0' * 32}", "outbox create-table", "worker --once", "forget --user-id 42"),
    ],
)
def test_a_database_away_is_one_line(command: str, engine: str, make_app: AppMaker) -> None:
    app = make_app(ADROLL_OUTBOX_URL=DOWN[engine])
    result = invoke(app, *command.split(), code=1)
    assert isinstance(result.exception, SystemExit)
    line, address = result.output.splitlines()
    assert "outbox-unavailable" in address
    assert line.startswith("Error: The outbox cannot be used: the database at ")
    assert "://127.0.0.1:9/orders does not answer" in line
    assert "s3cret" not in line


@pytest.mark.parametrize("engine", DOWN)
def test_check_of_a_database_away_finds_the_rest(engine: str, make_app: AppMaker) -> None:
    app = make_app(ADROLL_OUTBOX_URL=DOWN[engine], ADROLL_DELIVERY="thread")
    found = findings(app, 1)
    assert "check" not in found
    assert "does not answer" in found["ADROLL_OUTBOX_URL"]["sentence"]
    assert found["ADROLL_OUTBOX_URL"]["severity"] == "error"
    assert found["ADROLL_OUTBOX_URL"]["todo"].startswith("start it, or correct the URL")
    assert found["endpoints"]["severity"] == "ok"
