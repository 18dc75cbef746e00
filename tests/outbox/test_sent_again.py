"""A dead letter that is sent again counts once; a dry run counts apart."""

from decimal import Decimal

import pytest

from adroll_flask.outbox import Outbox
from adroll_flask.outbox.model import HistoryColumn, OutcomeKind
from tests.support.outbox_engines import Bench, claimed, retry, settle, told

HOUR = 3600.0


def end(outbox: Outbox, *kinds: OutcomeKind) -> None:
    """End all that is due by *kinds* in turn, else as delivered."""
    settle(outbox, claimed(outbox), *kinds, reason="refused")


def history(outbox: Outbox, by: HistoryColumn = "at") -> dict[str, tuple[int, Decimal]]:
    found: dict[str, tuple[int, Decimal]] = {}
    for row in outbox.lookups.history(0, ("outcome", by)):
        events, value = found.get(row.outcome, (0, Decimal()))
        found[row.outcome] = events + row.events, value + row.value
    return found


def test_a_dead_letter_sent_again_is_delivered_and_not_lost(bench: Bench, outbox: Outbox) -> None:
    bench.report(outbox, "1001", "1002", digest="10 EUR", identifiers=3)
    bench.report(outbox, "1003", digest="2 CHF")
    end(outbox, "dead", "dead", "delivered")
    assert history(outbox) == {"dead": (2, Decimal(20)), "delivered": (1, Decimal(2))}

    assert retry(outbox) == 2
    assert history(outbox) == {"delivered": (1, Decimal(2))}
    end(outbox, "delivered", "dead")

    expected = {"dead": (1, Decimal(10)), "delivered": (2, Decimal(12))}
    columns: tuple[HistoryColumn, ...] = ("at", "event_name", "reason", "identifiers")
    for by in columns:
        assert history(outbox, by) == expected, by
    assert told(outbox, "outcome") == {"dead": 1, "delivered": 2}


def test_what_was_invalid_is_no_loss_once_it_is_fixed(bench: Bench, outbox: Outbox) -> None:
    """It was counted in its own hour, which may be over when it is taken in."""
    event = bench.event("1001", name="pageView", digest="10 EURO", occurred_at=bench.now() - 4000)
    outbox.put(event, dead=("invalid:currency", "currency: takes three letters"))
    assert list(history(outbox)) == ["invalid"]
    (id,) = (row.id for row in outbox.lookups.list("dead"))
    assert outbox.admin.fix(id, b'{"event_name": "purchase"}', "1001", digest="10 EUR")
    assert history(outbox) == {}
    assert [row.name for row in outbox.lookups.list()] == ["purchase"]
    end(outbox)
    assert history(outbox) == {"delivered": (1, Decimal(10))}


def test_monitoring_sums_never_become_less(sqlite: Bench, outbox: Outbox) -> None:
    outbox.put(sqlite.event("1001", digest="10 EUR"))
    end(outbox, "dead")

    def lost() -> tuple[int, Decimal]:
        (one,) = [one for one in outbox.lookups.totals() if one.outcome == "dead"]
        return one.events, one.value

    assert lost() == (1, Decimal(10))
    sqlite.clock.now += 5 * HOUR
    retry(outbox)
    assert lost() == (1, Decimal(10))
    end(outbox, "dead")
    assert lost() == (2, Decimal(20))


def test_a_copy_that_is_laid_to_rest_and_sent_again_is_counted_once(sqlite: Bench) -> None:
    outbox = sqlite.open()
    sqlite.insert(outbox, "1001", digest="10 EUR", identifiers=3)
    outbox.admin.let_rest()
    assert history(outbox) == {"dead": (1, Decimal(10))}
    assert retry(outbox) == 1
    end(outbox)
    assert history(outbox) == {"delivered": (1, Decimal(10))}


# -- dry runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "ended"), [("delivered", "delivered"), ("dead", "dead:refused")])
def test_a_dry_run_is_counted_apart(
    bench: Bench, outbox: Outbox, kind: OutcomeKind, ended: str
) -> None:
    bench.report(outbox, "1001", "1001", dry_run=True, digest="10 EUR")  # a reload
    end(outbox, kind)
    assert list(history(outbox)) == ["dry_run"]
    assert told(outbox, "reason") == {ended: 1, "duplicate": 1}
    (silent,) = {row.outcome for row in outbox.lookups.totals()}
    assert silent == "dry_run"


def test_a_dry_run_that_is_sent_again_takes_no_real_loss_away(sqlite: Bench) -> None:
    outbox = sqlite.open()
    outbox.put(sqlite.event("1001", dry_run=True))
    outbox.put(sqlite.event("1001"))
    end(outbox, "dead")
    assert retry(outbox, *(row.id for row in outbox.lookups.list("dead") if row.dry_run)) == 1
    assert history(outbox)["dead"][0] == 1


def test_a_dry_run_that_is_dropped_or_cancelled_is_one_still(sqlite: Bench, outbox: Outbox) -> None:
    outbox.put(sqlite.event("1001", dry_run=True))
    sqlite.insert(outbox, "1002", dry_run=True, held_for=60.0)
    outbox.admin.drop([row.id for row in outbox.lookups.list() if row.key == "1001"])
    sqlite.pass_time(120)
    outbox.keep_house()
    ends = "cancelled:dropped", "expired:hold_expired"
    assert told(outbox, "outcome", "reason") == {("dry_run", end): 1 for end in ends}
