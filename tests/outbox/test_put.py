"""Putting events: kept before it returns, in the outbox once for each key."""

import json
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from adroll_flask.outbox import model
from adroll_flask.outbox.model import OrderKey, OutboxFailed, new_id
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.outbox.recent_keys import RecentKeys
from tests.support import in_a_child
from tests.support.forking import forks_amid_threads
from tests.support.outbox_engines import EID, Bench, Clock, claimed, deliver, shown, status


def test_events_without_a_key_are_never_duplicates(bench: Bench, outbox: Outbox) -> None:
    assert [status(outbox, bench.event()) for _ in range(3)] == ["queued"] * 3
    assert outbox.queue.waiting() == 3


ORDER = "Order-1 straße a"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "addToCart"},
        {"dry_run": True},
        {"advertisable_eid": "ZZZZZZZZZZZZZZZZZZZZZZ"},
        {"key": "Order-１ straße a"},
        {"key": "order-1 straße a"},
        {"key": "Order-1 strasse a"},
        {"key": "Order-1 straße á"},
    ],
    ids=str,
)
def test_a_key_is_its_event_s_own_and_compared_exactly(
    bench: Bench, outbox: Outbox, change: dict[str, Any]
) -> None:
    def told(outbox: Outbox) -> list[str]:
        events = bench.event(ORDER), replace(bench.event(ORDER), **change)
        return [status(outbox, event) for event in events]

    assert told(outbox) == ["queued"] * 2
    assert told(outbox) == ["duplicate"] * 2
    assert told(bench.open()) == ["queued"] * 2
    assert outbox.queue.waiting() == 2
    assert bench.counters.get("event_duplicate") == 4


def test_any_json_survives_in_a_payload(bench: Bench, outbox: Outbox) -> None:
    payload = json.dumps({"any": [*map(chr, range(1, 256)), "😀"]}, ensure_ascii=False).encode()
    event = bench.event(payload=payload)

    outbox.put(event)

    claim = claimed(outbox)
    assert claim.events[0].payload == event.payload


def test_an_event_beyond_all_reason_is_refused(bench: Bench, outbox: Outbox) -> None:
    with pytest.raises(OutboxFailed, match="too_large"):
        outbox.put(bench.event(payload=b"x" * (1 << 21)))


def test_no_id_is_given_twice_while_the_clock_stands_still() -> None:
    assert len({new_id(1_800_000_000.0) for _ in range(70_000)}) == 70_000


def test_a_child_of_which_python_was_not_told_gives_ids_of_its_own() -> None:
    """uWSGI's workers are forked past Python's hooks.

    In a process of its own: a thread that waits for the interpreter at that moment would be waited
    for in the child, where it is not.
    """
    program = (
        "import ctypes, os; from adroll_flask.outbox.model import new_id; new_id(1.8e9);"
        " child = ctypes.PyDLL(None).fork(); child and os.waitpid(child, 0);"
        " print(new_id(1.8e9)[18:])"
    )
    run = [sys.executable, "-c", program]
    ids = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    assert len(ids) == len({*ids}) == 2


def test_a_valid_event_kept_back_keeps_its_key(bench: Bench, outbox: Outbox) -> None:
    why = "invalid:before_report", "raised ValueError"
    dead = outbox.put(bench.event("1001", digest="2 EUR", dead=why))

    # This process has seen the key lately; to another one it is in the outbox's index.
    assert outbox.put(bench.event("1001")) == dead
    again = outbox.put(bench.event("1001", digest="1 EUR", dead=("invalid:before_report", "")))
    assert again == dead
    other = bench.open()
    later = bench.event("1001", digest="1 EUR")
    bench.clock.now += 1.0
    assert status(other, later) == "queued"

    assert outbox.queue.waiting() == 0
    (row,) = outbox.lookups.list("dead")
    assert row.key == "1001"
    # Its value may still be changed: nobody can say that another one was reported.
    assert bench.counters.get("event_duplicate", "another_value") == 0


def test_a_dead_letter_s_reason_and_error_are_bounded(bench: Bench, outbox: Outbox) -> None:
    row = shown(outbox, outbox.put(bench.event(dead=("invalid:event_name" * 9, "x" * 5000))))

    assert (len(row.reason), len(row.error)) == (40, 1000)


