"""`make reference`: writes what the code says of itself into the reference's Markdown.

A page has a place for it, which begins with a comment and ends with one:

    <!-- written: settings ADROLL_PIXEL ADROLL_PIXEL_URL -->
    <!-- end -->

``settings`` takes keys, ``command`` a command, ``api`` names with their modules, ``log-lines``
nothing. What stands between the comments is written anew; tests/docs/test_reference.py says when
the code has other words.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from copy import copy
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path

import click

from adroll_flask.cli import explain
from adroll_flask.cli.commands import commands
from adroll_flask.settings import Settings

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "adroll_flask"
PAGES = sorted((HERE / "reference").glob("*.md"))
PLACE = re.compile(r"(<!-- written: ([\w-]+) ?(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
#: The widest line of a signature.
WIDTH = 88

# -- docstrings, which are reStructuredText, as Markdown ---------------------------------------


def inline(text: str) -> str:
    """Roles and literals as Markdown's code.

    >>> inline("as :func:`~adroll_flask.identify`, ``None`` and :meth:`replace`")
    'as `identify()`, `None` and `replace()`'
    """
    text = re.sub(r":(?:meth|func):`~?(?:[\w.]+\.)?(\w+)`", r"`\1()`", text)
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_code(line: str) -> bool:
    return not line or line.startswith(" ")


def markdown(doc: str) -> str:
    """A docstring as Markdown: its examples are blocks, its parameters a list."""
    written: list[str] = []
    lines = textwrap.dedent(doc).strip().splitlines()
    while lines:
        line = lines.pop(0)
        if line.startswith(">>>"):
            block = [line]
            while lines and lines[0]:
                block.append(lines.pop(0))
            written += ["```pycon", *block, "```"]
        elif line.endswith("::"):
            said = line.removesuffix("::")
            if said:
                written += [f"{said}:", ""]
            block = []
            while lines and _is_code(lines[0]):
                block.append(lines.pop(0))
            code = textwrap.dedent("\n".join(block)).strip("\n")
            language = "text" if "──" in code else "py"
            written += [f"```{language}", code, "```", ""]
        elif argument := re.match(r":(param|raises) ([\w.]+): (.*)", line):
            kind, name, said = argument.groups()
            begin = f"- `{name}`: " if kind == "param" else f"- raises `{name}`: "
            if written and written[-1] and not written[-1].startswith(("- ", "  ")):
                written.append("")
            written.append(begin + said)
            while lines and _is_code(lines[0]):
                more = lines.pop(0)
                written.append(f"  {more[4:]}".rstrip())
        else:
            written.append(line)
    parts = re.split(r"(^```.*?^```$)", "\n".join(written), flags=re.DOTALL | re.MULTILINE)
    text = "".join(part if part.startswith("```") else inline(part) for part in parts)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


# -- settings ----------------------------------------------------------------------------------


def comment_before(lines: list[str], number: int) -> str:
    """The ``#:`` comment above the line of that number, in one line."""
    said: list[str] = []
    for line in reversed(lines[: number - 1]):
        if not line.strip().startswith("#:"):
            break
        said.insert(0, line.strip().removeprefix("#:").strip())
    return inline(" ".join(said))


@cache
def _source(module: str) -> tuple[list[str], ast.Module]:
    text = Path(str(import_module(module).__file__)).read_text("utf-8")
    return text.splitlines(), ast.parse(text)


def _default(text: str) -> str:
    """A default as the reader types it; long spans of time and sizes also in words."""
    day = 86_400
    number = int(text.strip("`")) if text.strip("`").isdigit() else 0
    if number >= day and number % day == 0:
        return f"{text} ({number // day} days)"
    return f"{text} (1 GiB)" if number == 1 << 30 else text


def settings(keys: str) -> Iterator[str]:
    texts, kept = explain.settings(), {field.name: field for field in fields(Settings)}
    for key in keys.split():
        text, default = texts[key]
        # A time zone is given as a text and kept as what it names.
        kind = str(kept[key.removeprefix("ADROLL_").lower()].type).removesuffix(" | None")
        kind = kind.replace("tzinfo", "str")
        yield f"### {key}\n\n`{kind}`, default {inline(_default(default))}\n\n{inline(text)}"


# -- commands ----------------------------------------------------------------------------------


def command(name: str) -> Iterator[str]:
    """What ``--help`` of the command prints."""
    found: click.Command = commands
    context = click.Context(found, info_name="flask adroll")
    for part in name.split():
        found = found.commands[part]  # type: ignore[attr-defined]
        context = click.Context(found, info_name=part, parent=context, max_content_width=80)
    yield f"## flask adroll {name}\n\n```text\n{found.get_help(context)}\n```"


# -- functions, classes and what else has a docstring -------------------------------------------

Function = ast.FunctionDef | ast.AsyncFunctionDef


def signature(node: Function, name: str) -> str:
    """As it stands in the source, without ``self``; a line for each argument where it is long."""
    arguments = copy(node.args)
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments.args = arguments.args[1:]
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if node.name == "__init__":
        returned = ""
    # A default stands apart where its argument has a type (PEP 8).
    written_arguments = re.sub(r"(: [^:=]+?)=", r"\1 = ", ast.unparse(arguments))
    line = f"{name}({written_arguments}){returned}"
    if len(line) <= WIDTH:
        return line
    inner = "".join(f"    {part},\n" for part in _split(written_arguments))
    return f"{name}(\n{inner}){returned}"


def _split(arguments: str) -> list[str]:
    """Arguments at their commas, but for those within brackets."""
    parts, depth = [""], 0
    for char in arguments:
        depth += char in "([{"
        depth -= char in ")]}"
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _decorators(node: Function) -> set[str]:
    return {ast.unparse(one) for one in node.decorator_list}


