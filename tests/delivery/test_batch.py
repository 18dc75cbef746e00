"""Refusals for content: who is to blame, found in how many requests, and when nobody is."""

import json
import random
import threading
from pathlib import Path

import pytest

from tests.conftest import Caplog
from tests.support.delivery_kit import (
    OK,
    PIXEL,
    RECORD_ID,
    AdRoll,
    NoAnswer,
    Reply,
    Response,
    Shop,
    orders,
    refusal,
)
from tests.support.outbox_engines import EID, Withdrawal

EIDS = f'{{"advertisable_eid":"{EID}","pixel_eid":"{PIXEL}"}}'


def refusing(*bad: str, status: int = 400, trial: Reply = OK) -> AdRoll:
    """An AdRoll that refuses a batch with any of *bad* in it, in words that it cuts in an emoji."""

    def judge(batch: list[str], dry: bool) -> Reply:
        if batch == ["?"]:
            return trial
        guilty = set(bad).intersection(batch)
        return refusal(status, {"message": "currency\ud83dis wrong"}) if guilty else OK

    return AdRoll(judge)


@pytest.mark.parametrize("taken_in", ["while it is ahead", "afterwards"])
def test_an_order_of_a_clock_ahead_waits_for_its_time(tmp_path: Path, taken_in: str) -> None:
    def judge(batch: list[str], _dry: bool) -> Reply:
        early = "o001" in batch and shop.clock() < its_time
        return refusal(400, {"message": "timestamp must not lie in the future"}) if early else OK

    shop = Shop(tmp_path, AdRoll(judge))
    shop.clock.now += 3600
    shop.report("o001")
    its_time = shop.clock()
    if taken_in == "while it is ahead":
        shop.outbox.ingest.take_in()
    shop.clock.now -= 3600  # set right
    shop.report("o002")
    shop.step()
    shop.step()
    assert shop.states() == {"o001": "waiting", "o002": "delivered"}
    shop.steps(300, 11)
    assert shop.states()["o001"] == "waiting"
    assert len(shop.adroll.requests) < 12, "it is not asked again all the time"
    shop.steps(3, 600)
    assert shop.states()["o001"] == "delivered"


@pytest.mark.parametrize("status", [400, 422])
def test_one_bad_event_among_many_is_found_by_halving(
    tmp_path: Path, status: int, caplog: Caplog
) -> None:
    shop = Shop(tmp_path, refusing("o003", status=status), orders=8)
    assert shop.step() == 8
    assert shop.adroll.requests == [
        orders(8),
        orders(4),
        orders(2),
        orders(2, 3),
        ["o003"],
        ["o004"],
        orders(4, 5),
    ]
    assert shop.adroll.trials == []
    assert sorted(shop.adroll.taken) == [o for o in orders(8) if o != "o003"]
    row = shop.rows()["o003"]
    assert (row.state, row.reason) == ("dead", "refused")
    assert row.error == f"http_{status}: currency is wrong", "which a database keeps"
    (attempt,) = row.attempt_log
    assert (attempt.answer, attempt.status, attempt.words) == ("content", status, row.error)
    assert json.loads(shop.payload("o003") or b"")["event_attributes"]["order_id"] == "o003"
    assert shop.counters.get("event_dead", "refused") == 1
    assert ("dead", "o003", "refused") in shop.ended
    assert f"became dead letters: 1, the first is {row.id}, refused" in caplog.text


@pytest.mark.parametrize("status", [400, 413])
def test_a_refusal_of_everything_holds_and_blames_nobody(tmp_path: Path, status: int) -> None:
    adroll = AdRoll(refusal(status))
    shop = Shop(tmp_path, adroll, orders=300)
    assert shop.step() == 0
    # Down to the first one alone, one more to be sure, and a trial event.
    assert adroll.sizes == [100, 50, 25, 13, 7, 4, 2, 1, 1]
    assert len(adroll.trials) == 1
    shop.steps(20, 31)
    assert shop.stopped() == f"http_{status}_to_everything"
    assert set(shop.states().values()) == {"waiting"}
    assert {(row.attempts, row.unsure) for row in shop.rows().values()} == {(0, False)}
    assert shop.counters.get("delivery_stopped", f"http_{status}_to_everything") == 1
    assert shop.counters.get("event_dead", "refused" if status == 400 else "too_large") == 0
    adroll.judge = OK
    shop.clock.sleep(300)
    adroll.requests.clear()
    shop.deliverer.drain()
    assert sorted(adroll.taken) == orders(300)
    assert max(adroll.sizes) == 100, "not one by one for hours"


