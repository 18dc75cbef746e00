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
from tests.support import PAGES, ROOT


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
        "cancel_conversion",
        "current_visitor",
        "event_delivered",
        "event_queued",
        "event_rejected",
        "event_suppressed",
        "forget_visitor",
        "identify",
        "release_conversion",
        "report_conversion",
        "report_event",
        "reset_identity",
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
    # The docstring is what the site's reference shows.
    assert "app context" in (method.__doc__ or "")
    assert f"with app.app_context():\n                adroll.{name}()" in (method.__doc__ or "")


def test_every_setting_is_documented_and_nothing_else() -> None:
    text = (ROOT / "docs" / "reference" / "settings.md").read_text()
    # The page names the keys, and the build puts their comments there (docs/_ext/settings_list.py).
    lists = re.findall(r"```\{settings-list\}\n(.*?)```", text, re.DOTALL)
    documented = " ".join(lists).split()
    assert sorted(documented) == sorted(
        f"ADROLL_{field.name.upper()}" for field in fields(Settings)
    )


def test_every_command_is_documented_and_nothing_else() -> None:
    from adroll_flask.cli.commands import commands
    from adroll_flask.cli.outbox import outbox

    # The page names the commands, and the build puts their help there (docs/_ext/click_command.py).
    text = (ROOT / "docs" / "reference" / "commands.md").read_text()
    documented = re.findall(r"^```\{click-command\} (.+)$", text, re.MULTILINE)
    names = [name for name in commands.commands if name != "sandbox"]
    names += [f"outbox {name}" for name, command in outbox.commands.items() if not command.hidden]
    assert sorted(documented) == sorted(names)
    assert "flask adroll sandbox" in text


def test_links_in_the_documentation_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "SECURITY.md", *PAGES]:
        for target in re.findall(r"\]\(([^)#:\s*]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.slow
def test_a_users_program_type_checks(tmp_path: Path) -> None:
    program = ROOT / "tests" / "typed_program" / "api.py"
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
