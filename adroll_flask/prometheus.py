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
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from flask import Flask

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

from .findings.rules import open_findings
from .metrics import TABLE, Samples, totals_of
from .middleware import AdRollMiddleware
from .outbox.schema import DELAYS
from .outbox.values import HistorySum
from .request_state import runtime_of
from .runtime import Runtime

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
        self._runtime: Runtime = runtime_of(app, "AdRollCollector")

    def describe(self) -> list[Metric]:
        """Nothing: registering opens no database, and tests no names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics. Where the outbox cannot be read, ``adroll_outbox_up`` is 0."""
        could_read, totals = totals_of(self._runtime)
        yield GaugeMetricFamily(
            "adroll_outbox_up", "1 where the outbox could be read, else 0.", value=could_read
        )
        if totals is not None:
            for row in TABLE:
                kind = CounterMetricFamily if row.grows else GaugeMetricFamily
                yield _filled(kind(row.name, row.text, labels=row.labels), row.look(totals))
            yield _delays(totals.sums)
        findings = GaugeMetricFamily(
            "adroll_findings",
            "What is wrong now, as `flask adroll check` says it, by code and severity: how many.",
            labels=("code", "severity"),
        )
        found = Counter((one.code, one.severity) for one in open_findings(self._runtime))
        yield _filled(findings, sorted(found.items()))
        process = CounterMetricFamily(
            "adroll_process",
            "What one process counted since it started, by name and reason.",
            labels=("process", "name", "reason"),
        )
        for name, count in self._runtime.counters.snapshot().items():
            counted, _, reason = name.partition(":")
            process.add_metric((str(os.getpid()), counted, reason), count)
        yield process


def _filled(family: CounterMetricFamily | GaugeMetricFamily, samples: Samples) -> Metric:
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


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
