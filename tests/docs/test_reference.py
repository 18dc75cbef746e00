"""The reference says what the code does: counters, tables, metrics; the monitoring page runs."""

import ast
import asyncio
import re
from dataclasses import fields
from fnmatch import fnmatchcase
from pathlib import Path

import click
import prometheus_client
import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY, Metric
from prometheus_client.registry import Collector
from werkzeug.test import Client

from adroll_flask import AdRollASGIMiddleware, prometheus, signals
from adroll_flask.cli.commands import commands
from adroll_flask.outbox import model, schema
from adroll_flask.settings import Settings
from docs import write_reference
from tests.conftest import AppMaker
from tests.support import PUBLIC_NAMES, ROOT, pages, sources

REFERENCE = ROOT / "docs" / "reference"


@pytest.mark.parametrize("name", [path.name for path in write_reference.PAGES])
def test_the_reference_is_what_the_code_says(name: str) -> None:
    page = (REFERENCE / name).read_text()
    assert page == write_reference.written(page), "make reference"


def test_each_setting_command_and_function_has_one_place() -> None:
    text = "".join((REFERENCE / f"{name}.md").read_text() for name in ("settings", "commands"))
    text += "".join((REFERENCE / f"{name}.md").read_text() for name in ("functions", "signals"))
    shown = [name for name, command in commands.commands.items() if not command.hidden]
    outbox = commands.commands["outbox"]
    assert isinstance(outbox, click.Group)
    shown += [f"outbox {name}" for name, one in outbox.commands.items() if not one.hidden]
    names = [f"ADROLL_{field.name.upper()}" for field in fields(Settings)]
    for name in (*names, *PUBLIC_NAMES, *(f"flask adroll {name}" for name in shown)):
        assert len(re.findall(rf"^#+ {name}$", text, re.MULTILINE)) == 1, name


def shape(node: ast.expr) -> str:
    """A text in the source, with ``*`` for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(shape(part) for part in node.values)
    return "*"


def documented_counters() -> dict[str, str]:
    """Each counter that the page names, and the row in which it stands."""
    found = {}
    for row in re.findall(r"^\| `.*$", (REFERENCE / "counters.md").read_text(), re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row.split(" | ")[0]):
            found[name.partition(":")[0]] = row
    return found


def test_every_counter_and_each_of_its_fixed_reasons_is_on_the_page() -> None:
    rows = documented_counters()
    counted = set()
    for _, call in sources.calls():
        function = ast.unparse(call.func)
        if not function.endswith(("counters.add", ".forgive")):
            continue
        arguments = call.args[function.endswith("forgive") :]  # after the fault
        name = shape(arguments[0])
        if name == "*":
            continue  # a tally of such names, which stand where they are tallied
        fits = [known for known in rows if fnmatchcase(known, name)]
        assert fits, f"docs/reference/counters.md lacks {name}"
        counted |= {*fits}
        reason = shape(arguments[1]) if len(arguments) > 1 else "*"
        if "*" not in reason and reason:
            assert any(
                f"`{reason}`" in rows[known] or f":{reason}`" in rows[known] for known in fits
            ), reason
    # Tallied in delivery/batch.py before they are added.
    tallied = {"event_delivered", "event_retried", "event_unsure", "event_dead"}
    assert {*rows} == counted | tallied


# -- the outbox's page names every table, column and state that there is --------------------------


PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "outbox.md"


def test_it_names_every_table_every_column_of_an_event_and_every_state() -> None:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        schema.create_tables(connection)
        tables = sa.inspect(connection).get_table_names()
        columns = {column["name"] for column in sa.inspect(connection).get_columns("adroll_event")}
    page = PAGE.read_text()
    named = set(re.findall(r"`(\w+)`", page))

    assert set(tables) <= named
    assert columns <= named
    states = re.search(r"\| `state` \| (.+?) \|", page)
    assert states is not None
    assert states[1] == ", ".join(f"{state} {state.name}" for state in model.State)


# -- docs/how-to/monitoring.md runs, and docs/reference/metrics.md lists what there is ------------


def test_the_monitoring_page(make_app: AppMaker, tmp_path: Path) -> None:
    app = make_app()
    told: list[str] = []
    with pages.Shell(tmp_path) as shell, pages.Page("docs/how-to/monitoring.md", shell) as page:
        names = page.run("Silence", app=app, page_somebody=told.append)
        silence = model.Watched("purchase", "EID", "silent", 0.0, 18_000.0, 7200.0)
        signals.reports_silent.send(app, **silence._asdict())
        assert told == ["no purchase for 5 h, the longest pause was 2 h"]
        signals.reports_silent.disconnect(names["tell"])
        registered: list[prometheus.AdRollCollector] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(REGISTRY, "register", registered.append)
            page.run("Prometheus", app=app)
            patch.setattr(prometheus_client, "REGISTRY", prometheus_client.CollectorRegistry())
            loops = scraped_under_asgi(page, tmp_path)
        (collector,) = registered
    assert loops == [None]
    assert {metric.name for metric in collector.collect()} >= {"adroll_outbox_up"}
    assert "# HELP" in Client(app.wsgi_app).get("/metrics").text


def scraped_under_asgi(page: pages.Page, folder: Path) -> list[object]:
    """The event loops in which the page's app for ASGI reads its metrics."""
    fastapi = pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    app = fastapi.FastAPI()
    app.add_middleware(AdRollASGIMiddleware, sandbox=True, secret_key="k" * 32, folder=str(folder))
    loops: list[object] = []

    class Noting(Collector):
        def collect(self) -> list[Metric]:
            loops.append(asyncio._get_running_loop())
            return []

    page.run("Under ASGI", app=app)
    prometheus_client.REGISTRY.register(Noting())
    loops.clear()
    assert "adroll_outbox_up 1.0" in TestClient(app).get("/metrics").text
    return loops


def test_each_metric_has_its_labels(make_app: AppMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    listed = {
        match[1]: set(re.findall(r"`(\w+)`", match[2]))
        for match in re.finditer(r"^\| `(adroll_\w+)` \| \w+ \| (.*?) \|", page, re.MULTILINE)
    }
    collector = prometheus.AdRollCollector(make_app())
    monkeypatch.setattr(type(collector._runtime.outbox), "exists", lambda _self: True)
    made = {
        f"{family.name}_total" if family.type == "counter" else family.name: {
            *vars(family)["_labelnames"]
        }
        for family in collector.collect()
    }
    assert listed == made
