"""Notices that nobody delivers."""

from __future__ import annotations

import time

from adroll_flask.counters import Counters
from adroll_flask.errors import help_url
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.protocol import Outbox, OutboxFailed

logger: Logger = get_logger("adroll_flask.delivery")

#: Seconds by which the oldest due event may be late.
LATE = 900.0
_EVERY = 60.0


class LateWatch:
    """Says once that the oldest due event is more than 15 minutes late, until it is not any more.

    :meth:`look` costs a comparison, and a query once a minute: a request process may call it with
    each report, which is the only sign of life there where a worker should deliver and does not.
    """

    def __init__(self, outbox: Outbox, counters: Counters) -> None:
        self._outbox = outbox
        self._counters = counters
        self._next = 0.0
        self._said = False

    def look(self) -> None:
        """Look, at most once a minute."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        try:
            late = self._outbox.queue.oldest_due()
            if late is None or late <= LATE:
                self._said = False
                return
            if self._said:
                return
            held = self._outbox.destination.state().held
        except OutboxFailed as error:
            self._counters.add("delivery_error", error.reason)
            return
        self._said = True
        self._counters.add("delivery_late")
        logger.error(
            "AdRoll events have been waiting for %d minutes%s. Is a worker running? See "
            "`flask adroll outbox`. (%s)",
            late // 60,
            f" (held: {held})" if held else "",
            help_url("events-late"),
        )
