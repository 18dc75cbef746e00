"""An outbox that keeps nothing."""

from __future__ import annotations

from typing import Any

from .protocol import Decided, Put
from .record_format import NewEvent


class DiscardOutbox:
    """In the outbox's place while an app is tried out: the shop's own hooks may report."""

    def put(self, event: NewEvent, *, session: Any = None) -> Put:
        return Put("queued", event.id)

    def put_dead(self, event: NewEvent, reason: str, error: str) -> Put:
        return self.put(event)

    def note_failure(self, name: str, reason: str) -> None:
        """Forget it."""

    def decide(self, verdict: object, *, session: Any = None) -> Decided:
        return Decided()

    def record(self, record: object) -> None:
        """Forget it."""
