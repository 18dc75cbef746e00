"""Spans and metrics of OpenTelemetry, by its own SDK."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from adroll_flask import AdRollMiddleware, ConfigurationError, release_conversion, report_conversion
from adroll_flask.opentelemetry import instrument
from adroll_flask.sandbox import RunningSandbox, running
from tests.conftest import AppMaker
from tests.support import ROOT


class Telemetry:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.tracer: Tracer = self.tracers.get_tracer("shop")

    def instrument(self, app: Any) -> None:
        instrument(app, tracer_provider=self.tracers, meter_provider=self.meters)

    def deliveries(self) -> list[Any]:
        return [span for span in self.exporter.get_finished_spans() if span.name != "GET /thanks"]

    def metrics(self) -> dict[str, dict[tuple[Any, ...], Any]]:
        """Data points by name and attributes' values, in the order of their names."""
        found: dict[str, dict[tuple[Any, ...], Any]] = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = found.setdefault(metric.name, {})
                    for point in metric.data.data_points:
                        labels = tuple(
                            value for _, value in sorted(dict(point.attributes or {}).items())
                        )
                        points[labels] = point
        return found


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with running() as sandbox:
        yield sandbox


@pytest.fixture
def shop(make_app: AppMaker, telemetry: Telemetry, sandbox: RunningSandbox) -> Flask:
    app = make_app(
        ADROLL_STRICT=False,
        ADROLL_API_URL=sandbox.api_url,
        ADROLL_ADVERTISABLE_EID=sandbox.account.advertisable_eid,
        ADROLL_PIXEL_EID=sandbox.account.pixel_eid,
        ADROLL_ACCESS_TOKEN=sandbox.account.access_token,
    )
    telemetry.instrument(app)
    return app


def report(app: Flask, telemetry: Telemetry, order: str, **fields: Any) -> Any:
    """Report in a request that is traced; the request's span context."""
    with (
        telemetry.tracer.start_as_current_span("GET /thanks") as span,
        app.test_request_context(
            "/?adct=click-canary",
            base_url="https://shop.test",
            environ_base={"REMOTE_ADDR": "203.0.113.7"},
        ),
    ):
        assert report_conversion(order_id=order, value="59.90", currency="EUR", **fields)
    return span.get_span_context()


def test_a_delivery_is_a_span_linked_to_the_requests_that_reported(
    shop: Flask, telemetry: Telemetry
) -> None:
    reported = [report(shop, telemetry, order) for order in ("1001", "1002")]
    assert shop.extensions["adroll"].deliverer.drain() == 2

    (span,) = telemetry.deliveries()
    assert span.name == "adroll.deliver"
    assert span.parent is None
    assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [
        (context.trace_id, context.span_id) for context in reported
    ]
    assert span.attributes["adroll.events"] == 2
    assert span.attributes["adroll.event.names"] == ("purchase",)
    assert span.attributes["adroll.answer"] == "accepted"
    assert span.attributes["http.response.status_code"] in (200, 204)
    assert span.status.is_ok or span.status.is_unset


def test_another_process_delivers_with_the_links(
    shop: Flask, telemetry: Telemetry, make_app: AppMaker, sandbox: RunningSandbox
) -> None:
    """The trace goes through journal and outbox, and through a hold and its release."""
    reported = report(shop, telemetry, "1001", hold=True)
    with shop.app_context():
        assert release_conversion("1001")
    shop.extensions["adroll"].outbox.queue.take_in()
    other = Telemetry()
    worker = make_app(
        **{key: value for key, value in shop.config.items() if key.startswith("ADROLL_")}
        | {"ADROLL_OUTBOX_URL": f"sqlite:///{shop.instance_path}/adroll-outbox.sqlite"}
    )
    other.instrument(worker)
    assert worker.extensions["adroll"].deliverer.drain() == 1

    (span,) = other.deliveries()
    assert [link.context.span_id for link in span.links] == [reported.span_id]
    assert telemetry.deliveries() == []


