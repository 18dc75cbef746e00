"""The package's own source, as trees."""

import ast
from functools import cache
from pathlib import Path

from tests.support import ROOT

PACKAGE = ROOT / "adroll_flask"


@cache
def modules(*, sandbox: bool = False) -> dict[str, Path]:
    """By name; the sandbox plays AdRoll's part, and what it says is AdRoll's words."""
    found = {path.relative_to(PACKAGE): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {
        ".".join(relative.with_suffix("").parts): path
        for relative, path in found.items()
        if sandbox or relative.parts[0] != "sandbox"
    }


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All of a module's source."""
    return tuple(ast.walk(ast.parse(path.read_text("utf-8"))))


@cache
def calls() -> tuple[tuple[Path, ast.Call], ...]:
    """Each call in the package, the sandbox's aside, and where it stands."""
    every = ((path, node) for path in modules().values() for node in nodes(path))
    return tuple((path, node) for path, node in every if isinstance(node, ast.Call))