def api(names: str) -> Iterator[str]:
    left_out = {name.removeprefix("-") for name in names.split() if name.startswith("-")}
    for path in names.split():
        if path.startswith("-"):
            continue
        module, _, name = path.rpartition(".")
        home = getattr(getattr(import_module(module), name), "__module__", module)
        lines, tree = _source(home if home.startswith("adroll_flask") else module)
        yield from _of(name, lines, _node(tree, name), left_out)


def _node(tree: ast.Module, name: str) -> ast.stmt:
    for node in tree.body:
        targets = [getattr(node, "target", None), *getattr(node, "targets", ())]
        if getattr(node, "name", None) == name or name in [getattr(t, "id", "") for t in targets]:
            return node
    raise LookupError(name)


def _of(name: str, lines: list[str], node: ast.stmt, left_out: set[str]) -> Iterator[str]:
    if isinstance(node, Function):
        yield _function(node, name, "###")
    elif isinstance(node, ast.ClassDef):
        yield from _class(node, lines, left_out)
    else:
        yield f"### {name}"
        yield comment_before(lines, node.lineno)
        if "Literal" in ast.unparse(node):
            values = [f"`{one.value!s}`" for one in ast.walk(node) if isinstance(one, ast.Constant)]
            yield ", ".join(values)


def _function(node: Function, name: str, level: str) -> str:
    doc = markdown(ast.get_docstring(node) or "")
    decorators = {ast.unparse(one) for one in node.decorator_list}
    if decorators & {"property", "cached_property"} and node.returns:
        return f"{level} {name}\n\n`{ast.unparse(node.returns)}`. {doc}"
    return f"{level} {name}\n\n```py\n{signature(node, name)}\n```\n\n{doc}"


def _class(node: ast.ClassDef, lines: list[str], left_out: set[str]) -> Iterator[str]:
    described = ast.get_docstring(node) or ""
    bases = [ast.unparse(base) for base in node.bases]
    errors = [base for base in bases if base.endswith(("Error", "Exception"))]
    functions = [one for one in node.body if isinstance(one, Function)]
    yield f"### {node.name}"
    for function in functions:
        if function.name == "__init__" and function.args.args[1:] and not errors:
            yield f"```py\n{signature(function, node.name)}\n```"
    if errors:
        yield "Base: " + ", ".join(f"`{base}`" for base in errors) + "."
    yield markdown(described)
    attributes = []
    for one in node.body:
        if not isinstance(one, ast.AnnAssign) or not isinstance(one.target, ast.Name):
            continue
        name, kind = one.target.id, ast.unparse(one.annotation)
        if name.startswith("_") or f":param {name}:" in described:
            continue
        # Of an event's attributes the types are ours alone.
        shown = f"- `{name}`" if "fields." in kind else f"- `{name}`: `{kind}`"
        said = comment_before(lines, one.lineno)
        attributes.append(f"{shown}. {said}" if said else shown)
    yield "\n".join(attributes)
    for function in functions:
        name = function.name
        if not name.startswith("_") and name not in left_out and ast.get_docstring(function):
            yield _function(function, f"{node.name}.{name}", "####")


# -- log lines ---------------------------------------------------------------------------------

LEVELS = ("critical", "error", "warning", "info")


def _text(node: ast.expr) -> str:
    """The text of a call to a logger, with ``…`` for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[sdgr]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    return "…"


def _logger_name(node: ast.expr | None) -> str | None:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "get_logger":
        [name] = node.args
        return str(name.value) if isinstance(name, ast.Constant) else None
    return None


def logged() -> Iterator[tuple[str, int, str, str]]:
    """Logger, level, text and name of each line; what is text alone, the worker's, is left out."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "sandbox" in path.relative_to(PACKAGE).parts:
            continue
        tree = ast.parse(path.read_text("utf-8"))
        loggers = {}
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and _logger_name(node.value):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                loggers[ast.unparse(target)] = str(_logger_name(node.value))
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            logger, level = loggers.get(ast.unparse(call.func.value)), call.func.attr
            if logger is None or level not in LEVELS or not call.args:
                continue
            text = _text(call.args[0])
            if text == "…":
                continue
            said, _, event = text.removesuffix("]").rpartition(" [")
            yield logger, LEVELS.index(level), said or text, event if said else "…"


def log_lines(_nothing: str) -> Iterator[str]:
    rows: dict[str, list[str]] = {}
    for logger, level, text, event in sorted(set(logged())):
        shown = text.replace("|", "\\|").replace("`", "'")
        name = "…" if event == "…" else f"[`{event}`](../errors.md#{event})"
        rows.setdefault(logger, []).append(f"| {LEVELS[level].upper()} | {name} | `{shown}` |")
    for logger, lines in rows.items():
        yield f"**`{logger}`**"
        yield "\n".join(["| level | `adroll_event` | line |", "| --- | --- | --- |", *lines])


# -- pages -------------------------------------------------------------------------------------

WRITERS = {"settings": settings, "command": command, "api": api, "log-lines": log_lines}


def written(page: str) -> str:
    """The page's text with all its places written anew."""

    def write(place: re.Match[str]) -> str:
        begin, writer, about, end = place.groups()
        text = "\n\n".join(part for part in WRITERS[writer](about) if part)
        text = "\n".join(line.rstrip() for line in text.splitlines())
        return f"{begin}\n{text}\n\n{end}"

    return PLACE.sub(write, page)


def main() -> None:
    for path in PAGES:
        page = path.read_text("utf-8")
        if written(page) != page:
            path.write_text(written(page), "utf-8")
            sys.stdout.write(f"{path.relative_to(HERE.parent)}\n")


if __name__ == "__main__":
    main()
