"""Traces and metrics for OpenTelemetry: a span a delivery, linked to the requests that reported.

Needs the extra ``opentelemetry``. Call it where the app is made, and in the worker's process::

    from adroll_flask.opentelemetry import instrument

    adroll.init_app(app)
    instrument(app)

An event carries the W3C trace context of the request that reported it through journal and outbox,
so that a delivery is linked to it whichever process of whichever host delivers, days later as well.
Names and attributes are listed in docs/reference/metrics.md; none holds anything of a visitor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as _missing:
    raise ImportError(
        "adroll_flask.opentelemetry needs opentelemetry-api, which is not installed: "
        "pip install 'adroll-flask[opentelemetry]'"
    ) from _missing

from ._version import __version__
from .errors import AdRollError, ConfigurationError
from .middleware import AdRollMiddleware
from .request_state import runtime_of

if TYPE_CHECKING:
    from flask import Flask
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from .delivery.answers import Answer
    from .outbox.values import Claimed, Totals
    from .runtime import Runtime

#: Seconds for which what was read of the outbox serves all instruments of a collection.
_FRESH = 1.0


def instrument(
    app: Flask | AdRollMiddleware,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """Let *app*'s reports and deliveries be traced, and its outbox be measured.

    :param app: a Flask app with AdRoll on it, or an :class:`~adroll_flask.AdRollMiddleware`.
    :param tracer_provider: default: the global one.
    :param meter_provider: default: the global one.
    :raises ConfigurationError: *app* has no AdRoll, or is instrumented already.
    """
    runtime = app.runtime if isinstance(app, AdRollMiddleware) else runtime_of(app, "instrument")
    if runtime.tracing is not None:
        raise ConfigurationError("instrument", "this app is instrumented already")
    tracer = trace.get_tracer("adroll_flask", __version__, tracer_provider)
    meter = metrics.get_meter("adroll_flask", __version__, meter_provider)
    _observe(meter, _Present(runtime))
    runtime.tracing = _Tracing(tracer, meter, runtime.clock)


class _Tracing:
    """Told of reports and deliveries; see :class:`adroll_flask.delivery.tracing.Tracing`."""

    def __init__(
        self, tracer: trace.Tracer, meter: metrics.Meter, clock: Callable[[], float]
    ) -> None:
        self._tracer = tracer
        self._clock = clock
        self._context = TraceContextTextMapPropagator()
        self._delay = meter.create_histogram(
            "adroll.delivery.delay", "s", "From an event to its delivery."
        )
        self._duration = meter.create_histogram(
            "adroll.delivery.duration", "s", "Of a request to AdRoll."
        )

    def parent(self) -> str | None:
        """The current span as a W3C ``traceparent``, or ``None``."""
        carrier: dict[str, str] = {}
        self._context.inject(carrier)
        return carrier.get("traceparent")

    @contextmanager
    def delivery(self, events: Sequence[Claimed]) -> Iterator[Callable[[Answer], None]]:
        """A span around one request with *events*; called with its answer."""
        links = [
            trace.Link(context, {"adroll.event.id": event.id})
            for event in events
            if (context := self._reported_in(event)) is not None
        ]
        names = sorted({event.name for event in events})
        attributes: dict[str, Any] = {
            "adroll.events": len(events),
            "adroll.event.names": names,
            "adroll.dry_run": events[0].dry_run,
        }
        # A root of its own: it delivers for many requests, and outlives them.
        with self._tracer.start_as_current_span(
            "adroll.deliver",
            trace.set_span_in_context(trace.INVALID_SPAN),
            trace.SpanKind.CONSUMER,
            attributes,
            links,
        ) as span:
            began = time.monotonic()

            def answered(answer: Answer) -> None:
                self._duration.record(time.monotonic() - began, {"adroll.answer": answer.kind})
                span.set_attribute("adroll.answer", answer.kind)
                if answer.status is not None:
                    span.set_attribute("http.response.status_code", answer.status)
                if answer.kind != "accepted":
                    span.set_status(trace.StatusCode.ERROR, answer.reason)
                    return
                now = self._clock()
                for event in events:
                    delay = max(0.0, now - event.occurred_at)
                    self._delay.record(delay, {"adroll.event.name": event.name})

            yield answered

    def _reported_in(self, event: Claimed) -> trace.SpanContext | None:
        if event.trace is None:
            return None
        found = self._context.extract({"traceparent": event.trace})
        context = trace.get_current_span(found).get_span_context()
        return context if context.is_valid else None


class _Present:
    """The outbox's sums and state, read once for all instruments of a collection."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._read_at = float("-inf")
        self._totals: Totals | None = None

    def totals(self) -> Totals | None:
        """``None`` where there is nothing yet, or where the outbox cannot be read."""
        if time.monotonic() - self._read_at > _FRESH:
            self._totals = None
            try:
                if self._runtime.may_have_events():
                    self._totals = self._runtime.outbox.figures.totals()
            except AdRollError:
                self._runtime.counters.add("metrics_failed")
            self._read_at = time.monotonic()
        return self._totals