def test_beyond_its_bound_the_outbox_refuses_and_takes_again_when_drained(bench: Bench) -> None:
    outbox = bench.open(outbox_max_bytes=300_000)
    big = b"x" * 10_000
    kept: list[str] = []

    def report() -> None:
        # The thread beside the requests counts nothing meanwhile: its request to AdRoll hangs.
        for _ in range(60):
            kept.append(outbox.put(bench.event(payload=big)))

    with pytest.raises(OutboxFailed, match="full"):
        report()

    assert 20 <= outbox.queue.waiting() == len(kept) <= 32
    other = bench.open(outbox_max_bytes=300_000)
    other.measure()
    with pytest.raises(OutboxFailed, match="full"):
        other.put(bench.event(payload=big))
    deliver(outbox)
    assert status(outbox, bench.event()) == "queued", "where no thread counts, too"
    later = bench.open(outbox_max_bytes=300_000)
    later.measure()
    assert status(later, bench.event()) == "queued"


@pytest.mark.parametrize(
    "how", [{}, {"held_for": 60.0}, {"dead": ("invalid:value", "no amount")}], ids=str
)
def test_what_is_taken_in_and_what_is_not_count_together(bench: Bench, how: dict[str, Any]) -> None:
    others = bench.open()
    for taken_in in (True, False):
        for _ in range(5):
            others.put(bench.event(payload=b"x" * 10_000, **how))
        if taken_in:
            others.ingest.take_in()
    outbox = bench.open(outbox_max_bytes=70_000)
    outbox.put(bench.event())

    outbox.measure()

    with pytest.raises(OutboxFailed, match="full"):
        outbox.put(bench.event())


def test_the_bound_keeps_no_loss_decision_or_no_from_being_told(bench: Bench) -> None:
    outbox = bench.open(outbox_max_bytes=70_000)
    outbox.put(bench.event("a visitor's", record_id="ann"))
    outbox.put(bench.event("held", held_for=60.0, payload=b"x" * 80_000))
    with pytest.raises(OutboxFailed, match="full"):
        outbox.put(bench.event("1001"))

    no = model.Withdrawal(bench.now() + 1, "ann")
    with pytest.raises(OutboxFailed, match="full"):  # a flood of them has an end
        list(map(outbox.record, [no] * 2000))
    outbox.decide(model.Verdict(1.0, "cancel", OrderKey(EID, False, "purchase", "held")))
    outbox.close()  # as the end of the process does

    [lost] = [one for one in bench.open().lookups.history(0, ("outcome",)) if one[2] == "failed"]
    assert lost.events == 1
    assert bench.open().queue.waiting() == bench.open().lookups.counts()["held"] == 0


def test_a_report_looks_into_no_folder(sqlite: Bench, file_calls: Counter[int]) -> None:
    outbox = sqlite.open(outbox_max_bytes=1 << 30)
    outbox.put(sqlite.event())
    outbox.measure()
    before = file_calls[threading.get_ident()]
    for _ in range(20):
        outbox.put(sqlite.event(payload=b"x" * 100_000))
    assert file_calls[threading.get_ident()] == before


def test_bad_events_fill_half_of_the_bound_and_shut_no_good_ones_out(sqlite: Bench) -> None:
    outbox = sqlite.open(outbox_max_bytes=300_000)
    outbox.put(sqlite.event(payload=b"x" * 100_000))
    outbox.measure()
    outbox.put(sqlite.event(payload=b"x" * 60_000, dead=("invalid:value", "no amount")))
    outbox.measure()
    with pytest.raises(OutboxFailed, match="full"):
        outbox.put(sqlite.event(dead=("invalid:value", "no amount")))

    assert status(outbox, sqlite.event()) == "queued"


