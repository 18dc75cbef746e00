"""The table of transitions: it is all that changes a state, and the documentation draws it."""

import re
from functools import partial
from typing import Any

from adroll_flask.outbox.rows import Written
from adroll_flask.outbox.schema import Tx
from adroll_flask.outbox.transitions import TABLE, move
from tests.support import ROOT
from tests.support.outbox_engines import Bench, Withdrawal


def test_the_documentation_has_the_table_as_a_diagram() -> None:
    drawn = ["stateDiagram-v2"]
    for name, rule in TABLE.items():
        target = "[*]" if rule.target is None else rule.target.name
        drawn += [f"    {source.name} --> {target}: {name}" for source in rule.sources]
    assert "\n".join(drawn) in (ROOT / "docs/explanation/outbox.md").read_text()


class Explained(Tx):
    """Asks how SQLite would go about each statement."""

    dialect, now, kept_until = "sqlite", 0.0, 0.0

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self.plans: list[str] = []

    def run(self, statement: str, _: dict[str, Any], /) -> list[Any]:
        values = dict.fromkeys(re.findall(r":(\w+)", statement)) | {"ids": ["1"]}
        steps = self._tx.rows(f"EXPLAIN QUERY PLAN {statement}", **values)
        self.plans += [step[3] for step in steps if "adroll_event" in step[3]]
        if "adroll_meta" in statement:
            return [("outbox_id", "1")]
        if ", dedupe_key" not in statement:
            return [("1",)]
        brief = ("1", "1", "purchase", None, "", *[0] * 5, "", 0, None, None)
        return [(*brief, 0, 0, "", "", *[None] * 3, 1, "", None, "", None, None)]

    def execute(self, statement: str, /, **values: Any) -> int:
        return len(self.rows(statement, **values))

    def many(self, *_: Any) -> int:
        return 0


def test_sqlite_finds_events_by_their_ids_however_many_have_that_state(sqlite: Bench) -> None:
    database = sqlite.open().database
    for name in TABLE:
        plans = database.write(partial(_plans, name))
        assert plans
        assert all("(id=?)" in plan for plan in plans), (name, plans)


def test_sqlite_finds_what_a_visitor_withdraws_by_its_record(sqlite: Bench) -> None:
    outbox, plans = sqlite.open(), []

    def withdraw(tx: Tx) -> None:
        explained = Explained(tx)
        outbox.ingest.rows.write(explained, [Withdrawal(0.0, "a record")], Written())
        plans.extend(explained.plans)

    outbox.database.write(withdraw)
    index = "adroll_event_record (record_hash=?)"
    assert any(index in plan for plan in plans), (index, plans)
    assert not any("SCAN" in plan for plan in plans), plans


def _plans(name: str, tx: Tx) -> list[str]:
    explained = Explained(tx)
    move(explained, name, ["1"])
    return explained.plans