def _observe(meter: metrics.Meter, present: _Present) -> None:
    def observed(
        look: Callable[[Totals], Iterable[Observation]],
    ) -> list[Callable[[CallbackOptions], Iterable[Observation]]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            totals = present.totals()
            return [] if totals is None else look(totals)

        return [observe]

    meter.create_observable_counter(
        "adroll.events",
        observed(_events),
        "{event}",
        "Events that came to an end, by event, outcome and reason, since the first one.",
    )
    meter.create_observable_counter(
        "adroll.event.value",
        observed(_values),
        "",
        "Sum of their values, in the currency's major unit.",
    )
    gauges: dict[str, tuple[str, str, Callable[[Totals], Iterable[Observation]]]] = {
        "adroll.events.missing": (
            *("{event}", "Where too few reach AdRoll for the time of day: how many are missing."),
            lambda totals: [
                Observation(one.usual - one.delivered, {"adroll.event.name": one.name})
                for one in totals.silences
            ],
        ),
        "adroll.outbox.due": (
            *("{event}", "Events that could be sent now; 10000: or more."),
            lambda totals: [Observation(totals.due)],
        ),
        "adroll.outbox.oldest_due": (
            *("s", "Since the oldest of them became due; 0: none is."),
            lambda totals: [Observation(totals.oldest_due or 0.0)],
        ),
        "adroll.outbox.journal": (
            *("By", "What this host's journal holds that is not in the outbox yet."),
            lambda totals: [Observation(totals.journal_bytes)],
        ),
        "adroll.destination.failures": (
            *("{request}", "Requests to AdRoll that failed since the last that did not."),
            lambda totals: [Observation(totals.destination.failures)],
        ),
        "adroll.destination.paused": (
            *("s", "Until AdRoll is asked again; 0: it is asked."),
            lambda totals: [Observation(totals.destination.paused_for)],
        ),
        "adroll.destination.held": (
            *("1", "1 while nothing is sent since AdRoll refuses everything, by reason."),
            lambda totals: [
                Observation(1, {"adroll.reason": reason})
                for reason in [totals.destination.held]
                if reason is not None
            ],
        ),
    }
    for name, (unit, text, look) in gauges.items():
        meter.create_observable_gauge(name, observed(look), unit, text)


def _events(totals: Totals) -> Iterable[Observation]:
    counts: dict[tuple[str, str, str], int] = {}
    for one in totals.sums:
        key = one.event_name, one.outcome, one.reason
        counts[key] = counts.get(key, 0) + one.events
    for (name, outcome, reason), count in counts.items():
        yield Observation(
            count,
            {"adroll.event.name": name, "adroll.outcome": outcome, "adroll.reason": reason},
        )


def _values(totals: Totals) -> Iterable[Observation]:
    sums: dict[tuple[str, str, str], float] = {}
    for one in totals.sums:
        if one.currency:
            key = one.event_name, one.outcome, one.currency
            sums[key] = sums.get(key, 0.0) + float(one.value)
    for (name, outcome, currency), value in sums.items():
        yield Observation(
            value,
            {"adroll.event.name": name, "adroll.outcome": outcome, "adroll.currency": currency},
        )
