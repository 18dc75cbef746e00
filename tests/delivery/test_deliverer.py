"""Pauses, holds, probes, age: when a request goes, and when none does."""

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adroll_flask.accounts import Account
from adroll_flask.delivery import deliverer
from adroll_flask.delivery.turns import Progress
from tests.conftest import Caplog, Patch
from tests.support import PATIENCE, eventually
from tests.support.delivery_kit import OK, AdRoll, Clock, NoAnswer, Reply, Shop, orders, refusal
from tests.support.outbox_engines import EID, Counted, retry
from tests.support.patching import replace_method

DOWN = NoAnswer("refused", sure=True)


# Outages


def test_pauses_grow_to_half_a_minute(tmp_path: Path, caplog: Caplog) -> None:
    shop = Shop(tmp_path, AdRoll(DOWN), orders=1)
    pauses = []
    for _ in range(12):
        shop.step()
        pauses.append(round(shop.outbox.destination(EID).state().paused_for))
        shop.clock.sleep(pauses[-1] + 1)
    assert pauses == [2, 4, 8, 16] + [30] * 8
    [said] = caplog.messages
    assert "A request to AdRoll failed (refused)" in said


def test_a_request_that_hung_has_been_part_of_the_pause(tmp_path: Path) -> None:
    def hangs(_orders: list[str], _dry: bool) -> Reply:
        shop.clock.sleep(20)
        return NoAnswer("read_timeout", sure=False)

    shop = Shop(tmp_path, AdRoll(hangs))
    began = []
    for order in orders(8):
        shop.report(order)
        began.append(shop.clock.now)
        shop.step()
        shop.clock.sleep(shop.outbox.destination(EID).state().paused_for + 0.001)
    gaps = [round(b - a) for a, b in itertools.pairwise(began)]
    assert gaps == [21, 21, 21, 21, 30, 30, 30]


# AdRoll is away: a trial event asks


def test_an_unsure_order_is_sent_again_five_times_and_rests(tmp_path: Path, caplog: Caplog) -> None:
    times: list[float] = []

    def judge(batch: list[str], _dry: bool) -> Reply:
        if batch == ["?"]:
            return OK
        times.append(shop.clock.now)
        return refusal(502, {"message": "Bad gateway"})

    shop = Shop(tmp_path, AdRoll(judge), orders=1)
    shop.steps(360, 10)
    shop.steps(1380, 60)  # a day
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert (len(times), gaps) == (6, sorted(gaps))
    assert gaps[0] <= 20 < 900 <= gaps[-1]
    row = shop.rows()["o001"]
    assert (row.state, row.reason, row.unsure) == ("dead", "unsure", True)
    assert "sent 6 times without a certain answer, AdRoll may have taken it" in row.error
    assert row.error.startswith("http_502: ")
    assert shop.counters.get("event_dead", "unsure") == 1
    assert shop.counters.get("event_unsure", "http_502") == 6
    assert shop.ended == [("dead", "o001", "unsure")]

    assert retry(shop.outbox, row.id) == 1
    shop.adroll.judge = OK
    shop.drain(after=31)
    row = shop.rows()["o001"]
    assert (row.state, row.unsure) == ("delivered", True), "the mark stays"


def test_on_unsure_drop(tmp_path: Path) -> None:
    shop = Shop(tmp_path, AdRoll(refusal(502)), on_unsure="drop", orders=3)
    assert shop.step() == 3
    assert {(row.state, row.unsure) for row in shop.rows().values()} == {("dead", True)}
    shop.adroll.judge = OK
    shop.drain(after=3601)
    assert shop.adroll.taken == []


def test_a_gateway_s_502_doubles_each_order_once_a_day(tmp_path: Path) -> None:
    adroll = AdRoll(refusal(502))  # and AdRoll behind it took them all the same
    shop = Shop(tmp_path, adroll, orders=3)
    shop.steps(150, DAY / 150)
    assert adroll.requests == [orders(3)]
    assert len(adroll.trials) > 100
    adroll.judge = OK
    shop.drain(after=31)
    assert sorted(adroll.taken) == orders(3)
    assert {(row.state, row.unsure) for row in shop.rows().values()} == {("delivered", True)}