def test_all_bad_events_are_dead_letters_where_a_trial_event_passes(tmp_path: Path) -> None:
    shop = Shop(tmp_path, refusing(*orders(4)), orders=4)
    assert shop.step() == 4
    assert set(shop.states().values()) == {"dead"}
    assert shop.stopped() is None
    (trial,) = shop.adroll.trials  # as a dry run
    assert "canary" not in json.dumps(trial), "it is nobody's"


@pytest.mark.parametrize("status", [400, 413])
@pytest.mark.parametrize(
    "trial", [refusal(503), refusal(500), NoAnswer("refused", sure=True), refusal(401)]
)
def test_a_trial_that_fails_blames_nobody(tmp_path: Path, trial: Reply, status: int) -> None:
    shop = Shop(tmp_path, refusing("o001", status=status, trial=trial), orders=1)
    shop.step()
    unauthorized = isinstance(trial, Response) and trial.status == 401
    assert shop.stopped() == ("http_401" if unauthorized else None)
    row = shop.rows()["o001"]
    assert (row.state, row.attempts, row.unsure) == ("waiting", 0, False)
    assert shop.outbox.destination(EID).state().failures == 1


def test_413_for_one_event_makes_it_a_dead_letter(tmp_path: Path) -> None:
    shop = Shop(tmp_path, AdRoll(lambda batch, _dry: refusal(413) if "o002" in batch else OK))
    shop.report(*orders(3), external_data="x" * 700)
    shop.step()
    assert shop.states() == {"o001": "delivered", "o002": "dead", "o003": "delivered"}
    row = shop.rows()["o002"]
    assert (row.reason, row.error) == ("too_large", "http_413: no (bad)")


def test_what_is_not_in_the_present_request_is_never_marked_as_sending(tmp_path: Path) -> None:
    """An outage amid halving leaves its own request unsure, and no other."""
    sending: list[list[str]] = []
    replies: list[Reply] = [refusal(400), OK, NoAnswer("reset", sure=False)]

    def judge(_batch: list[str], _dry: bool) -> Reply:
        sending.append([order for order, state in shop.states().items() if state == "sending"])
        return replies[len(sending) - 1]

    shop = Shop(tmp_path, AdRoll(judge), orders=4)
    shop.step()
    assert sending == shop.adroll.requests == [orders(4), orders(2), orders(2, 3)]
    rows = [shop.rows()[order] for order in orders(4)]
    assert [row.state for row in rows] == ["delivered", "delivered", "waiting", "waiting"]
    assert [row.unsure for row in rows] == [False, False, True, True]


def test_an_event_that_makes_adroll_fail_ends_up_alone(tmp_path: Path) -> None:
    adroll = AdRoll(lambda batch, _dry: refusal(500) if "o050" in batch else OK)
    shop = Shop(tmp_path, adroll, rng=random.Random(7), orders=100)
    for _ in range(30):
        shop.deliverer.drain()
        shop.clock.sleep(901)
    assert sorted(shop.adroll.taken) == [o for o in orders(100) if o != "o050"]
    assert shop.rows()["o050"].reason == "unsure"
    again = [len(r) for r in shop.adroll.requests if "o050" in r]
    assert len(again) == 6
    assert again == sorted(again, reverse=True)
    assert again[3:] == [1, 1, 1]
    # The rest went twice at most a few times over, and all of it is marked.
    assert all(row.unsure for row in shop.rows().values())


