"""Metrics as a real Prometheus reads them; the alerts and the dashboard as they stand in docs/."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from adroll_flask import AdRollMiddleware, ConfigurationError
from adroll_flask.prometheus import AdRollCollector
from tests.conftest import ADVERTISABLE, AppMaker
from tests.support import (
    ROOT,
    outbox_engines,
    program,
    ran,
    visits,
)

report = partial(visits.report, email="ann@example.com")


def settle(app: Flask, *kinds: Any) -> None:
    """Settle what is due, oldest first."""
    outbox = app.extensions["adroll"].outbox
    outbox.queue.waiting()  # another thread may be at the journal
    claim = outbox_engines.claimed(outbox)
    assert outbox_engines.settle(outbox, claim, *kinds, reason="refused") == len(kinds)


def registry_of(app: Any) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(AdRollCollector(app))
    return registry


def samples(registry: CollectorRegistry) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name and labels' values, in the order of their names, as Prometheus is told."""
    found: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found[sample.name][labels] = sample.value
    return found


@pytest.fixture
def shop(make_app: AppMaker) -> Flask:
    app = make_app(ADROLL_STRICT=False)
    for order in ("1001", "1002", "1003"):
        report(app, order)
    report(app, "1004", gpc=True)
    settle(app, "delivered", "delivered", "dead")
    report(app, "2001", currency="USD")
    settle(app, "delivered")
    report(app, "1005")
    app.extensions["adroll"].outbox.queue.waiting()
    return app


# -- what is told ----------------------------------------------------------------------------


def test_metrics_say_what_became_of_events_and_how_the_outbox_does(shop: Flask) -> None:
    found = samples(registry_of(shop))
    assert found["adroll_outbox_up"] == {(): 1}
    assert found["adroll_events_total"] == {
        ("purchase", "delivered", ""): 3,
        ("purchase", "dead", "refused"): 1,
        ("purchase", "suppressed", "consent_gpc"): 1,
    }
    assert found["adroll_event_value_total"]["EUR", "purchase", "delivered"] == 119.8
    assert found["adroll_event_value_total"]["USD", "purchase", "delivered"] == 59.9
    assert found["adroll_delivery_delay_seconds_bucket"]["purchase", "+Inf"] == 3
    assert found["adroll_outbox_due_events"] == {(): 1}
    assert found["adroll_outbox_journal_bytes"] == {(): 0}
    assert found["adroll_destination_failures"] == {(): 0}
    assert "adroll_destination_stopped" not in found
    pid = str(os.getpid())
    assert found["adroll_process_total"]["event_queued", pid, ""] == 5
    assert found["adroll_process_total"]["event_suppressed", pid, "consent_gpc"] == 1
    shop.extensions["adroll"].thread.stop()  # which would take the next one in
    report(shop, "1006")
    destination = shop.extensions["adroll"].outbox.destination(ADVERTISABLE)
    destination.stop("unauthorized", "fingerprint")
    destination.pause(30)
    found = samples(registry_of(shop))
    assert found["adroll_outbox_journal_bytes"][()] > 0
    assert found["adroll_destination_stopped"] == {("unauthorized",): 1}
    assert found["adroll_destination_paused_seconds"][()] > 0
    assert found["adroll_findings"]["delivery-stopped", "error"] == 1


def test_metrics_hold_nothing_of_a_visitor(shop: Flask) -> None:
    text = generate_latest(registry_of(shop)).decode()
    for canary in ("click123", "ann@example.com", "203.0.113.7", "1001", "a-token"):
        assert canary not in text


def test_registering_and_scraping_a_new_shop_makes_no_file(make_app: AppMaker) -> None:
    app = make_app()
    found = samples(registry_of(app))
    assert found["adroll_outbox_up"] == {(): 1}
    assert "adroll_events_total" not in found
    assert not Path(app.instance_path).exists()


def test_a_middleware_is_measured_as_a_flask_app_is(tmp_path: Path) -> None:
    shop = AdRollMiddleware(
        lambda _environ, _start: [],
        secret_key="k" * 32,
        outbox_url=f"sqlite:///{tmp_path}/o.sqlite",
    )
    assert samples(registry_of(shop))["adroll_outbox_up"] == {(): 1}
    shop.runtime.outbox.close()


def test_an_app_without_adroll_is_told_what_to_call() -> None:
    with pytest.raises(ConfigurationError, match="init_app"):
        AdRollCollector(Flask("plain"))


def test_without_its_library_the_error_says_what_to_install() -> None:
    program = (
        "import sys\nsys.modules['prometheus_client'] = None\n"
        "import adroll_flask\n"
        "try:\n    import adroll_flask.prometheus\n"
        "except ImportError as error:\n    print(error)\n"
    )
    said = ran(sys.executable, "-c", program, cwd=ROOT)
    assert "pip install 'adroll-flask[prometheus]'" in said


# -- docs/monitoring, as Prometheus's own tool reads it --------------------------------------------


ALERTS = ROOT / "docs" / "monitoring" / "adroll-alerts.yml"
DASHBOARD = ROOT / "docs" / "monitoring" / "adroll-dashboard.json"


