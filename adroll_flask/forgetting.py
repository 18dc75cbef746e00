"""Erasing what the outbox holds of one visitor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .identifiers import email_forms, normalise_first_party_cookie

if TYPE_CHECKING:
    from .counters import Counters
    from .outbox import Outbox

_LOG = logging.getLogger("adroll_flask.audit")

Match = Callable[[dict[str, Any]], bool]


def matcher(
    *, email: str | None = None, user_id: str | None = None, cookie: str | None = None
) -> Match:
    """A test for events (the API's JSON objects) that carry any of these identifiers.

    :param email: an address; events carry it in clear or as a hash, and all forms are looked for.
    :param user_id: the site's own id of a user.
    :param cookie: a first-party cookie in any of its forms.
    :raises EventError: *email* is no address.

    >>> match = matcher(user_id="42")
    >>> match({"identifiers": {"user_id": "42"}})
    True
    """
    wanted: dict[str, set[str]] = {}
    if email:
        for key, values in email_forms(email, ("sha256", "md5", "plain")).items():
            wanted[key] = set(values)
    if user_id:
        wanted["user_id"] = {user_id}
    if cookie:
        wanted["first_party_cookie"] = {cookie, normalise_first_party_cookie(cookie) or cookie}

    def match(wire: Mapping[str, Any]) -> bool:
        identifiers = wire.get("identifiers")
        if not isinstance(identifiers, Mapping):
            return False
        return any(_values(identifiers.get(key)) & values for key, values in wanted.items())

    return match


def _values(given: Any) -> set[str]:
    items: Sequence[Any] = given if isinstance(given, list) else [given]
    return {str(item) for item in items if item is not None}


def forget_matching(outbox: Outbox, match: Match, *, by: Sequence[str], counters: Counters) -> int:
    """Erase the matching events and write an audit line: how many, by what, never of whom."""
    count = outbox.forget(match)
    counters.add("event_forgotten", amount=count)
    _LOG.warning("AdRoll: %d events erased on request, by %s", count, " and ".join(by))
    return count
