"""A pytest plugin, run inside a guest's suite: puts AdRoll on every Flask app that is made.

``-p everywhere --everywhere FILE``: the counters of all apps are added up in FILE, so that the
caller sees that AdRoll was at work and not just there.
"""

import json
from collections import Counter
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from adroll_flask import AdRoll

#: Not the apps: one that we held on to could hide a guest's test of leaks.
COUNTERS: list[Any] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--everywhere", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Wraps ``Flask.__init__``; the guests' own code stays as it is."""
    made, folder = Flask.__init__, config.getoption("--everywhere").parent

    @wraps(made)
    def init(app: Flask, *args: Any, **kwargs: Any) -> None:
        made(app, *args, **kwargs)
        app.config.update(
            ADROLL_ADVERTISABLE_EID="ADVERTISABLE0000000001",
            ADROLL_PIXEL_EID="PIXEL00000000000000001",
            ADROLL_ACCESS_TOKEN="a-token",
            ADROLL_API_URL="http://127.0.0.1:9/api",
            ADROLL_DELIVERY="worker",
            ADROLL_OUTBOX_URL=f"sqlite:///{folder / 'outbox.sqlite'}",
            # What goes wrong in AdRoll's part shows as an exception, not as a counter.
            ADROLL_STRICT=True,
        )
        AdRoll(app)
        COUNTERS.append(app.extensions["adroll"].counters)

    Flask.__init__ = init  # type: ignore[method-assign, assignment]


def pytest_sessionfinish(session: pytest.Session) -> None:
    total: Counter[str] = Counter(apps=len(COUNTERS))
    for counters in COUNTERS:
        total.update(counters.snapshot())
    session.config.getoption("--everywhere").write_text(json.dumps(total))
