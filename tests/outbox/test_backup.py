"""Copies of an outbox: made beside the work, and sending nothing by themselves."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from adroll_flask import report_conversion
from adroll_flask.cli.commands import commands
from adroll_flask.outbox import Outbox, Outcome, open_outbox
from adroll_flask.settings import Settings
from tests.conftest import AppMaker
from tests.support.outbox_engines import Bench


def deliver(outbox: Outbox) -> list[str | None]:
    sent: list[str | None] = []
    while claim := outbox.queue.claim():
        outbox.queue.begin_sending(claim)
        outbox.queue.settle(claim, [Outcome(id=e.id, kind="delivered") for e in claim.events])
        sent += [event.key for event in claim.events]
    return sorted(sent, key=str)


def test_a_restored_copy_sends_nothing_until_somebody_says_so(
    sqlite: Bench, tmp_path: Path
) -> None:
    outbox = sqlite.open()
    for order in ("sent before", "claimed", "sending", "waiting"):
        outbox.put(sqlite.event(order))
        sqlite.clock.now += 1
    first = outbox.queue.claim(1)
    assert first is not None
    outbox.queue.begin_sending(first)
    outbox.queue.settle(first, [Outcome(id=first.events[0].id, kind="delivered")])
    outbox.queue.claim(1)
    outbox.queue.claim(1, begin=True)
    copy = tmp_path / "copy.sqlite"
    outbox.housekeeping.backup(copy)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.glob("copy.sqlite*")] == ["copy.sqlite"]
    # The original goes on.
    assert deliver(outbox) == ["waiting"]

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(copy, elsewhere / "adroll-outbox.sqlite")
    for _ in range(2):  # the second one finds no mark, and nothing to do
        restored = open_outbox(Settings(), folder=elsewhere, clock=sqlite.clock)
        sqlite.clock.now += 3600
        assert deliver(restored) == []
        dead = restored.admin.list("dead")
        assert {(row.key, row.reason, row.unsure) for row in dead} == {
            ("claimed", "restored", True),
            ("sending", "restored", True),
            ("waiting", "restored", True),
        }
        assert restored.admin.overview().rates["day"]["dead"] == 3
        restored.close()

    restored = open_outbox(Settings(), folder=elsewhere, clock=sqlite.clock)
    # What is reported from now on is sent, and a known order is a duplicate as before.
    for order in ("new", "sent before", "waiting"):
        restored.put(sqlite.event(order))
    assert deliver(restored) == ["new"]
    [waiting] = [row.id for row in dead if row.key == "waiting"]
    restored.admin.retry([waiting])
    claim = restored.queue.claim()
    assert claim is not None
    assert [(event.key, event.unsure) for event in claim.events] == [("waiting", True)]
    restored.close()


def test_a_backup_is_made_while_reports_go_on(sqlite: Bench, tmp_path: Path) -> None:
    outbox = sqlite.open()
    for number in range(200):
        outbox.put(sqlite.event(f"before {number}"))
    stop = threading.Event()

    def report() -> None:
        other, number = sqlite.open(), 0
        while not stop.is_set():
            other.put(sqlite.event(f"meanwhile {number}"))
            other.queue.take_in()
            number += 1

    reporter = threading.Thread(target=report)
    reporter.start()
    try:
        outbox.housekeeping.backup(tmp_path / "copy.sqlite")
    finally:
        stop.set()
        reporter.join()
    with closing(sqlite3.connect(tmp_path / "copy.sqlite")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        query = "SELECT count(*) FROM adroll_event WHERE dedupe_key LIKE 'before %'"
        assert copy.execute(query).fetchone() == (200,)
    # The original is no copy.
    assert sqlite.open().admin.list("dead") == ()


def test_a_backup_that_cannot_be_made_leaves_nothing(sqlite: Bench, tmp_path: Path) -> None:
    outbox = sqlite.open()
    outbox.put(sqlite.event("1"))
    there = tmp_path / "there.sqlite"
    there.write_text("precious")
    with pytest.raises(FileExistsError):
        outbox.housekeeping.backup(there)
    assert there.read_text() == "precious"
    assert [path.name for path in tmp_path.glob("there*")] == ["there.sqlite"]


def test_a_servers_restored_dump_sends_nothing_once_that_is_said(
    bench: Bench, make_app: AppMaker
) -> None:
    outbox = bench.open()
    outbox.put(bench.event("1"))
    outbox.queue.take_in()
    assert outbox.housekeeping.lay_to_rest() == 1
    assert deliver(bench.open()) == []
    [row] = outbox.admin.list("dead")
    assert (row.key, row.reason, row.unsure) == ("1", "restored", True)
    assert outbox.housekeeping.lay_to_rest() == 0


def test_the_commands_say_what_they_did_and_what_a_server_takes(
    make_app: AppMaker, tmp_path: Path
) -> None:
    app = make_app()
    run = app.test_cli_runner().invoke
    copy = tmp_path / "copy.sqlite"
    nothing = run(commands, ["outbox", "backup", str(copy)])
    assert (nothing.exit_code, "nothing was reported yet" in nothing.output) == (1, True)
    with app.test_request_context("/?adct=c", environ_base={"REMOTE_ADDR": "203.0.113.7"}):
        report_conversion(order_id="1", value=1, currency="EUR")
    done = run(commands, ["outbox", "backup", str(copy)])
    assert (done.exit_code, done.output) == (0, f"the outbox is copied to {copy}\n")
    again = run(commands, ["outbox", "backup", str(copy)])
    assert (again.exit_code, "is there already" in again.output) == (1, True)
    nowhere = run(commands, ["outbox", "backup", str(tmp_path / "no" / "copy")])
    assert (nowhere.exit_code, "cannot be made: No such file" in nowhere.output) == (1, True)
    said = run(commands, ["outbox", "restored"])
    assert said.output == "1 event will not be sent until retried\n"
    server = make_app(ADROLL_OUTBOX_URL="postgresql+psycopg://nobody@127.0.0.1:9/shop")
    refused = server.test_cli_runner().invoke(commands, ["outbox", "backup", str(copy) + "2"])
    assert refused.exit_code == 1
    assert "pg_dump" in refused.output
    assert "flask adroll outbox restored" in refused.output