def test_an_order_whose_worker_dies_with_it_each_time_rests_as_well(tmp_path: Path) -> None:
    def dies(_batch: list[str], _dry: bool) -> Reply:
        raise KeyboardInterrupt

    shop = Shop(tmp_path, AdRoll(dies), orders=1)
    for _ in range(10):
        with contextlib.suppress(KeyboardInterrupt):
            shop.step()
        shop.clock.sleep(61)
    assert len(shop.adroll.requests) == 6
    row = shop.rows()["o001"]
    assert (row.state, row.reason, row.unsure) == ("dead", "unsure", True)
    assert row.error.startswith("lapsed: sent 6 times")


@pytest.mark.parametrize(("refused", "dead"), [("?", 0), ("o001", 1)], ids=["a trial", "an order"])
def test_what_is_refused_after_an_outage_holds_up_nobody(
    tmp_path: Path, refused: str, dead: int
) -> None:
    adroll = AdRoll(DOWN)
    shop = Shop(tmp_path, adroll, orders=3)
    shop.step()
    adroll.judge = lambda batch, _dry: refusal(400) if batch == [refused] else OK
    shop.clock.sleep(31)
    shop.steps(5)
    assert adroll.taken == orders(3)[dead:]
    assert [*shop.states().values()].count("dead") == dead
    assert shop.stopped() is None


def test_while_adroll_is_down_one_small_probe_is_under_way_over_all_workers(tmp_path: Path) -> None:
    adroll = AdRoll(DOWN)
    shop = Shop(tmp_path, adroll)
    others = [Shop(tmp_path, adroll, clock=shop.clock) for _ in range(3)]
    shop.report(*orders(50))
    shop.step()
    shop.clock.sleep(3)
    stop = threading.Event()
    stop.set()
    others[0].deliverer.drain(stop, until=0.0)  # it leaves the question to others

    def meanwhile(_orders: list[str], _dry: bool) -> Reply:
        for other in others:
            assert other.step() == 0
        return OK

    adroll.judge = meanwhile
    shop.step()
    assert adroll.sizes == [50, 1]
    adroll.judge = OK
    for one in (shop, *others):
        one.deliverer.drain()
    assert adroll.sizes == [50, 1, 49]
    assert len(set(adroll.taken)) == len(adroll.taken) == 50


# Age


DAY = 86_400.0
BUSY = refusal(503)


def only_trials(answer: Reply) -> AdRoll:
    """An AdRoll that takes trial events and says *answer* to all others."""
    return AdRoll(lambda batch, _dry: OK if batch == ["?"] else answer)


def test_an_event_that_adroll_has_not_taken_for_max_age_is_dead(tmp_path: Path) -> None:
    shop = Shop(tmp_path, only_trials(BUSY), max_age=3600, orders=1)
    shop.step(after=4000)
    assert shop.states() == {"o001": "waiting"}, "its age began just now"
    shop.clock.sleep(3500)
    shop.steps(2, 1)
    assert shop.states() == {"o001": "waiting"}
    shop.clock.sleep(200)
    shop.steps(2, 1)
    row = shop.rows()["o001"]
    assert (row.state, row.reason, row.error) == ("dead", "too_old", "http_503: no (bad)")
    assert shop.counters.get("event_dead", "too_old") == 1


@pytest.mark.parametrize("answer", [DOWN, BUSY, refusal(502)], ids=["refused", "503", "502"])
def test_an_outage_of_eight_days_kills_nothing(tmp_path: Path, answer: Reply) -> None:
    adroll = AdRoll(answer)
    shop = Shop(tmp_path, adroll, orders=20)
    shop.steps(100, 8 * DAY / 100)
    assert set(shop.states().values()) == {"waiting"}
    adroll.judge = OK
    shop.drain(after=3600)
    assert sorted(adroll.taken) == orders(20)


@pytest.mark.parametrize("status", [503, 502])
def test_a_clock_far_ahead_kills_no_order(tmp_path: Path, status: int) -> None:
    adroll = AdRoll(refusal(status))
    shop = Shop(tmp_path, adroll, orders=3)
    shop.step()
    shop.clock.sleep(365 * DAY)
    shop.steps(3, 31)
    shop.clock.sleep(-365 * DAY)
    adroll.judge = OK
    shop.steps(60, 1)
    assert set(shop.states().values()) == {"delivered"}


