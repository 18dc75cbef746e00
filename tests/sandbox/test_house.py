"""The sandbox stands alone, and its README says what is true."""

from __future__ import annotations

import ast
import doctest
import re
import sys
from pathlib import Path

import pytest

import adroll_flask.sandbox
from adroll_flask.sandbox import app, faults, serving

FOLDER = Path(adroll_flask.sandbox.__file__).parent
TESTS = Path(__file__).parent
README = (FOLDER / "README.md").read_text()
ALLOWED = {"flask", "adroll_flask", "_typeshed", *sys.stdlib_module_names}


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.name)
def test_it_imports_flask_and_the_standard_library_and_itself(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level <= 1
            names = [] if node.level else [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            assert name.partition(".")[0] in ALLOWED, name
            if name.startswith("adroll_flask"):
                assert name.startswith("adroll_flask.sandbox"), name


def test_each_rule_has_a_test_and_the_test_exists() -> None:
    rules = README.partition("## The rules")[2]
    rows = re.findall(r"^\| (?!rule|---)(.+?) \| `(\w+)` \|$", rules, re.MULTILINE)
    lines = [line for line in rules.splitlines() if line.startswith("| ")]
    assert len(rows) == len(lines) - 2 > 50
    known = {
        node.name
        for path in TESTS.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert {test for _, test in rows} <= known


def test_each_key_of_a_fault_is_in_the_readme() -> None:
    table = README.partition("## Faults")[2].partition("## Who")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= set(faults._KINDS)


def test_each_route_is_in_the_readme() -> None:
    table = README.partition("## In a test")[0]
    rules = {rule.rule for rule in app.create_app().url_map.iter_rules()}
    routes = {rule.split("/")[1] for rule in rules} - {"assets", "pixel", "live"}
    assert {route for route in routes if f"| `/{route}" not in table} == set()


@pytest.mark.parametrize("module", [app, serving])
def test_the_examples_run(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted
    assert not result.failed


def test_modules_stay_small() -> None:
    for path in FOLDER.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path.name


def test_public_names_are_sorted_and_there() -> None:
    names = adroll_flask.sandbox.__all__
    # Constants, then classes, then functions: the order of the linter.
    assert len(set(names)) == len(names)
    assert all(hasattr(adroll_flask.sandbox, name) for name in names)
