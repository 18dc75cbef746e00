"""docs/how-to/monitoring.md runs, and docs/reference/metrics.md lists what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from werkzeug.test import Client

from adroll_flask.outbox.lookups import Lookups
from adroll_flask.outbox.values import Destination, Silence, Totals
from adroll_flask.prometheus import AdRollCollector
from adroll_flask.signals import reports_silent
from tests.conftest import AppMaker
from tests.support import ROOT
from tests.support.pages import Page, Shell


def test_the_monitoring_page(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app()
    told: list[str] = []
    with (
        Shell(tmp_path) as shell,
        Page("docs/how-to/monitoring.md", shell) as page,
    ):
        names = page.run("Silence", app=app, page_somebody=told.append)
        silence = Silence("purchase", 0.0, 310, 18_000.0, 7200.0, 10_800.0)
        reports_silent.send(app, **silence._asdict())
        assert told == ["no purchase for 5 h, the longest pause was 2 h"]
        reports_silent.disconnect(names["tell"])
        registered: list[AdRollCollector] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(REGISTRY, "register", registered.append)
            page.run("Prometheus", app=app)
        (collector,) = registered
        page.run("OpenTelemetry", app=app)
        assert app.extensions["adroll"].is_measured
    assert {metric.name for metric in collector.collect()} >= {"adroll_outbox_up"}
    assert "# HELP" in Client(app.wsgi_app).get("/metrics").text


def test_grafanas_own_model_knows_every_field_of_the_dashboard() -> None:
    """The model is made from the schema that Grafana publishes."""
    dashboard = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins

    register_default_plugins()  # the panels' options, and Prometheus's queries

    def unknown(raw: object) -> list[str]:
        read = json.loads(json.dumps(dashboard.Dashboard.from_json(raw), cls=JSONEncoder))
        return list(differing(raw, read))

    raw = json.loads((ROOT / "docs/monitoring/adroll-dashboard.json").read_text())
    assert unknown(raw) == []
    raw["panels"][0]["gridpos"] = raw["panels"][0].pop("gridPos")
    raw["panels"][1]["targets"][0]["exprs"] = ""
    assert unknown(raw) == [".panels[0].gridpos", ".panels[1].targets[0].exprs"]


def differing(raw: object, read: object, path: str = "") -> Iterator[str]:
    """Places of *raw* that are not, or not so, in *read*."""
    if isinstance(raw, dict) and isinstance(read, dict):
        for key, value in raw.items():
            yield from differing(value, read.get(key), f"{path}.{key}")
    elif isinstance(raw, list) and isinstance(read, list) and len(raw) == len(read):
        for place, pair in enumerate(zip(raw, read, strict=True)):
            yield from differing(*pair, f"{path}[{place}]")
    elif raw != read:
        yield path


def test_the_reference_lists_each_metric_with_its_labels(
    make_app: AppMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    listed = {
        match[1]: set(re.findall(r"`(\w+)`", match[2]))
        for match in re.finditer(r"^\| `(adroll_\w+)` \| \w+ \| (.*?) \|", page, re.MULTILINE)
    }
    collector = AdRollCollector(make_app())
    totals = Totals((), 0, None, {"EID": Destination()}, (), 0)
    monkeypatch.setattr(Lookups, "totals", lambda _self: totals)
    monkeypatch.setattr(type(collector._runtime.outbox), "exists", lambda _self: True)
    made = {
        f"{family.name}_total" if family.type == "counter" else family.name: {*labels_of(family)}
        for family in collector.collect()
    }
    assert listed == made


def test_the_reference_lists_each_instrument(make_app: AppMaker) -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    listed = set(re.findall(r"^\| `(adroll\.[\w.]+)` \|", page, re.MULTILINE))
    source = (ROOT / "adroll_flask/opentelemetry.py").read_text()
    named = re.findall(r'"(adroll\.[\w.]+)"[,:] ?(?:\(|observed|\n)', source)
    assert listed == {*named}


def labels_of(family: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = family._labelnames
    return names
