"""What monitoring sees: one table, shown by ``adroll_flask.prometheus`` and ``.opentelemetry``.

Names, kinds and labels are part of the public contract: docs/reference/metrics.md lists them. No
label holds anything of a visitor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from .errors import AdRollError
from .logs import Logger, get_logger
from .outbox.values import Totals
from .redaction import describe
from .runtime import Runtime

logger: Logger = get_logger("adroll_flask")

Samples: TypeAlias = "Iterable[tuple[tuple[str, ...], float]]"


class Row(NamedTuple):
    """One metric: a gauge, or a counter where it only *grows*."""

    name: str
    text: str
    look: Callable[[Totals], Samples]
    labels: tuple[str, ...] = ()
    grows: bool = False


def _gauge(name: str, text: str, look: Callable[[Totals], float]) -> Row:
    return Row(name, text, lambda totals: [((), look(totals))])


def _events(totals: Totals) -> Samples:
    counts: dict[tuple[str, ...], float] = defaultdict(int)
    for one in totals.sums:
        counts[one.event_name, one.outcome, one.reason] += one.events
    return counts.items()


def _values(totals: Totals) -> Samples:
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    for one in totals.sums:
        if one.currency:
            sums[one.event_name, one.outcome, one.currency] += float(one.value)
    return sums.items()


TABLE: Final[tuple[Row, ...]] = (
    Row(
        "adroll_events",
        "Events that came to an end, by event, outcome and reason, since the first one.",
        _events,
        ("event", "outcome", "reason"),
        grows=True,
    ),
    Row(
        "adroll_event_value",
        "Sum of the values of events that came to an end, in the currency's major unit.",
        _values,
        ("event", "outcome", "currency"),
        grows=True,
    ),
    _gauge(
        "adroll_outbox_due_events",
        "Events that could be sent now, up to 10,000.",
        lambda it: it.due,
    ),
    _gauge(
        "adroll_outbox_oldest_due_seconds",
        "Seconds since the oldest of them became due; 0: none is.",
        lambda it: it.oldest_due or 0.0,
    ),
    _gauge(
        "adroll_outbox_journal_bytes",
        "What this host's journal holds that is not in the outbox yet.",
        lambda it: it.journal_bytes,
    ),
    _gauge(
        "adroll_destination_failures",
        "Requests to AdRoll that failed since the last that did not.",
        lambda it: it.destination.failures,
    ),
    _gauge(
        "adroll_destination_paused_seconds",
        "Seconds until AdRoll is asked again; 0: it is asked.",
        lambda it: it.destination.paused_for,
    ),
    Row(
        "adroll_destination_stopped",
        "1 while nothing is sent since AdRoll refuses everything, by reason.",
        lambda it: [((it.destination.stopped,), 1)] if it.destination.stopped else [],
        ("reason",),
    ),
    Row(
        "adroll_event_silent_seconds",
        "Where an event has stopped coming: seconds since it came last.",
        lambda it: [((one.name,), one.away) for one in it.silences],
        ("event",),
    ),
)


def totals_of(runtime: Runtime) -> tuple[bool, Totals | None]:
    """Whether the outbox could be read, and its sums; ``None`` where nothing was ever kept."""
    try:
        return True, runtime.outbox.lookups.totals() if runtime.outbox.exists() else None
    except AdRollError as problem:
        runtime.counters.add("metrics_failed")
        logger.error("AdRoll's metrics cannot be read: %s [metrics-unreadable]", describe(problem))
        return False, None
