"""Which events are a visitor's, and how an erasure on request is told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from adroll_flask.counters import Counters
from adroll_flask.outbox import OutboxFailed
from adroll_flask.reporting.erasure import erase, matcher

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
                "email_md5": "f" * 32,
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


class Admin:
    def __init__(self, forget: Callable[[], int]) -> None:
        self._forget = forget

    def forget(self, match: Callable[[dict[str, Any]], bool]) -> int:
        assert match({"identifiers": {"adct": "c"}})
        return self._forget()


def forget(work: Callable[[], int], counters: Counters) -> int:
    admin: Any = Admin(work)
    return erase(admin, counters, adct="c", user_id="17")


def test_an_erasure_says_how_many_and_by_what(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    with caplog.at_level(logging.WARNING, "adroll_flask.audit"):
        assert forget(lambda: 3, counters) == 3
    assert counters.get("event_forgotten") == 3
    [line] = caplog.messages
    assert line.startswith("AdRoll: 3 events erased on request, by adct and user id (http")


def test_an_erasure_that_fails_is_told_to_who_asked_and_not_counted() -> None:
    def locked() -> int:
        raise OutboxFailed("locked")

    counters = Counters()
    with pytest.raises(OutboxFailed):
        forget(locked, counters)
    assert counters.get("event_forgotten") == 0
