"""Databases and servers as their administrators set them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.conftest import AppMaker
from tests.support.outbox_engines import (
    EID,
    SERVERS,
    Bench,
    OrderKey,
    OutboxFailed,
    Verdict,
    a_user,
    bury,
    database,
    deliver,
    shown,
    status,
    told,
)
from tests.support.visits import invoke

KEY = "n\N{DEGREE SIGN} \N{OHM SIGN}\N{WRAPPED PRESENT}"
WORDS = "http_400: no such \N{OHM SIGN}\N{HORIZONTAL ELLIPSIS}"


@pytest.fixture
def encoded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A database of PostgreSQL in another encoding."""
    how = f"ENCODING '{request.param}' LOCALE 'C' TEMPLATE template0"
    with database("postgresql", whole=True, how=how) as url:
        bench = Bench("postgresql", url, tmp_path)
        yield bench
        bench.close()


@pytest.mark.parametrize("encoded", ["SQL_ASCII"], indirect=True)
def test_a_database_without_an_encoding_keeps_all_texts(encoded: Bench) -> None:
    outbox = encoded.open()
    outbox.put(encoded.event(KEY))
    [id] = bury(outbox, error=WORDS)
    assert (shown(outbox, id).key, shown(outbox, id).error) == (KEY, WORDS)
    outbox.put(encoded.event("2"))
    encoded.open().put(encoded.event(KEY))
    assert deliver(outbox) == ["2"]


@pytest.mark.parametrize("encoded", ["LATIN1"], indirect=True)
def test_a_database_that_lacks_characters_is_refused_and_no_order_put_aside(encoded: Bench) -> None:
    outbox = encoded.open()
    assert status(outbox, encoded.event(KEY)) == "queued"
    with pytest.raises(OutboxFailed, match=r"LATIN1.*UTF8"):
        deliver(outbox)
    assert not [*encoded.journal.glob("refused-*")]


@pytest.mark.parametrize("engine", SERVERS)
def test_an_option_that_our_driver_does_not_know_is_one_line(
    engine: str, make_app: AppMaker
) -> None:
    url = sa.make_url(SERVERS[engine]).update_query_dict({"ssl_mode": "REQUIRED"})
    app = make_app(ADROLL_OUTBOX_URL=url.render_as_string(hide_password=False))
    line, _ = invoke(app, "outbox", code=1).output.splitlines()
    assert "ssl_mode" in line
    assert "options" in line


@pytest.mark.parametrize(
    "defaults",
    [
        "sql_mode = 'ORACLE'",
        "sql_mode = 'EMPTY_STRING_IS_NULL'",
        "sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,ONLY_FULL_GROUP_BY'",
        "sql_safe_updates = 1",
        "sql_select_limit = 1",
    ],
)
def test_what_a_server_has_as_its_defaults_changes_nothing(
    make_bench: Callable[[str], Bench], defaults: str
) -> None:
    bench = make_bench("mariadb")
    url = sa.make_url(bench.url or "").update_query_dict({"init_command": f"SET {defaults}"})
    settings: dict[str, Any] = {"outbox_url": url.render_as_string(hide_password=False)}
    outbox = bench.open(**settings)
    bench.report(outbox, "1", "2", "it's \\")
    assert deliver(outbox) == ["1", "2", "it's \\"]

    bench.report(bench.open(**settings), "1", "2", "3")
    assert deliver(outbox) == ["3"]

    assert told(outbox, "at", "outcome").total() == 6, "four delivered, two duplicates"
    outbox.admin.keep_house()
    assert not [*bench.journal.glob("refused-*")]


def test_bounds_of_ours_are_not_those_of_the_server(make_bench: Callable[[str], Bench]) -> None:
    bench = make_bench("mariadb")
    command = "SET max_statement_time = 3, unique_checks = 0"
    url = sa.make_url(bench.url or "").update_query_dict({"init_command": command})
    outbox = bench.open(outbox_url=url.render_as_string(hide_password=False))
    bounds = "SELECT @@max_statement_time, @@unique_checks"
    assert outbox.database.read(lambda tx: tx.rows(bounds)) == [(15.0, 1)]


