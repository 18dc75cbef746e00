"""What people do with the outbox, and how it keeps itself small."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from tests.conftest import Caplog
from tests.support import eventually, peak_memory
from tests.support.outbox_engines import (
    EID,
    Bench,
    Outbox,
    OutcomeKind,
    bury,
    claimed,
    deliver,
    reported,
    retry,
    settle,
    shown,
    told,
)
from tests.support.visits import begin_long_ago

DAY = 86_400.0
WIRE = {
    "event_name": "purchase",
    "ip": "203.0.113.9",
    "user_agent": "Mozilla/5.0 (X11)",
    "page_location": "https://shop.example/thanks?email=ann@example.com",
    "identifiers": {
        "adct": "click-ann",
        "first_party_cookie": "46d41c62e88bb2e267c1e15314bb8837-1667065540836",
        "email_sha256": "f" * 64,
        "user_id": "user-ann",
    },
    "event_attributes": {"order_id": "1001"},
}


def wire(**changes: Any) -> bytes:
    return json.dumps(WIRE | changes).encode()


def test_dead_letters_are_retried_with_a_clean_slate(bench: Bench, outbox: Outbox) -> None:
    bench.report(outbox, *map(str, range(3)))
    settle(outbox, claimed(outbox), "retry", refused=True)
    one, *others = bury(outbox)
    bench.pass_time(86_400)

    assert retry(outbox, one) == 1
    claim = claimed(outbox)
    assert [event.id for event in claim.events] == [one]
    assert claim.events[0].attempts == 0
    assert claim.events[0].refused_at is None

    assert retry(outbox) == 2
    claim = claimed(outbox)
    assert {event.id for event in claim.events} == set(others)
    assert retry(outbox) == 0


def test_dropping_an_event_frees_its_key(bench: Bench, outbox: Outbox) -> None:
    bench.report(outbox, "1", "2")
    dead = bury(outbox)
    waiting = outbox.put(bench.event("3"))
    held = outbox.put(bench.event("4", held_for=60.0))

    assert outbox.admin.drop([dead[0], waiting, held, "0" * 32]) == (3, 0)
    assert told(outbox, "outcome", "reason")["cancelled", "dropped"] == 2

    outbox.put(bench.event("3"))
    assert outbox.queue.waiting() == 1
    assert outbox.lookups.show(dead[0]) is None


def test_a_visitor_can_be_forgotten(bench: Bench, outbox: Outbox) -> None:
    def is_ann(event: dict[str, Any]) -> bool:
        return bool(event["identifiers"].get("adct") == "click-ann")

    other = wire(identifiers={"adct": "click-bob"})
    outbox.put(bench.event("1", payload=wire()))
    outbox.put(bench.event("2", payload=other))
    bury(outbox)
    bench.report(outbox, "3", None, payload=wire())
    outbox.put(bench.event("4", payload=other))
    outbox.put(bench.event("5", payload=wire(), held_for=60.0))

    assert outbox.admin.forget(is_ann) == (4, 0)
    assert outbox.admin.forget(is_ann) == (0, 0)

    assert b"click-ann" not in b"".join(row.payload for row in outbox.lookups.pages())
    bench.open().put(bench.event("3"))
    assert outbox.queue.waiting() == 1, "a reload reports nobody again"
    assert retry(outbox) == 1, "only what has a payload"
    claim = claimed(outbox)
    assert [event.payload for event in claim.events] == [other, other]


@pytest.mark.parametrize("damaged", [b"not JSON", b"[]", b"[" * 100_000])
def test_a_damaged_event_keeps_nobody_from_being_forgotten(sqlite: Bench, damaged: bytes) -> None:
    outbox = sqlite.open()
    sqlite.report(outbox, "1", None, payload=damaged)
    sqlite.report(outbox, "2", payload=wire())
    bury(outbox)
    assert outbox.admin.forget(lambda event: "identifiers" in event) == (1, 0)
    assert list(outbox.lookups.without_key("purchase")) == []


def meanwhile(server: Bench, statement: str, action: Callable[[], object]) -> None:
    """Run *action* while *statement* is not committed yet, and commit that once it waits for it."""
    blocked = {
        "postgresql": "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
        "mariadb": "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
    }[server.engine]
    thread = threading.Thread(target=action)
    with server.sql().begin() as connection:
        connection.execute(text(statement))
        thread.start()
        eventually(lambda: server.execute(blocked))
    thread.join()


def test_what_comes_back_at_this_moment_is_forgotten_as_well(server: Bench, outbox: Outbox) -> None:
    outbox.put(server.event("1", payload=wire()))
    assert outbox.queue.claim(EID, begin=True)

    back = "UPDATE adroll_event SET state = 0, claim = NULL"
    meanwhile(server, back, lambda: outbox.admin.forget(lambda event: True))

    assert not outbox.queue.claim(EID)
    assert outbox.lookups.counts()["dead"] == 1
    assert b"click-ann" not in b"".join(row.payload for row in outbox.lookups.pages())


@pytest.mark.parametrize(
    ("reason", "kind", "end"),
    [
        ("cancelled", "delivered", ("delivered", "too_late")),
        ("forgotten", "retry", ("dead", "forgotten")),
    ],
)
def test_what_is_decided_at_the_moment_of_its_settlement_holds(
    server: Bench, outbox: Outbox, reason: str, kind: OutcomeKind, end: tuple[str, str]
) -> None:
    outbox.put(server.event("1", payload=wire()))
    claim = outbox.queue.claim(EID, begin=True)

    decided = f"UPDATE adroll_event SET payload = NULL, reason = '{reason}'"
    meanwhile(server, decided, lambda: settle(outbox, claim, kind))

    row = shown(outbox, claim.events[0].id)
    assert (row.state, row.reason) == end
    assert not outbox.queue.claim(EID)
    assert server.counters.get("hold_too_late", "cancelled") == (reason == "cancelled")


@pytest.mark.parametrize("age", [0.0, 400 * 86_400.0], ids=["of today", "of last year"])
def test_keys_are_kept_for_their_days_and_then_go(bench: Bench, age: float) -> None:
    """Since the delivery, however old the order was."""
    outbox = bench.open(dedupe_days=30)
    begin_long_ago(outbox)  # else AdRoll may have the order of last year from another outbox
    outbox.put(bench.event("1001", occurred_at=bench.now() - age))
    assert deliver(outbox) == ["1001"]
    bench.pass_time(29 * 86_400)
    assert outbox.admin.keep_house() == 0
    bench.open().put(bench.event("1001"))
    assert outbox.queue.waiting() == 0

    bench.pass_time(86_400 + 60)

    assert outbox.admin.keep_house() == 1
    bench.open().put(bench.event("1001"))
    assert outbox.queue.waiting() == 1


def test_delivered_rows_without_a_key_go_soon_in_small_steps(bench: Bench, outbox: Outbox) -> None:
    bench.report(outbox, *[None] * 1200)
    deliver(outbox)
    assert outbox.admin.keep_house() == 0
    bench.pass_time(601)

    steps = [*iter(outbox.admin.keep_house, 0)]

    assert sum(steps) == 1200
    assert max(steps) <= 500
    assert outbox.lookups.counts()["delivered"] == 0


def test_dead_letters_can_be_sent_for_90_days_whatever_the_keys_days_are(
    bench: Bench, caplog: Caplog
) -> None:
    outbox = bench.open(dedupe_days=3)
    outbox.put(bench.event("1", payload=wire(), digest="59.9 EUR"))
    [id] = bury(outbox, error="http_400: no product")
    outbox.put(bench.event(None, payload=wire(), dead=("invalid:value", "takes an amount")))
    outbox.put(bench.event("trial", dry_run=True))
    bury(outbox)
    bench.insert(outbox, "2")

    bench.pass_time(89 * DAY)
    assert outbox.admin.keep_house() == 0
    assert shown(outbox, id).payload == wire()
    bench.pass_time(1.1 * DAY)
    assert outbox.admin.keep_house() == 3

    [given_up] = outbox.lookups.list("dead")
    assert (given_up.id, given_up.reason) == (id, "given_up")
    assert given_up.error == "refused: http_400: no product"
    assert not shown(outbox, id).payload
    assert b"click-ann" not in b"".join(row.payload for row in outbox.lookups.pages())
    assert "2 dead letters were given up, since nobody decided within 90 days" in caplog.text
    assert told(outbox, "outcome", "reason") == {
        ("expired", "given_up"): 2,
        ("dry_run", "dead:refused"): 1,
    }
    assert retry(outbox) == 0
    bench.open().put(bench.event("1"))
    assert outbox.queue.waiting() == 1, "its key stays"

    bench.pass_time(90.1 * DAY)
    assert outbox.admin.keep_house() == 1
    assert outbox.lookups.show(id) is None
    assert outbox.queue.waiting() == 1, "what waits never goes"


def test_of_what_adroll_may_have_nobody_says_that_it_was_never_sent(
    bench: Bench, outbox: Outbox
) -> None:
    outbox.put(bench.event("1"))
    bury(outbox, "unsure", unsure=True)
    bench.insert(outbox, "2")
    outbox.admin.restored()
    bench.pass_time(90.1 * DAY)
    assert outbox.admin.keep_house() == 2
    assert {row.reason for row in outbox.lookups.list("dead")} == {"given_up_unsure"}


def test_a_copy_rests_where_the_clock_is_behind_all_that_it_has(sqlite: Bench) -> None:
    outbox = sqlite.open()
    sqlite.insert(outbox, "1")
    sqlite.clock.now -= 60
    assert outbox.admin.restored() == 1
    assert outbox.lookups.knowledge().gaps == ()


def test_two_operators_at_once_send_no_order_twice(bench: Bench) -> None:
    """One sends all dead letters again, another drops them, and a worker delivers meanwhile."""
    orders = [str(number) for number in range(60)]
    outbox, *others = [bench.open() for _ in range(3)]
    bench.report(outbox, *orders)
    ids = bury(outbox)
    delivered: list[str] = []
    with ThreadPoolExecutor() as pool:
        sent_again = pool.submit(lambda: sum(retry(others[0], id) for id in ids))
        dropped = pool.submit(lambda: [others[1].admin.drop([id]) for id in reversed(ids)])
        while not (sent_again.done() and dropped.done()):
            delivered += deliver(outbox)
    delivered += deliver(outbox)
    gone = sum(one.events for one in dropped.result())
    assert sent_again.result() >= len(delivered)
    assert len(delivered) + gone == len(ids)
    bench.report(bench.open(), *orders)  # a reload of each
    assert sorted(deliver(outbox) + delivered, key=int) == orders, "each once"


def test_a_dead_letter_whose_visitor_was_forgotten_meanwhile_does_not_come_back(
    bench: Bench, outbox: Outbox
) -> None:
    outbox.put(bench.event("1", payload=wire()))
    [id] = bury(outbox)
    seen = shown(outbox, id)
    assert outbox.admin.forget(lambda event: True) == (1, 0)
    assert not outbox.admin.fix(id, reported(seen))
    assert not outbox.queue.claim(EID)


@pytest.mark.parametrize("kept_house_before", [False, True])
def test_a_clock_far_ahead_takes_no_keys_or_holds(sqlite: Bench, kept_house_before: bool) -> None:
    outbox = sqlite.open()
    outbox.put(sqlite.event("1"))
    deliver(outbox)
    outbox.put(sqlite.event("2", held_for=7 * 86_400.0))
    outbox.put(sqlite.event("brief", held_for=600.0))
    if kept_house_before:
        sqlite.insert(outbox, "over", held_for=0.0)
        assert outbox.admin.keep_house()
    outbox.ingest.take_in()
    sqlite.clock.now += 100 * 86_400
    assert outbox.admin.keep_house()
    # Each process looks for itself, and while something ends it looks each second.
    for other in [outbox, *(sqlite.open() for _ in range(8))] * 20:
        sqlite.clock.now += 0.3
        other.admin.keep_house()
    sqlite.clock.now -= 100 * 86_400

    sqlite.open().put(sqlite.event("1"))

    assert outbox.queue.waiting() == 0
    assert [row.key for row in outbox.lookups.list("held")] == ["2"]


def test_a_big_backlog_is_worked_through_a_page_at_a_time(bench: Bench, outbox: Outbox) -> None:
    bench.insert(outbox, *[None] * 2500, payload=wire(user_agent="x" * 4000))
    settle(outbox, claimed(outbox), "return")

    def work() -> None:
        assert outbox.queue.claim(EID)
        assert outbox.admin.forget(lambda event: False) == (0, 0)
        assert sum(1 for _ in outbox.lookups.pages()) == 2500
        outbox.queue.waiting()

    assert peak_memory(work) < 7_500_000, "10 MB are waiting"
