"""Event names that somebody makes up (a view that passes on what a browser says) stay few."""

import json
from pathlib import Path

import pytest

from adroll_flask import report_event
from adroll_flask.cli.commands import commands
from tests.conftest import AppMaker


@pytest.mark.parametrize("end", ["invalid", "suppressed", "failed"])
def test_names_made_up_stay_bounded_in_the_history(end: str, make_app: AppMaker) -> None:
    app = make_app(ADROLL_STRICT=False)
    journal = Path(app.instance_path) / "adroll-journal"
    if end == "failed":
        journal.parent.mkdir()
        journal.write_text("in the way")
    found = set()
    for number in range(300):
        with app.test_request_context(
            "/?adct=click-1",
            environ_base={"REMOTE_ADDR": "203.0.113.9"},
            headers={"Sec-GPC": "1"} if end == "suppressed" else {},
        ):
            found.add(report_event(f"made-up-{number}").status)  # type: ignore[arg-type]
    assert found == {end}
    if end == "failed":
        journal.unlink()
        app.extensions["adroll"].outbox.measure()

    done = app.test_cli_runner().invoke(commands, ["history", "--by", "event", "--json"])

    rows = json.loads(done.output)
    assert sum(row["events"] for row in rows) == 300
    assert {row["event"] for row in rows} == {"unknown"}
