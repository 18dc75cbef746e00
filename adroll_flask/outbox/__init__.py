"""The outbox: where events wait until AdRoll has them. Nothing is lost, nothing sent twice.

:class:`Outbox` is its way in. Start reading at :mod:`.outbox` (what a report does), :mod:`.ingest`
(from the journal into the database), :mod:`.queue` (from there to AdRoll) and :mod:`.transitions`
(what may become of an event).
"""

from __future__ import annotations

from .model import (
    Claim,
    Destination,
    NewEvent,
    OutboxFailed,
    Outcome,
    Row,
    new_id,
)
from .outbox import Outbox

__all__ = [
    "Claim",
    "Destination",
    "NewEvent",
    "Outbox",
    "OutboxFailed",
    "Outcome",
    "Row",
    "new_id",
]
