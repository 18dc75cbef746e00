"""What a report's caller gets back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .coverage import Coverage

#: Of an event that is not kept, or whose identifiers could not be read.
_NO_COVERAGE = Coverage()

Status = Literal["queued", "duplicate", "suppressed", "invalid", "failed"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one report; true when the event is queued.

    >>> bool(Receipt(id="018f", status="queued"))
    True
    """

    #: The event's id in the outbox; of the kept one for a duplicate; ``None`` where none is kept.
    id: str | None
    #: ``"queued"``: in the outbox, and AdRoll will have it. ``"duplicate"``: reported before.
    #: ``"suppressed"``: not to be reported. ``"invalid"``: kept as a dead letter that can be
    #: mended. ``"failed"``: not even the spill file took it.
    status: Status
    #: Why, where it is not queued: a short name or the field and what it takes.
    reason: str = ""
    #: Which of the seven identifiers the event carries; none where it is suppressed or invalid.
    coverage: Coverage = _NO_COVERAGE

    def __bool__(self) -> bool:
        return self.status == "queued"
