"""``{log-lines}``: every line that the package logs, from its own source, by logger and level."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PACKAGE = Path(__file__).parents[2] / "adroll_flask"
LEVELS = {"critical": "CRITICAL", "error": "ERROR", "warning": "WARNING", "info": "INFO"}
ORDER = list(LEVELS.values())


def text_of(node: ast.expr) -> str:
    """The text of a call to a logger, with ``…`` for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
        for mark in ("%s", "%d", "%g", "%r"):
            text = text.replace(mark, "…")
        return text
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    return "…"


def lines() -> Iterator[tuple[str, str, str, str]]:
    """Logger, level, name and text of each line; those for developers of the package are left out,
    and those that are text alone: the worker's."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "sandbox" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        names = {
            node.targets[0].id if isinstance(node, ast.Assign) else node.target.id: value
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            and (value := logger_name(node.value)) is not None
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            of = node.func.value
            if isinstance(of, ast.Name) and of.id in names and node.args:
                said = text_of(node.args[0])
                text, named, event = said.removesuffix("]").rpartition(" [")
                if said != "…" and node.func.attr in LEVELS:
                    level = LEVELS[node.func.attr]
                    yield names[of.id], level, event if named else "…", text if named else said


def logger_name(node: ast.expr | None) -> str | None:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "get_logger":
        [name] = node.args
        return name.value if isinstance(name, ast.Constant) else None
    return None


class LogLines(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        found = sorted(set(lines()), key=lambda line: (line[0], ORDER.index(line[1]), line[3]))
        written = []
        for logger in dict.fromkeys(line[0] for line in found):
            written += [
                f"**`{logger}`**",
                "",
                "| level | `adroll_event` | line |",
                "| --- | --- | --- |",
            ]
            for of, level, event, text in found:
                if of == logger:
                    shown = text.replace("|", "\\|").replace("`", "'")
                    name = "…" if event == "…" else f"[`{event}`](../errors.md#{event})"
                    written.append(f"| {level} | {name} | `{shown}` |")
            written.append("")
        return self.parse_text_to_nodes("\n".join(written))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("log-lines", LogLines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
