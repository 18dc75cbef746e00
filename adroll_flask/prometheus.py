"""Metrics for Prometheus: what became of events, over all processes, and how the outbox does.

Needs the extra ``prometheus``. Register a collector where the app is made::

    from prometheus_client import REGISTRY
    from adroll_flask.prometheus import AdRollCollector

    adroll.init_app(app)
    REGISTRY.register(AdRollCollector(app))

Names, types and labels are part of the public contract: docs/reference/metrics.md lists them. No
label holds anything of a visitor.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from .errors import help_url

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
except ImportError as _missing:
    raise ImportError(
        "adroll_flask.prometheus needs prometheus-client, which is not installed: "
        "pip install 'adroll-flask[prometheus]'"
    ) from _missing

from .errors import AdRollError
from .logs import Logger, get_logger
from .middleware import AdRollMiddleware
from .outbox.schema import DELAYS
from .redaction import describe
from .request_state import runtime_of

if TYPE_CHECKING:
    from flask import Flask

    from .outbox.values import HistorySum, Totals
    from .runtime import Runtime

logger: Logger = get_logger("adroll_flask")

_ENDS: Final = (*map(str, DELAYS), "+Inf")


class AdRollCollector:
    """Gives Prometheus the numbers of one app, freshly read at each scrape.

    What became of events comes from the outbox, so that every process of every host gives the same
    numbers: take ``max`` over instances, not ``sum``. Counts of this process alone are in
    ``adroll_process_total``. A scrape writes nothing, and counts no events.

    :param app: a Flask app with AdRoll on it, or an :class:`~adroll_flask.AdRollMiddleware`.
    :raises ConfigurationError: *app* has no AdRoll.
    """

    def __init__(self, app: Flask | AdRollMiddleware) -> None:
        self._runtime: Runtime = (
            app.runtime if isinstance(app, AdRollMiddleware) else runtime_of(app, "AdRollCollector")
        )

    def describe(self) -> list[Metric]:
        """Nothing: registering opens no database, and tests no names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics. Where the outbox cannot be read, ``adroll_outbox_up`` is 0."""
        totals = None
        runtime = self._runtime
        try:
            if runtime.may_have_events():
                totals = runtime.outbox.figures.totals()
            up = 1
        except AdRollError as problem:
            up = 0
            runtime.counters.add("metrics_failed")
            logger.error(
                "AdRoll's metrics cannot be read: %s (%s)",
                describe(problem),
                help_url("metrics-unreadable"),
            )
        yield GaugeMetricFamily(
            "adroll_outbox_up", "1 where the outbox could be read, else 0.", value=up
        )
        if totals is not None:
            yield from _ends(totals.sums)
            yield _delays(totals.sums)
            yield from _present(totals)
        yield self._process()

    def _process(self) -> Metric:
        family = CounterMetricFamily(
            "adroll_process",
            "What one process counted since it started, by name and reason.",
            labels=("process", "name", "reason"),
        )
        for name, count in self._runtime.counters.snapshot().items():
            family.add_metric((str(os.getpid()), *_parts(name)), count)
        return family


def _parts(name: str) -> tuple[str, str]:
    counted, _, reason = name.partition(":")
    return counted, reason


def _ends(sums: tuple[HistorySum, ...]) -> Iterator[Metric]:
    events = CounterMetricFamily(
        "adroll_events",
        "Events that came to an end, by event, outcome and reason, since the first one.",
        labels=("event", "outcome", "reason"),
    )
    values = CounterMetricFamily(
        "adroll_event_value",
        "Sum of the values of events that came to an end, in the currency's major unit.",
        labels=("event", "outcome", "currency"),
    )
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    worth: dict[tuple[str, str, str], float] = defaultdict(float)
    for one in sums:
        counts[one.event_name, one.outcome, one.reason] += one.events
        if one.currency:
            worth[one.event_name, one.outcome, one.currency] += float(one.value)
    for labels, count in counts.items():
        events.add_metric(labels, count)
    for labels, value in worth.items():
        values.add_metric(labels, value)
    yield events
    yield values


def _delays(sums: tuple[HistorySum, ...]) -> Metric:
    family = HistogramMetricFamily(
        "adroll_delivery_delay_seconds",
        "Seconds from an event to its delivery.",
        labels=("event",),
    )
    numbers: dict[str, list[int]] = {}
    for one in sums:
        if one.outcome == "delivered":
            known = numbers.setdefault(one.event_name, [0] * len(_ENDS))
            for place, number in enumerate(one.delays):
                known[place] += number
    for name, known in numbers.items():
        buckets = list(zip(_ENDS, map(float, accumulate(known)), strict=True))
        family.add_metric((name,), buckets=buckets, sum_value=None)
    return family


def _present(totals: Totals) -> Iterator[Metric]:
    destination = totals.destination
    for name, text, value in (
        ("adroll_outbox_due_events", "Events that could be sent now; 10000: or more.", totals.due),
        (
            "adroll_outbox_oldest_due_seconds",
            "Seconds since the oldest of them became due; 0: none is.",
            totals.oldest_due or 0.0,
        ),
        (
            "adroll_outbox_journal_bytes",
            "What this host's journal holds that is not in the outbox yet.",
            totals.journal_bytes,
        ),
        (
            "adroll_destination_failures",
            "Requests to AdRoll that failed since the last that did not.",
            destination.failures,
        ),
        (
            "adroll_destination_paused_seconds",
            "Seconds until AdRoll is asked again; 0: it is asked.",
            destination.paused_for,
        ),
    ):
        yield GaugeMetricFamily(name, text, value=value)
    held = GaugeMetricFamily(
        "adroll_destination_held",
        "1 while nothing is sent since AdRoll refuses everything, by reason.",
        labels=("reason",),
    )
    if destination.held is not None:
        held.add_metric((destination.held,), 1)
    yield held
    silent = GaugeMetricFamily(
        "adroll_events_missing",
        "Where too few of an event reach AdRoll for the time of day: how many are missing.",
        labels=("event",),
    )
    for silence in totals.silences:
        silent.add_metric((silence.name,), silence.usual - silence.delivered)
    yield silent
