"""Held events: released they are sent, once; cancelled or forgotten they are not."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy.orm import Session

from adroll_flask import cancel_conversion, release_conversion, report_conversion
from adroll_flask.outbox import local_files
from tests.conftest import AppMaker, Patch
from tests.support.outbox_engines import (
    EID,
    ENVIRON,
    Bench,
    OrderKey,
    Outbox,
    OutcomeKind,
    Verdict,
    bury,
    claimed,
    deliver,
    retry,
    settle,
    shown,
    told,
)

DAY = 86_400.0
HELD = 7 * DAY


def release(key: str = "1001", **changes: Any) -> Verdict:
    return Verdict(1.8e9, "release", OrderKey(EID, False, "purchase", key), changes or None)


def cancel(key: str = "1001") -> Verdict:
    return Verdict(1.8e9, "cancel", OrderKey(EID, False, "purchase", key))


def hold(bench: Bench, outbox: Outbox, key: str = "1001", **changes: Any) -> str:
    return outbox.put(bench.event(key, **({"held_for": HELD} | changes)))


def states(outbox: Outbox) -> dict[str, int]:
    return {state: count for state, count in outbox.lookups.counts().items() if count}


def history(outbox: Outbox) -> dict[Any, int]:
    return told(outbox, "outcome", "reason")


def test_a_held_event_is_not_sent_before_its_release(bench: Bench, outbox: Outbox) -> None:
    id = hold(bench, outbox, digest="59.90 EUR")

    assert deliver(outbox) == []
    assert states(outbox) == {"held": 1}
    assert outbox.lookups.list("held")[0].id == id
    assert [row.id for row in outbox.lookups.pages("held")] == [id]

    bench.pass_time(DAY)
    assert outbox.decide(release()) == id
    settle(outbox, claimed(outbox), "return")
    assert (outbox.queue.oldest_due() or 0.0) < 60, "it is late from its release on"
    row = outbox.lookups.list("waiting")[0]
    assert (row.unsure, row.digest) == (0, "59.90 EUR")
    assert deliver(outbox) == ["1001"]
    assert states(outbox) == {"delivered": 1}
    assert outbox.lookups.counts()["decided"] == 0
    assert bench.counters.get("hold_released") == 1


def test_a_cancelled_hold_keeps_its_key_and_no_visitor(bench: Bench, outbox: Outbox) -> None:
    id = hold(bench, outbox)
    outbox.decide(cancel())

    assert deliver(outbox) == []
    row = shown(outbox, id)
    assert (row.state, row.reason, row.payload) == ("cancelled", "cancelled", b"")
    assert bench.execute("SELECT record_hash FROM adroll_event") == [(None,)]
    # A reload of the page is no new order.
    bench.open().put(bench.event("1001"))
    assert deliver(outbox) == []
    assert history(outbox)["cancelled", "cancelled"] == 1
    assert bench.counters.get("hold_cancelled", "cancelled") == 1


def test_a_release_may_correct_what_was_held(bench: Bench, outbox: Outbox) -> None:
    id = hold(bench, outbox, payload=b'{"event_name":"purchase","value":"1.00"}')
    outbox.decide(release(value="59.90", timestamp=1_700_000_000.0))
    outbox.decide(release(value="1.23"))  # the first stays

    assert outbox.lookups.counts()["waiting"] == 1
    row = shown(outbox, id)
    assert json.loads(row.payload or b"")["value"] == "59.90"
    assert row.occurred_at == 1_700_000_000.0
    claim = claimed(outbox, begin=True)
    assert claim.events[0].digest == "59.90 EUR"


def test_a_hold_whose_release_lies_in_a_copied_journal_rests(bench: Bench, outbox: Outbox) -> None:
    """Released and delivered where the copy was made, as far as anybody knows."""
    id = hold(bench, outbox)
    hold(bench, outbox, "1002")
    outbox.ingest.take_in()
    outbox.decide(release())
    outbox.put(bench.event("1003"))

    assert outbox.admin.restored() == 2

    assert deliver(outbox) == []
    row = shown(outbox, id)
    assert (row.state, row.reason, row.unsure) == ("dead", "restored", True)
    assert states(outbox) == {"dead": 2, "held": 1}
    assert history(outbox) == {("dead", "restored"): 2}
    assert retry(outbox) == 2
    assert history(outbox) == {}


@pytest.mark.parametrize("first", ["hold", "release"])
@pytest.mark.parametrize(("held_in", "released_in"), [("", EID), (EID, "")])
def test_a_hold_and_a_release_meet_though_one_is_of_no_account(
    bench: Bench, outbox: Outbox, first: str, held_in: str, released_in: str
) -> None:
    """Said by a process that began before the EID was set."""
    order = OrderKey(released_in, False, "purchase", "1001")
    if first == "hold":
        hold(bench, outbox, advertisable_eid=held_in)
    outbox.decide(Verdict(1.0, "release", order))
    if first == "release":
        hold(bench, outbox, advertisable_eid=held_in)
    assert deliver(outbox) == []

    outbox.queue.adopt(EID)

    assert deliver(outbox) == ["1001"]


@pytest.mark.parametrize("after_a_cut", [False, True])
def test_a_hold_of_an_older_database_whose_release_was_read_rests(
    bench: Bench, monkeypatch: Patch, after_a_cut: bool
) -> None:
    """Delivered, as far as anybody knows, by the outbox whose place the copy has taken. After a
    power cut it is the same one, which lost its last moments."""
    outbox = bench.open()
    for key in ("1001", "1002"):
        hold(bench, outbox, key)
    outbox.ingest.take_in()
    held, read = bench.execute("SELECT state, position FROM adroll_event, adroll_journal")[0]
    outbox.decide(release())
    outbox.put(bench.event("1002"))  # paid, says a second report
    outbox.ingest.take_in()
    bench.execute(f"UPDATE adroll_event SET state = {held}")
    bench.execute(f"UPDATE adroll_journal SET position = {read}")

    if after_a_cut:
        monkeypatch.setattr(local_files, "boot", lambda: "after the cut")
    copy = bench.open()

    assert deliver(copy) == (["1001", "1002"] if after_a_cut else [])
    became = {(row.key, row.state, row.reason, row.unsure) for row in copy.lookups.list()}
    end = ("delivered", "", True) if after_a_cut else ("dead", "restored", True)
    assert became == {(key, *end) for key in ("1001", "1002")}


@pytest.mark.parametrize(
    ("when", "kind", "state", "reason"),
    [
        ("while sending", "delivered", "delivered", "too_late"),
        ("while sending", "retry", "cancelled", "cancelled"),
        ("after", "delivered", "delivered", "too_late"),
    ],
)
def test_a_cancellation_once_it_is_sent_counts_if_it_returns(
    bench: Bench, outbox: Outbox, when: str, kind: OutcomeKind, state: str, reason: str
) -> None:
    outbox.put(bench.event("1001"))
    claim = claimed(outbox, begin=True)
    if when == "after":
        settle(outbox, claim)
    for _ in range(2):
        outbox.decide(cancel())
        outbox.ingest.take_in()
    if when == "while sending":
        assert states(outbox) == {"sending": 1}
        settle(outbox, claim, kind, delay=0, unsure=kind == "retry")
    outbox.admin.keep_house()

    assert deliver(outbox) == []
    row = shown(outbox, claim.events[0].id)
    assert (row.state, row.reason, row.unsure) == (state, reason, kind == "retry")
    ends = {("delivered", ""): 1, ("too_late", "cancelled"): 1}
    assert history(outbox) == (ends if kind == "delivered" else {("cancelled", "cancelled"): 1})
    assert bench.counters.get("hold_too_late", "cancelled") == (kind == "delivered")


def test_a_release_whose_changes_are_damaged_releases_what_was_held(
    bench: Bench, outbox: Outbox
) -> None:
    outbox.decide(release(value="40.00"))
    outbox.ingest.take_in()
    outbox.database.write(lambda tx: tx.execute("UPDATE adroll_event SET payload = :p", p=b"{"))
    hold(bench, outbox)
    assert deliver(outbox) == ["1001"]


@pytest.mark.parametrize(
    ("said", "refund", "counted"),
    [
        ([release(value="40.00")], "19.90 EUR", [19.9]),
        ([release(value="40.00"), release(value="40.00")], "19.90 EUR", [19.9]),
        ([release(value="40.00"), release(value="9.90")], "50.00 EUR", [50.0]),
        ([release(value="40.00"), cancel()], "59.90 EUR", [59.9]),
        ([cancel(), release(value="40.00")], "59.90 EUR", [59.9]),
        ([release(value="40.005")], "19.895 EUR", [19.895]),  # as a Kuwaiti dinar has
        # The next payment of a subscription, the same again, more, another currency.
        ([release(value="9.90", timestamp=1.8e9)], "", []),
        ([release(), release(value="59.90"), release(value="70.00")], "", []),
        ([release(value="1.00", currency="USD")], "", []),
    ],
)
def test_what_is_taken_back_after_the_delivery_is_kept_with_the_order(
    bench: Bench, outbox: Outbox, said: list[Verdict], refund: str, counted: list[float]
) -> None:
    outbox.put(bench.event("1001", digest="59.90 EUR"))
    assert deliver(outbox) == ["1001"]
    for verdict in said:
        outbox.decide(verdict)
        outbox.ingest.take_in()
    [row] = outbox.lookups.list("delivered")
    assert (row.refund, row.refunded_at) == (refund, 1.8e9 if refund else None)
    sums = outbox.lookups.history(0, ("outcome", "currency"))
    assert [float(one.value) for one in sums if one.outcome == "too_late"] == counted


def test_a_cancelled_dead_letter_is_no_loss_unless_it_is_forgotten(
    bench: Bench, outbox: Outbox
) -> None:
    """Nobody could have sent it any more."""
    outbox.put(bench.event("1001", payload=b'{"of":"ann"}'))
    outbox.put(bench.event("1002"))
    bury(outbox)
    assert outbox.admin.forget(lambda wire: wire.get("of") == "ann").events == 1

    for key in ("1001", "1002"):
        outbox.decide(cancel(key))

    assert states(outbox) == {"dead": 1, "cancelled": 1}
    assert history(outbox) == {("dead", "refused"): 1, ("cancelled", "cancelled"): 1}


def test_a_hold_that_nobody_releases_ends(bench: Bench, outbox: Outbox) -> None:
    id = hold(bench, outbox, held_for=60.0)
    assert deliver(outbox) == []
    bench.pass_time(61)

    outbox.admin.keep_house()
    assert deliver(outbox) == []
    row = shown(outbox, id)
    assert (row.state, row.reason, row.payload) == ("cancelled", "hold_expired", b"")
    assert history(outbox)["expired", "hold_expired"] == 1
    assert bench.counters.get("hold_expired", "hold_expired") == 1

    outbox.decide(release())
    assert deliver(outbox) == []
    assert history(outbox)["unused", "hold_expired"] == 1
    assert states(outbox) == {"cancelled": 1}
    bench.pass_time(91 * DAY)
    assert outbox.admin.keep_house()
    assert states(outbox) == {}


@pytest.mark.parametrize("account", [EID, ""])
@pytest.mark.parametrize("verdict", [release, cancel])
def test_a_verdict_on_an_order_that_nobody_held_shows_up(
    bench: Bench, outbox: Outbox, verdict: Callable[[], Verdict], account: str
) -> None:
    said = verdict()
    outbox.decide(replace(said, order=said.order._replace(advertisable_eid=account)))
    assert outbox.lookups.counts()["decided"] == 1
    bench.pass_time(7 * DAY)
    if not account:
        outbox.queue.adopt(EID)  # with no more time than it has
    bench.pass_time(1)

    outbox.admin.keep_house()

    assert outbox.lookups.counts()["decided"] == 0
    assert history(outbox) == {("unused", f"{verdict().kind}_of_no_hold"): 1}
    assert bench.counters.get("hold_unused", f"{verdict().kind}_of_no_hold") == 1
    hold(bench, outbox)
    assert deliver(outbox) == []
    assert states(outbox) == {"held": 1}


def test_a_release_waits_for_its_event_whatever_that_is(bench: Bench, outbox: Outbox) -> None:
    outbox.decide(release("1001", conversion_value="1.00", timestamp=1.7e9))
    for key in ("1002", "1003"):
        outbox.decide(release(key))
    outbox.ingest.take_in()
    hold(bench, outbox, "1001")
    outbox.put(bench.event("1001"))  # a report without a hold releases it as well
    twice = bench.event("1002", held_for=HELD)
    for _ in range(2):  # by the database and the journal: nobody heard of the commit
        outbox.put(twice)
    outbox.put(bench.event("1003", dead=("invalid:value", "takes an amount")))

    claim = claimed(outbox)
    assert json.loads(claim.events[0].payload)["conversion_value"] == "1.00"
    settle(outbox, claim)
    assert states(outbox) == {"delivered": 2, "dead": 1}
    happened = {("delivered", ""): 2, ("invalid", "invalid:value"): 1}
    assert history(outbox) == happened | {("duplicate", "another_value"): 1}


def test_other_events_of_the_same_key_are_not_meant(bench: Bench, outbox: Outbox) -> None:
    hold(bench, outbox)
    hold(bench, outbox, dry_run=True)
    hold(bench, outbox, name="signupPlan")
    outbox.decide(release())

    assert len(deliver(outbox)) == 1
    assert states(outbox) == {"held": 2, "delivered": 1}


def test_a_decision_that_was_rolled_back_was_none(bench: Bench, outbox: Outbox) -> None:
    id = hold(bench, outbox)
    outbox.database.create_tables()
    with Session(bench.sql()) as session:
        outbox.decide(release(), session=session)
        session.rollback()
    assert deliver(outbox) == []
    with Session(bench.sql()) as session:
        assert outbox.decide(release(), session=session) == id
        session.commit()
    assert deliver(outbox) == ["1001"]


def test_hold_and_release_at_once_meet(server: Bench, make_bench: Callable[[str], Bench]) -> None:
    """Two transactions at the same time, each on its own snapshot."""
    outbox = server.open()
    outbox.database.create_tables()
    with Session(server.sql()) as shop:
        outbox.put(server.event("1001", held_for=HELD), session=shop)
        with Session(server.sql()) as webhook:
            outbox.decide(release(), session=webhook)
            webhook.commit()
        shop.commit()

    assert deliver(outbox) == ["1001"]


SHOP, STAGING = "https://shop.example", "https://staging.example"


@pytest.mark.parametrize(
    ("held_at", "decided_at"),
    [(SHOP, SHOP), (SHOP, STAGING), (SHOP, None), (STAGING, STAGING), (STAGING, None)],
)
def test_a_verdict_finds_its_hold(held_at: str, decided_at: str | None, make_app: AppMaker) -> None:
    """Whichever host of the site says it."""
    app = make_app(ADROLL_HOSTS=("shop.example",))
    visit = partial(app.test_request_context, "/?adct=click-1", environ_base=ENVIRON)
    with visit(base_url=held_at):
        for order in ("1", "2"):
            receipt = report_conversion(order_id=order, value=1, currency="EUR", hold=True)
            assert receipt.status == "held"
    with visit(base_url=decided_at) if decided_at else app.app_context():
        assert release_conversion("1").status == "released"
        assert cancel_conversion("2").status == "cancelled"

    listed = app.extensions["adroll"].outbox.lookups.list()
    dry = held_at == STAGING
    assert {(row.key, row.state, row.dry_run) for row in listed} == {
        ("1", "waiting", dry),
        ("2", "cancelled", dry),
    }
