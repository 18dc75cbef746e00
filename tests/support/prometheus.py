"""A real Prometheus that scrapes programs on this machine."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import PATIENCE, ROOT, free_port, program

ALERTS = ROOT / "docs" / "monitoring" / "adroll-alerts.yml"
DASHBOARD = ROOT / "docs" / "monitoring" / "adroll-dashboard.json"


@dataclass
class Prometheus:
    """One that runs."""

    port: int

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer of its API.

        :raises AssertionError: it does not take the query.
        """
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as problem:
            raise AssertionError(problem.read().decode()) from None
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The present value of each series, by its labels."""
        return {
            tuple(sorted(one["metric"].items())): float(one["value"][1])
            for one in self.get("query", query=expression)["result"]
        }

    def wait_for(self, expression: str, wanted: Callable[[set[float]], bool] = bool) -> set[float]:
        """The values of *expression*, as soon as they are as *wanted*."""
        until = time.monotonic() + PATIENCE
        while True:
            values = set(self.query(expression).values())
            if wanted(values):
                return values
            assert time.monotonic() < until, (expression, values)
            time.sleep(0.1)


@contextmanager
def scraping(folder: Path, targets: Sequence[int]) -> Iterator[Prometheus]:
    """A Prometheus with our alerts that scrapes these ports of this machine each half second."""
    port = free_port()
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "shop",
                "static_configs": [{"targets": [f"127.0.0.1:{target}" for target in targets]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                program("prometheus", "prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
                    break
            except OSError:
                said = (folder / "prometheus.log").read_text()
                assert process.poll() is None, said
                assert time.monotonic() < until, said
                time.sleep(0.05)
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait()
