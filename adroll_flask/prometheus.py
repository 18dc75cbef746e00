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
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, TypeAlias

from flask import Flask

try:
    from prometheus_client import core
except ImportError as _missing:
    raise ImportError(
        "adroll_flask.prometheus needs prometheus-client, which is not installed: "
        "pip install 'adroll-flask[prometheus]'"
    ) from _missing

from .errors import AdRollError
from .findings.rules import open_findings
from .logs import logger
from .middleware import AdRollMiddleware
from .outbox.model import HistorySum, Totals
from .outbox.schema import DELAYS
from .redaction import describe
from .request_state import runtime_of
from .runtime import Runtime

_ENDS: Final = (*map(str, DELAYS), "+Inf")

_Samples: TypeAlias = "Iterable[tuple[tuple[str, ...], float]]"


class AdRollCollector:
    """Gives Prometheus the numbers of one app, freshly read at each scrape.

    What became of events comes from the outbox, so that every process of every host gives the same
    numbers: take ``max`` over instances, not ``sum``. Counts of this process alone are in
    ``adroll_process_total``. A scrape writes nothing, and counts no events.

    :param app: a Flask app with AdRoll on it, or an :class:`~adroll_flask.AdRollMiddleware`.
    :raises ConfigurationError: *app* has no AdRoll.
    """

    def __init__(self, app: Flask | AdRollMiddleware) -> None:
        self._runtime: Runtime = runtime_of(app, "AdRollCollector")

    def describe(self) -> list[core.Metric]:
        """Nothing: registering opens no database, and tests no names."""
        return []

    def collect(self) -> Iterator[core.Metric]:
        """All metrics. Where the outbox cannot be read, ``adroll_outbox_up`` is 0."""
        runtime, totals, is_up = self._runtime, None, True
        try:
            if runtime.outbox.exists():  # to look makes no file
                totals = runtime.outbox.lookups.totals()
        except AdRollError as problem:
            is_up = False
            runtime.counters.add("metrics_failed")
            logger.error(
                "AdRoll's metrics cannot be read: %s [metrics-unreadable]", describe(problem)
            )
        yield core.GaugeMetricFamily(
            "adroll_outbox_up", "1 where the outbox could be read, else 0.", value=is_up
        )
        if totals is not None:
            yield from _of(totals)
        findings = core.GaugeMetricFamily(
            "adroll_findings",
            "What is wrong now, as `flask adroll check` says it, by code and severity: how many.",
            labels=("code", "severity"),
        )
        found = Counter((one.code, one.severity) for one in open_findings(runtime))
        yield _filled(findings, sorted(found.items()))
        process = core.CounterMetricFamily(
            "adroll_process",
            "What one process counted since it started, by name and reason.",
            labels=("process", "name", "reason"),
        )
        pid, counts = str(os.getpid()), runtime.counters.snapshot()
        yield _filled(
            process, (((pid, *name.partition(":")[::2]), count) for name, count in counts.items())
        )


def _of(totals: Totals) -> Iterator[core.Metric]:
    sums, destination = totals.sums, totals.destination
    counts: dict[tuple[str, ...], float] = defaultdict(int)
    values: dict[tuple[str, ...], float] = defaultdict(float)
    for one in sums:
        counts[one.event_name, one.outcome, one.reason] += one.events
        if one.currency:
            values[one.event_name, one.outcome, one.currency] += float(one.value)
    events = core.CounterMetricFamily(
        "adroll_events",
        "Events that came to an end, by event, outcome and reason, since the first one.",
        labels=("event", "outcome", "reason"),
    )
    yield _filled(events, counts.items())
    money = core.CounterMetricFamily(
        "adroll_event_value",
        "Sum of the values of events that came to an end, in the currency's major unit.",
        labels=("event", "outcome", "currency"),
    )
    yield _filled(money, values.items())
    yield _delays(sums)
    for name, text, value in (
        ("adroll_outbox_due_events", "Events that could be sent now, up to 10,000.", totals.due),
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
        yield core.GaugeMetricFamily(name, text, value=value)
    stopped = core.GaugeMetricFamily(
        "adroll_destination_stopped",
        "1 while nothing is sent since AdRoll refuses everything, by reason.",
        labels=("reason",),
    )
    yield _filled(stopped, [((destination.stopped,), 1)] if destination.stopped else [])
    silent = core.GaugeMetricFamily(
        "adroll_event_silent_seconds",
        "Where an event has stopped coming: seconds since it came last.",
        labels=("event",),
    )
    yield _filled(silent, [((one.name,), one.away) for one in totals.silences])


def _filled(
    family: core.CounterMetricFamily | core.GaugeMetricFamily, samples: _Samples
) -> core.Metric:
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _delays(sums: Iterable[HistorySum]) -> core.Metric:
    family = core.HistogramMetricFamily(
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
