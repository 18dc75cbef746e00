"""``flask adroll check`` and ``outbox`` on every engine, and where the database is down."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from outbox_engines import ENGINES, Bench

from adroll_flask.outbox.schema import drop_tables
from tests.conftest import AppMaker


def outbox_finding(app: Any) -> dict[str, str]:
    result = app.test_cli_runner().invoke(args=["adroll", "check", "--json"])
    assert result.exit_code == 0, result.output
    [found] = [f for f in json.loads(result.output)["findings"] if f["subject"] == "outbox"]
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_check_makes_no_tables_on_a_server(
    engine: str, make_bench: Callable[[str], Bench], make_app: AppMaker
) -> None:
    bench = make_bench(engine)
    with bench.sql().begin() as connection:
        drop_tables(connection)
    app = make_app(ADROLL_OUTBOX_URL=bench.url)
    found = outbox_finding(app)
    assert found["level"] == "info"
    assert "its tables are not there yet; they are made at the first use" in found["text"]
    assert "flask adroll outbox create-table" in found["mend"]
    assert not sa.inspect(bench.sql()).has_table("adroll_meta")
    made = app.test_cli_runner().invoke(args=["adroll", "outbox", "create-table"])
    assert made.exit_code == 0
    found = outbox_finding(app)
    assert (found["level"], "0 waiting" in found["text"]) == ("ok", True)
