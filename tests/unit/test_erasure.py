"""Erasing one visitor's events: by any identifier, in bounded time, and until it is done."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from adroll_flask.counters import Counters
from adroll_flask.forgetting import Erasure, matcher
from adroll_flask.outbox import OutboxFailed

COOKIE = "46d41c62e88bb2e267c1e15314bb8837-1667065540836"


@pytest.mark.parametrize(
    ("by", "identifiers"),
    [
        ({"cookie": COOKIE}, {"first_party_cookie": COOKIE}),
        ({"cookie": COOKIE.replace("-", "-s2-")}, {"first_party_cookie": COOKIE}),
        ({"adct": "click123"}, {"adct": "click123"}),
        ({"user_id": "42"}, {"user_id": "42"}),
        ({"email": "Jo@Example.com"}, {"email": "jo@example.com"}),
        (
            {"email": "jo@example.com"},
            {
                "email_md5": ["f" * 32, "4a6d1b5f3d8b1b5e0b0a1f9f2b7a2c11"],
                "email": "jo@example.com",
            },
        ),
    ],
)
def test_an_event_is_found_by_any_identifier(
    by: dict[str, str], identifiers: dict[str, Any]
) -> None:
    match = matcher(**by)
    assert match({"identifiers": identifiers})
    assert not match({"identifiers": {"adct": "another", "first_party_cookie": "f" * 32 + "-1"}})
    assert not match({"identifiers": None})
    assert not match({})


class Queue:
    def __init__(self, forget: Callable[[], int]) -> None:
        self._forget = forget
        self.calls = 0

    def forget(self, match: Any) -> int:
        self.calls += 1
        return self._forget()


def erasure(queue: Queue, counters: Counters) -> Erasure:
    return Erasure(queue, matcher(adct="c"), by=("a test",), counters=counters)  # type: ignore[arg-type]


def test_a_short_erasure_says_how_many(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    with caplog.at_level(logging.WARNING, "adroll_flask.audit"):
        assert erasure(Queue(lambda: 3), counters).run() == 3
    assert counters.get("event_forgotten") == 3
    assert "3 events erased" in caplog.text


def test_a_long_erasure_does_not_hold_the_request_up_and_is_finished() -> None:
    go, done = threading.Event(), threading.Event()

    def slow() -> int:
        go.wait(10)
        done.set()
        return 1

    counters = Counters()
    began = time.monotonic()
    assert erasure(Queue(slow), counters).run() == 0
    assert time.monotonic() - began < 5
    go.set()
    assert done.wait(10)


def test_a_locked_database_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def locked_once() -> int:
        if queue.calls == 1:
            raise OutboxFailed("locked")
        done.set()
        return 2

    monkeypatch.setattr(Erasure, "PAUSE", 0.01)
    queue, counters = Queue(locked_once), Counters()
    erasure(queue, counters).run()
    assert done.wait(10)
    assert counters.get("forget_failed", "locked") == 1
