"""Metrics of OpenTelemetry, by its own SDK."""

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

from adroll_flask import AdRollMiddleware, ConfigurationError
from adroll_flask.opentelemetry import instrument
from adroll_flask.sandbox import RunningSandbox, running
from tests.conftest import AppMaker
from tests.support import ROOT
from tests.support.visits import at, report


class Telemetry:
    """What was exported."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def instrument(self, app: Any) -> None:
        instrument(app, meter_provider=self.meters)

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
    app = make_app(**at(sandbox))
    telemetry.instrument(app)
    return app


def test_metrics_say_what_became_of_events_over_all_processes(
    shop: Flask, telemetry: Telemetry
) -> None:
    report(shop, "order-canary")
    shop.extensions["adroll"].deliverer.drain()
    report(shop, "1002")
    shop.extensions["adroll"].outbox.queue.take_in()
    found = telemetry.metrics()
    assert found["adroll_events"]["purchase", "delivered", ""].value == 1
    assert found["adroll_event_value"]["EUR", "purchase", "delivered"].value == 59.9
    assert found["adroll_outbox_due_events"][()].value == 1
    assert found["adroll_destination_failures"][()].value == 0
    assert not found.get("adroll_destination_stopped")
    text = str(found)
    for canary in ("click123", "203.0.113.7", "order-canary", "a-token"):
        assert canary not in text


def test_instrumenting_a_new_shop_makes_no_file(make_app: AppMaker, telemetry: Telemetry) -> None:
    app = make_app()
    telemetry.instrument(app)
    assert telemetry.metrics().get("adroll_events", {}) == {}
    assert not Path(app.instance_path).exists()
    with pytest.raises(ConfigurationError, match="already"):
        telemetry.instrument(app)


def test_a_middleware_is_instrumented_as_a_flask_app_is(
    telemetry: Telemetry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # its outbox is in the folder where it runs, as the demo's is
    shop = AdRollMiddleware(lambda _environ, _start: [], secret_key="k" * 32)
    telemetry.instrument(shop)
    assert telemetry.metrics().get("adroll_events", {}) == {}


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
