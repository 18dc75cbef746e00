"""What a report's caller gets back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from adroll_flask.events.coverage import Coverage

#: Of an event that is not kept, or whose identifiers could not be read.
_NO_COVERAGE = Coverage()

Status = Literal[
    "queued", "held", "released", "cancelled", "duplicate", "suppressed", "invalid", "failed"
]

#: Fields left out that a receipt names.
_MAX_LEFT_OUT = 3


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one call; true when the event is queued, held or released.

    >>> bool(Receipt(id="018f", status="queued"))
    True
    """

    #: The event's id in the outbox; of the kept one for a duplicate; ``None`` where none is kept.
    id: str | None
    #: ``"queued"``: in the outbox, and AdRoll will have it. ``"duplicate"``: reported before.
    #: ``"held"``: kept until its release. ``"released"``, ``"cancelled"``: so it will be, also
    #: where the hold is found later. ``"suppressed"``: not to be reported. ``"invalid"``: kept as
    #: a dead letter that can be fixed. ``"failed"``: the journal did not take it.
    status: Status
    #: Why, where it is not queued: a short name or the field and what it takes. Of a queued one
    #: what was left out of it, if anything was; of a released or cancelled one also what this
    #: process decided before, or that it has seen no hold.
    reason: str = ""
    #: Which of the seven identifiers the event carries; none where it is suppressed or invalid.
    coverage: Coverage = _NO_COVERAGE

    def __bool__(self) -> bool:
        return self.status in ("queued", "held", "released")


def left_out(dropped: Sequence[tuple[str, str]]) -> str:
    """The receipt's reason of an event that does without some of its fields; bounded."""
    if not dropped:
        return ""
    said = "; ".join(f"{field} left out: {why}" for field, why in dropped[:_MAX_LEFT_OUT])
    more = len(dropped) - _MAX_LEFT_OUT
    return f"{said}; {more} more" if more > 0 else said
