"""How long nothing is asked, by numbers alone."""

from __future__ import annotations

from random import Random

import pytest

from adroll_flask.delivery.pauses import Pauses, without_token


class Longest(Random):
    """Chooses the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_after_refused_connections_half_a_minute_is_the_longest_pause() -> None:
    pauses = Pauses(Longest())
    assert [pauses.after_failure(n, 0.0) for n in range(1, 7)] == [2, 4, 8, 16, 30, 30]
    assert pauses.after_failure(10**9, 0.0) == 30


def test_what_the_request_itself_took_is_part_of_the_pause_but_for_a_second() -> None:
    pauses = Pauses(Longest())
    assert pauses.after_failure(5, 12.0) == 18
    assert pauses.after_failure(5, 60.0) == 1


def test_in_a_hold_somebody_asks_within_five_minutes() -> None:
    pauses = Pauses(Longest())
    assert [pauses.in_hold(n) for n in range(1, 7)] == [30, 60, 120, 240, 270, 270]


def test_an_unsure_event_waits_longer_each_time() -> None:
    pauses = Pauses(Longest())
    assert [pauses.after_unsure(n) for n in range(1, 8)] == [8, 32, 128, 512, 900, 900, 900]


def test_a_token_that_cannot_be_had_is_asked_for_less_and_less() -> None:
    assert [without_token(n) for n in (1, 2, 3, 7, 50)] == [5, 10, 20, 300, 300]


@pytest.mark.parametrize("seed", range(20))
def test_no_pause_is_shorter_than_half(seed: int) -> None:
    pauses = Pauses(Random(seed))
    assert 15 <= pauses.after_failure(9, 0.0) <= 30
    assert 135 <= pauses.in_hold(9) <= 270