def test_held_time_does_not_age(tmp_path: Path) -> None:
    adroll = AdRoll(BUSY)
    shop = Shop(tmp_path, adroll, max_age=3600, orders=1)
    shop.step()
    adroll.judge = refusal(401)
    shop.clock.sleep(40)
    shop.steps(2)
    assert shop.stopped()
    shop.clock.sleep(100_000)
    adroll.judge = only_trials(BUSY).judge
    shop.steps(3, 40)
    assert shop.stopped() is None
    assert shop.states() == {"o001": "waiting"}
    shop.clock.sleep(4000)
    Shop(tmp_path, adroll, clock=shop.clock, max_age=3600).step()
    assert shop.states() == {"o001": "dead"}


# Holds


@pytest.mark.parametrize("status", [301, 302, 307, 401, 403, 404, 405, 410, 415, 418])
def test_a_stop_blames_nobody_and_says_so_once(tmp_path: Path, caplog: Caplog, status: int) -> None:
    revoked = refusal(status, {"message": "token canary-token revoked"})
    shop = Shop(tmp_path, AdRoll(revoked), orders=3)
    began = shop.clock.now
    with caplog.at_level(logging.ERROR, "adroll_flask"):
        for _ in range(5):
            shop.step()
            shop.clock.sleep(1000)
    assert shop.stopped() == f"http_{status}"
    row = shop.rows()["o001"]
    assert (row.state, row.attempts, row.unsure) == ("waiting", 0, False)
    assert shop.counters.get("delivery_stopped", f"http_{status}") == 1
    (record,) = caplog.records
    assert "no event is lost or blamed" in record.getMessage()
    assert "canary" not in record.getMessage()
    state = shop.outbox.destination(EID).state()
    assert state.stopped_since == began
    assert "canary" not in (state.last_error or "")


def test_a_stopped_destination_is_asked_once_a_minute(tmp_path: Path) -> None:
    adroll = AdRoll(refusal(401))
    shop = Shop(tmp_path, adroll)
    other = Shop(tmp_path, adroll, clock=shop.clock)
    shop.report(*orders(3))
    times: list[float] = []
    for _ in range(60):
        before = len(adroll.urls)
        shop.step()
        other.step()
        if len(adroll.urls) > before:
            assert len(adroll.urls) == before + 1
            times.append(round(shop.clock.now) % 100_000)
        shop.clock.sleep(10)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert set(gaps) == {60}
    assert adroll.sizes[0] == 3
    assert set(adroll.sizes[1:]) <= {1}, "waiting events are risked one at a time"


def test_a_hold_ends_although_nothing_is_waiting(tmp_path: Path) -> None:
    adroll = AdRoll(refusal(403))
    shop = Shop(tmp_path, adroll, orders=1)
    shop.step()
    shop.outbox.admin.drop([row.id for row in shop.rows().values()])
    shop.step(after=31)  # refused again
    adroll.judge = OK
    shop.step(after=100)
    assert shop.stopped() is None


def test_a_hold_ends_although_adroll_takes_no_dry_runs(tmp_path: Path) -> None:
    taking = [False]
    adroll = AdRoll(lambda batch, dry: OK if taking[0] and not dry else refusal(403))
    shop = Shop(tmp_path, adroll, orders=2)
    shop.step()
    taking[0] = True
    for _ in range(3):
        shop.drain(after=901)
    assert shop.stopped() is None
    assert adroll.taken == orders(2)


def test_two_configurations_side_by_side_do_not_chase_each_other(tmp_path: Path) -> None:
    adroll = AdRoll(lambda _orders, _dry: OK if adroll.tokens[-1] == "Token good" else refusal(401))
    old = Shop(tmp_path, adroll, access_token="bad")
    new = Shop(tmp_path, adroll, access_token="good", clock=old.clock)
    for number in range(100):
        old.report(f"o{number}")
        old.step()
        new.step()
        old.clock.sleep(1)
    assert len(adroll.taken) == len(set(adroll.taken)) == 100
    assert adroll.tokens.count("Token bad") < 6
    assert not any(row.attempts > 1 or row.unsure for row in old.rows().values())


@pytest.mark.parametrize("answer", [refusal(429, retry_after="3600"), refusal(500)])
def test_a_token_that_was_corrected_asks_no_more_often_than_others(
    tmp_path: Path, answer: Reply
) -> None:
    adroll = AdRoll(lambda *_: refusal(401) if adroll.tokens[-1] == "Token bad" else answer)
    old = Shop(tmp_path, adroll, access_token="bad", orders=9)
    old.step()
    Shop(tmp_path, adroll, access_token="good", clock=old.clock).steps(20)
    assert len(adroll.requests) == 2


