"""Keys that this process has seen: 15 minutes, 10,000 of them, no database."""

import pytest

from adroll_flask.outbox import NewEvent, OutboxFailed
from adroll_flask.outbox.outbox import RecentKeys
from tests.support import in_a_child
from tests.support.outbox_engines import EID, Bench, Clock


def event(key: str | None, number: int = 0, digest: str | None = None) -> NewEvent:
    return NewEvent(f"{number:032x}", "purchase", EID, False, key, b"{}", 0.0, digest)


def test_a_key_is_known_for_fifteen_minutes() -> None:
    clock = Clock()
    recent = RecentKeys(clock)
    recent.add(event("1001", 1, "5 EUR"))

    clock.now += 899
    found = recent.find(event("1001", 2, "5 EUR"))
    assert found is not None
    assert (found.status, found.id, found.same) == ("duplicate", f"{1:032x}", True)
    other = recent.find(event("1001", 2, "6 EUR"))
    assert other
    assert not other.same
    clock.now += 2
    assert recent.find(event("1001", 2)) is None


def test_the_newest_ten_thousand_are_known() -> None:
    recent = RecentKeys()
    for number in range(10_001):
        recent.add(event(str(number), number))

    assert recent.find(event("0")) is None
    assert recent.find(event("1")) is not None
    assert recent.find(event("10000")) is not None


def test_what_has_no_key_is_not_remembered() -> None:
    recent = RecentKeys()
    recent.add(event(None))
    assert recent.find(event(None)) is None


def test_a_report_that_was_not_kept_is_not_remembered(sqlite: Bench) -> None:
    outbox = sqlite.open()
    sqlite.journal.write_text("in the way")
    with pytest.raises(OutboxFailed, match="no_folder"):
        outbox.put(sqlite.event("1001"))
    sqlite.journal.unlink()

    assert outbox.put(sqlite.event("1001")).status == "queued"
    assert outbox.queue.waiting() == 1


def test_what_another_process_of_the_host_dropped_can_be_reported_again(sqlite: Bench) -> None:
    shop, command = sqlite.open(), sqlite.open()
    for _ in range(2):
        first = shop.put(sqlite.event("1001"))
        assert first.status == "queued"
        assert shop.put(sqlite.event("1001")).status == "duplicate"
        assert command.admin.drop([first.id]) == 1
    assert shop.put(sqlite.event("1001")).status == "queued"
    assert shop.put(sqlite.event("1001")).status == "duplicate"


def test_a_child_knows_what_its_parent_reported_before_the_fork(sqlite: Bench) -> None:
    outbox = sqlite.open()
    outbox.put(sqlite.event("1001"))
    assert in_a_child(
        lambda: (
            outbox.put(sqlite.event("1001")).status == "duplicate"
            and outbox.put(sqlite.event("1002")).status == "queued"
        )
    )

    assert outbox.put(sqlite.event("1002")).status == "queued", "the child's is not known here"
    assert outbox.queue.waiting() == 2
    assert sqlite.counters.get("event_duplicate") == 1
