"""Putting events: committed before it returns, once for each key."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from outbox_engines import EID, Bench

from adroll_flask.outbox import Outbox, OutboxFailed, Outcome, new_id
from adroll_flask.outbox.states import seq_of


def test_an_event_is_there_for_others_as_soon_as_put_returns(bench: Bench, outbox: Outbox) -> None:
    event = bench.event("1001")

    put = outbox.put(event)

    assert (put.status, put.id, put.spilled) == ("queued", event.id, None)
    row = bench.open().show(event.id)
    assert row is not None
    assert (row.state, row.key, row.payload) == ("waiting", "1001", event.payload)


def test_a_second_report_of_a_key_is_a_duplicate_of_the_first(bench: Bench, outbox: Outbox) -> None:
    first = outbox.put(bench.event("1001", digest="59.90 EUR"))

    again = outbox.put(bench.event("1001", digest="59.90 EUR"))

    assert (again.status, again.id, again.same) == ("duplicate", first.id, True)
    assert outbox.waiting() == 1


def test_a_second_report_with_another_value_keeps_the_first_and_says_so(
    bench: Bench, outbox: Outbox
) -> None:
    first = outbox.put(bench.event("1001", digest="59.90 EUR", payload=b'{"n":1}'))

    again = outbox.put(bench.event("1001", digest="1.00 EUR", payload=b'{"n":2}'))

    assert (again.status, again.id, again.same) == ("duplicate", first.id, False)
    row = outbox.show(first.id)
    assert row is not None
    assert row.payload == b'{"n":1}'


def test_events_without_a_key_are_never_duplicates(bench: Bench, outbox: Outbox) -> None:
    assert [outbox.put(bench.event()).status for _ in range(3)] == ["queued"] * 3
    assert outbox.waiting() == 3


@pytest.mark.parametrize(
    "change",
    [
        {"name": "addToCart"},
        {"dry_run": True},
        {"advertisable_eid": "ZZZZZZZZZZZZZZZZZZZZZZ"},
        {"key": "1001 "},
        {"key": "１００１"},
    ],
    ids=str,
)
def test_a_key_counts_for_its_account_mode_and_event_alone(
    bench: Bench, outbox: Outbox, change: dict[str, object]
) -> None:
    outbox.put(bench.event("1001"))

    assert outbox.put(replace(bench.event("1001"), **change)).status == "queued"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Order-1", "order-1"),
        ("straße", "strasse"),
        ("a", "á"),
        ("x", "x\x00"),
        ("k" * 300, "k" * 301),
    ],
    ids=["case", "sharp s", "accent", "NUL", "long"],
)
def test_keys_are_compared_to_the_letter(
    bench: Bench, outbox: Outbox, one: str, other: str
) -> None:
    assert [outbox.put(bench.event(key)).status for key in (one, other, one, other)] == [
        "queued",
        "queued",
        "duplicate",
        "duplicate",
    ]


def test_half_a_surrogate_pair_in_a_key_harms_nobody(bench: Bench, outbox: Outbox) -> None:
    assert outbox.put(bench.event("\ud800")).status == "queued"
    assert outbox.put(bench.event("\ud800")).status == "duplicate"


def test_the_same_event_put_twice_is_there_once(bench: Bench, outbox: Outbox) -> None:
    for event in (bench.event("1001"), bench.event()):
        assert [outbox.put(event).status for _ in range(2)] == ["queued", "queued"]
    assert outbox.waiting() == 2


def test_any_bytes_survive_in_a_payload(bench: Bench, outbox: Outbox) -> None:
    event = bench.event(payload=bytes(range(256)) + "ÄÖÜ😀".encode())

    outbox.put(event)

    claim = outbox.claim()
    assert claim is not None
    assert claim.events[0].payload == event.payload


def test_an_event_beyond_all_reason_is_refused(bench: Bench, outbox: Outbox) -> None:
    with pytest.raises(OutboxFailed) as caught:
        outbox.put(bench.event(payload=b"x" * (1 << 21)))
    assert caught.value.reason == "too_large"


def test_ten_threads_that_report_one_order_report_it_once(bench: Bench, outbox: Outbox) -> None:
    outbox.put(bench.event("warm"))
    found: list[str] = []
    start = threading.Barrier(10)

    def report(event: object) -> None:
        start.wait()
        found.append(outbox.put(event).status)  # type: ignore[arg-type]

    threads = [threading.Thread(target=report, args=(bench.event("1001"),)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found) == ["duplicate"] * 9 + ["queued"]


def test_two_events_of_one_moment_both_find_a_place(bench: Bench, outbox: Outbox) -> None:
    one = bench.event()
    # The same time and the same first random bits: on SQLite the same row number.
    others = [replace(one, id=one.id[:18] + f"{n:014x}", key=f"{n}") for n in range(20)]
    assert len({seq_of(event.id) for event in others}) == 1

    kept = {outbox.put(event).id for event in (one, *others)}
    again = {outbox.put(event).id for event in (one, *others)}

    assert len(kept) == 21
    assert again == kept
    claim = outbox.claim()
    assert claim is not None
    assert {event.id for event in claim.events} == kept
    assert outbox.settle(claim, [Outcome(id=id, kind="delivered") for id in kept]) == 21
    outbox.put(replace(one, id=one.id[:18] + "ab" * 7))
    claim = outbox.claim()
    assert claim is not None
    assert outbox.settle(claim, [Outcome(id=claim.events[0].id, kind="delivered")]) == 1
    assert outbox.counts()["delivered"] == 22


def test_no_id_is_given_twice_while_the_clock_stands_still() -> None:
    assert len({new_id(1_800_000_000.0) for _ in range(70_000)}) == 70_000


def test_a_child_of_which_python_was_not_told_gives_ids_of_its_own() -> None:
    """uWSGI's workers are forked past Python's hooks."""
    new_id(1_800_000_000.0)
    heard, said = os.pipe()
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        os.write(said, new_id(1_800_000_000.0).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(heard, 32).decode()
    os.close(heard)
    os.close(said)

    assert theirs[18:] != new_id(1_800_000_000.0)[18:]


def test_an_invalid_event_becomes_a_dead_letter_and_takes_no_key(
    bench: Bench, outbox: Outbox
) -> None:
    bad = bench.event("1001")

    id = outbox.put_dead(bad, "invalid:currency", "currency: three letters")

    row = outbox.show(id)
    assert row is not None
    assert (row.state, row.reason, row.error, row.key) == (
        "dead",
        "invalid:currency",
        "currency: three letters",
        None,
    )
    assert outbox.put(bench.event("1001")).status == "queued"


def fill(most: int, put: Callable[[], object]) -> int:
    """How often *put* works until it says that the outbox is full."""
    for count in range(most):
        try:
            put()
        except OutboxFailed as exc:
            assert exc.reason == "full"  # noqa: PT017
            return count
    return most


def test_beyond_its_bound_the_outbox_refuses_and_takes_again_when_drained(bench: Bench) -> None:
    outbox = bench.open(outbox_max_bytes=300_000)
    big = b"x" * 10_000
    put = fill(60, lambda: outbox.put(bench.event(payload=big)))

    assert 20 <= put <= 32
    assert outbox.waiting() == put
    assert not bench.spill.exists()
    while claim := outbox.claim():
        outbox.settle(claim, [Outcome(id=e.id, kind="delivered") for e in claim.events])
    assert bench.open(outbox_max_bytes=300_000).put(bench.event()).status == "queued"


def test_dead_letters_fill_half_of_the_bound_at_most(bench: Bench) -> None:
    outbox = bench.open(outbox_max_bytes=400_000)

    put = fill(60, lambda: outbox.put_dead(bench.event(payload=b"x" * 10_000), "invalid", ""))

    assert 10 <= put <= 21
    assert bench.open(outbox_max_bytes=400_000).put(bench.event()).status == "queued"


def test_events_without_an_account_are_adopted_with_their_keys(
    bench: Bench, outbox: Outbox
) -> None:
    early = outbox.put(bench.event("1001", advertisable_eid=""))
    twin = outbox.put(bench.event("1002", advertisable_eid=""))
    outbox.put(bench.event(None, advertisable_eid=""))
    outbox.put(bench.event("1002"))

    assert outbox.adopt(EID) == 2
    assert outbox.adopt(EID) == 0

    assert outbox.put(bench.event("1001")).id == early.id
    assert outbox.show(twin.id) is None
    assert outbox.waiting() == 3