def test_the_fingerprint_of_a_stop_changes_with_token_eids_url_and_key(tmp_path: Path) -> None:
    def stopped_by(**changes: Any) -> str | None:
        folder = tmp_path / f"{next(numbers)}"
        shop = Shop(folder, AdRoll(refusal(401)), orders=1, **changes)
        shop.step()
        account = shop.settings.advertisable_eid or ""
        return shop.outbox.destination(account).state().fingerprint

    numbers = itertools.count()
    others: dict[str, Any] = {
        "access_token": "other",
        "advertisable_eid": "OTHEREID01",
        "pixel_eid": "OTHEREID01",
        "api_url": "https://other.example/api",
        "secret_key": ("other",),
    }
    prints = [stopped_by(), stopped_by(secret_key=())]
    prints += [stopped_by(**{name: other}) for name, other in others.items()]
    assert len({*prints}) == 7
    assert stopped_by() == stopped_by(secret_key=(b"key",)) == prints[0]


def test_an_api_url_with_a_query_keeps_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path, api_url="https://gate.example/api?via=us#part", orders=1)
    shop.step()
    assert shop.adroll.urls == [f"https://gate.example/api?via=us&advertisable={EID}"]


def test_a_token_that_rotates_ends_the_hold_in_the_same_process(tmp_path: Path) -> None:
    tokens = ["bad"]
    adroll = AdRoll(lambda _orders, _dry: OK if adroll.tokens[-1] == "Token good" else refusal(401))
    shop = Shop(tmp_path, adroll, access_token=lambda: tokens[0], orders=1)
    shop.step()
    tokens[0] = "good"
    shop.step()
    assert adroll.taken == ["o001"]
    assert shop.stopped() is None


# A lease that lapses before the request


def test_what_another_sent_while_the_token_was_fetched_is_not_sent(tmp_path: Path) -> None:
    def token() -> str:
        if not asked:
            asked.append(1)
            shop.clock.sleep(90)
            other.step()
        return "token"

    asked: list[int] = []
    shop = Shop(tmp_path, access_token=token)
    other = Shop(tmp_path, clock=shop.clock)
    shop.report("o001")
    shop.step()
    assert (shop.adroll.taken, other.adroll.taken) == ([], ["o001"])


@pytest.mark.parametrize("dead_worker", ["", "claimed", "began"])
def test_what_is_due_is_sent_by_one_whose_token_is_asked_for(
    tmp_path: Path, dead_worker: str
) -> None:
    """It waited until another event came: only what waits counted as due."""
    shop = Shop(tmp_path, access_token=lambda: "token", outbox_commit="database")
    shop.outbox.database.create_tables()
    shop.report("o001")
    if dead_worker:
        assert shop.outbox.queue.claim(EID, lease=60.0, begin=dead_worker == "began")
        assert shop.step() == 0
    shop.step(after=61)
    assert shop.adroll.taken == ["o001"]


# Settings


def fails() -> str:
    raise RuntimeError("canary-token is locked away")


@pytest.mark.parametrize(
    ("source", "reason", "kind"),
    [
        (fails, "token_failed", "RuntimeError"),
        (lambda: None, "token_invalid", "NoneType"),
        (lambda: "", "token_invalid", "str"),
        (lambda: b"canary-token", "token_invalid", "bytes"),
        (lambda: "canary-token\r\nX-Evil: 1", "token_invalid", "str"),
        (lambda: "canary token", "token_invalid", "str"),
        (lambda: "canary-tökén", "token_invalid", "str"),
        (lambda: "canary" * 1000, "token_invalid", "str"),
    ],
)
def test_a_token_callable_that_fails_is_a_pause_not_a_crash(
    tmp_path: Path, caplog: Caplog, source: Callable[[], str], reason: str, kind: str
) -> None:
    shop = Shop(tmp_path, access_token=source, orders=1)
    with caplog.at_level(logging.DEBUG, "adroll_flask"):
        assert shop.deliverer.step(threading.Event()).pause == deliverer.RECHECK
        shop.steps(15)
    assert shop.adroll.urls == []
    row = shop.rows()["o001"]
    assert (row.state, row.attempts, row.unsure) == ("waiting", 0, False)
    assert shop.counters.get("delivery_stopped", reason) == 16
    (said,) = (one for one in caplog.records if "ADROLL_ACCESS_TOKEN" in one.getMessage())
    assert (said.levelname, kind in said.getMessage()) == ("ERROR", True)
    assert "canary" not in caplog.text


