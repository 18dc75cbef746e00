"""What monitoring asks for: sums that only grow, over all processes, without counting events."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from adroll_flask.outbox import Outbox, Outcome
from adroll_flask.outbox.history import KEPT
from adroll_flask.outbox.record_format import Suppressed
from tests.support.outbox_engines import Bench


def settle(outbox: Outbox, kind: str = "delivered", reason: str = "") -> None:
    claim = outbox.queue.claim()
    assert claim is not None
    outbox.queue.settle(
        claim,
        [Outcome(id=event.id, kind=kind, reason=reason) for event in claim.events],  # type: ignore[arg-type]
    )


def sums(outbox: Outbox) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for one in outbox.figures.totals().sums:
        found[one.outcome, one.reason] += one.events
    return found


def test_every_process_tells_the_same_of_all(bench: Bench, outbox: Outbox) -> None:
    other = bench.open()
    outbox.put(bench.event(digest="59.9 EUR"))
    outbox.put(bench.event(digest="0.1 EUR"))
    settle(outbox)
    other.put(bench.event(digest="7 USD"))
    settle(other, "dead", "refused")
    other.record(Suppressed(bench.now(), "purchase", "consent_gpc"))
    other.queue.take_in()

    for each in (outbox, other, bench.open()):
        assert sums(each) == {
            ("delivered", ""): 2,
            ("dead", "refused"): 1,
            ("suppressed", "consent_gpc"): 1,
        }
    (euros,) = [one for one in other.figures.totals().sums if one.currency == "EUR"]
    assert (euros.value, sum(euros.delays)) == (Decimal(60), 2)


def test_sums_go_on_while_hours_pass(sqlite: Bench) -> None:
    outbox, other = sqlite.open(), sqlite.open()
    for number in range(1, 8):
        outbox.put(sqlite.event())
        settle(outbox)
        for each in (outbox, other):
            assert sums(each)["delivered", ""] == number
        sqlite.clock.now += 1900.0


def test_what_is_too_old_for_the_history_is_not_lost_for_the_sums(sqlite: Bench) -> None:
    outbox = sqlite.open()
    for _ in range(3):
        outbox.put(sqlite.event(digest="2.5 EUR"))
    settle(outbox)
    sqlite.clock.now += KEPT / 2
    outbox.put(sqlite.event(digest="1 EUR"))
    settle(outbox)
    before = outbox.figures.totals().sums
    for _ in range(2):
        sqlite.clock.now += KEPT / 2 + 7200
        tidy = sqlite.open()
        while tidy.housekeeping.step():
            pass
        for each in (outbox, tidy):
            assert each.figures.totals().sums == before
    assert outbox.figures.history(0, "day") == ()
    assert outbox.figures.history_sums(0, ["at"]) == ()
    assert outbox.figures.silences() == ()


def test_what_waits_is_told_by_its_age_and_not_counted_beyond_a_bound(sqlite: Bench) -> None:
    outbox = sqlite.open()
    assert (outbox.figures.totals().due, outbox.figures.totals().oldest_due) == (0, None)
    for _ in range(3):
        outbox.put(sqlite.event())
    assert outbox.figures.totals().journal_bytes > 0
    outbox.queue.take_in()
    sqlite.clock.now += 300
    totals = outbox.figures.totals()
    assert (totals.due, totals.oldest_due, totals.journal_bytes) == (3, 300.0, 0)
    outbox.destination.hold("refused", "fingerprint")
    assert outbox.figures.totals().destination.held == "refused"
