"""Which events are a visitor's, and how an erasure on request is told."""

from __future__ import annotations

from typing import Any

import pytest

from adroll_flask.reporting.erasure import matcher

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
