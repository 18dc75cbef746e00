"""Behind PgBouncer: the shop shares connections with us, and finds them as they were."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.support import answers, eventually, free_port, program, started
from tests.support.outbox_engines import Bench, OutboxFailed, database, deliver, status

pytestmark = pytest.mark.slow

#: What a connection has of its own, and a shop relies on.
SETTINGS = (
    *("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"),
    *("transaction_isolation", "default_transaction_isolation", "enable_bitmapscan"),
)
CONFIG = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
# One connection to the server: whatever is left on it, the next one has.
default_pool_size = 1
min_pool_size = 1
logfile = {folder}/log
"""


@contextmanager
def pgbouncer(mode: str, url: sa.URL) -> Iterator[sa.URL]:
    """*url* through a PgBouncer that gives a connection away after each *mode*."""
    command = program("pgbouncer", "pgbouncer")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder, listen = Path(name), free_port()
        config = folder / "pgbouncer.ini"
        at = {"host": url.host, "port": url.port, "user": url.username}
        config.write_text(CONFIG.format(listen=listen, mode=mode, folder=folder, **at))
        options = ["-q"]
        if os.geteuid() == 0:  # as which it does not run
            options += ["-u", "nobody"]
            folder.chmod(0o755)
            shutil.chown(folder, "nobody")
        with started(command, *options, config, gently=True):
            eventually(lambda: answers(listen))
            yield url.set(host="127.0.0.1", port=listen)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with database("postgresql", whole=True) as url:
        bench = Bench("postgresql", url, tmp_path)
        # The shop's own defaults, which are not ours.
        name = sa.make_url(url).database
        bench.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
        bench.execute(f"ALTER DATABASE {name} SET statement_timeout = '123s'")
        yield bench
        bench.close()


def of_the_shop(url: sa.URL) -> dict[str, str]:
    """The settings that the shop's next transaction has."""
    engine = sa.create_engine(
        url, poolclass=sa.pool.NullPool, connect_args={"prepare_threshold": None}
    )
    with engine.connect() as connection:
        show = {name: sa.text(f"SHOW {name}") for name in SETTINGS}
        found = {name: str(connection.execute(show[name]).scalar()) for name in SETTINGS}
    engine.dispose()
    return found


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_nothing_of_ours_is_left_on_the_shop_s_connections(bench: Bench, mode: str) -> None:
    with pgbouncer(mode, sa.make_url(bench.url or "")) as url:
        before = of_the_shop(url)
        assert before["statement_timeout"] == "123s"
        outbox = bench.open(outbox_url=url.render_as_string(hide_password=False))
        bench.insert(outbox, "1", "2")
        if mode == "transaction":  # else the one connection is ours while we have it
            assert of_the_shop(url) == before
            engine = sa.create_engine(url, connect_args={"prepare_threshold": None})
            with Session(engine) as session:
                assert status(outbox, bench.event("3"), session=session) == "queued"
                session.commit()
            engine.dispose()
        assert deliver(outbox) == ["1", "2", *(["3"] if mode == "transaction" else [])]
        outbox.admin.keep_house()
        outbox.measure()
        outbox.close()
        assert of_the_shop(url) == before


def test_our_own_transactions_have_their_bounds(bench: Bench) -> None:
    def look(tx: object) -> list[str]:
        return [str(tx.rows(f"SHOW {name}")[0][0]) for name in SETTINGS]  # type: ignore[attr-defined]

    with pgbouncer("transaction", sa.make_url(bench.url or "")) as url:
        outbox = bench.open(outbox_url=url.render_as_string(hide_password=False))
        for _ in range(2):
            bounds = dict(zip(SETTINGS, outbox.database.read(look), strict=True))
            assert bounds["statement_timeout"] == "30s"
            assert bounds["lock_timeout"] == "10s"
            assert bounds["idle_in_transaction_session_timeout"] == "30s"
            assert bounds["transaction_isolation"] == "read committed"
            assert bounds["default_transaction_isolation"] == "serializable"
        outbox.close()


def test_a_pooler_that_allows_no_transactions_is_told_and_loses_nothing(bench: Bench) -> None:
    direct = bench.open()
    bench.insert(direct, "1")
    with pgbouncer("statement", sa.make_url(bench.url or "")) as url:
        outbox = bench.open(outbox_url=url.render_as_string(hide_password=False))
        assert status(outbox, bench.event("2")) == "queued"
        with pytest.raises(OutboxFailed, match="statement pooling"):
            deliver(outbox)
        outbox.close()
    assert deliver(direct) == ["1", "2"]
