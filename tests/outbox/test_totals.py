"""What monitoring asks for: sums that only grow, over all processes, without counting events."""

from collections import Counter
from decimal import Decimal

from adroll_flask.outbox import Outbox, Outcome
from adroll_flask.outbox.history import KEPT
from adroll_flask.outbox.model import Counted
from tests.support.outbox_engines import EID, Bench, claimed


def end(outbox: Outbox, kind: str = "delivered", reason: str = "") -> None:
    claim = claimed(outbox)
    outbox.queue.settle(
        claim,
        [Outcome(id=event.id, kind=kind, reason=reason) for event in claim.events],  # type: ignore[arg-type]
    )


def sums(outbox: Outbox) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for one in outbox.lookups.totals().sums:
        found[one.outcome, one.reason] += one.events
    return found


def test_every_process_tells_the_same_of_all(bench: Bench, outbox: Outbox) -> None:
    other = bench.open()
    outbox.put(bench.event(digest="59.9 EUR"))
    outbox.put(bench.event(digest="0.1 EUR"))
    end(outbox)
    other.put(bench.event(digest="7 USD"))
    end(other, "dead", "refused")
    other.record(Counted(bench.now(), "purchase", "suppressed", "consent_gpc"))
    other.queue.take_in()

    for each in (outbox, other, bench.open()):
        assert sums(each) == {
            ("delivered", ""): 2,
            ("dead", "refused"): 1,
            ("suppressed", "consent_gpc"): 1,
        }
    (euros,) = [one for one in other.lookups.totals().sums if one.currency == "EUR"]
    assert (euros.value, sum(euros.delays)) == (Decimal(60), 2)


def test_sums_go_on_while_hours_pass(sqlite: Bench) -> None:
    outbox, other = sqlite.open(), sqlite.open()
    for number in range(1, 8):
        outbox.put(sqlite.event())
        end(outbox)
        for each in (outbox, other):
            assert sums(each)["delivered", ""] == number
        sqlite.clock.now += 1900.0


def test_what_is_too_old_for_the_history_is_not_lost_for_the_sums(sqlite: Bench) -> None:
    outbox = sqlite.open()
    for _ in range(3):
        outbox.put(sqlite.event(digest="2.5 EUR"))
    end(outbox)
    sqlite.pass_time(KEPT / 2)
    outbox.put(sqlite.event(digest="1 EUR"))
    end(outbox)
    before = outbox.lookups.totals().sums
    outbox.close()  # a file of the journal does not live for a year
    sqlite.open().queue.take_in()
    for _ in range(2):
        sqlite.pass_time(KEPT / 2 + 7200)
        tidy = sqlite.open()
        while tidy.keep_house():
            pass
        for each in (outbox, tidy):
            assert each.lookups.totals().sums == before
    assert outbox.lookups.history(0, ["at"]) == ()
    assert outbox.lookups.watched() == ()


def test_what_waits_is_told_by_its_age_and_not_counted_beyond_a_bound(sqlite: Bench) -> None:
    outbox = sqlite.open()
    assert (outbox.lookups.totals().due, outbox.lookups.totals().oldest_due) == (0, None)
    for _ in range(3):
        outbox.put(sqlite.event())
    assert outbox.lookups.totals().journal_bytes > 0
    outbox.queue.take_in()
    sqlite.clock.now += 300
    totals = outbox.lookups.totals()
    assert (totals.due, totals.oldest_due, totals.journal_bytes) == (3, 300.0, 0)
    outbox.destination(EID).stop("refused", "fingerprint")
    assert outbox.lookups.totals().destinations[EID].stopped == "refused"