# Batches


@pytest.mark.parametrize("other", ["suppressed", "duplicate"])
def test_what_is_no_event_of_its_own_keeps_none_back(tmp_path: Path, other: str) -> None:
    shop = Shop(tmp_path)
    beside = Shop(tmp_path, shop.adroll, clock=shop.clock)
    for order in orders(250):
        if other == "suppressed":
            shop.outbox.record(Counted(shop.clock.now, "purchase", "suppressed", "consent_gpc"))
        else:
            beside.report(order)
        shop.report(order)
    shop.deliverer.drain()
    assert sorted(shop.adroll.taken) == orders(250)


# The loop


def test_flush_without_a_loop_sends_here_and_stops_where_adroll_is_down(tmp_path: Path) -> None:
    shop = Shop(tmp_path, orders=150)
    assert shop.deliverer.flush(5.0) == 0
    assert shop.adroll.sizes == [100, 50]
    assert shop.adroll.taken == orders(150), "the oldest first"
    down = Shop(tmp_path, AdRoll(DOWN), clock=shop.clock)
    down.report("o500")
    began = time.monotonic()
    assert down.deliverer.flush(PATIENCE) == 1
    assert time.monotonic() - began < PATIENCE / 2


# Lateness


def test_lateness_is_said_once_a_time(tmp_path: Path, caplog: Caplog, monkeypatch: Patch) -> None:
    monotonic = Clock()
    # This module's alone: threads of earlier tests go by the real one.
    monkeypatch.setattr(deliverer, "time", SimpleNamespace(monotonic=monotonic))
    shop = Shop(tmp_path)

    def look() -> int:
        monotonic.sleep(61)
        shop.deliverer.look()
        return len([r for r in caplog.records if "have been waiting" in r.getMessage()])

    shop.report("o001")
    assert look() == 0
    shop.clock.sleep(1000)
    assert [look(), look(), look()] == [1, 1, 1]
    assert "17 minutes" in caplog.text, "rounded as the pages round"
    shop.step()
    assert look() == 1
    shop.report("o002")
    shop.clock.sleep(1000)
    assert look() == 2
    assert shop.counters.get("delivery_late") == 2


def test_a_worker_that_pauses_gives_signs_of_life_of_accounts_that_it_has_a_token_for(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("adroll_flask.outbox.destination.SEEN_EVERY", 0.0)
    other = "OTHERADVERTISABLE00001"
    accounts = {"shop.fr": Account(advertisable_eid=other, pixel_eid=EID)}
    shop = Shop(tmp_path, accounts=accounts, orders=1)  # of no outbox nobody gives signs
    replace_method(monkeypatch, shop.deliverer, "step", lambda *_, **__: Progress(pause=3600.0))
    shop.outbox.ingest.take_in()  # to look makes none
    stop, destination = threading.Event(), shop.outbox.destination(EID)
    worker = threading.Thread(target=shop.deliverer.run, args=(stop,))
    worker.start()
    try:
        eventually(lambda: destination.state().unseen_for == 0.0)
        shop.clock.sleep(100)
        eventually(lambda: destination.state().unseen_for == 0.0)
    finally:
        stop.set()
        worker.join()
    assert shop.outbox.destination(other).state().unseen_for is None


def test_the_end_of_a_pause_is_logged_as_its_beginning_is(tmp_path: Path, caplog: Caplog) -> None:
    shop = Shop(tmp_path, AdRoll(NoAnswer("refused", sure=True)), orders=1)
    shop.step()
    shop.adroll.judge = OK
    shop.drain(after=40.0)
    began, ended = caplog.messages
    assert began.startswith("A request to AdRoll failed (refused); sending pauses")
    assert ended.startswith("AdRoll takes requests again: the pause has ended")
    # One that follows soon is told of in neither way.
    caplog.clear()
    shop.adroll.judge = NoAnswer("refused", sure=True)
    shop.report("o002")
    shop.step()
    shop.adroll.judge = OK
    shop.drain(after=40.0)
    assert caplog.messages == []
    assert shop.states() == {"o001": "delivered", "o002": "delivered"}
