"""Notices that too few events come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from adroll_flask.counters import Counters
from adroll_flask.errors import help_url
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.protocol import Outbox, OutboxFailed
from adroll_flask.outbox.silence import Silence, told

logger: Logger = get_logger("adroll_flask.delivery")

_EVERY: Final = 600.0


class SilenceWatch:
    """Says once, over all processes, that too few of an event reach AdRoll for the time of day.

    :param on_silence: told as well.
    """

    def __init__(
        self,
        outbox: Outbox,
        counters: Counters,
        on_silence: Callable[[Silence], None] | None = None,
    ) -> None:
        self._outbox = outbox
        self._counters = counters
        self._on_silence = on_silence
        self._next = time.monotonic()

    def look(self) -> None:
        """Look, at most once in ten minutes."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        try:
            begun = self._outbox.figures.note_silences()
        except OutboxFailed as error:
            self._counters.add("delivery_error", error.reason)
            return
        for silence in begun:
            self._counters.add("reports_silent", silence.name)
            logger.error(
                "AdRoll: %s. See `flask adroll history --by hour`. (%s)",
                told(silence),
                help_url("reports-silent"),
            )
            if self._on_silence is not None:
                self._on_silence(silence)
