"""Each line in the log has a name that stays, which docs/errors.md explains."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

LEVELS = {"info", "warning", "error", "critical", "exception"}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / "adroll_flask").rglob("*.py")):
        if "sandbox" not in path.parts:
            yield path, ast.parse(path.read_text())


def test_loggers_are_made_so_that_records_have_names() -> None:
    for path, tree in sources():
        if path.name == "logs.py":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger":
                assert not ast.unparse(node.args[0]).startswith("'adroll_flask"), path


def test_each_line_has_the_address_of_its_explanation() -> None:
    found = 0
    for path, tree in sources():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr in LEVELS and ast.unparse(node.func.value).endswith(
                ("logger", "audit")
            ):
                found += 1
                named = re.search(r" \[[a-z-]+\]['\"]|adroll_event", ast.unparse(node))
                assert named, f"{path}:{node.lineno}"
    assert found > 40
