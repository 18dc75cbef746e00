"""Erasing what the outbox holds of one visitor."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .identifiers import email_forms, normalise_first_party_cookie
from .plurals import counted
from .redaction import describe

if TYPE_CHECKING:
    from .counters import Counters
    from .outbox import Outbox

_LOG = logging.getLogger("adroll_flask.audit")

Match = Callable[[dict[str, Any]], bool]


def matcher(
    *,
    email: str | None = None,
    user_id: str | None = None,
    cookie: str | None = None,
    adct: str | None = None,
) -> Match:
    """A test for events (the API's JSON objects) that carry any of these identifiers.

    :param email: an address; events carry it in clear or as a hash, and all forms are looked for.
    :param user_id: the site's own id of a user.
    :param cookie: a first-party cookie in any of its forms.
    :param adct: a click id.
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

    if adct:
        wanted["adct"] = {adct}

    def match(wire: Mapping[str, Any]) -> bool:
        identifiers = wire.get("identifiers")
        if not isinstance(identifiers, Mapping):
            return False
        return any(_values(identifiers.get(key)) & values for key, values in wanted.items())

    return match


def _values(given: Any) -> set[str]:
    items: Sequence[Any] = given if isinstance(given, list) else [given]
    return {str(item) for item in items if item is not None}


class Erasure:
    """One visitor's erasure, which a request waits for only briefly.

    A scan of a long queue, or a locked database, must not hold a request up (promise 1), and a no
    must not be lost to either: what is not done in time goes on beside the request, again and
    again until it is done.

    :param outbox: the app's.
    :param match: which events to erase.
    :param by: what the visitor was known by, for the audit line.
    """

    #: Seconds that a request waits.
    PATIENCE = 1.0
    #: Seconds between two tries, and how many there are: about an hour.
    PAUSE = 5.0
    TRIES = 720

    def __init__(
        self, outbox: Outbox, match: Match, *, by: Sequence[str], counters: Counters
    ) -> None:
        self._outbox = outbox
        self._match = match
        self._by = by
        self._counters = counters
        self._count = 0

    def run(self) -> int:
        """Erase; how many events are erased by the time that a request may wait."""
        thread = threading.Thread(target=self._erase, name="adroll-erasure", daemon=True)
        thread.start()
        thread.join(self.PATIENCE)
        return self._count

    def _erase(self) -> None:
        from .outbox import OutboxFailed

        for number in range(self.TRIES):
            try:
                self._count = forget_matching(
                    self._outbox, self._match, by=self._by, counters=self._counters
                )
            except OutboxFailed as problem:
                self._counters.add("forget_failed", problem.reason)
                if number == 0:
                    _LOG.error(
                        "AdRoll: a visitor's waiting events are not erased yet: %s", problem.reason
                    )
            except Exception as problem:
                self._counters.add("forget_failed", "internal")
                _LOG.error("AdRoll: an erasure failed: %s", describe(problem))
                return
            else:
                return
            time.sleep(self.PAUSE)


def forget_matching(outbox: Outbox, match: Match, *, by: Sequence[str], counters: Counters) -> int:
    """Erase the matching events and write an audit line: how many, by what, never of whom."""
    count = outbox.forget(match)
    counters.add("event_forgotten", amount=count)
    _LOG.warning("AdRoll: %s erased on request, by %s", counted(count, "event"), " and ".join(by))
    return count
