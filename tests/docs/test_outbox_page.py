"""The outbox's page names every table, column and state that there is."""

from __future__ import annotations

import re
from pathlib import Path

import sqlalchemy as sa

from adroll_flask.outbox import schema
from adroll_flask.outbox.values import DECIDED, NAME

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "outbox.md"


def test_it_names_every_table_every_column_of_an_event_and_every_state() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        schema.create_tables(connection)
        tables = sa.inspect(connection).get_table_names()
        columns = {column["name"] for column in sa.inspect(connection).get_columns("adroll_event")}
    page = PAGE.read_text()
    named = set(re.findall(r"`(\w+)`", page))

    assert set(tables) <= named
    assert columns <= named
    states = re.search(r"\| `state` \| (.+?) \|", page)
    assert states is not None
    assert states[1] == ", ".join(
        f"{number} {name}" for number, name in sorted({**NAME, DECIDED: "decided"}.items())
    )