def test_the_server_keeps_no_plan_of_a_statement_of_ours(
    make_bench: Callable[[str], Bench],
) -> None:
    """Made for an empty table, it would be kept for a million rows; a pooler may refuse it."""
    outbox = make_bench("postgresql").open()
    prepared = "SELECT count(*) FROM pg_prepared_statements"
    counts = [outbox.database.read(lambda tx: tx.rows(prepared)) for _ in range(10)]
    assert counts == [[(0,)]] * 10  # psycopg prepares what it has sent five times


@pytest.mark.parametrize("fresh", ["mariadb"], indirect=True)
def test_a_server_s_default_format_of_rows_is_not_ours(fresh: Bench) -> None:
    """With COMPACT the index of keys was too wide, and no table was made."""
    fresh.open().database.create_tables()
    made = fresh.execute("SHOW CREATE TABLE adroll_event")[0][1]
    assert "ROW_FORMAT=DYNAMIC" in made


def test_a_url_that_sqlalchemy_wrote_names_the_same_file(sqlite: Bench) -> None:
    path = sqlite.folder / "50% of \N{OHM SIGN} #1.sqlite"
    url = sa.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    outbox = sqlite.open(outbox_url=url)
    sqlite.insert(outbox, "1")
    assert path.exists()


@pytest.mark.parametrize("fresh", ["mariadb"], indirect=True)
def test_a_table_that_was_converted_takes_no_order_for_another(fresh: Bench) -> None:
    """Keys that differ in a letter's case were put aside, and one's release sent another."""
    outbox = fresh.open()
    fresh.insert(outbox, "Held", held_for=60.0)
    convert = "ALTER TABLE adroll_event CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_{}"
    fresh.execute(convert.format("general_ci"))
    outbox.decide(Verdict(fresh.now(), "release", OrderKey(EID, False, "purchase", "held")))
    fresh.report(outbox, "Order", "order", "\N{LATIN CAPITAL LETTER O WITH ACUTE}rder")
    with pytest.raises(OutboxFailed, match="utf8mb4_bin"):
        deliver(outbox)

    fresh.execute(convert.format("bin"))

    assert deliver(outbox) == ["Order", "order", "\N{LATIN CAPITAL LETTER O WITH ACUTE}rder"]
    assert outbox.lookups.counts()["held"] == 1


def test_no_statement_is_longer_than_the_server_takes(make_bench: Callable[[str], Bench]) -> None:
    """It closed the connection at each try, and nothing came in any more."""
    bench = make_bench("mariadb")
    bench.open().database.create_tables()
    most = "max_allowed_packet"
    [(before,)] = bench.execute(f"SELECT @@GLOBAL.{most}")
    bench.execute(f"SET GLOBAL {most} = 262144")  # of connections that are made from now on
    try:
        outbox = bench.open()
        bench.report(outbox, *map(str, range(200)), payload=b'{"x":"%s"}' % (b"x" * 3000))
        assert len(deliver(outbox)) == 200
    finally:
        bench.execute(f"SET GLOBAL {most} = {before}")


def test_a_server_that_only_read_is_written_once_it_may_be(
    make_bench: Callable[[str], Bench],
) -> None:
    """A connection stays as it was made: after a failover it is one to the former primary."""
    bench = make_bench("postgresql")
    bench.open().database.create_tables()
    with a_user(bench, "ALL", is_reader=True) as url:
        outbox = bench.open(outbox_url=url)
        outbox.put(bench.event("1"))
        with pytest.raises(OutboxFailed, match="read_only"):
            deliver(outbox)
        user = sa.make_url(url).username
        bench.execute(f"ALTER ROLE {user} SET default_transaction_read_only = off")
        assert deliver(outbox) == ["1"]
        outbox.close()


def test_a_node_that_has_left_its_cluster_is_not_asked_again(
    make_bench: Callable[[str], Bench],
) -> None:
    """Behind a balancer of Galera's nodes a new connection leads to one that is well."""
    bench = make_bench("mariadb")
    outbox = bench.open()
    bench.insert(outbox, "1")
    [(newest,)] = bench.execute("SELECT max(id) FROM information_schema.processlist")
    bench.execute(
        "CREATE TRIGGER has_left BEFORE INSERT ON adroll_event FOR EACH ROW"
        f" IF connection_id() <= {newest} THEN SIGNAL SQLSTATE '08S01' SET mysql_errno = 1047,"
        " message_text = 'WSREP has not yet prepared node for application use'; END IF"
    )
    outbox.put(bench.event("2"))
    assert deliver(outbox) == ["1", "2"]