def test_a_refused_batch_is_an_error_with_the_answer(
    shop: Flask, telemetry: Telemetry, sandbox: RunningSandbox
) -> None:
    report(shop, telemetry, "1001")
    sandbox.fault(status=503, times=1)
    assert shop.extensions["adroll"].deliverer.drain() == 0
    (span,) = telemetry.deliveries()
    assert not span.status.is_ok
    assert span.attributes["adroll.answer"] == "throttled"
    assert span.attributes["http.response.status_code"] == 503


def test_a_report_outside_of_a_trace_has_no_link(shop: Flask, telemetry: Telemetry) -> None:
    with shop.test_request_context("/?adct=c", environ_base={"REMOTE_ADDR": "203.0.113.7"}):
        assert report_conversion(order_id="1", value="1", currency="EUR")
    shop.extensions["adroll"].deliverer.drain()
    (span,) = telemetry.deliveries()
    assert len(span.links) == 0


def test_what_is_delivered_keeps_no_trace(shop: Flask, telemetry: Telemetry) -> None:
    report(shop, telemetry, "1001")
    database = shop.extensions["adroll"].outbox._parts
    rows = "SELECT trace FROM adroll_event"
    shop.extensions["adroll"].outbox.queue.take_in()
    assert database.database.read(lambda tx: tx.rows(rows))[0][0].startswith("00-")
    shop.extensions["adroll"].deliverer.drain()
    assert database.database.read(lambda tx: tx.rows(rows)) == [(None,)]


def test_a_tracer_that_fails_costs_neither_a_report_nor_a_second_delivery(
    shop: Flask, telemetry: Telemetry, sandbox: RunningSandbox
) -> None:
    class Broken:
        def parent(self) -> str:
            raise RuntimeError("no")

        def delivery(self, events: Any) -> Any:
            raise RuntimeError("no")

    runtime = shop.extensions["adroll"]
    runtime.tracing = Broken()
    report(shop, telemetry, "1001")
    assert runtime.deliverer.drain() == 1
    assert len(sandbox.events()) == 1


def test_metrics_say_what_became_of_events_over_all_processes(
    shop: Flask, telemetry: Telemetry
) -> None:
    report(shop, telemetry, "order-canary")
    shop.extensions["adroll"].deliverer.drain()
    report(shop, telemetry, "1002")
    shop.extensions["adroll"].outbox.queue.take_in()
    found = telemetry.metrics()
    assert found["adroll.events"]["purchase", "delivered", ""].value == 1
    assert found["adroll.event.value"]["EUR", "purchase", "delivered"].value == 59.9
    assert found["adroll.outbox.due"][()].value == 1
    assert found["adroll.destination.failures"][()].value == 0
    assert found["adroll.delivery.delay"]["purchase",].count == 1
    assert found["adroll.delivery.duration"]["accepted",].count == 1
    assert not found.get("adroll.destination.held")
    text = str(telemetry.metrics()) + str([s.to_json() for s in telemetry.deliveries()])
    for canary in ("click-canary", "203.0.113.7", "order-canary", "a-token"):
        assert canary not in text
    # Not in the whole text: a time may end so.
    attributes = [dict(span.attributes or {}) for span in telemetry.deliveries()]
    assert "59.90" not in str(attributes)


def test_instrumenting_a_new_shop_makes_no_file(make_app: AppMaker, telemetry: Telemetry) -> None:
    app = make_app()
    telemetry.instrument(app)
    assert telemetry.metrics().get("adroll.events", {}) == {}
    assert not Path(app.instance_path).exists()
    with pytest.raises(ConfigurationError, match="already"):
        telemetry.instrument(app)


def test_a_middleware_is_instrumented_as_a_flask_app_is(telemetry: Telemetry) -> None:
    shop = AdRollMiddleware(lambda _environ, _start: [], secret_key="k" * 32)
    telemetry.instrument(shop)
    assert shop.runtime.tracing is not None


def test_without_the_api_the_error_says_what_to_install() -> None:
    program = (
        "import sys\nsys.modules['opentelemetry'] = None\n"
        "import adroll_flask\n"
        "try:\n    import adroll_flask.opentelemetry\n"
        "except ImportError as error:\n    print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "pip install 'adroll-flask[opentelemetry]'" in said.stdout
