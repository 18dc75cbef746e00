"""A pytest plugin, run inside a guest's suite: writes down which tests passed.

``-p recorded --recorded FILE``; it knows nothing of the package.
"""

import json
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--recorded", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config.getoption("--recorded")))


class Recorder:
    """Outcomes by test id; a test passed where none of its phases failed or was skipped."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._outcomes: dict[str, str] = {}
        #: Where each test that failed did so.
        self._why: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        worse = self._outcomes.get(report.nodeid, "passed") == "passed"
        if worse:
            self._outcomes[report.nodeid] = report.outcome
        if report.failed:
            self._why[report.nodeid] = report.longreprtext[-2000:]

    def pytest_sessionfinish(self) -> None:
        passed = sorted(test for test, outcome in self._outcomes.items() if outcome == "passed")
        self._file.write_text(
            json.dumps({"passed": passed, "ran": len(self._outcomes), "why": self._why})
        )
