"""What problems are made of: the newest dead letters, their history, and what is open; by index."""

import json

from adroll_flask.outbox.model import OrderKey
from adroll_flask.outbox.outbox import Outbox
from tests.support.outbox_engines import Bench, claimed, deliver, retry, settle


def bury(bench: Bench, outbox: Outbox, *keys: str, error: str = "http_400: no product") -> None:
    """Let AdRoll refuse the orders *keys*, in this order."""
    for key in keys:
        outbox.put(bench.event(key))
        settle(outbox, claimed(outbox), "dead", reason="refused", error=error)
        bench.pass_time(60.0)


def test_the_newest_dead_letters_come_first(bench: Bench, outbox: Outbox) -> None:
    bury(bench, outbox, "1001", "1002", "1003")
    outbox.put(bench.event(None, dead=("invalid:value", "value: takes an amount")))
    bench.insert(outbox, "1004")
    invalid, newest, before = outbox.lookups.dead_letters(3)
    assert (invalid.reason, invalid.error) == ("invalid:value", "value: takes an amount")
    assert (newest.reason, newest.error) == ("refused", "http_400: no product")
    assert newest.name == "purchase"
    rows = {row.id: row.key for row in outbox.lookups.list("dead")}
    assert (rows[newest.id], rows[before.id]) == ("1003", "1002")
    assert (newest.settled_at or 0) > 0
    assert newest.whole


def test_history_knows_what_could_not_be_sent(bench: Bench, outbox: Outbox) -> None:
    bury(bench, outbox, "1001", "1002")
    outbox.put(bench.event(None, dead=("invalid:value", "value: takes an amount")))
    bench.report(outbox, "1003")
    deliver(outbox)
    retry(outbox)
    lost = (row for row in outbox.lookups.totals() if row.outcome != "delivered")
    sums = {(row.event_name, row.reason): row.events for row in lost}
    assert sums == {("purchase", "refused"): 2, ("purchase", "invalid:value"): 1}


def test_an_invalid_event_is_found_by_the_order_id_in_it(bench: Bench, outbox: Outbox) -> None:
    for order in ("1001", "1002", "Bestellung \u00e4/7"):
        payload = json.dumps({"event_attributes": {"order_id": order}}).encode()
        outbox.put(bench.event(None, payload=payload, dead=("invalid:value", "value: no amount")))
    bury(bench, outbox, "1003")
    outbox.ingest.take_in()
    [found] = outbox.lookups.dead_letters_of("1002", 100)
    assert found.payload == b'{"event_attributes": {"order_id": "1002"}}'
    assert len(outbox.lookups.dead_letters_of("Bestellung \u00e4/7", 100)) == 1
    assert outbox.lookups.dead_letters_of("1003", 100) == ()  # it has its key
    assert outbox.lookups.dead_letters_of("1001", 1) == ()


def test_orders_of_every_account_are_found(bench: Bench, outbox: Outbox) -> None:
    orders = [OrderKey(eid, False, "purchase", "1001") for eid in ("", *"ABCDEFGH")]
    own = [bench.insert(outbox, "1001", advertisable_eid=order[0])[0] for order in orders]
    known = outbox.lookups.of_orders([*orders, OrderKey("I", False, "purchase", "1001")])
    assert [(order, row.id) for order, row in known.items()] == [*zip(orders, own, strict=True)]
    own += bench.insert(outbox, "1001", advertisable_eid="A", dry_run=True)
    outbox.put(bench.event("1001", name="addToCart"))
    assert [row.id for row in outbox.lookups.find("1001", ["purchase"])] == sorted(own)
