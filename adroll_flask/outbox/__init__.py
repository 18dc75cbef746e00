"""The outbox: where events wait until AdRoll has them. Nothing is lost, nothing sent twice.

:func:`open_outbox` gives an :class:`Outbox`; :mod:`protocol` says what it promises.
"""

from __future__ import annotations

from .facade import open_outbox
from .ids import new_id
from .protocol import (
    Claim,
    Claimed,
    Destination,
    Outbox,
    OutboxFailed,
    Outcome,
    Overview,
    Put,
    Row,
    State,
)
from .record_format import NewEvent

__all__ = [
    "Claim",
    "Claimed",
    "Destination",
    "NewEvent",
    "Outbox",
    "OutboxFailed",
    "Outcome",
    "Overview",
    "Put",
    "Row",
    "State",
    "new_id",
    "open_outbox",
]
