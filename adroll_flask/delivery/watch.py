"""Notices that nobody delivers, and that an event has stopped coming."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from adroll_flask.counters import Counters
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox import Outbox, OutboxFailed
from adroll_flask.outbox.history import told
from adroll_flask.outbox.values import Silence, worst
from adroll_flask.plurals import span

logger: Logger = get_logger("adroll_flask.delivery")

#: Seconds by which the oldest due event may be late.
LATE: Final = 900.0
_LATE_EVERY: Final = 60.0
_SILENT_EVERY: Final = 600.0


@dataclass(eq=False)
class Watch:
    """Says what ails an outbox once, until it is over. To look costs a comparison, mostly.

    :param accounts: whose events are to be in time.
    :param on_silence: told of each event that has stopped coming, once.
    """

    outbox: Outbox
    counters: Counters
    accounts: Sequence[str]
    on_silence: Callable[[Silence], None] | None = None
    _late_from: float = 0.0
    _is_late: bool = False
    _silent_from: float = 0.0

    def look(self) -> None:
        """Look for late events once a minute, for those that stay away once in ten minutes."""
        now = time.monotonic()
        try:
            if now >= self._late_from:
                self._late_from = now + _LATE_EVERY
                self._look_for_late()
            if now >= self._silent_from:
                self._silent_from = now + _SILENT_EVERY
                self._look_for_silence()
        except OutboxFailed as error:
            self.counters.add("delivery_error", error.reason)

    def _look_for_late(self) -> None:
        late = self.outbox.queue.oldest_due(self.accounts)
        was_late, self._is_late = self._is_late, late is not None and late > LATE
        if late is None or not self._is_late or was_late:
            return
        states = self.outbox.account_states()
        stopped = worst(one for eid, one in states.items() if eid in self.accounts).stopped
        self.counters.add("delivery_late")
        logger.error(
            "AdRoll events have been waiting for %s%s. Is a worker running? See "
            "`flask adroll outbox`. [events-late]",
            *(span(late), f" (stopped: {stopped})" if stopped else ""),
        )

    def _look_for_silence(self) -> None:
        for silence in self.outbox.lookups.note_silences():  # each once, over all processes
            self.counters.add("reports_silent", silence.name)
            logger.error(
                "AdRoll: %s. See `flask adroll history --by hour`. [reports-silent]", told(silence)
            )
            if self.on_silence is not None:
                self.on_silence(silence)
