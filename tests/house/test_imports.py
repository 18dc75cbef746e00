"""Imports run downwards only, in a dozen rules between folders; importing the package is cheap."""

import ast
import graphlib
from pathlib import Path

from tests.support.sources import PACKAGE, modules, nodes

from .weigh import budgets, weights

WINGS = {"visitor", "page", "events", "outbox", "delivery", "reporting"}
#: Who may import whom: a folder, or a module at the top of the package, and what stands below it.
#: What is not named may be imported by everybody: errors, host names, counters, redaction and such
#: know nothing of the rest.
MAY_IMPORT: dict[str, set[str]] = {
    "visitor": set(),
    "page": {"visitor"},
    "events": {"visitor", "outbox"},
    "outbox": set(),
    "delivery": {"outbox", "events"},
    "reporting": {"visitor", "events", "outbox"},
    "middle": WINGS,
    "top": {*WINGS, "middle", "findings", "dashboard"},
    "findings": {*WINGS, "middle"},
    "dashboard": {*WINGS, "middle", "findings"},
    "cli": {*WINGS, "middle", "top", "findings", "dashboard", "sandbox"},
    "entry": {"cli"},
    "sandbox": set(),
}
#: Modules at the top of the package that put the wings together, and the adapters above them.
MIDDLE = {"runtime"}
TOP = {"__init__", "celery", "endpoints", "extension", "prometheus"}
TOP |= {"asgi", "middleware", "middleware_base"}
TOP |= {"public_functions", "request_state", "session_mirror", "testing"}
#: What a person runs, above everything.
ENTRY = {"__main__"}


def place(name: str) -> str | None:
    """The folder of a module, ``middle`` or ``top``, or ``None`` for what everybody may import."""
    folder, dot, _ = name.partition(".")
    if dot or (PACKAGE / folder).is_dir():
        return folder
    if folder in ENTRY:
        return "entry"
    return "middle" if folder in MIDDLE else "top" if folder in TOP else None


def imported(name: str, path: Path) -> set[str]:
    """All that *path* imports when it is imported or run, a module or what is in one."""
    package = ["adroll_flask", *name.split(".")[:-1]]
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def imports(name: str, path: Path) -> set[str]:
    """The package's own modules among them."""
    ours = {target.removeprefix("adroll_flask.") for target in imported(name, path)}
    known = modules(sandbox=True)
    return {module for module in ours if module in known or f"{module}.__init__" in known} - {name}


def test_each_wing_keeps_its_budget_of_lines() -> None:
    allowed, lines = budgets(), weights()
    for wing, count in lines.items():
        assert wing in allowed, f"{wing}: give it a budget in tests/house/budgets.toml"
        assert count <= allowed[wing] * 1.05, (
            f"{wing} has {count} lines of code, its budget is {allowed[wing]}: take something away "
            "or raise it in tests/house/budgets.toml and say there why (CONTRIBUTING.md)"
        )
    in_all = sum(lines.values()) - lines["tests"] - lines["sandbox"]
    assert in_all <= allowed["sum"], f"{in_all} lines of code, of {allowed['sum']}"


def test_the_top_of_the_package_can_be_taken_in_at_a_glance() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 27


def test_there_is_no_circle_of_imports() -> None:
    graph = {name: imports(name, path) for name, path in modules(sandbox=True).items()}
    graphlib.TopologicalSorter(graph).prepare()  # its error names the circle


def test_folders_import_only_what_stands_below_them() -> None:
    for name, path in modules().items():
        own = place(name)
        for other in imports(name, path):
            there = place(other)
            allowed = there is None or there == own or there in MAY_IMPORT.get(own or "", set())
            assert allowed, f"{name} imports {other}"


def test_below_the_line_there_is_no_flask() -> None:
    for name, path in modules().items():
        if place(name) not in ("top", "cli", "findings", "dashboard"):
            libraries = {target.partition(".")[0] for target in imported(name, path)}
            assert not libraries & {"flask", "click"}, name
