"""What became of one call: its receipt, and what ``ADROLL_DEBUG`` says of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from blinker import NamedSignal

from adroll_flask.events.names import Coverage
from adroll_flask.redaction import short_key
from adroll_flask.signals import event_delivered, event_rejected

Status = Literal[
    "queued", "held", "released", "cancelled", "duplicate", "suppressed", "invalid", "failed"
]

#: Of an event that is not kept, or whose identifiers could not be read.
_NO_COVERAGE = Coverage()
#: Fields left out that a receipt names.
_MAX_LEFT_OUT = 3


# Not frozen: that would treble what a report pays for it.
@dataclass(slots=True, unsafe_hash=True)
class Receipt:
    """What became of one call; true when the event is queued, held or released.

    >>> bool(Receipt(id="018f", status="queued"))
    True
    """

    #: The event's id; of the kept one for a duplicate; of the held one for a release or a
    #: cancellation, where this process held it lately. ``None``: none is kept, or none is known.
    id: str | None
    #: ``"queued"``: in the journal, and AdRoll will have it. ``"duplicate"``: reported before.
    #: ``"held"``: kept until its release. ``"released"``, ``"cancelled"``: so it will be, also
    #: where the hold is found later. ``"suppressed"``: not to be reported. ``"invalid"``: kept as
    #: a dead letter that can be fixed; of a release or a cancellation with a wrong order id nothing
    #: is kept. ``"failed"``: not kept, since the journal did not take it, a setting is wrong, there
    #: is no app here, or adroll_flask has a fault.
    status: Status
    #: Why, where it is not queued: a short name or the field and what it takes. Of a queued one
    #: what was left out of it, if anything was; of a released or cancelled one also that this
    #: process has seen no hold.
    reason: str = ""
    #: Which of the seven identifiers the event carries; none where nothing is kept to be sent.
    coverage: Coverage = _NO_COVERAGE

    def __bool__(self) -> bool:
        return self.status in ("queued", "held", "released")


#: What each call gives where ``ADROLL_ENABLED`` is False.
DISABLED: Final = Receipt(None, "suppressed", "disabled")


def left_out(dropped: Sequence[tuple[str, str]]) -> str:
    """The receipt's reason of an event that does without some of its fields; bounded."""
    parts = [f"{field} left out: {why}" for field, why in dropped[:_MAX_LEFT_OUT]]
    more = len(dropped) - _MAX_LEFT_OUT
    if more > 0:
        parts.append(f"{more} more")
    return "; ".join(parts)


# -- ADROLL_DEBUG ----------------------------------------------------------------------------------
#
# Each event, and what became of it, on standard error. No visitor's values: of what a call gave,
# the names, and what a shop itself made of it.


def say_report(name: str, fields: Mapping[str, Any], receipt: Receipt) -> None:
    """Say what came of a call."""
    order = fields.get("order_id")
    coverage = receipt.coverage
    value = f"{fields.get('value', '')} {fields.get('currency', '')}".strip()
    _say(
        f"{name} {short_key(str(order))}" if order is not None else name,
        value if value[:1].isdigit() else "",
        f"{receipt.status} {receipt.id or ''}".strip(),
        receipt.reason,
        str(coverage) if coverage.carried else "",
        f"missing: {', '.join(coverage.missing)}" if coverage.missing else "",
    )


def say_outcome(signal: NamedSignal, values: Mapping[str, Any]) -> None:
    """Say what delivery made of an event."""
    if signal is event_delivered:
        _say(values["name"], f"delivered {values['id']}", "maybe twice" if values["unsure"] else "")
    elif signal is event_rejected and not values["reason"].startswith("invalid"):
        _say(values["name"], f"dead {values['id']}", values["reason"])


def _say(*parts: str) -> None:
    # A service may have no standard error, a closed one, or one that nobody reads any more.
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(f"AdRoll: {'; '.join(filter(None, parts))}\n")
