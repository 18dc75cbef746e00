"""What is kept of each request that AdRoll did not take, until the event is delivered."""

from pathlib import Path

from adroll_flask.outbox.queue import _ATTEMPTS as MOST
from tests.support.delivery_kit import EID, OK, AdRoll, NoAnswer, Reply, Shop, refusal
from tests.support.outbox_engines import claimed


def test_attempts_are_kept_with_time_status_words_and_doubt(tmp_path: Path) -> None:
    answers: list[Reply] = [
        refusal(503, {"message": "maintenance"}),
        NoAnswer("read_timeout", sure=False),
    ]
    shop = Shop(tmp_path, AdRoll(lambda _batch, dry: OK if dry else answers[0]))
    shop.report("1001")
    shop.step()
    first = shop.clock.now
    shop.clock.sleep(3600)
    answers.pop(0)
    while len(shop.rows()["1001"].attempt_log) < 2:
        shop.step()
        shop.clock.sleep(60)

    known, second = shop.rows()["1001"].attempt_log
    assert abs(known.at - first) < 1
    assert (known.answer, known.status, known.unsure) == ("throttled", 503, False)
    assert "maintenance" in known.words
    assert (second.answer, second.status, second.unsure) == ("unsure", None, True)
    assert "read_timeout" in second.words
    answers[0] = OK
    shop.clock.sleep(3600)
    shop.deliverer.drain()
    assert (shop.states()["1001"], shop.rows()["1001"].attempt_log) == ("delivered", ())


def test_a_dead_letter_keeps_adrolls_words_without_the_visitors_values(tmp_path: Path) -> None:
    refused = refusal(400, {"message": "no such click: click-canary"})
    shop = Shop(tmp_path, AdRoll(lambda batch, _dry: refused if "bad" in batch else OK))
    shop.report("good", "bad")
    while shop.states()["bad"] != "dead":
        shop.step()
        shop.clock.sleep(60)
    (attempt,) = shop.rows()["bad"].attempt_log
    assert (attempt.answer, attempt.status) == ("content", 400)
    assert "no such click" in attempt.words
    assert "click-canary" not in attempt.words


def test_only_the_last_attempts_are_kept(tmp_path: Path) -> None:
    shop = Shop(tmp_path, AdRoll(lambda _batch, dry: OK if dry else refusal(503)))
    shop.report("1001")
    seen = 0
    for _ in range(200):
        if seen == MOST + 5:
            break
        asked = len(shop.adroll.requests)
        shop.step()
        seen += len(shop.adroll.requests) > asked
        shop.clock.sleep(60)
    log = shop.rows()["1001"].attempt_log
    assert len(log) == MOST
    assert [one.at for one in log] == sorted(one.at for one in log)


def test_a_lease_that_lapsed_while_sending_is_an_unsure_attempt(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.report("1001")
    claimed(shop.outbox, begin=True)
    shop.clock.sleep(61)
    assert shop.outbox.queue.claim(EID, begin=False) is not None
    (attempt,) = shop.rows()["1001"].attempt_log
    assert (attempt.answer, attempt.unsure) == ("lapsed", True)
