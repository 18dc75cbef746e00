"""A visitor says no: what waits of them is erased, wherever it is, and what comes late as well."""

import json
import logging
from typing import Any

import pytest

from adroll_flask.outbox.model import (
    Claim,
    NewEvent,
    OrderKey,
    OutcomeKind,
    Verdict,
    Withdrawal,
    encode,
)
from adroll_flask.outbox.outbox import Outbox
from tests.conftest import Caplog
from tests.support.outbox_engines import EID, Bench, claimed, retry, settle, shown

ANN = "0a" * 12
BOB = "0b" * 12
CLICK = "click-ann"
COOKIE = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"


def event(bench: Bench, key: str | None = None, *, of: str | None = ANN, **more: Any) -> NewEvent:
    identifiers = {"adct": CLICK, "first_party_cookie": COOKIE}
    payload = json.dumps({"event_name": "purchase", "identifiers": identifiers})
    return bench.event(key, payload=payload.encode(), record_id=of, **more)


def withdraw(bench: Bench, outbox: Outbox, who: str = ANN) -> None:
    outbox.record(Withdrawal(bench.now(), who))


def take_and_withdraw(bench: Bench, outbox: Outbox) -> Claim:
    """Ann's no comes in while what waits is being sent."""
    claim = claimed(outbox, begin=True)
    withdraw(bench, outbox)
    outbox.ingest.take_in()
    return claim


def keys(outbox: Outbox) -> list[str]:
    return sorted(row.key or "" for row in outbox.lookups.list("waiting"))


def test_what_waits_of_the_visitor_is_erased(bench: Bench, outbox: Outbox, caplog: Caplog) -> None:
    outbox.put(event(bench, "1", digest="a"))
    outbox.put(event(bench, "2"))
    outbox.put(event(bench, "3", of=BOB))
    outbox.put(event(bench))
    outbox.put(event(bench, "4", dead=("invalid:before_report", "raised")))
    outbox.put(event(bench, dead=("invalid:currency", "raised")))
    assert outbox.queue.waiting() == 4
    with caplog.at_level(logging.INFO, "adroll_flask.audit"):
        withdraw(bench, outbox)

        assert keys(outbox) == ["3"]

    assert bench.counters.get("event_forgotten") == 5
    (line,) = caplog.messages
    assert line.startswith("AdRoll: 5 events erased on request, by the visitor's own request (")
    erased = str(bench.execute("SELECT * FROM adroll_event WHERE payload IS NULL"))
    assert not [text for text in (CLICK, COOKIE, ANN, "raised") if text in erased]
    hashed = "digest IS NOT NULL OR record_hash IS NOT NULL"
    (found,) = bench.execute(f"SELECT dedupe_key FROM adroll_event WHERE {hashed}")
    assert tuple(found) == ("3",)
    dead = {row.key: row.reason for row in outbox.lookups.list("dead")}
    assert dead == {"1": "forgotten", "2": "forgotten", "4": "forgotten"}
    assert retry(outbox) == 0
    happened = outbox.lookups.history(0, ("outcome", "reason"))
    told = {(one.outcome, one.reason): one.events for one in happened}
    invalid = {("invalid", f"invalid:{why}"): 1 for why in ("before_report", "currency")}
    assert told == {("suppressed", "consent_withdrawn"): 3} | invalid


@pytest.mark.parametrize("begin", [False, True], ids=["claimed", "begun"])
@pytest.mark.parametrize("taken_in", [False, True], ids=["in the journal", "in rows"])
def test_a_claim_holds_nothing_of_who_has_just_said_no(
    bench: Bench, outbox: Outbox, begin: bool, taken_in: bool
) -> None:
    outbox.put(event(bench, "1"))
    outbox.put(event(bench))
    outbox.put(event(bench, "2", of=BOB))
    if taken_in:
        assert outbox.queue.waiting() == 3
    withdraw(bench, outbox)

    claim = claimed(outbox, begin=begin)

    assert [one.key for one in claim.events] == ["2"]
    counts = outbox.lookups.counts()
    assert {**counts, "waiting": 0, "dead": 1} == counts
    bench.pass_time(61)
    again = claimed(outbox, begin=True)
    assert [one.key for one in again.events] == ["2"]
    assert bench.counters.get("event_unsure", "lapsed") == (1 if begin else 0)


@pytest.mark.parametrize("delay", [0.0, 30.0])
@pytest.mark.parametrize("kind", ["delivered", "dead", "retry", "return", "claimed"])
def test_what_is_being_sent_is_not_sent_again(
    bench: Bench, outbox: Outbox, kind: OutcomeKind, delay: float
) -> None:
    outbox.put(event(bench, "1"))
    claim = take_and_withdraw(bench, outbox)
    id = claim.events[0].id
    assert (shown(outbox, id).state, shown(outbox, id).payload) == ("sending", b"")

    assert settle(outbox, claim, kind, delay=delay, reason="500") == 1

    assert outbox.queue.begin_sending(claim) == (), "as the other half of a halved batch"
    bench.pass_time(4_000)
    assert not outbox.queue.claim(EID)
    assert shown(outbox, id).state == ("delivered" if kind == "delivered" else "dead")
    assert retry(outbox) == 0
    assert outbox.admin.keep_house() == 0
    bench.open().put(event(bench, "1", of="0c" * 12))
    assert outbox.queue.waiting() == 0, "its key is kept"


