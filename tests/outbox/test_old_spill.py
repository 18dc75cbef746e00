"""The spill file of versions before the journal: read once, nothing of it lost."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from adroll_flask.outbox import Outbox, new_id
from adroll_flask.outbox.record_format import EventRecord
from tests.support.outbox_engines import EID, Bench
from tests.support.patching import replace_method

NAME = "adroll-spill.jsonl"


def line(bench: Bench, key: str | None, **changes: object) -> bytes:
    """An event as the older version spilled it."""
    fields: dict[str, object] = {
        "id": new_id(bench.now()),
        "name": "purchase",
        "advertisable_eid": EID,
        "dry_run": False,
        "key": key,
        "payload": '{"n":"é"}'.encode().decode("latin-1"),
        "occurred_at": bench.now() - 120,
        "digest": "59.9 EUR",
        "at": bench.now() - 60,
    }
    return json.dumps(fields | changes).encode() + b"\n"


def spill(bench: Bench, *lines: bytes, name: str = NAME) -> Path:
    path = bench.folder / name
    path.write_bytes(b"".join(lines))
    return path


def left(bench: Bench) -> set[str]:
    return {path.name for path in bench.folder.glob(f"{NAME}*")}


def keys(outbox: Outbox) -> list[str]:
    return sorted(row.key or "" for row in outbox.admin.list(limit=10_000))


@pytest.mark.parametrize("name", [NAME, f"{NAME}.reading"])
def test_what_was_spilled_comes_in_once_and_the_file_goes(bench: Bench, name: str) -> None:
    spill(bench, *(line(bench, str(order)) for order in range(450)), name=name)
    (bench.folder / f"{NAME}.lock").touch()
    (bench.folder / f"{NAME}.progress").write_text("17")
    outbox = bench.open()
    assert outbox.exists()

    assert outbox.queue.waiting() == 450

    assert left(bench) == set()
    assert bench.open().queue.waiting() == 450
    row = outbox.admin.show(outbox.admin.list(limit=1)[0].id)
    assert row is not None
    assert row.payload == '{"n":"é"}'.encode()
    assert row.queued_at == pytest.approx(bench.now() - 60, abs=30)
    assert bench.counters.get("event_duplicate") == 0


def test_a_worker_takes_it_in_as_well(bench: Bench) -> None:
    spill(bench, line(bench, "1"))
    outbox = bench.open()

    claims = [outbox.queue.claim(), outbox.queue.claim()]

    assert [event.key for claim in claims if claim is not None for event in claim.events] == ["1"]
    assert left(bench) == set()


def test_it_is_found_wherever_the_journal_is(bench: Bench) -> None:
    spill(bench, line(bench, "1"))
    outbox = bench.open(journal_folder=str(bench.folder / "another" / "place"))

    assert outbox.exists()
    assert keys(outbox) == ["1"]
    assert left(bench) == set()


def test_a_dead_letter_stays_one_and_a_duplicate_is_dropped(bench: Bench) -> None:
    outbox = bench.open()
    outbox.put(bench.event("1001"))
    assert outbox.queue.waiting() == 1  # and then comes what an older process still spills
    spill(
        bench,
        line(bench, "1001"),
        line(bench, None, dead=["invalid:currency", "three letters"]),
        line(bench, "1002"),
        line(bench, "1002"),
    )

    assert outbox.queue.waiting() == 2

    (dead,) = outbox.admin.list("dead")
    assert (dead.reason, dead.error) == ("invalid:currency", "three letters")
    assert bench.counters.get("event_duplicate") == 2


@pytest.mark.parametrize(
    "harm",
    [
        b"\x00" * 4096,
        b"{}",
        b"[]",
        b"null",
        b'{"id":"x"}',
        b"\xff\xfe",
        b'{"a":' * 200_000,
        b'{"id":"torn by a kill',
    ],
    ids=range(8),
)
def test_a_line_that_is_no_event_is_set_apart_and_stops_no_other(
    bench: Bench, harm: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    spill(bench, line(bench, "1"), harm + b"\n", line(bench, "2"))
    outbox = bench.open()
    gc.collect()  # what other tests left must not be finalised at the limit of recursion

    assert keys(outbox) == ["1", "2"]

    assert left(bench) == {f"{NAME}.bad"}
    assert (bench.folder / f"{NAME}.bad").read_bytes() == harm + b"\n"
    assert "damaged" in caplog.text
    assert bench.open().queue.waiting() == 2, "and is not read again"


def test_a_reader_that_was_killed_leaves_all_to_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill(bench, *(line(bench, str(order)) for order in range(450)))

    class Killed(BaseException):
        pass

    outbox = bench.open()
    ingest = outbox._parts.ingest  # type: ignore[attr-defined]
    really = ingest._write_old
    calls = 0

    def write(records: Sequence[EventRecord]) -> None:
        nonlocal calls
        calls += 1
        really(records)
        if calls == 2:
            raise Killed

    with monkeypatch.context() as patch:
        replace_method(patch, ingest, "_write_old", write)
        with pytest.raises(Killed):
            outbox.queue.waiting()

    assert bench.open().queue.waiting() == 450
    assert left(bench) == set()
    assert bench.counters.get("event_duplicate") == 0


def test_two_who_look_at_once_read_it_once(bench: Bench) -> None:
    bench.open().housekeeping.create_tables()
    spill(bench, *(line(bench, str(order)) for order in range(450)))
    start = threading.Barrier(4)

    def look(outbox: Outbox) -> None:
        start.wait()
        assert outbox.queue.waiting() <= 450

    threads = [threading.Thread(target=look, args=(bench.open(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert bench.open().queue.waiting() == 450
    assert left(bench) == set()
    assert bench.counters.get("event_duplicate") == 0


def test_a_process_of_the_older_version_that_appends_loses_nothing(sqlite: Bench) -> None:
    """It holds the file's lock while it appends, and looks whether the file is still in place."""
    path = spill(sqlite, line(sqlite, "before"))
    outbox = sqlite.open()
    outbox.housekeeping.create_tables()
    with path.open("ab") as appending:
        fcntl.flock(appending, fcntl.LOCK_EX)
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(outbox.queue.waiting()))
        thread.start()
        thread.join(0.2)
        assert found == [], "who reads waits for it"
        appending.write(line(sqlite, "appended"))
        appending.flush()
        fcntl.flock(appending, fcntl.LOCK_UN)
        thread.join()
    assert found == [2]
    spill(sqlite, line(sqlite, "later"))
    assert keys(outbox) == ["appended", "before", "later"]


def test_a_file_that_may_not_be_read_is_told_and_stops_nothing(
    sqlite: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spill(sqlite, line(sqlite, "1"))
    outbox = sqlite.open()
    outbox.put(sqlite.event("2"))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        assert keys(outbox) == ["2"]

    assert "cannot be read" in caplog.text
    assert keys(outbox) == ["1", "2"]
    assert os.listdir(sqlite.folder)
