"""The history's sums are exact, whatever happens to processes, clocks and AdRoll."""

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from threading import Barrier
from typing import Literal

import pytest

from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.outbox import NewEvent, Outbox, OutboxFailed, Outcome, new_id
from adroll_flask.outbox.model import Counted, HistoryColumn
from tests.support import PATIENCE
from tests.support.delivery_kit import EID, OK, PIXEL, AdRoll, Clock, NoAnswer, Reply, Shop, refusal
from tests.support.outbox_engines import Bench, bury, claimed, counted, retry, settle, told

VALUES = (Decimal("59.90"), Decimal("0.01"), Decimal("1200"))


def test_a_dead_letter_that_comes_in_twice_is_counted_once(bench: Bench) -> None:
    """Its commit came late, so that it was kept in the journal as well."""
    event = bench.event("1001")
    bench.open().put_dead(event, "invalid:value", "value: takes an amount")
    bench.open().put_dead(event, "invalid:value", "value: takes an amount")
    assert told(bench.open(), "outcome") == {"invalid": 1}
    bench.open().put_dead(event, "invalid:value", "value: takes an amount")
    assert told(bench.open(), "outcome") == {"invalid": 1}
    # Another process had not seen the key.
    bench.open().put_dead(bench.event("1001"), "invalid:value", "value: takes an amount")
    assert told(bench.open(), "outcome") == {"invalid": 1, "duplicate": 1}


def test_a_failure_is_told_once_by_two_threads(bench: Bench, outbox: Outbox) -> None:
    for number in range(300):
        outbox.note_failure(EVENT_NAMES[number % len(EVENT_NAMES)], f"reason-{number}")
    both = Barrier(2)

    def tell(_: int) -> None:
        both.wait(PATIENCE)
        outbox.tell_failures()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(tell, range(2)))
    assert told(outbox, "outcome") == {"failed": 300}


def test_every_outcome_is_counted_once_by_any_question(bench: Bench, outbox: Outbox) -> None:
    first = bench.event("1001", digest="59.90 EUR", identifiers=3)
    outbox.put(first)
    outbox.put(bench.event("1001", digest="69.90 EUR"))  # noticed at once
    other = bench.open()
    bench.clock.now += 1.0  # its file may be read first
    other.put(bench.event("1001", digest="59.90 EUR"))  # noticed by the index
    outbox.put(bench.event("1002"))
    outbox.put_dead(bench.event(None), "invalid:value", "value: takes an amount")
    outbox.record(Counted(bench.now(), "purchase", "suppressed", "consent_gpc"))
    outbox.note_failure("purchase", "full")
    outbox.put(bench.event("1003"))
    outbox.measure()
    claim = claimed(outbox)
    by_key = {event.key: event.id for event in claim.events}
    ends = [Outcome(id=by_key["1002"], kind="dead", reason="too_old")]
    ends.append(Outcome(id=by_key["1001"], kind="delivered"))
    ends.append(Outcome(id=by_key["1003"], kind="return"))
    outbox.queue.settle(claim, ends)
    outbox.admin.drop([by_key["1003"]])
    once = ("delivered", "expired", "invalid", "suppressed", "failed", "cancelled")
    expected = dict.fromkeys(once, 1) | {"duplicate": 2}
    since = bench.now() - 3600
    columns: tuple[HistoryColumn, ...] = ("at", "event_name", "reason", "identifiers", "currency")
    for column in columns:
        found = outbox.lookups.history(since, ("outcome", column))
        assert counted(found, "outcome") == expected, column
    rows = outbox.lookups.history(since, ("outcome", *columns), delays=True)
    (delivered,) = [row for row in rows if row.outcome == "delivered"]
    assert (delivered.identifiers, delivered.value) == (3, Decimal("59.9"))
    assert sum(delivered.delays) == 1
    reasons = {row.outcome: row.reason for row in rows if row.outcome in once[2:]}
    assert [*map(reasons.get, once[2:])] == ["invalid:value", "consent_gpc", "full", "dropped"]


