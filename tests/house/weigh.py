"""Lines of code by wing, and the budgets that they keep: ``python -m tests.house.weigh``.

Blank lines, comments and docstrings weigh nothing.
"""

import ast
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUDGETS = Path(__file__).with_name("budgets.toml")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def weigh(text: str) -> int:
    """Lines of code of one module."""
    docstrings: set[int] = set()
    in_texts: set[int] = set()  # a text's lines count, whatever they hold
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant | ast.JoinedStr):
            if node.end_lineno != node.lineno:
                in_texts.update(range(node.lineno, (node.end_lineno or 0) + 1))
        elif isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            said = node.body[0]
            docstrings.update(range(said.lineno, (said.end_lineno or said.lineno) + 1))
    lines = enumerate(map(str.strip, text.splitlines()), 1)
    code = {number for number, line in lines if line and not line.startswith("#")}
    return len((code | in_texts) - docstrings)


def weights() -> dict[str, int]:
    """Lines of code by wing; ``top`` are the package's own modules, ``tests`` all tests."""
    found: Counter[str] = Counter()
    for path in (ROOT / "adroll_flask").rglob("*.py"):
        wing, *below = path.relative_to(ROOT / "adroll_flask").parts
        found[wing if below else "top"] += weigh(path.read_text())
    found["tests"] = sum(weigh(path.read_text()) for path in (ROOT / "tests").rglob("*.py"))
    return dict(found)


def budgets() -> dict[str, int]:
    """The most that each wing may have."""
    table: dict[str, int] = tomllib.loads(BUDGETS.read_text())
    return table


if __name__ == "__main__":
    most = budgets()
    for wing, lines in sorted(weights().items(), key=lambda item: -item[1]):
        print(f"{lines:7,}  {wing:10} of {most.get(wing, 0):7,}")
    print(f"{sum(weights().values()) - weights()['tests']:7,}  in all but the tests")
