"""What outcomes mean to the rows of a claim, on every engine; light."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .protocol import Outcome
from .states import LONGEST_DELAY, LONGEST_LEASE, WAITING

#: Characters of AdRoll's words that are kept with an event.
ERROR_LENGTH: Final = 1000
#: What is counted by the minute, in the order of :func:`tally_of`.
TALLIED: Final = ("delivered", "dead", "retried", "unsure")


def too_far(state: int) -> float:
    """Seconds ahead at which a time can only come from a clock that was wrong."""
    return LONGEST_DELAY + 60 if state == WAITING else LONGEST_LEASE + 60


def alike(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, list[str]]]:
    """*outcomes* in groups that differ by the event only: one of them, and the events' ids."""
    groups: dict[tuple[object, ...], tuple[Outcome, list[str]]] = {}
    for one in outcomes:
        what = (one.kind, one.error, one.reason, one.unsure, one.delay, one.blameless)
        group = groups.get(what)
        if group is None:
            groups[what] = (one, [one.id])
        else:
            group[1].append(one.id)
    return list(groups.values())


def tally_of(
    groups: Sequence[tuple[Outcome, list[str]]], changed: Sequence[int]
) -> tuple[int, int, int, int]:
    """How many were delivered, dead, retried, and how many of all became unsure.

    :param changed: how many events of each group were still of the claim.
    """
    delivered = dead = retried = unsure = 0
    for (outcome, _), count in zip(groups, changed, strict=True):
        if outcome.kind == "delivered":
            delivered += count
        elif outcome.kind == "dead":
            dead += count
        elif outcome.kind == "retry":
            retried += count
        if outcome.unsure:
            unsure += count
    return delivered, dead, retried, unsure