def test_a_lost_report_is_written_down_while_the_database_cannot_be_worked_with(
    sqlite: Bench,
) -> None:
    outbox = sqlite.open()
    outbox.put(sqlite.event("1"))
    sqlite.path.mkdir()
    outbox.note_failure("purchase", "disk_full")

    outbox.measure()

    written = b"".join(file.read_bytes() for file in sqlite.journal.glob("*.journal"))
    assert b'"disk_full"' in written


@pytest.mark.parametrize("kind", ["delivered", "dead"])
def test_an_event_counts_in_its_own_hour(bench: Bench, kind: Literal["delivered", "dead"]) -> None:
    outbox, earlier = bench.open(), bench.now() - 5 * 3600
    assert outbox.lookups.totals() == ()
    outbox.put(bench.event("1001", occurred_at=earlier))
    claim = claimed(outbox)
    settle(outbox, claim, kind, reason="refused")
    (row,) = outbox.lookups.history(0.0, ("at", "outcome"))
    assert (row.at, row.outcome) == (int(earlier // 3600) * 3600, kind)
    told = [(one.outcome, one.events) for one in outbox.lookups.totals()]
    assert told == [(kind, 1)], "whole hours are read again where they become more"
    if kind == "dead":
        assert retry(outbox) == 1
        assert outbox.lookups.history(0.0, ("at", "outcome")) == ()


def test_a_letter_that_is_sent_again_was_lost_in_its_own_hour(bench: Bench) -> None:
    """Of two that died alike, with the first one's money left alone."""
    outbox, now = bench.open(), bench.now()
    for key, ago, digest in (("1001", 7200, "100 EUR"), ("1002", 0, "50 EUR")):
        outbox.put(bench.event(key, occurred_at=now - ago, digest=digest))
    bury(outbox)
    (again,) = (row.id for row in outbox.lookups.list("dead") if row.key == "1002")
    retry(outbox, again)
    (row,) = outbox.lookups.history(0.0, ("at", "outcome"))
    told = (row.at, row.outcome, row.events, row.value)
    assert told == (int((now - 7200) // 3600) * 3600, "dead", 1, Decimal(100))


def test_what_failed_is_told_once_the_journal_takes_something_again(sqlite: Bench) -> None:
    outbox = sqlite.open()
    with pytest.raises(OutboxFailed):
        outbox.put(sqlite.event("1001", payload=b"x" * (2 << 20)))
    assert outbox.lookups.history(0, ["outcome"]) == ()
    outbox.measure()  # as the thread beside the requests does
    assert told(outbox, "outcome", "reason") == {("failed", "too_large"): 1}


def test_what_failed_is_told_at_the_latest_when_the_outbox_is_closed(sqlite: Bench) -> None:
    outbox = sqlite.open()
    outbox.note_failure("purchase", "internal")
    outbox.note_failure("purchase", "internal")
    outbox.close()
    assert told(sqlite.open(), "outcome") == {"failed": 2}


class Driven:
    """A shop driven at random, and what its receipts said."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.adroll = AdRoll(self.judge)
        self.clock = Clock()
        self.shop = self.open()
        self.receipts: Counter[str] = Counter()
        self.keys: list[str] = []
        self.values: dict[str, Decimal] = {}
        self.number = 0
        self.trouble = 0

    def open(self) -> Shop:
        return Shop(self.folder, self.adroll, clock=self.clock, rng=random.Random(1))

    def judge(self, batch: list[str], dry: bool) -> Reply:
        if any(order.startswith("bad") for order in batch):
            return refusal(400, {"message": "no"})
        if not dry and self.trouble:
            self.trouble -= 1
            faults: list[Reply] = [refusal(503), refusal(429), refusal(401)]
            faults.append(NoAnswer("refused", sure=True))
            if self.random.random() < 0.3:
                # Nobody knows whether these were taken; here half of them were.
                faults = [refusal(500), NoAnswer("reset", sure=False)]
                if self.random.random() < 0.5:
                    self.adroll.taken += batch
            return self.random.choice(faults)
        return OK

    def report(self) -> None:
        outbox, clock = self.shop.outbox, self.shop.clock
        clock.now += 0.001
        kind = self.random.random()
        if kind < 0.05:
            outbox.record(Counted(clock.now, "purchase", "suppressed", "consent_gpc"))
            self.receipts["suppressed"] += 1
            return
        again = kind < 0.15 and self.keys
        if again:
            key = self.random.choice(self.keys)
        else:
            self.number += 1
            key = f"{'bad' if kind > 0.98 else 'o'}{self.number}"
        value = self.values.setdefault(key, self.random.choice(VALUES))
        wire = {"advertisable_eid": EID, "pixel_eid": PIXEL, "event_name": "purchase"}
        told = {"identifiers": {"adct": "c"}, "event_attributes": {"order_id": key}}
        payload, now = json.dumps(wire | told).encode(), clock.now
        id, digest = new_id(now), f"{value} EUR"
        event = NewEvent(id, "purchase", EID, False, key, payload, now, digest, 1)
        if 0.15 < kind < 0.17:
            event.key = None
            outbox.put_dead(event, "invalid:value", "value: takes an amount")
            self.receipts["invalid"] += 1
            return
        if 0.17 < kind < 0.18:
            event.payload = b"x" * (2 << 20)
            with pytest.raises(OutboxFailed):
                outbox.put(event)
            self.receipts["failed"] += 1
            return
        outbox.put(event)
        self.receipts["put"] += 1
        if not again:
            self.keys.append(key)

    def disturb(self) -> None:
        kind = self.random.random()
        if kind < 0.2:
            self.trouble = self.random.randrange(1, 4)
        elif kind < 0.4:
            self.shop.outbox.close()
            self.shop = self.open()
        elif kind < 0.6:
            self.shop.clock.now += self.random.choice([-7200.0, 3600.0, 90.0])
        elif kind < 0.7:
            # A worker that dies with a claim.
            self.shop.outbox.queue.claim(EID, 20)
            self.shop.clock.now += 61

    def drive(self, events: int) -> None:
        for number in range(events):
            self.report()
            if number % 50 == 49:
                self.disturb()
                self.shop.steps(2, seconds=1.0)
        self.trouble = 0
        for _ in range(400):
            if not self.shop.outbox.queue.waiting():
                return
            # Longer than an order of a clock that was ahead waits for its time.
            self.shop.steps(1, seconds=600.0)
        raise AssertionError("events are left")

    def check(self) -> None:
        self.shop.outbox.measure()
        rows = self.shop.outbox.lookups.history(0, ["outcome"], delays=True)
        found = counted(rows, "outcome")
        taken = Counter(order for order in self.adroll.taken if order != "?")
        kept = self.shop.outbox.lookups.list(limit=1_000_000)
        marked = {row.key for row in kept if row.unsure}
        assert {order for order, count in taken.items() if count > 1} <= marked
        given_up = {row.key for row in kept if row.state == "dead" and row.reason == "unsure"}
        bad = {key for key in self.keys if key.startswith("bad")}
        delivered = {*self.keys} - bad - given_up
        assert delivered <= taken.keys() <= delivered | given_up
        assert found["delivered"] == len(delivered)
        assert found["suppressed"] == self.receipts["suppressed"]
        assert found["invalid"] == self.receipts["invalid"]
        assert found["failed"] == self.receipts["failed"]
        assert found["dead"] == len(bad | given_up)
        # Each key is one event, all further reports of it are duplicates.
        assert found["duplicate"] == self.receipts["put"] - len(self.keys)
        value = sum(row.value for row in rows if row.outcome == "delivered")
        assert value == sum(self.values[order] for order in delivered)
        delays = [sum(row.delays) for row in rows if row.outcome == "delivered"]
        assert sum(delays) == len(delivered)
        assert found.total() == sum(self.receipts.values())


@pytest.mark.parametrize("events", [1_500, pytest.param(100_000, marks=pytest.mark.slow)])
def test_history_agrees_with_receipts_and_with_adroll(tmp_path: Path, events: int) -> None:
    driven = Driven(tmp_path, events)
    driven.drive(events)
    driven.check()