def test_a_no_between_two_requests_of_a_claim_counts(tmp_path: Path) -> None:
    def judge(_batch: list[str], _dry: bool) -> Reply:
        shop.outbox.record(Withdrawal(shop.clock(), RECORD_ID))
        shop.outbox.ingest.take_in()
        return OK

    shop = Shop(tmp_path, AdRoll(judge), orders=1)
    shop.report("o002", dry_run=True)
    shop.step()
    assert shop.adroll.requests == [["o001"]]


def test_events_reported_before_the_account_was_known_are_filled_in(tmp_path: Path) -> None:
    early = Shop(tmp_path, advertisable_eid=None, pixel_eid=None, access_token=None, orders=1)
    early.report("o002", pixel_eid="")
    early.put("view", b'{"event_name":"pageView"}', account="")
    assert early.step() == 0
    assert early.adroll.requests == []
    early.report("o003")  # its file is read later
    shop = Shop(tmp_path, clock=early.clock)
    assert shop.step() == 3
    shop.clock.now += 60.0
    assert shop.step() == 1
    assert [len(orders) for orders in shop.adroll.requests] == [3, 1]
    for wire in shop.adroll.wires:
        assert wire["advertisable_eid"] == shop.settings.advertisable_eid
        assert wire["pixel_eid"] == shop.settings.pixel_eid


DAMAGED = {
    "text": b"not JSON",
    "list": b"[]",
    "deep": b"[" * 100_000,
    "bytes": b"\xff",
    "list of an event": f"[{EIDS}]".encode(),
    "behind its account": f'{EIDS[:-1]},"event_name":'.encode(),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_row_is_a_dead_letter_and_harms_no_other(tmp_path: Path, how: str) -> None:
    shop = Shop(tmp_path, orders=1)
    shop.put("bad", DAMAGED[how])
    shop.step()
    assert shop.states() == {"bad": "dead", "o001": "delivered"}
    assert shop.rows()["bad"].reason == ("refused" if "behind" in how else "damaged")


@pytest.mark.parametrize("many", [1, 4])
def test_no_request_begins_after_stop(tmp_path: Path, many: int) -> None:
    stop = threading.Event()

    def judge(_batch: list[str], _dry: bool) -> Reply:
        stop.set()
        return refusal(400)

    shop = Shop(tmp_path, AdRoll(judge), orders=many)
    shop.deliverer.drain(stop, until=0.0)
    assert (shop.adroll.requests, shop.adroll.trials) == ([orders(many)], [])
    assert set(shop.states().values()) == {"waiting"}
    assert not any(row.unsure for row in shop.rows().values())


def test_errors_in_a_success_are_counted(tmp_path: Path, caplog: Caplog) -> None:
    body = b'{"errors": [{"message": "deprecated"}]}'
    shop = Shop(tmp_path, AdRoll(Response(200, {}, body)), orders=2)
    assert shop.step() == 2
    assert shop.counters.get("delivery_warning", "errors_with_success") == 1
    assert "AdRoll took 2 events but says: http_200: deprecated" in caplog.text
    assert shop.adroll.sizes == [2]


# What is kept of each request that AdRoll did not take, until the event is delivered


def test_attempts_are_kept_with_time_status_words_and_doubt(tmp_path: Path) -> None:
    busy = refusal(503, {"message": "maintenance"})
    answers: list[Reply] = [*[busy] * 24, NoAnswer("read_timeout", sure=False)]
    shop = Shop(tmp_path, AdRoll(lambda _batch, dry: OK if dry else answers.pop(0)), orders=1)
    while answers:
        shop.step(after=60)
    log = shop.rows()["o001"].attempt_log
    assert len(log) == 20, "the last ones"
    assert [one.at for one in log] == sorted(one.at for one in log)
    *_, known, last = log
    assert (known.answer, known.status, known.unsure) == ("throttled", 503, False)
    assert "maintenance" in known.words
    assert (last.answer, last.status, last.unsure) == ("unsure", None, True)
    assert "read_timeout" in last.words
    assert abs(last.at - shop.clock.now) < 1
    answers.append(OK)
    shop.drain(after=3600)
    row = shop.rows()["o001"]
    assert (row.state, row.attempt_log) == ("delivered", ())