def one(name: str, values: str, /, **labels: str) -> dict[str, str]:
    """A series as a scrape of a process has it, each minute."""
    known = {"instance": "a", "job": "shop"} | labels
    inner = ", ".join(f'{key}="{value}"' for key, value in known.items())
    return {"series": f"{name}{{{inner}}}", "values": values}


def promtool(folder: Path, *tests: dict[str, Any]) -> None:
    # The alerts' texts are for people.
    rules = re.sub(r"\n +annotations:(\n {10,}.*)+", "", ALERTS.read_text())
    assert "summary" not in rules
    (folder / "rules.yml").write_text(rules)
    (folder / "test.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": tests}))
    ran(program("promtool", "prometheus"), "test", "rules", folder / "test.yml")


def test_each_panel_shows_what_every_process_tells(shop: Flask, tmp_path: Path) -> None:
    shop.extensions["adroll"].outbox.destination(ADVERTISABLE).stop("unauthorized", "fingerprint")
    text = generate_latest(registry_of(shop)).decode()
    ran(program("promtool", "prometheus"), "check", "metrics", input=text)
    series = [
        one(sample.name, f"0+{sample.value}x200", instance=instance, **sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        for instance in ("a", "b")  # two processes, which tell the same of all
    ]
    unpaid = {"event": "purchase", "outcome": "expired", "reason": "hold_expired"}
    series.append(one("adroll_events_total", "0+9x200", **unpaid))  # holds that nobody released
    shown = {
        panel["title"]: [target["expr"] for target in panel["targets"]]
        for panel in json.loads(DASHBOARD.read_text())["panels"]
    }
    expected: list[tuple[str, float, str]] = [
        (f"count({expr}) > bool 0", 1, "{}") for exprs in shown.values() for expr in exprs
    ]
    (delivered,) = shown["Delivered an hour"]
    expected.append((delivered, 180, '{event="purchase"}'))  # three a minute, once
    (share,) = shown["Reached AdRoll, last 24 h"]
    expected.append((share, 0.75, "{}"))  # one was refused
    asked = [
        {"expr": expr, "eval_time": "120m", "exp_samples": [{"labels": labels, "value": value}]}
        for expr, value, labels in expected
    ]
    promtool(tmp_path, {"interval": "1m", "input_series": series, "promql_expr_test": asked})


def test_each_alert_fires_for_what_it_is_for_and_only_then(tmp_path: Path) -> None:
    up = {"series": 'adroll_outbox_up{instance="a", job="shop"}', "values": "1x200"}

    def fires(name: str, series: list[dict[str, str]], at: str = "90m", **labels: str) -> Any:
        return {
            "interval": "1m",
            "input_series": [up, *series],
            "alert_rule_test": [
                {
                    "eval_time": at,
                    "alertname": name,
                    "exp_alerts": [{"exp_labels": labels}] if labels else [],
                }
            ],
        }

    def finding(code: str, severity: str, values: str = "1x200") -> list[dict[str, str]]:
        labels = {"code": code, "severity": severity}
        return [one("adroll_findings", values, instance=instance, **labels) for instance in "ab"]

    dead = {"event": "purchase", "outcome": "dead", "reason": "refused"}
    unpaid = {"event": "purchase", "outcome": "expired", "reason": "hold_expired"}
    lost = "AdRollEventsLost"
    new = [one("adroll_events_total", f"{'_ ' * 70}1x100", instance=i, **dead) for i in ("a", "b")]
    tests = [
        fires("AdRollError", finding("reports-silent", "error"),
              severity="critical", code="reports-silent"),
        fires("AdRollError", finding("dead-letters", "warning")),
        fires("AdRollWarning", finding("dead-letters", "warning"),
              severity="warning", code="dead-letters"),
        fires("AdRollWarning", finding("dead-letters", "warning", "1x60 _x200")),
        fires("AdRollWarning", finding("delivery-paused", "hint")),
        fires("AdRollDeliveryLate", [one("adroll_outbox_oldest_due_seconds", "0+60x200")],
              severity="critical"),
        fires("AdRollDeliveryLate", [one("adroll_outbox_oldest_due_seconds", "800x200")]),
        # A first dead letter, told by two processes, is one.
        fires(lost, new, severity="warning", **dead),
        fires(lost, [one("adroll_events_total", "7x200", **dead)]),
        fires(lost, [one("adroll_events_total", f"7x{70} 8x100", **dead)],
              severity="warning", **dead),
        fires(lost, [one("adroll_events_total", "0+5x200", **(dead | {"outcome": "delivered"}))]),
        # Nobody paid, as the dashboard says it.
        fires(lost, [one("adroll_events_total", "0+5x200", **unpaid)]),
        # Prometheus has just begun: what was lost long ago is nothing new.
        fires(lost, [one("adroll_events_total", "7x200", **dead)], at="5m"),
        fires("AdRollJournalNotTakenIn", [one("adroll_outbox_journal_bytes", "0+100000x200")],
              severity="warning", instance="a", job="shop"),
        fires("AdRollJournalNotTakenIn", [one("adroll_outbox_journal_bytes", "0x59 5e6x10 0x99")]),
    ]  # fmt: skip
    down = fires("AdRollOutboxDown", [], severity="critical", instance="b")
    down["input_series"] = [up, one("adroll_outbox_up", "0x200", instance="b")]
    promtool(tmp_path, *tests, down)