def test_events_of_no_account_are_adopted_with_their_keys(bench: Bench, outbox: Outbox) -> None:
    early = outbox.put(bench.event("1001", advertisable_eid=""))
    twin = outbox.put(bench.event("1002", advertisable_eid=""))
    outbox.put(bench.event(None, advertisable_eid=""))
    bench.insert(outbox, "1002")

    assert outbox.queue.adopt(EID) == 3
    assert outbox.queue.adopt(EID) == 0

    outbox.put(bench.event("1001"))
    assert outbox.lookups.show(twin) is None
    assert outbox.queue.waiting() == 3
    assert outbox.lookups.show(early) is not None
    assert {row.advertisable_eid for row in outbox.lookups.list()} == {EID}

    held = outbox.put(bench.event("1003", held_for=60.0))
    outbox.put(bench.event("1003", advertisable_eid=""))  # paid, says a process without an account
    outbox.ingest.take_in()
    outbox.queue.adopt(EID)
    assert held in {row.id for row in outbox.lookups.list("waiting")}

    outbox.put(bench.event("1005", advertisable_eid="", held_for=0.0))
    outbox.ingest.take_in()
    assert outbox.admin.keep_house() == 1
    assert outbox.queue.adopt(EID) == 1
    outbox.put(bench.event("1005"))  # over is over
    assert [row.state for row in outbox.lookups.find("1005", ["purchase"])] == ["cancelled"]

    outbox.put(bench.event("1004", advertisable_eid=""))
    outbox.ingest.take_in()
    outbox.queue.adopt("NEW")  # of which there is nothing yet
    assert [row.advertisable_eid for row in outbox.lookups.find("1004", ["purchase"])] == ["NEW"]


# -- keys that this process has seen: 15 minutes, 10,000 of them, no database ----------------------


def order(key: str) -> OrderKey:
    return OrderKey(EID, False, "purchase", key)


def test_a_key_is_known_for_fifteen_minutes() -> None:
    clock = Clock()
    recent = RecentKeys(clock)
    recent.add(order("1001"), "an id", False)

    clock.now += 899
    assert recent.find(order("1001"), is_held=False) == "an id"
    clock.now += 2
    assert recent.find(order("1001"), is_held=False) is None


def test_the_newest_ten_thousand_are_known() -> None:
    recent = RecentKeys()
    for number in range(10_001):
        recent.add(order(str(number)), "an id", False)

    assert recent.find(order("0"), is_held=False) is None
    assert recent.find(order("1"), is_held=False) is not None
    assert recent.find(order("10000"), is_held=False) is not None


def test_a_report_that_was_not_kept_is_not_remembered(sqlite: Bench, outbox: Outbox) -> None:
    sqlite.journal.write_text("in the way")
    with pytest.raises(OutboxFailed, match="no_folder"):
        outbox.put(sqlite.event("1001"))
    sqlite.journal.unlink()

    assert status(outbox, sqlite.event("1001")) == "queued"
    assert outbox.queue.waiting() == 1


def test_what_another_process_dropped_is_taken_again_though_it_is_remembered(bench: Bench) -> None:
    shop, command = bench.open(), bench.open()
    shop.put(bench.event("1001", payload=b'{"n":1}'))
    for number in (2, 3):
        (row,) = command.lookups.list()
        assert command.admin.drop([row.id]).events == 1

        shop.put(bench.event("1001", payload=b'{"n":%d}' % number))

        (row,) = command.lookups.list("waiting")
        assert shown(command, row.id).payload == b'{"n":%d}' % number


def test_a_duplicate_that_finds_no_room_is_no_loss(sqlite: Bench) -> None:
    outbox = sqlite.open(outbox_max_bytes=80_000)
    first = outbox.put(sqlite.event("1001", payload=b"x" * 90_000))
    outbox.measure()

    assert outbox.put(sqlite.event("1001", payload=b"x" * 90_000)) == first
    with pytest.raises(OutboxFailed, match="full"):
        outbox.put(sqlite.event("1002", payload=b"x" * 90_000))

    deliver(outbox)
    outbox.measure()
    told = {row.outcome: row.events for row in outbox.lookups.history(0, ("outcome",))}
    assert told["failed"] == 1


@forks_amid_threads
def test_a_child_knows_what_its_parent_reported_before_the_fork(sqlite: Bench) -> None:
    outbox = sqlite.open()
    outbox.put(sqlite.event("1001"))
    assert in_a_child(
        lambda: (
            status(outbox, sqlite.event("1001")) == "duplicate"
            and status(outbox, sqlite.event("1002")) == "queued"
        )
    )

    assert status(outbox, sqlite.event("1002")) == "queued", "the child's is not known here"
    assert outbox.queue.waiting() == 2
    assert sqlite.counters.get("event_duplicate") == 2
