"""Chromium for the sandbox's browser tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # On 127.0.0.1 host-only and domain cookies fall together; names keep them apart.
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP adroll.example 127.0.0.1",
]


def chromium() -> str:
    """The path of Chromium; without one the test is skipped, in CI it fails."""
    path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if Path(path).exists():
        return path
    said = f"no Chromium at {path}: apt-get install chromium, or set CHROMIUM to its path"
    if os.environ.get("CI") == "true":
        pytest.fail(said)
    pytest.skip(said)
