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

try:
    from prometheus_client import core
except ImportError as _missing:
    raise ImportError(
        "adroll_flask.prometheus needs prometheus-client, which is not installed: "
        "pip install 'adroll-flask[prometheus]'"
    ) from _missing

from .errors import AdRollError, ConfigurationError
from .findings.rules import Moment, open_findings
from .findings.sums import by, delays_of
from .logs import logger
from .outbox.model import HistorySum, OutboxFailed
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
    but those that are due, up to 10,000 of each account. It waits for the outbox: under ASGI it
    needs a thread (``docs/how-to/monitoring.md``), or all visitors would wait with it.

    :param app: a Flask app with AdRoll on it, a middleware of ours, or an app that has one by
        ``add_middleware``.
    :raises ConfigurationError: *app* has no AdRoll.
    """

    def __init__(self, app: object) -> None:
        self._runtime: Runtime = runtime_of(app, "AdRollCollector")

    def describe(self) -> list[core.Metric]:
        """Nothing: registering opens no database, and tests no names."""
        return []

    def collect(self) -> Iterator[core.Metric]:
        """All metrics. Where the outbox cannot be read, ``adroll_outbox_up`` is 0."""
        runtime = self._runtime
        of_outbox: list[core.Metric] = []
        moment = Moment(runtime)
        trouble: AdRollError | None = None
        try:
            if moment.is_there:
                of_outbox = list(_of_outbox(moment))
        except (OutboxFailed, ConfigurationError) as problem:
            trouble = problem
            moment = Moment(runtime, look=False)
            runtime.counters.add("metrics_failed")
            logger.error(
                "AdRoll's metrics cannot be read: %s [metrics-unreadable]", describe(problem)
            )
        text = "1 where the outbox could be read, else 0."
        yield _gauge("adroll_outbox_up", text, {(): trouble is None})
        yield from of_outbox
        label = _Shops(moment).label
        findings = Counter(
            (finding.code, finding.severity, finding.shop)[: 2 + len(label)]
            for finding in open_findings(moment, trouble)
        )
        text = "What is wrong now, as `flask adroll check` says it, by code and severity: how many."
        samples = dict(sorted(findings.items()))
        yield _gauge("adroll_findings", text, samples, "code", "severity", *label)
        pid = str(os.getpid())
        process = {
            (pid, *name.partition(":")[::2]): number
            for name, number in runtime.counters.snapshot().items()
        }
        text = "What one process counted since it started, by name and reason."
        yield _counter("adroll_process", text, process, "process", "name", "reason")


def _of_outbox(moment: Moment) -> Iterator[core.Metric]:
    outbox = moment.outbox
    shops = _Shops(moment)
    journal_bytes = outbox.lookups.bytes_waiting()  # before the next question takes them in
    sums = outbox.lookups.totals()
    counts: dict[tuple[str, ...], float] = defaultdict(int)
    values: dict[tuple[str, ...], float] = defaultdict(float)
    for row in sums:
        shop = shops.of(row.advertisable_eid)
        counts[row.event_name, row.outcome, row.reason, *shop] += row.events
        if row.currency:
            values[row.event_name, row.outcome, row.currency, *shop] += float(row.value)
    text = "Events that came to an end, by event, outcome and reason, since the first one."
    yield _counter("adroll_events", text, counts, "event", "outcome", "reason", *shops.label)
    text = "Sum of the values of events that came to an end, in the currency's major unit."
    labels = ("event", "outcome", "currency", *shops.label)
    yield _counter("adroll_event_value", text, values, *labels)
    yield _delay_histogram(sums, shops)
    # Accounts that are not served here, such as a former one, are left out: a stop may never end.
    destinations = {
        shops.of(next(iter(shop.accounts), "")): shop.destination for shop in moment.shops
    }
    stopped = {(state.stopped, *shop): 1 for shop, state in destinations.items() if state.stopped}
    failures = {shop: state.failures for shop, state in destinations.items()}
    paused = {shop: state.paused_for for shop, state in destinations.items()}
    silent = {
        (event.name, *shops.of(event.account)): event.away
        for event in moment.watched
        if event.level == "silent"
    }
    text = "Events that could be sent now, of each account counted up to 10,000."
    yield _gauge("adroll_outbox_due_events", text, {(): outbox.lookups.due()})
    text = "Seconds since the oldest of them became due; 0: none is."
    yield _gauge("adroll_outbox_oldest_due_seconds", text, {(): outbox.queue.oldest_due() or 0.0})
    text = "What this host's journal holds that is not in the outbox yet."
    yield _gauge("adroll_outbox_journal_bytes", text, {(): journal_bytes})
    text = "Requests to AdRoll that failed since the last that did not."
    yield _gauge("adroll_destination_failures", text, failures, *shops.label)
    text = "Seconds until AdRoll is asked again; 0: it is asked."
    yield _gauge("adroll_destination_paused_seconds", text, paused, *shops.label)
    text = "1 while nothing is sent since AdRoll refuses everything, by reason."
    yield _gauge("adroll_destination_stopped", text, stopped, "reason", *shops.label)
    text = "Where an event has stopped coming: seconds since it came last."
    yield _gauge("adroll_event_silent_seconds", text, silent, "event", *shops.label)


class _Shops:
    """The label ``shop``, which metrics have if there are several accounts."""

    def __init__(self, moment: Moment) -> None:
        self._names = moment.settings.shop_names
        self.label: tuple[str, ...] = ("shop",) if self._names else ()

    def of(self, eid: str) -> tuple[str, ...]:
        """The label's value for the account *eid*: the shop's hosts, or the EID of an account that
        is not served here. Nothing where there is no such label."""
        return (self._names.get(eid, eid),) if self._names else ()


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


def _delay_histogram(sums: Iterable[HistorySum], shops: _Shops) -> core.Metric:
    text = "Seconds from an event to its delivery."
    labels = ("event", *shops.label)
    family = core.HistogramMetricFamily("adroll_delivery_delay_seconds", text, labels=labels)
    delivered = (row for row in sums if row.outcome == "delivered")
    alike = by(lambda row: (row.event_name, *shops.of(row.advertisable_eid)), delivered)
    for event, rows in alike.items():
        buckets = list(zip(_ENDS, map(float, accumulate(delays_of(rows))), strict=True))
        family.add_metric(event, buckets=buckets, sum_value=None)
    return family
