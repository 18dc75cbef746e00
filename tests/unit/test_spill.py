"""The spill file: what it took is read back, once, whatever happened in between."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroll_flask.outbox import NewEvent, OutboxFailed, new_id
from adroll_flask.outbox.spill import Spilled, SpillFile, decode, encode


def spilled(key: str | None = "1001", payload: bytes = b'{"a":1}') -> Spilled:
    event = NewEvent(
        id=new_id(1_800_000_000.0),
        name="purchase",
        advertisable_eid="EID",
        dry_run=False,
        key=key,
        payload=payload,
        occurred_at=1_800_000_000.25,
        digest="59.90 EUR",
    )
    return Spilled(event, 1_800_000_001.5)


@pytest.fixture
def file(tmp_path: Path) -> SpillFile:
    return SpillFile(tmp_path / "spill.jsonl", max_bytes=0)


def drained(file: SpillFile, batches: int | None = None) -> list[str | None]:
    found: list[str | None] = []

    def take(batch: Sequence[Spilled]) -> None:
        found.extend(one.event.key for one in batch)

    file.drain(take, batches=batches)
    return found


def test_what_was_appended_comes_back_in_order_and_the_file_is_gone(file: SpillFile) -> None:
    for n in range(5):
        file.append(spilled(str(n)))
    assert file.exists()
    assert file.size() > 0

    assert drained(file) == ["0", "1", "2", "3", "4"]

    assert not file.exists()
    assert drained(file) == []
    assert sorted(path.suffix for path in file.path.parent.iterdir()) == [".lock"]


@given(
    payload=st.binary(max_size=200),
    key=st.none() | st.text(max_size=50),
    dead=st.none() | st.tuples(st.text(max_size=20), st.text(max_size=20)),
)
def test_any_event_survives_the_line(
    payload: bytes, key: str | None, dead: tuple[str, str] | None
) -> None:
    one = spilled(key, payload)
    one = Spilled(one.event, one.at, dead)

    line = encode(one)

    assert line.strip().count(b"\n") == 0
    assert decode(line) == one


def test_a_dead_letter_stays_one(file: SpillFile) -> None:
    one = Spilled(spilled().event, 1.0, ("invalid:currency", "three letters"))
    file.append(one)
    found: list[Spilled] = []

    file.drain(found.extend)

    assert found == [one]


def test_only_the_owner_may_read_it(file: SpillFile) -> None:
    old = os.umask(0)
    try:
        file.append(spilled())
        file.keep_bad(b"x")
    finally:
        os.umask(old)

    modes = {stat.S_IMODE(path.stat().st_mode) for path in file.path.parent.iterdir()}
    assert modes == {0o600}


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_torn_by_a_kill_harms_neither_the_one_before_nor_the_one_after(
    file: SpillFile, cut: int
) -> None:
    file.append(spilled("before"))
    whole = file.path.read_bytes()
    with file.path.open("ab") as torn:
        torn.write(encode(spilled("torn"))[:-cut])
    file.append(spilled("after"))

    found = drained(file)

    assert found in (["before", "after"], ["before", "torn", "after"])
    assert whole


@pytest.mark.parametrize(
    "line",
    [
        b"\x00" * 4096,
        b"{}",
        b"[]",
        b"null",
        b'{"id":"x"}',
        b"\xff\xfe",
        b'{"a":' * 200_000,
        json.dumps({"event": 1}).encode(),
        encode(spilled()).replace(b'"id":"', b'"id":"z').strip(),
        encode(spilled()).replace(b'"payload":"', b'"payload":"\\u20ac').strip(),
    ],
    ids=range(10),
)
def test_a_line_that_is_no_event_is_set_apart(file: SpillFile, line: bytes) -> None:
    file.append(spilled("1"))
    with file.path.open("ab") as harmed:
        harmed.write(line + b"\n")
    file.append(spilled("2"))

    assert drained(file) == ["1", "2"]
    assert Path(f"{file.path}.bad").read_bytes().startswith(line[:20])


def test_a_reader_that_fails_leaves_the_rest_to_the_next(file: SpillFile) -> None:
    for n in range(450):
        file.append(spilled(str(n)))
    taken: list[str | None] = []

    def take(batch: Sequence[Spilled]) -> None:
        if taken:
            raise OutboxFailed("unavailable")
        taken.extend(one.event.key for one in batch)

    with pytest.raises(OutboxFailed):
        file.drain(take)
    file.append(spilled("new"))

    assert len(taken) == 200
    rest = drained(file)
    assert taken + rest == [*map(str, range(450)), "new"]


def test_a_reader_killed_after_its_commit_repeats_one_batch_at_most(file: SpillFile) -> None:
    for n in range(450):
        file.append(spilled(str(n)))
    batches = 0

    class Killed(BaseException):
        pass

    def take(batch: Sequence[Spilled]) -> None:
        nonlocal batches
        batches += 1
        if batches == 2:
            raise Killed

    with pytest.raises(Killed):
        file.drain(take)

    assert drained(file) == [str(n) for n in range(200, 450)]


def test_a_file_is_read_in_steps(file: SpillFile) -> None:
    for n in range(450):
        file.append(spilled(str(n)))

    steps = [len(drained(file, batches=1)) for _ in range(4)]

    assert steps == [200, 200, 50, 0]


def test_two_readers_do_not_read_the_same_file(file: SpillFile) -> None:
    file.append(spilled("1"))
    other = SpillFile(file.path, max_bytes=0)
    inner: list[str | None] = []

    def take(batch: Sequence[Spilled]) -> None:
        inner.extend(drained(other))

    assert file.drain(take) == 1
    assert inner == []


def test_an_append_during_a_reading_goes_to_the_next_file(file: SpillFile) -> None:
    file.append(spilled("1"))
    seen: list[str | None] = []

    def take(batch: Sequence[Spilled]) -> None:
        if not seen:
            file.append(spilled("2"))
        seen.extend(one.event.key for one in batch)

    file.drain(take)

    assert seen == ["1", "2"]


def test_beyond_its_bound_it_refuses(tmp_path: Path) -> None:
    file = SpillFile(tmp_path / "spill.jsonl", max_bytes=1000)
    file.append(spilled("1"))
    with pytest.raises(OutboxFailed) as caught:
        file.append(spilled("2", payload=b"x" * 2000))

    assert caught.value.reason == "full"
    assert drained(file) == ["1"]


def test_what_a_full_disk_took_in_part_does_not_come_back(
    file: SpillFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.append(spilled("1"))
    size = file.path.stat().st_size
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda handle, data: write(handle, data[:100]))
        with pytest.raises(OutboxFailed) as caught:
            file.append(spilled("2"))

    assert caught.value.reason == "disk_full"
    assert file.path.stat().st_size == size
    assert drained(file) == ["1"]


def test_what_was_not_flushed_is_not_acknowledged(
    file: SpillFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(5, "input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OutboxFailed):
            file.append(spilled("1"))

    assert drained(file) == []


def test_a_folder_that_takes_nothing_fails_the_report(tmp_path: Path) -> None:
    (tmp_path / "wall").write_text("")
    with pytest.raises(OutboxFailed):
        SpillFile(tmp_path / "wall" / "spill.jsonl", max_bytes=0).append(spilled())


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "spill.jsonl").symlink_to(target)

    with pytest.raises(OutboxFailed):
        SpillFile(tmp_path / "spill.jsonl", max_bytes=0).append(spilled())
    assert target.read_text() == ""


def test_threads_append_and_read_at_once_and_nothing_is_lost(file: SpillFile) -> None:
    found: list[str | None] = []
    done = threading.Event()

    def append(number: int) -> None:
        for n in range(25):
            file.append(spilled(f"{number}-{n}"))

    def read() -> None:
        while not done.is_set():
            found.extend(drained(file))

    writers = [threading.Thread(target=append, args=(n,)) for n in range(4)]
    reader = threading.Thread(target=read)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    found += drained(file)

    assert sorted(map(str, found)) == sorted(f"{a}-{b}" for a in range(4) for b in range(25))


def test_processes_killed_while_they_append_lose_nothing_acknowledged(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from adroll_flask.outbox import NewEvent, new_id
        from adroll_flask.outbox.spill import Spilled, SpillFile
        file = SpillFile(Path(sys.argv[1]), max_bytes=0)
        n = 0
        while True:
            key = f"{sys.argv[2]}-{n}"
            file.append(Spilled(NewEvent(new_id(1e9), "purchase", "", False, key, b"{}", 1e9), 1e9))
            print(key, flush=True)
            n += 1
        """
    )
    path = tmp_path / "spill.jsonl"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(n)], stdout=subprocess.PIPE, text=True
        )
        for n in range(3)
    ]
    acknowledged: set[str] = set()
    found: set[str | None] = set()
    for process in processes:
        assert process.stdout is not None
        acknowledged.add(process.stdout.readline().strip())
        found |= set(drained(SpillFile(path, max_bytes=0)))
        process.kill()
        acknowledged |= set(process.stdout.read().split("\n")[:-1])
        process.wait()
        process.stdout.close()
    found |= set(drained(SpillFile(path, max_bytes=0)))

    assert acknowledged <= found
