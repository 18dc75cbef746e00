"""One claimed event as it is sent, and what may become of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from adroll_flask.outbox.protocol import Asked, Claimed, Outcome
from adroll_flask.settings import Settings

from .answers import Answer

#: Bytes up to which a trial event is filled to the size of the event that was too large; an order
#: with two products has 1,200. A destination that refuses so little refuses nearly everything.
TRIAL_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Pending:
    """One claimed event, with the EIDs filled in that it was reported without."""

    event: Claimed
    payload: bytes = field(repr=False)
    eid: str
    pixel_eid: str

    @property
    def group(self) -> tuple[str, bool]:
        """Events that may share a request, and vouch for each other."""
        return self.eid, self.event.dry_run

    @property
    def id(self) -> str:
        return self.event.id


def pending_of(event: Claimed, settings: Settings) -> Pending | None:
    """*event* as it is sent; ``None``: it is damaged."""
    eid, pixel_eid = settings.advertisable_eid or "", settings.pixel_eid or ""
    # The common case without parsing; a quotation mark within a value would be escaped.
    if (
        f'"advertisable_eid":"{eid}"'.encode() in event.payload
        and f'"pixel_eid":"{pixel_eid}"'.encode() in event.payload
    ):
        return Pending(event, event.payload, eid, pixel_eid)
    try:
        wire = json.loads(event.payload)
    except ValueError:
        return None
    if not isinstance(wire, dict):
        return None
    own_eid = wire.get("advertisable_eid") or eid
    own_pixel_eid = wire.get("pixel_eid") or pixel_eid
    if not isinstance(own_eid, str) or not isinstance(own_pixel_eid, str):
        return None
    payload = event.payload
    if not wire.get("advertisable_eid") or not wire.get("pixel_eid"):
        wire["advertisable_eid"], wire["pixel_eid"] = own_eid, own_pixel_eid
        payload = json.dumps(wire, separators=(",", ":")).encode()
    return Pending(event, payload, own_eid, own_pixel_eid)


def halves(events: Sequence[Pending]) -> list[Sequence[Pending]]:
    """*events* in two requests."""
    middle = (len(events) + 1) // 2
    return [events[:middle], events[middle:]]


def trial_size(pending: Pending) -> int:
    """Bytes of the trial event that has to pass before *pending* is blamed for its size."""
    return min(len(pending.payload), TRIAL_BYTES)


def asked(answer: Answer) -> Asked:
    """*answer* as it is kept with the events of its request."""
    return Asked(answer.kind, answer.status, answer.words)


def dead(pending: Pending, answer: Answer, reason: str, *, unsure: bool = False) -> Outcome:
    """The end of *pending* as a dead letter."""
    return Outcome(
        id=pending.id,
        kind="dead",
        error=answer.words,
        reason=reason,
        unsure=unsure,
        asked=asked(answer),
    )


def unsure_too_often(
    event: Claimed, words: str, times: int, answer: Answer | None = None
) -> Outcome:
    """The end of an event that was sent *times* times and of which nobody knows whether it arrived.

    :param words: of the last answer.
    :param answer: the last, where it is not counted yet.
    """
    reason, _, said = words.partition(": ")
    text = f"{reason}: sent {times} times without a certain answer, AdRoll may have taken it"
    return Outcome(
        id=event.id,
        kind="dead",
        reason="unsure",
        error=f"{text}: {said}" if said else text,
        unsure=answer is not None,
        blameless=answer is None,
        asked=None if answer is None else asked(answer),
    )
