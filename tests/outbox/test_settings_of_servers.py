"""Databases and servers as their administrators set them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import AppMaker
from tests.support.outbox_engines import (
    SERVERS,
    Bench,
    OutboxFailed,
    bury,
    database,
    deliver,
    shown,
    status,
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
