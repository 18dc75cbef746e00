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
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import Any, Final

from flask import Flask

try:
    from prometheus_client import core
except ImportError as _missing:
    raise ImportError(
        "adroll_flask.prometheus needs prometheus-client, which is not installed: "
        "pip install 'adroll-flask[prometheus]'"
    ) from _missing

from .errors import ConfigurationError
from .findings.rules import Moment, open_findings
from .findings.sums import by, delays_of
from .logs import logger
from .middleware import AdRollMiddleware
from .outbox.model import HistorySum, OutboxFailed, worst
from .outbox.schema import DELAYS
from .redaction import describe
from .request_state import runtime_of
from .runtime import Runtime

_ENDS: Final = (*map(str, DELAYS), "+Inf")


class AdRollCollector:
    """Gives Prometheus the numbers of one app, freshly read at each scrape.

    What became of events comes from the outbox, so that every process of every host gives the same
    numbers: take ``max`` over instances, not ``sum``. Counts of this process alone are in
    ``adroll_process_total``. A scrape takes in what this host's journal holds. It counts no events
    but those that are due, up to 10,000 of each account.

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
        runtime, of_outbox = self._runtime, list[core.Metric]()
        moment = Moment(runtime)
        try:
            if moment.is_there:
                of_outbox = [*_of(moment)]
        except (OutboxFailed, ConfigurationError) as problem:
            moment = Moment(runtime, trouble=problem)
            runtime.counters.add("metrics_failed")
            logger.error(
                "AdRoll's metrics cannot be read: %s [metrics-unreadable]", describe(problem)
            )
        text = "1 where the outbox could be read, else 0."
        yield _gauge("adroll_outbox_up", text, {(): moment.trouble is None})
        yield from of_outbox
        found = Counter((one.code, one.severity) for one in open_findings(moment))
        text = "What is wrong now, as `flask adroll check` says it, by code and severity: how many."
        yield _gauge("adroll_findings", text, dict(sorted(found.items())), "code", "severity")
        pid, counts = str(os.getpid()), runtime.counters.snapshot()
        process = {(pid, *name.partition(":")[::2]): count for name, count in counts.items()}
        text = "What one process counted since it started, by name and reason."
        yield _counter("adroll_process", text, process, "process", "name", "reason")


def _of(moment: Moment) -> Iterator[core.Metric]:
    outbox, destination = moment.outbox, worst(moment.states.values())
    waiting = outbox.lookups.bytes_waiting()  # before a question takes it in
    sums = outbox.lookups.totals()
    counts: dict[tuple[str, ...], float] = defaultdict(int)
    values: dict[tuple[str, ...], float] = defaultdict(float)
    for one in sums:
        counts[one.event_name, one.outcome, one.reason] += one.events
        if one.currency:
            values[one.event_name, one.outcome, one.currency] += float(one.value)
    text = "Events that came to an end, by event, outcome and reason, since the first one."
    yield _counter("adroll_events", text, counts, "event", "outcome", "reason")
    text = "Sum of the values of events that came to an end, in the currency's major unit."
    yield _counter("adroll_event_value", text, values, "event", "outcome", "currency")
    yield _delays(sums)
    stopped = {(destination.stopped,): 1} if destination.stopped else {}
    silent = {(one.name,): one.away for one in moment.watched if one.is_silent}
    text = "Events that could be sent now, up to 10,000."
    yield _gauge("adroll_outbox_due_events", text, {(): outbox.lookups.due()})
    text = "Seconds since the oldest of them became due; 0: none is."
    yield _gauge("adroll_outbox_oldest_due_seconds", text, {(): outbox.queue.oldest_due() or 0.0})
    text = "What this host's journal holds that is not in the outbox yet."
    yield _gauge("adroll_outbox_journal_bytes", text, {(): waiting})
    text = "Requests to AdRoll that failed since the last that did not."
    yield _gauge("adroll_destination_failures", text, {(): destination.failures})
    text = "Seconds until AdRoll is asked again; 0: it is asked."
    yield _gauge("adroll_destination_paused_seconds", text, {(): destination.paused_for})
    text = "1 while nothing is sent since AdRoll refuses everything, by reason."
    yield _gauge("adroll_destination_stopped", text, stopped, "reason")
    text = "Where an event has stopped coming: seconds since it came last."
    yield _gauge("adroll_event_silent_seconds", text, silent, "event")


def _family(
    kind: type[core.CounterMetricFamily | core.GaugeMetricFamily],
    name: str,
    text: str,
    samples: Mapping[Any, float],
    *labels: str,
) -> core.Metric:
    """The metric *name* with *samples* by the values of its *labels*."""
    family = kind(name, text, labels=labels)
    for values, value in samples.items():
        family.add_metric(values, value)
    return family


_counter = partial(_family, core.CounterMetricFamily)
_gauge = partial(_family, core.GaugeMetricFamily)


def _delays(sums: Iterable[HistorySum]) -> core.Metric:
    text = "Seconds from an event to its delivery."
    family = core.HistogramMetricFamily("adroll_delivery_delay_seconds", text, labels=("event",))
    delivered = (one for one in sums if one.outcome == "delivered")
    for event, rows in by(lambda one: one.event_name, delivered).items():
        buckets = list(zip(_ENDS, map(float, accumulate(delays_of(rows))), strict=True))
        family.add_metric((event,), buckets=buckets, sum_value=None)
    return family