@pytest.mark.parametrize("on_unsure", ["retry", "drop"])
def test_what_was_sent_when_its_worker_died_is_not_sent_again(bench: Bench, on_unsure: str) -> None:
    outbox = bench.open(on_unsure=on_unsure)
    outbox.put(event(bench, "1"))
    outbox.put(event(bench, "2", of=BOB))
    take_and_withdraw(bench, outbox)
    bench.pass_time(61)

    again = outbox.queue.claim(EID, begin=True)

    dead = {row.key: (row.reason, row.unsure) for row in outbox.lookups.list("dead")}
    if on_unsure == "drop":
        assert dead == {"1": ("forgotten", True), "2": ("unsure", True)}
        assert bench.counters.get("event_dead", "unsure") == 1
    else:
        assert dead == {"1": ("forgotten", True)}
        assert [one.key for one in again.events] == ["2"]
    assert outbox.admin.keep_house() == 0


# -- what comes late -----------------------------------------------------------------------------


def test_what_another_s_file_holds_is_erased_when_read(bench: Bench, outbox: Outbox) -> None:
    """Its file is older or newer, and read before or after the withdrawal's."""
    older, newer = bench.open(), bench.open()
    older.put(event(bench, "old"))
    bench.pass_time(5)
    withdraw(bench, outbox)
    assert not outbox.queue.claim(EID)
    bench.pass_time(10)
    for key, at in (("late", bench.now() - 15), ("after", bench.now() - 5)):
        newer._append(encode(event(bench, key, at=at)))

    assert keys(outbox) == ["after"]
    assert bench.counters.get("event_forgotten") == 2


def test_what_a_token_knew_before_the_no_is_not_sent(bench: Bench, outbox: Outbox) -> None:
    withdraw(bench, outbox)
    assert outbox.queue.waiting() == 0
    since = bench.now()
    bench.pass_time(3 * 86_400)
    now = bench.now()
    since = since if bench.engine == "sqlite" else now - 3 * 86_400
    outbox.put(event(bench, "before", known_since=since - 60))
    outbox.put(event(bench, "after", known_since=since + 60))
    outbox.put(event(bench, "of a host with its clock ahead", known_since=now + 600))
    outbox.put(event(bench, "now"))
    outbox.put(event(bench, "of another", of=BOB, known_since=since - 60))

    claim = claimed(outbox, begin=True)

    assert {one.key for one in claim.events} == {"after", "now", "of another"}
    assert bench.counters.get("event_forgotten") == 2


def test_what_was_known_before_the_no_is_erased_later_too(bench: Bench, outbox: Outbox) -> None:
    """A webhook reports by a token of before; the process that heard the no had a slow disk."""
    since = bench.now() - 60
    outbox.put(event(bench, "before", known_since=since))
    outbox.put(event(bench, "after"))
    assert outbox.queue.waiting() == 2
    bench.open().record(Withdrawal(since + 30, ANN))

    assert keys(outbox) == ["after"]
    assert bench.counters.get("event_forgotten") == 1


@pytest.mark.parametrize("first", ["no", "order"])
def test_of_one_moment_the_order_is_erased(bench: Bench, outbox: Outbox, first: str) -> None:
    """Hosts' clocks are not quite alike, and a transaction has the time of its beginning."""
    now = bench.now() - 10
    line = encode(event(bench, "1", at=now + 0.2))
    if first == "order":
        bench.open()._append(line)
        assert outbox.queue.waiting() == 1
    outbox.record(Withdrawal(now, ANN))
    outbox.ingest.take_in()
    if first == "no":
        bench.open()._append(line)

    assert keys(outbox) == []
    assert bench.counters.get("event_forgotten") == 1


def test_a_second_no_counts_from_then_on(bench: Bench, outbox: Outbox) -> None:
    withdraw(bench, outbox)
    assert outbox.queue.waiting() == 0
    bench.pass_time(1000)
    withdraw(bench, outbox)
    assert outbox.queue.waiting() == 0
    assert bench.execute("SELECT count(*) FROM adroll_mark")[0][0] == 1

    outbox.put(event(bench, "1", known_since=bench.now() - 500))

    assert outbox.queue.waiting() == 0


def test_a_keyed_hash_is_remembered_of_a_no_while_a_token_can_be_older(
    bench: Bench, outbox: Outbox
) -> None:
    withdraw(bench, outbox)
    outbox.ingest.take_in()

    rows = bench.execute("SELECT hash FROM adroll_mark")
    assert [len(row[0]) for row in rows] == [32]
    assert ANN not in str(rows)
    for days, known in ((360, 1), (140, 0)):
        bench.pass_time(days * 86_400)
        bench.open().admin.keep_house()
        assert bench.execute("SELECT count(*) FROM adroll_mark")[0][0] == known


def test_a_dead_letter_that_was_fixed_stays_its_visitor_s(bench: Bench, outbox: Outbox) -> None:
    id = outbox.put(event(bench, dead=("invalid:currency", "three letters")))
    assert outbox.admin.fix(id, event(bench, "1", of=None))
    assert outbox.queue.waiting() == 1

    withdraw(bench, outbox)

    assert outbox.queue.waiting() == 0


@pytest.mark.parametrize("what", ["retry", "release"])
def test_a_no_from_before_what_sends_it_counts_if_it_is_read_after_it(
    bench: Bench, outbox: Outbox, what: str
) -> None:
    dead = ("invalid:value", "no amount") if what == "retry" else None
    outbox.put(event(bench, "1", dead=dead, held_for=86_400.0))
    outbox.ingest.take_in()
    bench.pass_time(60)
    if what == "retry":
        assert retry(outbox) == 1
    order = OrderKey(EID, False, "purchase", "1")
    outbox.decide(Verdict(bench.now(), "release", order))
    assert outbox.queue.waiting() == 1

    outbox.record(Withdrawal(bench.now() - 30, ANN))

    assert keys(outbox) == []
