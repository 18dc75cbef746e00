"""What was reported does not lie in the journal for as long as a process lives."""

from __future__ import annotations

from adroll_flask.outbox import OutboxFailed
from adroll_flask.outbox.record_format import Withdrawal
from tests.support.outbox_engines import Bench


def files(bench: Bench) -> int:
    return len(list(bench.journal.glob("*.journal")))


def test_a_file_is_finished_after_a_minute_and_removed_once_it_is_read(sqlite: Bench) -> None:
    outbox = sqlite.open()
    outbox.put(sqlite.event("1001"))
    outbox.housekeeping.step()
    assert files(sqlite) == 1, "young files are written on"
    sqlite.clock.now += 61
    assert outbox.queue.waiting() == 1
    outbox.housekeeping.step()
    again = sqlite.open()
    assert again.queue.waiting() == 1
    assert files(sqlite) == 0, sorted(sqlite.journal.iterdir())


def test_a_withdrawal_finishes_the_file_at_once(sqlite: Bench) -> None:
    outbox = sqlite.open()
    outbox.put(sqlite.event("1001"))
    outbox.record(Withdrawal(sqlite.clock(), None, "click-1"))
    assert outbox.queue.waiting() == 0
    assert sqlite.open().queue.waiting() == 0
    assert files(sqlite) == 0


def test_bad_events_fill_half_of_the_bound_and_shut_no_good_ones_out(sqlite: Bench) -> None:
    outbox = sqlite.open(outbox_max_bytes=200_000)
    failed = []
    for number in range(60):
        event = sqlite.event(None, payload=b"x" * 4000)
        try:
            outbox.put_dead(event, "invalid:value", f"{number}")
        except OutboxFailed as problem:
            failed.append(problem.reason)
    assert set(failed) == {"full"}
    assert outbox.put(sqlite.event("1001")).status == "queued"
