"""What users may rely on: names, types, documentation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import adroll_flask
from adroll_flask.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_the_public_names_are_sorted_and_there() -> None:
    assert adroll_flask.__all__ == sorted(adroll_flask.__all__)
    for name in adroll_flask.__all__:
        assert getattr(adroll_flask, name) is not None


def test_the_contract_is_exported() -> None:
    contract = {
        "AdRoll",
        "AdRollError",
        "AdRollMiddleware",
        "ConfigurationError",
        "DeliveryError",
        "EventError",
        "Receipt",
        "Visitor",
        "current_visitor",
        "event_delivered",
        "event_queued",
        "event_rejected",
        "event_suppressed",
        "forget_visitor",
        "identify",
        "report_conversion",
        "report_event",
        "visitor_identified",
    }
    assert contract <= set(adroll_flask.__all__)
    assert issubclass(adroll_flask.EventError, ValueError)


@pytest.mark.parametrize("name", [name for name in adroll_flask.__all__ if name[0].isupper()])
def test_public_classes_have_docstrings_all_through(name: str) -> None:
    thing = getattr(adroll_flask, name)
    assert thing.__doc__
    for method, value in vars(thing).items():
        if not method.startswith("_") and callable(value):
            assert value.__doc__, f"{name}.{method}"


@pytest.mark.parametrize("name", ["counters", "flush"])
def test_what_needs_an_app_context_says_so(name: str) -> None:
    method = getattr(adroll_flask.AdRoll, name)
    with pytest.raises(RuntimeError, match="application context"):
        method(adroll_flask.AdRoll())
    text = " ".join((ROOT / "docs" / "delivery.md").read_text().split())
    assert "app context" in (method.__doc__ or "")
    assert re.search(rf"adroll\.{name}\(\)`[^|]{{1,200}}with app\.app_context\(\):", text)


def test_every_setting_is_documented_and_nothing_else() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    documented = set(re.findall(r"^\| `(ADROLL_\w+)` \|", text, re.MULTILINE))
    assert documented == {f"ADROLL_{field.name.upper()}" for field in fields(Settings)}


def test_every_command_is_documented() -> None:
    from adroll_flask.cli import commands
    from adroll_flask.cli_outbox import outbox

    text = "\n".join(
        path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    )
    for command in commands.commands:
        assert f"flask adroll {command}" in text, command
    for command in outbox.commands:
        assert f"outbox {command}" in text, command


def test_links_in_the_documentation_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:\s*]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_a_users_program_type_checks(tmp_path: Path) -> None:
    program = ROOT / "tests" / "typing" / "api.py"
    result = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path)),
            *("--follow-imports", "silent", str(program)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stdout
